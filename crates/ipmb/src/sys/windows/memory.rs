//! Shared memory that cannot shrink: sections of the page file, which have one size for good.

use super::{
    handle::{self, access_and_count, duplicate_for},
    security,
};
use crate::sys::{BorrowedHandle, Handle};
use std::{
    ffi::{CStr, c_void},
    io,
    mem::MaybeUninit,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    ptr::NonNull,
};
use windows_sys::Win32::{
    Foundation::{HANDLE, INVALID_HANDLE_VALUE},
    System::Memory::{
        CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MEM_COMMIT, MEM_RELEASE, MEM_RESERVE,
        MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, PAGE_READWRITE, SEC_COMMIT, SECTION_MAP_READ,
        SECTION_MAP_WRITE, SECTION_QUERY, UnmapViewOfFile, VirtualAlloc, VirtualFree,
    },
};

/// Size of a page, on all processors that Windows 10 and later run on.
pub(super) const PAGE: usize = 4096;

/// What a handle of a memory that one only reads may do.
pub(super) const READ_ONLY: u32 = SECTION_MAP_READ | SECTION_QUERY;

/// What is sealed on top of the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// The size (as ever).
    SizeForGood,
    /// As `SizeForGood`, and whoever maps from now on maps read-only. Map writably before.
    FutureWrite,
}

/// How a mapping may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Read,
    ReadWrite,
    /// For memory that nobody may write to.
    Frozen,
}

/// What the kernel says about a section (`SECTION_BASIC_INFORMATION`).
#[repr(C)]
struct SectionInformation {
    base: *mut c_void,
    attributes: u32,
    size: i64,
}

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    fn NtQuerySection(
        section: HANDLE,
        class: i32,
        information: *mut c_void,
        len: usize,
        returned: *mut usize,
    ) -> i32;
}

/// Why a handle is no shared memory that can be relied on.
#[derive(Debug)]
pub(super) enum Unfit {
    NoSection,
    /// Of a file, of a program, or with pages that are not there.
    NotOfThePageFile,
    Io(io::Error),
}

/// Looks at a handle from somebody else before anything is mapped: the size of the section that it is of, in whole pages.
pub(super) fn verify(handle: BorrowedHandle<'_>) -> Result<usize, Unfit> {
    const SEC_BASED: u32 = 0x0020_0000;
    const SEC_FILE: u32 = 0x0080_0000;
    const SEC_IMAGE: u32 = 0x0100_0000;
    const SEC_RESERVE: u32 = 0x0400_0000;
    if !handle::is_of_type(handle, "Section").map_err(Unfit::Io)? {
        return Err(Unfit::NoSection);
    }
    let mut space = MaybeUninit::<SectionInformation>::zeroed();
    // SAFETY: an open handle; the kernel writes the structure of class 0, and no more than its size.
    handle::check_status(unsafe {
        NtQuerySection(
            handle.as_raw_handle(),
            0,
            space.as_mut_ptr().cast(),
            size_of::<SectionInformation>(),
            std::ptr::null_mut(),
        )
    })
    .map_err(Unfit::Io)?;
    // SAFETY: plain numbers, which any bytes are.
    let section = unsafe { space.assume_init() };
    let others = SEC_BASED | SEC_FILE | SEC_IMAGE | SEC_RESERVE;
    if section.attributes & (SEC_COMMIT | others) != SEC_COMMIT {
        return Err(Unfit::NotOfThePageFile);
    }
    usize::try_from(section.size).map_err(|_| Unfit::NotOfThePageFile)
}

/// A new section of `size` zero bytes, which is rounded up to whole pages.
pub(super) fn section(size: usize) -> io::Result<OwnedHandle> {
    let attributes = security::sealed_object()?;
    let size = size as u64;
    // SAFETY: the attributes live for ever; the section has no name.
    let section = unsafe {
        handle::made(CreateFileMappingW(
            INVALID_HANDLE_VALUE,
            &raw const attributes.0,
            PAGE_READWRITE,
            (size >> 32) as u32,
            size as u32,
            std::ptr::null(),
        ))
    };
    section.map(crate::crash::after)
}

/// A shared memory. Its size is fixed for good.
#[derive(Debug)]
pub(crate) struct Memory {
    section: OwnedHandle,
    size: usize,
}

impl Memory {
    /// A new memory of `size` zero bytes. Add [`Seal::FutureWrite`] with [`Memory::seal`] after mapping.
    pub(crate) fn new(_name: &CStr, size: usize) -> io::Result<Self> {
        Ok(Self {
            section: section(size)?,
            size,
        })
    }

    /// Takes a memory from another process, if it is one and has between `min` and `max` bytes.
    pub(crate) fn from_peer(handle: Handle, min: usize, max: usize) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let size = match verify(handle.as_handle()) {
            Ok(size) => size,
            Err(Unfit::Io(error)) => return Err(error),
            Err(_) => return Err(invalid("no shared memory of the page file")),
        };
        // Sizes are rounded up to whole pages.
        if size < min || size > max.checked_next_multiple_of(PAGE).unwrap_or(usize::MAX) {
            return Err(invalid("shared memory of a wrong size"));
        }
        Ok(Self {
            section: handle,
            size,
        })
    }

    /// Adds seals: what is handed over from then on is a handle that only reads, and the other one is closed.
    pub(crate) fn seal(&mut self, seal: Seal) -> io::Result<()> {
        if seal == Seal::FutureWrite {
            self.section = duplicate_for(self.section.as_handle(), READ_ONLY)?;
        }
        Ok(())
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Maps all of it.
    pub(crate) fn map_all(&self, protection: Protection) -> io::Result<Mapping> {
        Mapping::new(self.section.as_handle(), protection, self.size)
    }

    /// Its handle.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        Ok(self.section)
    }
}

impl AsHandle for Memory {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.section.as_handle()
    }
}

/// A mapping of shared memory; unmapped when dropped. Other processes may write to it at any time unless it is
/// frozen, so it hands out raw pointers only.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// Not shared: a copy in memory of this process's own.
    private: bool,
}

// SAFETY: a mapping is an address range of the process, not of a thread; it hands out raw pointers only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a whole section, of which the first `len` bytes are of interest.
    pub(super) fn new(
        section: BorrowedHandle<'_>,
        protection: Protection,
        len: usize,
    ) -> io::Result<Self> {
        let access = match protection {
            Protection::ReadWrite => FILE_MAP_READ | FILE_MAP_WRITE,
            Protection::Read | Protection::Frozen => FILE_MAP_READ,
        };
        // SAFETY: an open handle; the kernel chooses the address, so nothing that Rust knows of is overlapped.
        let view = unsafe { MapViewOfFile(section.as_raw_handle(), access, 0, 0, 0) };
        let start = NonNull::new(view.Value.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            start,
            len,
            private: false,
        })
    }

    /// A copy of what is mapped, which nobody else can change.
    pub(super) fn snapshot(&self) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so nothing that Rust knows of is overlapped.
        let start = unsafe {
            VirtualAlloc(
                std::ptr::null(),
                self.len,
                MEM_COMMIT | MEM_RESERVE,
                PAGE_READWRITE,
            )
        };
        let start: NonNull<u8> = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: both ranges have this length and do not overlap.
        unsafe { crate::sync::copy_from_shared(self.start, start.as_ptr(), self.len) };
        Ok(Self {
            start,
            len: self.len,
            private: true,
        })
    }

    /// First byte. Valid for `len()` bytes as long as the mapping lives.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// There is no fork.
    pub(crate) fn forked(&self) -> bool {
        false
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast();
        // SAFETY: ours since it was made, and nothing borrowed from `self` outlives it.
        unsafe {
            match self.private {
                true => VirtualFree(start, 0, MEM_RELEASE),
                false => UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: start }),
            }
        };
    }
}

/// Whether a handle of a section lets its holder write.
pub(super) fn is_writable(section: BorrowedHandle<'_>) -> io::Result<bool> {
    Ok(access_and_count(section)?.0 & SECTION_MAP_WRITE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gets_a_sealed_memory_can_write_to_it() {
        let mut memory = Memory::new(c"sealed", 3 * PAGE).unwrap();
        let ours = memory.map_all(Protection::ReadWrite).unwrap();
        memory.seal(Seal::FutureWrite).unwrap();
        let theirs = super::super::duplicate(memory.as_handle()).unwrap();
        for access in [SECTION_MAP_WRITE, READ_ONLY | SECTION_MAP_WRITE] {
            assert!(
                duplicate_for(theirs.as_handle(), access).is_err(),
                "a handle with {access:#x}"
            );
        }
        let theirs = Memory::from_peer(theirs, 1, 3 * PAGE).unwrap();
        assert!(theirs.map_all(Protection::ReadWrite).is_err());
        assert!(memory.map_all(Protection::ReadWrite).is_err());
        let view = theirs.map_all(Protection::Read).unwrap();
        // SAFETY: inside both mappings; nobody else writes.
        unsafe {
            ours.start().write_volatile(7);
            assert_eq!(view.start().read_volatile(), 7);
        }
    }

    #[test]
    fn what_is_no_memory_of_the_page_file_is_taken_for_one() {
        let event = super::super::event::event(true).unwrap();
        assert!(Memory::from_peer(event, 1, PAGE).is_err());
        let path = std::env::temp_dir().join(format!("ipmb-section-{}", std::process::id()));
        std::fs::write(&path, [1; PAGE]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        // SAFETY: the file is open; the section has no name.
        let of_file = unsafe {
            handle::made(CreateFileMappingW(
                file.as_raw_handle(),
                std::ptr::null(),
                windows_sys::Win32::System::Memory::PAGE_READONLY,
                0,
                0,
                std::ptr::null(),
            ))
        }
        .unwrap();
        assert!(Memory::from_peer(of_file, 1, PAGE).is_err());
        drop(file);
        std::fs::remove_file(&path).unwrap();
        let small = Memory::new(c"small", 1).unwrap();
        assert!(Memory::from_peer(small.into_handle().unwrap(), PAGE + 1, 2 * PAGE).is_err());
        let large = Memory::new(c"large", 2 * PAGE).unwrap();
        assert!(Memory::from_peer(large.into_handle().unwrap(), 1, PAGE).is_err());
    }
}
