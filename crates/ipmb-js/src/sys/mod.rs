//! The only code that knows an operating system, or what of libuv differs between them. It knows nothing of messages.
//!
//! One *backend* is compiled in: `linux`, `macos` or `windows`; `unix` is what the first two share, `copied` what the last two
//! do. This file is the contract: what a backend provides, by name.
//!
//! | item | what it is |
//! |---|---|
//! | [`Source`] | something that can be waited for, and stays set until what it tells of was looked at: a descriptor that is readable, an event |
//! | [`source_of`], [`source_in`] | the source of a receiver, or that an object is, for the caller to own |
//! | [`teller`] | a source, and what sets it when it is dropped, on whatever thread |
//! | [`Waiter`] | a libuv handle that waits for a source, and calls [`Told::ready`] on the loop's thread |
//! | [`Carried`] | an object, and the descriptor by which Node's `fs` knows it |
//! | [`object_of`] | an object for a descriptor of Node's, which stays the caller's |
//! | [`Private`] | the bytes of a frozen region in memory that can be written to and that nobody else sees |
//! | `symbol` | a function that the host has, by its name |
//!
//! # Waiters
//!
//! A waiter is made with the memory of its libuv handle, which [`Waiter::init`] gives to libuv: from then on it must live, at
//! the same place, until the callback of [`Waiter::close`]. All its calls come from the loop's thread.
//!
//! After [`Waiter::start`] the source, once set, leads to a call of [`Told::ready`]. That must answer with
//! [`Waiter::looked`] when it has looked at what there was, or with [`Waiter::rest`] if nobody waits; nothing else ends the
//! wait, so that to wait again and again costs little. The handle keeps the loop running if it is referenced and was started. It is
//! never polled.

mod uv;

#[cfg(unix)]
mod unix;

#[cfg(any(target_os = "macos", windows))]
mod copied;

#[cfg(all(unix, not(target_os = "macos")))]
mod linux;
#[cfg(all(unix, not(target_os = "macos")))]
use linux as backend;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as backend;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as backend;

pub(crate) use backend::{
    Carried, Private, Source, Waiter, object_of, source_in, source_of, teller,
};
pub(crate) use uv::{Handle, Told, Uv};
