//! Labels of endpoints, and the expressions over them.

/// The names of an endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Label(Vec<String>);

/// An expression over labels.
#[derive(Debug, Clone)]
pub struct LabelOp(Vec<u8>);
