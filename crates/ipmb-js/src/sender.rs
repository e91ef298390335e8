//! The sending half: sends at once, or lets messages wait in their lines. Never blocks.

use crate::{
    ends,
    fail::{Fail, INVALID_ARGUMENT, Result, closed, fail, io, of_send},
    hot::Table,
    join::Refused,
    label_op::LabelOp,
    lines::{Done, Fate, Lines, Otherwise},
    object::{self, JsObject},
    outbound::Outbound,
    poller::Poller,
    region::{JsRegion, region_of},
    sys::source_in,
};
use ipmb::{EndpointSender, MemoryRegion, Message, Object, Selector};
use napi::{
    Either,
    bindgen_prelude::{Env, Function},
};
use napi_derive::napi;
use std::{cell::RefCell, rc::Rc, time::Duration};

/// What the `send…` functions return for a message that could not go at once and was not kept.
const REFUSED: f64 = -1.0;

struct Open {
    poller: Option<Poller>,
    /// `None` only while it is dropped.
    lines: Option<Lines>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.poller = None;
        if let Some(lines) = self.lines.take() {
            ends::drop_half(lines.into_sender());
        }
    }
}

thread_local! {
    pub(crate) static TABLE: Table<Half> = const { Table::new() };
}

/// The sending half of an endpoint, until it is closed.
pub(crate) struct Half(RefCell<Option<Open>>);

/// The sending half of an endpoint, as JavaScript owns it.
#[napi]
pub struct NativeSender {
    half: Rc<Half>,
    number: u32,
}

impl Drop for NativeSender {
    fn drop(&mut self) {
        // At the very end of the thread there is no table any more.
        let _ = TABLE.try_with(|table| table.remove(self.number));
    }
}

/// What became of what waited.
#[napi(object, object_from_js = false)]
pub struct Drained {
    /// Tickets of what was sent.
    pub sent: Vec<u32>,
    /// Tickets of what failed.
    pub failed: Vec<u32>,
    /// Why, in the same order.
    pub errors: Vec<Refused>,
    /// Something still waits.
    pub waits: bool,
    /// There may be room right now: drain again, after others had the event loop.
    pub again: bool,
    /// Nobody tells of room: drain again in some milliseconds.
    pub soon: bool,
}

impl NativeSender {
    pub(crate) fn of(sender: EndpointSender<Outbound>, queue: usize) -> Self {
        let half = Rc::new(Half(RefCell::new(Some(Open {
            poller: None,
            lines: Some(Lines::new(sender, queue)),
        }))));
        Self {
            number: TABLE.with(|table| table.enter(half.clone())),
            half,
        }
    }
}

impl Half {
    fn with<T>(&self, run: impl FnOnce(&mut Lines, &mut Option<Poller>) -> Result<T>) -> Result<T> {
        match &mut *self.0.borrow_mut() {
            Some(Open {
                lines: Some(lines),
                poller,
            }) => run(lines, poller),
            _ => Err(closed("sender")),
        }
    }

    /// Sends a message. `otherwise`: 0 to give it up if it cannot go at once, 1 to let it wait if the line is not too long,
    /// 2 to let it wait. Returns 0 if it was sent, −1 if it was given up, and a ticket if it waits. `copied`: bytes that were
    /// copied into regions for it, which count in the line as the data does.
    #[allow(clippy::too_many_arguments)] // The parts of one message.
    pub(crate) fn post(
        &self,
        selector: Selector,
        format: u32,
        data: &[u8],
        objects: Vec<Object>,
        regions: Vec<MemoryRegion>,
        copied: usize,
        otherwise: u32,
    ) -> Result<f64> {
        let Ok(format) = u16::try_from(format) else {
            let text = format!("`format` must be a number from 0 to 65535, not {format}");
            return Err(fail(INVALID_ARGUMENT, text));
        };
        let otherwise = match otherwise {
            0 => Otherwise::Refuse,
            1 => Otherwise::Wait,
            _ => Otherwise::WaitAnyhow,
        };
        // SAFETY: `Lines::send` drops the message or makes it own its data before it returns, on this thread; and while
        // it runs, no JavaScript does, which could free the buffer.
        let payload = unsafe { Outbound::lent(format, data) };
        let mut message = Message::new(selector, payload);
        message.objects = objects;
        message.memory_regions = regions;
        let bytes = data.len().saturating_add(copied);
        let fate = self.with(|lines, _| lines.send(message, bytes, otherwise))?;
        Ok(match fate {
            Fate::Sent => 0.0,
            Fate::Refused => REFUSED,
            Fate::Waits(ticket) => ticket.into(),
        })
    }
}

#[napi]
impl NativeSender {
    /// Its number, for `send`.
    #[napi(getter)]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Sends a message with attachments, see [`Half::post`]: buffers, which are copied into regions, and regions come in the order of `regions`.
    #[napi]
    #[allow(clippy::too_many_arguments)] // One call into native code per message.
    pub fn send_with(
        &self,
        op: &LabelOp,
        mode: u32,
        ttl: f64,
        format: u32,
        data: &[u8],
        otherwise: u32,
        regions: Vec<Either<&JsRegion, &[u8]>>,
        objects: Vec<Either<&JsObject, i32>>,
    ) -> Result<f64> {
        let mut copied = 0usize;
        let regions: Vec<MemoryRegion> = regions
            .iter()
            .map(|region| match region {
                Either::A(region) => region.duplicate(),
                Either::B(buffer) => {
                    copied = copied.saturating_add(buffer.len());
                    region_of(buffer)
                }
            })
            .collect::<Result<_>>()?;
        let objects: Vec<Object> = objects
            .iter()
            .map(|object| match object {
                Either::A(object) => object.duplicate(),
                Either::B(fd) => object::duplicate(*fd),
            })
            .collect::<Result<_>>()?;
        self.half.post(
            selector(op.get(), mode, ttl)?,
            format,
            data,
            objects,
            regions,
            copied,
            otherwise,
        )
    }

    /// Bytes that wait.
    #[napi(getter)]
    pub fn waiting(&self) -> f64 {
        self.half
            .with(|lines, _| Ok(lines.bytes() as f64))
            .unwrap_or(0.0)
    }

    /// Calls `callback` from now on when `drain` may get on, while something waits. Returns whether nobody may tell.
    #[napi]
    pub fn watch(&self, env: Env, callback: Function<'_, (), ()>) -> Result<bool> {
        self.half.with(|lines, poller| {
            let poller = match poller {
                Some(poller) => poller,
                None => {
                    let object = lines.sender().room_object().map_err(|e| of_send(&e))?;
                    let source =
                        source_in(object).map_err(|e| io("a descriptor to wait for", &e))?;
                    poller.insert(Poller::new(env, source, &callback)?)
                }
            };
            poller.hold(true)?;
            Ok(lines.watch())
        })
    }

    /// Sends what can be sent now: to those who have news of room, or (`all`) to everybody. If something still waits then,
    /// `watch` has to be called again, or `drain`.
    #[napi]
    pub fn drain(&self, all: bool) -> Result<Drained> {
        self.half.with(|lines, poller| {
            let mut done = Vec::new();
            let outlook = lines.drain(all, &mut done);
            let waits = !lines.is_empty();
            if !waits && let Some(poller) = poller {
                poller.release();
            }
            Ok(Drained {
                waits,
                again: outlook.again,
                soon: outlook.soon,
                ..report(done)
            })
        })
    }

    /// Gives the half up, and all that waits with it.
    #[napi]
    pub fn close(&self) -> Drained {
        let mut done = Vec::new();
        if let Some(mut open) = self.half.0.take()
            && let Some(lines) = &mut open.lines
        {
            lines.give_up(&mut done);
        }
        report(done)
    }
}

pub(crate) fn selector(
    op: ipmb::LabelOp,
    mode: u32,
    ttl: f64,
) -> std::result::Result<Selector, Fail> {
    let mut selector = match mode {
        0 => Selector::unicast(op),
        1 => Selector::multicast(op),
        other => {
            let text = format!("`mode` must be a SelectorMode, not {other}");
            return Err(fail(INVALID_ARGUMENT, text));
        }
    };
    if ttl > 0.0 {
        selector.ttl = Duration::try_from_secs_f64(ttl / 1000.0).unwrap_or(Duration::MAX);
    }
    Ok(selector)
}

fn report(done: Vec<Done>) -> Drained {
    let mut drained = Drained {
        sent: Vec::new(),
        failed: Vec::new(),
        errors: Vec::new(),
        waits: false,
        again: false,
        soon: false,
    };
    for Done { ticket, error } in done {
        match error {
            None => drained.sent.push(ticket),
            Some(error) => {
                drained.failed.push(ticket);
                drained.errors.push(Refused::of(error));
            }
        }
    }
    drained
}
