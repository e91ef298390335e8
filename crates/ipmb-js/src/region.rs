//! `MemoryRegion`: shared memory, copied or seen.

use crate::{
    fail::{CLOSED, Fail, INVALID_ARGUMENT, Result, fail, io, of_error},
    sys::Private,
};
use ipmb::{Error, MemoryRegion};
use napi::{
    bindgen_prelude::{Buffer, Env, ToNapiValue, Unknown},
    sys,
};
use napi_derive::napi;
use std::{cell::RefCell, ffi::c_void, ops::Range, ptr};

/// A handle of a memory that processes share. Given up by `close`, or when it is collected.
#[napi(js_name = "MemoryRegion")]
pub struct JsRegion {
    region: RefCell<Option<MemoryRegion>>,
}

#[napi]
impl JsRegion {
    /// A region of `size` bytes, all zero.
    #[napi(constructor)]
    pub fn new(size: f64) -> Result<Self> {
        let size = whole(size, "size")?;
        MemoryRegion::try_new(size)
            .map(Self::of)
            .map_err(|e| of_error(&e))
    }

    /// Size in bytes.
    #[napi(getter)]
    pub fn size(&self) -> Result<f64> {
        self.with(|region| Ok(region.buffer_size() as f64))
    }

    /// How many handles there are in all processes, messages under way included.
    #[napi]
    pub fn ref_count(&self) -> Result<u32> {
        self.with(|region| Ok(region.ref_count()))
    }

    /// A copy of some bytes; `size` −1 for all from `offset` on.
    #[napi]
    pub fn map(&self, offset: f64, size: f64) -> Result<Buffer> {
        self.with(|region| {
            let range = range(region, offset, size)?;
            if region.is_frozen() {
                let bytes = region.as_frozen().map_err(|e| of_error(&e))?;
                return Ok(Buffer::from(bytes.get(range).unwrap_or_default().to_vec()));
            }
            let copy = region.map(range).map(|bytes| bytes.to_vec());
            // Mapped any longer, it would keep others from freezing it.
            region.unmap();
            copy.map(Buffer::from).map_err(|e| of_error(&e))
        })
    }

    /// Copies bytes into the region.
    #[napi]
    pub fn write(&self, data: &[u8], offset: Option<f64>) -> Result<()> {
        self.with(|region| {
            let range = range(region, offset.unwrap_or(0.0), data.len() as f64)?;
            let written = region.map(range).map(|bytes| bytes.copy_from_slice(data));
            region.unmap();
            written.map_err(|e| of_error(&e))
        })
    }

    /// The whole memory itself as a buffer, or `null` where Node allows no external buffers.
    #[napi]
    pub fn view(&self, env: Env) -> Result<Option<Unknown<'_>>> {
        let view = self.with(|region| View::new(region))?;
        view.into_buffer(env)
    }

    /// Makes the region immutable for everybody and for good.
    #[napi]
    pub fn freeze(&self) -> Result<()> {
        self.with(|region| region.freeze().map_err(|e| of_error(&e)))
    }

    /// Whether the region is frozen.
    #[napi(getter)]
    pub fn frozen(&self) -> Result<bool> {
        self.with(|region| Ok(region.is_frozen()))
    }

    /// One more handle of the same memory.
    #[napi]
    pub fn clone(&self) -> Result<JsRegion> {
        self.duplicate().map(Self::of)
    }

    /// Gives the handle up. Doing it twice is fine; views stay valid.
    #[napi]
    pub fn close(&self) {
        drop(self.region.take());
    }

    pub(crate) fn of(region: MemoryRegion) -> Self {
        Self {
            region: RefCell::new(Some(region)),
        }
    }

    pub(crate) fn duplicate(&self) -> Result<MemoryRegion> {
        self.with(|region| another(region))
    }

    fn with<T>(&self, run: impl FnOnce(&mut MemoryRegion) -> Result<T>) -> Result<T> {
        match &mut *self.region.borrow_mut() {
            Some(region) => run(region),
            None => Err(fail(CLOSED, "the memory region is closed")),
        }
    }
}

fn another(region: &MemoryRegion) -> Result<MemoryRegion> {
    region
        .clone()
        .map_err(|e| io("one more handle of a memory region", &e))
}

/// A region with a copy of `data`.
pub(crate) fn region_of(data: &[u8]) -> Result<MemoryRegion> {
    let fill = || {
        let mut region = MemoryRegion::try_new(data.len())?;
        region.map(..)?.copy_from_slice(data);
        region.unmap();
        Ok(region)
    };
    fill().map_err(|e: Error| of_error(&e))
}

/// A number of bytes that JavaScript gave.
pub(crate) fn whole(number: f64, name: &str) -> Result<usize> {
    if number >= 0.0 && number <= 2f64.powi(53) && number.fract() == 0.0 {
        Ok(number as usize)
    } else {
        Err(fail(
            INVALID_ARGUMENT,
            format!("`{name}` must be a whole number of bytes, not {number}"),
        ))
    }
}

fn range(region: &MemoryRegion, offset: f64, size: f64) -> Result<Range<usize>> {
    let all = region.buffer_size() as usize;
    let start = whole(offset, "offset")?;
    let end = if size == -1.0 {
        all.max(start)
    } else {
        start.saturating_add(whole(size, "size")?)
    };
    if start <= end && end <= all {
        return Ok(start..end);
    }
    Err(of_error(&Error::OutOfBounds {
        start,
        end,
        size: all,
    }))
}

/// A mapping that a JavaScript buffer looks at, with a handle of its own: it counts, keeps others from freezing the region
/// while it can be written through, and outlives the region's JavaScript object.
struct View {
    start: *mut u8,
    len: usize,
    _private: Option<Private>,
    _region: MemoryRegion,
}

impl View {
    fn new(region: &MemoryRegion) -> Result<Self> {
        let mut region = another(region)?;
        let len = region.buffer_size() as usize;
        // Node has no read-only buffers, and a write to a read-only mapping would end the process. So what JavaScript writes
        // to a frozen region goes to private pages, which nobody else sees.
        let mut private = None;
        let start = if len == 0 {
            ptr::null_mut()
        } else if region.is_frozen() {
            let pages = Private::of(&region).map_err(|e| of_error(&e))?;
            private.insert(pages).start()
        } else {
            region.map(..).map_err(|e| of_error(&e))?.as_mut_ptr()
        };
        Ok(Self {
            start,
            len,
            _private: private,
            _region: region,
        })
    }

    fn into_buffer(self, env: Env) -> Result<Option<Unknown<'static>>> {
        let env = env.raw();
        let (start, len) = (self.start, self.len);
        if len == 0 {
            return to_unknown(env, Buffer::from(Vec::new())).map(Some);
        }
        let hint = Box::into_raw(Box::new(self));
        let mut value = ptr::null_mut();
        // SAFETY: the memory stays mapped until `finalize` drops the view, which Node calls once, when the buffer is gone.
        let status = unsafe {
            sys::napi_create_external_buffer(
                env,
                len,
                start.cast(),
                Some(finalize),
                hint.cast(),
                &mut value,
            )
        };
        if status == sys::Status::napi_ok {
            // SAFETY: a value that this call to `env` has just made.
            return Ok(Some(unsafe { Unknown::from_raw_unchecked(env, value) }));
        }
        // SAFETY: Node has not taken the view over.
        drop(unsafe { Box::from_raw(hint) });
        if status == sys::Status::napi_no_external_buffers_allowed {
            return Ok(None);
        }
        Err(fail("IPMB_IO", "Node refused an external buffer"))
    }
}

unsafe extern "C" fn finalize(_env: sys::napi_env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `into_buffer` made it of a box, and Node calls this once.
    drop(unsafe { Box::from_raw(hint.cast::<View>()) });
}

fn to_unknown(env: sys::napi_env, buffer: Buffer) -> Result<Unknown<'static>> {
    let failed = |e: napi::Error| -> Fail { fail("IPMB_IO", e.reason) };
    // SAFETY: `env` is the one of the call under way.
    let value = unsafe { Buffer::to_napi_value(env, buffer) }.map_err(failed)?;
    // SAFETY: a value that this call to `env` has just made.
    Ok(unsafe { Unknown::from_raw_unchecked(env, value) })
}
