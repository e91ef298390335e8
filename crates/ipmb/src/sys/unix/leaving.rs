//! Closing sockets without the wait that their maker asked for.
//!
//! The last close of a socket that lingers waits (socket(7), `SO_LINGER`), and so does that of a socket in whose queue such a one lies. A
//! thread that ends is exempt: the kernel lets go of what was its own and goes on. So a thread is made that shares this
//! process's memory but has a table of descriptors of its own, holds the sockets when they are closed here, and ends.
//!
//! Its table begins as a copy, of which it closes all but the sockets. Until then it holds what the program has open, as a child
//! does between `fork` and `exec`: for some microseconds, or for as long as the file system of one of the program's own files
//! keeps a close waiting.

use super::{fork::Fd, thread::spawn};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsRawFd, RawFd},
    net::{AddressFamily, sockopt},
};
use std::{io, sync::mpsc};

/// Closes descriptors. Of those that are sockets no close waits, if the system lets a thread have a table of its own; a
/// file's close may, for as long as its file system takes.
pub(super) fn close(descriptors: Vec<Fd>) {
    let (sockets, others): (Vec<_>, Vec<_>) = descriptors.into_iter().partition(may_linger);
    if !sockets.is_empty() {
        close_with_a_thread(sockets);
    }
    drop(others);
}

/// Whether it is a socket, but for one of this machine that has nothing in its queue: those are seen all the time, in the
/// offers of links that a controller passes on. Looks without changing anything, as others may be using it.
fn may_linger(fd: &Fd) -> bool {
    let now = Timespec::default();
    match call!(sockopt::socket_domain(fd)) {
        Ok(AddressFamily::UNIX) => {
            call!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now))) != Ok(0)
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

fn close_with_a_thread(sockets: Vec<Fd>) {
    let mut numbers: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let (held, wait) = mpsc::channel();
    let (go, end) = mpsc::channel::<()>();
    let thread = spawn("ipmb-leave", move || {
        // Nothing may be written here from now on: the standard streams are closed, too.
        let _ = held.send(keep_only(&numbers));
        // Not before they are closed in the table of the others: the last one to close them waits.
        let _ = end.recv();
    });
    let Ok(thread) = thread else {
        return;
    };
    if !matches!(wait.recv(), Ok(Ok(()))) {
        log::debug!(
            "sockets of others are closed one by one, which may wait: no thread with a table of its own"
        );
    }
    drop(sockets);
    drop(go);
    let _ = thread.join();
}

/// Gives the calling thread a table of descriptors of its own in which there are only these, in ascending order.
fn keep_only(numbers: &[RawFd]) -> io::Result<()> {
    // What lies above is not even copied (close_range(2)); so this comes first.
    let mut end = RawFd::MAX;
    let mut flags = libc::CLOSE_RANGE_UNSHARE;
    for &number in numbers.iter().rev() {
        close_range(number + 1, end, flags)?;
        end = number - 1;
        flags = 0;
    }
    close_range(0, end, flags)
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes numbers. With the first call this thread has a table of its own, so that none of the descriptors that
    // others own is closed: only this thread's copies are, which nobody knows of.
    let result = unsafe { call!(libc::syscall(libc::SYS_close_range, first, last, flags)) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
