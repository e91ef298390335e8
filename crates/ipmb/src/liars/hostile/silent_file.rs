//! A file whose system does not answer when it is closed: the least that fuse(4) and the kernel's `fuse.h` ask for.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
};

// Requests, and where their fields lie in the header.
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPCODE: usize = 4;
const UNIQUE: usize = 8;

/// The mounted file and its server, a thread of this process.
pub(super) struct SilentFile {
    path: PathBuf,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    /// Requests of closes that wait for their answer.
    waiting: Vec<u64>,
    answers: bool,
}

impl SilentFile {
    pub(super) fn new() -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let path = std::env::temp_dir().join(format!("ipmb-silent-{}", std::process::id()));
        File::create(&path)?;
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let options = format!(
            "fd={},rootmode=100644,user_id={},group_id={}\0",
            device.as_raw_fd(),
            user.as_raw(),
            group.as_raw()
        );
        let mut target = path.clone().into_os_string().into_encoded_bytes();
        target.push(0);
        // SAFETY: strings that end with NUL and live longer than the call.
        let mounted = unsafe {
            libc::mount(
                c"ipmb-test".as_ptr(),
                target.as_ptr().cast(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            let error = io::Error::last_os_error();
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let served = state.clone();
        let mut requests = device.try_clone()?;
        std::thread::spawn(move || {
            let mut request = vec![0; 1 << 17];
            // Until it is unmounted.
            while requests.read(&mut request).is_ok() {
                let (opcode, unique) = (word(&request, OPCODE), long(&request, UNIQUE));
                match opcode {
                    FLUSH => {
                        let mut state = served.0.lock().unwrap();
                        if !state.answers {
                            state.waiting.push(unique);
                            continue;
                        }
                        drop(state);
                        reply(&requests, unique, 0, &[]);
                    }
                    INIT => {
                        let mut body = [0; 64];
                        put(&mut body, 0, 7);
                        put(&mut body, 4, 31);
                        put(&mut body, 20, 1 << 16);
                        reply(&requests, unique, 0, &body);
                    }
                    GETATTR => {
                        let mut body = [0; 104];
                        put(&mut body, 16, 1);
                        put(&mut body, 16 + 60, libc::S_IFREG | 0o644);
                        put(&mut body, 16 + 64, 1);
                        reply(&requests, unique, 0, &body);
                    }
                    OPEN => reply(&requests, unique, 0, &[0; 16]),
                    RELEASE => reply(&requests, unique, 0, &[]),
                    _ => reply(&requests, unique, -libc::ENOSYS, &[]),
                }
            }
        });
        let answering = state.clone();
        std::thread::spawn(move || {
            let (state, changed) = &*answering;
            let mut state = state.lock().unwrap();
            while !state.answers {
                state = changed.wait(state).unwrap();
            }
            for unique in state.waiting.drain(..) {
                reply(&device, unique, 0, &[]);
            }
        });
        Ok(Self { path, state })
    }

    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// How many closes wait.
    pub(super) fn waiting(&self) -> usize {
        self.state.0.lock().unwrap().waiting.len()
    }

    /// From now on closes are answered, those that wait included.
    pub(super) fn answer(&self) {
        self.state.0.lock().unwrap().answers = true;
        self.state.1.notify_all();
    }
}

impl Drop for SilentFile {
    fn drop(&mut self) {
        self.answer();
        let mut target = self.path.clone().into_os_string().into_encoded_bytes();
        target.push(0);
        // SAFETY: a string that ends with NUL.
        unsafe { libc::umount2(target.as_ptr().cast(), libc::MNT_DETACH) };
        let _ = std::fs::remove_file(&self.path);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn reply(mut device: &File, unique: u64, error: i32, body: &[u8]) {
    let mut bytes = Vec::new();
    bytes.extend((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(error.to_ne_bytes());
    bytes.extend(unique.to_ne_bytes());
    bytes.extend(body);
    // Who asked may have been killed meanwhile.
    let _ = device.write_all(&bytes);
}
