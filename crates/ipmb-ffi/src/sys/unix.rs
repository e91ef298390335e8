//! What Linux and macOS share: a descriptor that event loops wait for.

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd},
};

pub(crate) fn waitable(receiver: &impl AsFd) -> c_int {
    receiver.as_fd().as_raw_fd()
}
