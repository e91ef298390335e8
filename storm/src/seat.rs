//! Who hosts the controller: whoever listens at the bus's address.

use std::{
    io::{self, Read},
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The names that the kernel knows of this bus.
pub fn names(bus: &str) -> Vec<String> {
    let mut text = String::new();
    let read = std::fs::File::open("/proc/net/unix").and_then(|mut f| f.read_to_string(&mut text));
    match read {
        Ok(_) => text
            .lines()
            .filter_map(|l| l.split_once(" @").map(|(_, name)| name.to_owned()))
            .filter(|name| name.ends_with(&format!("={bus}")))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// The process that listens. `None`: nobody does now.
pub fn holder(bus: &str) -> Option<u32> {
    // SAFETY: no pointers; the result is a new descriptor, which nobody else owns.
    let socket = unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))?
    };
    // SAFETY: no arguments.
    let user = unsafe { libc::geteuid() };
    let name = format!("\0ipmb/{PROTOCOL}/{user}/={bus}");
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, byte) in address.sun_path.iter_mut().zip(name.bytes()) {
        *to = byte as libc::c_char;
    }
    let size = size_of::<libc::sa_family_t>() + name.len();
    // SAFETY: the address is complete for `size` bytes.
    let connected = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size as libc::socklen_t,
        )
    };
    if connected != 0 {
        return None;
    }
    let mut who: libc::ucred = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to the structure.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &raw mut size,
        )
    };
    if asked != 0 {
        eprintln!("SO_PEERCRED: {}", io::Error::last_os_error());
        return None;
    }
    u32::try_from(who.pid).ok()
}

/// Part of the name.
const PROTOCOL: u32 = 1;
