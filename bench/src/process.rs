//! The processes of a measurement: this program again, told by the environment what to do. They talk in lines of JSON.

use crate::rows::Role;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

const ROLE: &str = "IPMB_BENCH_ROLE";
const LIMIT: &str = "IPMB_BENCH_LIMIT";

/// A process that runs for longer waits in vain: a message was lost.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A child process that plays a role.
pub struct Actor {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Actor {
    pub fn start(role: &Role) -> Result<Self, String> {
        Self::start_under(&[], role, TIME_LIMIT)
    }

    /// The same for at most `limit`, and under another command, which runs what it is given.
    pub fn start_under(under: &[String], role: &Role, limit: Duration) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut words = under.to_vec();
        words.push(program.to_string_lossy().into_owned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env(
                ROLE,
                serde_json::to_string(role).map_err(|e| e.to_string())?,
            )
            .env(LIMIT, limit.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("starting {}: {e}", words[0]))?;
        Ok(Self {
            name: role.name(),
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().ok_or("no output")?),
            child,
        })
    }

    /// What the process says next.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(n) if n > 0 => {
                serde_json::from_str(&line).map_err(|e| format!("{} said {line:?}: {e}", self.name))
            }
            _ => {
                let _ = self.child.kill();
                let status = self.child.wait().map_err(|e| e.to_string())?;
                Err(format!("{} ended early ({status})", self.name))
            }
        }
    }

    /// Waits for the word that it is ready.
    pub fn ready(&mut self) -> Result<(), String> {
        self.hear::<()>()
    }

    pub fn tell(&mut self, what: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("nothing more is told")?;
        writeln!(input, "{what}").map_err(|e| format!("{}: {e}", self.name))
    }

    /// Ends its input: it is to come to its end.
    pub fn close(&mut self) {
        drop(self.input.take());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the id is its.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends its input and waits for its end.
    pub fn finish(&mut self) -> Result<(), String> {
        self.close();
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} ended with {status}", self.name))
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In a child: plays its role. False: this is no child.
pub fn play_if_child() -> bool {
    let Ok(role) = std::env::var(ROLE) else {
        return false;
    };
    let role: Role = serde_json::from_str(&role).expect("a role that is cut");
    let limit = std::env::var(LIMIT).map(|l| l.parse().expect("seconds"));
    // Shown by perf and ps.
    let name = std::ffi::CString::new(role.name()).expect("no zero");
    // SAFETY: a string with a NUL; signals that end a process whose parent is gone, or that waits in vain.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::alarm(limit.unwrap_or(TIME_LIMIT.as_secs() as u32));
    }
    role.play();
    true
}

/// In a child: tells the parent something.
pub fn say<T: Serialize>(what: &T) {
    let mut text = serde_json::to_string(what).expect("plain data");
    text.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).expect("say");
    output.flush().expect("say");
}

/// In a child: the next line from the parent; `None` at the end.
pub fn listen() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}

/// Sets the number of descriptors that this process may have.
pub fn limit_descriptors(count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    // SAFETY: plain data.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(done, 0, "the limit of descriptors must be at least {count}");
}
