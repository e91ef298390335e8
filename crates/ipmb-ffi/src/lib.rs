//! The C interface of the message bus [`ipmb`]: what C and C++ programs link to. Its functions are documented in
//! `include/ipmb_ffi.h`, which is made of this source; `include/ipmb.h` wraps them for C++.
//!
//! | file | job |
//! |---|---|
//! | `border.rs` | no panic leaves; the calling thread's last error |
//! | `code.rs` | the error codes |
//! | `handle.rs` | handles, out-parameters and texts of the caller, checked |
//! | `endpoint.rs`, `settings.rs` | joining, sending, receiving |
//! | `message.rs`, `object.rs`, `region.rs`, `registry.rs` | what travels |
//! | `label.rs`, `selector.rs` | who gets it |
//! | `sys` | the operating system: what the numbers of kernel objects are |
//!
//! # Safety
//!
//! One contract holds for all functions, which is why none repeats it. A pointer is null or valid for what the function
//! does with it. A handle is null or came out of this library and was not dropped since; who gives a handle away does not
//! use it any more. A text is null or ends with a NUL. Where the documentation says that one thread at a time may use a
//! handle, the caller sees to it. Everything else is checked: null, handles of another kind, texts that are not UTF-8,
//! indices and ranges, numbers that are no mode and no open descriptor. None of them is undefined behaviour, and no panic
//! leaves this crate.

#![allow(clippy::missing_safety_doc)] // The contract above is that of all functions.

mod border;
mod code;
mod endpoint;
mod handle;
mod label;
mod message;
mod object;
mod region;
mod registry;
mod selector;
mod settings;
mod sys;
mod version;

#[cfg(test)]
mod header;

pub use border::*;
pub use code::*;
pub use endpoint::*;
pub use label::*;
pub use message::*;
pub use object::*;
pub use region::*;
pub use registry::*;
pub use selector::*;
pub use settings::*;
pub use version::*;
