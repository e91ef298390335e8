//! The receiving half: takes what is there. Waiting is the poller's and JavaScript's job.

use crate::{
    ends,
    fail::{Result, closed, io, of_recv},
    hot::{Answer, Table},
    inbound::{self, Data, Inbound},
    object::JsObject,
    poller::Poller,
    region::JsRegion,
    sys::source_of,
};
use ipmb::{EndpointReceiver, MemoryRegion, Object, RecvError};
use napi::{
    bindgen_prelude::{Buffer, Env, Function},
    sys,
};
use napi_derive::napi;
use std::{cell::RefCell, rc::Rc};

/// What `next` returns when there is no message.
const NOTHING: f64 = -1.0;
/// What it returns when all of the message is to be fetched with `take`.
const APART: f64 = -2.0;
/// What it returns for a message of zero bytes and format 0 with attachments, which are to be fetched with `take`; others lie
/// below.
const WITH: f64 = -3.0;

/// What `next` does not return of a message.
#[napi(object, object_from_js = false)]
pub struct Received {
    /// What the data is.
    pub format: u32,
    /// The data, if `next` did not return it; where Node allows it, not copied.
    pub data: Option<Buffer>,
    /// Kernel handles.
    pub objects: Vec<JsObject>,
    /// Shared memory.
    pub regions: Vec<JsRegion>,
}

struct Open {
    // Before the receiver, whose handle it watches.
    poller: Option<Poller>,
    receiver: Option<EndpointReceiver<Inbound>>,
    apart: Option<Apart>,
}

struct Apart {
    format: u16,
    data: Option<Vec<u8>>,
    objects: Vec<Object>,
    regions: Vec<MemoryRegion>,
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

    /// The next message.
    ///
    /// * Data of at most `small` bytes is put into `room`, and length × 65,536 + format returned; of a message with
    ///   attachments, −3 less that: they are to be fetched with `take`.
    /// * Other data is returned as a buffer. `room` then begins with the format and whether there are attachments to fetch.
    /// * −2: all is to be fetched with `take`. −1: there is no message now.
    ///
    /// # Safety
    /// `env` is that of the call under way.
    pub(crate) unsafe fn next(
        &self,
        env: sys::napi_env,
        room: &mut [u8],
        small: usize,
    ) -> Result<Answer> {
        self.with(|open| {
            let Some(receiver) = &open.receiver else {
                return Err(closed("receiver"));
            };
            let small = small.min(room.len());
            let place = room.get_mut(..small).unwrap_or_default();
            // SAFETY: as promised.
            let received = unsafe { inbound::with_place(env, place, || receiver.try_recv()) };
            let message = match received {
                Ok(message) => message,
                Err(RecvError::Empty) => return Ok(Answer::Number(NOTHING)),
                Err(error) => return Err(of_recv(&error)),
            };
            let Inbound { format, data } = message.payload;
            let bare = message.objects.is_empty() && message.memory_regions.is_empty();
            let set_apart = |data| {
                open.apart = Some(Apart {
                    format,
                    data,
                    objects: message.objects,
                    regions: message.memory_regions,
                });
            };
            Ok(match data {
                Data::Room(len) => {
                    let answer = len as f64 * 65536.0 + f64::from(format);
                    if bare {
                        Answer::Number(answer)
                    } else {
                        set_apart(None);
                        Answer::Number(WITH - answer)
                    }
                }
                Data::Buffer(buffer) => {
                    let [low, high] = format.to_le_bytes();
                    if let Some(head) = room.first_chunk_mut() {
                        *head = [low, high, u8::from(!bare)];
                    }
                    if !bare {
                        set_apart(None);
                    }
                    Answer::Value(buffer)
                }
                Data::Own(data) => {
                    set_apart(Some(data));
                    Answer::Number(APART)
                }
            })
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
    pub(crate) fn of(receiver: EndpointReceiver<Inbound>) -> Self {
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

    /// What `next` kept.
    #[napi]
    pub fn take(&self) -> Result<Option<Received>> {
        self.half.with(|open| {
            Ok(open.apart.take().map(|apart| Received {
                format: apart.format.into(),
                data: apart.data.map(Buffer::from),
                objects: apart.objects.into_iter().map(JsObject::of).collect(),
                regions: apart.regions.into_iter().map(JsRegion::of).collect(),
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
            let source = source_of(receiver);
            let source = source.map_err(|e| io("duplicating the receiver's handle", &e))?;
            open.poller = Some(Poller::new(env, source, &callback)?);
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
