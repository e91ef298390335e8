//! What measurements give.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// Times in nanoseconds, with three digits.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits"))
    }
}

impl Times {
    pub fn record(&mut self, time: Duration) {
        self.0.record(time.as_nanos() as u64).expect("it grows");
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this share of all times does not exceed.
    pub fn at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64
    }

    pub fn max(&self) -> f64 {
        self.0.max() as f64
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows");
    }

    /// Each time that occurred, with how often it did.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        self.0
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_at_value()))
            .collect()
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.counts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            let recorded = times.0.record_n(value, count);
            recorded.map_err(serde::de::Error::custom)?;
        }
        Ok(times)
    }
}

/// What one measurement gave.
#[derive(Clone, Serialize)]
pub struct Sample {
    /// In the unit of its row.
    pub figure: f64,
    /// Nanoseconds of CPU time per message (or round trip): of the side that sends first, of the other.
    pub cpu: Option<[f64; 2]>,
    /// How often the receiver slept, per message.
    pub sleeps: Option<f64>,
    #[serde(skip)]
    pub times: Times,
    /// Nobody else used the machine when it began.
    pub calm: bool,
    /// What is worth knowing besides.
    pub note: Option<String>,
}

impl Sample {
    pub fn new(figure: f64) -> Self {
        Self {
            figure,
            cpu: None,
            sleeps: None,
            times: Times::default(),
            calm: false,
            note: None,
        }
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len.is_multiple_of(2) => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}
