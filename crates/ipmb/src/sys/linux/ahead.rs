//! Packets of one handle each that wait in line in a channel, taken out together.

use super::{
    closing::{dispose, dispose_owned},
    fork::Fd,
    socket::{Channel, MAX_HANDLES, Packet, last_error, message, part, retry, take_handles},
};
use crate::sys::{AHEAD_MAX, AHEAD_SIZE};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::{collections::VecDeque, io};

/// Packets that were taken out of a channel before their turn, with their handles.
#[derive(Debug, Default)]
pub(crate) struct Ahead(VecDeque<([u8; AHEAD_SIZE], Fd)>);

impl Drop for Ahead {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            dispose_owned(self.0.drain(..).map(|(_, handle)| handle));
        }
    }
}

/// One of several messages.
fn several(msg_hdr: libc::msghdr) -> libc::mmsghdr {
    libc::mmsghdr {
        msg_hdr,
        msg_len: 0,
    }
}

impl Channel {
    /// Receives the next packet, with as many handles as there may be. If there are packets `behind` it that have one handle each,
    /// as it has, those are taken out together with it and kept `ahead`: that is four calls for all of them, not two for each.
    pub(crate) fn recv_next(
        &self,
        ahead: &mut Ahead,
        behind: usize,
        buffer: &mut [u8],
        handles: &mut Vec<OwnedFd>,
    ) -> io::Result<Packet> {
        if behind > 0 && ahead.0.is_empty() {
            self.take_out(ahead, 1 + behind.min(AHEAD_MAX))?;
        }
        match ahead.0.pop_front() {
            Some((bytes, handle)) => {
                handles.push(handle.into_owned()?);
                let len = bytes.len().min(buffer.len());
                buffer[..len].copy_from_slice(&bytes[..len]);
                Ok(Packet {
                    len,
                    truncated: len < bytes.len(),
                    surplus: false,
                })
            }
            None => self.recv_with(buffer, handles, MAX_HANDLES),
        }
    }

    /// Takes packets of [`AHEAD_SIZE`] bytes with one handle out, `most` of them at most. It ends at the first one that is
    /// otherwise, or whose handle finds no room: that one stays in the channel.
    fn take_out(&self, ahead: &mut Ahead, most: usize) -> io::Result<()> {
        // From here on a look begins behind the one before. That ends below: everybody else looks at the first packet.
        if self.look_from(0).is_err() {
            return Ok(());
        }
        let mut bytes = [[0; AHEAD_SIZE]; 1 + AHEAD_MAX];
        let mut space = [[0u64; rustix::cmsg_space!(ScmRights(1)).div_ceil(8)]; 1 + AHEAD_MAX];
        let mut parts = bytes.each_mut().map(|bytes| part(bytes));
        let mut looks = parts.each_mut().map(|part| several(message(part)));
        for (look, space) in looks.iter_mut().zip(&mut space) {
            look.msg_hdr.msg_control = space.as_mut_ptr().cast();
            look.msg_hdr.msg_controllen = size_of_val(space) as _;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_PEEK;
        // SAFETY: each message has a buffer and space that are valid for as long as it says.
        let seen = unsafe { self.recv_messages(&mut looks[..most], flags) };
        let mut handles = Vec::with_capacity(seen);
        let mut count = 0;
        for (i, look) in looks[..seen].iter().enumerate() {
            // SAFETY: the kernel has filled it in, and nobody else takes its handles.
            let short = unsafe { take_handles(&look.msg_hdr, &mut handles) };
            let cut = short || look.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            // A shorter one can be a longer one in which somebody else's look has ended, who has this end as well.
            let whole = look.msg_len as usize == AHEAD_SIZE && !cut;
            if count == i && handles.len() == i + 1 && whole {
                count += 1;
            }
        }
        crate::crash::point();
        let others = handles.split_off(count);
        if !others.is_empty() {
            dispose(others);
        }
        let handles = handles.into_iter().map(Fd::new);
        ahead.0.extend(bytes.into_iter().zip(handles));
        self.look_from(-1)?;
        // Off the queue with those whose copies are here.
        let mut nothing = [0];
        let mut nothing = part(&mut nothing);
        let mut takes = [(); 1 + AHEAD_MAX].map(|()| several(message(&mut nothing)));
        // SAFETY: all of them have one valid buffer, and no space.
        let taken = unsafe { self.recv_messages(&mut takes[..count], libc::MSG_DONTWAIT) };
        crate::crash::point();
        (taken..count).try_for_each(|_| self.skip().map(drop))
    }

    /// Receives as many packets as there are messages, or fewer; returns how many. Why there were no more the next call says. The
    /// caller passes the point.
    ///
    /// # Safety
    ///
    /// What the messages point to is valid for as long as they say.
    unsafe fn recv_messages(&self, messages: &mut [libc::mmsghdr], flags: libc::c_int) -> usize {
        let (fd, count) = (self.as_fd().as_raw_fd(), messages.len() as libc::c_uint);
        let timeout = std::ptr::null_mut();
        // SAFETY: as said above; there is no timeout.
        let done = unsafe {
            call!(later libc::recvmmsg(fd, messages.as_mut_ptr(), count, flags as _, timeout))
        };
        usize::try_from(done).unwrap_or(0)
    }

    /// Where looks begin from now on, in bytes from the first packet; each begins where the one before ended. -1: at the first
    /// packet, always.
    fn look_from(&self, at: libc::c_int) -> rustix::io::Result<()> {
        retry(|| {
            // SAFETY: the kernel reads a number of that size.
            let set = unsafe {
                call!(libc::setsockopt(
                    self.as_fd().as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_PEEK_OFF,
                    (&raw const at).cast(),
                    size_of_val(&at) as libc::socklen_t,
                ))
            };
            match set {
                0 => Ok(()),
                _ => Err(last_error()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::unix::fs::MetadataExt};

    /// Files of different identity.
    fn files<const N: usize>() -> [File; N] {
        std::array::from_fn(|_| {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            File::from(rustix::fs::memfd_create(c"packet", flags).unwrap())
        })
    }

    fn identity(file: &File) -> u64 {
        file.metadata().unwrap().ino()
    }

    /// Sends each number with so many of the files, from the one of that number on.
    fn send(to: &Channel, files: &[File], packets: &[(u8, usize)]) {
        for (number, count) in packets {
            let first = usize::from(*number);
            let handles: Vec<_> = files[first..][..*count].iter().map(AsFd::as_fd).collect();
            to.send(&[*number; AHEAD_SIZE], &handles).unwrap();
        }
    }

    /// Receives them, with so many `behind` each time; returns their numbers, how many handles they had, and how many were
    /// ahead then.
    fn receive(from: &Channel, files: &[File], behind: usize) -> Vec<(u8, usize, usize)> {
        let mut ahead = Ahead::default();
        let mut seen = Vec::new();
        loop {
            let (mut bytes, mut handles) = ([0; AHEAD_SIZE + 1], Vec::new());
            match from.recv_next(&mut ahead, behind, &mut bytes, &mut handles) {
                Ok(packet) => assert_eq!((packet.len, packet.truncated), (AHEAD_SIZE, false)),
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    return seen;
                }
            }
            let count = handles.len();
            for (i, handle) in handles.into_iter().enumerate() {
                let file = &files[usize::from(bytes[0]) + i];
                assert_eq!(identity(&File::from(handle)), identity(file));
            }
            seen.push((bytes[0], count, ahead.0.len()));
        }
    }

    /// Whether a look can begin behind the first packet. An emulator may not know how.
    fn looks_behind(channel: &Channel) -> bool {
        let does = channel.look_from(-1).is_ok();
        assert!(does || std::env::var_os("IPMB_TEST_RUNNER").is_some());
        does
    }

    #[test]
    fn a_packet_is_taken_out_with_others_that_are_otherwise() {
        let (ours, theirs) = Channel::pair(0).unwrap();
        let files = files::<12>();
        let packets = [
            (0, 1),
            (1, 1),
            (2, 2),
            (4, 1),
            (5, 0),
            (6, 1),
            (7, 1),
            (8, 1),
        ];
        send(&ours, &files, &packets);
        let seen = receive(&theirs, &files, 7);
        let ahead = match looks_behind(&theirs) {
            true => [1, 0, 0, 0, 0, 2, 1, 0],
            false => [0; 8],
        };
        let expected = packets.iter().zip(ahead);
        assert_eq!(
            seen,
            expected.map(|((n, c), a)| (*n, *c, a)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn more_are_taken_out_than_are_said_to_be_behind_or_may_be_ahead() {
        let (ours, theirs) = Channel::pair(0).unwrap();
        let files = files::<12>();
        let packets: [_; 12] = std::array::from_fn(|n| (n as u8, 1));
        for (behind, most) in [(0, 0), (2, 2), (100, AHEAD_MAX)] {
            send(&ours, &files, &packets);
            let seen = receive(&theirs, &files, behind);
            assert_eq!(seen.len(), packets.len());
            let most = if looks_behind(&theirs) { most } else { 0 };
            assert_eq!(seen.iter().map(|packet| packet.2).max(), Some(most));
        }
    }

    /// Whoever shares the description of the far end moves the place where looks begin.
    #[cfg(not(loom))] // `crash` has no points under the models
    #[test]
    fn a_look_by_somebody_else_costs_a_packet_or_brings_one_twice() {
        let packets = [(0, 1), (1, 1), (2, 1), (3, 1)];
        let files = files::<4>();
        for point in 1.. {
            let (ours, theirs) = Channel::pair(0).unwrap();
            send(&ours, &files, &packets);
            let other = theirs.as_fd().try_clone_to_owned().unwrap();
            let look = move || {
                use rustix::net::{RecvFlags, recv};
                let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
                let _ = recv(&other, &mut [0u8; 1][..], flags);
            };
            let (seen, looked) =
                crate::crash::meanwhile(point, look, || receive(&theirs, &files, 3));
            let numbers: Vec<_> = seen.iter().map(|(n, count, _)| (*n, *count)).collect();
            assert_eq!(numbers, packets, "a look at point {point}");
            if !looked {
                assert!(point > 8, "it has points");
                return;
            }
        }
    }

    #[test]
    fn the_end_of_a_channel_hides_what_was_sent_before() {
        let (ours, theirs) = Channel::pair(0).unwrap();
        let files = files::<3>();
        send(&ours, &files, &[(0, 1), (1, 1), (2, 1)]);
        drop(ours);
        let (mut ahead, mut handles) = (Ahead::default(), Vec::new());
        for number in 0..3 {
            let mut bytes = [0; AHEAD_SIZE];
            theirs
                .recv_next(&mut ahead, 7, &mut bytes, &mut handles)
                .unwrap();
            assert_eq!(bytes, [number; AHEAD_SIZE]);
        }
        assert_eq!(handles.len(), 3);
        let end = theirs.recv_next(&mut ahead, 7, &mut [0; AHEAD_SIZE], &mut handles);
        assert_eq!(end.unwrap().len, 0);
    }
}
