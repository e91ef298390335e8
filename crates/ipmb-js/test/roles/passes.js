'use strict';
// A Node process that copies a number within the region, writes it to the file, and passes both back.

const fs = require('node:fs');
const { join, to, bytes } = require('../common.js');

async function main() {
  const { sender, receiver } = join(process.argv[2], 'passes', { controllerAffinity: false });
  process.send('joined');
  for await (const { bytesMessage, objects, memoryRegions } of receiver) {
    if (bytesMessage.format === 9) break;
    const view = memoryRegions[0].mapShared();
    view.writeUInt32LE(view.readUInt32LE(4), 0);
    fs.writeSync(objects[0].value(), `${bytesMessage.data}\n`);
    await sender.sendAsync(to('node'), bytes(`${bytesMessage.data} back`), [], { objects, memoryRegions });
    memoryRegions[0].close();
    objects[0].close();
  }
  receiver.close();
  sender.close();
  process.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
