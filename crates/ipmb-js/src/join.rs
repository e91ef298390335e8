//! Joining a bus.

use crate::{
    ends,
    fail::{INVALID_ARGUMENT, Result, fail, io, of_join},
    inbound::Inbound,
    outbound::Outbound,
    poller::Poller,
    receiver::NativeReceiver,
    region::whole,
    sender::NativeSender,
    sys,
};
use ipmb::{EndpointReceiver, EndpointSender, JoinError, Label, Options};
use napi::bindgen_prelude::{Env, Function};
use napi_derive::napi;
use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Bytes that may wait for one receiver, unless the options say otherwise.
const QUEUE: f64 = (64 << 20) as f64;

/// Options of `join`.
#[napi(object, object_to_js = false)]
pub struct JoinOptions {
    /// Names the bus.
    pub identifier: String,
    /// What selectors are matched against.
    pub label: Vec<String>,
    /// A secret that all endpoints share.
    pub token: String,
    /// Whether this endpoint may host the controller.
    pub controller_affinity: Option<bool>,
    /// The largest payload, in bytes.
    pub max_payload: Option<f64>,
    /// Bytes of ring for each link from this endpoint.
    pub link_capacity: Option<f64>,
    /// Bytes that may wait for one receiver.
    pub outbound_queue: Option<f64>,
    /// A path in the file system to meet at.
    pub path: Option<String>,
}

type Halves = (EndpointSender<Outbound>, EndpointReceiver<Inbound>);

/// Both halves of an endpoint.
#[napi(object, object_from_js = false)]
pub struct Joined {
    /// The sending half.
    pub sender: NativeSender,
    /// The receiving half.
    pub receiver: NativeReceiver,
}

/// A join that is to be made.
struct Plan {
    options: Options,
    timeout: Option<Duration>,
    queue: usize,
}

impl JoinOptions {
    fn read(self, timeout: Option<f64>) -> Result<Plan> {
        let queue = whole(self.outbound_queue.unwrap_or(QUEUE), "outboundQueue")?;
        let label = Label::from(self.label);
        let mut options = Options::new(self.identifier, label, self.token);
        options.controller_affinity = self.controller_affinity.unwrap_or(true);
        if let Some(bytes) = self.max_payload {
            options = options.max_payload(whole(bytes, "maxPayload")?);
        }
        if let Some(bytes) = self.link_capacity {
            options = options.link_capacity(whole(bytes, "linkCapacity")?);
        }
        if let Some(path) = self.path {
            options = options.path(path);
        }
        let timeout = match timeout {
            None => None,
            Some(ms) if ms == f64::INFINITY => None,
            Some(ms) => Some(Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| {
                fail(
                    INVALID_ARGUMENT,
                    format!("`timeout` must be a number of milliseconds, not {ms}"),
                )
            })?),
        };
        Ok(Plan {
            options,
            timeout,
            queue,
        })
    }
}

fn dress(env: Env, (sender, receiver): Halves, queue: usize) -> Joined {
    ends::watch(env);
    Joined {
        sender: NativeSender::of(sender, queue),
        receiver: NativeReceiver::of(receiver),
    }
}

/// Joins a bus; blocks until it has, at most for `timeout` milliseconds.
#[napi]
pub fn join(env: Env, options: JoinOptions, timeout: Option<f64>) -> Result<Joined> {
    let plan = options.read(timeout)?;
    let halves = ipmb::join(plan.options, plan.timeout).map_err(|e| of_join(&e))?;
    Ok(dress(env, halves, plan.queue))
}

/// A join that is under way on a thread of its own: not on one of libuv's, for which the end of a process or of a worker
/// waits. When the environment is gone before it is done, the endpoint leaves again at once.
#[napi]
pub struct NativeJoining {
    outcome: Arc<Mutex<Option<std::result::Result<Halves, JoinError>>>>,
    queue: usize,
    poller: RefCell<Option<Poller>>,
}

#[napi]
impl NativeJoining {
    /// Starts to join. `callback` is called when it is over.
    #[napi(factory)]
    pub fn start(
        env: Env,
        options: JoinOptions,
        timeout: Option<f64>,
        callback: Function<'_, (), ()>,
    ) -> Result<Self> {
        let plan = options.read(timeout)?;
        let (over, teller) = sys::teller().map_err(|e| io("making what tells of a join", &e))?;
        let poller = Poller::new(env, over, &callback)?;
        poller.hold(true)?;
        let outcome = Arc::new(Mutex::new(None));
        let place = outcome.clone();
        std::thread::Builder::new()
            .name("ipmb-js-join".into())
            .spawn(move || {
                // Dropped at the end, also of a panic. If nobody waits any more, `joined` goes with `place`.
                let _teller = teller;
                let joined = ipmb::join(plan.options, plan.timeout);
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
            })
            .map_err(|e| io("starting a thread to join", &e))?;
        Ok(Self {
            outcome,
            queue: plan.queue,
            poller: RefCell::new(Some(poller)),
        })
    }

    /// How it went, once `callback` was called.
    #[napi]
    pub fn finish(&self, env: Env) -> Result<Joined> {
        drop(self.poller.take());
        let outcome = self.outcome.lock();
        match outcome.unwrap_or_else(PoisonError::into_inner).take() {
            Some(Ok(halves)) => Ok(dress(env, halves, self.queue)),
            Some(Err(error)) => Err(of_join(&error)),
            None => Err(fail("IPMB_PANIC", "a bug in ipmb-js: joining panicked")),
        }
    }
}

/// An error as a value.
#[napi(object, object_from_js = false)]
pub struct Refused {
    /// Its code.
    pub code: String,
    /// Its text.
    pub message: String,
}

impl Refused {
    pub(crate) fn of(error: crate::fail::Fail) -> Self {
        Self {
            code: error.status.to_owned(),
            message: error.reason.clone(),
        }
    }
}

/// The version of the library.
#[napi]
pub fn version() -> String {
    ipmb::version().to_string()
}
