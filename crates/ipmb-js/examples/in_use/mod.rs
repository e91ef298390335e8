//! What another process has in use, for tests where it cannot read that from a file.

use std::{
    ffi::c_void,
    os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle},
    ptr,
};
use windows_sys::{
    Wdk::System::SystemInformation::NtQuerySystemInformation,
    Win32::{
        Foundation::{INVALID_HANDLE_VALUE, LocalFree, STATUS_INFO_LENGTH_MISMATCH},
        System::{
            Diagnostics::ToolHelp::{
                CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First,
                Thread32Next,
            },
            Threading::{GetThreadDescription, OpenThread, THREAD_QUERY_LIMITED_INFORMATION},
        },
    },
};

/// Prints, as JSON, how many handles and threads a process has, and whether one of the latter is the library's serving
/// thread.
pub(crate) fn tell(pid: u32) {
    let names = threads(pid);
    println!(
        r#"{{ "handles": {}, "threads": {}, "serving": {} }}"#,
        handles(pid),
        names.len(),
        names.iter().any(|name| name == "ipmb")
    );
}

/// Counts in a list of all handles that there are, since `GetProcessHandleCount` is always 0 under Wine 8.
fn handles(pid: u32) -> usize {
    /// `SystemExtendedHandleInformation`.
    const ALL_HANDLES: i32 = 64;
    /// An entry in words. The second one is the process; the first one of the list is how many there are.
    const ENTRY: usize = if cfg!(target_pointer_width = "64") {
        5
    } else {
        7
    };
    let mut list = vec![0usize; 1 << 16];
    loop {
        let size = size_of_val(&*list) as u32;
        let place = list.as_mut_ptr().cast::<c_void>();
        // SAFETY: a place of that size for the list, and none for the size that it would have.
        match unsafe { NtQuerySystemInformation(ALL_HANDLES, place, size, ptr::null_mut()) } {
            STATUS_INFO_LENGTH_MISMATCH => list.resize(list.len() * 2, 0),
            status => {
                assert_eq!(status, 0);
                break;
            }
        }
    }
    let entries = list[2..].chunks_exact(ENTRY).take(list[0]);
    entries.filter(|entry| entry[1] == pid as usize).count()
}

/// The names of a process's threads; empty for those without one.
fn threads(pid: u32) -> Vec<String> {
    let mut entry = THREADENTRY32 {
        dwSize: size_of::<THREADENTRY32>() as u32,
        ..Default::default()
    };
    let mut names = Vec::new();
    // SAFETY: the snapshot is this function's, and the entry says how large it is.
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
        assert_ne!(snapshot, INVALID_HANDLE_VALUE);
        let snapshot = OwnedHandle::from_raw_handle(snapshot);
        let mut more = Thread32First(snapshot.as_raw_handle(), &raw mut entry);
        while more != 0 {
            if entry.th32OwnerProcessID == pid {
                names.push(name(entry.th32ThreadID));
            }
            more = Thread32Next(snapshot.as_raw_handle(), &raw mut entry);
        }
    }
    names
}

fn name(thread: u32) -> String {
    let mut name = ptr::null_mut();
    // SAFETY: the handle is this function's, and so is the text that is made for it.
    unsafe {
        let thread = OpenThread(THREAD_QUERY_LIMITED_INFORMATION, 0, thread);
        if thread.is_null() {
            return String::new(); // It has ended meanwhile.
        }
        let thread = OwnedHandle::from_raw_handle(thread);
        if GetThreadDescription(thread.as_raw_handle(), &raw mut name) < 0 {
            return String::new();
        }
        let len = (0..).take_while(|at| *name.add(*at) != 0).count();
        let text = String::from_utf16_lossy(std::slice::from_raw_parts(name, len));
        LocalFree(name.cast());
        text
    }
}
