//! Measures ipmb against bare mechanisms and other crates, in one run, in turns, and says which bars are met.
//!
//! `cargo run --release -p ipmb-bench` prints a Markdown table, and writes it with plots and a JSON file to
//! `target/bench`. `--help` says what can be chosen. Ends with 1 if a measurement was void.

use ipmb_bench::{
    arguments::{Arguments, USAGE},
    plot, process,
    report::{Head, Report},
    rows::{self, Bench, Line},
    run,
};
use std::{io, process::ExitCode};

fn main() -> ExitCode {
    if process::play_if_child() {
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|a| a == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::new(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let bench = Bench {
        bus: format!("ipmb-bench.{}", std::process::id()),
        quick: arguments.quick,
        calm: arguments.calm,
    };
    let mut rows = rows::all();
    let ids: Vec<&str> = rows.iter().map(|row| row.id()).collect();
    let lines: Vec<Line> = rows.iter().flat_map(|row| row.lines()).collect();
    let names: Vec<&str> = lines.iter().map(|line| &*line.by).collect();
    if let Some(name) = arguments.unknown(&ids, &names) {
        eprintln!("nothing is called {name}\n{USAGE}");
        return ExitCode::from(2);
    }
    rows.retain(|row| arguments.wants_row(row.id()));
    let bar = run::progress(&rows, &arguments);
    let mut report = Report {
        head: Head::new(arguments.rounds, arguments.quick),
        rows: Vec::new(),
    };
    for row in &rows {
        report.rows.push(run::row(&**row, &bench, &arguments, &bar));
    }
    bar.finish_and_clear();
    print!("{}", report.markdown());
    if let Err(e) = write(&report, &arguments) {
        eprintln!("{}: {e}", arguments.out.display());
        return ExitCode::FAILURE;
    }
    if report.has_void() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write(report: &Report, arguments: &Arguments) -> io::Result<()> {
    std::fs::create_dir_all(&arguments.out)?;
    let mut files = plot::all(&report.rows);
    files.push(("report.md", report.markdown()));
    files.push(("short.md", report.short()));
    files.push(("report.json", report.json()));
    for (name, text) in files {
        std::fs::write(arguments.out.join(name), text)?;
    }
    Ok(())
}
