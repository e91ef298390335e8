//! Membership: who is on the bus, and how two of them get a link. Nothing here is on the path of a message.

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
