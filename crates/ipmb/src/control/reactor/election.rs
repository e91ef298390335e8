//! Looking for the controller, and running for its seat when there is none.

use super::{LAST_TRY, LAST_TRY_TO_HAND_OVER, Reactor, Source};
use crate::{
    JoinError,
    control::controller::{Controller, Wiring},
    sys::{AsSource, Channel, Interest},
};
use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a stranger leaves the seat to the members of before: they notice within a millisecond that it is free, but they
/// may have to wait for a processor.
const DEFER: Duration = Duration::from_millis(250);

/// When a member looks again at what kept it from the controller.
const STUMBLED: Duration = Duration::from_millis(20);

impl Reactor {
    /// Connects to the controller, or becomes it; or goes on after a shortage.
    pub(super) fn seek(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        member.retry = None;
        if member.channel.is_some() {
            member.paused = false;
            self.watch_control(key);
            self.read(key);
            return;
        }
        if crate::fault::on(20) && member.membership.status().id != 0 {
            return;
        }
        match member.bus.rendezvous.connect() {
            Ok(Some(channel)) => self.greet(key, channel),
            Ok(None) => self.run_for_it(key),
            Err(e) => self.stumble(key, JoinError::io("connecting to the controller", e)),
        }
    }

    fn greet(&mut self, key: u64, channel: Channel) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let channel = match member.greet(channel) {
            Ok(channel) => channel,
            Err(error) => return self.stumble(key, error),
        };
        match self.wires.watch(channel.source(), Interest::Readable) {
            Ok(token) => {
                self.sources.insert(token, Source::Control(key, channel));
            }
            Err(e) => {
                member.disconnected();
                self.stumble(key, JoinError::io("watching the controller", e));
            }
        }
    }

    /// Something is in the way. A join fails with it; but who is a member stays one, with the links that it has, and tries
    /// again until it is over.
    fn stumble(&mut self, key: u64, error: JoinError) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if !member.is_known() {
            member.fail(error);
            self.end(key);
            return;
        }
        let text = error.with_cause();
        let before = member.membership.status().trouble.replace(error);
        if before.is_none_or(|before| before.with_cause() != text) {
            log::warn!("without a controller: {text}");
        }
        member.retry_in(STUMBLED);
    }

    /// Nobody is the controller: try to win the seat.
    fn run_for_it(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if member.may_host() {
            match self.win(key) {
                Ok(true) => return self.seek(key),
                Ok(false) => {}
                Err(e) => return self.stumble(key, JoinError::io("hosting the controller", e)),
            }
        }
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        // Somebody has the name and does not listen yet, or its queue is full, or nobody wants it.
        member.tries = (member.tries + 1).min(LAST_TRY_TO_HAND_OVER);
        let last_try = match member.leaving.as_ref().map(VecDeque::is_empty) {
            Some(true) => LAST_TRY,
            Some(false) => LAST_TRY_TO_HAND_OVER,
            None => u32::MAX,
        };
        if !member.may_host() && member.tries >= last_try {
            self.left(key);
            return;
        }
        let pause = member.pause().max(Duration::from_micros(100));
        member.retry_in(pause);
    }

    /// Takes the seat if it is free. A stranger leaves it to the members of before for a while, since it knows nothing of
    /// them, and perhaps not even their token.
    fn win(&mut self, key: u64) -> io::Result<bool> {
        let Some(member) = self.members.get_mut(&key) else {
            return Ok(false);
        };
        let rendezvous = &member.bus.rendezvous;
        let mut mark = member.mark.clone();
        let stranger = mark.is_none() && !member.is_known();
        if stranger {
            mark = rendezvous.mark()?.map(Arc::new);
            let since = *member.defers_since.get_or_insert_with(Instant::now);
            if mark.is_none() && since.elapsed() < DEFER {
                return Ok(false);
            }
        }
        let Some(seat) = rendezvous.win()? else {
            return Ok(false);
        };
        // Somebody who took itself for the last one may have removed the file that the mark was taken on.
        let mark = mark.filter(|mark| seat.goes_with(mark));
        let alone = stranger && mark.is_some();
        let before = member.membership.status().directory.clone();
        let controller = Controller::new(
            seat,
            member.bus.clone(),
            before,
            mark,
            alone,
            member.events.clone(),
            &mut self.wires,
        )?;
        member.hosts = Some(controller.seat_token());
        member.tries = 0;
        self.controllers.insert(controller.seat_token(), controller);
        Ok(true)
    }
}
