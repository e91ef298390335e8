//! Messages: bytes with a format number, objects and memory regions.

use crate::{
    border,
    code::{
        ERROR_CODE_EXHAUSTED, ERROR_CODE_OUT_OF_RANGE, ERROR_CODE_TOO_LARGE, ErrorCode, Failure,
    },
    handle::{self, Kind, Tagged},
    object::Object,
    region::MemoryRegion,
    selector::Selector,
    sys,
};
use ipmb::BytesMessage;
use libc::size_t;
use std::{ffi::c_void, ptr};

/// A message: bytes with a number that says what they are, objects and memory regions. Owned by the caller: free it with
/// ipmb_message_drop, or send it. One thread at a time may use it; different threads one after the other.
pub type Message = *mut c_void;

/// What a `Message` stands for. The regions wait in boxes, so that C can hold a handle of one that is still inside.
pub(crate) struct Parcel {
    message: ipmb::Message<BytesMessage>,
    #[allow(clippy::vec_box)]
    // A handle is the address of a box, which growing the list must not move.
    regions: Vec<Box<Tagged<ipmb::MemoryRegion>>>,
}

impl Kind for Parcel {
    const NAME: &'static str = "Message";
    const TAG: [u8; 8] = *b"ipmb msg";
}

impl Parcel {
    /// To be sent.
    pub(crate) fn close(self) -> ipmb::Message<BytesMessage> {
        let mut message = self.message;
        message
            .memory_regions
            .extend(self.regions.into_iter().map(|region| region.value));
        message
    }

    /// As received.
    pub(crate) fn open(mut message: ipmb::Message<BytesMessage>) -> Self {
        let regions = message.memory_regions.drain(..).map(Tagged::new).collect();
        Self { message, regions }
    }
}

fn out_of_range(what: &str, index: usize, count: usize) -> Failure {
    Failure::new(
        ERROR_CODE_OUT_OF_RANGE,
        format!("there is no {what} {index}, the message has {count}"),
    )
}

/// Makes a message with a copy of `size` bytes at `ptr`; NULL after a failure. With a size of 0, `ptr` may be NULL.
///
/// Ownership: `selector` and the bytes are copied and stay the caller's; the caller frees the result with
/// ipmb_message_drop or sends it. Thread-safe; does not block. Errors (ipmb_last_error_code): as ipmb_message_try,
/// which takes more than 4 GiB, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message(
    selector: Selector,
    format: u16,
    ptr: *const u8,
    size: u32,
) -> Message {
    border::value(ptr::null_mut(), || {
        let size = usize::try_from(size).map_err(|_| too_large(size.into()))?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe { make(selector, format, ptr, size) }
    })
}

/// As ipmb_message, with a code and for any size. After a failure `*message` is unchanged.
///
/// Ownership: `selector` and the bytes are copied and stay the caller's; `*message` is the caller's. Thread-safe; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT (also for a mode that is none), ERROR_CODE_TOO_LARGE,
/// ERROR_CODE_EXHAUSTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_try(
    selector: Selector,
    format: u16,
    ptr: *const u8,
    size: size_t,
    message: *mut Message,
) -> ErrorCode {
    border::code(|| {
        handle::needs(message, "message")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe { handle::put(message, "message", make(selector, format, ptr, size)?) }
    })
}

fn too_large(size: u64) -> Failure {
    Failure::new(
        ERROR_CODE_TOO_LARGE,
        format!("{size} bytes are more than this system can address"),
    )
}

unsafe fn make(
    selector: Selector,
    format: u16,
    data: *const u8,
    size: usize,
) -> Result<Message, Failure> {
    // SAFETY: the caller's contract.
    let selector = unsafe { selector.read()? };
    let mut copy = Vec::new();
    if size > 0 {
        handle::needs(data, "ptr")?;
        if isize::try_from(size).is_err() {
            return Err(too_large(size as u64));
        }
        copy.try_reserve_exact(size).map_err(|_| {
            Failure::new(
                ERROR_CODE_EXHAUSTED,
                format!("no memory for {size} bytes of payload"),
            )
        })?;
        // SAFETY: not null, and no more than an allocation can hold; the caller says that `size` bytes are there.
        copy.extend_from_slice(unsafe { std::slice::from_raw_parts(data, size) });
    }
    let payload = BytesMessage { format, data: copy };
    Ok(handle::give(Parcel::open(ipmb::Message::new(
        selector, payload,
    ))))
}

/// Frees a message with the objects and regions that are still in it. NULL is fine.
///
/// Takes ownership of the message. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_drop(message: Message) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<Parcel>(message) });
}

/// A message's format, and where its bytes are and how many. After a failure all three are 0 or NULL. More than 4 GiB do
/// not fit into `*size` and are a failure; use ipmb_message_bytes_data_try. A pointer that is NULL is left out.
///
/// Ownership: the bytes stay the message's and are valid until it is sent or dropped. Thread-safe as long as nobody sends
/// or drops it; does not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TOO_LARGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_bytes_data(
    message: *const Message,
    format: *mut u16,
    ptr: *mut *const u8,
    size: *mut u32,
) {
    // SAFETY: as the crate's text demands of all pointers.
    let write = |number, start, count| unsafe {
        if !format.is_null() {
            format.write(number);
        }
        if !ptr.is_null() {
            ptr.write(start);
        }
        if !size.is_null() {
            size.write(count);
        }
    };
    write(0, ptr::null(), 0);
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        let payload = unsafe { &handle::get::<Parcel>(message)?.message.payload };
        let count = u32::try_from(payload.data.len()).map_err(|_| {
            Failure::new(
                ERROR_CODE_TOO_LARGE,
                "the payload is larger than 4 GiB; use ipmb_message_bytes_data_try",
            )
        })?;
        write(payload.format, payload.data.as_ptr(), count);
        Ok(())
    });
}

/// As ipmb_message_bytes_data, with a code and for any size. After a failure nothing is written. A pointer that is NULL
/// is left out.
///
/// Ownership: the bytes stay the message's and are valid until it is sent or dropped. Thread-safe as long as nobody sends
/// or drops it; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_bytes_data_try(
    message: *const Message,
    format: *mut u16,
    ptr: *mut *const u8,
    size: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let payload = &handle::get::<Parcel>(message)?.message.payload;
            if !format.is_null() {
                format.write(payload.format);
            }
            if !ptr.is_null() {
                ptr.write(payload.data.as_ptr());
            }
            if !size.is_null() {
                size.write(payload.data.len());
            }
        }
        Ok(())
    })
}

/// Adds an object behind the others. After a failure it stays the caller's; ipmb_message_object_append_try tells it
/// directly.
///
/// Takes ownership of the object. One thread at a time may use a message; does not block. Errors
/// (ipmb_last_error_code): as ipmb_message_object_append_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_append(message: *mut Message, obj: Object) {
    // SAFETY: the same contract.
    unsafe { ipmb_message_object_append_try(message, obj) };
}

/// Adds an object behind the others. That there are at most 253 is checked when the message is sent.
///
/// Takes ownership of the object; after a failure it stays the caller's. One thread at a time may use a message; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT, also if the object is not open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_append_try(
    message: *mut Message,
    obj: Object,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        unsafe {
            let parcel = handle::get_mut::<Parcel>(message)?;
            parcel.message.objects.push(sys::take(obj)?);
        }
        Ok(())
    })
}

/// How many objects a message has, into `*count`.
///
/// Thread-safe as long as nobody changes or drops the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_count(
    message: *const Message,
    count: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let objects = &handle::get::<Parcel>(message)?.message.objects;
            handle::put(count, "count", objects.len())
        }
    })
}

/// Takes an object out of a message; those behind it move up. 0 after a failure.
///
/// Ownership: the object is the caller's, to be closed with ipmb_object_drop. One thread at a time may use a message;
/// does not block. Errors (ipmb_last_error_code): as ipmb_message_object_retrieve_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_retrieve(
    message: *mut Message,
    index: usize,
) -> Object {
    let mut object = 0;
    // SAFETY: the same contract; `object` can be written.
    unsafe { ipmb_message_object_retrieve_try(message, index, &mut object) };
    object
}

/// Takes an object out of a message; those behind it move up. After a failure `*obj` is unchanged.
///
/// Ownership: `*obj` is the caller's, to be closed with ipmb_object_drop or the system's close. One thread at a time may
/// use a message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_retrieve_try(
    message: *mut Message,
    index: size_t,
    obj: *mut Object,
) -> ErrorCode {
    border::code(|| {
        handle::needs(obj, "obj")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let objects = &mut handle::get_mut::<Parcel>(message)?.message.objects;
            if index >= objects.len() {
                return Err(out_of_range("object", index, objects.len()));
            }
            handle::put(obj, "obj", sys::number(objects.remove(index).into_raw())?)
        }
    })
}

/// An object of a message, which stays the message's. 0 after a failure.
///
/// Ownership: the object is borrowed: do not close it; it is valid until it is taken out or the message is sent or
/// dropped. Thread-safe as long as nobody changes the message; does not block. Errors (ipmb_last_error_code): as
/// ipmb_message_object_get_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_get(message: *const Message, index: usize) -> Object {
    let mut object = 0;
    // SAFETY: the same contract; `object` can be written.
    unsafe { ipmb_message_object_get_try(message, index, &mut object) };
    object
}

/// An object of a message, which stays the message's. After a failure `*obj` is unchanged.
///
/// Ownership: `*obj` is borrowed: do not close it; it is valid until it is taken out or the message is sent or dropped.
/// Thread-safe as long as nobody changes the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_OUT_OF_RANGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_object_get_try(
    message: *const Message,
    index: size_t,
    obj: *mut Object,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let objects = &handle::get::<Parcel>(message)?.message.objects;
            let object = objects.get(index);
            let object = object.ok_or_else(|| out_of_range("object", index, objects.len()))?;
            handle::put(obj, "obj", sys::number(object.as_raw())?)
        }
    })
}

/// Adds a memory region behind the others. After a failure it stays the caller's;
/// ipmb_message_memory_region_append_try tells it directly.
///
/// Takes ownership of the region; the first attempt to send the message unmaps it, even one that fails. One thread at a
/// time may use a message; does not block. Errors (ipmb_last_error_code): as ipmb_message_memory_region_append_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_append(
    message: *mut Message,
    region: MemoryRegion,
) {
    // SAFETY: the same contract.
    unsafe { ipmb_message_memory_region_append_try(message, region) };
}

/// Adds a memory region behind the others. That there are at most 253 is checked when the message is sent.
///
/// Takes ownership of the region, and the first attempt to send the message unmaps it, even one that fails. If this here
/// fails, the region stays the caller's. One thread at a time may use a message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_append_try(
    message: *mut Message,
    region: MemoryRegion,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        unsafe {
            let parcel = handle::get_mut::<Parcel>(message)?;
            let inside = |held: &mut Box<Tagged<_>>| held.handle() == region;
            if parcel.regions.iter_mut().any(inside) {
                return Err(Failure::argument("the region is in this message already"));
            }
            parcel
                .regions
                .push(handle::take::<ipmb::MemoryRegion>(region)?);
        }
        Ok(())
    })
}

/// How many memory regions a message has, into `*count`.
///
/// Thread-safe as long as nobody changes or drops the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_count(
    message: *const Message,
    count: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let regions = &handle::get::<Parcel>(message)?.regions;
            handle::put(count, "count", regions.len())
        }
    })
}

/// Takes a memory region out of a message; those behind it move up. NULL after a failure.
///
/// Ownership: the region is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time may use a
/// message; does not block. Errors (ipmb_last_error_code): as ipmb_message_memory_region_retrieve_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_retrieve(
    message: *mut Message,
    index: usize,
) -> MemoryRegion {
    let mut region = ptr::null_mut();
    // SAFETY: the same contract; `region` can be written.
    unsafe { ipmb_message_memory_region_retrieve_try(message, index, &mut region) };
    region
}

/// Takes a memory region out of a message; those behind it move up. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time may use a
/// message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_retrieve_try(
    message: *mut Message,
    index: size_t,
    region: *mut MemoryRegion,
) -> ErrorCode {
    border::code(|| {
        handle::needs(region, "region")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let regions = &mut handle::get_mut::<Parcel>(message)?.regions;
            if index >= regions.len() {
                return Err(out_of_range("memory region", index, regions.len()));
            }
            handle::put(region, "region", handle::give_box(regions.remove(index)))
        }
    })
}

/// A memory region of a message, which stays the message's. NULL after a failure.
///
/// Ownership: the region is borrowed: do not drop it and do not put it into a message; it is valid until it is taken out,
/// or the message is dropped or an attempt made to send it. One thread at a time may use a message; does not block.
/// Errors (ipmb_last_error_code): as ipmb_message_memory_region_get_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_get(
    message: *mut Message,
    index: usize,
) -> MemoryRegion {
    let mut region = ptr::null_mut();
    // SAFETY: the same contract; `region` can be written.
    unsafe { ipmb_message_memory_region_get_try(message, index, &mut region) };
    region
}

/// A memory region of a message, which stays the message's. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is borrowed: do not drop it and do not put it into a message; it is valid until it is taken out,
/// or the message is dropped or an attempt made to send it. One thread at a time may use a message; does not block.
/// Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_memory_region_get_try(
    message: *mut Message,
    index: size_t,
    region: *mut MemoryRegion,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let regions = &mut handle::get_mut::<Parcel>(message)?.regions;
            let count = regions.len();
            let held = regions.get_mut(index);
            let held = held.ok_or_else(|| out_of_range("memory region", index, count))?;
            handle::put(region, "region", held.handle())
        }
    })
}

/// The endpoints that a multicast did not reach before ipmb_try_send or ipmb_send_timeout handed it back: their numbers,
/// and how many. Sending the message again goes to those of them that are still members, and to nobody else. None for a
/// message that was not handed back.
///
/// Ownership: the numbers stay the message's and are valid until an attempt is made to send it or it is dropped.
/// Thread-safe as long as nobody does; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_message_unreached(
    message: *const Message,
    endpoints: *mut *const u64,
    count: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let unreached = handle::get::<Parcel>(message)?.message.unreached();
            handle::put(endpoints, "endpoints", unreached.as_ptr())?;
            handle::put(count, "count", unreached.len())
        }
    })
}
