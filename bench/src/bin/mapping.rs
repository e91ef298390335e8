//! What the kernel alone takes to map memory of which all pages were written, to fault in the page in the middle, and to unmap
//! it and close its descriptor: prints the medians in nanoseconds, by size. No message, no second process.
//!
//! It shows how far handing over a region can be independent of its size: nobody can map one for less. Then the same with what could make a
//! large one cheaper: without the pages around the one that is faulted in (`MADV_RANDOM`), and at a place that is kept, of whose
//! neighbour a page is in use, so that page tables may stay.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd},
    time::Instant,
};

const SIZES: [(&str, usize); 5] = [
    ("4 KiB", 4 << 10),
    ("256 KiB", 256 << 10),
    ("16 MiB", 16 << 20),
    ("256 MiB", 256 << 20),
    ("1 GiB", 1 << 30),
];
const COUNT: usize = 2_000;

/// How to map.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Random,
    Kept,
}

const WAYS: [(&str, Way); 3] = [
    ("plain", Way::Plain),
    ("no pages around", Way::Random),
    ("a kept place", Way::Kept),
];

/// Maps a file, at `place` unless that is null.
fn map(file: &File, size: usize, protection: libc::c_int, place: *mut u8) -> *mut u8 {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: a new mapping at a place that the system chooses, or one that is the caller's.
    let start = unsafe {
        libc::mmap(
            place.cast(),
            size,
            protection,
            libc::MAP_SHARED | fixed,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(start, libc::MAP_FAILED, "mmap");
    start.cast()
}

/// Gives a mapping back; a kept place stays reserved.
///
/// # Safety
/// It must be one, and not be used any more.
unsafe fn unmap(start: *mut u8, size: usize, way: Way) {
    // SAFETY: as the caller promises.
    unsafe {
        if way != Way::Kept {
            libc::munmap(start.cast(), size);
            return;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let again = libc::mmap(start.cast(), size, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(again, libc::MAP_FAILED, "mmap");
    }
}

/// A place for so many bytes, with a page in use in front of it.
fn place(size: usize) -> *mut u8 {
    const PAGE: usize = 4096;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new mappings of nobody else's, whose first page is made writable and then written.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            PAGE + size,
            libc::PROT_NONE,
            flags,
            -1,
            0,
        );
        assert_ne!(start, libc::MAP_FAILED, "mmap");
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        assert_eq!(libc::mprotect(start, PAGE, writable), 0, "mprotect");
        start.cast::<u8>().write_volatile(1);
        start.cast::<u8>().add(PAGE)
    }
}

fn main() {
    println!("| way | size | map | fault | unmap, close | all |\n|---|---|--:|--:|--:|--:|");
    for (way_name, way) in WAYS {
        for (name, size) in SIZES {
            // SAFETY: the name is a string; the descriptor is owned from here on.
            let file = unsafe { File::from_raw_fd(libc::memfd_create(c"mapping".as_ptr(), 0)) };
            file.set_len(size as u64).expect("memory");
            let start = map(&file, size, libc::PROT_WRITE, std::ptr::null_mut());
            // SAFETY: the mapping of above, used by nobody else.
            unsafe {
                start.write_bytes(7, size);
                libc::munmap(start.cast(), size);
            }
            let place = match way {
                Way::Kept => place(size),
                _ => std::ptr::null_mut(),
            };
            let mut times = [const { Vec::new() }; 4];
            for _ in 0..COUNT {
                let copy = file.try_clone().expect("a descriptor");
                let begin = Instant::now();
                let start = map(&copy, size, libc::PROT_READ, place);
                if way == Way::Random {
                    // SAFETY: the mapping of above.
                    unsafe { libc::madvise(start.cast(), size, libc::MADV_RANDOM) };
                }
                let mapped = Instant::now();
                // SAFETY: inside the mapping.
                assert_eq!(unsafe { start.add(size / 2).read_volatile() }, 7);
                let read = Instant::now();
                // SAFETY: mapped above.
                unsafe { unmap(start, size, way) };
                drop(copy);
                let end = Instant::now();
                let spans = [mapped - begin, read - mapped, end - read, end - begin];
                for (times, span) in times.iter_mut().zip(spans) {
                    times.push(span.as_nanos());
                }
            }
            let medians = times.map(|mut times| {
                times.sort_unstable();
                times[COUNT / 2].to_string()
            });
            println!("| {way_name} | {name} | {} |", medians.join(" | "));
        }
    }
}
