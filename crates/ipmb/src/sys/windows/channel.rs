//! The ordered channel with handles: a named pipe in message mode.
//!
//! A packet is a head, the numbers of its handles, and its bytes. What has arrived is read ahead into a queue, within
//! bounds: only who reads all that there is sees that the other end is gone.

use super::{
    event::Signal,
    handle,
    pipe::{self, Instances, Pipe, Read},
    security,
    transfer::{self, Numbers, Outbound, Partner, Peer, not_connected},
};
use crate::sys::{BorrowedHandle, Handle};
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use windows_sys::Win32::System::Pipes::{GetNamedPipeClientProcessId, GetNamedPipeServerProcessId};

/// Handles that one packet can carry.
pub(crate) const MAX_HANDLES: usize = 253;

/// Kind of the numbers, their count, length of the bytes.
const HEAD: usize = 8;
/// Bytes that are read ahead.
const AHEAD: usize = 64 << 10;

/// A packet that was received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Bytes of the packet that are in the buffer.
    pub len: usize,
    /// The packet was longer than the buffer.
    pub truncated: bool,
    /// It had more handles than were asked for; none of them came, and the packet stays in the channel.
    pub surplus: bool,
}

/// One end of an ordered channel that keeps packet borders and carries handles.
#[derive(Debug)]
pub(crate) struct Channel {
    core: Arc<Core>,
}

/// What an end is made of, shared with the wait sets that watch it.
#[derive(Debug)]
pub(super) struct Core {
    state: Mutex<State>,
    /// Set when a read that was under way is done.
    arrived: Arc<Signal>,
    /// Set while something lies in the queue that another than its taker has put there, or the channel has ended.
    ahead: Signal,
}

#[derive(Debug)]
struct State {
    /// None once it was closed here.
    pipe: Option<Pipe>,
    partner: Option<Partner>,
    queue: VecDeque<Arrived>,
    queued: usize,
    /// Nothing more comes.
    ended: bool,
    /// `ahead` is set.
    told: bool,
    /// What comes is for this process: an end that is only handed over is not read.
    reads: bool,
    /// The far end of a pair that was made here. Its other end is this process's, too, for as long as it stays here.
    far: bool,
}

impl State {
    /// The process at the other end. The far end of a pair asks for it only when it is read here after all.
    fn partner(&mut self) -> Option<&Partner> {
        if let (None, true, Some(pipe)) = (&self.partner, self.far, &self.pipe) {
            let end = pipe.as_handle();
            let maker = server_of(end).and_then(|pid| Partner::behind(pid, end));
            self.partner = maker.ok();
        }
        self.partner.as_ref()
    }
}

/// A packet as it came.
#[derive(Debug)]
struct Arrived {
    bytes: Vec<u8>,
    /// There was more of it, and it is no packet of the library.
    too_long: bool,
}

/// A packet taken apart.
struct Parts {
    kind: Numbers,
    numbers: Vec<u64>,
    /// Where the bytes begin.
    at: usize,
}

impl Arrived {
    fn parts(&self) -> Option<Parts> {
        let bytes = &self.bytes;
        let kind = match bytes.first()? {
            0 => Numbers::Pushed,
            1 => Numbers::ToPull,
            _ => return None,
        };
        let count = u16::from_le_bytes(bytes.get(2..4)?.try_into().ok()?);
        let len = u32::from_le_bytes(bytes.get(4..HEAD)?.try_into().ok()?);
        let at = HEAD.checked_add(usize::from(count).checked_mul(8)?)?;
        let numbers = bytes.get(HEAD..at)?.chunks_exact(8);
        let numbers = numbers.filter_map(|n| n.try_into().ok().map(u64::from_le_bytes));
        let whole = bytes.len() - at == usize::try_from(len).ok()? && len > 0;
        (whole || self.too_long).then(|| Parts {
            kind,
            numbers: numbers.collect(),
            at,
        })
    }
}

/// What can be said of a channel without taking anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    pub(super) readable: bool,
    pub(super) ended: bool,
    /// So many packets have come since the last look.
    pub(super) fresh: usize,
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has arrived into the queue. Returns how many packets that were.
    fn read_ahead(&self, state: &mut State) -> usize {
        let mut fresh = 0;
        let mut under_way = false;
        state.reads = true;
        while !state.ended && state.queued < AHEAD {
            let read = match &mut state.pipe {
                Some(pipe) => pipe.read(),
                None => return fresh,
            };
            match read {
                Ok(Read::Packet(bytes)) => {
                    state.queued += bytes.len();
                    state.queue.push_back(Arrived {
                        bytes,
                        too_long: false,
                    });
                    fresh += 1;
                }
                Ok(Read::Nothing) => {
                    under_way = true;
                    break;
                }
                Ok(Read::TooLong) => {
                    state.queue.push_back(Arrived {
                        bytes: Vec::new(),
                        too_long: true,
                    });
                    state.ended = true;
                    fresh += 1;
                }
                Err(e) => {
                    if !super::is_hangup(&e) {
                        log::warn!("a channel cannot be read: {e}");
                    }
                    state.ended = true;
                }
            }
        }
        if !under_way {
            // Nothing that is under way would set it, and what it was set for was seen.
            self.arrived.reset();
        }
        fresh
    }

    /// Looks at what has arrived, for somebody who does not take it.
    pub(super) fn look(&self) -> Outlook {
        let mut state = self.state();
        let fresh = self.read_ahead(&mut state);
        let outlook = Outlook {
            readable: !state.queue.is_empty(),
            ended: state.ended || state.pipe.is_none(),
            fresh,
        };
        if (outlook.readable || outlook.ended) && !state.told {
            state.told = true;
            self.ahead.set();
        }
        outlook
    }

    /// Takes the first packet off.
    fn pop(&self, state: &mut State) {
        if let Some(packet) = state.queue.pop_front() {
            state.queued -= packet.bytes.len();
        }
        if state.told && state.queue.is_empty() && !state.ended && state.pipe.is_some() {
            state.told = false;
            self.ahead.reset();
        }
    }

    /// The event that is set when more has arrived.
    pub(super) fn arrived(&self) -> &Arc<Signal> {
        &self.arrived
    }

    pub(super) fn ahead(&self) -> &Signal {
        &self.ahead
    }

    /// Reads ahead until there is a packet. `WouldBlock`: there is none; a packet of length 0 is the end.
    fn fill(&self, state: &mut State) -> io::Result<bool> {
        if state.queue.is_empty() {
            self.read_ahead(state);
        }
        match state.queue.is_empty() {
            false => Ok(true),
            true if state.ended || state.pipe.is_none() => Ok(false),
            true => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        discard_all(state);
    }
}

/// Closes the handles of what nobody will take, as far as it has come.
fn discard_all(state: &mut State) {
    if let Some(pipe) = state.pipe.as_mut().filter(|_| state.reads) {
        while let (false, Ok(Read::Packet(bytes))) = (state.ended, pipe.read()) {
            let too_long = false;
            state.queue.push_back(Arrived { bytes, too_long });
        }
    }
    for packet in std::mem::take(&mut state.queue) {
        if let Some(parts) = packet.parts() {
            transfer::discard(state.partner(), parts.kind, &parts.numbers);
        }
    }
    state.queued = 0;
}

impl Channel {
    fn new(end: OwnedHandle, partner: Option<Partner>) -> io::Result<Self> {
        let arrived = Arc::new(Signal::new()?);
        Ok(Self {
            core: Arc::new(Core {
                state: Mutex::new(State {
                    pipe: Some(Pipe::new(end, arrived.clone())?),
                    partner,
                    queue: VecDeque::new(),
                    queued: 0,
                    ended: false,
                    told: false,
                    reads: false,
                    far: false,
                }),
                arrived,
                ahead: Signal::new()?,
            }),
        })
    }

    /// The end of whoever connected.
    pub(super) fn of_client(end: OwnedHandle) -> io::Result<Self> {
        let partner = Partner::at(server_of(end.as_handle())?, end.as_handle())?;
        Self::new(end, Some(partner))
    }

    /// The end of whoever listened.
    pub(super) fn of_server(end: OwnedHandle) -> io::Result<Self> {
        let mut pid = 0;
        // SAFETY: an open handle, and a place for the result.
        handle::check(unsafe { GetNamedPipeClientProcessId(end.as_raw_handle(), &raw mut pid) })?;
        let partner = Partner::at(pid, end.as_handle())?;
        Self::new(end, Some(partner))
    }

    /// Two connected ends; the second one is for the process `reader` (0: not known).
    pub(crate) fn pair(reader: u32) -> io::Result<(Self, Self)> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let mut name = format!(r"\\.\pipe\ipmb.link.{}.", super::pid());
        for byte in random {
            let _ = write!(name, "{byte:02x}");
        }
        let name = security::wide(&name);
        let only = Instances {
            most: 1,
            first: true,
        };
        let ours = pipe::listen(&name, &only, security::owner_only()?)?;
        let theirs = pipe::connect(&name)?;
        // A reader that cannot be opened, because it is gone or out of reach, fetches what it is sent.
        let partner = (reader != 0).then(|| Partner::of(reader).ok()).flatten();
        let far = Self::new(theirs, None)?;
        {
            let mut state = far.core.state();
            (state.far, state.reads) = (true, true);
        }
        Ok((Self::new(ours, partner)?, far))
    }

    /// Takes an end that came from another process, if it is one.
    pub(crate) fn from_peer(end: Handle) -> io::Result<Self> {
        pipe::check_end(end.as_handle())?;
        let partner = Partner::behind(server_of(end.as_handle())?, end.as_handle())?;
        let channel = Self::new(end, Some(partner))?;
        // It is this process's to read from now on, so that what nobody takes is closed in the end.
        channel.core.state().reads = true;
        Ok(channel)
    }

    /// The process that connected, or that listens.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let state = self.core.state();
        let partner = state.partner.as_ref();
        partner.map(Partner::peer).ok_or_else(not_connected)
    }

    /// The other groups of that process: none has an id.
    pub(crate) fn peer_groups(&self) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// Sends a packet, at once or not at all.
    pub(crate) fn send(&self, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        if handles.len() > MAX_HANDLES || bytes.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let state = self.core.state();
        let pipe = state.pipe.as_ref().ok_or_else(not_connected)?;
        if state.ended {
            return Err(not_connected());
        }
        let outbound = Outbound::new(state.partner.as_ref(), handles)?;
        let mut packet = Vec::with_capacity(HEAD + handles.len() * 8 + bytes.len());
        packet.push(match outbound.kind {
            Numbers::Pushed => 0,
            Numbers::ToPull => 1,
        });
        packet.push(0);
        packet.extend((handles.len() as u16).to_le_bytes());
        packet.extend((bytes.len() as u32).to_le_bytes());
        packet.extend(outbound.numbers.iter().flat_map(|n| n.to_le_bytes()));
        packet.extend(bytes);
        pipe.write(&packet)?;
        outbound.gone();
        crate::crash::point();
        Ok(())
    }

    /// Receives a packet without waiting. A packet of length zero is the end of the channel (nobody sends empty
    /// packets). When handles find no room the packet stays in the channel and the error says so.
    #[cfg(test)]
    pub(crate) fn recv(&self, buffer: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, where a packet with more than `most` handles is a lie: such a packet stays in the channel, which is to be
    /// dropped, and what came with it is closed then.
    pub(crate) fn recv_with(
        &self,
        buffer: &mut [u8],
        handles: &mut Vec<Handle>,
        most: usize,
    ) -> io::Result<Packet> {
        let mut guard = self.core.state();
        let state = &mut *guard;
        if !self.core.fill(state)? {
            return Ok(Packet {
                len: 0,
                truncated: false,
                surplus: false,
            });
        }
        let first = state.queue.front();
        let Some(parts) = first.and_then(Arrived::parts) else {
            let too_long = first.is_some_and(|packet| packet.too_long);
            self.core.pop(state);
            return match too_long {
                true => Ok(Packet {
                    len: buffer.len().min(1),
                    truncated: true,
                    surplus: false,
                }),
                false => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a packet that is none",
                )),
            };
        };
        let bytes = first.and_then(|packet| packet.bytes.get(parts.at..));
        let bytes = bytes.unwrap_or_default();
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        let packet = Packet {
            len,
            truncated: bytes.len() > len,
            surplus: parts.numbers.len() > most,
        };
        if packet.surplus {
            return Ok(packet);
        }
        let taken = match parts.numbers.is_empty() {
            true => Ok(()),
            false => transfer::take(state.partner(), parts.kind, &parts.numbers, handles),
        };
        match taken {
            Err(e) if super::exhausted(&e).is_some() => return Err(e),
            Err(e) => {
                self.core.pop(state);
                return Err(e);
            }
            Ok(()) => {}
        }
        self.core.pop(state);
        crate::crash::point();
        Ok(packet)
    }

    /// Looks at the first bytes of the next packet and leaves it in the channel.
    #[cfg(test)]
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.core.state();
        if !self.core.fill(&mut state)? {
            return Ok(0);
        }
        let first = state.queue.front();
        let parts = first.and_then(Arrived::parts);
        let bytes = first
            .zip(parts)
            .and_then(|(p, parts)| p.bytes.get(parts.at..));
        // A packet that is none has no first bytes that anybody knows.
        let bytes = bytes.unwrap_or(&[0]);
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Takes the next packet and throws it away, with its handles.
    pub(crate) fn skip(&self) -> io::Result<usize> {
        let mut state = self.core.state();
        if !self.core.fill(&mut state)? {
            return Ok(0);
        }
        if let Some(parts) = state.queue.front().and_then(Arrived::parts) {
            transfer::discard(state.partner(), parts.kind, &parts.numbers);
        }
        self.core.pop(&mut state);
        Ok(1)
    }

    /// Whether to take the next packet would be to close handles, and maybe to wait for that: closes are not
    /// known to wait here.
    pub(crate) fn peek_has_handles(&self) -> bool {
        false
    }

    /// Gives the end's handle up.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        let pipe = self.core.state().pipe.take();
        let pipe = pipe.ok_or_else(not_connected)?;
        // A read that is under way belongs to this process, and is cancelled.
        handle::duplicate(pipe.as_handle())
    }

    /// Ends the channel in both directions; what lies in it can still be read by the other end.
    pub(crate) fn close(&self) {
        let mut state = self.core.state();
        discard_all(&mut state);
        state.pipe = None;
        state.told = true;
        self.core.ahead.set();
        self.core.arrived.set();
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl AsHandle for Channel {
    /// An end that is to be handed over: one that was not closed and is not closed while the handle is borrowed.
    fn as_handle(&self) -> BorrowedHandle<'_> {
        let mut state = self.core.state();
        // From now on another process may read it, and what lies in it is not this one's to close.
        state.reads &= !state.far;
        match &state.pipe {
            // SAFETY: the pipe stays with the core until `close` or `into_handle`, of which the latter takes `self`, and the
            // former is not called on the end of an offer.
            Some(pipe) => unsafe { BorrowedHandle::borrow_raw(pipe.as_handle().as_raw_handle()) },
            None => self.core.ahead.as_handle(),
        }
    }
}

/// The process that made a pipe, by the system's word.
fn server_of(end: BorrowedHandle<'_>) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: an open handle, and a place for the result.
    handle::check(unsafe { GetNamedPipeServerProcessId(end.as_raw_handle(), &raw mut pid) })?;
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::windows::{handle::access_and_count, memory::section, wake::wait_for};
    use std::time::Duration;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn ends(reader: u32) -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair(reader).unwrap();
        (
            ours,
            Channel::from_peer(theirs.into_handle().unwrap()).unwrap(),
        )
    }

    fn count(handle: &OwnedHandle) -> u32 {
        access_and_count(handle.as_handle()).unwrap().1
    }

    #[test]
    fn a_packet_is_cut_or_lost_when_the_channel_is_full_or_its_sender_gone() {
        let (sender, receiver) = ends(0);
        let mut buffer = vec![0; 40_000];
        let packet =
            |n: u32| [n.to_le_bytes().to_vec(), vec![n as u8; n as usize % 30_000]].concat();
        assert_eq!(
            receiver.skip().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let mut sent = 0;
        loop {
            match sender.send(&packet(sent * 997), &[]) {
                Ok(()) => sent += 1,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!(sent > 3);
        drop(sender);
        for n in 0..sent {
            let (readable, _) = wait_for(&receiver, NOW).unwrap();
            assert!(readable, "at {n} of {sent}");
            let got = receiver.recv(&mut buffer, &mut Vec::new()).unwrap();
            assert_eq!(buffer[..got.len], packet(n * 997), "at {n} of {sent}");
        }
        assert_eq!(wait_for(&receiver, NOW).unwrap(), (false, true));
        let end = receiver.recv(&mut buffer, &mut Vec::new()).unwrap();
        assert_eq!(end.len, 0);
        assert!(
            receiver
                .send(b"too late", &[])
                .is_err_and(|e| super::super::is_hangup(&e))
        );
    }

    #[test]
    fn handles_are_lost_or_leak_whether_they_are_pushed_or_fetched() {
        for reader in [0, super::super::pid()] {
            let object = section(1).unwrap();
            let (sender, receiver) = ends(reader);
            let three = [object.as_handle(); 3];
            for _ in 0..4 {
                sender.send(b"three", &three).unwrap();
            }
            assert_eq!(count(&object), 13);
            let mut handles = Vec::new();
            let got = receiver.recv(&mut [0; 9], &mut handles).unwrap();
            assert_eq!((got.len, handles.len(), got.surplus), (5, 3, false));
            assert!(handles.iter().all(|handle| count(handle) == 13));
            handles.clear();
            assert_eq!(count(&object), 10);
            assert_eq!(receiver.skip().unwrap(), 1);
            assert_eq!(count(&object), 7);
            // What nobody took is closed with the channel.
            drop(receiver);
            assert_eq!(count(&object), 1, "to {reader}");
        }
    }

    #[test]
    fn a_packet_with_too_many_handles_is_taken_or_leaks() {
        for reader in [0, super::super::pid()] {
            let object = section(1).unwrap();
            let (sender, receiver) = ends(reader);
            sender.send(b"three", &[object.as_handle(); 3]).unwrap();
            for _ in 0..2 {
                let mut handles = Vec::new();
                let mut buffer = [0; 9];
                let got = receiver.recv_with(&mut buffer, &mut handles, 2).unwrap();
                assert!(got.surplus && handles.is_empty());
                assert_eq!((got.len, &buffer[..5]), (5, &b"three"[..]));
                assert_eq!(count(&object), 4, "it stays in the channel");
            }
            drop(receiver);
            assert_eq!(count(&object), 1);
        }
    }

    #[test]
    fn an_end_that_stays_here_cannot_be_read_or_one_that_went_is_emptied() {
        let object = section(1).unwrap();
        for reader in [0, super::super::pid()] {
            let (sender, far) = Channel::pair(reader).unwrap();
            for _ in 0..3 {
                sender.send(b"x", &[object.as_handle()]).unwrap();
            }
            let mut handles = Vec::new();
            assert_eq!(far.recv(&mut [0; 9], &mut handles).unwrap().len, 1);
            assert_eq!(handles.len(), 1);
            handles.clear();
            drop(far);
            assert_eq!(count(&object), 1);

            let (sender, far) = Channel::pair(reader).unwrap();
            sender.send(b"x", &[object.as_handle()]).unwrap();
            let receiver = Channel::from_peer(far.as_handle().try_clone_to_owned().unwrap());
            drop(far);
            let got = receiver.unwrap().recv(&mut [0; 9], &mut handles);
            assert_eq!((got.unwrap().len, handles.len()), (1, 1), "to {reader}");
        }
    }

    #[test]
    fn a_packet_that_does_not_go_leaves_handles_behind() {
        for reader in [0, super::super::pid()] {
            let object = section(1).unwrap();
            let (sender, receiver) = ends(reader);
            let mut sent = 0;
            while sender.send(&[1; 9_000], &[object.as_handle()]).is_ok() {
                sent += 1;
            }
            assert_eq!(count(&object), 1 + sent);
            drop((sender, receiver));
            assert_eq!(count(&object), 1);
        }
    }

    #[test]
    fn a_file_or_a_pipe_that_waits_is_taken_for_a_channel() {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Channel::from_peer(file.into()).is_err());
        let (waits, _) = std::io::pipe().unwrap();
        assert!(Channel::from_peer(waits.into()).is_err());
        let event = super::super::event::event(true).unwrap();
        assert!(Channel::from_peer(event).is_err());
    }

    #[test]
    fn bytes_that_are_no_packet_are_believed() {
        let (sender, receiver) = ends(0);
        let raw = |bytes: &[u8]| {
            let state = sender.core.state();
            state.pipe.as_ref().unwrap().write(bytes).unwrap();
        };
        let mut handles = Vec::new();
        for lie in [
            &[0][..],
            &[9, 0, 0, 0, 1, 0, 0, 0, 1],
            &[0, 0, 255, 255, 1, 0, 0, 0, 1],
            &[0, 0, 0, 0, 255, 255, 255, 255, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            raw(lie);
            assert!(receiver.recv(&mut [0; 9], &mut handles).is_err(), "{lie:?}");
        }
        raw(&[0, 0, 0, 0, 1, 0, 0, 0, 7]);
        let mut buffer = [0; 9];
        assert_eq!(receiver.recv(&mut buffer, &mut handles).unwrap().len, 1);
        assert!(buffer[0] == 7 && handles.is_empty());
        raw(&[1; 100_000]);
        assert!(receiver.recv(&mut buffer, &mut handles).unwrap().truncated);
        assert_eq!(receiver.recv(&mut buffer, &mut handles).unwrap().len, 0);
    }

    #[test]
    fn a_read_that_a_dead_thread_began_is_forgotten() {
        let (sender, receiver) = ends(0);
        std::thread::scope(|s| {
            s.spawn(|| assert!(receiver.skip().is_err()));
        });
        sender.send(b"hello", &[]).unwrap();
        let patience = Some(Duration::from_secs(10));
        while !wait_for(&receiver, patience).unwrap().0 {}
        assert_eq!(receiver.recv(&mut [0; 9], &mut Vec::new()).unwrap().len, 5);
    }
}
