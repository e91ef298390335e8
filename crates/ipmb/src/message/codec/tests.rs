//! What every value and every byte string must do; run as property tests.

use super::{super::Encoder, *};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One of each kind of serde's data model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rich {
    scalars: (bool, i8, i16, i32, i64, i128),
    naturals: (u8, u16, u32, u64, u128, usize),
    floats: [f64; 2],
    single: f32,
    char: char,
    text: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    numbers: Vec<u8>,
    unit: (),
    marker: Marker,
    newtype: Newtype,
    pair: Pair,
    tree: Option<Tree>,
    map: BTreeMap<String, Vec<Option<i32>>>,
    set: BTreeSet<u64>,
    units: Vec<()>,
    result: Result<u8, String>,
    time: std::time::Duration,
    address: std::net::IpAddr,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Marker;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(i64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(u16, String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Value(i32),
    Pair(Box<Tree>, Box<Tree>),
    Node { name: String, children: Vec<Tree> },
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![Just(Tree::Leaf), any::<i32>().prop_map(Tree::Value)];
    leaf.prop_recursive(5, 40, 4, |tree| {
        prop_oneof![
            (tree.clone(), tree.clone()).prop_map(|(a, b)| Tree::Pair(a.into(), b.into())),
            (any::<String>(), prop::collection::vec(tree, 0..4))
                .prop_map(|(name, children)| Tree::Node { name, children }),
        ]
    })
}

prop_compose! {
    fn rich()(
        scalars in any::<(bool, i8, i16, i32, i64, i128)>(),
        naturals in any::<(u8, u16, u32, u64, u128, usize)>(),
        floats in any::<[f64; 2]>(),
        (single, char, text) in any::<(f32, char, String)>(),
        (bytes, numbers) in prop::collection::vec(any::<u8>(), 0..600)
            .prop_map(|bytes| (bytes.clone(), bytes)),
        newtype in any::<i64>().prop_map(Newtype),
        pair in any::<(u16, String)>().prop_map(|(a, b)| Pair(a, b)),
        tree in prop::option::of(tree()),
        (map, set) in (
            prop::collection::btree_map(".{0,4}", prop::collection::vec(any::<Option<i32>>(), 0..4), 0..4),
            prop::collection::btree_set(any::<u64>(), 0..8),
        ),
        (units, result) in any::<(Vec<()>, Result<u8, String>)>(),
        (time, address) in any::<(std::time::Duration, std::net::IpAddr)>(),
    ) -> Rich {
        Rich {
            scalars, naturals, floats, single, char, text, bytes, numbers, unit: (), marker: Marker, newtype,
            pair, tree, map, set, units, result, time, address,
        }
    }
}

fn wire<T: Serialize>(value: &T) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encode(value, &mut encoder).unwrap();
    encoder.head().to_vec()
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Decode(error)) => error.to_string(),
        Err(other) => panic!("not a decode error: {other}"),
        Ok(_) => panic!("it decoded"),
    }
}

/// Whatever postcard takes to the last byte we take with the same result, and nothing else.
///
/// Where we are stricter or bounded it is by design: a char is one character, and the limits.
fn compare<T: DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let theirs = postcard::take_from_bytes::<T>(bytes).ok();
    let ours = decode::<T>(bytes);
    match (ours, theirs) {
        (Ok(ours), Some((theirs, rest))) => {
            assert!(rest.is_empty());
            // Not by `==`: there are NaNs.
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        }
        (Ok(ours), None) => panic!("postcard refuses what we read as {ours:?}"),
        (Err(error), Some((theirs, rest))) => {
            let limits = ["UTF-8", "levels", "elements"];
            let error = error.to_string();
            assert!(
                !rest.is_empty() || limits.iter().any(|limit| error.contains(limit)),
                "{error}, but postcard reads {theirs:?}"
            );
        }
        (Err(_), None) => {}
    }
}

proptest! {
    #[test]
    fn every_value_has_postcards_bytes_and_comes_back(value in rich()) {
        let bytes = wire(&value);
        prop_assert_eq!(&bytes, &postcard::to_allocvec(&value).unwrap());
        prop_assert_eq!(decode::<Rich>(&bytes).unwrap(), value);
    }

    #[test]
    fn a_damaged_value_reads_as_postcard_reads_it_or_not_at_all(
        value in rich(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = wire(&value);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Postcard itself would loop over as many units as are claimed.
        if decode::<Rich>(&bytes).is_ok() {
            compare::<Rich>(&bytes);
        }
    }

    #[test]
    fn random_bytes_read_as_postcard_reads_them_or_not_at_all(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8, 126..130_u8], 0..40),
    ) {
        compare::<Tree>(&bytes);
        compare::<(u16, u32, u64)>(&bytes);
        compare::<(i16, i32, i64)>(&bytes);
        compare::<u16>(&bytes);
        compare::<u32>(&bytes);
        compare::<u64>(&bytes);
        compare::<u128>(&bytes);
        compare::<i128>(&bytes);
        compare::<usize>(&bytes);
        compare::<char>(&bytes);
        compare::<(bool, Option<u8>, f32, f64)>(&bytes);
        compare::<Vec<String>>(&bytes);
        compare::<BTreeMap<u8, Option<bool>>>(&bytes);
        compare::<serde_bytes::ByteBuf>(&bytes);
        compare::<Result<Newtype, Pair>>(&bytes);
        let _ = decode::<Rich>(&bytes);
    }
}

#[test]
fn the_edges_of_the_integers_survive() {
    macro_rules! edges {
        ($($ty:ty),*) => {$(
            for shift in 0..<$ty>::BITS {
                for value in [<$ty>::MIN, <$ty>::MAX, 1 << shift, (1 << shift) - 1] {
                    assert_eq!(decode::<$ty>(&wire(&value)).unwrap(), value);
                    compare::<$ty>(&wire(&value));
                }
            }
        )*};
    }
    edges!(u8, u16, u32, u64, u128, usize);
    for value in [i128::MIN, i128::MAX, i128::from(i64::MIN), -1, 0, 1] {
        assert_eq!(decode::<i128>(&wire(&value)).unwrap(), value);
        assert_eq!(decode::<i64>(&wire(&(value as i64))).unwrap(), value as i64);
        assert_eq!(decode::<i16>(&wire(&(value as i16))).unwrap(), value as i16);
    }
}

#[test]
fn a_claim_of_endless_units_does_not_loop() {
    // The longest length that this system has; a longer one is refused as a number already.
    let endless = wire(&(usize::MAX as u64));
    assert!(message(decode::<Vec<()>>(&endless)).contains("take no bytes"));
    let mut nested = wire(&1000_u64);
    for _ in 0..1000 {
        nested.extend(wire(&1000_u64));
    }
    assert!(message(decode::<Vec<Vec<()>>>(&nested)).contains("take no bytes"));
    assert!(message(decode::<Vec<Marker>>(&endless)).contains("take no bytes"));
    assert!(message(decode::<BTreeMap<(), Marker>>(&endless)).contains("take no bytes"));
    assert_eq!(decode::<Vec<()>>(&wire(&1000_u64)).unwrap().len(), 1000);
}

#[test]
fn a_claim_of_many_elements_does_not_reserve_for_them() {
    /// Notes the largest hint that a collection got.
    struct Hint(usize);
    impl<'de> Deserialize<'de> for Hint {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Hint;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a sequence or map")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(
                    self,
                    mut seq: A,
                ) -> Result<Hint, A::Error> {
                    let hint = seq.size_hint().unwrap();
                    while seq.next_element::<u8>()?.is_some() {}
                    Ok(Hint(hint))
                }
            }
            deserializer.deserialize_seq(Visitor)
        }
    }
    assert_eq!(decode::<Hint>(&wire(&vec![1_u8; 100])).unwrap().0, 100);
    assert_eq!(
        decode::<Hint>(&wire(&vec![1_u8; 1 << 20])).unwrap().0,
        1 << 16
    );
    for claim in [1 << 20, u64::MAX / 8, u64::MAX] {
        let claim = wire(&claim);
        message(decode::<Vec<[u64; 32]>>(&claim));
        message(decode::<Vec<u8>>(&claim));
        message(decode::<String>(&claim));
        message(decode::<serde_bytes::ByteBuf>(&claim));
        message(decode::<BTreeMap<u64, u64>>(&claim));
    }
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    #[derive(Debug, Serialize, Deserialize)]
    struct List(Option<Box<List>>);
    #[derive(Debug, Serialize, Deserialize)]
    struct Seq(Vec<Seq>);
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Transparent(Option<Box<Transparent>>);
    #[derive(Debug, Serialize, Deserialize)]
    enum Chain {
        End,
        Link(Box<Chain>),
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Map(BTreeMap<u8, Map>);

    let deep = vec![1; 1 << 20];
    assert!(message(decode::<List>(&deep)).contains("128 levels"));
    assert!(message(decode::<Seq>(&deep)).contains("128 levels"));
    assert!(message(decode::<Transparent>(&deep)).contains("128 levels"));
    assert!(message(decode::<Chain>(&deep)).contains("128 levels"));
    assert!(message(decode::<Map>(&deep)).contains("128 levels"));

    let chain = |links: usize| [vec![1; links], vec![0]].concat();
    decode::<Chain>(&chain(127)).unwrap();
    assert!(message(decode::<Chain>(&chain(128))).contains("128 levels"));
    // Siblings are not nested.
    let wide: Vec<Option<Newtype>> = vec![Some(Newtype(1)); 10_000];
    assert_eq!(decode::<Vec<Option<Newtype>>>(&wire(&wide)).unwrap(), wide);
}

#[test]
fn malformed_bytes_say_what_is_wrong() {
    assert!(message(decode::<u8>(&[])).contains("too early"));
    assert!(message(decode::<u8>(&[1, 2])).contains("left over"));
    assert!(message(decode::<bool>(&[2])).contains("bool"));
    assert!(message(decode::<Option<()>>(&[2])).contains("option"));
    assert!(message(decode::<u16>(&[0xff, 0xff, 4])).contains("range"));
    assert!(message(decode::<u64>(&[0x80; 9])).contains("too early"));
    assert!(message(decode::<u64>(&[0x80; 20])).contains("range"));
    assert!(message(decode::<String>(&[1, 0xff])).contains("UTF-8"));
    assert!(message(decode::<char>(&[2, b'a', b'b'])).contains("char"));
    assert!(message(decode::<Tree>(&[9])).contains("variant"));
}

#[test]
fn a_type_that_describes_itself_is_told_why_it_does_not_decode() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }
    let bytes = wire(&Untagged::Number(1));
    assert!(message(decode::<Untagged>(&bytes)).contains("self-describing"));
}

#[test]
fn a_value_that_cannot_be_encoded_is_an_error() {
    struct Unknown;
    impl Serialize for Unknown {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(std::iter::from_fn(|| None::<u8>))
        }
    }
    let mut encoder = Encoder::new();
    assert!(matches!(
        encode(&Unknown, &mut encoder),
        Err(Error::Encode(_))
    ));
}

#[test]
fn what_cannot_be_received_cannot_be_sent() {
    #[derive(Debug, Serialize, Deserialize)]
    struct List(Option<Box<List>>);
    let list = |links| (0..links).fold(List(None), |list, _| List(Some(Box::new(list))));
    let refused = |value: &dyn Fn(&mut Encoder<'_>) -> Result<(), Error>| {
        matches!(value(&mut Encoder::new()), Err(Error::Encode(_)))
    };
    // The innermost newtype is a level, each link two.
    decode::<List>(&wire(&list(63))).unwrap();
    assert!(refused(&|encoder| encode(&list(64), encoder)));
    assert_eq!(
        decode::<Vec<()>>(&wire(&vec![(); 1 << 16])).unwrap().len(),
        1 << 16
    );
    assert!(refused(&|encoder| encode(
        &vec![(); (1 << 16) + 1],
        encoder
    )));
    assert!(message(decode::<Vec<()>>(&wire(&((1_u64 << 16) + 1)))).contains("take no bytes"));

    let tree = |depth| {
        (0..depth).fold(Tree::Leaf, |tree, _| {
            Tree::Pair(tree.into(), Tree::Leaf.into())
        })
    };
    decode::<Tree>(&wire(&tree(127))).unwrap();
    assert!(refused(&|encoder| encode(&tree(128), encoder)));
}
