'use strict';
// How endpoints end with their process, their worker and the collector: without a crash, a leak or a process that stays.

const assert = require('node:assert');
const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { Worker } = require('node:worker_threads');
const { busName, join, to, bytes, SOON, test, startRole, answer, end, inUse } = require('./common.js');

const life = path.join(__dirname, 'roles', 'life.js');

/** Waits until this process has no more in use than is allowed, and gives up after a while. */
async function comesDown(allowed) {
  const until = Date.now() + SOON;
  for (;;) {
    const now = inUse();
    const over = Object.keys(allowed).filter((what) => now[what] > allowed[what]);
    if (over.length === 0) return;
    assert.ok(Date.now() < until, over.map((what) => `${now[what]} ${what}, ${allowed[what]} are allowed`).join('; '));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

for (const [how, code] of [['nothing', 0], ['received', 0], ['timed out', 0], ['unref', 0], ['closed', 0], ['exit', 3], ['throw', 1]]) {
  test(`a process ends by itself after: ${how}`, async () => {
    const bus = busName('ends');
    const host = join(bus, 'host');
    const deaf = join(bus, 'deaf');
    const child = startRole('life.js', [bus, how], { stdio: ['ignore', 'inherit', how === 'throw' ? 'ignore' : 'inherit', 'ipc'] });
    child.channel.unref();
    const timer = setTimeout(() => child.kill('SIGABRT'), SOON);
    assert.strictEqual(await end(child), code);
    clearTimeout(timer);
    for (const half of [host.sender, host.receiver, deaf.sender, deaf.receiver]) half.close();
  });
}

test('a join that waits keeps neither a process that exits nor a worker that is terminated', async () => {
  const bus = busName('joining');
  const child = startRole('life.js', [bus, 'joining']);
  const timer = setTimeout(() => child.kill('SIGABRT'), SOON);
  assert.strictEqual(await end(child), 3);
  clearTimeout(timer);
  const worker = new Worker(life, { workerData: [bus, 'joining'] });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const late = new Promise((_, reject) => setTimeout(reject, SOON, new Error('the worker does not end')).unref());
  await Promise.race([worker.terminate(), late]);
});

test('a receive that waits keeps its process running until a signal ends it', async () => {
  const bus = busName('stays');
  const deaf = join(bus, 'deaf');
  const child = startRole('life.js', [bus, 'busy']);
  assert.strictEqual(await answer(child), 'busy');
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.strictEqual(child.exitCode, null);
  child.kill('SIGTERM');
  assert.strictEqual(await end(child), 'SIGTERM');
  deaf.sender.close(), deaf.receiver.close();
});

test('workers that are terminated with receives and queues leave nothing behind', async () => {
  const bus = busName('workers');
  const host = join(bus, 'host');
  // Elsewhere, since it keeps what was sent to it.
  const deaf = startRole('life.js', [bus, 'deaf']);
  await answer(deaf);
  const round = async () => {
    const worker = new Worker(life, { workerData: [bus, 'worker'] });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
  };
  await round();
  const { handles, threads } = inUse();
  for (let n = 0; n < 10; n++) await round();
  await comesDown({ handles: handles + 4, threads: threads + 1 });
  deaf.kill();
  await end(deaf);
  host.sender.close(), host.receiver.close();
});

test('workers exchange messages, and end by themselves', async () => {
  const bus = busName('worker');
  const { sender, receiver } = join(bus, 'main');
  const source = `
    const { join, to, bytes } = require(${JSON.stringify(path.join(__dirname, 'common.js'))});
    const { sender, receiver } = join(${JSON.stringify(bus)}, 'worker');
    (async () => {
      sender.send(to('main'), bytes('ready'), []);
      for (let n = 0; n < 1000; n++) sender.send(to('main'), (await receiver.recv()).bytesMessage, []);
    })();`;
  const worker = new Worker(source, { eval: true });
  const ended = new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  await receiver.recv(SOON);
  for (let n = 0; n < 1000; n++) sender.send(to('worker'), bytes(String(n)), []);
  for (let n = 0; n < 1000; n++) assert.strictEqual((await receiver.recv(SOON)).bytesMessage.data.toString(), String(n));
  assert.strictEqual(await ended, 0);
  sender.close(), receiver.close();
});

test('forgotten endpoints, objects and regions are collected', async () => {
  const child = startRole('forgets.js', [], { execArgv: ['--expose-gc'] });
  const { before, after } = await answer(child);
  assert.ok(before.serving && !after.serving, 'the serving thread ended with the last endpoint');
  assert.ok(after.handles <= before.handles + 8, `${after.handles} handles after, ${before.handles} before`);
  assert.strictEqual(await end(child), 0);
});

test('a test that fails leaves no process behind that keeps the others from running', () => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { status, stdout } = spawnSync(process.execPath, [path.join(__dirname, 'roles', 'fails.js')], { env, encoding: 'utf8', timeout: SOON });
  assert.strictEqual(status, 1, 'it runs to its end');
  assert.match(stdout, /on purpose/);
});
