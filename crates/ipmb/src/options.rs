//! How an endpoint joins.

/// Parameters of [`join`](crate::join).
#[derive(Debug, Clone)]
pub struct Options {}
