//! One endpoint's membership as the serving thread keeps it.

use super::{
    budget::Budget,
    bus::Bus,
    directory::Directory,
    membership::{Events, Membership, Parked, Phase},
    proof::{self, Role, prove},
    protocol::{self, Hello, LINK_HANDLES, Nonce, PACKET_MAX, Refused, ToController, ToMember},
};
use crate::{
    JoinError, Version,
    sys::{self, AsHandle, BorrowedHandle, Channel, Handle, Interest, MembersMark, Received},
};
use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// When to look again at a shortage that nobody reports the end of.
const SHORTAGE: Duration = Duration::from_millis(2);

/// How long a membership lasts that is not suspicious.
const STEADY: Duration = Duration::from_millis(20);

/// What the connection to the controller waits for.
#[derive(Debug)]
enum Stage {
    Hello { nonce: Nonce },
    Welcome { member: Nonce, controller: Nonce },
    Member,
}

/// What the serving thread has to do for a member now.
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    /// There are no handles or no memory to take what comes next: read on a little later.
    Pause,
    /// The connection is lost: look for a controller.
    Seek,
    /// The controller does not do its work: break with it, and look for one a little later.
    Shun,
    /// It is over.
    End,
}

/// A link whose handles came, and that could not be accepted for want of memory.
#[derive(Debug)]
struct Deferred {
    from: u64,
    link: u64,
    handles: Received,
}

/// One endpoint's membership as the serving thread keeps it.
pub(crate) struct Member {
    pub(crate) bus: Bus,
    pub(crate) membership: Arc<Membership>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) channel: Option<Arc<Channel>>,
    /// When to look for a controller again, or to go on after a shortage.
    pub(crate) retry: Option<Instant>,
    /// Connections and elections without success since it was last a member for a while.
    pub(crate) tries: u32,
    /// Since when it lets the members of before go first.
    pub(crate) defers_since: Option<Instant>,
    /// When something that the endpoint keeps expires.
    pub(crate) expiry: Option<Instant>,
    stage: Stage,
    welcomed: Option<Instant>,
    secret: [u8; 16],
    label: Vec<u8>,
    receives: bool,
    /// What it registered as.
    registered: bool,
    watches: bool,
    pub(crate) mark: Option<Arc<MembersMark>>,
    /// The serving thread hosts the controller because this member won the election.
    pub(crate) hosts: Option<u64>,
    /// As a leaver: what it hands over. It keeps that until its leave is confirmed, since a controller may go before.
    pub(crate) leaving: Option<VecDeque<Parked>>,
    /// How many of these this controller was sent.
    pub(crate) handed: usize,
    /// As a leaver it has told the controller so.
    pub(crate) said_good_bye: bool,
    /// As a leaver it has handed the controller's role over, and does not take it again.
    pub(crate) gave_up: bool,
    /// What the controller has to be told, and was not yet.
    pub(crate) owes_introductions: bool,
    again: bool,
    owes_watch: bool,
    owes_stop: bool,
    /// Answers to that which are to come.
    stops_asked: u32,
    /// The controller's channel has no room for what is owed.
    pub(crate) wants_room: bool,
    /// There was no room for what the controller sent.
    pub(crate) paused: bool,
    /// What the channel is watched for.
    pub(crate) interest: Interest,
    deferred: Option<Deferred>,
    /// It was logged that there is no room for what the controller sends.
    said_short: bool,
    /// What the controller may yet say.
    budget: Budget,
}

impl Member {
    pub(crate) fn new(
        bus: Bus,
        membership: Arc<Membership>,
        events: Arc<dyn Events>,
    ) -> io::Result<Self> {
        let mut label = Vec::new();
        bus.options.label.encode(&mut label);
        Ok(Self {
            bus,
            membership,
            events,
            channel: None,
            retry: None,
            tries: 0,
            defers_since: None,
            expiry: None,
            stage: Stage::Hello { nonce: [0; 32] },
            welcomed: None,
            secret: proof::random()?,
            label,
            receives: true,
            registered: true,
            watches: false,
            mark: None,
            hosts: None,
            leaving: None,
            handed: 0,
            stops_asked: 0,
            said_good_bye: false,
            gave_up: false,
            owes_introductions: false,
            again: false,
            owes_watch: false,
            owes_stop: false,
            wants_room: false,
            paused: false,
            interest: Interest::Readable,
            deferred: None,
            said_short: false,
            budget: Budget::new(Instant::now()),
        })
    }

    /// Whether it was a member before.
    pub(crate) fn is_known(&self) -> bool {
        self.membership.status().id != 0
    }

    /// Whether it is to look for a controller now.
    pub(crate) fn is_due(&self) -> bool {
        self.retry.is_some_and(|at| at <= Instant::now())
    }

    /// Notes why the controller could not be told everything: it is told the rest when that is over.
    pub(crate) fn owes_because(&mut self, error: &io::Error) {
        self.wants_room = error.kind() == io::ErrorKind::WouldBlock;
        if sys::exhausted(error).is_some() {
            self.retry_in(SHORTAGE);
        }
        // A hang-up is noticed by reading.
    }

    /// Looks again after `pause` at the latest.
    pub(crate) fn retry_in(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.retry = Some(self.retry.map_or(at, |retry| retry.min(at)));
    }

    /// Whether this endpoint may become the controller.
    pub(crate) fn may_host(&self) -> bool {
        (self.bus.options.controller_affinity || crate::fault::on(2))
            && !self.gave_up
            && self.bus.may_be_hosted_by(sys::uid())
    }

    /// Starts to talk to a controller.
    pub(crate) fn greet(&mut self, channel: Channel) -> Result<Arc<Channel>, JoinError> {
        let peer = channel
            .peer()
            .map_err(|e| JoinError::io("asking who the controller is", e))?;
        if !self.bus.may_be_hosted_by(peer.uid) {
            return Err(JoinError::NameSquatted {
                uid: peer.uid,
                pid: peer.pid,
            });
        }
        let nonce = proof::random().map_err(|e| JoinError::io("drawing a random number", e))?;
        let channel = Arc::new(channel);
        // A failure shows as a hang-up.
        let _ = channel.send(&protocol::encode(&Hello::new(nonce)), &[]);
        self.stage = Stage::Hello { nonce };
        self.channel = Some(channel.clone());
        self.retry = None;
        self.tries += 1;
        self.membership.change(|s| s.controller = Some(peer));
        Ok(channel)
    }

    /// Reads what the controller has sent.
    pub(crate) fn read(&mut self) -> Next {
        if !self.accept_deferred() {
            return Next::Pause;
        }
        let mut buffer = vec![0; PACKET_MAX];
        let mut handles = Received::default();
        // A bounded number at a time, so that one busy bus does not keep others waiting; the rest is still readable.
        for _ in 0..64 {
            let Some(channel) = self.channel.clone() else {
                return Next::Nothing;
            };
            let packet = match channel.recv_with(&mut buffer, &mut handles, LINK_HANDLES) {
                Ok(packet) if packet.len == 0 => {
                    log::debug!("the controller has hung up");
                    return Next::Seek;
                }
                Ok(packet) if packet.truncated || packet.surplus => {
                    return distrust("it sent more than fits into a packet");
                }
                Ok(_) if !self.budget.spend(Instant::now) => {
                    return distrust("it floods its members");
                }
                Ok(packet) => packet,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.said_short = false;
                    return Next::Nothing;
                }
                Err(e) if sys::exhausted(&e).is_some() => {
                    // Said once, however often it is tried until the shortage is over.
                    if !std::mem::replace(&mut self.said_short, true) {
                        log::warn!("no handles left to take what the controller sends: {e}");
                    }
                    let trouble = JoinError::io("taking what the controller sends", e);
                    self.membership.status().trouble = Some(trouble);
                    return Next::Pause;
                }
                Err(e) => {
                    log::debug!("the controller has hung up: {e}");
                    return Next::Seek;
                }
            };
            match self.packet(&buffer[..packet.len], std::mem::take(&mut handles)) {
                Ok(Next::Nothing) => {}
                Ok(next) => return next,
                // Who is a member keeps its links, whoever has taken the name since.
                Err(error) if self.is_known() => {
                    let refused = distrust(&error);
                    self.membership.change(|s| s.trouble = Some(error));
                    return refused;
                }
                Err(error) => return self.fail(error),
            }
        }
        Next::Nothing
    }

    /// Accepts the link that there was no memory for. False: there is none yet.
    fn accept_deferred(&mut self) -> bool {
        match self.deferred.take() {
            Some(link) => self.accept(link.from, link.link, link.handles),
            None => true,
        }
    }

    fn accept(&mut self, from: u64, link: u64, handles: Received) -> bool {
        let back = self.events.introduced(from, link, handles);
        self.deferred = back.map(|handles| Deferred {
            from,
            link,
            handles,
        });
        self.deferred.is_none()
    }

    /// The membership failed for good.
    pub(crate) fn fail(&mut self, error: JoinError) -> Next {
        log::warn!("not on the bus: {}", error.with_cause());
        self.membership.change(|s| {
            s.phase = Phase::Failed(error);
            s.channel = None;
        });
        self.events.ended();
        Next::End
    }

    fn packet(&mut self, packet: &[u8], handles: Received) -> Result<Next, JoinError> {
        match self.stage {
            Stage::Hello { nonce } => self.hello(packet, nonce),
            Stage::Welcome { member, controller } => match protocol::decode(packet) {
                Some(ToMember::Welcome { proof, id }) => {
                    let expected = prove(
                        &self.bus.options.token,
                        Role::Controller,
                        &member,
                        &controller,
                    );
                    if !proof::same(&proof, &expected) {
                        return Err(JoinError::TokenMismatch);
                    }
                    self.welcome(id, handles)
                }
                Some(ToMember::Refused(Refused::Token)) => Err(JoinError::TokenMismatch),
                Some(ToMember::Refused(Refused::Permission)) => Err(JoinError::PermissionDenied),
                Some(ToMember::Refused(Refused::Full)) => Ok(self.no_room()),
                _ => Ok(distrust("it does not keep to the protocol")),
            },
            Stage::Member => Ok(self.message(packet, handles)),
        }
    }

    fn hello(&mut self, packet: &[u8], nonce: Nonce) -> Result<Next, JoinError> {
        let Some(hello) = protocol::decode::<Hello>(packet).filter(Hello::is_ours) else {
            return Err(JoinError::VersionMismatch(Version(0, 0, 0)));
        };
        if !hello.is_compatible() {
            return Err(JoinError::VersionMismatch(hello.version()));
        }
        let (id, directory) = {
            let status = self.membership.status();
            (status.id, status.directory.clone())
        };
        // One who comes back to hand over what it leaves behind takes nothing more.
        self.registered = self.receives && self.leaving.is_none();
        let register = ToController::Register {
            proof: prove(&self.bus.options.token, Role::Member, &nonce, &hello.nonce),
            secret: self.secret,
            label: self.label.clone(),
            receives: self.registered,
            before: (id != 0).then_some(id),
        };
        let mut handles: Vec<BorrowedHandle<'_>> = Vec::new();
        if id != 0
            && let Some(directory) = &directory
        {
            handles.push(directory.memory().as_handle());
            handles.extend(self.mark.iter().map(|m| m.as_handle()));
        }
        let Some(channel) = &self.channel else {
            return Ok(Next::Seek);
        };
        match channel.send(&protocol::encode(&register), &handles) {
            Ok(()) => {}
            // Too many handles of this user are under way.
            Err(e) if sys::exhausted(&e).is_some() => return Ok(Next::Shun),
            // What it said before it hung up is still to be read.
            Err(_) => {}
        }
        self.stage = Stage::Welcome {
            member: nonce,
            controller: hello.nonce,
        };
        Ok(Next::Nothing)
    }

    fn welcome(&mut self, id: u64, mut handles: Received) -> Result<Next, JoinError> {
        let directory = match handles.next().map(open_directory) {
            Some(Ok(directory)) => directory,
            None => return Ok(Next::Shun),
            Some(Err(e)) => {
                // Perhaps for want of memory: what a join says that never gets beyond this.
                let trouble = JoinError::io("mapping the controller's directory", e);
                self.membership.status().trouble = Some(trouble);
                return Ok(Next::Shun);
            }
        };
        if let Some(mark) = handles.next().and_then(|h| MembersMark::from_peer(h).ok()) {
            self.mark = Some(Arc::new(mark));
        }
        self.stage = Stage::Member;
        self.welcomed = Some(Instant::now());
        self.defers_since = None;
        // It registered as one that takes nothing: that is the answer to whoever waits for it.
        let stopped = !self.registered;
        self.membership.change(|s| {
            s.phase = Phase::Joined;
            s.id = id;
            s.directory = Some(directory);
            s.channel = self.channel.clone();
            s.trouble = None;
            s.done += u64::from(stopped);
        });
        self.owes_stop = !self.receives && self.registered;
        self.owes_watch = self.watches;
        self.owes_introductions = true;
        self.again = true;
        self.events.directory_changed();
        Ok(Next::Nothing)
    }

    fn message(&mut self, packet: &[u8], mut handles: Received) -> Next {
        match protocol::decode(packet) {
            Some(ToMember::Directory) => {
                let Some(directory) = handles.next().and_then(|h| open_directory(h).ok()) else {
                    // Who breaks off in its leave does not know whether to hand over once more.
                    return match self.said_good_bye {
                        true => Next::Nothing,
                        false => Next::Shun,
                    };
                };
                self.membership.change(|s| s.directory = Some(directory));
                self.events.directory_changed();
            }
            Some(ToMember::Look) => {
                self.membership.change(|_| {});
                self.events.directory_changed();
            }
            Some(ToMember::Introduced { from, link }) => {
                if !self.accept(from, link, handles) {
                    return Next::Pause;
                }
            }
            Some(ToMember::NoSuchMember { link }) => self.events.no_such_member(link),
            Some(ToMember::Again { link }) => {
                self.events.put_off(link);
                self.owes_introductions = true;
            }
            Some(ToMember::Done) => {
                self.membership.change(|s| s.done += 1);
                match self.stops_asked.checked_sub(1) {
                    // Answers come in the order of the questions.
                    Some(left) => self.stops_asked = left,
                    None if self.said_good_bye => {
                        self.leaving = Some(VecDeque::new());
                        return Next::End;
                    }
                    None => return distrust("it answers what nobody asked"),
                }
            }
            Some(ToMember::Welcome { .. } | ToMember::Refused(_)) | None => {
                return distrust("it does not keep to the protocol");
            }
        }
        Next::Nothing
    }

    /// Whether the controller has admitted it.
    pub(crate) fn is_member(&self) -> bool {
        self.channel.is_some() && matches!(self.stage, Stage::Member)
    }

    /// Sends a packet to the controller.
    pub(crate) fn send(
        &self,
        message: &ToController,
        handles: &[BorrowedHandle<'_>],
    ) -> io::Result<()> {
        match &self.channel {
            Some(channel) => channel.send(&protocol::encode(message), handles),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// From now on the controller is to say, or no longer to say, when the directory changes.
    pub(crate) fn watch(&mut self, on: bool) {
        self.watches = on;
        self.owes_watch = true;
    }

    /// The endpoint takes no more messages.
    pub(crate) fn stop_receiving(&mut self) {
        self.receives = false;
        self.owes_stop = true;
    }

    /// Tells the controller what it has to be told. An error says why there is something left: `WouldBlock` that the
    /// channel is full, a shortage, or a hang-up, which is noticed by reading.
    pub(crate) fn pay(&mut self) -> io::Result<()> {
        let Some(channel) = self.channel.clone().filter(|_| self.is_member()) else {
            return Ok(());
        };
        if self.owes_stop {
            self.send(&ToController::StopReceiving, &[])?;
            self.owes_stop = false;
            self.stops_asked += 1;
        }
        if self.owes_watch {
            self.send(&ToController::Watch(self.watches), &[])?;
            self.owes_watch = false;
        }
        if self.owes_introductions {
            let again = std::mem::take(&mut self.again);
            self.events.clone().introduce(&channel, again)?;
            self.owes_introductions = false;
        }
        Ok(())
    }

    /// The connection is lost.
    pub(crate) fn disconnected(&mut self) {
        self.channel = None;
        self.said_good_bye = false;
        (self.handed, self.stops_asked) = (0, 0);
        // A controller that lets go of its members at once is not to be pestered.
        if self
            .welcomed
            .take()
            .is_some_and(|at| at.elapsed() >= STEADY)
        {
            self.tries = 0;
        }
        (self.wants_room, self.paused) = (false, false);
        self.interest = Interest::Readable;
        self.membership.change(|s| {
            s.channel = None;
            if matches!(s.phase, Phase::Joined) {
                s.phase = Phase::Seeking;
            }
        });
        self.events.directory_changed();
        self.retry_in(self.pause());
    }

    /// How long to wait before the next look for a controller, after so many in vain.
    pub(crate) fn pause(&self) -> Duration {
        match self.tries {
            0..=2 => Duration::ZERO,
            // Somebody has won the name and does not listen yet: that is over at once.
            tries if self.may_host() => Duration::from_micros(100) * tries.min(16),
            // Nobody may want it for long.
            tries => Duration::from_millis(1 << (tries - 3).min(5)),
        }
    }

    /// The controller has no room for this endpoint.
    fn no_room(&self) -> Next {
        self.membership.change(|s| {
            let pid = s.controller.map_or(0, |c| c.pid);
            s.trouble = Some(JoinError::BusFull { pid });
        });
        Next::Shun
    }
}

/// Breaks with the controller, and says why.
fn distrust(why: impl std::fmt::Display) -> Next {
    log::warn!("the controller is not to be trusted: {why}; looking for another");
    Next::Shun
}

fn open_directory(handle: Handle) -> io::Result<Arc<Directory>> {
    Directory::memory_from_peer(handle)
        .and_then(Directory::open)
        .inspect_err(|e| log::warn!("the controller's directory was refused: {e}"))
}
