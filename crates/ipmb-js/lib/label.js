'use strict';

const native = require('./native.js');
const { failure } = require('./errors.js');

/** An expression over labels, changed in place. */
class LabelOp {
  #native;
  #number;

  constructor(v) {
    if (typeof v !== 'boolean' && typeof v !== 'string') {
      throw failure('IPMB_INVALID_ARGUMENT', `a LabelOp is made of a boolean or a string, not of ${typeof v}`);
    }
    this.#native = new native.NativeLabelOp(v);
    this.#number = this.#native.number;
  }

  not() {
    this.#native.not();
  }

  and(r) {
    this.#native.and(nativeOf(r));
  }

  or(r) {
    this.#native.or(nativeOf(r));
  }

  toString() {
    return this.#native.toString();
  }

  static nativeOf(op) {
    if (!(op instanceof LabelOp)) throw failure('IPMB_INVALID_ARGUMENT', '`labelOp` must be a LabelOp');
    return op.#native;
  }

  static numberOf(op) {
    if (!(op instanceof LabelOp)) throw failure('IPMB_INVALID_ARGUMENT', '`labelOp` must be a LabelOp');
    return op.#number;
  }
}

const { nativeOf, numberOf } = LabelOp;
delete LabelOp.nativeOf;
delete LabelOp.numberOf;

module.exports = { LabelOp, nativeOf, numberOf };
