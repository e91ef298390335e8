//! The parts of the benchmark. See `main.rs` for the command.

pub mod arguments;
pub mod bare;
pub mod calls;
pub mod calm;
pub mod load;
pub mod peers;
pub mod plot;
pub mod process;
pub mod report;
pub mod rows;
pub mod run;
pub mod shared;
pub mod usage;
