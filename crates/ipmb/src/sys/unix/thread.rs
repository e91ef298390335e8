//! Threads of the library.

use std::{io, thread};

/// Starts a named thread that blocks all signals, so that none of the program's handlers ever runs on it.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    // The mask is inherited: blocked around the creation there is no moment at which a signal could come through.
    // SAFETY: both sets are plain data; `sigfillset` initialises the one, `pthread_sigmask` the other.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        call!(libc::sigfillset(&raw mut all));
        call!(libc::pthread_sigmask(
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut old
        ));
        let thread = call!(thread::Builder::new().name(name.to_owned()).spawn(body));
        call!(libc::pthread_sigmask(
            libc::SIG_SETMASK,
            &raw const old,
            std::ptr::null_mut()
        ));
        thread.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                error.kind(),
                format!("{error}: raise the limit on threads (`ulimit -u`, or the container's on processes)"),
            ),
            _ => error,
        })
    }
}

/// Lets another thread have this one's core.
pub(crate) fn yield_now() {
    call!(rustix::thread::sched_yield());
}
