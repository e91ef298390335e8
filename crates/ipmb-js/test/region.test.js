'use strict';
// Regions, views of them, and the registry.

const { test } = require('node:test');
const assert = require('node:assert');
const { ipmb } = require('./common.js');

const code = (expected) => (error) => {
  assert.strictEqual(error.code, expected, error.stack);
  return true;
};

test('map copies and mapShared does not', () => {
  const region = new ipmb.MemoryRegion(10);
  const [copy, view, part] = [region.map(0, -1), region.mapShared(), region.mapShared(2, 3)];
  view.write('0123456789');
  assert.deepStrictEqual(copy, Buffer.alloc(10));
  assert.strictEqual(part.toString(), '234');
  assert.strictEqual(region.map(8, -1).toString(), '89');
  assert.strictEqual(part.buffer, view.buffer);
  region.close();
  assert.strictEqual(view.toString(), '0123456789', 'a view outlives its region');
  assert.throws(() => region.map(0, 1), code('IPMB_CLOSED'));
});

test('ranges outside of a region are refused', () => {
  const region = new ipmb.MemoryRegion(10);
  for (const [offset, size] of [[0, 11], [11, -1], [11, 0], [5, 6], [2 ** 53, 2 ** 53]]) {
    assert.throws(() => region.map(offset, size), code('IPMB_OUT_OF_BOUNDS'), `${offset} ${size}`);
    assert.throws(() => region.mapShared(offset, size), code('IPMB_OUT_OF_BOUNDS'), `${offset} ${size}`);
  }
  for (const [offset, size] of [[-1, 1], [0, -2], [0.5, 1], [NaN, 1], [0, Infinity]]) {
    assert.throws(() => region.map(offset, size), code('IPMB_INVALID_ARGUMENT'), `${offset} ${size}`);
  }
  assert.throws(() => new ipmb.MemoryRegion(-1), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => region.write(Buffer.alloc(11)), code('IPMB_OUT_OF_BOUNDS'));
  assert.strictEqual(region.map(10, 0).length, 0);
  assert.strictEqual(new ipmb.MemoryRegion(0).mapShared().length, 0);
});

test('a frozen region cannot be written, and writes to its view stay private', () => {
  const region = new ipmb.MemoryRegion(5);
  region.write(Buffer.from('hello'));
  region.freeze();
  region.freeze();
  assert.ok(region.frozen);
  assert.throws(() => region.write(Buffer.from('x')), code('IPMB_FROZEN'));
  const view = region.mapShared();
  assert.strictEqual(view.toString(), 'hello');
  view[0] = 0x6a;
  assert.strictEqual(view.toString(), 'jello');
  assert.strictEqual(region.map(0, -1).toString(), 'hello');
  assert.strictEqual(region.clone().mapShared().toString(), 'hello');
});

test('a region with a writable view cannot be frozen', () => {
  const region = new ipmb.MemoryRegion(5);
  const view = region.mapShared();
  assert.throws(() => region.freeze(), code('IPMB_BUSY'));
  assert.ok(!region.frozen && view.length === 5);
});

test('the registry uses memory again and calls free once', () => {
  const registry = new ipmb.MemoryRegistry();
  let freed = 0;
  const region = registry.alloc(100_000, 'a', () => freed++);
  assert.ok(region.size >= 100_000);
  assert.strictEqual(region.refCount(), 2);
  region.write(Buffer.from('mark'));
  registry.maintain();
  assert.strictEqual(freed, 0);
  region.close();
  registry.maintain();
  registry.maintain();
  assert.strictEqual(freed, 1);
  assert.strictEqual(registry.alloc(100_000, 'a').map(0, 4).toString(), 'mark');
  assert.strictEqual(registry.alloc(100_000, 'b').map(0, 4).toString(), '\0\0\0\0');
  registry.alloc(1, null, () => freed++);
  registry.close();
  assert.strictEqual(freed, 2);
});
