'use strict';

const native = require('./native.js');
const { failure } = require('./errors.js');
const { nativeOf, numberOf } = require('./label.js');
const { regionOrBuffer } = require('./region.js');
const { Turns } = require('./turns.js');

/** What becomes of a message that cannot go at once. */
const REFUSE = 0;
const WAIT = 1;
const WAIT_ANYHOW = 2;

const SENT = 0;
const REFUSED = -1;

/** Milliseconds after which waiting messages are tried again where nobody tells of room, and where somebody should. */
const SOON = 4;
const LATER = 500;

/**
 * Milliseconds for which a full link is looked at once a turn of the event loop before its receiver is asked to tell of room:
 * to be told of each message that it takes costs both sides more than the message.
 */
const LOOK = 0.05;

/** The sending half of an endpoint. */
class Sender {
  #native;
  #number;
  /** Ticket → the promise's functions. */
  #promises = new Map();
  #turns = new Turns();
  #timer;
  #again;
  /** Until when a full link is looked at. */
  #until = 0;
  // Referenced weakly by the native part unless something waits.
  #room = () => this.#drain(false);

  constructor(half) {
    this.#native = half;
    this.#number = half.number;
  }

  /** Sends a message, or appends it to the queue of a receiver whose link is full. */
  send(selector, bytesMessage, buffers, attachments) {
    if (this.#post(selector, bytesMessage, buffers, attachments, WAIT) !== SENT) this.#watch();
  }

  /** Sends a message if that is possible at once; false if it is not. */
  trySend(selector, bytesMessage, buffers, attachments) {
    return this.#post(selector, bytesMessage, buffers, attachments, REFUSE) !== REFUSED;
  }

  /** Sends a message behind what is queued; settled when it is in the links of its receivers. */
  sendAsync(selector, bytesMessage, buffers, attachments) {
    let ticket;
    try {
      ticket = this.#post(selector, bytesMessage, buffers, attachments, WAIT_ANYHOW);
    } catch (error) {
      return Promise.reject(error);
    }
    if (ticket === SENT) {
      return this.#turns.spend(bytesMessage.data.length) ? Promise.resolve() : this.#turns.next();
    }
    return new Promise((resolve, reject) => {
      this.#promises.set(ticket, { resolve, reject });
      this.#watch();
    });
  }

  /** Bytes that are queued. */
  get queued() {
    return this.#native.waiting;
  }

  /** Gives the half up, and what is queued with it. */
  close() {
    clearTimeout(this.#timer);
    clearImmediate(this.#again);
    this.#timer = this.#again = undefined;
    this.#report(this.#native.close());
  }

  #post(selector, bytesMessage, buffers, attachments, otherwise) {
    const { labelOp, mode, ttl } = selector;
    const { format, data } = bytesMessage;
    if ((buffers === undefined || buffers === null || buffers.length === 0) && !attachments) {
      return native.send(this.#number, numberOf(labelOp), mode, ttl ?? 0, format, data, otherwise);
    }
    const regions = [...(buffers ?? []).map(regionOrBuffer), ...(attachments?.memoryRegions ?? [])];
    const objects = attachments?.objects ?? [];
    return this.#native.sendWith(nativeOf(labelOp), mode, ttl ?? 0, format, data, otherwise, regions, objects);
  }

  /** Sees to it that what waits goes on. */
  #watch() {
    if (this.#timer !== undefined || this.#again !== undefined) return;
    this.#until = performance.now() + LOOK;
    this.#look();
  }

  #look() {
    this.#again = setImmediate(() => this.#drain(true));
  }

  #drain(all) {
    clearTimeout(this.#timer);
    clearImmediate(this.#again);
    this.#timer = this.#again = undefined;
    let drained;
    try {
      drained = this.#native.drain(all);
    } catch {
      return; // Closed meanwhile; that has told everybody.
    }
    if (drained.waits) {
      const now = performance.now();
      if (drained.sent.length > 0) this.#until = now + LOOK;
      if (drained.again || now < this.#until) this.#look();
      else this.#ask(drained.soon);
    }
    this.#report(drained);
  }

  /** Asks to be told of room, and looks again by itself now and then. */
  #ask(soon) {
    try {
      soon = this.#native.watch(this.#room) || soon;
    } catch {
      soon = true; // Nobody tells, for want of a descriptor.
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#drain(true), soon ? SOON : LATER);
  }

  #report({ sent, failed, errors }) {
    for (const ticket of sent) {
      const promise = this.#promises.get(ticket);
      if (promise) {
        this.#promises.delete(ticket);
        promise.resolve();
      }
    }
    failed.forEach((ticket, index) => {
      const { code, message } = errors[index];
      const promise = this.#promises.get(ticket);
      this.#promises.delete(ticket);
      if (promise) promise.reject(failure(code, message));
      else if (code !== 'IPMB_CLOSED') process.emitWarning(`a queued message was not sent: ${message}`, { code });
    });
  }
}

module.exports = { Sender };
