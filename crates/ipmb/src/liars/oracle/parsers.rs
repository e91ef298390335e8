use crate::{
    Label, LabelOp,
    control::{
        directory::Listed,
        protocol::{self, Hello, ToController, ToMember},
    },
    link::layout::{BlockRef, RecordHead, WORD},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Control packets of both directions, greetings, labels, selectors, and the words of a link's records: the first byte says
/// which. What is read is within every limit, and says the same when it is written and read again.
pub fn parsers(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 8 {
        0 => packet::<Hello>(bytes),
        1 => packet::<ToController>(bytes),
        2 => packet::<ToMember>(bytes),
        3 => packet::<Listed>(bytes),
        4 => label(bytes),
        5 => selector(bytes),
        6 => record(bytes),
        _ => expression(bytes),
    }
}

fn packet<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let Some(read) = protocol::decode::<T>(bytes) else {
        return;
    };
    let written = protocol::encode(&read);
    // Numbers can be written longer than need be, and are not by us.
    assert!(written.len() <= bytes.len());
    let again = protocol::decode::<T>(&written).expect("what was written is read");
    assert_eq!(format!("{read:?}"), format!("{again:?}"));
}

fn label(bytes: &[u8]) {
    let Ok(label) = Label::decode(bytes) else {
        return;
    };
    label.check().expect("within the limits");
    let mut written = Vec::new();
    label.encode(&mut written);
    assert_eq!(
        Label::decode(&written).expect("what was written is read"),
        label
    );
}

fn selector(bytes: &[u8]) {
    let Ok(op) = LabelOp::from_bytes(bytes) else {
        return;
    };
    op.check().expect("within the limits");
    assert_eq!(op.as_bytes(), bytes);
    let label = Label::from(["a", "b", ""]);
    assert_eq!((!op.clone()).validate(&label), !op.validate(&label));
    let _ = op.to_string();
}

/// An expression made of stack operations, as deep as they say.
fn expression(bytes: &[u8]) {
    let mut stack = vec![(LabelOp::from("a"), true)];
    let label = Label::from(["a"]);
    for byte in bytes {
        let (op, holds) = stack.pop().unwrap_or((LabelOp::True, true));
        match byte % 5 {
            0 => stack.push((!op, !holds)),
            1 => stack.extend([(op, holds), (LabelOp::from("b"), false)]),
            2 => stack.extend([(op, holds), (LabelOp::from("a"), true)]),
            kind => {
                let (other, also) = stack.pop().unwrap_or((LabelOp::False, false));
                stack.push(match kind {
                    3 => (op.and(other), holds && also),
                    _ => (op.or(other), holds || also),
                });
            }
        }
    }
    for (op, holds) in stack {
        assert_eq!(op.validate(&label), holds);
        if op.check().is_ok() {
            assert_eq!(LabelOp::from_bytes(op.as_bytes()).expect("it is sound"), op);
        }
    }
}

fn record(bytes: &[u8]) {
    if let Some(word) = bytes.first_chunk() {
        let word = u64::from_le_bytes(*word);
        if let Some(head) = RecordHead::from_word(word) {
            assert_eq!(head.to_word(), word);
            assert!(head.size() >= WORD as u64 + u64::from(head.len) && head.size() % 8 == 0);
        }
    }
    if let Some(bytes) = bytes.first_chunk() {
        let reference = BlockRef::from_bytes(bytes);
        assert_eq!(BlockRef::from_bytes(&reference.to_bytes()), reference);
    }
}
