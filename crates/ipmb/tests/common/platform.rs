//! What tests ask of the system: the same by several names.

use super::Peer;
use std::{fs::File, time::Duration};

/// Tests that a system cannot have: each says so and why, and is counted as skipped.
#[allow(unused_macros)]
macro_rules! skipped_on_windows {
    ($($test:ident: $why:literal;)*) => {
        $(
            #[cfg(windows)]
            #[test]
            fn $test() {
                println!("SKIPPED {}: {}", stringify!($test), $why);
            }
        )*
    };
}
pub(crate) use skipped_on_windows;

#[cfg(unix)]
mod system {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// What one can wait for.
    pub use std::os::fd::AsFd as Waitable;
    pub use std::os::fd::OwnedFd as Owned;
    #[cfg(not(target_os = "macos"))]
    pub use std::os::fd::RawFd as Raw;
    /// The name of a port.
    #[cfg(target_os = "macos")]
    pub type Raw = u32;

    /// The descriptor of an object. On some systems an object need not have one.
    #[allow(clippy::unnecessary_fallible_conversions)]
    pub fn owned(object: ipmb::Object) -> Owned {
        Owned::try_from(object).expect("a descriptor")
    }

    /// A file that can always be opened.
    pub const ANY_FILE: &str = "/dev/null";

    /// Whether an error can name a process that is stopped: the system says that it is.
    pub const NAMES_STOPPED: bool = true;
    /// Whether a bus can have a path.
    pub const HAS_PATHS: bool = true;
    /// Whether the table of a process can be filled.
    pub const FILLS_TABLES: bool = true;

    /// Whether the system keeps sockets under way whose sender is gone. macOS 11 does not.
    pub fn keeps_orphans() -> bool {
        if cfg!(not(target_os = "macos")) {
            return true;
        }
        let said = std::process::Command::new("uname").arg("-r").output();
        !said.expect("uname").stdout.starts_with(b"20.")
    }

    /// An empty file that is gone when its last descriptor is closed.
    pub fn scratch_file() -> std::fs::File {
        let path = std::env::temp_dir().join(crate::common::name("file"));
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create_new(true).open(&path);
        std::fs::remove_file(path).expect("a file");
        file.expect("a file")
    }

    /// What is written to the object can be read here; the end, too.
    pub fn stream() -> (impl std::io::Read, ipmb::Object) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
        ours.set_read_timeout(super::super::SOON).expect("timeout");
        (ours, theirs.into())
    }

    /// Whether it becomes ready within the time.
    pub fn is_ready(what: &impl Waitable, timeout: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as _,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(what.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout)) == Ok(1)
    }

    /// Lets this process have up to 4,096 descriptors, and says how many it may have.
    pub fn allow_handles() -> u64 {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.map_or(4096, |most| most.min(4096));
        limit.current = Some(most);
        setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
        most
    }

    /// CPU time of this thread.
    pub fn cpu() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// How many descriptors this process has open.
    pub fn descriptors() -> usize {
        std::fs::read_dir(crate::common::DESCRIPTORS)
            .expect("list")
            .count()
    }

    impl Peer {
        pub fn signal(&self, signal: i32) {
            // SAFETY: the child was not waited for, so the id is its.
            assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
        }

        /// Stops the process and returns when all its threads have stopped.
        pub fn stop(&self) {
            self.signal(libc::SIGSTOP);
            // SAFETY: the structure is plain data that the kernel fills; the child is ours and stays waitable.
            let stopped = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let flags = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
                libc::waitid(libc::P_PID, self.child.id(), &raw mut info, flags)
            };
            assert_eq!(stopped, 0);
        }

        /// Lets a stopped process run again.
        pub fn go_on(&self) {
            self.signal(libc::SIGCONT);
        }
    }
}

#[cfg(windows)]
mod system {
    use super::*;
    use std::os::windows::{
        fs::OpenOptionsExt as _,
        io::{AsRawHandle as _, FromRawHandle as _, RawHandle},
    };
    use windows_sys::Win32::{
        Foundation::{FILETIME, WAIT_OBJECT_0},
        Storage::FileSystem::FILE_FLAG_DELETE_ON_CLOSE,
        System::{
            Pipes::CreatePipe,
            Threading::{GetCurrentThread, GetThreadTimes, WaitForSingleObject},
        },
    };

    /// What one can wait for.
    pub use std::os::windows::io::AsHandle as Waitable;
    pub use std::os::windows::io::OwnedHandle as Owned;
    pub use std::os::windows::io::RawHandle as Raw;

    /// The handle of an object.
    pub fn owned(object: ipmb::Object) -> Owned {
        object.into()
    }

    /// A file that can always be opened.
    pub const ANY_FILE: &str = "NUL";

    /// Whether an error can name a process that is stopped: a suspended one looks like any other here.
    pub const NAMES_STOPPED: bool = false;
    /// Whether a bus can have a path.
    pub const HAS_PATHS: bool = false;
    /// Whether the table of a process can be filled.
    pub const FILLS_TABLES: bool = false;

    #[link(name = "ntdll", kind = "raw-dylib")]
    unsafe extern "system" {
        fn NtSuspendProcess(process: RawHandle) -> i32;
        fn NtResumeProcess(process: RawHandle) -> i32;
        fn NtQuerySystemInformation(class: i32, into: *mut usize, size: u32, all: *mut u32) -> i32;
    }

    /// An empty file that is gone when its last handle is closed.
    pub fn scratch_file() -> File {
        let path = std::env::temp_dir().join(crate::common::name("scratch"));
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options.custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
        options.open(path).expect("a file")
    }

    /// What is written to the object can be read here; the end, too.
    pub fn stream() -> (impl std::io::Read, ipmb::Object) {
        let (mut ours, mut theirs) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: places for the results; whoever starts a process inherits neither.
        let made = unsafe { CreatePipe(&raw mut ours, &raw mut theirs, std::ptr::null(), 0) };
        assert_ne!(made, 0);
        // SAFETY: opened just now, and nobody else has them.
        let (ours, theirs) =
            unsafe { (File::from_raw_handle(ours), Owned::from_raw_handle(theirs)) };
        (ours, theirs.into())
    }

    /// Whether it becomes ready within the time.
    pub fn is_ready(what: &impl Waitable, timeout: Duration) -> bool {
        let handle = what.as_handle().as_raw_handle();
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(handle, timeout.as_millis() as u32) == WAIT_OBJECT_0 }
    }

    /// How many handles this process may have.
    pub fn allow_handles() -> u64 {
        1 << 24
    }

    /// CPU time of this thread.
    pub fn cpu() -> Duration {
        let mut times = [FILETIME::default(); 4];
        let [start, end, kernel, user] = &mut times;
        // SAFETY: a constant that stands for this thread, and places for the results.
        let done = unsafe { GetThreadTimes(GetCurrentThread(), start, end, kernel, user) };
        assert_ne!(done, 0);
        let ticks =
            |time: &FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
        Duration::from_nanos(100 * (ticks(kernel) + ticks(user)))
    }

    /// How many handles this process has open. `GetProcessHandleCount` is always 0 under Wine 8, so this counts in a list of
    /// all there are.
    pub fn descriptors() -> usize {
        /// `SystemExtendedHandleInformation`, and what it fails with where there is not enough space.
        const ALL_HANDLES: i32 = 64;
        const TOO_LONG: i32 = 0xc000_0004_u32 as i32;
        /// An entry in words. The second one is the process, the first one of the list is how many there are.
        const ENTRY: usize = if cfg!(target_pointer_width = "64") {
            5
        } else {
            7
        };
        let mut list = vec![0usize; 1 << 16];
        loop {
            let size = size_of_val(&*list) as u32;
            let place = list.as_mut_ptr();
            // SAFETY: a place of that size for the list, and none for the size that it would have.
            let status =
                unsafe { NtQuerySystemInformation(ALL_HANDLES, place, size, std::ptr::null_mut()) };
            if status != TOO_LONG {
                assert_eq!(status, 0);
                break;
            }
            list.resize(list.len() * 2, 0);
        }
        let entries = list[2..].chunks_exact(ENTRY).take(list[0]);
        let ours = std::process::id() as usize;
        entries.filter(|entry| entry[1] == ours).count()
    }

    impl Peer {
        /// Stops all threads of the process.
        pub fn stop(&self) {
            // SAFETY: the child's own handle.
            let status = unsafe { NtSuspendProcess(self.child.as_raw_handle()) };
            assert_eq!(status, 0);
        }

        /// Lets a stopped process run again.
        pub fn go_on(&self) {
            // SAFETY: the child's own handle.
            let status = unsafe { NtResumeProcess(self.child.as_raw_handle()) };
            assert_eq!(status, 0);
        }
    }
}

pub use system::*;
