//! Objects are Mach ports; the port of a descriptor is its file port.

pub(crate) use super::unix::waitable;

use crate::{code::Failure, object::Object};

unsafe extern "C" {
    static mach_task_self_: u32;
    fn mach_port_type(task: u32, name: u32, kind: *mut u32) -> i32;
}

/// `MACH_PORT_TYPE_SEND` and `MACH_PORT_TYPE_DEAD_NAME`, which the former becomes when the port is gone.
const SEND_OR_DEAD: u32 = 1 << 16 | 1 << 20;

pub(super) fn open(object: Object) -> Option<u32> {
    let name = u32::try_from(object).ok()?;
    let mut kind = 0;
    // SAFETY: only asks; fails for a name that this process does not have.
    let code = unsafe { mach_port_type(mach_task_self_, name, &raw mut kind) };
    (code == 0 && kind & SEND_OR_DEAD != 0).then_some(name)
}

/// 0: there can be no port for the descriptor.
pub(crate) fn number(port: u32) -> Result<Object, Failure> {
    match port {
        0 => Err(Failure::argument("there can be no port for the descriptor")),
        port => Ok(port.into()),
    }
}
