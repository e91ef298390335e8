'use strict';

const native = require('./native.js');
const { failure } = require('./errors.js');
const { Turns } = require('./turns.js');

/** Small messages are put into shared slabs, as Node's own small buffers are. */
const SLAB = 32 << 10;
const SMALL = 4 << 10;
// What the native `next` returns, beside lengths and formats, and buffers.
const NOTHING = -1;
const APART = -2;
const WITH = -3;

const over = new Set(['IPMB_CLOSED', 'IPMB_LEFT']);

/** The receiving half of an endpoint. */
class Receiver {
  #native;
  #number;
  #slab = Buffer.allocUnsafeSlow(SLAB);
  #offset = 0;
  /** Receives that wait, in their order; `#first` is the index of the oldest. */
  #waiting = [];
  #first = 0;
  #turns = new Turns();
  #keep = true;
  #closed = false;
  // Referenced weakly by the native part, so that a forgotten receiver can be collected.
  #ready = () => this.#serve();

  constructor(half) {
    this.#native = half;
    this.#number = half.number;
    half.watch(this.#ready);
  }

  /**
   * Receives the next message; waits at most for `timeout` milliseconds.
   */
  recv(timeout, options) {
    const signal = options?.signal;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (timeout !== undefined && timeout !== null && !(timeout >= 0)) {
      return Promise.reject(failure('IPMB_INVALID_ARGUMENT', `\`timeout\` must be a number of milliseconds, not ${timeout}`));
    }
    if (this.#first === this.#waiting.length) {
      let message;
      try {
        message = this.#take();
      } catch (error) {
        return Promise.reject(error);
      }
      if (message !== undefined) {
        if (this.#turns.spend(message.bytesMessage.data.length)) return Promise.resolve(message);
        return this.#turns.next().then(() => message);
      }
      if (timeout === 0) return Promise.reject(failure('IPMB_TIMEOUT', 'no message within the timeout'));
    }
    if (this.#closed) return Promise.reject(failure('IPMB_CLOSED', 'the receiver is closed'));
    return this.#wait(timeout, signal);
  }

  /** Receives a message if there is one now, or returns `null`. */
  tryRecv() {
    if (this.#first !== this.#waiting.length) return null;
    return this.#take() ?? null;
  }

  /** Lets the process end although a receive waits. */
  unref() {
    this.#setKeep(false);
    return this;
  }

  /** Undoes `unref`. */
  ref() {
    this.#setKeep(true);
    return this;
  }

  /** Gives the half up. What waits is rejected, and iterations end. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close();
    const waiting = this.#waiting.slice(this.#first);
    this.#waiting = [];
    this.#first = 0;
    for (const receive of waiting) receive.fail(failure('IPMB_CLOSED', 'the receiver is closed'));
  }

  [Symbol.asyncIterator]() {
    let ended = false;
    const finish = (error) => {
      ended = true;
      if (over.has(error?.code)) return { value: undefined, done: true };
      throw error;
    };
    return {
      next: () => {
        if (ended) return Promise.resolve({ value: undefined, done: true });
        // The common case first, without a promise in between.
        let value;
        try {
          value = this.#now();
        } catch (error) {
          return Promise.reject(error).catch(finish);
        }
        if (value !== undefined) return Promise.resolve({ value, done: false });
        return this.recv().then((value) => ({ value, done: false }), finish);
      },
      return: (value) => {
        ended = true;
        return Promise.resolve({ value, done: true });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** A message that is there, if it may be handed out before the event loop has had its turn. */
  #now() {
    if (this.#first !== this.#waiting.length || !this.#turns.left) return undefined;
    const message = this.#take();
    if (message !== undefined) this.#turns.spend(message.bytesMessage.data.length);
    return message;
  }

  #take() {
    if (this.#slab.length - this.#offset < SMALL) {
      this.#slab = Buffer.allocUnsafeSlow(SLAB);
      this.#offset = 0;
    }
    const slab = this.#slab;
    const at = this.#offset;
    const what = native.next(this.#number, slab, at, SMALL);
    if (typeof what !== 'number') {
      // A buffer; before the next message the slab has its format, and whether something came with it.
      const bytesMessage = { format: slab[at] | (slab[at + 1] << 8), data: what };
      if (slab[at + 2] === 0) return { bytesMessage, objects: [], memoryRegions: [] };
      const { objects, regions } = this.#native.take();
      return { bytesMessage, objects, memoryRegions: regions };
    }
    if (what === NOTHING) return undefined;
    if (what === APART) {
      const { format, data, objects, regions } = this.#native.take();
      return { bytesMessage: { format, data }, objects, memoryRegions: regions };
    }
    const told = what >= 0 ? what : WITH - what;
    const format = told % 65536;
    const length = (told - format) / 65536;
    const data = slab.subarray(at, at + length);
    // Aligned, so that typed arrays can be made of it.
    this.#offset += (length + 7) & ~7;
    if (what >= 0) return { bytesMessage: { format, data }, objects: [], memoryRegions: [] };
    const { objects, regions } = this.#native.take();
    return { bytesMessage: { format, data }, objects, memoryRegions: regions };
  }

  #wait(timeout, signal) {
    return new Promise((resolve, reject) => {
      const receive = {
        over: false,
        settle: (message) => {
          receive.end();
          resolve(message);
        },
        fail: (error) => {
          receive.end();
          reject(error);
        },
        end: () => {
          receive.over = true;
          clearTimeout(receive.timer);
          signal?.removeEventListener('abort', receive.abort);
        },
        timer: undefined,
        abort: undefined,
      };
      const giveUp = (error) => {
        receive.fail(error);
        this.#forget(receive);
      };
      if (signal) {
        receive.abort = () => giveUp(signal.reason);
        signal.addEventListener('abort', receive.abort, { once: true });
      }
      if (timeout !== undefined && timeout !== null && timeout !== Infinity) {
        // Longer than timers can be is for ever, more or less: 24 days.
        const ms = Math.min(timeout, 2 ** 31 - 1);
        receive.timer = setTimeout(() => giveUp(failure('IPMB_TIMEOUT', 'no message within the timeout')), ms);
        if (!this.#keep) receive.timer.unref();
      }
      this.#waiting.push(receive);
      try {
        this.#native.hold(this.#keep);
      } catch (error) {
        giveUp(error);
      }
    });
  }

  #forget(receive) {
    const index = this.#waiting.indexOf(receive, this.#first);
    if (index >= 0) this.#waiting.splice(index, 1);
    if (this.#first === this.#waiting.length) this.#idle();
  }

  /** Gives what is there to those who wait. */
  #serve() {
    while (this.#first < this.#waiting.length) {
      let message;
      try {
        message = this.#take();
      } catch (error) {
        this.#shift().fail(error);
        continue;
      }
      if (message === undefined) return;
      this.#shift().settle(message);
    }
    this.#idle();
  }

  #shift() {
    const receive = this.#waiting[this.#first];
    this.#waiting[this.#first++] = undefined;
    if (this.#first >= 1024 && this.#first * 2 >= this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
    return receive;
  }

  /** Nobody waits any more. */
  #idle() {
    this.#waiting.length = 0;
    this.#first = 0;
    if (!this.#closed) this.#native.release();
  }

  #setKeep(keep) {
    this.#keep = keep;
    const waits = this.#first < this.#waiting.length;
    if (!waits || this.#closed) return;
    this.#native.hold(keep);
    for (let i = this.#first; i < this.#waiting.length; i++) this.#waiting[i].timer?.[keep ? 'ref' : 'unref']();
  }
}

module.exports = { Receiver };
