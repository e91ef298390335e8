//! What the kernel alone takes to map memory of which all pages were written, to fault in the page in the middle, and to unmap
//! it and close its descriptor: prints the medians in nanoseconds, by size. No message, no second process.
//!
//! It shows how far handing over a region can be independent of its size: nobody can map one for less.

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

fn map(file: &File, size: usize, protection: libc::c_int) -> *mut u8 {
    // SAFETY: a new mapping at a place that the system chooses.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(start, libc::MAP_FAILED, "mmap");
    start.cast()
}

fn main() {
    println!("| size | map | fault | unmap, close | all |\n|---|--:|--:|--:|--:|");
    for (name, size) in SIZES {
        // SAFETY: the name is a string; the descriptor is owned from here on.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"mapping".as_ptr(), 0)) };
        file.set_len(size as u64).expect("memory");
        let start = map(&file, size, libc::PROT_WRITE);
        // SAFETY: the mapping of above, used by nobody else.
        unsafe {
            start.write_bytes(7, size);
            libc::munmap(start.cast(), size);
        }
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..COUNT {
            let copy = file.try_clone().expect("a descriptor");
            let begin = Instant::now();
            let start = map(&copy, size, libc::PROT_READ);
            let mapped = Instant::now();
            // SAFETY: inside the mapping.
            assert_eq!(unsafe { start.add(size / 2).read_volatile() }, 7);
            let read = Instant::now();
            // SAFETY: mapped above.
            unsafe { libc::munmap(start.cast(), size) };
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
        println!("| {name} | {} |", medians.join(" | "));
    }
}
