'use strict';
// Messages between endpoints: of one process, of two Node processes, and with a Rust process.

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { ipmb, busName, SOON, options, join, to, bytes, test, started, startRust, startNode, answer, end } = require('./common.js');

const code = (expected) => (error) => {
  assert.strictEqual(error.code, expected, error.stack);
  return true;
};

test('a message reaches whom its selector names, and nobody else', async () => {
  const bus = busName('route');
  const [a, b] = [join(bus, ['a', 'x']), join(bus, ['b', 'x'])];
  const both = new ipmb.LabelOp('x');
  const notA = new ipmb.LabelOp('a');
  notA.not();
  notA.and(both);
  a.sender.send(to('b'), bytes('to b', 7), []);
  a.sender.send({ labelOp: notA, mode: ipmb.SelectorMode.Multicast, ttl: 0 }, bytes('not to a'), []);
  a.sender.send({ labelOp: both, mode: ipmb.SelectorMode.Multicast, ttl: 0 }, bytes('to both'), []);
  a.sender.send(to('nobody'), bytes('lost'), []);
  assert.deepStrictEqual((await b.receiver.recv(SOON)).bytesMessage, bytes('to b', 7));
  assert.deepStrictEqual((await b.receiver.recv(SOON)).bytesMessage, bytes('not to a'));
  assert.deepStrictEqual((await b.receiver.recv(SOON)).bytesMessage, bytes('to both'));
  assert.deepStrictEqual((await a.receiver.recv(SOON)).bytesMessage, bytes('to both'));
  assert.strictEqual(a.receiver.tryRecv(), null);
  assert.strictEqual(b.receiver.tryRecv(), null);
  for (const { sender, receiver } of [a, b]) sender.close(), receiver.close();
});

test('data of every size arrives unchanged', async () => {
  const { sender, receiver } = join(busName('sizes'), 'me');
  const other = join(busName('sizes'), 'me');
  other.sender.close(), other.receiver.close();
  for (const size of [0, 1, 15, 4095, 4096, 4097, 65_535, 65_536, 1 << 20, 5_000_001]) {
    const data = Buffer.alloc(size, 'ipmb' + size);
    sender.send(to('me'), { format: 65_535, data }, []);
    const { bytesMessage } = await receiver.recv(SOON);
    assert.strictEqual(bytesMessage.format, 65_535);
    assert.ok(bytesMessage.data.equals(data), `${size} bytes`);
  }
  // What was received stays as it is when more is received.
  const kept = [];
  for (let n = 0; n < 5000; n++) {
    sender.send(to('me'), bytes(String(n)), []);
    kept.push((await receiver.recv(SOON)).bytesMessage.data);
  }
  kept.forEach((data, n) => assert.strictEqual(data.toString(), String(n)));
  sender.close(), receiver.close();
});

test('errors have the code of what went wrong', async () => {
  const bus = busName('codes');
  const { sender, receiver } = join(bus, 'a', { maxPayload: 1000 });
  assert.throws(() => ipmb.join({ ...options(bus, 'b'), token: 'wrong' }, SOON), code('IPMB_TOKEN_MISMATCH'));
  await assert.rejects(ipmb.joinAsync({ ...options(bus, 'b'), token: 'wrong' }, SOON), code('IPMB_TOKEN_MISMATCH'));
  assert.throws(() => ipmb.join(options('', 'b'), SOON), code('IPMB_INVALID_IDENTIFIER'));
  assert.throws(() => ipmb.join(options('x', 'b', { linkCapacity: 1 }), SOON), code('IPMB_INVALID_OPTION'));
  assert.throws(() => ipmb.join(options(busName('none'), 'b', { controllerAffinity: false }), 20), code('IPMB_TIMEOUT'));
  assert.throws(() => ipmb.join(options(bus, 'b'), -1), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send(to('a'), bytes(Buffer.alloc(1001)), []), code('IPMB_TOO_LARGE'));
  assert.throws(() => sender.send(to('a'), { format: 65_536, data: Buffer.alloc(0) }, []), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send(to('a'), { format: 0, data: 'text' }, []), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send({ labelOp: 'a', mode: 0, ttl: 0 }, bytes(''), []), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send({ ...to('a'), mode: 2 }, bytes(''), []), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send(to('x'.repeat(257)), bytes(''), []), code('IPMB_LIMIT'));
  assert.throws(() => sender.send(to('a'), bytes(''), [], { objects: new Array(254).fill(0) }), code('IPMB_TOO_MANY_ATTACHMENTS'));
  assert.throws(() => sender.send(to('a'), bytes(''), [], { objects: [-1] }), code('IPMB_INVALID_ARGUMENT'));
  assert.throws(() => sender.send(to('a'), bytes(''), [], { objects: [1 << 20] }), code('IPMB_IO'));
  await assert.rejects(sender.sendAsync(to('a'), bytes(Buffer.alloc(1001)), []), code('IPMB_TOO_LARGE'));
  await assert.rejects(receiver.recv(0), code('IPMB_TIMEOUT'));
  await assert.rejects(receiver.recv(5), code('IPMB_TIMEOUT'));
  await assert.rejects(receiver.recv(-5), code('IPMB_INVALID_ARGUMENT'));
  sender.close(), receiver.close();
  assert.throws(() => sender.send(to('a'), bytes(''), []), code('IPMB_CLOSED'));
  await assert.rejects(receiver.recv(), code('IPMB_CLOSED'));
  sender.close(), receiver.close();
});

test('a receive ends by its timeout, its signal or close, and takes no message with it', async () => {
  const { sender, receiver } = join(busName('end'), 'me');
  const control = new AbortController();
  const [timed, aborted, served] = [receiver.recv(10), receiver.recv(null, { signal: control.signal }), receiver.recv()];
  await assert.rejects(timed, code('IPMB_TIMEOUT'));
  control.abort();
  await assert.rejects(aborted, { name: 'AbortError' });
  sender.send(to('me'), bytes('for the one that waits'), []);
  assert.strictEqual((await served).bytesMessage.data.toString(), 'for the one that waits');
  await assert.rejects(receiver.recv(null, { signal: AbortSignal.abort(new Error('before')) }), /before/);
  const waits = receiver.recv();
  const loop = (async () => {
    for await (const _ of receiver) assert.fail('nothing was sent');
    return 'ended';
  })();
  receiver.close();
  await assert.rejects(waits, code('IPMB_CLOSED'));
  assert.strictEqual(await loop, 'ended');
  sender.close();
});

test('messages that are there do not keep timers from firing', async () => {
  const { sender, receiver } = join(busName('turns'), 'me');
  let fired = false;
  setTimeout(() => (fired = true), 0);
  let count = 0;
  for (; !fired && count < 1e6; count++) {
    await sender.sendAsync(to('me'), bytes('x'), []);
    await receiver.recv();
  }
  assert.ok(fired, 'a million messages passed and the timer has not fired');
  sender.close(), receiver.close();
});

test('a Rust process gets and gives data, objects and regions', async () => {
  const bus = busName('rust');
  const { sender, receiver } = join(bus, 'node');
  const peer = await startRust(bus, 'echo');
  const file = fs.mkdtempSync(path.join(os.tmpdir(), 'ipmb-js-')) + '/file';
  fs.writeFileSync(file, 'through a descriptor');
  const fd = fs.openSync(file, 'r');
  const frozen = new ipmb.MemoryRegion(3);
  frozen.write(Buffer.from('ice'));
  frozen.freeze();
  const buffer = Buffer.from([41, 1, 2, 3]);
  sender.send(to('echo'), bytes('hello', 4), [buffer, Buffer.alloc(0)], { objects: [fd, ipmb.Object.fromFd(fd)], memoryRegions: [frozen] });
  const { bytesMessage, objects, memoryRegions } = await receiver.recv(SOON);
  assert.deepStrictEqual(bytesMessage, bytes('hello', 5));
  assert.strictEqual(objects.length, 2);
  for (const object of objects) {
    const text = Buffer.alloc(20);
    assert.notStrictEqual(object.value(), fd);
    assert.strictEqual(fs.readSync(object.value(), text, 0, 20, 0), 20);
    assert.strictEqual(text.toString(), 'through a descriptor');
    object.close();
    assert.throws(() => object.value(), code('IPMB_CLOSED'));
  }
  fs.closeSync(fd);
  assert.deepStrictEqual(memoryRegions.map((region) => region.size), [4, 0, 3]);
  assert.deepStrictEqual(memoryRegions[0].map(0, -1), Buffer.from([42, 1, 2, 3]));
  assert.deepStrictEqual(buffer, Buffer.from([41, 1, 2, 3]), 'the buffer was copied');
  assert.ok(memoryRegions[2].frozen);
  assert.strictEqual(memoryRegions[2].map(0, -1).toString(), 'ice');
  // A view of a whole region travels as the region: the other side writes into it.
  const view = new ipmb.MemoryRegion(8).mapShared();
  view[0] = 7;
  sender.send(to('echo'), bytes('view'), [view]);
  const { memoryRegions: [region] } = await receiver.recv(SOON);
  assert.strictEqual(view[0], 8);
  region.mapShared()[1] = 9;
  assert.strictEqual(view[1], 9);
  sender.send(to('echo'), bytes('', 9), []);
  assert.strictEqual(await end(peer), 0);
  fs.rmSync(file);
  sender.close(), receiver.close();
});

test('attachments come with data of every kind and size', async () => {
  const bus = busName('with');
  const { sender, receiver } = join(bus, 'node');
  const peer = await startRust(bus, 'echo');
  for (const size of [0, 10, 4096, 4097, 1 << 20, 3 << 20]) {
    const data = Buffer.alloc(size, 'with');
    sender.send(to('echo'), { format: 65_534, data }, [Buffer.from([size & 255])], { objects: [0] });
    const { bytesMessage, objects, memoryRegions } = await receiver.recv(SOON);
    assert.strictEqual(bytesMessage.format, 65_535);
    assert.ok(bytesMessage.data.equals(data), `${size} bytes`);
    assert.deepStrictEqual([objects.length, memoryRegions[0].map(0, -1)[0]], [1, (size & 255) + 1]);
    for (const held of [...objects, ...memoryRegions]) held.close();
    sender.send(to('echo'), { format: 65_534, data }, []);
    const bare = await receiver.recv(SOON);
    assert.ok(bare.bytesMessage.data.equals(data) && bare.objects.length + bare.memoryRegions.length === 0);
  }
  sender.send(to('echo'), bytes('', 9), []);
  assert.strictEqual(await end(peer), 0);
  sender.close(), receiver.close();
});

test('a payload that does not decode is an error, and the next message comes', async () => {
  const bus = busName('liar');
  const { sender, receiver } = join(bus, 'node');
  const peer = await startRust(bus, 'liar');
  await assert.rejects(receiver.recv(SOON), code('IPMB_DECODE'));
  assert.deepStrictEqual((await receiver.recv(SOON)).bytesMessage, bytes('true', 7));
  assert.strictEqual(await end(peer), 0);
  sender.close(), receiver.close();
});

const noLimit = process.platform === 'win32' && 'the table of handles has no limit on Windows';

test('without descriptors send throws, and all works again when there are some', { skip: noLimit }, async () => {
  const shell = `ulimit -n 96; exec "$0" ${JSON.stringify(path.join(__dirname, 'roles', 'shortage.js'))} "$1"`;
  const child = started(spawn('sh', ['-c', shell, process.execPath, busName('shortage')], { stdio: 'inherit' }));
  assert.strictEqual(await end(child), 0);
});

test('a join says that the bus is full', { skip: noLimit }, async () => {
  const bus = busName('full');
  const shell = `ulimit -n 96; exec "$0" ${JSON.stringify(path.join(__dirname, 'roles', 'full.js'))} "$1"`;
  const child = started(spawn('sh', ['-c', shell, process.execPath, bus], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
  assert.strictEqual(await answer(child), 'full');
  const late = options(bus, 'late', { controllerAffinity: false });
  assert.throws(() => ipmb.join(late, 200), code('IPMB_BUS_FULL'));
  await assert.rejects(ipmb.joinAsync(late, 200), code('IPMB_BUS_FULL'));
  child.disconnect();
  assert.strictEqual(await end(child), 0);
});

test('a full link queues what is sent, in order, and says when it is too much', async () => {
  const bus = busName('queue');
  const { sender, receiver } = join(bus, 'node', { outboundQueue: 4 << 20 });
  const { child } = await startNode('receiver.js', bus, 'late');
  const others = join(bus, 'other');
  const data = Buffer.alloc(4096);
  let count = 0;
  const message = () => (data.writeUInt32LE(count), { format: 0, data });
  await sender.sendAsync(to('peer'), message(), []);
  count++;
  while (sender.trySend(to('peer'), message(), [])) count++;
  assert.strictEqual(sender.queued, 0);
  const direct = count;
  assert.throws(() => {
    for (;;) {
      sender.send(to('peer'), message(), []);
      count++;
    }
  }, code('IPMB_FULL'));
  assert.ok(sender.queued > (4 << 20) - 8192 && sender.queued <= 4 << 20, `${sender.queued} bytes are queued`);
  assert.ok(count > direct);
  assert.strictEqual(sender.trySend(to('peer'), message(), []), false, 'nothing passes what is queued');
  // A stuck receiver holds up nobody else.
  sender.send(to('other'), bytes('at once'), []);
  assert.strictEqual((await others.receiver.recv(SOON)).bytesMessage.data.toString(), 'at once');
  // sendAsync waits behind the queue; others go on meanwhile.
  const behind = [];
  for (let n = 0; n < 10; n++) {
    behind.push(sender.sendAsync(to('peer'), message(), []));
    count++;
  }
  let settled = false;
  behind[0].then(() => (settled = true));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.strictEqual(settled, false);
  child.send('go');
  await Promise.all(behind);
  await sender.sendAsync(to('peer'), { format: 9, data }, []);
  assert.deepStrictEqual(await answer(child), { count, ordered: true });
  assert.strictEqual(sender.queued, 0);
  await end(child);
  for (const half of [sender, receiver, others.sender, others.receiver]) half.close();
});

test('a multicast reaches at once who has room, and the others in order', async () => {
  const bus = busName('multicast-queue');
  const { sender, receiver } = join(bus, 'node');
  const { child } = await startNode('receiver.js', bus, 'late');
  const quick = join(bus, 'quick');
  const everybody = new ipmb.LabelOp('peer');
  everybody.or(new ipmb.LabelOp('quick'));
  const all = { labelOp: everybody, mode: ipmb.SelectorMode.Multicast, ttl: 0 };
  const data = Buffer.alloc(16 << 10);
  const count = 200;
  for (let n = 0; n < count; n++) {
    data.writeUInt32LE(n);
    sender.send(all, { format: 0, data }, []);
    assert.strictEqual((await quick.receiver.recv(SOON)).bytesMessage.data.readUInt32LE(0), n);
  }
  assert.ok(sender.queued > 0);
  sender.send(to('peer'), { format: 9, data }, []);
  child.send('go');
  assert.deepStrictEqual(await answer(child), { count, ordered: true });
  assert.strictEqual(quick.receiver.tryRecv(), null);
  await end(child);
  for (const half of [sender, receiver, quick.sender, quick.receiver]) half.close();
});

test('what is queued for a receiver that dies is settled', async () => {
  const bus = busName('dies');
  const { sender, receiver } = join(bus, 'node');
  const { child } = await startNode('receiver.js', bus, 'late');
  const data = Buffer.alloc(4096);
  await sender.sendAsync(to('peer'), { format: 0, data }, []);
  while (sender.trySend(to('peer'), { format: 0, data }, []));
  const waits = [sender.sendAsync(to('peer'), { format: 0, data }, []), sender.sendAsync(to('peer'), { format: 0, data }, [])];
  child.kill('SIGKILL');
  await Promise.all(waits);
  assert.strictEqual(sender.queued, 0);
  const closed = join(bus, 'closed');
  assert.ok(closed.receiver.tryRecv() === null);
  for (const half of [sender, receiver, closed.sender, closed.receiver]) half.close();
});

test('close rejects what is queued', async () => {
  const bus = busName('close');
  const { sender, receiver } = join(bus, 'node');
  const { child } = await startNode('receiver.js', bus, 'late');
  const data = Buffer.alloc(4096);
  await sender.sendAsync(to('peer'), { format: 0, data }, []);
  while (sender.trySend(to('peer'), { format: 0, data }, []));
  const waits = sender.sendAsync(to('peer'), { format: 0, data }, []);
  sender.close();
  await assert.rejects(waits, code('IPMB_CLOSED'));
  receiver.close();
  child.kill();
  await end(child);
});

test('what waits is limited to 64 MiB for each receiver unless said otherwise, and copies of buffers count', async () => {
  const bus = busName('limit');
  const { sender, receiver } = join(bus, 'node');
  const { child } = await startNode('receiver.js', bus, 'late');
  const selector = to('peer');
  const fill = (data, buffers) => {
    assert.throws(() => {
      for (;;) sender.send(selector, { format: 0, data }, buffers);
    }, code('IPMB_FULL'));
    return sender.queued;
  };
  const limit = 64 << 20;
  const queued = fill(Buffer.alloc(256 << 10), []);
  assert.ok(queued <= limit && queued > limit - (512 << 10), `${queued} bytes are queued`);
  sender.close(), receiver.close();
  child.kill();
  await end(child);

  const other = join(bus, 'other', { outboundQueue: 4 << 20 });
  const { child: slow } = await startNode('receiver.js', bus, 'late');
  // A few regions go to the receiver; then the line is full after as many bytes as if they were data.
  let sent = 0;
  assert.throws(() => {
    for (; sent < 1000; sent++) other.sender.send(selector, { format: 0, data: Buffer.alloc(4) }, [Buffer.alloc(1 << 20)]);
  }, code('IPMB_FULL'));
  assert.ok(other.sender.queued <= 4 << 20 && other.sender.queued > 2 << 20, `${other.sender.queued} bytes are queued`);
  other.sender.close(), other.receiver.close();
  slow.kill();
  await end(slow);
});

test('two Node processes pass a region and a descriptor on, and see one memory and one file', async () => {
  const bus = busName('pass');
  const { sender, receiver } = join(bus, 'node');
  const { child } = await startNode('passes.js', bus);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ipmb-js-'));
  const fd = fs.openSync(dir + '/file', 'w+');
  const region = new ipmb.MemoryRegion(100_000);
  const view = region.mapShared();
  for (let n = 1; n <= 100; n++) {
    view.writeUInt32LE(n, 4);
    sender.send(to('passes'), bytes(String(n)), [view], { objects: [fd] });
    const { bytesMessage, objects, memoryRegions } = await receiver.recv(SOON);
    assert.strictEqual(bytesMessage.data.toString(), `${n} back`);
    assert.strictEqual(view.readUInt32LE(0), n, 'written there, seen here');
    assert.strictEqual(memoryRegions[0].map(0, 4).readUInt32LE(0), n);
    memoryRegions[0].close();
    for (const object of objects) object.close();
  }
  assert.strictEqual(fs.readFileSync(dir + '/file', 'utf8'), Array.from({ length: 100 }, (_, n) => `${n + 1}\n`).join(''));
  fs.closeSync(fd);
  sender.send(to('passes'), bytes('', 9), []);
  assert.strictEqual(await end(child), 0);
  fs.rmSync(dir, { recursive: true });
  sender.close(), receiver.close();
});
