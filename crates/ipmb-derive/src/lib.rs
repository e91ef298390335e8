//! Derive macros of the crate `ipmb`. Use them through it.
