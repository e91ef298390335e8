//! Gives the shared library its versioned name.

/// Counts up when a program built against an earlier library would no longer run with this one. `CMakeLists.txt` has
/// the same number.
const ABI: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libipmb_ffi.so.{ABI}");
    }
}
