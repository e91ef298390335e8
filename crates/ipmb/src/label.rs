//! The label of an endpoint: a small set of strings that selectors are matched against.
//!
//! A [`Label`] is plain data with no interior mutability. The endpoint owns one from `join` on; the control plane
//! passes it between processes in the byte form of [`Label::encode`].

mod op;

pub(crate) use op::CODE_MAX;
pub use op::LabelOp;

use crate::Error;
use crate::error::DecodeError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How many parts a label may have.
pub(crate) const MAX_PARTS: usize = 64;
/// How many bytes one part of a label, or a leaf of an expression, may have.
pub(crate) const MAX_PART_LEN: usize = 256;

const TOO_MANY_PARTS: &str = "the label has more than 64 parts; remove some";
const PART_TOO_LONG: &str = "a part of the label is longer than 256 bytes; shorten it";

/// The names of an endpoint: a set of strings, matched by the [`LabelOp`](crate::LabelOp) of a selector.
///
/// Built with [`label!`](crate::label!), from any iterator of strings, or part by part. Strings are compared byte
/// by byte: case counts, nothing is trimmed or normalised, and the empty string is a part like any other.
///
/// Two labels are equal if they have the same parts, in whatever order; [`iter`](Label::iter) gives them in the order
/// in which they were first inserted.
///
/// # Limits
///
/// A label of more than 64 parts, or with a part of more than 256 bytes, can be built but not used:
/// [`join`](crate::join) returns [`JoinError::InvalidOption`](crate::JoinError::InvalidOption) for it. Inserting looks
/// at every part there is, which is meant for labels within these limits.
///
/// # Examples
///
/// ```
/// use ipmb::{Label, label};
///
/// let mut label = label!("earth", "planet");
/// label.insert("earth"); // it is there already
/// assert_eq!(label, Label::from(["planet", "earth"]));
/// assert!(label.all(["earth"]));
/// label.remove("earth");
/// assert_eq!(label.iter().collect::<Vec<_>>(), ["planet"]);
/// ```
#[derive(Clone, Default)]
pub struct Label {
    /// No two are equal.
    parts: Vec<Box<str>>,
}

impl Label {
    /// Adds a part; one that is there already is not added again.
    ///
    /// The limits of a label are checked when it is used, not here.
    pub fn insert<S: AsRef<str>>(&mut self, part: S) {
        let part = part.as_ref();
        if !self.contains(part.as_bytes()) {
            self.parts.push(part.into());
        }
    }

    /// Removes a part; one that is not there is no error.
    pub fn remove(&mut self, part: &str) {
        self.parts.retain(|have| **have != *part);
    }

    /// Whether every string of `parts` is a part of this label. True if `parts` is empty.
    pub fn all<'a, I: IntoIterator<Item = &'a str>>(&self, parts: I) -> bool {
        parts.into_iter().all(|part| self.contains(part.as_bytes()))
    }

    /// The parts, in the order in which they were first inserted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| &**part)
    }

    /// Whether these bytes are one of the parts.
    #[inline]
    pub(crate) fn contains(&self, part: &[u8]) -> bool {
        self.parts.iter().any(|have| have.as_bytes() == part)
    }

    /// Whether the label is within the limits.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.parts.len() > MAX_PARTS {
            return Err(Error::Limit(TOO_MANY_PARTS));
        }
        if self.parts.iter().any(|part| part.len() > MAX_PART_LEN) {
            return Err(Error::Limit(PART_TOO_LONG));
        }
        Ok(())
    }

    /// Appends the label's bytes to `out`: the number of parts in one byte, then each part's length in two bytes,
    /// little-endian, and its text.
    ///
    /// The label must have passed [`check`](Label::check). The bytes of one that has not are refused by
    /// [`decode`](Label::decode), since a number that does not fit is written as the largest that does.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.parts.len()).unwrap_or(u8::MAX));
        for part in &self.parts {
            let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Reads what [`encode`](Label::encode) wrote. `bytes` may come from anybody: everything is verified, and nothing
    /// is allocated by a length they claim.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |what: &str| Error::Decode(DecodeError(format!("label: {what}")));
        let (&count, mut rest) = bytes.split_first().ok_or_else(|| malformed("no bytes"))?;
        if usize::from(count) > MAX_PARTS {
            return Err(Error::Limit(TOO_MANY_PARTS));
        }
        let mut label = Self::default();
        for _ in 0..count {
            let (len, tail) = rest
                .split_first_chunk::<2>()
                .ok_or_else(|| malformed("ends within a length"))?;
            let len = usize::from(u16::from_le_bytes(*len));
            if len > MAX_PART_LEN {
                return Err(Error::Limit(PART_TOO_LONG));
            }
            let (part, tail) = tail
                .split_at_checked(len)
                .ok_or_else(|| malformed("ends within a part"))?;
            if label.contains(part) {
                return Err(malformed("the same part twice"));
            }
            let part = std::str::from_utf8(part).map_err(|_| malformed("a part is not UTF-8"))?;
            label.parts.push(part.into());
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(malformed("bytes after the last part"));
        }
        Ok(label)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Label")?;
        f.debug_set().entries(&self.parts).finish()
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        // As many parts and no part twice: if all of ours are theirs, all of theirs are ours.
        self.parts == other.parts
            || self.parts.len() == other.parts.len()
                && self
                    .parts
                    .iter()
                    .all(|part| other.contains(part.as_bytes()))
    }
}

impl Eq for Label {}

impl<T, S> From<T> for Label
where
    T: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    fn from(parts: T) -> Self {
        let mut label = Self::default();
        for part in parts {
            label.insert(part);
        }
        label
    }
}

impl<S: AsRef<str>> FromIterator<S> for Label {
    fn from_iter<T: IntoIterator<Item = S>>(parts: T) -> Self {
        Self::from(parts)
    }
}

impl<S: AsRef<str>> Extend<S> for Label {
    fn extend<T: IntoIterator<Item = S>>(&mut self, parts: T) {
        for part in parts {
            self.insert(part);
        }
    }
}

/// As a sequence of strings.
impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts.serialize(serializer)
    }
}

/// From a sequence of strings, within the limits of a label.
impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence of at most 64 strings of at most 256 bytes")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Label, A::Error> {
                let mut label = Label::default();
                while let Some(part) = seq.next_element::<String>()? {
                    label.insert(part);
                    label.check().map_err(serde::de::Error::custom)?;
                }
                Ok(label)
            }
        }

        deserializer.deserialize_seq(Visitor)
    }
}

/// Builds a [`Label`] from expressions that are `AsRef<str>`.
///
/// ```
/// let moon = String::from("moon");
/// let label = ipmb::label!("solar", moon);
/// assert!(label.all(["solar", "moon"]));
/// assert_eq!(ipmb::label!(), ipmb::Label::default());
/// ```
#[macro_export]
macro_rules! label {
    ($($part:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut label = $crate::Label::default();
        $(label.insert(&$part);)*
        label
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn encoded(label: &Label) -> Vec<u8> {
        let mut out = Vec::new();
        label.encode(&mut out);
        out
    }

    #[test]
    fn the_macro_takes_every_kind_of_string_and_a_trailing_comma() {
        let string = String::from("a");
        let boxed: Box<str> = "b".into();
        let label = label!("c", string, boxed, std::borrow::Cow::Borrowed("d"),);
        assert_eq!(label.iter().collect::<Vec<_>>(), ["c", "a", "b", "d"]);
        assert_eq!(string, "a", "the macro borrows");
        assert_eq!(label!().iter().count(), 0);
    }

    #[test]
    fn a_duplicate_is_not_kept_twice() {
        let mut label = label!("a", "b", "a");
        assert_eq!(label.iter().count(), 2);
        label.remove("a");
        assert!(!label.all(["a"]));
        label.remove("not there");
        assert_eq!(label, label!("b"));
    }

    #[test]
    fn order_does_not_make_labels_differ() {
        assert_eq!(label!("a", "b"), label!("b", "a"));
        assert_ne!(label!("a", "b"), label!("a", "c"));
        assert_ne!(label!("a", "b"), label!("a"));
        assert_ne!(label!(""), label!());
    }

    #[test]
    fn a_part_that_only_starts_alike_does_not_match() {
        let label = label!("earth", "");
        assert!(!label.all(["eart"]) && !label.all(["earthy"]) && !label.all(["Earth"]));
        assert!(label.all([""]) && label.all([]) && label.all(["", "earth"]));
    }

    #[test]
    fn over_the_limits_names_which_one() {
        let many = Label::from((0..=MAX_PARTS).map(|i| i.to_string()));
        let long = label!("x".repeat(MAX_PART_LEN + 1));
        for (label, text) in [(many, "64 parts"), (long, "256 bytes")] {
            let error = label.check().unwrap_err();
            assert!(matches!(error, Error::Limit(_)));
            assert!(error.to_string().contains(text), "{error}");
            assert!(Label::decode(&encoded(&label)).is_err());
        }
        let full = Label::from((0..MAX_PARTS).map(|i| format!("{i:0256}")));
        full.check().unwrap();
        assert_eq!(Label::decode(&encoded(&full)).unwrap(), full);
    }

    #[test]
    fn numbers_that_do_not_fit_are_not_cut_to_something_valid() {
        let many = Label::from((0..256 + 3).map(|i| i.to_string()));
        let long = label!("x".repeat(65_536 + 3));
        for label in [many, long] {
            assert!(Label::decode(&encoded(&label)).is_err());
        }
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let cases: [&[u8]; 8] = [
            b"",
            b"\x01",
            b"\x01\x01",
            b"\x01\x02\x00a",
            b"\x00a",
            b"\x02\x01\x00a\x01\x00a",
            b"\x01\x01\x00\xff",
            b"\xff",
        ];
        for bytes in cases {
            assert!(Label::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn serde_gives_the_same_label_and_holds_the_limits() {
        let label = label!("a", "b");
        let bytes = postcard::to_allocvec(&label).unwrap();
        assert_eq!(postcard::from_bytes::<Label>(&bytes).unwrap(), label);
        let many: Vec<String> = (0..=MAX_PARTS).map(|i| i.to_string()).collect();
        let bytes = postcard::to_allocvec(&many).unwrap();
        assert!(postcard::from_bytes::<Label>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn a_label_behaves_as_a_set(
            edits in prop::collection::vec((any::<bool>(), "[a-c]{0,2}"), 0..40),
        ) {
            let mut label = Label::default();
            let mut set = BTreeSet::new();
            for (insert, part) in edits {
                if insert {
                    label.insert(&part);
                    set.insert(part);
                } else {
                    label.remove(&part);
                    set.remove(&part);
                }
                prop_assert_eq!(label.iter().map(str::to_owned).collect::<BTreeSet<_>>(), set.clone());
                prop_assert_eq!(label.iter().count(), set.len());
            }
            prop_assert_eq!(&label, &Label::from(&set));
            prop_assert_eq!(Label::decode(&encoded(&label)).unwrap(), label);
        }

        #[test]
        fn arbitrary_bytes_never_give_a_label_over_the_limits(
            bytes in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..64),
        ) {
            if let Ok(label) = Label::decode(&bytes) {
                label.check().unwrap();
                prop_assert_eq!(encoded(&label), bytes);
            }
        }
    }
}
