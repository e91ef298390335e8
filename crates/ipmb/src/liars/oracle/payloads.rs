use crate::{BytesMessage, Encoder, MessageBox, Payload, TypeUuid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug};

/// Something of each kind that serde knows.
#[derive(Debug, Serialize, Deserialize)]
struct Rich {
    scalars: (bool, i8, i16, i32, i64, i128),
    naturals: (u8, u16, u32, u64, u128, usize),
    floats: (f32, f64),
    char: char,
    text: String,
    bytes: Vec<u8>,
    unit: (),
    tree: Option<Box<Tree>>,
    map: BTreeMap<String, Vec<Option<i32>>>,
    units: Vec<()>,
    result: Result<u8, String>,
    time: std::time::Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Value(i32),
    Pair(Box<Tree>, Box<Tree>),
    Node { name: String, children: Vec<Tree> },
}

/// Gives any type a place on the bus.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Typed<T>(T);

impl<T> TypeUuid for Typed<T> {
    const UUID: [u8; 16] = [7; 16];
}

/// Reads a value of the type that the first byte says.
pub fn payloads(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 12 {
        0 => value::<Rich>(bytes),
        1 => value::<Tree>(bytes),
        2 => value::<Vec<String>>(bytes),
        3 => value::<BTreeMap<u8, Option<bool>>>(bytes),
        4 => value::<(u16, u32, u64, u128, usize)>(bytes),
        5 => value::<(i16, i32, i64, i128)>(bytes),
        6 => value::<(char, f32, f64, bool)>(bytes),
        7 => value::<Vec<()>>(bytes),
        8 => value::<Result<(), [u8; 3]>>(bytes),
        9 => value::<crate::Label>(bytes),
        10 => value::<crate::LabelOp>(bytes),
        _ => raw(bytes),
    }
}

/// What decodes was bounded by its bytes, says the same when it is sent again, and no other type takes its place.
fn value<T: Serialize + DeserializeOwned + Debug + Send + 'static>(bytes: &[u8]) {
    let decode = |bytes| Typed::<T>::decode(&Typed::<T>::UUID, &mut Payload::new(bytes));
    let Ok(read) = decode(bytes) else {
        return;
    };
    let mut encoder = Encoder::new();
    read.encode(&mut encoder)
        .expect("what was read can be sent");
    let written = [encoder.head(), encoder.tail()].concat();
    assert!(written.len() <= bytes.len(), "it has grown");
    let again = decode(&written).expect("what was sent can be read");
    // Not by `==`: there are NaNs.
    assert_eq!(format!("{read:?}"), format!("{again:?}"));
    // Postcard agrees, but for its looseness.
    let theirs = postcard::take_from_bytes::<Typed<T>>(bytes);
    let (theirs, rest) = theirs.expect("postcard reads what we read");
    assert!(rest.is_empty());
    assert_eq!(format!("{read:?}"), format!("{theirs:?}"));
}

fn raw(bytes: &[u8]) {
    let mut scratch = Vec::new();
    let start = std::ptr::NonNull::from(bytes).cast();
    let decode = |payload: &mut Payload<'_>| BytesMessage::decode(&BytesMessage::UUID, payload);
    // SAFETY: the bytes are borrowed for as long as this takes.
    let read = unsafe {
        let (len, keep) = (bytes.len(), &mut || None);
        Payload::with_shared(start, len, len, &mut scratch, keep, decode)
    };
    match bytes.split_first_chunk() {
        None => assert!(read.is_err()),
        Some((format, data)) => {
            let read = read.expect("it is long enough");
            assert_eq!(read.format, u16::from_le_bytes(*format));
            assert_eq!(read.data, data);
        }
    }
}
