//! Starts further processes of a test: the test's own program again, told by the environment to play one role.

#![allow(dead_code, unused_imports, clippy::expect_used)]
#![allow(clippy::disallowed_types)] // Atomics between its own threads.

mod platform;

pub(crate) use platform::skipped_on_windows;
pub use platform::*;

use ipmb::{EndpointReceiver, EndpointSender, Label, MessageBox, Options};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

pub const SOON: Option<Duration> = Some(Duration::from_secs(60));

/// Why a test is left out where the names of [`NAMES_STOPPED`] and its neighbours are false.
pub const STOPPED: &str =
    "whether a process is suspended is not known there, so that no error names it";
pub const PATHS: &str = "a bus has no path there";
pub const TABLES: &str = "a process can have 16 million handles there, and memory runs out before";

/// A bus name that no other test, and no other run, uses.
pub fn name(test: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "test.{test}.{}.{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub fn join<T: MessageBox, R: MessageBox>(
    bus: &str,
    label: Label,
) -> (EndpointSender<T>, EndpointReceiver<R>) {
    ipmb::join(Options::new(bus, label, "token"), SOON).expect("join")
}

/// Another process that plays `role` of this test program.
pub struct Peer {
    pub child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the test `entry` of this program as `role` on `bus`. The command in `IPMB_TEST_RUNNER`, if set, runs it.
    pub fn start(entry: &str, role: &str, bus: &str) -> Self {
        Self::start_under(&[], entry, role, bus)
    }

    /// The same under another command, which runs what it is given.
    pub fn start_under(under: &[&str], entry: &str, role: &str, bus: &str) -> Self {
        Self::spawn(command(under), entry, role, bus)
    }

    /// The same of another test program.
    pub fn start_program(program: &std::ffi::OsStr, entry: &str, role: &str, bus: &str) -> Self {
        Self::spawn(Command::new(program), entry, role, bus)
    }

    fn spawn(mut command: Command, entry: &str, role: &str, bus: &str) -> Self {
        let mut child = command
            .args([entry, "--exact", "--nocapture", "--test-threads=1"])
            .env("IPMB_TEST_ROLE", role)
            .env("IPMB_TEST_BUS", bus)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a peer");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            input: Some(input),
            output,
        }
    }

    /// The next line that the peer said with [`say`].
    pub fn hear(&mut self) -> String {
        self.hear_if_it_lives()
            .expect("the peer ended without a word")
    }

    /// The next line, `None` if the peer has ended.
    pub fn hear_if_it_lives(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line).expect("read") == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once("SAY ") {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    pub fn expect(&mut self, said: &str) {
        assert_eq!(self.hear(), said);
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("still told"), "{line}").expect("tell");
    }

    /// The same, to one that may have died.
    pub fn tell_if_it_lives(&mut self, line: &str) {
        let _ = writeln!(self.input.as_mut().expect("still told"), "{line}");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub fn wait(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "the peer failed: {status}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a peer: what it was started as, and on which bus.
pub fn role() -> Option<(String, String)> {
    Some((
        std::env::var("IPMB_TEST_ROLE").ok()?,
        std::env::var("IPMB_TEST_BUS").ok()?,
    ))
}

/// In a peer: tells the test something.
pub fn say(what: &str) {
    println!("SAY {what}");
}

/// In a peer: the next line from the test, `None` when the test is over.
pub fn listen() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}

/// Where this process's open descriptors are listed.
pub const DESCRIPTORS: &str = if cfg!(target_os = "macos") {
    "/dev/fd"
} else {
    "/proc/self/fd"
};

/// Whether a test has to be left out because the system lacks something; says so by name.
pub fn lacks(has: bool, test: &str, why: &str) -> bool {
    if !has {
        skip(test, why);
    }
    !has
}

/// Whether a test has to be left out because this is not Linux; says so by name.
pub fn needs_linux(test: &str, why: &str) -> bool {
    lacks(
        cfg!(any(target_os = "linux", target_os = "android")),
        test,
        why,
    )
}

/// Runs a test in a process of its own, because others count or use up descriptors, too. True in that process.
pub fn alone(test: &str) -> bool {
    alone_under(&[], test)
}

/// The same under another command, which runs what it is given.
pub fn alone_under(under: &[&str], test: &str) -> bool {
    if role().is_some() {
        return false;
    }
    if std::env::var_os("IPMB_TEST_ALONE").is_some() {
        return true;
    }
    let status = command(under)
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env("IPMB_TEST_ALONE", "1")
        .status()
        .expect("start");
    assert!(status.success());
    false
}

/// Says that a test cannot run here, and why. These lines are counted.
pub fn skip(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

/// Whether the kernel marks the words of threads that die: an emulator may have no robust lists. Without, a controller's death
/// shows when its channels hang up, and a send in between goes by its directory.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn marks_owners() -> bool {
    let (mut head, mut len) = (std::ptr::null_mut::<libc::c_void>(), 0usize);
    // SAFETY: both places are valid; the kernel writes to them.
    unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) == 0 }
}

/// Other systems do not.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn marks_owners() -> bool {
    false
}

/// Whether this user may make a network namespace, in which the names of buses are separate.
pub fn may_unshare_net() -> bool {
    let allowed = Command::new("unshare").args(["--net", "true"]).status();
    allowed.is_ok_and(|status| status.success())
}

/// This test program under the command `under`, and that of `IPMB_TEST_RUNNER` if it is set.
fn command(under: &[&str]) -> Command {
    let program = std::env::current_exe().expect("own path");
    let mut words: Vec<std::ffi::OsString> = under.iter().map(Into::into).collect();
    if let Some(runner) = std::env::var_os("IPMB_TEST_RUNNER") {
        words.push(runner);
    }
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}
