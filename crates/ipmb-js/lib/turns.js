'use strict';
// Promises that are settled at once never let the event loop get to timers and sockets. So of those calls only so many in a
// row are settled at once; the next one waits for the event loop.

/** How much may be done in one turn; a call costs `CALL` and the bytes that it copies. */
const TURN = 1 << 20;
const CALL = 4096;

class Turns {
  #left = TURN;
  #pending;

  /** Whether anything may be settled at once. */
  get left() {
    return this.#left > 0;
  }

  /** Notes a call that copied so many bytes. True if it may be settled at once. */
  spend(bytes) {
    this.#left -= CALL + bytes;
    return this.#left > 0;
  }

  /** Settled when the event loop has had its turn. */
  next() {
    this.#pending ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#left = TURN;
        this.#pending = undefined;
        resolve();
      });
    });
    return this.#pending;
  }
}

module.exports = { Turns };
