//! Membership: who is on the bus, and how two of them get a link. Of messages
//! only those pass here that were parked by who left.

mod budget;
pub(crate) mod bus;
pub(crate) mod controller;
pub(crate) mod directory;
pub(crate) mod member;
pub(crate) mod membership;
pub(crate) mod proof;
pub(crate) mod protocol;
pub(crate) mod reactor;
#[cfg(all(test, not(loom)))]
mod tests;
