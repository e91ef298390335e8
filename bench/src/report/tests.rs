//! Tests of the verdicts.

use super::*;

/// A row with these figures, judged by one bar; the verdicts by line.
fn judged(unit: Unit, figures: &[(&str, f64)], bar: Bar) -> Vec<(String, Option<bool>)> {
    let line = |(by, figure): &(&str, f64)| MeasuredLine {
        line: Line {
            what: "test".into(),
            by: (*by).into(),
            unit,
        },
        missing: None,
        void: None,
        samples: vec![Sample::new(*figure)],
        verdicts: Vec::new(),
    };
    let mut row = Measured {
        id: "P",
        lines: figures.iter().map(line).collect(),
    };
    row.judge(&[bar]);
    let verdicts = row.lines.into_iter();
    verdicts
        .flat_map(|l| {
            l.verdicts
                .into_iter()
                .map(move |v| (l.line.by.clone(), v.met))
        })
        .collect()
}

fn ratio(against: &[&str], at_least: bool, ratio: f64) -> Bar {
    Bar::Ratio {
        of: "ipmb".into(),
        against: against.iter().map(|a| (*a).into()).collect(),
        at_least,
        ratio,
        bare: Some("ring"),
    }
}

#[test]
fn too_few_messages_per_second_are_not_met() {
    for (ours, met) in [(5.9, false), (6.1, true)] {
        let figures = [("ipmb", ours), ("ring", 10.0)];
        let verdicts = judged(Unit::PerSecond, &figures, ratio(&["ring"], true, 0.6));
        assert_eq!(verdicts, [("ring".into(), Some(met))]);
    }
}

#[test]
fn the_faster_of_two_counts() {
    for (ours, met) in [(12.0, true), (13.0, false)] {
        let figures = [("ipmb", ours), ("futex", 10.0), ("eventfd", 20.0)];
        let bar = ratio(&["futex", "eventfd"], false, 1.25);
        assert_eq!(
            judged(Unit::Nanoseconds, &figures, bar),
            [("futex".into(), Some(met))]
        );
    }
}

#[test]
fn a_multiple_that_the_bare_ring_does_not_reach_is_no_bar() {
    let figures = [("ipmb", 9.0), ("ring", 10.0), ("other", 3.0)];
    let verdicts = judged(Unit::PerSecond, &figures, ratio(&["other"], true, 5.0));
    assert_eq!(verdicts, [("other".into(), None)]);
    let verdicts = judged(Unit::PerSecond, &figures, ratio(&["other"], true, 3.2));
    assert_eq!(verdicts, [("other".into(), Some(false))]);
}

#[test]
fn a_better_bare_ring_excuses_nothing() {
    let figures = [("ipmb", 10.0), ("ring", 10.0), ("ring, in batches", 20.0)];
    let bar = ratio(&["ring", "ring, in batches"], true, 0.6);
    let verdicts = judged(Unit::PerSecond, &figures, bar);
    assert_eq!(verdicts, [("ring, in batches".into(), Some(false))]);
}

#[test]
fn a_growth_is_excused_only_by_a_larger_one_of_the_bare_mechanism() {
    for (ours, bare, met) in [
        (11.9, 1.0, Some(true)),
        (11.9, 2.0, Some(true)),
        (12.5, 1.3, None),
        (13.5, 1.3, Some(false)),
        (12.5, 1.1, Some(false)),
    ] {
        let figures = [("a", 10.0), ("b", ours), ("bare a", 1.0), ("bare b", bare)];
        let bar = Bar::Growth {
            of: "b".into(),
            against: "a".into(),
            ratio: 1.2,
            bare: ["bare b", "bare a"],
        };
        let verdicts = judged(Unit::Nanoseconds, &figures, bar);
        assert_eq!(verdicts, [("a".into(), met)]);
    }
}

#[test]
fn a_void_line_is_compared_with_nothing() {
    let mut row = Measured {
        id: "P",
        lines: Vec::new(),
    };
    row.judge(&[Bar::AtMost {
        of: "ipmb".into(),
        limit: 1.0,
    }]);
    assert!(row.lines.is_empty());
}

#[test]
fn a_limit_and_a_difference_are_held() {
    let figures = [("a", 10.0), ("b", 14.0)];
    let plus = |more| Bar::Plus {
        of: "b".into(),
        against: "a".into(),
        more,
    };
    assert_eq!(
        judged(Unit::Nanoseconds, &figures, plus(4.0)),
        [("b".into(), Some(true))]
    );
    assert_eq!(
        judged(Unit::Nanoseconds, &figures, plus(3.9)),
        [("b".into(), Some(false))]
    );
    let limit = Bar::AtMost {
        of: "b".into(),
        limit: 13.0,
    };
    assert_eq!(
        judged(Unit::Number, &figures, limit),
        [("b".into(), Some(false))]
    );
}
