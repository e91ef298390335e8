//! Mechanisms without a library around them.

pub mod ring;
pub mod spin;
pub mod waiting;
