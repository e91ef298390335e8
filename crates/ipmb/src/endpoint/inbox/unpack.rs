//! From a record to a message.

use super::{Inbox, State};
use crate::{
    Error, MemoryRegion, Message, MessageBox, Object, Payload, RecvError,
    link::incoming::{Incoming, Record},
    message::{Attached, Keeper},
    sys::Received,
};
use std::sync::Arc;

/// Makes a message of a record and takes it off. `None` if its type is not taken.
pub(super) fn unpack<R: MessageBox>(
    link: &mut Incoming,
    record: Record,
    scratch: &mut Vec<u8>,
    region_max: u64,
) -> Option<Result<Message<R>, RecvError>> {
    // Out of the link in any case: the next record brings its own.
    let handles = record.has_handles.then(|| link.take_handles());
    if !R::accepts(link.uuid()) {
        if !crate::fault::on(9) {
            link.taken(&record);
        }
        return None;
    }
    let message = decode::<R>(link, &record, scratch).and_then(|payload| {
        let attached = match handles {
            None => Attached::default(),
            Some(handles) => attached(handles, usize::from(record.objects), region_max)?,
        };
        Ok(Message::received(payload, attached))
    });
    Some(message.map_err(RecvError::from))
}

/// Decodes a record's payload and takes it off.
#[inline]
pub(super) fn decode<R: MessageBox>(
    link: &mut Incoming,
    record: &Record,
    scratch: &mut Vec<u8>,
) -> Result<R, Error> {
    let uuid = *link.uuid();
    let taken = TakenOnDrop(link, record);
    let mut keep = || Some(Arc::new(taken.0.keep(record)?) as Keeper);
    // SAFETY: the payload lies in the ring or in a mapped block, which stay until the record is taken off, and the block
    // beyond that if it is kept.
    unsafe {
        let (len, readable) = (record.len, record.readable());
        let decode = |payload: &mut Payload<'_>| R::decode(&uuid, payload);
        Payload::with_shared(record.payload, len, readable, scratch, &mut keep, decode)
    }
}

/// The handles of a message: first so many objects, then regions.
fn attached(mut handles: Received, objects: usize, region_max: u64) -> Result<Attached, Error> {
    let objects = objects.min(handles.len());
    // The regions first: objects are the user's only if nothing is wrong with those.
    let regions = Received::from(handles.split_off(objects));
    let regions = regions.map(|region| MemoryRegion::from_handle(region, region_max));
    let regions = regions.collect::<Result<_, _>>()?;
    Ok(Attached {
        objects: handles.map(Object::from).collect(),
        regions,
    })
}

/// Takes a record off also when decoding it panics: it would be first in line for ever.
struct TakenOnDrop<'l>(&'l mut Incoming, &'l Record);

impl Drop for TakenOnDrop<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken(self.1);
    }
}

/// The same for the next message of the endpoint to itself.
#[cold]
pub(super) fn unpack_local<R: MessageBox>(
    inbox: &Inbox,
    state: &mut State,
) -> Option<Result<Message<R>, RecvError>> {
    let local = state.local.pop_front()?;
    inbox.arrivals().local_bytes -= local.cost();
    if !R::accepts(&local.uuid) {
        state.stats.skipped += 1;
        return None;
    }
    state.stats.received += 1;
    state.stats.received_bytes += local.payload.len() as u64;
    let attached = Attached {
        objects: local.objects,
        regions: local.regions,
    };
    let decoded = R::decode(&local.uuid, &mut Payload::new(&local.payload));
    Some(match decoded {
        Ok(payload) => Ok(Message::received(payload, attached)),
        Err(error) => Err(error.into()),
    })
}
