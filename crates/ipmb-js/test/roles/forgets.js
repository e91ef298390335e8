'use strict';
// Makes endpoints, objects and regions and forgets them; reports how many descriptors are open before and after. Needs --expose-gc.

const fs = require('node:fs');
const { ipmb, busName, join, to, bytes } = require('../common.js');

const descriptors = () => fs.readdirSync('/proc/self/fd').length;
const serving = () => fs.readdirSync('/proc/self/task').some((task) => {
  try {
    return fs.readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim() === 'ipmb';
  } catch {
    return false; // Ended meanwhile.
  }
});

async function round() {
  const { sender, receiver } = join(busName('forget'), 'me');
  const region = new ipmb.MemoryRegion(4096);
  sender.send(to('me'), bytes('x'), [Buffer.alloc(100)], { objects: [1], memoryRegions: [region] });
  const message = await receiver.recv(10_000);
  message.memoryRegions[0].mapShared()[0] = 1;
}

async function main() {
  await round();
  const before = descriptors();
  for (let n = 0; n < 30; n++) await round();
  for (let n = 0; n < 500 && (serving() || descriptors() > before); n++) {
    global.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  process.send({ before, after: descriptors(), threads: !serving() });
  process.disconnect();
}

main();
