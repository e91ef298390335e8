'use strict';
// Makes endpoints, objects and regions and forgets them; reports what is in use before and after. Needs --expose-gc.

const { ipmb, busName, join, to, bytes, inUse } = require('../common.js');

async function round() {
  const { sender, receiver } = join(busName('forget'), 'me');
  const region = new ipmb.MemoryRegion(4096);
  sender.send(to('me'), bytes('x'), [Buffer.alloc(100)], { objects: [1], memoryRegions: [region] });
  const message = await receiver.recv(10_000);
  message.memoryRegions[0].mapShared()[0] = 1;
}

// What is in use once what was forgotten is collected, and nothing is left that is too much.
async function forgotten(isTooMuch) {
  let now = inUse();
  for (let n = 0; n < 500 && (now.serving || isTooMuch(now)); n++) {
    global.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
    now = inUse();
  }
  return now;
}

async function main() {
  await round();
  const first = await forgotten(() => false);
  const kept = join(busName('keep'), 'me');
  const before = { handles: first.handles, serving: inUse().serving };
  kept.sender.close(), kept.receiver.close();
  for (let n = 0; n < 30; n++) await round();
  const after = await forgotten((now) => now.handles > before.handles);
  process.send({ before, after });
  process.disconnect();
}

main();
