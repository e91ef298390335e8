//! Builds and installs the library with CMake, and the test programs and examples against what was installed, once per run.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Where the programs are; `None`, with a line that says why, if they cannot be built here.
pub fn programs() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

/// Whether the programs have the sanitizers in them.
pub fn sanitized() -> bool {
    env::var_os("IPMB_SANITIZE").is_some()
}

fn has(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg("--version");
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn build() -> Option<PathBuf> {
    for tool in ["cmake", "cc", "c++"] {
        if !has(tool) {
            println!("SKIPPED: {tool} is missing, so no C and C++ programs are built and run");
            return None;
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = scratch.parent().expect("tmp lies in the target directory");
    let (profile, sanitize) = match cfg!(debug_assertions) {
        true => ("Debug", if sanitized() { "ON" } else { "OFF" }),
        false => ("Release", if sanitized() { "ON" } else { "OFF" }),
    };
    let work = scratch.join(format!("ipmb-ffi-{profile}-{sanitize}"));
    let (library, prefix) = (work.join("library"), work.join("prefix"));
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run(cmake(source, &library)
        .arg(format!("-DCMAKE_BUILD_TYPE={profile}"))
        .arg(format!("-DCARGO={cargo}"))
        .arg(format!("-DCARGO_TARGET_DIR={}", target.display())));
    run(Command::new("cmake").arg("--build").arg(&library));
    let mut install = Command::new("cmake");
    install.arg("--install").arg(&library).arg("--prefix");
    run(install.arg(&prefix));
    for (what, of) in [("tests", "tests/c"), ("examples", "examples")] {
        let binary = work.join(what);
        run(cmake(&source.join(of), &binary)
            .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
            .arg(format!("-DSANITIZE={sanitize}"))
            .arg(format!("-DEXPECTED_VERSION={}", env!("CARGO_PKG_VERSION")))
            .arg(format!("-DCMAKE_BUILD_TYPE={profile}")));
        run(Command::new("cmake").arg("--build").arg(&binary));
    }
    Some(work)
}

fn cmake(source: &Path, binary: &Path) -> Command {
    let mut command = Command::new("cmake");
    command.arg("-S").arg(source).arg("-B").arg(binary);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("start cmake");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
