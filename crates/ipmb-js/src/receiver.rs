//! The receiving half: takes what is there. Waiting is the poller's and JavaScript's job.

use crate::{
    ends,
    fail::{Result, closed, io, of_recv},
    hot::Table,
    object::JsObject,
    poller::Poller,
    region::JsRegion,
};
use ipmb::{BytesMessage, EndpointReceiver, Message, RecvError};
use napi::bindgen_prelude::{Buffer, Env, Function};
use napi_derive::napi;
use std::{cell::RefCell, os::fd::AsFd, rc::Rc};

/// What `next` returns when there is no message.
const NOTHING: f64 = -1.0;
/// What it returns when the message is to be fetched with `take`.
const APART: f64 = -2.0;

/// A message that did not fit into the caller's memory, or has attachments.
#[napi(object, object_from_js = false)]
pub struct Received {
    /// What the data is.
    pub format: u32,
    /// The data; where Node allows it, not copied.
    pub data: Buffer,
    /// Descriptors.
    pub objects: Vec<JsObject>,
    /// Shared memory.
    pub regions: Vec<JsRegion>,
}

struct Open {
    // Before the receiver, whose descriptor it watches.
    poller: Option<Poller>,
    receiver: Option<EndpointReceiver<BytesMessage>>,
    apart: Option<Message<BytesMessage>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.poller = None;
        if let Some(receiver) = self.receiver.take() {
            ends::drop_half(receiver);
        }
    }
}

thread_local! {
    pub(crate) static TABLE: Table<Half> = const { Table::new() };
}

/// The receiving half of an endpoint, until it is closed.
pub(crate) struct Half(RefCell<Option<Open>>);

impl Half {
    fn with<T>(&self, run: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        match &mut *self.0.borrow_mut() {
            Some(open) => run(open),
            None => Err(closed("receiver")),
        }
    }

    /// The next message. One of at most `small` bytes, without attachments, is put into `room`, and length × 65,536 + format
    /// returned; −2: fetch it with `take`; −1: there is none now.
    pub(crate) fn next(&self, room: &mut [u8], small: usize) -> Result<f64> {
        self.with(|open| {
            let Some(receiver) = &open.receiver else {
                return Err(closed("receiver"));
            };
            let message = match receiver.try_recv() {
                Ok(message) => message,
                Err(RecvError::Empty) => return Ok(NOTHING),
                Err(error) => return Err(of_recv(&error)),
            };
            let data = &message.payload.data;
            if data.len() <= small
                && let Some(room) = room.get_mut(..data.len())
                && message.objects.is_empty()
                && message.memory_regions.is_empty()
            {
                room.copy_from_slice(data);
                return Ok(data.len() as f64 * 65536.0 + f64::from(message.payload.format));
            }
            open.apart = Some(message);
            Ok(APART)
        })
    }
}

/// The receiving half of an endpoint, as JavaScript owns it.
#[napi]
pub struct NativeReceiver {
    half: Rc<Half>,
    number: u32,
}

impl NativeReceiver {
    pub(crate) fn of(receiver: EndpointReceiver<BytesMessage>) -> Self {
        let half = Rc::new(Half(RefCell::new(Some(Open {
            poller: None,
            receiver: Some(receiver),
            apart: None,
        }))));
        Self {
            number: TABLE.with(|table| table.enter(half.clone())),
            half,
        }
    }
}

impl Drop for NativeReceiver {
    fn drop(&mut self) {
        // At the very end of the thread there is no table any more.
        let _ = TABLE.try_with(|table| table.remove(self.number));
    }
}

#[napi]
impl NativeReceiver {
    /// Its number, for `next`.
    #[napi(getter)]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The message that `next` kept.
    #[napi]
    pub fn take(&self) -> Result<Option<Received>> {
        self.half.with(|open| {
            Ok(open.apart.take().map(|message| Received {
                format: message.payload.format.into(),
                data: message.payload.data.into(),
                objects: message.objects.into_iter().map(JsObject::of).collect(),
                regions: message
                    .memory_regions
                    .into_iter()
                    .map(JsRegion::of)
                    .collect(),
            }))
        })
    }

    /// Calls `callback` from now on when there may be a message and somebody waits.
    #[napi]
    pub fn watch(&self, env: Env, callback: Function<'_, (), ()>) -> Result<()> {
        self.half.with(|open| {
            let Some(receiver) = &open.receiver else {
                return Err(closed("receiver"));
            };
            let fd = receiver.as_fd().try_clone_to_owned();
            let fd = fd.map_err(|e| io("duplicating the receiver's descriptor", &e))?;
            open.poller = Some(Poller::new(env, fd, &callback)?);
            Ok(())
        })
    }

    /// Somebody waits; `keep`: and keeps the process running.
    #[napi]
    pub fn hold(&self, keep: bool) -> Result<()> {
        self.half.with(|open| match &open.poller {
            Some(poller) => poller.hold(keep),
            None => Ok(()),
        })
    }

    /// Nobody waits any more.
    #[napi]
    pub fn release(&self) {
        if let Some(Open {
            poller: Some(poller),
            ..
        }) = &*self.half.0.borrow()
        {
            poller.release();
        }
    }

    /// Gives the half up.
    #[napi]
    pub fn close(&self) {
        drop(self.half.0.take());
    }
}
