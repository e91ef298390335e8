//! What a program may set when it joins, beyond `Options`.

use crate::{
    border,
    code::{ErrorCode, Failure},
    handle::{self, Kind},
    selector::timeout,
};
use libc::size_t;
use std::{
    ffi::{c_char, c_void},
    path::PathBuf,
    ptr,
    time::Duration,
};

/// What a program may set when it joins a bus, beyond Options. Owned by the caller: free it with ipmb_settings_drop. One
/// thread at a time may use it.
pub type Settings = *mut c_void;

/// What is not set keeps the default of the crate `ipmb`.
#[derive(Default)]
pub(crate) struct Chosen {
    max_payload: Option<usize>,
    max_region: Option<u64>,
    link_capacity: Option<usize>,
    self_queue: Option<usize>,
    spin: Option<Duration>,
    idle_link: Option<Duration>,
    path: Option<PathBuf>,
    owner: Option<u32>,
    access: Option<ipmb::Access>,
}

impl Kind for Chosen {
    const NAME: &'static str = "Settings";
    const TAG: [u8; 8] = *b"ipmb set";
}

impl Chosen {
    pub(crate) fn apply(&self, mut options: ipmb::Options) -> ipmb::Options {
        if let Some(bytes) = self.max_payload {
            options = options.max_payload(bytes);
        }
        if let Some(bytes) = self.max_region {
            options = options.max_region(bytes);
        }
        if let Some(bytes) = self.link_capacity {
            options = options.link_capacity(bytes);
        }
        if let Some(bytes) = self.self_queue {
            options = options.self_queue(bytes);
        }
        if let Some(time) = self.spin {
            options = options.spin(time);
        }
        if let Some(time) = self.idle_link {
            options = options.idle_link(time);
        }
        if let Some(path) = &self.path {
            options = options.path(path);
        }
        if let Some(uid) = self.owner {
            options = options.owner(uid);
        }
        if let Some(access) = &self.access {
            options = options.access(access.clone());
        }
        options
    }
}

/// Settings with all defaults.
///
/// Ownership: the caller frees them with ipmb_settings_drop. Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_settings() -> Settings {
    border::value(ptr::null_mut(), || Ok(handle::give(Chosen::default())))
}

/// Frees settings. NULL is fine. Endpoints that joined with them keep a copy.
///
/// Takes ownership of the settings. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_drop(settings: Settings) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<Chosen>(settings) });
}

unsafe fn set(
    settings: *mut Settings,
    change: impl FnOnce(&mut Chosen) -> Result<(), Failure>,
) -> ErrorCode {
    // SAFETY: the caller's contract.
    border::code(|| change(unsafe { handle::get_mut::<Chosen>(settings)? }))
}

/// The largest payload that this endpoint sends or receives, in bytes (1 GiB). To send a larger one is
/// ERROR_CODE_TOO_LARGE. One that comes from an endpoint with a higher limit is skipped: ERROR_CODE_DECODE.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_max_payload(
    settings: *mut Settings,
    bytes: size_t,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.max_payload = Some(bytes);
            Ok(())
        })
    }
}

/// The largest memory region that this endpoint receives, in bytes (64 GiB). A message with one that is larger is refused
/// with ERROR_CODE_TOO_LARGE.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_max_region(
    settings: *mut Settings,
    bytes: u64,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.max_region = Some(bytes);
            Ok(())
        })
    }
}

/// How many bytes a link of this endpoint to another holds before a send waits: a power of two from 64 KiB to 64 MiB
/// (1 MiB). A value that is none makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_link_capacity(
    settings: *mut Settings,
    bytes: size_t,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.link_capacity = Some(bytes);
            Ok(())
        })
    }
}

/// How many bytes of messages from this endpoint to itself wait at most (64 MiB). Over that, a send is ERROR_CODE_FULL.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_self_queue(
    settings: *mut Settings,
    bytes: size_t,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.self_queue = Some(bytes);
            Ok(())
        })
    }
}

/// For how many microseconds at most a receive watches for messages, and a send for space, before it sleeps; beside a large
/// message a receive up to 850 longer, a send up to 3400; 0: not at all; 150 by default. More than a second makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_spin(
    settings: *mut Settings,
    microseconds: u32,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.spin = Some(Duration::from_micros(microseconds.into()));
            Ok(())
        })
    }
}

/// A link to another endpoint over which nothing went for this many milliseconds, or up to twice as long, is ended, and its
/// memory and descriptors are given back; the next message makes a new one. Less than 10 is 10; TIMEOUT_INFINITE is never;
/// 20 seconds by default.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_idle_link(
    settings: *mut Settings,
    milliseconds: u32,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.idle_link = Some(timeout(milliseconds).unwrap_or(Duration::MAX));
            Ok(())
        })
    }
}

/// Meet at an absolute path, of at most 100 bytes, instead of at the abstract name of the identifier. A path that no socket
/// can have makes the join fail, and on Windows any.
///
/// Ownership: `path` is copied. One thread at a time may use settings; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_path(
    settings: *mut Settings,
    path: *const c_char,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles and texts.
    unsafe {
        set(settings, |chosen| {
            chosen.path = Some(handle::text(path, "path")?.into());
            Ok(())
        })
    }
}

/// Join the bus of this user instead of one's own (the effective user). On Windows another user makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_owner(settings: *mut Settings, uid: u32) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.owner = Some(uid);
            Ok(())
        })
    }
}

/// Let everybody on the machine join the bus, if this endpoint becomes its controller. Undoes what
/// ipmb_settings_allow_uid and ipmb_settings_allow_gid did. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_allow_anyone(settings: *mut Settings) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            chosen.access = Some(ipmb::Access::anyone());
            Ok(())
        })
    }
}

/// Let this user join the bus, too, besides the owner and root. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_allow_uid(settings: *mut Settings, uid: u32) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            let access = chosen.access.take().unwrap_or_default();
            chosen.access = Some(access.allow_uid(uid));
            Ok(())
        })
    }
}

/// Let the members of this group join the bus, too, besides the owner and root. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_settings_allow_gid(settings: *mut Settings, gid: u32) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    unsafe {
        set(settings, |chosen| {
            let access = chosen.access.take().unwrap_or_default();
            chosen.access = Some(access.allow_gid(gid));
            Ok(())
        })
    }
}
