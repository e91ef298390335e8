'use strict';
// A Node process that receives as `peer`: reports count and last format when told, and the order of 32-bit numbers.

const { join, answer } = require('../common.js');

async function main() {
  const { receiver } = join(process.argv[2], 'peer', { controllerAffinity: false });
  process.send('joined');
  if (process.argv[3] === 'late') await answer(process);
  let count = 0;
  let ordered = true;
  for await (const { bytesMessage } of receiver) {
    if (bytesMessage.format === 9) break;
    ordered &&= bytesMessage.data.readUInt32LE(0) === count;
    count++;
  }
  receiver.close();
  process.send({ count, ordered });
  process.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
