//! From a record to a message.

use super::{Inbox, State};
use crate::{
    DecodeError, Error, MemoryRegion, Message, MessageBox, Object, Payload, RecvError,
    link::incoming::{Incoming, Record},
    message::{Attached, Keeper},
    sys::Received,
};
use std::sync::Arc;

/// Makes a message of a record and takes it off. `None` if its type is not taken. After [`RecvError::Exhausted`] it is still
/// there.
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
    let payload = match decode::<R>(link, &record, scratch) {
        Ok(payload) => payload,
        Err(error) => {
            if let (Error::Exhausted(..), Some(handles)) = (&error, handles) {
                link.put_back(handles);
            }
            return Some(Err(error.into()));
        }
    };
    let attached = match handles {
        None => Ok(Attached::default()),
        Some(handles) => attached(handles, usize::from(record.objects), region_max),
    };
    Some(match attached {
        Ok(attached) => Ok(Message::received(payload, attached)),
        // Whatever it was, the message is gone.
        Err(error) => Err(RecvError::Attachment(error)),
    })
}

/// Decodes a record's payload and takes it off; not after [`Error::Exhausted`].
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
    let decoded = unsafe {
        let (len, readable) = (record.len, record.readable());
        let decode = |payload: &mut Payload<'_>| R::decode(&uuid, payload);
        Payload::with_shared(record.payload, len, readable, scratch, &mut keep, decode)
    };
    decoded.map_err(|error| undecoded(taken, error))
}

/// Without memory the message stays first in line.
#[cold]
#[inline(never)]
fn undecoded(taken: TakenOnDrop<'_>, error: Error) -> Error {
    match error {
        // A view was made of it, which has let go of the block or will: it cannot be made once more.
        Error::Exhausted(..) if taken.0.is_kept() => {
            DecodeError("memory ran out after a view was made of it".into()).into()
        }
        Error::Exhausted(..) => {
            std::mem::forget(taken);
            error
        }
        _ => error,
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
    let decoded = R::decode(&local.uuid, &mut Payload::new(&local.payload));
    if let Err(error @ Error::Exhausted(..)) = decoded {
        inbox.arrivals().local_bytes += local.cost();
        state.local.push_front(local);
        state.links_first = true;
        state.let_others_come_first();
        return Some(Err(error.into()));
    }
    state.stats.received += 1;
    state.stats.received_bytes += local.payload.len() as u64;
    let attached = Attached {
        objects: local.objects,
        regions: local.regions,
    };
    Some(match decoded {
        Ok(payload) => Ok(Message::received(payload, attached)),
        Err(error) => Err(error.into()),
    })
}
