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

async function main() {
  await round();
  const kept = join(busName('keep'), 'me');
  const before = inUse();
  kept.sender.close(), kept.receiver.close();
  for (let n = 0; n < 30; n++) await round();
  let after = inUse();
  for (let n = 0; n < 500 && (after.serving || after.handles > before.handles); n++) {
    global.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
    after = inUse();
  }
  process.send({ before, after });
  process.disconnect();
}

main();
