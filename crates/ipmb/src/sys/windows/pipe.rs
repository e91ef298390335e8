//! One end of a named pipe in message mode, with a read under way.
//!
//! A pipe can only be waited for by reading from it. So there is always a read under way, into a buffer of this end, and
//! its event says when it is done. A read is begun by whoever looks for packets; the system cancels it when that thread
//! ends, and then the next look begins it anew.

use super::{
    event::Signal,
    handle::{self, check},
    security,
};
use std::{
    io,
    os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle},
    sync::Arc,
};
use windows_sys::{
    Wdk::Storage::FileSystem::{
        FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, FileModeInformation,
        NtQueryInformationFile,
    },
    Win32::{
        Foundation::{
            ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_OPERATION_ABORTED,
            GENERIC_READ, GENERIC_WRITE,
        },
        Storage::FileSystem::{
            CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING,
            PIPE_ACCESS_DUPLEX, ReadFile, SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT,
            WriteFile,
        },
        System::{
            IO::{CancelIoEx, GetOverlappedResult, IO_STATUS_BLOCK, OVERLAPPED},
            Pipes::{
                CreateNamedPipeW, GetNamedPipeInfo, PIPE_READMODE_MESSAGE,
                PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_MESSAGE, PeekNamedPipe,
                SetNamedPipeHandleState,
            },
        },
    },
};

/// Longest packet that is taken: the longest of the library, with its handles and what stands around.
const PACKET_MAX: usize = 64 << 10;
/// Bytes under way in one direction.
const CAPACITY: u32 = 128 << 10;
/// Most packets are shorter; the rest of a longer one is fetched when it is there.
const BUFFER: usize = 4 << 10;

/// What a packet was read as.
pub(super) enum Read {
    Packet(Vec<u8>),
    /// Longer than any packet of the library.
    TooLong,
    /// Nothing yet.
    Nothing,
}

/// One end of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    handle: OwnedHandle,
    read: Box<Pending>,
    done: Arc<Signal>,
    written: Signal,
}

/// A read, which the kernel may write to until it is done.
struct Pending {
    overlapped: OVERLAPPED,
    buffer: [u8; BUFFER],
    under_way: bool,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

// SAFETY: the kernel's pointers lead into a box that stays until the read is done; what is accessed here is under the
// lock of the channel.
unsafe impl Send for Pipe {}

/// Where a pipe is made.
pub(super) struct Instances {
    pub(super) most: u32,
    pub(super) first: bool,
}

/// Makes an end that somebody may connect to, by whoever `attributes` admit, on this machine only.
pub(super) fn listen(
    name: &[u16],
    instances: &Instances,
    attributes: &security::Attributes,
) -> io::Result<OwnedHandle> {
    let first = match instances.first {
        true => FILE_FLAG_FIRST_PIPE_INSTANCE,
        false => 0,
    };
    debug_assert_eq!(name.last(), Some(&0));
    // SAFETY: the name ends with a zero, and the attributes live during the call.
    unsafe {
        handle::made(CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
            PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_REJECT_REMOTE_CLIENTS,
            instances.most,
            CAPACITY,
            CAPACITY,
            0,
            &raw const attributes.0,
        ))
    }
}

/// Connects to such an end. Whoever listens there can learn who this is and do nothing in its name.
pub(super) fn connect(name: &[u16]) -> io::Result<OwnedHandle> {
    debug_assert_eq!(name.last(), Some(&0));
    // SAFETY: the name ends with a zero.
    let handle = unsafe {
        handle::made(CreateFileW(
            name.as_ptr(),
            GENERIC_READ | GENERIC_WRITE,
            0,
            std::ptr::null(),
            OPEN_EXISTING,
            FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION,
            std::ptr::null_mut(),
        ))
    }?;
    let mode = PIPE_READMODE_MESSAGE;
    // SAFETY: an open handle; the mode is read.
    check(unsafe {
        SetNamedPipeHandleState(
            handle.as_raw_handle(),
            &raw const mode,
            std::ptr::null(),
            std::ptr::null(),
        )
    })?;
    Ok(handle)
}

/// Checks that a handle from another process is an end of such a pipe: reads and writes on it must not wait.
pub(super) fn check_end(end: BorrowedHandle<'_>) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not an end of a channel");
    if !handle::is_of_type(end, "File")? {
        return Err(invalid());
    }
    let mut status = IO_STATUS_BLOCK::default();
    let mut mode = 0u32;
    // SAFETY: an open handle; this class is one number.
    handle::check_status(unsafe {
        NtQueryInformationFile(
            end.as_raw_handle(),
            &raw mut status,
            (&raw mut mode).cast(),
            size_of::<u32>() as u32,
            FileModeInformation,
        )
    })?;
    let mut flags = 0;
    // SAFETY: an open handle, and a place for the result; fails for what is no pipe.
    check(unsafe {
        GetNamedPipeInfo(
            end.as_raw_handle(),
            &raw mut flags,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    })?;
    let waits = mode & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT) != 0;
    match waits || flags & PIPE_TYPE_MESSAGE == 0 {
        true => Err(invalid()),
        false => Ok(()),
    }
}

/// Whether the other end is still open, as far as can be seen without reading.
pub(super) fn is_connected(end: BorrowedHandle<'_>) -> io::Result<()> {
    peek(end).map(|_| ())
}

/// Bytes that are left of a packet of which a part was read.
fn peek(end: BorrowedHandle<'_>) -> io::Result<usize> {
    let mut left = 0;
    // SAFETY: an open handle, and a place for the result.
    check(unsafe {
        PeekNamedPipe(
            end.as_raw_handle(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut left,
        )
    })?;
    Ok(left as usize)
}

impl Pipe {
    /// `done` is set when a read that was under way is done.
    pub(super) fn new(handle: OwnedHandle, done: Arc<Signal>) -> io::Result<Self> {
        Ok(Self {
            handle,
            read: Box::new(Pending {
                overlapped: OVERLAPPED::default(),
                buffer: [0; BUFFER],
                under_way: false,
            }),
            done,
            written: Signal::new()?,
        })
    }

    /// The next packet, if it is there. If not, a read is under way.
    pub(super) fn read(&mut self) -> io::Result<Read> {
        loop {
            let begun = match self.read.under_way {
                true => Ok(()),
                false => self.begin(),
            };
            match begun.and_then(|()| self.result()) {
                Ok(len) => {
                    let packet = self.read.buffer.get(..len).unwrap_or_default();
                    return Ok(Read::Packet(packet.to_vec()));
                }
                Err(e) => match super::code(&e) {
                    Some(ERROR_IO_INCOMPLETE) => return Ok(Read::Nothing),
                    // The thread that began it has ended.
                    Some(ERROR_OPERATION_ABORTED) => {}
                    Some(ERROR_MORE_DATA) => return self.rest(),
                    _ => return Err(e),
                },
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let read = &mut *self.read;
        read.overlapped = OVERLAPPED {
            hEvent: self.done.raw(),
            ..OVERLAPPED::default()
        };
        // SAFETY: an open handle; the buffer and the structure lie in a box that stays until the read is done, and are
        // not touched before.
        let done = unsafe {
            ReadFile(
                self.handle.as_raw_handle(),
                read.buffer.as_mut_ptr(),
                BUFFER as u32,
                std::ptr::null_mut(),
                &raw mut read.overlapped,
            )
        };
        match check(done) {
            // The result tells about a part of a packet, too.
            Err(e) if !matches!(super::code(&e), Some(ERROR_IO_PENDING | ERROR_MORE_DATA)) => {
                Err(e)
            }
            _ => {
                read.under_way = true;
                Ok(())
            }
        }
    }

    /// How many bytes the read has brought.
    fn result(&mut self) -> io::Result<usize> {
        let mut len = 0;
        // SAFETY: the read was begun on this handle with this structure.
        let done = check(unsafe {
            GetOverlappedResult(
                self.handle.as_raw_handle(),
                &raw const self.read.overlapped,
                &raw mut len,
                0,
            )
        });
        if let Err(e) = &done
            && super::code(e) == Some(ERROR_IO_INCOMPLETE)
        {
            return Err(io::Error::from_raw_os_error(ERROR_IO_INCOMPLETE as i32));
        }
        self.read.under_way = false;
        done.map(|()| len as usize)
    }

    /// The whole of a packet whose first part is in the buffer. The rest is there.
    fn rest(&mut self) -> io::Result<Read> {
        let left = peek(self.handle.as_handle())?;
        if left == 0 || left > PACKET_MAX - BUFFER {
            return Ok(Read::TooLong);
        }
        let mut packet = vec![0; BUFFER + left];
        packet[..BUFFER].copy_from_slice(&self.read.buffer);
        let mut overlapped = OVERLAPPED {
            hEvent: self.written.raw(),
            ..OVERLAPPED::default()
        };
        let mut len = 0;
        // SAFETY: an open handle; the structure and the buffer stay, since the result is waited for: it is there.
        let done = unsafe {
            ReadFile(
                self.handle.as_raw_handle(),
                packet.as_mut_ptr().add(BUFFER),
                left as u32,
                std::ptr::null_mut(),
                &raw mut overlapped,
            );
            GetOverlappedResult(
                self.handle.as_raw_handle(),
                &raw const overlapped,
                &raw mut len,
                1,
            )
        };
        check(done)?;
        match len as usize == left {
            true => Ok(Read::Packet(packet)),
            false => Ok(Read::TooLong),
        }
    }

    /// Writes a packet, at once or not at all (`WouldBlock`).
    pub(super) fn write(&self, packet: &[u8]) -> io::Result<()> {
        let mut overlapped = OVERLAPPED {
            hEvent: self.written.raw(),
            ..OVERLAPPED::default()
        };
        let pipe = self.handle.as_raw_handle();
        // SAFETY: an open handle; the structure and the packet stay until the write is done: it is waited for below.
        let begun = check(unsafe {
            WriteFile(
                pipe,
                packet.as_ptr(),
                packet.len() as u32,
                std::ptr::null_mut(),
                &raw mut overlapped,
            )
        });
        match begun {
            Ok(()) => return Ok(()),
            Err(e) if super::code(&e) == Some(ERROR_IO_PENDING) => {}
            Err(e) => return Err(e),
        }
        // It does not fit. Taken back, it is not there; or it was read in between.
        let mut len = 0;
        // SAFETY: as above. The call ends since the write is done or cancelled.
        let done = check(unsafe {
            CancelIoEx(pipe, &raw const overlapped);
            GetOverlappedResult(pipe, &raw const overlapped, &raw mut len, 1)
        });
        done.map_err(|e| match super::code(&e) {
            Some(ERROR_OPERATION_ABORTED) => io::ErrorKind::WouldBlock.into(),
            _ => e,
        })
    }
}

impl AsHandle for Pipe {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !self.read.under_way {
            return;
        }
        let mut len = 0;
        // SAFETY: the read was begun on this handle; it is done or cancelled, so that the wait ends, and after it the kernel
        // does not write to the box any more.
        unsafe {
            CancelIoEx(self.handle.as_raw_handle(), &raw const self.read.overlapped);
            GetOverlappedResult(
                self.handle.as_raw_handle(),
                &raw const self.read.overlapped,
                &raw mut len,
                1,
            );
        }
    }
}
