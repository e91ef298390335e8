//! The native part of the npm package `ipmb-js`.
//!
//! The JavaScript part (`lib/`) has the public classes, promises and timers. This part has what needs the bus: endpoints
//! whose calls never block, labels, regions and objects, and a watch on kernel handles in Node's own event loop.
//!
//! | file | job |
//! |---|---|
//! | `join.rs` | joining, and its options |
//! | `sender.rs`, `lines.rs`, `outbound.rs` | sending at once, what waits for space, and the payload |
//! | `receiver.rs`, `inbound.rs` | taking what is there, and the payload |
//! | `poller.rs` | waiting for kernel handles in the event loop |
//! | `label_op.rs`, `object.rs`, `region.rs`, `registry.rs` | the classes of the same names |
//! | `hot.rs` | the two calls per message |
//! | `ends.rs` | dropping endpoints without blocking the event loop |
//! | `fail.rs` | errors with a `code` |
//! | `sys` | the operating system, and what of libuv differs between them |

// Under `cfg(test)` napi registers nothing, so nothing has a user. The tests in here call nothing of Node's, which only its process
// has; those of the package are run by Node.
#![cfg_attr(test, allow(dead_code))]

mod ends;
mod fail;
mod hot;
mod inbound;
mod join;
mod label_op;
mod lines;
mod object;
mod outbound;
mod poller;
mod receiver;
mod region;
mod registry;
mod sender;
mod sys;
