//! The packets of a link's side channel.

use crate::sys::{AHEAD_SIZE, Ahead, BorrowedHandle, Channel, MAX_HANDLES, Received};
use std::io;

/// Receiver to sender: there is room again, or: the link is accepted.
const NEWS: u8 = 1;
/// Sender to receiver: handles of a record.
const HANDLES: u8 = 2;
/// Kind, padding, number of handles, number of the attachment.
const HEADER: usize = AHEAD_SIZE;

/// Sends the handles of one record: a block's memory first, then objects and regions. When it fails half-way the number is
/// never used by a record, and the receiver throws away what came with it.
pub(crate) fn send(
    side: &Channel,
    number: u64,
    memory: Option<BorrowedHandle<'_>>,
    handles: &[BorrowedHandle<'_>],
) -> io::Result<()> {
    let packet = |handles: &[BorrowedHandle<'_>]| {
        let mut bytes = [0; HEADER];
        bytes[0] = HANDLES;
        bytes[4..8].copy_from_slice(&(handles.len() as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        side.send(&bytes, handles)
    };
    if let Some(memory) = memory {
        packet(&[memory])?;
    }
    handles.chunks(MAX_HANDLES).try_for_each(packet)
}

/// Tells the sender that there is news in the returns. When the channel is full there is news in it already.
pub(crate) fn tell(side: &Channel) {
    let _ = side.send(&[NEWS], &[]);
}

/// More packets than a channel holds at a time.
const FLOOD: usize = 4096;

/// The other end sends faster than anybody could who keeps to the protocol, or handles where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flood;

/// Takes the news out of the channel; the sender then looks at the returns.
pub(crate) fn drain(side: &Channel) -> Result<(), Flood> {
    for _ in 0..FLOOD {
        match side.skip_plain() {
            Ok(Some(1..)) => {}
            // To throw handles away here would be to wait until they are closed.
            Ok(None) => return Err(Flood),
            Ok(Some(0)) | Err(_) => return Ok(()),
        }
    }
    Err(Flood)
}

/// Why handles could not be taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// This process has no room for them; they stay in the channel.
    Exhausted(io::Error),
    /// The sender does not keep to the protocol.
    Broken(&'static str),
}

/// Takes the handles of attachment `number` until there are `count`. Can be called again after a shortage. Where so many records
/// `behind` it have one handle each, as it has, theirs may come along, and wait in `ahead`.
pub(crate) fn take(
    side: &Channel,
    ahead: &mut Ahead,
    behind: usize,
    number: u64,
    count: usize,
    handles: &mut Received,
) -> Result<(), TakeError> {
    let mut given_up = 0;
    while handles.len() < count {
        let before = handles.len();
        let mut bytes = [0; HEADER + 1];
        let packet = match side.recv_next(ahead, behind, &mut bytes, handles) {
            Ok(packet) => packet,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(TakeError::Broken("a record came before its handles"));
            }
            Err(e) if crate::sys::exhausted(&e).is_some() && !crate::fault::on(28) => {
                return Err(TakeError::Exhausted(e));
            }
            Err(_) => return Err(TakeError::Broken("the side channel failed")),
        };
        let field = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        let theirs = field(8).map_or(0, u64::from_le_bytes);
        if packet.len != HEADER || bytes[0] != HANDLES {
            return Err(TakeError::Broken("an unknown packet in the side channel"));
        }
        if theirs < number {
            // Of a record that was given up.
            drop(Received::from(handles.split_off(before)));
            given_up += 1;
            if given_up > FLOOD {
                return Err(TakeError::Broken(
                    "a flood of handles that belong to nothing",
                ));
            }
            continue;
        }
        if theirs > number {
            return Err(TakeError::Broken("handles of a later record"));
        }
        if packet.surplus || handles.len() == before || handles.len() > count {
            return Err(TakeError::Broken("a wrong number of handles"));
        }
    }
    Ok(())
}
