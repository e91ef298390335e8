//! From a record to a payload and what came with it.

use super::State;
use crate::{
    Error, MemoryRegion, MessageBox, Object, Payload, RecvError,
    link::incoming::{Incoming, Record},
};

/// What came with a payload. Apart from it, since most messages have nothing and are moved about without it.
#[derive(Default)]
pub(crate) struct Attached {
    pub objects: Vec<Object>,
    pub regions: Vec<MemoryRegion>,
}

/// Decodes a record and takes it off. `None` if its type is not taken.
#[inline]
pub(super) fn unpack<R: MessageBox>(
    link: &mut Incoming,
    record: Record,
    scratch: &mut Vec<u8>,
    region_max: u64,
    attached: &mut Attached,
) -> Option<Result<R, RecvError>> {
    // Out of the link in any case: the next record brings its own.
    let handles = record.has_handles.then(|| link.take_handles());
    let uuid = *link.uuid();
    if !R::accepts(&uuid) {
        if !crate::fault::on(9) {
            link.taken(&record);
        }
        return None;
    }
    let decoded = {
        let _taken = TakenOnDrop(link, &record);
        // SAFETY: the payload lies in the ring or in a mapped block, which stay until the record is taken off.
        let mut payload = unsafe { Payload::from_shared(record.payload, record.len, scratch) };
        R::decode(&uuid, &mut payload)
    };
    let decoded = match handles {
        None => decoded,
        Some(mut handles) => decoded.and_then(|payload| {
            let regions = handles.split_off(usize::from(record.objects).min(handles.len()));
            attached.objects = handles.into_iter().map(Object::from).collect();
            let regions = regions.into_iter();
            let regions = regions.map(|region| MemoryRegion::from_handle(region, region_max));
            attached.regions = regions.collect::<Result<_, Error>>()?;
            Ok(payload)
        }),
    };
    Some(decoded.map_err(RecvError::from))
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
    state: &mut State,
    attached: &mut Attached,
) -> Option<Result<R, RecvError>> {
    let local = state.local.pop_front()?;
    if !R::accepts(&local.uuid) {
        state.stats.skipped += 1;
        return None;
    }
    state.stats.received += 1;
    state.stats.received_bytes += local.payload.len() as u64;
    let decoded = R::decode(&local.uuid, &mut Payload::new(&local.payload));
    attached.objects = local.objects;
    attached.regions = local.regions;
    Some(decoded.map_err(RecvError::from))
}
