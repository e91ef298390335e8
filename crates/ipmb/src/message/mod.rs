//! Messages and their payloads: what a program sends and receives, and how it becomes bytes.
//!
//! Nothing here knows of links or kernels. A sender calls [`MessageBox::encode`] into an [`Encoder`] and hands the
//! encoder's bytes to a link; a receiver wraps what a link gave it in a [`Payload`] and calls
//! [`MessageBox::decode`]. The bytes of a payload may lie in memory that a hostile peer is writing to at the same
//! time; `payload.rs` sees to it that nobody looks at them before they are copied.
//!
//! | file | job |
//! |---|---|
//! | `boxed.rs` | [`MessageBox`] and its implementation for serde types |
//! | `bytes.rs` | [`BytesMessage`], the type that all languages share |
//! | `encoder.rs`, `payload.rs` | the bytes on their way out and in |
//! | `codec/` | postcard's wire format, both ways |
//! | `object.rs` | [`Object`], an owned kernel handle |
//! | `uuid.rs` | [`TypeUuid`] |
//! | `view.rs` | [`BytesView`], a payload that is left in its sender's memory |

mod boxed;
mod bytes;
mod codec;
mod encoder;
mod object;
mod payload;
mod uuid;
mod view;

pub use boxed::MessageBox;
pub use bytes::BytesMessage;
pub use encoder::Encoder;
pub(crate) use encoder::reserve;
pub use object::Object;
pub(crate) use payload::Keeper;
pub use payload::Payload;
pub use uuid::TypeUuid;
pub use view::BytesView;

use crate::{LabelOp, MemoryRegion, Selector, SelectorMode};
use std::{fmt, time::Duration};

/// A typed payload with attachments, and who gets it.
///
/// The payload is any [`MessageBox`]. Up to 253 kernel objects and 253 memory regions travel with it.
///
/// ```
/// # fn demo(selector: ipmb::Selector) {
/// let mut message = ipmb::Message::new(selector, "hello".to_string());
/// message.payload.push('!');
/// assert!(message.objects.is_empty() && message.memory_regions.is_empty());
/// # }
/// ```
pub struct Message<T> {
    pub(crate) selector: Selector,
    /// Ids of the endpoints that a handed-back multicast has not reached yet. `None`: whoever the selector matches.
    pub(crate) bound: Bound,
    /// The payload.
    pub payload: T,
    /// Kernel handles that the receiver gets its own copies of.
    pub objects: Vec<Object>,
    /// Shared memory, travelling without a copy of its contents.
    pub memory_regions: Vec<MemoryRegion>,
}

/// The selector of a message that came.
const EVERYBODY: Selector = Selector {
    label_op: LabelOp::True,
    mode: SelectorMode::Unicast,
    ttl: Duration::ZERO,
};

impl<T> Message<T> {
    /// A message without attachments. Push those to [`objects`](Self::objects) and
    /// [`memory_regions`](Self::memory_regions).
    pub fn new(selector: Selector, payload: T) -> Self {
        Self {
            selector,
            bound: None,
            payload,
            objects: Vec::new(),
            memory_regions: Vec::new(),
        }
    }

    /// One that came. Its selector did not travel.
    #[inline]
    pub(crate) fn received(payload: T, attached: Attached) -> Self {
        Self {
            selector: const { EVERYBODY },
            bound: None,
            payload,
            objects: attached.objects,
            memory_regions: attached.regions,
        }
    }

    /// Who gets it. It does not travel: a received message has a unicast that everybody matches, which goes to whoever joined
    /// first, often oneself. To forward a message, make a new one with [`Message::new`] and move payload and attachments.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// The endpoints that a multicast did not reach before [`try_send`](crate::EndpointSender::try_send) or
    /// [`send_timeout`](crate::EndpointSender::send_timeout) handed it back.
    ///
    /// Sending the message again goes to those of them that are still members, and to nobody else. Empty for a
    /// message that was not handed back.
    pub fn unreached(&self) -> &[u64] {
        self.bound.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// Ids of endpoints. Rare, and therefore one pointer: messages are moved about, and up to 128 bytes without a call.
pub(crate) type Bound = Option<Box<Vec<u64>>>;

/// What came with a payload.
#[derive(Default)]
pub(crate) struct Attached {
    pub objects: Vec<Object>,
    pub regions: Vec<MemoryRegion>,
}

/// Shows the payload's type but not its value, so that no bound on `T` is needed and no log fills with bulk data.
impl<T> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Message");
        debug
            .field("selector", &self.selector)
            .field("payload", &format_args!("{}", std::any::type_name::<T>()))
            .field("objects", &self.objects)
            .field("memory_regions", &self.memory_regions);
        if self.bound.is_some() {
            debug.field("unreached", &self.unreached());
        }
        debug.finish()
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_grown_so_that_moving_it_takes_a_call() {
        assert!(size_of::<Message<[u64; 2]>>() <= 128);
    }
}
