//! Labels and the expressions over them.

use crate::{
    border,
    code::{ErrorCode, Failure},
    handle::{self, Kind},
};
use std::{
    ffi::{c_char, c_void},
    ptr,
};

/// A set of texts that an endpoint is found by. Owned by the caller: free it with ipmb_label_drop.
pub type Label = *mut c_void;

impl Kind for ipmb::Label {
    const NAME: &'static str = "Label";
    const TAG: [u8; 8] = *b"ipmb lab";
}

/// An expression over labels, which says who gets a message. Owned by the caller: free it with ipmb_label_op_drop.
pub type LabelOp = *mut c_void;

impl Kind for ipmb::LabelOp {
    const NAME: &'static str = "LabelOp";
    const TAG: [u8; 8] = *b"ipmb lop";
}

/// An empty label.
///
/// Ownership: the caller frees it with ipmb_label_drop. Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_label() -> Label {
    border::value(ptr::null_mut(), || Ok(handle::give(ipmb::Label::default())))
}

/// Frees a label. NULL is fine. Endpoints that joined with it keep a copy.
///
/// Takes ownership of the label. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_drop(label: Label) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<ipmb::Label>(label) });
}

/// Adds a text to a label. After a failure the label is unchanged; ipmb_label_insert_try tells it directly.
///
/// Ownership: `s` is copied. One thread at a time may use a label; does not block. Errors (ipmb_last_error_code):
/// as ipmb_label_insert_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_insert(label: *mut Label, s: *const c_char) {
    // SAFETY: the same contract.
    unsafe { ipmb_label_insert_try(label, s) };
}

/// Adds a text to a label. A text that is there already is not added again. That a label has at most 64 texts of at most
/// 256 bytes is checked when an endpoint joins with it.
///
/// Ownership: `s` is copied. One thread at a time may use a label; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_insert_try(label: *mut Label, s: *const c_char) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and texts.
        let (label, text) = unsafe {
            (
                handle::get_mut::<ipmb::Label>(label)?,
                handle::text(s, "s")?,
            )
        };
        label.insert(text);
        Ok(())
    })
}

/// An expression that matches every label (true) or none (false).
///
/// Ownership: the caller frees it with ipmb_label_op_drop, or gives it to a function that takes it. Thread-safe; does
/// not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_label_op_bool(v: bool) -> LabelOp {
    border::value(ptr::null_mut(), || {
        Ok(handle::give(match v {
            true => ipmb::LabelOp::True,
            false => ipmb::LabelOp::False,
        }))
    })
}

/// An expression that matches the labels with this text; NULL after a failure.
///
/// Ownership: `s` is copied; the caller frees the result with ipmb_label_op_drop, or gives it to a function that takes
/// it. Thread-safe; does not block. Errors (ipmb_last_error_code): as ipmb_label_op_leaf_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_leaf(s: *const c_char) -> LabelOp {
    // SAFETY: as the crate's text demands of all texts.
    border::value(ptr::null_mut(), || unsafe { leaf(s) })
}

/// As ipmb_label_op_leaf, with a code. After a failure `*op` is unchanged.
///
/// Ownership: `s` is copied; `*op` is the caller's. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_INVALID_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_leaf_try(s: *const c_char, op: *mut LabelOp) -> ErrorCode {
    border::code(|| {
        handle::needs(op, "op")?;
        // SAFETY: as the crate's text demands of all texts and pointers.
        unsafe { handle::put(op, "op", leaf(s)?) }
    })
}

unsafe fn leaf(s: *const c_char) -> Result<LabelOp, Failure> {
    // SAFETY: the caller's contract.
    let text = unsafe { handle::text(s, "s")? };
    Ok(handle::give(ipmb::LabelOp::from(text)))
}

/// Frees an expression. NULL is fine. Messages that were made with it keep a copy.
///
/// Takes ownership of the expression. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_drop(left: LabelOp) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<ipmb::LabelOp>(left) });
}

/// An expression that matches what `left` does not; NULL after a failure.
///
/// Takes ownership of `left`; the result is the caller's. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_not(left: LabelOp) -> LabelOp {
    // SAFETY: as the crate's text demands of all handles.
    border::value(ptr::null_mut(), || unsafe { not(left) })
}

/// As ipmb_label_op_not, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of `left`, also when it fails, unless `left` is a handle of another kind. Thread-safe; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_not_try(left: LabelOp, op: *mut LabelOp) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles and pointers.
    border::code(|| unsafe { keep(not(left), op) })
}

/// An expression that matches what both match; NULL after a failure.
///
/// Takes ownership of both operands, also when it fails; the result is the caller's. Thread-safe; does not block.
/// Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, also if both are the same handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_and(left: LabelOp, right: LabelOp) -> LabelOp {
    // SAFETY: as the crate's text demands of all handles.
    border::value(ptr::null_mut(), || unsafe {
        join(left, right, |left, right| left.and(right))
    })
}

/// As ipmb_label_op_and, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of both operands, also when it fails, but for those that are handles of another kind. Thread-safe;
/// does not block. Errors: as ipmb_label_op_and.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_and_try(
    left: LabelOp,
    right: LabelOp,
    op: *mut LabelOp,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles and pointers.
    border::code(|| unsafe { keep(join(left, right, |left, right| left.and(right)), op) })
}

/// An expression that matches what at least one of both matches; NULL after a failure.
///
/// Takes ownership of both operands, also when it fails; the result is the caller's. Thread-safe; does not block.
/// Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, also if both are the same handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_or(left: LabelOp, right: LabelOp) -> LabelOp {
    // SAFETY: as the crate's text demands of all handles.
    border::value(ptr::null_mut(), || unsafe {
        join(left, right, |left, right| left.or(right))
    })
}

/// As ipmb_label_op_or, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of both operands, also when it fails, but for those that are handles of another kind. Thread-safe;
/// does not block. Errors: as ipmb_label_op_and.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_or_try(
    left: LabelOp,
    right: LabelOp,
    op: *mut LabelOp,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles and pointers.
    border::code(|| unsafe { keep(join(left, right, |left, right| left.or(right)), op) })
}

/// Whether an expression matches a label, into `*matches`.
///
/// Ownership: both stay the caller's. Thread-safe as long as nobody changes or drops them; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_label_op_validate(
    op: *const LabelOp,
    label: *const Label,
    matches: *mut bool,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let op = handle::get::<ipmb::LabelOp>(op)?;
            let label = handle::get::<ipmb::Label>(label)?;
            handle::put(matches, "matches", op.validate(label))
        }
    })
}

unsafe fn not(op: LabelOp) -> Result<LabelOp, Failure> {
    // SAFETY: the caller's contract.
    let op = unsafe { handle::take::<ipmb::LabelOp>(op)? };
    Ok(handle::give(!op.value))
}

unsafe fn join(
    left: LabelOp,
    right: LabelOp,
    both: impl FnOnce(ipmb::LabelOp, ipmb::LabelOp) -> ipmb::LabelOp,
) -> Result<LabelOp, Failure> {
    if left == right && !left.is_null() {
        // SAFETY: the caller's contract. It gave the handle away twice, but there is one.
        unsafe { handle::discard::<ipmb::LabelOp>(left)? };
        return Err(Failure::argument("both operands are the same LabelOp"));
    }
    // Both are taken before either is judged, so that neither leaks.
    // SAFETY: the caller's contract; they are not the same.
    let (left, right) = unsafe {
        (
            handle::take::<ipmb::LabelOp>(left),
            handle::take::<ipmb::LabelOp>(right),
        )
    };
    let (left, right) = (left?, right?);
    Ok(handle::give(both(left.value, right.value)))
}

unsafe fn keep(made: Result<LabelOp, Failure>, op: *mut LabelOp) -> Result<(), Failure> {
    let made = made?;
    // SAFETY: the caller's contract; and `made` was made here.
    unsafe {
        handle::put(op, "op", made).inspect_err(|_| {
            let _ = handle::discard::<ipmb::LabelOp>(made);
        })
    }
}
