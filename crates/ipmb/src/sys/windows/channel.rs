//! The ordered channel with handles: a named pipe in message mode.
//!
//! A packet is a head, the numbers of its handles, and its bytes.

use super::{
    arrivals::{self, Arrived, Core, HEAD, server_of},
    handle,
    pipe::{self, Instances},
    security,
    transfer::{self, Numbers, Outbound, Partner, Peer, not_connected},
};
use crate::sys::{BorrowedHandle, Handle};
use std::{
    fmt::Write as _,
    io,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::Arc,
};
use windows_sys::Win32::System::Pipes::GetNamedPipeClientProcessId;

/// Handles that one packet can carry.
pub(crate) const MAX_HANDLES: usize = 253;

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

/// Nothing: packets are taken out one by one.
#[derive(Debug, Default)]
pub(crate) struct Ahead(());

/// One end of an ordered channel that keeps packet borders and carries handles.
#[derive(Debug)]
pub(crate) struct Channel {
    core: Arc<Core>,
}

impl Channel {
    fn new(end: OwnedHandle, partner: Option<Partner>) -> io::Result<Self> {
        let core = Arc::new(Core::new(end, partner)?);
        Ok(Self { core })
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

    pub(crate) fn recv_next(
        &self,
        _ahead: &mut Ahead,
        _behind: usize,
        buffer: &mut [u8],
        handles: &mut Vec<Handle>,
    ) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, but `None` where that would be to wait for closes: they are not known to wait here.
    pub(crate) fn skip_plain(&self) -> io::Result<Option<usize>> {
        self.skip().map(Some)
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
        arrivals::discard_all(&mut state);
        state.pipe = None;
        state.told = true;
        self.core.ahead().set();
        self.core.arrived().set();
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
            None => self.core.ahead().as_handle(),
        }
    }
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
