'use strict';

/** An error with a `code`. */
function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

module.exports = { failure };
