'use strict';
// A test that fails while a process that it has started goes on.

const assert = require('node:assert');
const { busName, join, test, startRole, answer } = require('../common.js');

test('fails', async () => {
  const bus = busName('fails');
  const deaf = join(bus, 'deaf');
  assert.strictEqual(await answer(startRole('life.js', [bus, 'busy'])), 'busy');
  // Used to the end: what is forgotten may be collected.
  assert.strictEqual(deaf.sender.queued, 1, 'on purpose');
});
