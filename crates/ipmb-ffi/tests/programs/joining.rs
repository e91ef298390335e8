//! Who gets in: the codes of a join that fails, against peers that make it fail.

use super::{
    SOON, build, name,
    program::{Program, command},
};
use ipmb::{BytesMessage, Options, label};
use std::{
    fs,
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
};

/// A user who owns nothing here.
const NOBODY: u32 = 61_234;

fn root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// What `join` says when it joins this bus: its code.
fn code(arguments: &[&str]) -> Option<String> {
    let mut program = Program::start("tests/join", arguments)?;
    let said = program.hear();
    let (code, text) = said.split_once(' ').unwrap_or((&said, ""));
    assert!(code == "0" || !text.is_empty(), "no text for {code}");
    if code == "0" {
        program.tell();
    }
    program.end();
    Some(code.to_owned())
}

fn expect(arguments: &[&str], expected: &str) {
    if let Some(code) = code(arguments) {
        assert_eq!(code, expected, "{arguments:?}");
    }
}

#[test]
fn a_join_without_a_controller_or_with_another_token_has_the_wrong_code() {
    let bus = name("joins");
    expect(&[&bus, "token", "no", "50"], "-2");
    let options = Options::new(&bus, label!("test"), "token");
    let joined = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).unwrap();
    expect(&[&bus, "other", "yes", "20000"], "-5");
    expect(&[&bus, "token", "no", "20000"], "0");
    drop(joined);
}

#[test]
fn a_stopped_controller_is_not_named() {
    let bus = name("stopped");
    let Some(mut controller) = Program::start("tests/join", &[&bus, "token", "yes", "20000"])
    else {
        return;
    };
    assert_eq!(controller.hear().trim(), "0");
    controller.signal(libc::SIGSTOP);
    expect(&[&bus, "token", "yes", "300"], "-13");
    controller.signal(libc::SIGCONT);
    expect(&[&bus, "token", "yes", "20000"], "0");
    controller.tell();
    controller.end();
}

#[test]
fn a_bus_without_a_controller_is_not_told_from_one_where_nobody_matches() {
    let bus = name("settling");
    let Some(mut controller) = Program::start("tests/join", &[&bus, "token", "yes", "20000"])
    else {
        return;
    };
    assert_eq!(controller.hear().trim(), "0");
    let mut peer = Program::start("tests/peer_c", &["settling", &bus]).unwrap();
    peer.expect("ready");
    controller.signal(libc::SIGKILL);
    peer.expect("bye");
    peer.end();
}

/// A directory that everybody may read.
fn scratch(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(name(test));
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn another_user_gets_in_or_is_told_something_else() {
    let Some(programs) = build::programs() else {
        return;
    };
    if !root() {
        println!("SKIPPED: only root can play another user");
        return;
    }
    let bus = name("denied");
    let options = Options::new(&bus, label!("test"), "token");
    let joined = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).unwrap();
    // The statically linked program needs nothing else of a directory that the other user may not enter.
    let dir = scratch("denied");
    let program = dir.join("join");
    fs::copy(programs.join("tests/join"), &program).unwrap();
    let mut command = command(&program);
    command
        .args([&bus, "token", "no", "20000", "", "0"])
        .uid(NOBODY)
        .gid(NOBODY);
    let mut program = Program::spawn(&mut command);
    assert!(program.hear().starts_with("-6 "));
    program.end();
    drop(joined);
    fs::remove_dir_all(dir).unwrap();
}

/// A socket at `path` that accepts one connection, in the name of the calling thread's user.
fn listen(path: &Path) -> OwnedFd {
    // SAFETY: plain calls; the address is filled below; the descriptor is owned from here on.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_encoded_bytes();
        assert!(bytes.len() < address.sun_path.len());
        for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
            *place = *byte as libc::c_char;
        }
        let size = size_of_val(&address) as libc::socklen_t;
        assert_eq!(
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size),
            0
        );
        fd
    }
}

#[test]
fn a_bus_of_a_later_protocol_is_joined_or_called_something_else() {
    if build::programs().is_none() {
        return;
    }
    let dir = scratch("version");
    let path = dir.join("bus");
    let listener = listen(&path);
    // SAFETY: a socket of ours.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 8) }, 0);
    let controller = std::thread::spawn(move || {
        // SAFETY: a socket of ours; the connection is owned from here on.
        let connection = unsafe {
            let fd = libc::accept(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            assert!(fd >= 0);
            OwnedFd::from_raw_fd(fd)
        };
        // The hello that a controller of protocol 2.0 says: the mark (as postcard writes a u32), the version, a nonce.
        let mut hello = Vec::new();
        let mut mark = u32::from_le_bytes(*b"ipmb");
        while mark >= 0x80 {
            hello.push(mark as u8 | 0x80);
            mark >>= 7;
        }
        hello.extend([mark as u8, 2, 0]);
        hello.extend([7; 32]);
        let mut connection = fs::File::from(connection);
        connection.write_all(&hello).unwrap();
        // Until the other has read it and hung up.
        let _ = std::io::Read::read_to_end(&mut connection, &mut Vec::new());
    });
    let bus = name("version");
    let path = path.to_str().unwrap();
    expect(&[&bus, "token", "no", "20000", path], "-4");
    controller.join().unwrap();
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_name_that_another_user_holds_is_not_told_from_others() {
    if build::programs().is_none() {
        return;
    }
    if !root() {
        println!("SKIPPED: only root can play another user");
        return;
    }
    let dir = scratch("squatted");
    let path = dir.join("bus");
    let listener = listen(&path);
    // The user who calls `listen` is the one whom others see. The call below changes this thread's user only, so the
    // thread is one of its own.
    let listener = std::thread::spawn(move || {
        // SAFETY: numbers only; and a socket of ours.
        unsafe {
            let id = NOBODY as libc::c_long;
            assert_eq!(libc::syscall(libc::SYS_setresuid, -1, id, -1), 0);
            assert_eq!(libc::listen(listener.as_raw_fd(), 8), 0);
        }
        listener
    });
    let listener = listener.join().unwrap();
    let bus = name("squatted");
    expect(
        &[&bus, "token", "no", "20000", path.to_str().unwrap()],
        "-23",
    );
    drop(listener);
    fs::remove_dir_all(dir).unwrap();
}
