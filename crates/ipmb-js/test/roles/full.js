'use strict';
// Run with a small table of descriptors: hosts a bus, and has no descriptor left for another endpoint.

const assert = require('node:assert');
const fs = require('node:fs');
const { join } = require('../common.js');

const ends = join(process.argv[2], 'host');
const open = [];
assert.throws(() => {
  for (;;) open.push(fs.openSync('/dev/null'));
}, { code: 'EMFILE' });
process.send('full');
process.on('disconnect', () => process.exit(ends && open ? 0 : 1));
