//! What `libproc.h` and `sys/proc_info.h` say of processes and their descriptors. The layouts that the crate `libc` does
//! not have are here; `.ci/macos-layouts.c` holds the same numbers against the headers of the system.

use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use std::{io, mem::MaybeUninit};

/// `struct proc_fileinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct FileInfo {
    pub(super) open_flags: u32,
    pub(super) status: u32,
    offset: i64,
    kind: i32,
    guard_flags: u32,
}

/// `struct pshm_fdinfo`: a descriptor of POSIX shared memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct SharedMemory {
    pub(super) file: FileInfo,
    pub(super) stat: libc::vinfo_stat,
    mapped_at: u64,
    name: [u8; 1024],
}

impl SharedMemory {
    /// The name that it had when it was made.
    pub(super) fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|b| *b == 0);
        self.name
            .get(..end.unwrap_or(self.name.len()))
            .unwrap_or_default()
    }
}

/// `PROC_PIDFDPSHMINFO`.
const PSHM_INFO: libc::c_int = 5;
/// `PROX_FDTYPE_PSHM`.
pub(super) const IS_SHARED_MEMORY: u32 = 3;
/// `PROC_UID_ONLY`: the processes of one effective user.
const OF_USER: u32 = 4;
/// `PROC_FP_SHARED`: the open file description has more than one descriptor, those under way included.
pub(super) const IS_SHARED: u32 = 1;
/// `FREAD` and `FWRITE` (`sys/fcntl.h`): how the description was opened.
pub(super) const CAN_READ: u32 = 1;
pub(super) const CAN_WRITE: u32 = 2;

const _: () = {
    assert!(size_of::<FileInfo>() == 24);
    assert!(std::mem::offset_of!(FileInfo, status) == 4);
    assert!(size_of::<libc::vinfo_stat>() == 136);
    assert!(std::mem::offset_of!(libc::vinfo_stat, vst_size) == 88);
    assert!(size_of::<SharedMemory>() == 1192);
    assert!(std::mem::offset_of!(SharedMemory, stat) == 24);
    assert!(std::mem::offset_of!(SharedMemory, name) == 168);
    assert!(size_of::<libc::proc_bsdinfo>() == 136);
    assert!(std::mem::offset_of!(libc::proc_bsdinfo, pbi_status) == 4);
    assert!(std::mem::offset_of!(libc::proc_bsdinfo, pbi_start_tvsec) == 120);
    assert!(size_of::<libc::proc_fdinfo>() == 8);
    assert!(size_of::<libc::xucred>() == 76);
    assert!(size_of::<libc::kevent>() == 32);
    assert!(size_of::<libc::sockaddr_un>() == 106);
    assert!(size_of::<libc::flock>() == 24);
};

/// What is known of a process. `None` if there is none, or if it is another user's and this one is not root.
pub(super) fn process(pid: u32) -> Option<libc::proc_bsdinfo> {
    let pid = libc::c_int::try_from(pid).ok()?;
    let mut info = MaybeUninit::<libc::proc_bsdinfo>::uninit();
    let size = size_of::<libc::proc_bsdinfo>() as libc::c_int;
    // SAFETY: the call writes at most `size` bytes to the structure.
    let written = unsafe {
        libc::proc_pidinfo(
            pid,
            libc::PROC_PIDTBSDINFO,
            0,
            info.as_mut_ptr().cast(),
            size,
        )
    };
    // SAFETY: all of it was written; any bytes are a valid value.
    (written == size).then(|| unsafe { info.assume_init() })
}

/// What is known of a descriptor of POSIX shared memory of this process. `InvalidInput` if it is none.
pub(super) fn shared_memory(fd: BorrowedFd<'_>) -> io::Result<SharedMemory> {
    shared_memory_of(std::process::id(), fd.as_raw_fd())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn shared_memory_of(pid: u32, fd: RawFd) -> Option<SharedMemory> {
    let pid = libc::c_int::try_from(pid).ok()?;
    let mut info = MaybeUninit::<SharedMemory>::uninit();
    let size = size_of::<SharedMemory>() as libc::c_int;
    // SAFETY: the call writes at most `size` bytes to the structure.
    let written =
        unsafe { libc::proc_pidfdinfo(pid, fd, PSHM_INFO, info.as_mut_ptr().cast(), size) };
    // SAFETY: all of it was written; any bytes are a valid value.
    (written == size).then(|| unsafe { info.assume_init() })
}

/// Asks for a list until it fits.
fn list<T: Copy>(mut ask: impl FnMut(*mut libc::c_void, libc::c_int) -> libc::c_int) -> Vec<T> {
    let mut room = 256usize;
    loop {
        let mut items: Vec<T> = Vec::with_capacity(room);
        let bytes = room * size_of::<T>();
        let written = ask(
            items.as_mut_ptr().cast(),
            libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX),
        );
        let count = usize::try_from(written).unwrap_or(0) / size_of::<T>();
        if count < room || room >= 1 << 20 {
            // SAFETY: the call has written so many items, which are plain numbers, and no more than there is room for.
            unsafe { items.set_len(count.min(room)) };
            return items;
        }
        room *= 4;
    }
}

/// How many descriptors of shared memory `name` the processes of user `uid` have, as far as one may look.
pub(super) fn count_descriptors(uid: u32, name: &[u8]) -> usize {
    let pids: Vec<libc::pid_t> = list(|buffer, size| {
        // SAFETY: the call writes at most `size` bytes to the buffer.
        unsafe { libc::proc_listpids(OF_USER, uid, buffer, size) }
    });
    let mut count = 0;
    for pid in pids {
        let fds: Vec<libc::proc_fdinfo> = list(|buffer, size| {
            // SAFETY: as above.
            unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, buffer, size) }
        });
        for fd in fds {
            if fd.proc_fdtype == IS_SHARED_MEMORY
                && shared_memory_of(pid as u32, fd.proc_fd).is_some_and(|m| m.name() == name)
            {
                count += 1;
            }
        }
    }
    count
}
