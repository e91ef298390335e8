'use strict';
// Views of memory regions. A region has one ArrayBuffer at most, and the ArrayBuffer knows its region: a buffer that covers
// all of it travels as the region itself.

const native = require('./native.js');
const { failure } = require('./errors.js');

const { MemoryRegion } = native;

/** ArrayBuffer → the region that it shows, which so lives as long as it. */
const regionOf = new WeakMap();
/** Region → its ArrayBuffer and whether that is of the time before the region was frozen. */
const viewOf = new WeakMap();

function wholeView(region) {
  const known = viewOf.get(region);
  const buffer = known?.ref.deref();
  if (buffer && known.frozen === region.frozen) return buffer;
  const view = region.view();
  if (view === null) {
    throw failure('IPMB_NO_EXTERNAL_BUFFERS', 'this host allows no views of foreign memory in JavaScript; use map and write, which copy');
  }
  if (view.byteLength > 0) {
    viewOf.set(region, { ref: new WeakRef(view.buffer), frozen: region.frozen });
    regionOf.set(view.buffer, region);
  }
  return view.buffer;
}

MemoryRegion.prototype.mapShared = function mapShared(offset = 0, size = -1) {
  const all = this.size;
  const end = size === -1 ? all : offset + size;
  if (!Number.isInteger(offset) || !Number.isInteger(end) || offset < 0 || end < offset || end > all) {
    throw failure('IPMB_OUT_OF_BOUNDS', `the range ${offset}..${end} is not inside a region of ${all} bytes`);
  }
  return Buffer.from(wholeView(this), offset, end - offset);
};

/** The open region that a buffer shows in whole, or the buffer. */
function regionOrBuffer(buffer) {
  const region = regionOf.get(buffer.buffer);
  return region && buffer.byteLength === buffer.buffer.byteLength ? region : buffer;
}

/** Gives out regions and uses their memory again once nobody else holds them. */
class MemoryRegistry {
  #native = new native.NativeRegistry();
  #free = new Map();
  #next = 1;

  alloc(minSize, tag, free) {
    let number;
    if (free !== undefined && free !== null) {
      if (typeof free !== 'function') throw failure('IPMB_INVALID_ARGUMENT', '`free` must be a function');
      number = this.#next;
      this.#next = (this.#next + 1) >>> 0 || 1;
    }
    const region = this.#native.alloc(minSize, tag ?? undefined, number);
    if (number !== undefined) this.#free.set(number, free);
    this.#call();
    return region;
  }

  maintain() {
    this.#native.maintain();
    this.#call();
  }

  close() {
    this.#native.close();
    this.#call();
  }

  #call() {
    let thrown;
    for (const number of this.#native.freed()) {
      const free = this.#free.get(number);
      this.#free.delete(number);
      try {
        free?.();
      } catch (error) {
        thrown ??= { error };
      }
    }
    if (thrown) throw thrown.error;
  }
}

module.exports = { MemoryRegion, MemoryRegistry, regionOrBuffer };
