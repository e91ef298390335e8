//! P1 to P5, and payloads that are written and read in place: between two processes.

use super::pair::{Job, Pattern};
use super::{Bar, Bench, Line, Row, Unit, member, pair};
use crate::report::sample::Sample;

/// A comparison at one size.
struct Basic {
    id: &'static str,
    what: &'static str,
    pattern: Pattern,
    size: usize,
    /// Each with the number of messages.
    peers: &'static [(&'static str, u64)],
    bars: &'static [Against],
}

/// The figure of ours over the best of these.
struct Against(&'static [&'static str], f64);

const BASIC: &[Basic] = &[
    Basic {
        id: "P1",
        what: "one-way, 16 B struct",
        pattern: Pattern::OneWay,
        size: 16,
        peers: &[
            ("ipmb", 4_000_000),
            ("ring", 8_000_000),
            ("ring, in batches", 8_000_000),
            ("0.8.5", 200_000),
            ("ipc-channel", 400_000),
            ("iceoryx2", 1_000_000),
        ],
        bars: &[
            Against(&["ring", "ring, in batches"], 0.6),
            Against(&["0.8.5"], 15.0),
            Against(&["ipc-channel"], 8.0),
            Against(&["iceoryx2"], 5.0),
        ],
    },
    Basic {
        id: "P2",
        what: "round trip, 16 B struct, both hot",
        pattern: Pattern::RoundTrip,
        size: 16,
        peers: &[
            ("ipmb", 300_000),
            ("ring", 300_000),
            ("0.8.5", 10_000),
            ("ipc-channel", 20_000),
            ("iceoryx2", 200_000),
        ],
        bars: &[Against(&["ring"], 2.0), Against(&["iceoryx2"], 1.0)],
    },
    Basic {
        id: "P3",
        what: "round trip, 16 B struct, 10 ms pauses",
        pattern: Pattern::Asleep,
        size: 16,
        peers: &[("ipmb", 75), ("futex", 75), ("eventfd", 75)],
        bars: &[Against(&["futex", "eventfd"], 1.25)],
    },
    Basic {
        id: "P4",
        what: "one-way, 4 KiB",
        pattern: Pattern::OneWay,
        size: 4 << 10,
        peers: &[
            ("ipmb", 500_000),
            ("ring", 500_000),
            ("0.8.5", 50_000),
            ("ipc-channel", 100_000),
            ("iceoryx2", 300_000),
        ],
        bars: &[Against(&["ring"], 0.7), Against(&["0.8.5"], 4.0)],
    },
    Basic {
        id: "P4",
        what: "one-way, 16 KiB",
        pattern: Pattern::OneWay,
        size: 16 << 10,
        peers: &[
            ("ipmb", 150_000),
            ("ring", 150_000),
            ("0.8.5", 30_000),
            ("ipc-channel", 50_000),
            ("iceoryx2", 100_000),
        ],
        bars: &[Against(&["ring"], 0.7), Against(&["0.8.5"], 2.0)],
    },
    Basic {
        id: "P5",
        what: "one-way, 1 MiB",
        pattern: Pattern::OneWay,
        size: 1 << 20,
        peers: &[
            ("ipmb", 2_000),
            ("ring", 2_000),
            ("ipc-channel", 400),
            ("iceoryx2", 2_000),
        ],
        bars: &[Against(&["ring"], 0.8), Against(&["ipc-channel"], 4.0)],
    },
    Basic {
        id: "P5",
        what: "one-way, 16 MiB",
        pattern: Pattern::OneWay,
        size: 16 << 20,
        peers: &[("ipmb", 100), ("ring", 100)],
        bars: &[Against(&["ring"], 0.8)],
    },
    Basic {
        id: "L",
        what: "one-way in place, 4 KiB",
        pattern: Pattern::OneWay,
        size: 4 << 10,
        peers: &[
            ("ipmb-loan", 500_000),
            ("ipmb", 500_000),
            ("iceoryx2", 500_000),
        ],
        bars: &[],
    },
    Basic {
        id: "L",
        what: "one-way in place, 64 KiB",
        pattern: Pattern::OneWay,
        size: 64 << 10,
        peers: &[
            ("ipmb-loan", 60_000),
            ("ipmb", 60_000),
            ("iceoryx2", 60_000),
        ],
        bars: &[],
    },
    Basic {
        id: "L",
        what: "one-way in place, 1 MiB",
        pattern: Pattern::OneWay,
        size: 1 << 20,
        peers: &[("ipmb-loan", 4_000), ("ipmb", 4_000), ("iceoryx2", 4_000)],
        bars: &[],
    },
];

pub fn rows() -> Vec<Box<dyn Row>> {
    BASIC
        .iter()
        .map(|row| Box::new(row) as Box<dyn Row>)
        .collect()
}

impl Row for &'static Basic {
    fn id(&self) -> &'static str {
        self.id
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(peer, _): &(&str, u64)| Line {
            what: self.what.into(),
            by: (*peer).into(),
            unit: match self.pattern {
                Pattern::OneWay => Unit::PerSecond,
                _ => Unit::Nanoseconds,
            },
        };
        self.peers.iter().map(line).collect()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |Against(against, ratio): &Against| Bar::Ratio {
            of: "ipmb".into(),
            against: against.iter().map(|a| (*a).into()).collect(),
            at_least: self.pattern == Pattern::OneWay,
            ratio: *ratio,
            bare: Some("ring"),
        };
        self.bars.iter().map(bar).collect()
    }

    /// Short measurements differ more. How long cores take to come back from idle changes by half from one second to the next.
    fn rounds(&self, asked: usize) -> usize {
        match self.pattern {
            Pattern::OneWay => 2 * asked,
            Pattern::RoundTrip => asked,
            Pattern::Asleep => 4 * asked,
        }
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let (peer, count) = self.peers[step];
        let bus = format!("{}.{}.{}.{step}.{round}", bench.bus, self.id, self.size);
        let job = Job {
            peer: peer.into(),
            bus: bus.clone(),
            pattern: self.pattern,
            size: self.size,
            count: bench.count(count),
            ring: (4 * self.size).next_power_of_two().max(1 << 20),
            events: [0; 2],
            memory: -1,
        };
        // Neither side is the controller.
        let _host = peer
            .starts_with("ipmb")
            .then(|| member::start(&bus, "controller"))
            .transpose()?;
        pair::run(job).map(|sample| vec![sample])
    }
}
