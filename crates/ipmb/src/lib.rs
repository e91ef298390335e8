//! A message bus between processes: `join`, `send`, `recv`.

mod control;
mod endpoint;
// The derive macros name the crate `::ipmb`, in here as everywhere.
extern crate self as ipmb;

mod error;
mod label;
mod link;
mod memory;
mod message;
mod options;
mod selector;
mod stats;
mod sync;
mod sys;
mod version;

pub use endpoint::{EndpointReceiver, EndpointSender, Iter, join};
pub use error::{DecodeError, Error, JoinError, RecvError, Resource, SendError, TrySendError};
pub use ipmb_derive::{MessageBox, TypeUuid};
pub use label::{Label, LabelOp};
pub use memory::{MemoryRegion, MemoryRegistry};
pub use message::{BytesMessage, Encoder, Message, MessageBox, Object, Payload, TypeUuid};
pub use options::{Access, Options};
pub use selector::{Selector, SelectorMode};
pub use stats::Stats;
pub use version::{Version, version, version_pre};
