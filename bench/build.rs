//! Tells the program what compiled it.

use std::process::Command;

fn main() {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let version = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let version = version.unwrap_or_else(|e| format!("unknown compiler ({e})"));
    println!("cargo::rustc-env=IPMB_BENCH_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
