//! The packets between a member and its controller. A packet is one message in postcard's format; its handles come with
//! it. Every field is checked where it is used; a packet that does not decode ends the connection.

use crate::{Version, sys::MAX_HANDLES};
use serde::{Deserialize, Serialize};

/// The version of the protocol. It changes apart from the crate's: programs of the same major number share a bus.
pub(crate) const PROTOCOL: Version = Version(1, 0, 0);

/// Longest packet: a label of the largest size, and what stands around it.
pub(crate) const PACKET_MAX: usize = 32 << 10;

/// Handles of a link's introduction: records, returns, bell, side channel.
pub(crate) const LINK_HANDLES: usize = 4;
/// Introductions of one member that a controller keeps while their receivers have no room. A member makes no more links than
/// so many, that are not accepted yet, usable at once: what it puts into them is delivered though it dies.
pub(crate) const PENDING: usize = 16;
/// Most handles, and bytes of payload, of the parked messages that a leaver may leave behind.
pub(crate) const LEFT_HANDLES: usize = 64;
pub(crate) const LEFT_BYTES: usize = 64 << 20;

const _: () = assert!(LINK_HANDLES <= MAX_HANDLES);

pub(crate) type Nonce = [u8; 32];
pub(crate) type Proof = [u8; 32];

/// Marks the first packet of this protocol, whatever follows in later versions.
const MAGIC: u32 = u32::from_le_bytes(*b"ipmb");

/// First packet of a connection in both directions; its layout never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    magic: u32,
    pub major: u8,
    pub minor: u8,
    pub nonce: Nonce,
}

impl Hello {
    pub(crate) fn new(nonce: Nonce) -> Self {
        Self {
            magic: MAGIC,
            major: PROTOCOL.0,
            minor: PROTOCOL.1,
            nonce,
        }
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.major, self.minor, 0)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.magic == MAGIC
    }

    pub(crate) fn is_compatible(&self) -> bool {
        self.is_ours() && (self.major == PROTOCOL.0 || crate::fault::on(4))
    }
}

/// From a member to the controller, after the [`Hello`]s.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToController {
    /// Asks to be admitted. Comes with the last directory as a handle if `before` is set.
    Register {
        proof: Proof,
        /// Known to this endpoint and the controllers only; its hash stands in the directory, so that nobody else can come
        /// back under the endpoint's id.
        secret: [u8; 16],
        label: Vec<u8>,
        receives: bool,
        /// Id under which the endpoint was a member before.
        before: Option<u64>,
    },
    /// Passes the handles of a new link on to `to`.
    Introduce { to: u64, link: u64 },
    /// From now on tell, or no longer tell, when the directory changes.
    Watch(bool),
    /// The endpoint takes no more messages.
    StopReceiving,
    /// A message that waits for a receiver, left behind by a leaver. Handles: a memory, objects, regions. The memory has the
    /// selector's expression and then the payload: the expression alone can be longer than a packet.
    Park {
        uuid: [u8; 16],
        label_op_len: u32,
        multicast: bool,
        remaining_ms: u64,
        len: u64,
        objects: u8,
        regions: u8,
    },
    /// The endpoint leaves in good order.
    Leave,
}

/// From the controller to a member, after the [`Hello`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToMember {
    /// Admitted. Handles: the directory, the members' mark.
    Welcome { proof: Proof, id: u64 },
    /// Not admitted; the connection ends.
    Refused(Refused),
    /// The directory has moved to the memory that comes with this.
    Directory,
    /// The directory has changed, or has settled.
    Look,
    /// A new link from `from`. Handles: [`LINK_HANDLES`].
    Introduced { from: u64, link: u64 },
    /// The receiver of an introduction is not a member.
    NoSuchMember { link: u64 },
    /// What was asked last ([`ToController::StopReceiving`], [`ToController::Leave`]) is done.
    Done,
    /// An introduction was not kept, as too many others waited; its receiver may have room now.
    Again { link: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refused {
    Token,
    Permission,
    Full,
}

/// A packet.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising plain data into memory fails only without memory; an empty packet is then refused by the other side.
    postcard::to_allocvec(message).unwrap_or_default()
}

/// Reads a packet in full.
pub(crate) fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}
