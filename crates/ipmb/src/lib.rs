//! A message bus between the processes of one machine, with no server to install or to start.
//!
//! A process [`join`]s a bus, named by an identifier, and becomes an *endpoint* with a [`Label`]. It sends a [`Message`]
//! to the endpoints whose labels match the message's [`Selector`], and receives what others send to it:
//!
//! ```
//! use ipmb::{Message, Options, Selector, label};
//! use std::time::Duration;
//!
//! let bus = format!("doc.overview.{}", std::process::id()); // "com.example.app.1" in a real program
//! let soon = Some(Duration::from_secs(5));
//!
//! // As a rule these two are two processes.
//! let (_sender, earth) = ipmb::join::<(), String>(Options::new(&bus, label!("earth"), ""), soon)?;
//! let (moon, _receiver) = ipmb::join::<String, ()>(Options::new(&bus, label!("moon"), ""), soon)?;
//!
//! moon.send(Message::new(Selector::unicast("earth"), "hello world".to_string()))?;
//! assert_eq!(earth.recv(soon)?.payload, "hello world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | see |
//! |---|---|
//! | name a bus, choose a token, limits and who may join | [`Options`], [`Access`] |
//! | choose who gets a message, and how long it waits for one | [`Selector`], [`LabelOp`] |
//! | send types of your own, or several types | [`TypeUuid`], [`MessageBox`] |
//! | exchange bytes with programs in other languages | [`BytesMessage`] |
//! | send kernel handles | [`Object`] |
//! | share memory without copying it | [`MemoryRegion`], [`MemoryRegistry`] |
//! | write and read large payloads in place | [`EndpointSender::loan`], [`BytesView`] |
//! | send without waiting for space | [`EndpointSender::try_send`], [`EndpointSender::send_timeout`] |
//! | receive in an event loop | [`EndpointReceiver::try_recv`] and its `AsFd` |
//! | see what an endpoint did | [`Stats`] |
//!
//! # What to know
//!
//! * Messages of one sender reach one receiver in the order in which they were sent. Across pairs no order is promised.
//! * [`EndpointSender::send`] waits while a receiver's link is full. A stopped receiver so holds up those who send to it,
//!   and nobody else. Two single-threaded endpoints that both wait in `send` on each other wait for ever; `try_send` is
//!   the cure.
//! * `Ok` of a send means accepted, not received. A message comes at most once; the README's *Guarantees* say what happens
//!   when a process dies.
//! * A message that nobody matches is gone unless its selector has a ttl.
//! * Receivers do not learn who sent a message. For replies, put a unique part of your own label and a request number into the
//!   payload. Nobody is told of joins and deaths.
//! * One endpoint at a time also hosts the controller, which introduces endpoints to each other; another takes over when
//!   it goes. Set [`Options::controller_affinity`] to false in a process that is debugged or suspended often.
//! * One thread per process serves its endpoints. On Linux and macOS a second one closes what others handed over and nobody
//!   asked for, and on macOS a third takes Mach ports in. On Windows further ones, one for 63 handles, wait where there are
//!   more than 64 handles, or for an event loop. No message passes through them once sender and receiver have met, but for those
//!   that a leaver had parked.
//! * After `fork` without `exec`, the child's copies of endpoints and regions return an error `Forked`; join again there.
//! * The crate logs what goes wrong through the crate `log`, also while an endpoint is locked: a logger that sends its records
//!   over a bus has to hand them to another thread.
//!
//! It runs on Linux 5.10 and later. Backends for macOS and Windows are built, but were not run on those systems; see the README.

// Under the models most of the tests are not compiled, and what they alone use is.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(all(test, not(loom)))]
mod abandoned;
mod control;
#[cfg(not(fault))]
mod crash;
#[cfg(fault)]
#[doc(hidden)]
pub mod crash;
mod endpoint;
// The derive macros name the crate `::ipmb`, in here as everywhere.
extern crate self as ipmb;

mod error;
mod fault;
mod label;
// They forge what Linux has: sealed memories, and the sockets of its backend.
#[cfg(all(
    any(test, fuzzing),
    not(loom),
    any(target_os = "linux", target_os = "android")
))]
mod liars;
mod link;
mod memory;
mod message;
mod options;
mod selector;
mod stats;
mod sync;
mod sys;
mod version;
mod weakness;

pub use endpoint::{EndpointReceiver, EndpointSender, Iter, Loan, join};
pub use error::{DecodeError, Error, JoinError, RecvError, Resource, SendError, TrySendError};
pub use ipmb_derive::{MessageBox, TypeUuid};
pub use label::{Label, LabelOp};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use liars::oracle;
pub use memory::{MemoryRegion, MemoryRegistry};
pub use message::{
    BytesMessage, BytesView, Encoder, Message, MessageBox, Object, Payload, TypeUuid,
};
pub use options::{Access, Options};
pub use selector::{Selector, SelectorMode};
pub use stats::Stats;
pub use version::{Version, version, version_pre};

/// The readme's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
