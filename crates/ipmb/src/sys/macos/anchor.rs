//! What keeps the kernel from taking sockets under way for garbage.
//!
//! It looks for sockets that can only be reached through packets which nobody can read any more, and empties and ends them
//! (`unp_gc`, after any socket of the local domain was closed). It begins with those under way that somebody has a descriptor of, marks what
//! lies in their queues, and goes on to the queues of what it has marked. The end at which a packet arrives is not under way itself, so
//! what lies in its queue is not marked from there: a socket that its sender has closed is taken for garbage, and what lies in that one is lost.
//!
//! So an end by which handles arrive is put under way, into the queue of a socket that nobody reads, its *anchor*. From then on
//! the kernel finds what lies in it, and in the links that lie in it, and no process has to live for that.
//! A packet that is just being taken out lies nowhere; but its queue is locked, and the kernel, which finds it locked, begins anew.
//!
//! A link's end has no anchor before its receiver has accepted it. Until then it may be in the hands of a controller, and not under way
//! either. So the bell that goes with it carries it in its queue, too ([`carry`](super::Ringer::carry)).
//!
//! * The kernel of macOS 11 looks into these queues without a lock, while others take packets out. There, nothing is anchored, and
//!   senders keep their sockets until they have arrived (`handle.rs`).
//! * Later ones lock the queue, and who reads it at that moment is told that there is nothing (`sblock`): see [`socket::receive`].
//! * An anchor is a descriptor. If its number would be beyond three quarters of the table there is none, and it is as on macOS 11.
//! * A process that ends closes its descriptors from the highest number down (`fdt_invalidate`). An anchor's is higher than its
//!   socket's, so that the other side hears of the end when the socket is closed, and no later.
//! * The kernel waits for the lock of an anchored end while it has one that others wait for. So an end that gets handles from
//!   another anchored one must not end its reading before it is closed, by which the two are parted: see `Channel::close`.
//!
//! A file port would keep a socket, too: it has a reference of its own, which is none of a packet (`fileport_makeport`). But it would have to
//! get to who reads, through a mailbox that is found by a name, which others in the session can take (`mailbox.rs`), and not between
//! users or out of every sandbox. What goes through sockets goes to whom the kernel says.

use super::{
    adopt,
    fork::Fd,
    socket::{self, two},
};
use rustix::{
    fd::{AsFd, AsRawFd},
    io::Errno,
    process::{Resource, getrlimit},
};
use std::{ffi::CStr, io, sync::OnceLock};

/// The first system whose kernel locks the queues that it looks into: macOS 12.
const LOCKS: u32 = 21;

/// What has the kernel look into the socket's queue, for as long as it is open.
pub(super) fn anchor(socket: &Fd) -> Option<Fd> {
    if !is_of_use() {
        return None;
    }
    match anchored(socket) {
        Ok(anchor) => Some(anchor),
        Err(e) => {
            log::debug!("sockets that arrive here are lost with their senders: {e}");
            None
        }
    }
}

pub(super) fn is_of_use() -> bool {
    static DARWIN: OnceLock<u32> = OnceLock::new();
    *DARWIN.get_or_init(darwin) >= LOCKS
}

fn anchored(socket: &Fd) -> io::Result<Fd> {
    let (from, to) = two()?;
    // Who forks or starts a program from here on gets no end. Who did so since `two` has them, and keeps the anchor, and
    // so the socket, open for as long as that.
    let (from, to) = (Fd::new(adopt(from)?), Fd::new(adopt(to)?));
    let above = socket.as_raw_fd().saturating_add(1);
    let anchor = Fd::new(rustix::io::fcntl_dupfd_cloexec(&to, above)?);
    // The last descriptors are not for this.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if anchor.as_raw_fd() as u64 >= limit - limit / 4 {
        return Err(Errno::MFILE.into());
    }
    socket::put(from.as_fd(), socket.as_fd())?;
    Ok(anchor)
}

/// The version of the kernel, as the system calls it: 20 is macOS 11. 0 if it does not say.
fn darwin() -> u32 {
    // SAFETY: all zeros is a valid value: empty strings.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the strings.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return 0;
    }
    // SAFETY: the system ends its strings within their places, which stay as long as `name`.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    let major = release.to_bytes().split(|byte| *byte == b'.').next();
    let major = major.and_then(|major| std::str::from_utf8(major).ok());
    major.and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{AsHandle, Bell, Channel, Handle, Memory, Protection, bell};
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    /// Returns when the kernel has looked for garbage since the call, at all there is. When it takes the second socket for garbage
    /// it is through with what it took at the first look.
    fn look_for_garbage() {
        wait_for_garbage();
        wait_for_garbage();
    }

    /// Returns when the kernel takes a socket for garbage: one in a packet that it does not find is at its end then. The close of
    /// any socket has it look. The newest are the first that it ends.
    fn wait_for_garbage() {
        let start = Instant::now();
        loop {
            let (from, to) = two().unwrap();
            let (under_way, mut other) = UnixStream::pair().unwrap();
            socket::put(from.as_fd(), under_way.as_fd()).unwrap();
            drop(under_way);
            drop(two().unwrap());
            std::thread::yield_now();
            let mut handles = crate::sys::Received::default();
            let mut byte = [0];
            let parts = &mut [socket::part_mut(&mut byte)];
            socket::take_parts(to.as_fd(), parts, &mut handles, socket::LOCKED).unwrap();
            let mut arrived = stream(handles.next().unwrap());
            let _ = other.write(&[1]);
            if arrived.read(&mut [0]).unwrap() == 0 {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it never looks");
        }
    }

    fn stream(handle: Handle) -> UnixStream {
        rustix::fd::OwnedFd::try_from(handle).unwrap().into()
    }

    fn all_of(channel: &Channel, most: usize) -> Vec<Handle> {
        let mut handles = Vec::new();
        channel.recv_with(&mut [0; 8], &mut handles, most).unwrap();
        handles
    }

    fn is_alive(here: &mut UnixStream, there: &mut UnixStream) {
        there.write_all(b"x").unwrap();
        let mut read = [0];
        here.read_exact(&mut read).unwrap();
        assert_eq!(read, *b"x");
    }

    #[test]
    fn the_version_of_the_kernel_is_misread() {
        assert!((20..100).contains(&darwin()));
    }

    #[test]
    fn a_socket_under_way_ends_when_its_sender_does() {
        if !is_of_use() {
            return println!("SKIPPED a_socket_under_way_ends_when_its_sender_does: macOS 11");
        }
        let (sender, end) = Channel::pair(0).unwrap();
        let end = Channel::from_peer(end.into_handle().unwrap()).unwrap();
        let (under_way, mut other) = UnixStream::pair().unwrap();
        sender.send(b"socket", &[under_way.as_handle()]).unwrap();
        drop((under_way, sender));
        look_for_garbage();
        let mut arrived = stream(all_of(&end, 1).remove(0));
        is_alive(&mut arrived, &mut other);
    }

    #[test]
    fn a_link_whose_sender_leaves_before_it_is_accepted_loses_what_lies_in_it() {
        let test = "a_link_whose_sender_leaves_before_it_is_accepted_loses_what_lies_in_it";
        if !is_of_use() {
            return println!("SKIPPED {test}: macOS 11");
        }
        let (maker, control) = Channel::pair(0).unwrap();
        let control = Channel::from_peer(control.into_handle().unwrap()).unwrap();
        let (ringer, hears) = bell().unwrap();
        let (side, theirs) = Channel::pair(0).unwrap();
        ringer.carry(&theirs);
        let (under_way, mut other) = UnixStream::pair().unwrap();
        let memory = Memory::new(c"under way", 4096).unwrap();
        let handles = [under_way.as_handle(), memory.as_handle()];
        side.send(b"message", &handles).unwrap();
        let offer = [hears.as_handle(), theirs.as_handle()];
        maker.send(b"link", &offer).unwrap();
        drop((under_way, memory, hears, theirs, side, ringer, maker));
        look_for_garbage();
        let mut offer = all_of(&control, 2).into_iter();
        // As a controller has it that has not passed it on.
        look_for_garbage();
        let (ringer, _) = bell().unwrap();
        let bell = Bell::from_peer(offer.next().unwrap(), &ringer).unwrap();
        let side = Channel::from_peer(offer.next().unwrap()).unwrap();
        drop(bell);
        look_for_garbage();
        let mut handles = all_of(&side, 2).into_iter();
        let mut arrived = stream(handles.next().unwrap());
        is_alive(&mut arrived, &mut other);
        let memory = Memory::from_peer(handles.next().unwrap(), 1, 1 << 20).unwrap();
        memory.map_all(Protection::Read).unwrap();
    }

    #[test]
    fn a_closed_channel_is_kept_open_by_its_anchor() {
        let (sender, end) = Channel::pair(0).unwrap();
        let end = Channel::from_peer(end.into_handle().unwrap()).unwrap();
        drop(end);
        let (_, hung_up) = super::super::wait_for(&sender, Some(Duration::from_secs(10))).unwrap();
        assert!(hung_up);
        let (sender, end) = Channel::pair(0).unwrap();
        let end = Channel::from_peer(end.into_handle().unwrap()).unwrap();
        drop(rustix::fd::OwnedFd::try_from(end.into_handle().unwrap()).unwrap());
        let (_, hung_up) = super::super::wait_for(&sender, Some(Duration::ZERO)).unwrap();
        assert!(hung_up, "its anchor went before");
    }

    #[test]
    fn a_process_that_ends_closes_an_anchor_after_its_socket() {
        let (sender, _other) = socket::pair().unwrap();
        let anchor = anchor(&sender);
        assert_eq!(anchor.is_some(), is_of_use());
        if let Some(anchor) = anchor {
            assert!(anchor.as_raw_fd() > sender.as_raw_fd());
        }
    }
}
