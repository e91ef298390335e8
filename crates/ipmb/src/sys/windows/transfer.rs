//! Handles that go with packets.
//!
//! A handle is a number in the table of one process. Whoever has rights on a process can put one into its table
//! (*push*) or fetch one from it (*pull*). The sender of a packet pushes if it may, so that what it sent arrives even if it
//! is killed. If not, it names numbers of its own table, and the receiver pulls: of two processes of one user one always
//! may, and the controller stands between those of whom neither may.
//!
//! A number in one's own table is believed only from a process that has power over this one by the system's rules: it
//! could close or exchange handles here in any case.

use super::{
    handle::check,
    pipe, process,
    security::{self, Identity},
};
use crate::sys::{BorrowedHandle, Handle};
use std::{
    io,
    os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle},
};
use windows_sys::Win32::{
    Foundation::{
        DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, ERROR_ACCESS_DENIED,
        ERROR_PIPE_NOT_CONNECTED, HANDLE, STILL_ACTIVE,
    },
    System::Threading::{
        GetCurrentProcess, GetExitCodeProcess, PROCESS_DUP_HANDLE,
        PROCESS_QUERY_LIMITED_INFORMATION,
    },
};

/// Who is at the other end, by the system's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// How the numbers of a packet are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// They are in the receiver's table.
    Pushed,
    /// They are in the sender's table.
    ToPull,
}

/// The process at the other end of a channel.
#[derive(Debug)]
pub(super) struct Partner {
    pid: u32,
    /// `None` if it is gone.
    process: Option<(OwnedHandle, Identity)>,
    /// Handles may be put into its table and fetched from it.
    open: bool,
    /// It has power over this process.
    believed: bool,
}

impl Partner {
    /// Opens a process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let query = PROCESS_QUERY_LIMITED_INFORMATION;
        let (handle, open) = match process::open(pid, query | PROCESS_DUP_HANDLE) {
            Ok(handle) => (handle, true),
            Err(e) if super::code(&e) == Some(ERROR_ACCESS_DENIED) => {
                (process::open(pid, query)?, false)
            }
            Err(e) => return Err(e),
        };
        let identity = Identity::of(handle.as_raw_handle())?;
        let believed = identity.has_power_over(security::own()?);
        Ok(Self {
            pid,
            process: Some((handle, identity)),
            open,
            believed,
        })
    }

    /// The process that made a pipe whose other end came from a peer. It may be gone, and what it has sent is there: then
    /// the system still knows for whom it made the pipe.
    pub(super) fn behind(pid: u32, end: BorrowedHandle<'_>) -> io::Result<Self> {
        match Self::of(pid) {
            Err(e) if super::is_no_process(&e) => Ok(Self {
                pid,
                process: None,
                open: false,
                believed: security::is_of_an_equal(end)?,
            }),
            other => other,
        }
    }

    /// Opens the process at the other end of a pipe. As long as that is connected, the process that connected it lives, and
    /// its number stands for no other.
    pub(super) fn at(pid: u32, end: BorrowedHandle<'_>) -> io::Result<Self> {
        let partner = Self::of(pid)?;
        pipe::is_connected(end)?;
        Ok(partner)
    }

    pub(super) fn peer(&self) -> Peer {
        Peer {
            pid: self.pid,
            uid: self.process.as_ref().map_or(u32::MAX, |(_, who)| who.uid()),
            gid: u32::MAX,
        }
    }

    /// The process, if its table is open to this one.
    fn table(&self) -> Option<HANDLE> {
        let process = self.process.as_ref().filter(|_| self.open);
        process.map(|(handle, _)| handle.as_raw_handle())
    }
}

/// Handles on their way, taken back if they are dropped.
pub(super) struct Outbound<'a> {
    pub(super) numbers: Vec<u64>,
    pub(super) kind: Numbers,
    partner: Option<&'a Partner>,
}

impl<'a> Outbound<'a> {
    /// Gives handles to a process; `None` if it is not known.
    pub(super) fn new(
        partner: Option<&'a Partner>,
        handles: &[BorrowedHandle<'_>],
    ) -> io::Result<Self> {
        let partner = partner.filter(|partner| partner.table().is_some());
        let mut outbound = Self {
            numbers: Vec::with_capacity(handles.len()),
            kind: match partner {
                Some(_) => Numbers::Pushed,
                None => Numbers::ToPull,
            },
            partner,
        };
        for handle in handles {
            // SAFETY: a constant that stands for this process.
            let own = unsafe { GetCurrentProcess() };
            let number =
                move_handle(own, handle.as_raw_handle(), outbound.table(), 0).map_err(|e| {
                    if has_ended(partner) {
                        not_connected()
                    } else {
                        e
                    }
                })?;
            outbound.numbers.push(number as usize as u64);
            crate::crash::point();
        }
        Ok(outbound)
    }

    /// The process in whose table the handles are.
    fn table(&self) -> HANDLE {
        let theirs = self.partner.and_then(Partner::table);
        // SAFETY: a constant that stands for this process.
        theirs.unwrap_or_else(|| unsafe { GetCurrentProcess() })
    }

    /// They are the receiver's now.
    pub(super) fn gone(mut self) {
        self.numbers.clear();
    }
}

impl Drop for Outbound<'_> {
    fn drop(&mut self) {
        for number in &self.numbers {
            close_in(self.table(), *number);
        }
    }
}

/// Whether the process is known to have ended: nothing can be put into its table any more, and its pipes may say so later.
fn has_ended(partner: Option<&Partner>) -> bool {
    let process = partner.and_then(|partner| partner.process.as_ref());
    let mut code = 0;
    process.is_some_and(|(process, _)| {
        // SAFETY: an open handle, and a place for the result.
        let known = unsafe { GetExitCodeProcess(process.as_raw_handle(), &raw mut code) } != 0;
        known && code != STILL_ACTIVE as u32
    })
}

/// The error of a channel whose other end is closed.
pub(super) fn not_connected() -> io::Error {
    io::Error::from_raw_os_error(ERROR_PIPE_NOT_CONNECTED as i32)
}

/// Takes the handles that came with a packet. When some of them find no room, none is taken.
pub(super) fn take(
    partner: Option<&Partner>,
    kind: Numbers,
    numbers: &[u64],
    handles: &mut Vec<Handle>,
) -> io::Result<()> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let before = handles.len();
    let believed = partner.is_some_and(|partner| partner.believed);
    match (kind, partner.and_then(Partner::table)) {
        (Numbers::Pushed, _) if believed => {
            // SAFETY: the sender has put them here for this packet. It could close any handle here if it wanted to, so
            // that believing it makes nothing worse.
            handles.extend(numbers.iter().map(|number| unsafe { own(*number) }));
            Ok(())
        }
        (Numbers::ToPull, Some(table)) => {
            for number in numbers {
                let number = *number as usize as HANDLE;
                // SAFETY: a constant that stands for this process.
                let own = unsafe { GetCurrentProcess() };
                match move_handle(table, number, own, 0) {
                    // SAFETY: made just now.
                    Ok(handle) => handles.push(crate::crash::after(unsafe {
                        OwnedHandle::from_raw_handle(handle)
                    })),
                    Err(e) => {
                        handles.truncate(before);
                        return Err(e);
                    }
                }
            }
            numbers.iter().for_each(|number| close_in(table, *number));
            Ok(())
        }
        (Numbers::Pushed, _) => refused("handles from a process that has no right to give any"),
        (Numbers::ToPull, None) => refused("handles that this process has no right to fetch"),
    }
}

/// Closes the handles that came with a packet that nobody wants.
pub(super) fn discard(partner: Option<&Partner>, kind: Numbers, numbers: &[u64]) {
    let Some(partner) = partner else { return };
    match kind {
        Numbers::Pushed if partner.believed => {
            // SAFETY: as in `take`.
            numbers.iter().for_each(|n| drop(unsafe { own(*n) }));
        }
        Numbers::Pushed => {}
        Numbers::ToPull => {
            let table = partner.table().into_iter();
            table.for_each(|table| numbers.iter().for_each(|number| close_in(table, *number)));
        }
    }
}

/// # Safety
/// The number is that of an open handle that nobody else will close.
unsafe fn own(number: u64) -> Handle {
    // SAFETY: as the caller promises.
    unsafe { OwnedHandle::from_raw_handle(number as usize as HANDLE) }
}

/// Makes a copy of a handle of one process in the table of another.
fn move_handle(from: HANDLE, number: HANDLE, to: HANDLE, options: u32) -> io::Result<HANDLE> {
    let mut copy: HANDLE = std::ptr::null_mut();
    // SAFETY: the processes are open, and the place for the result is valid. A number that is none fails.
    check(unsafe {
        DuplicateHandle(
            from,
            number,
            to,
            &raw mut copy,
            0,
            0,
            DUPLICATE_SAME_ACCESS | options,
        )
    })?;
    Ok(copy)
}

/// Closes a handle in the table of a process.
fn close_in(table: HANDLE, number: u64) {
    // SAFETY: the process is open, and without a target only the source is closed: it was made for a packet that is not.
    unsafe {
        DuplicateHandle(
            table,
            number as usize as HANDLE,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
            0,
            DUPLICATE_CLOSE_SOURCE,
        );
    }
}
