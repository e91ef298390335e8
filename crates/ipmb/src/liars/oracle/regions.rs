use super::{odd_handle, step, up_to};
use crate::{Error, MemoryRegion, Object, sys::Handle};
use arbitrary::Unstructured;
use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, fstat,
        ftruncate, memfd_create, open,
    },
    io::pwrite,
};
use std::os::fd::{AsFd, AsRawFd};

const LIMIT: u64 = 1 << 20;

/// A size that no machine has memory for, which an empty memory can have, and be mapped with. An emulator writes down each page
/// that is mapped, for good: it gets a size for which it has the memory itself.
fn sparse() -> u64 {
    let emulated = std::env::var_os("IPMB_TEST_RUNNER").is_some();
    if emulated { 1 << 32 } else { 1 << 40 }
}

/// A memory of any size and with any seals, opened in any way; or no memory at all.
fn memory(input: &mut Unstructured<'_>) -> Handle {
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        LIMIT,
        LIMIT + 1,
        sparse(),
        i64::MAX as u64,
    ];
    let size = sizes[up_to(input, sizes.len() - 1)];
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if step(input, 16) == 15 {
        flags |= MemfdFlags::HUGETLB;
    }
    let Ok(fd) = memfd_create(c"oracle", flags) else {
        return odd_handle(input);
    };
    let seals = match step(input, 2) {
        0 => SealFlags::SHRINK | SealFlags::GROW,
        _ => SealFlags::from_bits_retain(up_to(input, 31) as u32),
    };
    // Where these fail it is another odd memory.
    let _ = ftruncate(&fd, size);
    let _ = fcntl_add_seals(&fd, seals);
    match step(input, 8) {
        5 => reopen(fd, OFlags::RDONLY),
        6 => reopen(fd, OFlags::PATH),
        7 => reopen(fd, OFlags::RDWR),
        _ => fd,
    }
}

fn reopen(fd: Handle, how: OFlags) -> Handle {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    // A memory that is sealed against writing is not opened for it.
    open(path, how | OFlags::CLOEXEC, Mode::empty()).unwrap_or(fd)
}

/// Whether a byte can be written by somebody else who has the memory.
fn can_be_written(fd: &Handle) -> bool {
    pwrite(fd, b"x", 0) == Ok(1)
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
    let size = region.buffer_size();
    assert_eq!(size, fstat(&kept).unwrap().st_size as u64);
    assert!(ftruncate(&kept, 1 << 30).is_err(), "it can grow");
    for _ in 0..4 {
        let shrunk = size > 0 && ftruncate(&kept, 0).is_ok();
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
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let punched = fallocate(&kept, mode, 0, 4096);
            assert!(punched.is_err(), "a hole in a frozen region");
        }
    }
}
