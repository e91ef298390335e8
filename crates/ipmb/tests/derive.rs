//! The derives `MessageBox` and `TypeUuid` as programs use them.

#![allow(clippy::unwrap_used)]

use ipmb::{BytesMessage, Encoder, Error, MessageBox, Payload, TypeUuid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

fn wire<T: MessageBox>(value: &T) -> Vec<u8> {
    let mut encoder = Encoder::new();
    value.encode(&mut encoder).unwrap();
    [encoder.head(), encoder.tail()].concat()
}

fn read<T: MessageBox>(uuid: &[u8; 16], wire: &[u8]) -> Result<T, Error> {
    T::decode(uuid, &mut Payload::new(wire))
}

mod by_type_uuid {
    #[cfg(not(feature = "type-uuid"))]
    use ipmb::TypeUuid;
    use serde::{Deserialize, Serialize};
    #[cfg(feature = "type-uuid")]
    use type_uuid::TypeUuid;

    #[derive(Debug, PartialEq, Serialize, Deserialize, TypeUuid)]
    #[uuid = "7b07473e-9659-4d47-a502-8245d71c0078"]
    pub struct MyMessage {
        pub foo: i32,
        pub bar: bool,
    }
}
use by_type_uuid::MyMessage;

#[derive(Debug, PartialEq, Serialize, Deserialize, TypeUuid)]
#[uuid = "11111111-9659-4d47-a502-8245d71c0078"]
struct Ours {
    text: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, TypeUuid)]
#[uuid = "22222222-9659-4d47-a502-8245d71c0078"]
struct Wrapper<T: Clone>
where
    T: PartialEq,
{
    inner: Vec<T>,
}

#[derive(Debug, PartialEq, MessageBox)]
enum Multiple {
    String(String),
    I32(i32),
    MyMessage(MyMessage),
    Ours(Ours),
    Bytes(BytesMessage),
    Wrapper(Wrapper<u8>),
    Unit(()),
}

#[derive(Debug, PartialEq, MessageBox)]
enum Nested {
    U8(u8),
    Multiple(Multiple),
}

#[derive(Debug, MessageBox)]
enum Generic<T: Clone + PartialEq + Serialize + DeserializeOwned, B> {
    Wrapper(Wrapper<T>),
    Other(B),
}

#[derive(Debug, MessageBox)]
enum Nothing {}

#[derive(Debug, PartialEq, MessageBox)]
enum Twice {
    First(u8),
    Second(u8),
}

mod reexport {
    pub mod deep {
        pub use ipmb as bus;
    }
}

#[derive(Debug, PartialEq, MessageBox)]
#[message_box(crate = "crate::reexport::deep::bus")]
enum Reexported {
    U8(u8),
}

fn all() -> Vec<Multiple> {
    vec![
        Multiple::String("hello".into()),
        Multiple::I32(-5),
        Multiple::MyMessage(MyMessage { foo: 7, bar: true }),
        Multiple::Ours(Ours {
            text: "x".repeat(1000),
        }),
        Multiple::Bytes(BytesMessage {
            format: 3,
            data: vec![1; 500],
        }),
        Multiple::Wrapper(Wrapper { inner: vec![1, 2] }),
        Multiple::Unit(()),
    ]
}

#[test]
fn every_variant_comes_back_as_itself() {
    for value in all() {
        let uuid = value.uuid();
        assert!(Multiple::accepts(&uuid));
        assert_eq!(read::<Multiple>(&uuid, &wire(&value)).unwrap(), value);
    }
}

#[test]
fn a_variant_is_on_the_wire_what_its_type_alone_is() {
    let value = Multiple::MyMessage(MyMessage { foo: 7, bar: true });
    assert_eq!(value.uuid(), MyMessage::UUID);
    let alone: MyMessage = read(&MyMessage::UUID, &wire(&value)).unwrap();
    assert_eq!(alone, MyMessage { foo: 7, bar: true });
    assert_eq!(<MyMessage as TypeUuid>::UUID[..4], [0x7b, 0x07, 0x47, 0x3e]);
}

#[test]
fn bytes_in_a_variant_are_still_not_copied_on_the_way_out() {
    let value = Multiple::Bytes(BytesMessage {
        format: 3,
        data: vec![1; 500],
    });
    let Multiple::Bytes(bytes) = &value else {
        unreachable!()
    };
    let mut encoder = Encoder::new();
    value.encode(&mut encoder).unwrap();
    assert_eq!(encoder.tail().as_ptr(), bytes.data.as_ptr());
    assert_eq!(encoder.head(), [3, 0]);
}

#[test]
fn enums_nest() {
    for value in all() {
        let uuid = value.uuid();
        let wire = wire(&value);
        assert_eq!(
            read::<Nested>(&uuid, &wire).unwrap(),
            Nested::Multiple(value)
        );
    }
    assert_eq!(read::<Nested>(&u8::UUID, &[4]).unwrap(), Nested::U8(4));
}

#[test]
fn generic_enums_work() {
    type G = Generic<u16, String>;
    let value: G = Generic::Other("hi".into());
    assert!(
        matches!(read::<G>(&value.uuid(), &wire(&value)), Ok(Generic::Other(text)) if text == "hi")
    );
    let value: G = Generic::Wrapper(Wrapper { inner: vec![300] });
    assert!(
        matches!(read::<G>(&value.uuid(), &wire(&value)), Ok(Generic::Wrapper(w)) if w.inner == [300])
    );
}

#[test]
fn an_unknown_uuid_is_not_found() {
    assert!(!Multiple::accepts(&f64::UUID));
    assert!(matches!(
        read::<Multiple>(&f64::UUID, &[]),
        Err(Error::TypeUuidNotFound)
    ));
    assert!(!Nothing::accepts(&f64::UUID));
    assert!(matches!(
        read::<Nothing>(&f64::UUID, &[]),
        Err(Error::TypeUuidNotFound)
    ));
}

#[test]
fn the_first_of_two_variants_with_one_type_receives() {
    let value = Twice::Second(9);
    assert_eq!(
        read::<Twice>(&value.uuid(), &wire(&value)).unwrap(),
        Twice::First(9)
    );
}

#[test]
fn a_reexport_can_be_named() {
    assert_eq!(
        read::<Reexported>(&u8::UUID, &[1]).unwrap(),
        Reexported::U8(1)
    );
}
