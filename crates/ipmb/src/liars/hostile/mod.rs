//! Liars: peers that speak the protocol and map links by hand, and break every rule of both.
//!
//! Each test asserts what becomes of the victim: the liar is disconnected, and the log says why; other links run on;
//! nothing panics, hangs or grows. The victims are ordinary endpoints. The liars are threads of the same process, so that
//! a sanitizer sees both sides.
//!
//! | file | who lies |
//! |---|---|
//! | `member.rs`, `../by_hand.rs` | the tools: a member by hand, a link by hand |
//! | `senders.rs` | the sender of a link |
//! | `offers.rs` | the maker of a link, in the handles that it offers |
//! | `receivers.rs` | the receiver of a link |
//! | `members.rs` | a member, to the controller |
//! | `controllers.rs` | the controller, to its members; and in its directory |
//! | `closings.rs`, `silent_file.rs` | whoever hands over what waits when it is closed |
//! | `corruption.rs` | whoever writes anything anywhere |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod closings;
mod controllers;
mod corruption;
mod member;
mod members;
mod offers;
mod receivers;
mod senders;
mod silent_file;

use super::by_hand as link;
use crate::{
    BytesMessage, EndpointReceiver, EndpointSender, Message, Options, Selector, label,
    sync::process::{AtomicBool, AtomicU32, Ordering},
};
use std::{
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

const SOON: Option<Duration> = Some(Duration::from_secs(20));
const TOKEN: &str = "a token that liars know";

/// What was logged in this process, of level info and above.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

fn record_the_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// How many lines of the log have all these parts.
fn logged(parts: &[&str]) -> usize {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
    log.iter().filter(has_all).count()
}

/// Waits until a condition holds, and says what it was if it never does.
#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the threads of a test, also when it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options(name: &str) -> Options {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    record_the_log();
    let bus = format!("test.hostile.{name}.{}.{number}", std::process::id());
    Options::new(bus, label!("nobody"), TOKEN)
}

/// The victim of a lie, and a friend of it on another link.
struct Victim {
    options: Options,
    receiver: EndpointReceiver<BytesMessage>,
    sender: EndpointSender<BytesMessage>,
    friend: EndpointSender<BytesMessage>,
    _friend: EndpointReceiver<BytesMessage>,
    sent: u16,
}

impl Victim {
    fn new(name: &str) -> Self {
        Self::with(options(name))
    }

    fn with(mut options: Options) -> Self {
        options.label = label!("friend");
        let (friend, _friend) = crate::join(options.clone(), SOON).unwrap();
        options.label = label!("victim");
        let (sender, receiver) = crate::join(options.clone(), SOON).unwrap();
        let mut victim = Self {
            options,
            receiver,
            sender,
            friend,
            _friend,
            sent: 0,
        };
        victim.hears_its_friend();
        victim
    }

    /// A message of the friend arrives, in order and unchanged, and until then nothing else does but what does not decode.
    #[track_caller]
    fn hears_its_friend(&mut self) {
        self.tell();
        self.hear();
    }

    fn tell(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        let payload = BytesMessage {
            format: self.sent,
            data: vec![self.sent as u8; usize::from(self.sent % 100)],
        };
        let message = Message::new(Selector::unicast("victim"), payload);
        self.friend.send(message).unwrap();
    }

    #[track_caller]
    fn hear(&mut self) {
        let message = self.receiver.recv(SOON).unwrap();
        assert_eq!(message.payload.format, self.sent);
        let expected = vec![self.sent as u8; usize::from(self.sent % 100)];
        assert_eq!(message.payload.data, expected);
    }

    /// Lives on until the condition holds.
    #[track_caller]
    fn lives_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
            self.hears_its_friend();
        }
        self.hears_its_friend();
    }
}
