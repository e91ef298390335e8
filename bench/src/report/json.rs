//! All samples, for other programs.

use super::Report;
use serde_json::{Value, json};

pub fn report(report: &Report) -> String {
    let rows: Vec<Value> = report
        .rows
        .iter()
        .map(|row| {
            let lines = row.lines.iter().map(|line| {
                let mut value = serde_json::to_value(line).expect("plain data");
                let times = line.times();
                if !times.is_empty() {
                    value["times_ns"] = json!({
                        "p50": times.at(0.5),
                        "p90": times.at(0.9),
                        "p99": times.at(0.99),
                        "p99.9": times.at(0.999),
                        "max": times.max(),
                        "counts": times.counts(),
                    });
                }
                value["median"] = json!(line.figure());
                value
            });
            json!({ "row": row.id, "lines": lines.collect::<Vec<_>>() })
        })
        .collect();
    let whole = json!({ "head": report.head, "rows": rows });
    serde_json::to_string_pretty(&whole).expect("plain data") + "\n"
}
