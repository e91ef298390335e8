//! The border to C: every exported function runs in here. A panic ends here, and a failure becomes the calling thread's
//! last error.

use crate::code::{ERROR_CODE_PANIC, ERROR_CODE_SUCCESS, ErrorCode, Failure};
use std::{
    any::Any,
    cell::RefCell,
    ffi::{CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
};

struct Last {
    code: ErrorCode,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Runs a function that returns a code.
pub(crate) fn code(run: impl FnOnce() -> Result<(), Failure>) -> ErrorCode {
    match caught(run) {
        Ok(()) => ERROR_CODE_SUCCESS,
        Err(failure) => remember(failure),
    }
}

/// Runs a function that returns a value, `none` if it fails.
pub(crate) fn value<T>(none: T, run: impl FnOnce() -> Result<T, Failure>) -> T {
    caught(run).unwrap_or_else(|failure| {
        remember(failure);
        none
    })
}

fn caught<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic may leave half done is inside one handle of the caller; the library's own state survives panics of
    // user code.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let text = said(&*payload);
        // Dropping it is foreign code, which could panic again.
        std::mem::forget(payload);
        Err(Failure::new(ERROR_CODE_PANIC, text))
    })
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the library panicked: {}", text.unwrap_or("without a text"))
}

fn remember(failure: Failure) -> ErrorCode {
    let Failure { code, text } = failure;
    let mut text = text.into_bytes();
    text.retain(|byte| *byte != 0);
    // Without a NUL it cannot fail.
    let text = CString::new(text).unwrap_or_default();
    // A thread that is past its end has no last error any more.
    let _ = LAST.try_with(|last| last.replace(Some(Last { code, text })));
    code
}

/// The text of the last failure on the calling thread: what is wrong and, where there is one, the remedy. In English,
/// UTF-8. Empty if nothing failed since the thread began or called ipmb_clear_last_error; a success does not change it.
///
/// Ownership: the text is the library's. It stays valid until a function of this library fails on the same thread,
/// ipmb_clear_last_error is called there, or the thread ends. Never NULL. Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_last_error() -> *const c_char {
    let text = LAST.try_with(|last| match &*last.borrow() {
        Some(last) => last.text.as_ptr(),
        None => c"".as_ptr(),
    });
    text.unwrap_or(c"".as_ptr())
}

/// The code of the last failure on the calling thread, ERROR_CODE_SUCCESS if there is none. The functions that return a
/// value instead of a code tell their failures here.
///
/// Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_last_error_code() -> ErrorCode {
    let code = LAST.try_with(|last| last.borrow().as_ref().map(|last| last.code));
    code.ok().flatten().unwrap_or(ERROR_CODE_SUCCESS)
}

/// Forgets the last failure of the calling thread: the text is empty and the code ERROR_CODE_SUCCESS until the next.
///
/// Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_clear_last_error() {
    let _ = LAST.try_with(|last| last.replace(None));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::ffi::CStr;

    fn last() -> (ErrorCode, String) {
        // SAFETY: never null, ends with a NUL, and nothing fails on this thread before it is copied.
        let text = unsafe { CStr::from_ptr(ipmb_last_error()) };
        (ipmb_last_error_code(), text.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_panic_becomes_a_code_and_a_text() {
        assert_eq!(code(|| panic!("at {}", 7)), ERROR_CODE_PANIC);
        assert_eq!(
            last(),
            (ERROR_CODE_PANIC, "the library panicked: at 7".to_owned())
        );
        assert_eq!(value(5, || std::panic::panic_any(1u8)), 5);
        assert_eq!(last().1, "the library panicked: without a text");
    }

    #[test]
    fn a_panic_whose_payload_panics_too_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(code(|| std::panic::panic_any(Bomb)), ERROR_CODE_PANIC);
    }

    #[test]
    fn each_thread_has_its_own_last_error_and_a_success_keeps_it() {
        ipmb_clear_last_error();
        assert_eq!(last(), (0, String::new()));
        code(|| Err(Failure::argument("nothing\0 there")));
        assert_eq!(code(|| Ok(())), 0);
        assert_eq!(last().1, "nothing there");
        std::thread::spawn(|| assert_eq!(last(), (0, String::new())))
            .join()
            .unwrap();
        ipmb_clear_last_error();
        assert_eq!(last(), (0, String::new()));
    }
}
