//! One endpoint's membership: what the serving thread keeps of it, and what the endpoint's own threads see of it.

use super::{
    directory::Directory,
    proof::{self, Role, prove},
    protocol::{self, Hello, Nonce, PACKET_MAX, PROTOCOL, Refused, ToController, ToMember},
};
use crate::{
    JoinError, Options, Version,
    sys::{
        self, AsHandle, BorrowedHandle, Channel, Handle, MembersMark, OwnHandle, Peer, Rendezvous,
    },
};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the serving thread tells an endpoint. Called on the serving thread; must not block on anything that waits for it.
pub(crate) trait Events: Send + Sync {
    /// A new directory, or one that has settled, or a change that was asked for.
    fn directory_changed(&self);
    /// Another endpoint made a link to this one.
    fn introduced(&self, from: u64, link: u64, handles: Vec<Handle>);
    /// The control channel has a place for introductions: send those that are due. False: it has none left.
    fn introduce(&self, channel: &Channel) -> bool;
    /// The receiver of an introduction is not a member.
    fn no_such_member(&self, link: u64);
    /// The side channel of an outgoing link said something, or hung up.
    fn side_news(&self, link: u64, hangup: bool);
    /// The time that the endpoint has asked for has come.
    fn expired(&self);
    /// A leaver left a message behind.
    fn parked(&self, parked: Parked);
    /// The membership has ended for good.
    fn ended(&self);
}

/// A message that waits for a receiver, on its way from a leaver to its heir.
#[derive(Debug)]
pub(crate) struct Parked {
    pub uuid: [u8; 16],
    pub label_op: Vec<u8>,
    pub multicast: bool,
    pub remaining: Duration,
    pub payload: Vec<u8>,
    pub objects: Vec<Handle>,
    pub regions: Vec<Handle>,
}

/// Where a membership stands.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Looking for a controller; for the first time, or again.
    Seeking,
    /// A member.
    Joined,
    /// Refused, for good.
    Failed(JoinError),
    /// Left in good order.
    Left,
}

/// What the endpoint's threads see.
#[derive(Debug)]
pub(crate) struct Status {
    pub phase: Phase,
    pub id: u64,
    pub directory: Option<Arc<Directory>>,
    /// The channel to the controller while there is one.
    pub channel: Option<Arc<Channel>>,
    /// The controller that was last connected to.
    pub controller: Option<Peer>,
    /// Counts what the controller has answered.
    pub done: u64,
    /// Counts all changes.
    pub news: u64,
}

/// A membership as the endpoint's threads see it.
#[derive(Debug)]
pub(crate) struct Membership {
    status: Mutex<Status>,
    changed: Condvar,
}

impl Membership {
    pub(crate) fn new() -> Self {
        Self {
            status: Mutex::new(Status {
                phase: Phase::Seeking,
                id: 0,
                directory: None,
                channel: None,
                controller: None,
                done: 0,
                news: 0,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        {
            let mut status = self.status();
            change(&mut status);
            status.news += 1;
        }
        self.changed.notify_all();
    }

    /// Waits until `ready` gives something, or the deadline is over. It must not take the outbox's lock, under which others
    /// ask for the status.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut Status) -> Option<T>,
    ) -> Option<T> {
        let mut status = self.status();
        loop {
            if let Some(result) = ready(&mut status) {
                return Some(result);
            }
            status = match deadline {
                None => self
                    .changed
                    .wait(status)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed
                        .wait_timeout(status, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// The controller's process id, if it is stopped.
    pub(crate) fn stopped_controller(&self) -> Option<u32> {
        let pid = self.status().controller?.pid;
        sys::is_stopped(pid).then_some(pid)
    }
}

/// What a bus is, for those who may host it.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    pub rendezvous: Rendezvous,
    pub owner: u32,
    pub options: Options,
}

impl Bus {
    pub(crate) fn new(options: Options) -> Result<Self, JoinError> {
        let owner = options.owner.unwrap_or_else(sys::uid);
        let rendezvous = match &options.path {
            Some(path) => Rendezvous::at(path),
            None => Rendezvous::named(&options.identifier, owner, PROTOCOL.0),
        };
        Ok(Self {
            rendezvous: rendezvous.map_err(|e| JoinError::io("naming the bus", e))?,
            owner,
            options,
        })
    }

    /// Whether a peer may be on the bus, and host it.
    pub(crate) fn admits(&self, peer: &Peer) -> bool {
        sys::is_owner_or_root(peer, self.owner)
            || (!sys::is_unmapped(peer.uid)
                && self
                    .options
                    .access
                    .admits(self.owner, Some(peer.uid), [peer.gid]))
    }
}

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
    /// The connection is lost: look for a controller.
    Seek,
    /// It is over.
    End,
}

/// One endpoint's membership as the serving thread keeps it.
pub(crate) struct Member {
    pub(crate) bus: Bus,
    pub(crate) membership: Arc<Membership>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) channel: Option<Arc<Channel>>,
    /// When to look for a controller again.
    pub(crate) retry: Option<Instant>,
    pub(crate) tries: u32,
    /// When something that the endpoint keeps expires.
    pub(crate) expiry: Option<Instant>,
    stage: Stage,
    secret: [u8; 16],
    label: Vec<u8>,
    pub(crate) receives: bool,
    pub(crate) watches: bool,
    pub(crate) mark: Option<Arc<MembersMark>>,
    /// The serving thread hosts the controller because this member won the election.
    pub(crate) hosts: Option<u64>,
    pub(crate) leaving: Option<Vec<Parked>>,
    /// As a leaver it has told the controller so.
    pub(crate) said_good_bye: bool,
    /// As a leaver it has handed the controller's role over, and does not take it again.
    pub(crate) gave_up: bool,
    /// Introductions are due and the channel had no room.
    pub(crate) owes_introductions: bool,
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
            expiry: None,
            stage: Stage::Hello { nonce: [0; 32] },
            secret: proof::random()?,
            label,
            receives: true,
            watches: false,
            mark: None,
            hosts: None,
            leaving: None,
            said_good_bye: false,
            gave_up: false,
            owes_introductions: false,
        })
    }

    /// Whether this endpoint may become the controller.
    pub(crate) fn may_host(&self) -> bool {
        let this = Peer {
            pid: sys::pid(),
            uid: sys::uid(),
            gid: sys::gid(),
        };
        self.bus.options.controller_affinity && !self.gave_up && self.bus.admits(&this)
    }

    /// Starts to talk to a controller.
    pub(crate) fn greet(&mut self, channel: Channel) -> Result<(), JoinError> {
        let peer = channel
            .peer()
            .map_err(|e| JoinError::io("asking who the controller is", e))?;
        if !self.bus.admits(&peer) {
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
        self.channel = Some(channel);
        self.retry = None;
        self.membership.change(|s| s.controller = Some(peer));
        Ok(())
    }

    /// Reads what the controller has sent.
    pub(crate) fn read(&mut self) -> Next {
        let mut buffer = vec![0; PACKET_MAX];
        let mut handles = Vec::new();
        // A bounded number at a time, so that one busy bus does not keep others waiting; the rest is still readable.
        for _ in 0..64 {
            let Some(channel) = self.channel.clone() else {
                return Next::Nothing;
            };
            handles.clear();
            let packet = match channel.recv(&mut buffer, &mut handles) {
                Ok(packet) if packet.len > 0 && !packet.truncated => packet,
                Ok(_) => return Next::Seek,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Next::Nothing,
                Err(e) if sys::exhausted(&e).is_some() => {
                    log::warn!("no handles left to take what the controller sends: {e}");
                    self.retry = Some(Instant::now() + Duration::from_millis(20));
                    return Next::Nothing;
                }
                Err(_) => return Next::Seek,
            };
            match self.packet(&buffer[..packet.len], std::mem::take(&mut handles)) {
                Ok(Next::Nothing) => {}
                Ok(next) => return next,
                Err(error) => return self.fail(error),
            }
        }
        Next::Nothing
    }

    /// The membership failed for good.
    pub(crate) fn fail(&mut self, error: JoinError) -> Next {
        log::warn!("not on the bus: {error}");
        self.membership.change(|s| {
            s.phase = Phase::Failed(error);
            s.channel = None;
        });
        self.events.ended();
        Next::End
    }

    fn packet(&mut self, packet: &[u8], handles: Vec<Handle>) -> Result<Next, JoinError> {
        match self.stage {
            Stage::Hello { nonce } => self.hello(packet, nonce),
            Stage::Welcome { member, controller } => {
                match protocol::decode(packet) {
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
                    Some(ToMember::Refused(Refused::Permission)) => {
                        Err(JoinError::PermissionDenied)
                    }
                    // A full bus, or nonsense: somebody else may win the next election.
                    _ => Ok(Next::Seek),
                }
            }
            Stage::Member => Ok(self.message(packet, handles)),
        }
    }

    fn hello(&mut self, packet: &[u8], nonce: Nonce) -> Result<Next, JoinError> {
        if let Some(ToMember::Refused(Refused::Permission)) = protocol::decode(packet) {
            return Err(JoinError::PermissionDenied);
        }
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
        let register = ToController::Register {
            proof: prove(&self.bus.options.token, Role::Member, &nonce, &hello.nonce),
            secret: self.secret,
            label: self.label.clone(),
            receives: self.receives,
            before: (id != 0).then_some(id),
        };
        let mut handles: Vec<BorrowedHandle<'_>> = Vec::new();
        if id != 0
            && let Some(directory) = &directory
        {
            handles.push(directory.memory().as_fd());
            handles.extend(self.mark.iter().map(|m| m.0.as_fd()));
        }
        let Some(channel) = &self.channel else {
            return Ok(Next::Seek);
        };
        if channel
            .send(&protocol::encode(&register), &handles)
            .is_err()
        {
            return Ok(Next::Seek);
        }
        self.stage = Stage::Welcome {
            member: nonce,
            controller: hello.nonce,
        };
        Ok(Next::Nothing)
    }

    fn welcome(&mut self, id: u64, handles: Vec<Handle>) -> Result<Next, JoinError> {
        let mut handles = handles.into_iter();
        let Some(directory) = handles.next().and_then(open_directory) else {
            return Ok(Next::Seek);
        };
        if let Some(mark) = handles.next() {
            self.mark = Some(Arc::new(MembersMark(OwnHandle::new(mark))));
        }
        self.stage = Stage::Member;
        self.tries = 0;
        self.membership.change(|s| {
            s.phase = Phase::Joined;
            s.id = id;
            s.directory = Some(directory);
            s.channel = self.channel.clone();
        });
        if self.watches {
            self.send(&ToController::Watch(true), &[]);
        }
        self.owes_introductions = true;
        self.events.directory_changed();
        Ok(Next::Nothing)
    }

    fn message(&mut self, packet: &[u8], handles: Vec<Handle>) -> Next {
        match protocol::decode(packet) {
            Some(ToMember::Directory) => {
                let Some(directory) = handles.into_iter().next().and_then(open_directory) else {
                    return Next::Seek;
                };
                self.membership.change(|s| s.directory = Some(directory));
                self.events.directory_changed();
            }
            Some(ToMember::Look) => {
                self.membership.change(|_| {});
                self.events.directory_changed();
            }
            Some(ToMember::Introduced { from, link }) => {
                self.events.introduced(from, link, handles);
            }
            Some(ToMember::NoSuchMember { link }) => self.events.no_such_member(link),
            Some(ToMember::Done) => {
                self.membership.change(|s| s.done += 1);
                if self.leaving.is_some() {
                    return Next::End;
                }
            }
            Some(ToMember::Welcome { .. } | ToMember::Refused(_)) | None => {
                log::warn!("the controller does not keep to the protocol; looking for another");
                return Next::Seek;
            }
        }
        Next::Nothing
    }

    /// Whether the controller has admitted it.
    pub(crate) fn is_member(&self) -> bool {
        self.channel.is_some() && matches!(self.stage, Stage::Member)
    }

    /// Sends a packet to the controller. A failure shows as a hang-up, or the packet is one that may be lost.
    pub(crate) fn send(&self, message: &ToController, handles: &[BorrowedHandle<'_>]) {
        if let Some(channel) = &self.channel
            && let Err(e) = channel.send(&protocol::encode(message), handles)
        {
            log::debug!("a packet to the controller was not sent: {e}");
        }
    }

    /// The connection is lost.
    pub(crate) fn disconnected(&mut self) {
        self.channel = None;
        self.said_good_bye = false;
        self.membership.change(|s| {
            s.channel = None;
            if matches!(s.phase, Phase::Joined) {
                s.phase = Phase::Seeking;
            }
        });
        self.retry = Some(Instant::now());
    }
}

fn open_directory(handle: Handle) -> Option<Arc<Directory>> {
    Directory::memory_from_peer(handle)
        .and_then(Directory::open)
        .inspect_err(|e| log::warn!("the controller's directory was refused: {e}"))
        .ok()
}
