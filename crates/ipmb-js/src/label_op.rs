//! The native part of `LabelOp`.

use crate::{
    fail::{INVALID_ARGUMENT, Result, fail},
    hot::Table,
};
use napi::Either;
use napi_derive::napi;
use std::{cell::RefCell, rc::Rc};

thread_local! {
    static TABLE: Table<RefCell<ipmb::LabelOp>> = const { Table::new() };
}

/// An expression over labels, changed in place.
#[napi(js_name = "NativeLabelOp")]
pub struct LabelOp {
    // Shared borrows only, so that `op.and(op)` works.
    op: Rc<RefCell<ipmb::LabelOp>>,
    number: u32,
}

#[napi]
impl LabelOp {
    /// Matches everybody, nobody, or those whose label has this part.
    #[napi(constructor)]
    pub fn new(v: Either<bool, String>) -> Self {
        let op = match v {
            Either::A(true) => ipmb::LabelOp::True,
            Either::A(false) => ipmb::LabelOp::False,
            Either::B(leaf) => ipmb::LabelOp::from(leaf),
        };
        let op = Rc::new(RefCell::new(op));
        Self {
            number: TABLE.with(|table| table.enter(op.clone())),
            op,
        }
    }

    /// Its number, for `send`.
    #[napi(getter)]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// From now on matches those whom it did not match.
    #[napi]
    pub fn not(&self) {
        self.op.replace_with(|op| !op.clone());
    }

    /// From now on matches only those whom `r` matches, too. `r` stays as it is.
    #[napi]
    pub fn and(&self, r: &LabelOp) {
        let r = r.get();
        self.op.replace_with(|op| op.clone().and(r));
    }

    /// From now on matches those whom `r` matches, too. `r` stays as it is.
    #[napi]
    pub fn or(&self, r: &LabelOp) {
        let r = r.get();
        self.op.replace_with(|op| op.clone().or(r));
    }

    /// The expression, to be read by people.
    #[napi(js_name = "toString")]
    pub fn to_text(&self) -> String {
        self.op.borrow().to_string()
    }

    /// The expression with a number.
    pub(crate) fn numbered(number: u32) -> Result<ipmb::LabelOp> {
        TABLE
            .with(|table| Some(table.get(number)?.borrow().clone()))
            .ok_or_else(|| fail(INVALID_ARGUMENT, "`labelOp` must be a LabelOp"))
    }

    pub(crate) fn get(&self) -> ipmb::LabelOp {
        self.op.borrow().clone()
    }
}

impl Drop for LabelOp {
    fn drop(&mut self) {
        // At the very end of the thread there is no table any more.
        let _ = TABLE.try_with(|table| table.remove(self.number));
    }
}
