use super::{odd_handle, step, up_to};
use crate::{Error, MemoryRegion, Object, sys::Handle};
use arbitrary::Unstructured;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};

const LIMIT: u64 = 1 << 20;

/// A memory of any size and with any seals, opened in any way; or no memory at all.
fn memory(input: &mut Unstructured<'_>) -> Handle {
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        LIMIT as i64,
        LIMIT as i64 + 1,
        1 << 40,
        i64::MAX,
    ];
    let size = sizes[up_to(input, sizes.len() - 1)];
    let huge = if step(input, 16) == 15 {
        libc::MFD_HUGETLB
    } else {
        0
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is terminated; the result is checked.
    let fd = unsafe { libc::memfd_create(c"oracle".as_ptr(), flags | huge) };
    if fd < 0 {
        return odd_handle(input);
    }
    // SAFETY: opened just now.
    let fd = unsafe { Handle::from_raw_fd(fd) };
    let seals = match step(input, 2) {
        0 => libc::F_SEAL_SHRINK | libc::F_SEAL_GROW,
        _ => up_to(input, 31) as libc::c_int,
    };
    // SAFETY: calls on an open descriptor, without pointers. Where they fail it is another odd memory.
    unsafe {
        libc::ftruncate(fd.as_raw_fd(), size);
        libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals);
    }
    match step(input, 8) {
        5 => reopen(&fd, libc::O_RDONLY),
        6 => reopen(&fd, libc::O_PATH),
        7 => reopen(&fd, libc::O_RDWR),
        _ => fd,
    }
}

fn reopen(fd: &Handle, how: libc::c_int) -> Handle {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    // SAFETY: the path is terminated.
    let again = unsafe { libc::open(path.as_ptr(), how | libc::O_CLOEXEC) };
    // A memory that is sealed against writing is not opened for it.
    match again < 0 {
        true => fd.try_clone().unwrap(),
        // SAFETY: opened just now.
        false => unsafe { Handle::from_raw_fd(again) },
    }
}

/// Whether a byte can be written by somebody else who has the memory.
fn can_be_written(fd: &Handle) -> bool {
    // SAFETY: one byte is read from a string.
    unsafe { libc::pwrite(fd.as_raw_fd(), c"x".as_ptr().cast(), 1, 0) == 1 }
}

/// Somebody hands over a memory, or something else, and keeps a handle of it. What passes for a region is one: all of it can be
/// touched, for good; and once it is frozen, nobody changes it.
pub fn regions(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let handle = match step(input, 4) {
        0 => odd_handle(input),
        _ => memory(input),
    };
    let kept = handle.as_fd().try_clone_to_owned().unwrap();
    let made = match step(input, 2) {
        0 => MemoryRegion::from_handle(handle, LIMIT),
        _ => MemoryRegion::from_object(Object::from(handle)),
    };
    let mut region = match made {
        Ok(region) => region,
        Err(Error::NotARegion(_) | Error::RegionTooLarge { .. }) => return,
        Err(other) => panic!("not told from a fault of the system: {other}"),
    };
    // SAFETY: all zero is a valid status.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the status only.
    unsafe { libc::fstat(kept.as_raw_fd(), &raw mut status) };
    let size = region.buffer_size();
    assert_eq!(size, status.st_size as u64);
    // SAFETY: no pointers.
    let grown = unsafe { libc::ftruncate(kept.as_raw_fd(), 1 << 30) };
    assert_ne!(grown, 0, "it can grow");
    for _ in 0..4 {
        // SAFETY: no pointers.
        let shrunk = size > 0 && unsafe { libc::ftruncate(kept.as_raw_fd(), 0) } == 0;
        assert!(!shrunk, "it can shrink");
        match step(input, 6) {
            0 if size <= LIMIT => {
                let frozen = region.is_frozen();
                match region.map(..) {
                    Ok(bytes) => {
                        assert!(!frozen || bytes.is_empty());
                        bytes.fill(1);
                    }
                    Err(Error::Frozen) => assert!(frozen),
                    Err(other) => panic!("{other}"),
                }
            }
            1 => {
                if let Err(error) = region.freeze() {
                    assert!(matches!(error, Error::Busy | Error::Io(..)), "{error}");
                }
            }
            2 => region.unmap(),
            3 => assert!(region.ref_count() >= 1),
            4 => {
                if let Ok(other) = region.clone() {
                    assert_eq!(other.buffer_size(), size);
                    assert!(region.ref_count() >= 2);
                }
            }
            _ => drop(region.map(..0)),
        }
        if let Ok(frozen) = region.as_frozen() {
            assert!(region.is_frozen());
            let before = frozen.first().copied();
            assert!(!can_be_written(&kept), "a frozen region is written to");
            assert_eq!(frozen.first().copied(), before);
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: no pointers.
            let punched = unsafe { libc::fallocate(kept.as_raw_fd(), mode, 0, 4096) };
            assert_ne!(punched, 0, "a hole in a frozen region");
        }
    }
}
