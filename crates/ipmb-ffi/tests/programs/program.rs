//! A C or C++ program that a test runs and talks with.

use super::build;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running program. It says lines that begin with `SAY`.
pub struct Program {
    pub child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts `programs/NAME` with these arguments. `None` if there are no programs here.
    pub fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        Some(Self::spawn(
            command(&build::programs()?.join(name)).args(arguments),
        ))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            input: Some(input),
            output,
        }
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let n = self.output.read_line(&mut line).expect("read");
            assert!(n > 0, "the program ended without a word");
            if let Some(said) = line.strip_prefix("SAY ") {
                return said.trim_end().to_owned();
            }
        }
    }

    pub fn expect(&mut self, said: &str) {
        assert_eq!(self.hear(), said);
    }

    /// Lets it go on.
    pub fn tell(&mut self) {
        writeln!(self.input.as_mut().expect("still told")).expect("tell");
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the id is its.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// It ends well. The sanitizers' findings make it end badly.
    pub fn end(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "the program failed: {status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command with what the sanitizers need to know.
pub fn command(program: &Path) -> Command {
    let suppressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/leaks-on-purpose");
    let mut command = Command::new(program);
    command
        // A test asks for more memory than there can be, and wants the error.
        .env("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=1")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .env(
            "LSAN_OPTIONS",
            format!(
                "suppressions={}:print_suppressions=0",
                suppressions.display()
            ),
        );
    command
}
