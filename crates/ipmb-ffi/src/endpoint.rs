//! Joining, sending and receiving.

use crate::{
    border,
    code::{ErrorCode, Failure},
    handle::{self, Kind},
    label::Label,
    message::{Message, Parcel},
    selector::timeout,
    settings::{Chosen, Settings},
    sys,
};
use ipmb::{BytesMessage, EndpointReceiver, EndpointSender, TrySendError};
use libc::size_t;
use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

/// The sending half of an endpoint. Owned by the caller: free it with ipmb_sender_drop. All threads may use it at the
/// same time.
pub type Sender = *mut c_void;

impl Kind for EndpointSender<BytesMessage> {
    const NAME: &'static str = "Sender";
    const TAG: [u8; 8] = *b"ipmb snd";
}

/// The receiving half of an endpoint. Owned by the caller: free it with ipmb_receiver_drop. All threads may use it at the
/// same time; each message goes to one of them.
pub type Receiver = *mut c_void;

impl Kind for EndpointReceiver<BytesMessage> {
    const NAME: &'static str = "Receiver";
    const TAG: [u8; 8] = *b"ipmb rcv";
}

/// Which bus to join, and as whom. Plain data of the caller; the functions that take it copy what they need.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Names the bus, together with the effective user: UTF-8, 1 to 4096 bytes, such as "com.example.app.1".
    pub identifier: *const c_char,
    /// What the endpoint is found by. Stays the caller's.
    pub label: *const Label,
    /// What all members of the bus must know: UTF-8, may be empty.
    pub token: *const c_char,
    /// Whether the endpoint may host the controller. False for programs that are often stopped or debugged.
    pub controller_affinity: bool,
}

/// Joins a bus, or starts it: the first endpoint becomes its controller. A `p_sender` or `p_receiver` that is NULL drops
/// that half at once. After a failure nothing is written.
///
/// Ownership: `options` and what it points to stay the caller's; the halves are the caller's, to be freed with
/// ipmb_sender_drop and ipmb_receiver_drop. Thread-safe. Blocks until the endpoint is a member, at most for `timeout`
/// milliseconds (TIMEOUT_INFINITE: for ever). Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8,
/// ERROR_CODE_TIMEOUT, ERROR_CODE_VERSION_MISMATCH, ERROR_CODE_TOKEN_MISMATCH, ERROR_CODE_PERMISSION_DENIED,
/// ERROR_CODE_CONTROLLER_STOPPED, ERROR_CODE_NAME_SQUATTED, ERROR_CODE_BUS_FULL, ERROR_CODE_UNSUPPORTED_SYSTEM,
/// ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_join(
    options: Options,
    timeout: u32,
    p_sender: *mut Sender,
    p_receiver: *mut Receiver,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles, texts and pointers.
    border::code(|| unsafe { join(options, None, timeout, p_sender, p_receiver) })
}

/// As ipmb_join, with settings; NULL: the defaults.
///
/// Ownership: `settings` stay the caller's. Otherwise, and for threads, blocking and errors: as ipmb_join.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_join_with(
    options: Options,
    settings: *const Settings,
    timeout: u32,
    p_sender: *mut Sender,
    p_receiver: *mut Receiver,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles, texts and pointers.
    border::code(|| unsafe {
        let chosen = match settings.is_null() {
            true => None,
            false => Some(handle::get::<Chosen>(settings)?),
        };
        join(options, chosen, timeout, p_sender, p_receiver)
    })
}

unsafe fn join(
    from: Options,
    chosen: Option<&Chosen>,
    milliseconds: u32,
    p_sender: *mut Sender,
    p_receiver: *mut Receiver,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let mut options = unsafe {
        ipmb::Options::new(
            handle::text(from.identifier, "identifier")?,
            handle::get::<ipmb::Label>(from.label)?.clone(),
            handle::text(from.token, "token")?,
        )
    };
    options.controller_affinity = from.controller_affinity;
    if let Some(chosen) = chosen {
        options = chosen.apply(options);
    }
    let (sender, receiver) =
        ipmb::join::<BytesMessage, BytesMessage>(options, timeout(milliseconds))?;
    // SAFETY: the caller's contract: null, or valid for writes.
    unsafe {
        if !p_sender.is_null() {
            p_sender.write(handle::give(sender));
        }
        if !p_receiver.is_null() {
            p_receiver.write(handle::give(receiver));
        }
    }
    Ok(())
}

/// Frees a sender. The endpoint leaves the bus with its last sender and its receiver. NULL is fine.
///
/// Takes ownership of the sender. Thread-safe. If it is the endpoint's last half, blocks until it has left in good order,
/// at most for a second; the process's last endpoint for a second more, if a close is slow. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_sender_drop(sender: Sender) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<EndpointSender<BytesMessage>>(sender) });
}

/// One more sender of the same endpoint, which shares its order of messages. After a failure `*cloned` is unchanged.
///
/// Ownership: `*cloned` is the caller's, to be freed with ipmb_sender_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_sender_clone(
    sender: *const Sender,
    cloned: *mut Sender,
) -> ErrorCode {
    border::code(|| {
        handle::needs(cloned, "cloned")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let sender = handle::get::<EndpointSender<BytesMessage>>(sender)?;
            handle::put(cloned, "cloned", handle::give(sender.clone()))
        }
    })
}

/// Sends a message, and waits for space as long as it takes. Success means that the message is with its receivers, or
/// waits for one (ttl), or that nobody matched a selector without a ttl.
///
/// Takes ownership of the message, also when it fails, unless `message` is a handle of another kind. Thread-safe. Blocks
/// while a receiver has no space; two endpoints that each wait here for the other, and receive on the same thread, wait
/// for ever: use ipmb_try_send there. Errors: as ipmb_send_timeout, without ERROR_CODE_TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_send(sender: *mut Sender, message: Message) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles. The message is taken first, so that it never leaks.
        let (message, sender) = unsafe {
            let message = handle::take::<Parcel>(message)?;
            let sender = handle::get::<EndpointSender<BytesMessage>>(sender)?;
            (message, sender)
        };
        sender.send(message.value.close())?;
        Ok(())
    })
}

/// Sends a message if that is possible at once. After a failure the message can be sent again; its regions have been
/// unmapped. A multicast then goes to those that were not reached (ipmb_message_unreached).
///
/// Ownership: on success the message is taken and `*message` is NULL; after a failure it stays the caller's. Thread-safe;
/// does not block. Errors: ERROR_CODE_FULL, ERROR_CODE_SETTLING, and as ipmb_send_timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_try_send(sender: *const Sender, message: *mut Message) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { attempt(sender, message, |sender, message| sender.try_send(message)) })
}

/// Sends a message, and waits for space at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). After a failure
/// the message can be sent again; its regions have been unmapped. A multicast then goes to those that were not reached
/// (ipmb_message_unreached).
///
/// Ownership: on success the message is taken and `*message` is NULL; after a failure it stays the caller's. Thread-safe.
/// Blocks while a receiver has no space. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TIMEOUT,
/// ERROR_CODE_CONTROLLER_STOPPED, ERROR_CODE_FULL (the endpoint's queue to itself), ERROR_CODE_TOO_LARGE,
/// ERROR_CODE_LIMIT, ERROR_CODE_EXHAUSTED, ERROR_CODE_LEFT, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM. None says that a
/// bus was founded anew with another protocol, token or access rules: a member keeps its links and looks for another
/// controller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_send_timeout(
    sender: *const Sender,
    message: *mut Message,
    timeout: u32,
) -> ErrorCode {
    let timeout = crate::selector::timeout(timeout);
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe {
        attempt(sender, message, |sender, message| {
            sender.send_timeout(message, timeout)
        })
    })
}

unsafe fn attempt(
    sender: *const Sender,
    place: *mut Message,
    send: impl FnOnce(
        &EndpointSender<BytesMessage>,
        ipmb::Message<BytesMessage>,
    ) -> Result<(), TrySendError<BytesMessage>>,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract. The sender is checked first, since after a failure the message stays in its place.
    let (sender, parcel) = unsafe {
        let sender = handle::get::<EndpointSender<BytesMessage>>(sender)?;
        (sender, handle::take_from::<Parcel>(place)?)
    };
    send(sender, parcel.value.close()).map_err(|error| {
        let failure = Failure::from(error.kind().clone());
        // SAFETY: `take_from` has read and written it.
        unsafe { place.write(handle::give(Parcel::open(error.into_message()))) };
        failure
    })
}

/// Leaves the bus in good order: messages that wait for somebody to match and, if it is here, the controller's role are
/// handed over. Afterwards both halves fail with ERROR_CODE_LEFT; they still have to be dropped.
///
/// Thread-safe. Blocks at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TIMEOUT if nobody took over in time, ERROR_CODE_CONTROLLER_STOPPED if that is
/// why, ERROR_CODE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_leave(sender: *const Sender, timeout: u32) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        let sender = unsafe { handle::get::<EndpointSender<BytesMessage>>(sender)? };
        sender.leave(crate::selector::timeout(timeout))?;
        Ok(())
    })
}

/// Frees a receiver: the endpoint matches no selector any more. It leaves the bus with its last sender and its receiver.
/// NULL is fine. Do not use its descriptor any more.
///
/// Takes ownership of the receiver. Thread-safe. Blocks until others know, or the endpoint has left in good order, at
/// most for a second; the process's last endpoint for a second more, if a close is slow. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_receiver_drop(receiver: Receiver) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<EndpointReceiver<BytesMessage>>(receiver) });
}

/// Receives the next message. Messages of one sender come in its order; those whose payload is not the type that all
/// languages share (bytes with a format) are skipped. After a failure `*p_message` is NULL.
///
/// Ownership: `*p_message` is the caller's, to be freed with ipmb_message_drop. Thread-safe. Blocks until there is a
/// message, at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_TIMEOUT, ERROR_CODE_LEFT, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM; ERROR_CODE_DECODE,
/// ERROR_CODE_NOT_A_REGION and ERROR_CODE_TOO_LARGE: the message is gone, the next one can be received;
/// ERROR_CODE_EXHAUSTED: the message is still first in line. None says that a bus was founded anew with another protocol,
/// token or access rules: a member keeps its links and looks for another controller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_recv(
    receiver: *mut Receiver,
    p_message: *mut Message,
    timeout: u32,
) -> ErrorCode {
    let timeout = crate::selector::timeout(timeout);
    // SAFETY: as the crate's text demands of all handles and pointers.
    border::code(|| unsafe { receive(receiver, p_message, |receiver| receiver.recv(timeout)) })
}

/// Receives a message if there is one now. After ERROR_CODE_EMPTY the descriptor of ipmb_receiver_fd becomes readable when
/// the next one is there. After a failure `*p_message` is NULL.
///
/// Ownership: `*p_message` is the caller's, to be freed with ipmb_message_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_EMPTY, and as ipmb_recv without ERROR_CODE_TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_try_recv(
    receiver: *const Receiver,
    p_message: *mut Message,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles and pointers.
    border::code(|| unsafe { receive(receiver, p_message, EndpointReceiver::try_recv) })
}

unsafe fn receive(
    receiver: *const Receiver,
    p_message: *mut Message,
    take: impl FnOnce(
        &EndpointReceiver<BytesMessage>,
    ) -> Result<ipmb::Message<BytesMessage>, ipmb::RecvError>,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    unsafe {
        handle::put(p_message, "p_message", ptr::null_mut())?;
        let receiver = handle::get::<EndpointReceiver<BytesMessage>>(receiver)?;
        let message = take(receiver)?;
        p_message.write(handle::give(Parcel::open(message)));
    }
    Ok(())
}

/// A descriptor to wait for with poll, epoll or an event loop, into `*fd`. It is readable when there may be a message:
/// receive with ipmb_try_recv until that returns ERROR_CODE_EMPTY, then wait. Do nothing else with it. On Windows it is no
/// descriptor but the lower 32 bits of a HANDLE, which are all that count: wait for `(HANDLE)(intptr_t)fd` with
/// WaitForSingleObject and the like.
///
/// Ownership: the descriptor stays the receiver's and is valid until it is dropped; do not close it. Thread-safe; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_receiver_fd(receiver: *const Receiver, fd: *mut c_int) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let receiver = handle::get::<EndpointReceiver<BytesMessage>>(receiver)?;
            handle::put(fd, "fd", sys::waitable(receiver))
        }
    })
}

/// What an endpoint has done since it joined. Later versions of the library add fields at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Messages put into links; a multicast counts once per receiver.
    pub sent: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Bytes of their payloads.
    pub received_bytes: u64,
    /// Messages skipped because they are not of the type that is taken here.
    pub skipped: u64,
    /// Messages that nobody matched and that had no time to live.
    pub dropped: u64,
    /// Messages that waited because nobody matched yet.
    pub parked: u64,
    /// Waiting messages whose time was over.
    pub expired: u64,
    /// Messages that a dead receiver had not taken and that went to another.
    pub rerouted: u64,
    /// Messages that a dead receiver had not taken and that could go to nobody: with objects or regions, or nobody else
    /// matched and there was no ttl. Copies of multicasts do not count. Also parked messages that did not get through.
    pub lost: u64,
    /// How often a send found a link full and waited.
    pub blocked: u64,
    /// How long those waits took, in nanoseconds.
    pub blocked_ns: u64,
    /// Links to other endpoints.
    pub links_out: u64,
    /// Links from other endpoints.
    pub links_in: u64,
}

/// What an endpoint has done since it joined, into `*stats`: its first `size` bytes. Pass `sizeof(Stats)`; fields that this
/// library does not know yet are 0.
///
/// Ownership: `*stats` is filled. Thread-safe; blocks while another thread puts a message into a link, or receives or
/// watches for messages. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_sender_stats(
    sender: *const Sender,
    stats: *mut Stats,
    size: size_t,
) -> ErrorCode {
    border::code(|| {
        handle::needs(stats, "stats")?;
        // SAFETY: as the crate's text demands of all handles.
        let from = unsafe { handle::get::<EndpointSender<BytesMessage>>(sender)? }.stats();
        let known = Stats {
            sent: from.sent,
            sent_bytes: from.sent_bytes,
            received: from.received,
            received_bytes: from.received_bytes,
            skipped: from.skipped,
            dropped: from.dropped,
            parked: from.parked,
            expired: from.expired,
            rerouted: from.rerouted,
            lost: from.lost,
            blocked: from.blocked,
            blocked_ns: from.blocked_ns,
            links_out: from.links_out,
            links_in: from.links_in,
        };
        // SAFETY: the caller says that `size` bytes can be written; of `known`, no more are read than it has.
        unsafe {
            ptr::write_bytes(stats.cast::<u8>(), 0, size);
            let size = size.min(size_of::<Stats>());
            ptr::copy_nonoverlapping((&raw const known).cast(), stats.cast::<u8>(), size);
        }
        Ok(())
    })
}
