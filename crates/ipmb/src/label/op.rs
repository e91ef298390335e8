//! Expressions over labels, kept as flat bytecode.
//!
//! A [`LabelOp`] is compared with the previous one on every send (who matches is decided again only when it
//! changes), so equality must cost next to nothing; and programs may nest it as deep as they like, so nothing here
//! recurses. Both come from one representation, a string of bytes in postfix order:
//!
//! ```text
//! false      0
//! true       1
//! leaf       2, length (LEB128), text
//! not x      x, 3
//! a and b    a, b, 4     if the bytes of a are at least as many as those of b
//!            b, a, 6     if not
//! a or b     a, b, 5     or b, a, 7, likewise
//! ```
//!
//! Two expressions are equal if their bytes are: every structure has exactly one form, since the order of operands is
//! fixed by their lengths and lengths are written in their shortest form.
//!
//! **The larger operand comes first.** Joining two expressions so appends the smaller to the larger: building n
//! nodes in any shape costs O(n log n). It also bounds the stack of an evaluation: while an operand waits on it, one
//! that is no larger is evaluated, so *d* waiting operands need more than 2^*d* bytes. [`STACK`] slots do for every
//! expression that fits into memory, and the truth values of all of them fit into one `u64`.

use super::{Label, MAX_PART_LEN};
use crate::{Error, error::DecodeError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, hash, ops::Not};

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const LEAF: u8 = 2;
const NOT: u8 = 3;
const AND: u8 = 4;
const OR: u8 = 5;
/// Added to `AND` and `OR` if the right operand comes first.
const SWAPPED: u8 = 2;
const AND_SWAPPED: u8 = AND + SWAPPED;
const OR_SWAPPED: u8 = OR + SWAPPED;

/// How many bytes of code need no allocation; with the length and the tag it makes 32 bytes.
const INLINE: usize = 30;
/// How many operands can wait at once, whatever the expression (see the module's text).
const STACK: usize = 64;

/// How many nodes an expression may have.
pub(crate) const MAX_NODES: usize = 1024;
/// How many levels an expression may have; a leaf alone has one.
pub(crate) const MAX_DEPTH: usize = 128;
/// No expression within the limits has more bytes of code: a leaf has its own byte, its length in two, and its text.
pub(crate) const CODE_MAX: usize = MAX_NODES * (3 + MAX_PART_LEN);

const TOO_MANY_NODES: &str = "the selector's expression has more than 1024 nodes; give the endpoints a common label part instead";
const TOO_DEEP: &str =
    "the selector's expression is nested deeper than 128 levels; join long chains pairwise";
const LEAF_TOO_LONG: &str =
    "a leaf of the selector's expression is longer than 256 bytes; shorten it";

/// An expression over [`Label`]s: which endpoints a message is for.
///
/// Made of [`True`](LabelOp::True), [`False`](LabelOp::False) and leaves (from anything `AsRef<str>`: the endpoint's
/// label has this part), joined by [`and`](LabelOp::and), [`or`](LabelOp::or) and `!`. Mind Rust's precedence:
/// `!a.and(b)` is `!(a.and(b))`.
///
/// Equality is that of structure: `a.and(b)` and `b.and(a)` match the same labels and are not equal. A leaf of up to
/// 28 bytes needs no allocation, and no operation recurses, however deep the expression is.
///
/// # Limits
///
/// 1,024 nodes (leaves, constants and operators), 128 levels, and 256 bytes in a leaf. An expression over a limit can
/// be built, and [`validate`](LabelOp::validate) works; sending a message with it fails with
/// [`SendError::Message`](crate::SendError::Message) and [`Error::Limit`].
///
/// # Examples
///
/// ```
/// use ipmb::{LabelOp, label};
///
/// let op = LabelOp::from("planet").and(!LabelOp::from("gas")).or("moon");
/// assert!(op.validate(&label!("planet", "earth")));
/// assert!(!op.validate(&label!("planet", "gas", "jupiter")));
/// assert_eq!(op.to_string(), r#""planet" & !"gas" | "moon""#);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LabelOp(Code);

/// The bytes of an expression. One with at most `INLINE` bytes is always inline, and the bytes behind its length are
/// zero, so the derived equality is that of the bytes, and for short ones a comparison of fixed size.
#[derive(Clone, PartialEq, Eq)]
enum Code {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Vec<u8>),
}

impl Code {
    const fn byte(code: u8) -> Self {
        let mut bytes = [0; INLINE];
        bytes[0] = code;
        Self::Inline { len: 1, bytes }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Self::Heap(bytes) => bytes,
        }
    }

    fn new(code: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..code.len()) {
            Some(room) => {
                room.copy_from_slice(code);
                Self::Inline {
                    len: code.len() as u8, // at most INLINE
                    bytes,
                }
            }
            None => Self::Heap(code.to_vec()),
        }
    }

    /// Appends an operand, which may be empty, and an operator.
    fn append(&mut self, operand: &[u8], operator: u8) {
        let heap = match self {
            Self::Heap(heap) => heap,
            Self::Inline { len, bytes } => {
                let old = usize::from(*len);
                let new = old + operand.len();
                if let Some([room @ .., last]) = bytes.get_mut(old..=new) {
                    room.copy_from_slice(operand);
                    *last = operator;
                    *len = new as u8 + 1; // at most INLINE
                    return;
                }
                let mut heap = Vec::with_capacity(2 * (new + 1));
                heap.extend_from_slice(self.as_slice());
                *self = Self::Heap(heap);
                return self.append(operand, operator);
            }
        };
        heap.extend_from_slice(operand);
        heap.push(operator);
    }
}

/// One step of the code.
enum Step<'a> {
    False,
    True,
    Leaf(&'a [u8]),
    Not,
    And { swapped: bool },
    Or { swapped: bool },
}

/// Takes the next step off `rest`. `None` at the end, and at bytes that are no step; `rest` is empty only at the end.
#[inline]
fn step<'a>(rest: &mut &'a [u8]) -> Option<Step<'a>> {
    let (&code, mut tail) = rest.split_first()?;
    let step = match code {
        FALSE => Step::False,
        TRUE => Step::True,
        LEAF => {
            let len = match tail.split_first() {
                Some((&len, after)) if len < 0x80 => {
                    tail = after;
                    usize::from(len)
                }
                _ => take_long_len(&mut tail)?,
            };
            let (text, after) = tail.split_at_checked(len)?;
            tail = after;
            Step::Leaf(text)
        }
        NOT => Step::Not,
        AND | AND_SWAPPED => Step::And {
            swapped: code == AND_SWAPPED,
        },
        OR | OR_SWAPPED => Step::Or {
            swapped: code == OR_SWAPPED,
        },
        _ => return None,
    };
    *rest = tail;
    Some(step)
}

/// Takes a LEB128 number in its shortest form.
#[cold]
fn take_long_len(rest: &mut &[u8]) -> Option<usize> {
    let mut len = 0u64;
    let mut shift = 0;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        if shift >= 63 || (byte == 0 && shift > 0) {
            return None;
        }
        len |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(len).ok();
        }
        shift += 7;
    }
}

impl LabelOp {
    /// Matches every label.
    #[allow(non_upper_case_globals)]
    pub const True: Self = Self(Code::byte(TRUE));

    /// Matches no label.
    #[allow(non_upper_case_globals)]
    pub const False: Self = Self(Code::byte(FALSE));

    /// Matches the labels that both match.
    #[must_use]
    pub fn and(self, other: impl Into<Self>) -> Self {
        self.join(other.into(), AND)
    }

    /// Matches the labels that at least one of both matches.
    #[must_use]
    pub fn or(self, other: impl Into<Self>) -> Self {
        self.join(other.into(), OR)
    }

    fn join(self, other: Self, code: u8) -> Self {
        let swapped = self.as_bytes().len() < other.as_bytes().len();
        let (mut first, second, code) = if swapped {
            (other, self, code + SWAPPED)
        } else {
            (self, other, code)
        };
        first.0.append(second.as_bytes(), code);
        first
    }

    /// Whether the expression matches this label.
    ///
    /// Takes time in proportion to the expression's length times the number of the label's parts; never recurses.
    #[must_use]
    pub fn validate(&self, label: &Label) -> bool {
        let mut rest = self.as_bytes();
        // One bit for each waiting operand, the last in the lowest.
        let mut stack = 0u64;
        while let Some(step) = step(&mut rest) {
            stack = match step {
                Step::False => stack << 1,
                Step::True => stack << 1 | 1,
                Step::Leaf(part) => stack << 1 | u64::from(label.contains(part)),
                Step::Not => stack ^ 1,
                Step::And { .. } => (stack >> 1) & (stack | !1),
                Step::Or { .. } => (stack >> 1) | (stack & 1),
            };
        }
        stack & 1 == 1
    }

    /// Whether the expression is within the limits. One pass, and none for expressions of up to 128 bytes.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bytes = self.as_bytes();
        // A node takes at least a byte, and there are no more levels than nodes.
        if bytes.len() <= MAX_DEPTH || crate::fault::on(8) {
            return Ok(());
        }
        verify(bytes)
    }

    /// The code; what [`from_bytes`](LabelOp::from_bytes) takes.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Takes code from anybody: verifies that it is well-formed, within the limits, and the one form that its
    /// structure has.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        verify(bytes)?;
        Ok(Self(Code::new(bytes)))
    }
}

/// Verifies form and limits in one pass. Stops at the limit of nodes, so the time is bounded whatever the length.
fn verify(bytes: &[u8]) -> Result<(), Error> {
    #[derive(Clone, Copy)]
    struct Operand {
        len: usize,
        depth: usize,
    }

    let malformed = |what: &str| Error::Decode(DecodeError(format!("selector expression: {what}")));
    let mut stack = [Operand { len: 0, depth: 0 }; STACK];
    let mut height = 0usize;
    let mut nodes = 0usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest.len();
        let step = step(&mut rest).ok_or_else(|| malformed("not a step"))?;
        let len = before - rest.len();
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(Error::Limit(TOO_MANY_NODES));
        }
        let operands = match step {
            Step::False | Step::True => 0,
            Step::Leaf(text) => {
                if text.len() > MAX_PART_LEN {
                    return Err(Error::Limit(LEAF_TOO_LONG));
                }
                if std::str::from_utf8(text).is_err() {
                    return Err(malformed("a leaf is not UTF-8"));
                }
                0
            }
            Step::Not => 1,
            Step::And { .. } | Step::Or { .. } => 2,
        };
        let base = height
            .checked_sub(operands)
            .ok_or_else(|| malformed("an operand is missing"))?;
        let taken = stack.get(base..height).unwrap_or_default();
        if let (Step::And { swapped } | Step::Or { swapped }, [first, second]) = (&step, taken) {
            let in_order = if *swapped {
                first.len > second.len
            } else {
                first.len >= second.len
            };
            if !in_order {
                return Err(malformed("the shorter operand comes first"));
            }
        }
        let node = Operand {
            len: len + taken.iter().map(|operand| operand.len).sum::<usize>(),
            depth: 1 + taken.iter().map(|operand| operand.depth).max().unwrap_or(0),
        };
        if node.depth > MAX_DEPTH {
            return Err(Error::Limit(TOO_DEEP));
        }
        *stack
            .get_mut(base)
            .ok_or_else(|| malformed("too many operands wait"))? = node;
        height = base + 1;
    }
    match height {
        1 => Ok(()),
        0 => Err(malformed("no bytes")),
        _ => Err(malformed("operands are left over")),
    }
}

impl<S: AsRef<str>> From<S> for LabelOp {
    /// A leaf: matches the labels that have this part.
    fn from(part: S) -> Self {
        let part = part.as_ref().as_bytes();
        let mut bytes = [0; INLINE];
        if part.len() > INLINE - 2 {
            return Self(long_leaf(part));
        }
        bytes[0] = LEAF;
        bytes[1] = part.len() as u8;
        bytes[2..][..part.len()].copy_from_slice(part);
        Self(Code::Inline {
            len: 2 + part.len() as u8,
            bytes,
        })
    }
}

/// The code of a leaf that does not fit inline.
#[cold]
fn long_leaf(part: &[u8]) -> Code {
    // The step's code, and the length in at most ten groups of seven bits. One byte more is for an operator.
    let mut code = Vec::with_capacity(1 + 10 + part.len() + 1);
    code.push(LEAF);
    let mut len = part.len();
    while len >= 0x80 {
        code.push(len as u8 | 0x80);
        len >>= 7;
    }
    code.push(len as u8);
    code.extend_from_slice(part);
    Code::Heap(code)
}

impl Not for LabelOp {
    type Output = Self;

    /// Matches the labels that `self` does not match.
    fn not(mut self) -> Self {
        self.0.append(&[], NOT);
        self
    }
}

impl hash::Hash for LabelOp {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// As an expression with `&`, `|`, `!`, quoted leaves, and the parentheses that the structure needs.
impl fmt::Display for LabelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        enum Node<'a> {
            Text(&'static str),
            Leaf(&'a str),
            Not(usize),
            And(usize, usize),
            Or(usize, usize),
        }
        enum Todo {
            Node(usize),
            Text(&'static str),
        }

        // The operands of each node, by index. The last node is the root.
        let mut nodes = Vec::new();
        let mut waiting = Vec::new();
        let mut rest = self.as_bytes();
        while let Some(step) = step(&mut rest) {
            let mut take = || waiting.pop().ok_or(fmt::Error);
            let node = match step {
                Step::False => Node::Text("false"),
                Step::True => Node::Text("true"),
                Step::Leaf(text) => Node::Leaf(std::str::from_utf8(text).map_err(|_| fmt::Error)?),
                Step::Not => Node::Not(take()?),
                Step::And { swapped } | Step::Or { swapped } => {
                    let (second, first) = (take()?, take()?);
                    let (left, right) = if swapped {
                        (second, first)
                    } else {
                        (first, second)
                    };
                    match step {
                        Step::And { .. } => Node::And(left, right),
                        _ => Node::Or(left, right),
                    }
                }
            };
            waiting.push(nodes.len());
            nodes.push(node);
        }

        let binds = |index: usize| match nodes.get(index) {
            Some(Node::Or(..)) => 1,
            Some(Node::And(..)) => 2,
            _ => 3,
        };
        let mut todo = vec![Todo::Node(nodes.len().wrapping_sub(1))];
        // What comes first is pushed last.
        let push = |todo: &mut Vec<Todo>, index: usize, parentheses: bool| {
            if parentheses {
                todo.push(Todo::Text(")"));
            }
            todo.push(Todo::Node(index));
            if parentheses {
                todo.push(Todo::Text("("));
            }
        };
        while let Some(next) = todo.pop() {
            let index = match next {
                Todo::Text(text) => {
                    f.write_str(text)?;
                    continue;
                }
                Todo::Node(index) => index,
            };
            let own = binds(index);
            match nodes.get(index) {
                Some(Node::Text(text)) => f.write_str(text)?,
                Some(Node::Leaf(text)) => write!(f, "{text:?}")?,
                Some(&Node::Not(operand)) => {
                    f.write_str("!")?;
                    push(&mut todo, operand, binds(operand) < own);
                }
                Some(&(Node::And(left, right) | Node::Or(left, right))) => {
                    push(&mut todo, right, binds(right) <= own);
                    todo.push(Todo::Text(if own == 2 { " & " } else { " | " }));
                    push(&mut todo, left, binds(left) < own);
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LabelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabelOp({self})")
    }
}

/// As opaque bytes; fails for an expression over a limit.
impl Serialize for LabelOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check().map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(self.as_bytes())
    }
}

/// From the bytes that `Serialize` wrote, which are verified.
impl<'de> Deserialize<'de> for LabelOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = LabelOp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a label expression")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<LabelOp, E> {
                LabelOp::from_bytes(bytes).map_err(E::custom)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<LabelOp, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                    if bytes.len() > MAX_NODES * (MAX_PART_LEN + 3) {
                        return Err(serde::de::Error::custom(Error::Limit(TOO_MANY_NODES)));
                    }
                }
                self.visit_bytes(&bytes)
            }
        }

        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests;
