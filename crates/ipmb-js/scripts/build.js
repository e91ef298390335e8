'use strict';
// Builds the native part with cargo and puts it where lib/native.js looks first. `npm run build -- --debug` for a debug build.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { fileName } = require('../lib/platform.js');

const debug = process.argv.includes('--debug');
const root = path.join(__dirname, '..', '..', '..');
const cargo = spawnSync('cargo', ['build', '-p', 'ipmb-js', '--message-format=json-render-diagnostics', ...(debug ? [] : ['--release'])], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
  encoding: 'utf8',
  maxBuffer: 1 << 28,
});
if (cargo.error) throw cargo.error;
if (cargo.status !== 0) process.exit(cargo.status ?? 1);
const built = cargo.stdout
  .split('\n')
  .filter((line) => line.includes('"compiler-artifact"'))
  .map((line) => JSON.parse(line))
  .filter((artifact) => artifact.target.name === 'ipmb_js')
  .flatMap((artifact) => artifact.filenames)
  .find((name) => /\.(so|dylib|dll)$/.test(name));
if (!built) throw new Error('cargo has built no library');
const to = path.join(__dirname, '..', fileName());
// Put aside first: a process that has the old one loaded keeps it.
fs.copyFileSync(built, to + '.new');
fs.renameSync(to + '.new', to);
console.log(path.relative(process.cwd(), to));
