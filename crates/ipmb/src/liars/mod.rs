//! Peers that break the rules, for tests and for fuzzing only.
//!
//! | | |
//! |---|---|
//! | `by_hand.rs` | a link by hand, whose words are written by their place |
//! | `hostile` | each rule broken on purpose, against ordinary endpoints |
//! | `oracle` | what must hold whatever bytes a peer says |

mod by_hand;
#[cfg(test)]
mod hostile;
pub mod oracle;
