'use strict';
// Sends 1,000,000 messages of several sizes, some with regions and descriptors, from one Node process to another, and checks that
// the memory of neither grows. Run with --expose-gc (npm run test:memory).

const { fork } = require('node:child_process');
const { busName, join, to, answer, end, inUse } = require('../common.js');

const MESSAGES = 1_000_000;
const STEP = 50_000;
/** How much more than after the first steps is allowed: the heap's own ups and downs. */
const SLACK = 24 << 20;

/** Collects, and says what is in use: resident memory, and descriptors. */
async function used() {
  for (let n = 0; n < 4; n++) {
    global.gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { rss: process.memoryUsage().rss, fds: inUse().handles };
}

async function receive(bus) {
  const { receiver } = join(bus, 'peer', { controllerAffinity: false });
  process.send('joined');
  let count = 0;
  for await (const { bytesMessage, objects, memoryRegions } of receiver) {
    if (bytesMessage.format === 9) break;
    count++;
    for (const region of memoryRegions) region.map(0, 1);
    // Half of the attachments are left to the collector.
    if (count % 2) for (const held of [...objects, ...memoryRegions]) held.close();
    if (count % STEP === 0) process.send({ count, ...(await used()) });
  }
  receiver.close();
  process.disconnect();
}

async function main() {
  const bus = busName('flat');
  const { sender, receiver } = join(bus, 'source');
  const child = fork(__filename, [bus]);
  await answer(child);
  const sizes = [16, 100, 1024, 5000, 40_000];
  const datas = sizes.map((size) => Buffer.alloc(size, 1));
  const rows = [];
  const peer = to('peer');
  for (let count = 1; count <= MESSAGES; count++) {
    const message = { format: 0, data: datas[count % 100 === 0 ? 4 : count % 4] };
    const attached = count % 200 === 0;
    if (attached) await sender.sendAsync(peer, message, [datas[1]], { objects: [2] });
    else if (!sender.trySend(peer, message, [])) await sender.sendAsync(peer, message, []);
    if (count % STEP === 0) {
      const theirs = await answer(child);
      if (theirs.count !== count) throw new Error(`${theirs.count} of ${count} messages arrived`);
      const ours = await used();
      rows.push({ ours, theirs });
      const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
      console.log(`${count} messages: sender ${mib(ours.rss)} MiB, ${ours.fds} descriptors; receiver ${mib(theirs.rss)} MiB, ${theirs.fds} descriptors`);
    }
  }
  await sender.sendAsync(peer, { format: 9, data: datas[0] }, []);
  if ((await end(child)) !== 0) throw new Error('the receiver failed');
  sender.close(), receiver.close();
  // The first fifth fills caches and pools.
  const settled = rows.slice(0, rows.length / 5);
  const last = rows.at(-1);
  for (const side of ['ours', 'theirs']) {
    const most = Math.max(...settled.map((row) => row[side].rss));
    const fds = Math.max(...settled.map((row) => row[side].fds));
    if (last[side].rss > most + SLACK) throw new Error(`memory grew from ${most} to ${last[side].rss} bytes (${side})`);
    if (last[side].fds > fds + 16) throw new Error(`descriptors grew from ${fds} to ${last[side].fds} (${side})`);
  }
  console.log('flat');
}

if (typeof global.gc !== 'function') throw new Error('run it with --expose-gc');
(process.argv[2] ? receive(process.argv[2]) : main()).catch((error) => {
  console.error(error);
  process.exit(1);
});
