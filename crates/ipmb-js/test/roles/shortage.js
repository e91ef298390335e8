'use strict';
// Run with a small table of descriptors: opens all there are, and looks what sending and sharing memory say then.

const assert = require('node:assert');
const fs = require('node:fs');
const { ipmb, join, to, bytes, SOON } = require('../common.js');

const exhausted = { code: 'IPMB_EXHAUSTED' };

async function main() {
  const { sender, receiver } = join(process.argv[2], 'me');
  sender.send(to('me'), bytes('before'), [Buffer.from('x')], { objects: [0] });
  await receiver.recv(SOON);
  const open = [];
  assert.throws(() => {
    for (;;) open.push(fs.openSync('/dev/null'));
  }, { code: 'EMFILE' });
  assert.throws(() => sender.send(to('me'), bytes(''), [], { objects: [0] }), exhausted);
  assert.throws(() => sender.send(to('me'), bytes(''), [Buffer.alloc(10)]), exhausted);
  assert.throws(() => new ipmb.MemoryRegion(10), exhausted);
  await assert.rejects(ipmb.joinAsync({ identifier: process.argv[2], label: [], token: 'token' }, SOON), exhausted);
  for (const fd of open) fs.closeSync(fd);
  sender.send(to('me'), bytes('after'), [Buffer.from('y')], { objects: [0] });
  const { bytesMessage, memoryRegions } = await receiver.recv(SOON);
  assert.strictEqual(bytesMessage.data.toString() + memoryRegions[0].map(0, -1), 'aftery');
  sender.close();
  receiver.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
