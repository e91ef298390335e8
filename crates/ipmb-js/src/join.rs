//! Joining a bus.

use crate::{
    ends,
    fail::{INVALID_ARGUMENT, Result, fail, of_join},
    outbound::Outbound,
    receiver::NativeReceiver,
    region::whole,
    sender::NativeSender,
};
use ipmb::{BytesMessage, EndpointReceiver, EndpointSender, Label, Options};
use napi::{
    Task,
    bindgen_prelude::{AsyncTask, Env},
};
use napi_derive::napi;
use std::time::Duration;

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
    /// Bytes of ring for each link to this endpoint.
    pub link_capacity: Option<f64>,
    /// Bytes that may wait for one receiver.
    pub outbound_queue: Option<f64>,
    /// A path in the file system to meet at.
    pub path: Option<String>,
}

type Halves = (EndpointSender<Outbound>, EndpointReceiver<BytesMessage>);

/// Both halves of an endpoint.
#[napi(object, object_from_js = false)]
pub struct Joined {
    /// The sending half.
    pub sender: NativeSender,
    /// The receiving half.
    pub receiver: NativeReceiver,
}

/// How it went. An error of a task has no code of its own, so it is a value until JavaScript throws it.
pub struct Outcome(Result<Halves>);

/// A join that is under way on another thread.
pub struct Joining {
    options: Options,
    timeout: Option<Duration>,
    queue: usize,
}

impl JoinOptions {
    fn read(self, timeout: Option<f64>) -> Result<Joining> {
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
        Ok(Joining {
            options,
            timeout,
            queue,
        })
    }
}

impl Joining {
    fn join(&self) -> Result<Halves> {
        ipmb::join(self.options.clone(), self.timeout).map_err(|e| of_join(&e))
    }

    fn dress(&self, env: Env, (sender, receiver): Halves) -> Joined {
        ends::watch(env);
        Joined {
            sender: NativeSender::of(sender, self.queue),
            receiver: NativeReceiver::of(receiver),
        }
    }
}

/// Joins a bus; blocks until it has, at most for `timeout` milliseconds.
#[napi]
pub fn join(env: Env, options: JoinOptions, timeout: Option<f64>) -> Result<Joined> {
    let joining = options.read(timeout)?;
    let halves = joining.join()?;
    Ok(joining.dress(env, halves))
}

#[napi]
impl Task for Joining {
    type Output = Outcome;
    type JsValue = napi::Either<Joined, Refused>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(Outcome(self.join()))
    }

    fn resolve(&mut self, env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(match output.0 {
            Ok(halves) => napi::Either::A(self.dress(env, halves)),
            Err(error) => napi::Either::B(Refused::of(error)),
        })
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

/// Joins a bus on another thread.
#[napi]
pub fn join_async(options: JoinOptions, timeout: Option<f64>) -> Result<AsyncTask<Joining>> {
    options.read(timeout).map(AsyncTask::new)
}

/// The version of the library.
#[napi]
pub fn version() -> String {
    ipmb::version().to_string()
}
