use super::*;
use crate::label;
use proptest::prelude::*;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// The obvious form of an expression, to compare with.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Const(bool),
    Leaf(String),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn eval(&self, label: &Label) -> bool {
        match self {
            Self::Const(value) => *value,
            Self::Leaf(part) => label.iter().any(|have| have == part),
            Self::Not(x) => !x.eval(label),
            Self::And(a, b) => a.eval(label) && b.eval(label),
            Self::Or(a, b) => a.eval(label) || b.eval(label),
        }
    }

    fn op(&self) -> LabelOp {
        match self {
            Self::Const(true) => LabelOp::True,
            Self::Const(false) => LabelOp::False,
            Self::Leaf(part) => LabelOp::from(part),
            Self::Not(x) => !x.op(),
            Self::And(a, b) => a.op().and(b.op()),
            Self::Or(a, b) => a.op().or(b.op()),
        }
    }

    /// How strongly it binds, and its text.
    fn text(&self) -> (u8, String) {
        let within = |x: &Tree, least: u8| {
            let (binds, text) = x.text();
            if binds < least {
                format!("({text})")
            } else {
                text
            }
        };
        match self {
            Self::Const(value) => (3, value.to_string()),
            Self::Leaf(part) => (3, format!("{part:?}")),
            Self::Not(x) => (3, format!("!{}", within(x, 3))),
            Self::And(a, b) => (2, format!("{} & {}", within(a, 2), within(b, 3))),
            Self::Or(a, b) => (1, format!("{} | {}", within(a, 1), within(b, 2))),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Tree::Const),
        "[a-d]".prop_map(Tree::Leaf),
        "[a-dé\"]{0,40}".prop_map(Tree::Leaf),
        "[a-d]{127,129}".prop_map(Tree::Leaf),
    ];
    leaf.prop_recursive(10, 120, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|x| Tree::Not(x.into())),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::And(a.into(), b.into())),
            (inner.clone(), inner).prop_map(|(a, b)| Tree::Or(a.into(), b.into())),
        ]
    })
}

fn limit_of(op: &LabelOp) -> String {
    match op.check() {
        Err(Error::Limit(text)) => text.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// A balanced OR of this many leaves, so 2n − 1 nodes.
fn balanced(leaves: usize) -> LabelOp {
    let mut ops: Vec<_> = (0..leaves).map(|i| LabelOp::from(i.to_string())).collect();
    while ops.len() > 1 {
        let mut rest = ops.into_iter();
        let mut joined = Vec::new();
        while let Some(op) = rest.next() {
            joined.push(match rest.next() {
                Some(other) => op.or(other),
                None => op,
            });
        }
        ops = joined;
    }
    ops.remove(0)
}

fn nots(count: usize, of: LabelOp) -> LabelOp {
    (0..count).fold(of, |op, _| !op)
}

#[test]
fn constants_leaves_and_operators_mean_what_they_say() {
    let label = label!("foo", "bar");
    assert!(LabelOp::True.validate(&label) && !LabelOp::False.validate(&label));
    assert!(LabelOp::True.validate(&label!()) && !LabelOp::from("foo").validate(&label!()));
    assert!(LabelOp::from("foo").and("bar").validate(&label));
    assert!(!LabelOp::from("foo").and("baz").validate(&label));
    assert!(LabelOp::from("baz").or("bar").validate(&label));
    assert!(!LabelOp::from("baz").or("quux").validate(&label));
    assert!((!LabelOp::from("baz")).validate(&label) && !(!LabelOp::from("foo")).validate(&label));
    assert!(LabelOp::from("a").and(LabelOp::True) != LabelOp::True.and("a"));
}

#[test]
fn every_kind_of_string_makes_a_leaf() {
    let string = String::from("a");
    let ops = [
        LabelOp::from("a"),
        LabelOp::from(&string),
        LabelOp::from(Box::<str>::from("a")),
        LabelOp::from(std::sync::Arc::<str>::from("a")),
        LabelOp::from(std::borrow::Cow::Borrowed("a")),
        LabelOp::from(string),
    ];
    assert!(ops.iter().all(|op| *op == ops[0]));
    assert_eq!(ops.into_iter().collect::<HashSet<_>>().len(), 1);
}

#[test]
fn a_short_leaf_does_not_allocate() {
    assert_eq!(size_of::<LabelOp>(), 32);
    assert!(matches!(
        LabelOp::from("x".repeat(28)).0,
        Code::Inline { .. }
    ));
    assert!(matches!(LabelOp::from("x".repeat(29)).0, Code::Heap(_)));
}

#[test]
fn a_leaf_that_ends_in_zero_bytes_is_not_a_shorter_one() {
    assert_ne!(LabelOp::from("a"), LabelOp::from("a\0"));
    assert!(!LabelOp::from("a\0").validate(&label!("a")));
}

#[test]
fn structure_shows_in_the_text() {
    let op = LabelOp::from("a")
        .or("b")
        .and((!LabelOp::from("c")).and("d"));
    assert_eq!(op.to_string(), r#"("a" | "b") & (!"c" & "d")"#);
    assert_eq!(format!("{op:?}"), format!("LabelOp({op})"));
    let longer_right = LabelOp::from("a")
        .and("long")
        .or(LabelOp::from("x").and("longer still"));
    assert_eq!(
        longer_right.to_string(),
        r#""a" & "long" | "x" & "longer still""#
    );
    assert_eq!((!!LabelOp::True).to_string(), "!!true");
}

#[test]
fn each_limit_is_exact_and_names_itself() {
    // 512 leaves and 511 operators, then one NOT.
    let full = !balanced(512);
    full.check().unwrap();
    assert_eq!(LabelOp::from_bytes(full.as_bytes()).unwrap(), full);
    assert!(limit_of(&!full).contains("1024 nodes"));

    let deep = nots(127, LabelOp::from("leaf"));
    deep.check().unwrap();
    assert_eq!(LabelOp::from_bytes(deep.as_bytes()).unwrap(), deep);
    assert!(limit_of(&!deep).contains("128 levels"));
    nots(127, LabelOp::True).check().unwrap();
    assert!(limit_of(&nots(128, LabelOp::True)).contains("128 levels"));

    LabelOp::from("x".repeat(256)).check().unwrap();
    assert!(limit_of(&LabelOp::from("x".repeat(257))).contains("256 bytes"));
    let within = LabelOp::True.and("x".repeat(257)).or("y");
    assert!(limit_of(&within).contains("256 bytes"));
    assert!(LabelOp::from_bytes(within.as_bytes()).is_err());
}

#[test]
fn a_leaf_of_megabytes_neither_panics_nor_passes() {
    let text = "x".repeat(5 << 20);
    let op = LabelOp::from(&text);
    assert!(op.validate(&label!(text)));
    assert!(!op.validate(&label!("x")));
    assert!(limit_of(&op).contains("256 bytes"));
}

/// No shape may take stack, so this runs on a thread with little of it.
#[test]
fn a_million_levels_in_any_shape_neither_overflow_nor_take_quadratic_time() {
    const LEVELS: usize = 1_000_000;
    let shapes: [fn(LabelOp, usize) -> LabelOp; 5] = [
        |op, _| !op,
        |op, _| op.and("a"),
        |op, _| LabelOp::from("a").and(op),
        |op, _| LabelOp::from("no").or(LabelOp::True.and(op)),
        |op, i| {
            if i % 2 == 0 {
                LabelOp::from("a").and(op)
            } else {
                (!op).or("no")
            }
        },
    ];
    let run = move || {
        for (number, grow) in shapes.into_iter().enumerate() {
            let start = Instant::now();
            let op = (0..LEVELS).fold(LabelOp::from("a"), grow);
            let copy = op.clone();
            assert!(op == copy);
            let yes = op.validate(&label!("a"));
            if number < 4 {
                assert!(yes, "shape {number}");
            }
            assert!(matches!(op.check(), Err(Error::Limit(_))));
            if number == 2 {
                assert_eq!(op.to_string().matches('(').count(), LEVELS - 1);
            }
            drop((op, copy));
            let took = start.elapsed();
            assert!(took < Duration::from_secs(120), "shape {number}: {took:?}");
        }
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_balanced_tree_of_a_million_leaves_fits_the_bit_stack() {
    let op = balanced(1 << 20);
    assert!(op.validate(&label!("0")));
    assert!(op.validate(&label!(((1 << 20) - 1).to_string())));
    assert!(!op.validate(&label!("no")));
}

#[test]
fn malformed_code_is_refused() {
    let cases: [&[u8]; 16] = [
        &[],
        &[NOT],
        &[TRUE, TRUE],
        &[TRUE, AND],
        &[8],
        &[255],
        &[LEAF],
        &[LEAF, 1],
        &[LEAF, 1, 0xff],
        &[LEAF, 0x80],
        &[LEAF, 0x80, 0],
        &[LEAF, 0x81, 0, b'a'],
        &[LEAF, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        // The shorter operand first, and equal ones swapped.
        &[TRUE, LEAF, 1, b'a', AND],
        &[TRUE, FALSE, OR_SWAPPED],
        &[TRUE, FALSE, OR, 0],
    ];
    for bytes in cases {
        assert!(LabelOp::from_bytes(bytes).is_err(), "{bytes:?}");
    }
    // More operands waiting than any well-formed code has.
    assert!(LabelOp::from_bytes(&[TRUE; STACK + 1]).is_err());
    assert!(LabelOp::from_bytes(&[TRUE; 1 << 20]).is_err());
}

#[test]
fn serde_gives_the_same_expression_and_holds_the_limits() {
    let op = LabelOp::from("a").and(!LabelOp::from("b"));
    let bytes = postcard::to_allocvec(&op).unwrap();
    assert_eq!(postcard::from_bytes::<LabelOp>(&bytes).unwrap(), op);
    assert!(postcard::to_allocvec(&nots(1000, op)).is_err());
    assert!(postcard::from_bytes::<LabelOp>(&[1, NOT]).is_err());
}

/// `cargo test --release -p ipmb label::op -- --ignored --nocapture`
#[test]
#[ignore = "prints timings"]
fn timings() {
    use std::hint::black_box;

    fn time<R>(what: &str, mut f: impl FnMut() -> R) {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..200_000 {
                black_box(f());
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 200_000.0);
        }
        println!("{what:<40} {best:6.1} ns");
    }

    let few = label!("solar", "earth", "planet");
    let leaf = LabelOp::from("earth");
    let five = LabelOp::from("solar")
        .and("earth")
        .and("planet")
        .or("moon")
        .and("x");
    let heap = five.clone().or("something rather long");
    for (name, op) in [
        ("leaf", &leaf),
        ("5 terms", &five),
        ("6 terms, heap", &heap),
    ] {
        let other = op.clone();
        println!("{name}: {} bytes", op.as_bytes().len());
        time("  eq", || black_box(op) == black_box(&other));
        time("  clone and drop", || black_box(op).clone());
        time("  validate", || black_box(op).validate(black_box(&few)));
        time("  check", || black_box(op).check().is_ok());
        time("  from_bytes", || {
            LabelOp::from_bytes(black_box(op).as_bytes()).is_ok()
        });
    }
    time("build leaf", || LabelOp::from(black_box("earth")));
    time("build a.and(b)", || {
        LabelOp::from(black_box("earth")).and(black_box("planet"))
    });
}

proptest! {
    #[test]
    fn validate_agrees_with_a_recursive_evaluator(
        tree in tree(),
        label in prop::collection::vec("[a-d]{0,2}", 0..4),
    ) {
        let label = Label::from(label);
        prop_assert_eq!(tree.op().validate(&label), tree.eval(&label));
    }

    #[test]
    fn bytes_come_back_as_the_same_expression(tree in tree()) {
        let op = tree.op();
        op.check().unwrap();
        let back = LabelOp::from_bytes(op.as_bytes()).unwrap();
        prop_assert_eq!(&back, &op);
        prop_assert_eq!(op.to_string(), tree.text().1);
        prop_assert_eq!(matches!(back.0, Code::Inline { .. }), op.as_bytes().len() <= INLINE);
    }

    #[test]
    fn expressions_are_equal_only_if_their_structure_is(a in tree(), b in tree()) {
        prop_assert_eq!(a.op() == b.op(), a == b);
        prop_assert_eq!(a.op(), a.op());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass_a_limit(
        bytes in prop::collection::vec(prop_oneof![8 => 0u8..8, 1 => any::<u8>()], 0..300),
    ) {
        if let Ok(op) = LabelOp::from_bytes(&bytes) {
            op.check().unwrap();
            verify(op.as_bytes()).unwrap();
            prop_assert_eq!(op.as_bytes(), &bytes[..]);
            let _ = (op.validate(&label!("a")), op.to_string());
        }
    }

    #[test]
    fn a_corrupted_expression_never_panics_and_never_passes_a_limit(
        tree in tree(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = tree.op().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(op) = LabelOp::from_bytes(&bytes) {
            verify(op.as_bytes()).unwrap();
            let _ = (op.validate(&label!("a")), op.to_string());
        }
    }
}
