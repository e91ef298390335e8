'use strict';
// A process, or a worker, that leaves its endpoints behind in the way that its second argument names.

const { isMainThread, parentPort, workerData } = require('node:worker_threads');
const { joinAsync } = require('../..');
const { join, options, to, bytes } = require('../common.js');

const [bus, how] = isMainThread ? process.argv.slice(2) : workerData;

/** Fills the link of `deaf`, which receives nothing, so that something is queued for it. */
async function stuff(sender) {
  const data = Buffer.alloc(64 << 10);
  await sender.sendAsync(to('deaf'), { format: 0, data }, []);
  while (sender.trySend(to('deaf'), { format: 0, data }, []));
  for (let n = 0; n < 10; n++) sender.send(to('deaf'), { format: 0, data }, []);
  sender.sendAsync(to('deaf'), { format: 0, data }, []).catch(() => {});
}

async function main() {
  if (how === 'joining') {
    // On a bus where nobody hosts, and without a timeout: for ever.
    joinAsync({ ...options(bus, how), controllerAffinity: false });
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (isMainThread) process.exit(3);
    parentPort.postMessage('busy');
    return;
  }
  const { sender, receiver } = join(bus, how, { controllerAffinity: false });
  if (how === 'deaf') {
    setInterval(() => {}, 1000);
    process.send('deaf');
    return;
  }
  if (how === 'nothing') return;
  if (how === 'received') {
    sender.send(to('received'), bytes('to myself'), []);
    await receiver.recv(1000);
    return;
  }
  if (how === 'timed out') {
    await receiver.recv(10).catch(() => {});
    return;
  }
  if (how === 'unref') {
    receiver.unref().recv();
    return;
  }
  if (how === 'closed') {
    const waits = receiver.recv().catch(() => {});
    receiver.close();
    sender.close();
    await waits;
    return;
  }
  // From here on the endpoint keeps the process running.
  receiver.recv().catch(() => {});
  (async () => {
    for await (const _ of receiver);
  })().catch(() => {});
  await stuff(sender);
  if (how === 'throw') setImmediate(() => { throw new Error('on purpose'); });
  else if (how === 'exit') process.exit(3);
  else if (isMainThread) process.send('busy');
  else parentPort.postMessage('busy');
}

main();
