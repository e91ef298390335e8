//! Handles: what C holds as `void *`.
//!
//! All kinds of handle are `void *` in C, so its compiler does not tell them apart. Each therefore begins with a tag that
//! names its kind; a handle of another kind is an error. The tag is no protection against a handle that was dropped.

use crate::code::{ERROR_CODE_INVALID_UTF8, Failure};
use std::{
    ffi::{CStr, c_char, c_void},
    mem::ManuallyDrop,
};

/// A kind of handle.
pub(crate) trait Kind: Sized {
    /// Its name in the header.
    const NAME: &'static str;
    /// What its handles begin with.
    const TAG: [u8; 8];
}

#[repr(C)] // The tag is first in each kind.
pub(crate) struct Tagged<T> {
    tag: [u8; 8],
    pub(crate) value: T,
}

const DROPPED: [u8; 8] = *b"dropped!";

impl<T: Kind> Tagged<T> {
    pub(crate) fn new(value: T) -> Box<Self> {
        Box::new(Self { tag: T::TAG, value })
    }

    /// The handle of what stays owned by the box.
    pub(crate) fn handle(self: &mut Box<Self>) -> *mut c_void {
        (&raw mut **self).cast()
    }
}

/// Makes a handle, which the caller owns.
pub(crate) fn give<T: Kind>(value: T) -> *mut c_void {
    give_box(Tagged::new(value))
}

pub(crate) fn give_box<T: Kind>(value: Box<Tagged<T>>) -> *mut c_void {
    Box::into_raw(value).cast()
}

/// Checks that a handle is of this kind.
///
/// # Safety
/// `raw` is null or a handle that was not dropped.
unsafe fn check<T: Kind>(raw: *mut c_void) -> Result<*mut Tagged<T>, Failure> {
    if raw.is_null() {
        return Err(Failure::argument(format!("the {} is null", T::NAME)));
    }
    // SAFETY: not null, so by the caller's promise a `Tagged` of some kind, all of which begin with a tag.
    if unsafe { raw.cast::<[u8; 8]>().read() } != T::TAG {
        return Err(Failure::argument(format!(
            "a handle of another kind, or one that was dropped, in the place of a {}",
            T::NAME
        )));
    }
    Ok(raw.cast())
}

/// What the handle at `place` stands for.
///
/// # Safety
/// `place` is null, or valid for reads and holds null or a handle that was not dropped and that nobody drops or changes
/// for as long as the result is used.
pub(crate) unsafe fn get<'a, T: Kind>(place: *const *mut c_void) -> Result<&'a T, Failure> {
    // SAFETY: as the caller promises; a checked handle points to a live `Tagged<T>`.
    unsafe { Ok(&(*check::<T>(at::<T>(place)?)?).value) }
}

/// The same, to change it.
///
/// # Safety
/// As [`get`], and nobody else uses the handle meanwhile.
pub(crate) unsafe fn get_mut<'a, T: Kind>(place: *mut *mut c_void) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller promises; a checked handle points to a live `Tagged<T>`.
    unsafe { Ok(&mut (*check::<T>(at::<T>(place)?)?).value) }
}

/// The handle at `place`.
///
/// # Safety
/// `place` is null or valid for reads.
unsafe fn at<T: Kind>(place: *const *mut c_void) -> Result<*mut c_void, Failure> {
    if place.is_null() {
        return Err(Failure::argument(format!(
            "the pointer to the {} is null",
            T::NAME
        )));
    }
    // SAFETY: not null, so valid for reads as the caller promises.
    Ok(unsafe { *place })
}

/// Takes a handle over.
///
/// # Safety
/// `raw` is null or a handle that was not dropped, that the caller owns and that nobody uses.
pub(crate) unsafe fn take<T: Kind>(raw: *mut c_void) -> Result<Box<Tagged<T>>, Failure> {
    // SAFETY: a checked handle came out of `give`, as a box of this type.
    unsafe {
        let tagged = check::<T>(raw)?;
        Ok(Box::from_raw(tagged))
    }
}

/// Takes over the handle at `place`, which is then null.
///
/// # Safety
/// As [`get_mut`] and [`take`].
pub(crate) unsafe fn take_from<T: Kind>(
    place: *mut *mut c_void,
) -> Result<Box<Tagged<T>>, Failure> {
    // SAFETY: as the caller promises; `at` has checked that `place` is not null.
    unsafe {
        let taken = take(at::<T>(place)?)?;
        *place = std::ptr::null_mut();
        Ok(taken)
    }
}

/// Drops a handle; null is none and no error.
///
/// # Safety
/// As [`take`].
pub(crate) unsafe fn discard<T: Kind>(raw: *mut c_void) -> Result<(), Failure> {
    if raw.is_null() {
        return Ok(());
    }
    // SAFETY: a checked handle came out of `give`. What the value's drop calls back (a registry's `free`) may come here
    // with the same handle: the memory is therefore freed last, and the tag tells that it is over.
    unsafe {
        let tagged = check::<T>(raw)?;
        (*tagged).tag = DROPPED;
        let _memory = Box::from_raw(tagged.cast::<Tagged<ManuallyDrop<T>>>());
        std::ptr::drop_in_place(&raw mut (*tagged).value);
    }
    Ok(())
}

/// Checks an out-parameter.
///
/// # Safety
/// `place` is null or valid for writes.
pub(crate) unsafe fn put<T>(place: *mut T, name: &str, value: T) -> Result<(), Failure> {
    needs(place, name)?;
    // SAFETY: not null, so valid for writes as the caller promises.
    unsafe { place.write(value) };
    Ok(())
}

/// An error if a pointer that must be there is null.
pub(crate) fn needs<T>(place: *const T, name: &str) -> Result<(), Failure> {
    match place.is_null() {
        true => Err(Failure::argument(format!("the pointer `{name}` is null"))),
        false => Ok(()),
    }
}

/// A text of the caller.
///
/// # Safety
/// `text` is null, or ends with a NUL and does not change while the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Failure> {
    needs(text, name)?;
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| {
        let at = error.valid_up_to();
        Failure::new(
            ERROR_CODE_INVALID_UTF8,
            format!("the text `{name}` is not UTF-8 at byte {at}"),
        )
    })
}
