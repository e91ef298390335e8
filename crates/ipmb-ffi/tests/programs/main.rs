//! C and C++ programs against the Rust library in another process. The programs are built with CMake against an installed
//! copy of this library, as C11 and C++14; `IPMB_SANITIZE=1` builds them with the sanitizers. Without CMake or a C++
//! compiler the tests say `SKIPPED` and pass.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod build;
mod program;

mod data;
mod examples;
mod joining;

use ipmb::{BytesMessage, EndpointReceiver, EndpointSender, Label, Options};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const SOON: Option<Duration> = Some(Duration::from_secs(20));

/// A bus name that no other test, and no other run, uses.
fn name(test: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "test.ffi.{test}.{}.{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn join(bus: &str, label: Label) -> (EndpointSender<BytesMessage>, EndpointReceiver<BytesMessage>) {
    ipmb::join(Options::new(bus, label, "token"), SOON).expect("join")
}

fn bytes(format: u16, data: &[u8]) -> BytesMessage {
    BytesMessage {
        format,
        data: data.to_vec(),
    }
}
