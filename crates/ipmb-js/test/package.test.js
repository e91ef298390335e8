'use strict';
// The package itself: its entries, its types, what is published, and what it says when its native part is missing.

const { test } = require('node:test');
const assert = require('node:assert');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { ipmb } = require('./common.js');
const { current, fileName, packageName } = require('../lib/platform.js');

const root = path.join(__dirname, '..');
const scratch = (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ipmb-js-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  return dir;
};

/** Runs a script in `dir`. */
const run = (dir, script, ...args) => execFileSync(process.execPath, [...args, '-e', script], { cwd: dir, encoding: 'utf8' });

test('both entries have the same names', async () => {
  const module = await import('../lib/index.mjs');
  const names = Object.keys(ipmb);
  assert.deepStrictEqual(Object.keys(module).sort(), names.sort());
  for (const name of names) assert.strictEqual(module[name], ipmb[name]);
});

test('the types name every code that there is', () => {
  const files = (dir) => fs.readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(dir, entry.name);
    return entry.isDirectory() ? files(file) : [file];
  });
  const read = (dir) => files(path.join(root, dir)).map((file) => fs.readFileSync(file, 'utf8'));
  const codes = (text) => new Set(text.match(/(?<=["'])IPMB_[A-Z_]+(?=["'])/g));
  const types = fs.readFileSync(path.join(root, 'lib/index.d.ts'), 'utf8');
  const code = read('src').concat(read('lib').filter((text) => text.startsWith("'use strict'"))).join('\n');
  assert.deepStrictEqual([...codes(types)].sort(), [...codes(code)].sort());
  assert.strictEqual(fs.readFileSync(path.join(root, 'lib/index.d.mts'), 'utf8'), types, 'the types of both entries');
});

test('a missing native part is an error that names what was tried', (t) => {
  const dir = scratch(t);
  const missing = path.join(dir, 'missing.node');
  const attempt = (env) => {
    const script = `try { require(process.env.LIB) } catch ({ code, tried, message, cause }) {
      console.log(JSON.stringify({ code, tried, message, cause: String(cause) })) }`;
    return JSON.parse(execFileSync(process.execPath, ['-e', script], { env: { ...process.env, IPMB_JS_NATIVE: '', ...env }, encoding: 'utf8' }));
  };
  const named = attempt({ LIB: root, IPMB_JS_NATIVE: missing });
  assert.strictEqual(named.code, 'IPMB_NO_NATIVE');
  assert.deepStrictEqual(named.tried, [missing]);
  assert.ok(named.message.includes(missing) && named.cause.includes('missing.node'), named.message);

  // A copy without a local build, and without the package for the platform.
  const copy = path.join(dir, 'node_modules', 'ipmb-js');
  fs.cpSync(path.join(root, 'lib'), path.join(copy, 'lib'), { recursive: true });
  fs.copyFileSync(path.join(root, 'package.json'), path.join(copy, 'package.json'));
  const local = path.join(copy, fileName());
  let tried = attempt({ LIB: copy });
  assert.deepStrictEqual(tried.tried, [local, packageName(current())]);
  for (const place of tried.tried) assert.ok(tried.message.includes(place), tried.message);
  // One that is there and cannot be loaded is named with the reason.
  fs.writeFileSync(local, 'no library');
  tried = attempt({ LIB: copy });
  assert.ok(tried.message.includes(`${local}: `) && /ELF|too short|header|not a valid Win32|Bad EXE format/.test(tried.message), tried.message);
});

test('what is published installs and works without the repository', { skip: spawnSync('npm', ['--version']).error && 'npm is missing' }, (t) => {
  const dir = scratch(t);
  const npm = (cwd, ...args) => execFileSync('npm', ['--offline', '--no-audit', '--no-fund', '--silent', ...args], { cwd, encoding: 'utf8' });
  const out = path.join(dir, 'npm');
  execFileSync(process.execPath, [path.join(root, 'scripts/platforms.js'), out]);
  const packages = fs.readdirSync(out);
  assert.deepStrictEqual(packages.sort(), ['ipmb-js', current().name].sort());
  const tarballs = packages.map((name) => path.join(dir, npm(dir, 'pack', path.join(out, name)).trim()));

  const user = path.join(dir, 'user');
  fs.mkdirSync(user);
  fs.writeFileSync(path.join(user, 'package.json'), '{ "name": "user", "private": true }');
  npm(user, 'install', ...tarballs);
  const installed = JSON.parse(fs.readFileSync(path.join(user, 'node_modules/ipmb-js/package.json'), 'utf8'));
  assert.deepStrictEqual(installed.optionalDependencies, { [packageName(current())]: installed.version });
  assert.ok(!fs.existsSync(path.join(user, 'node_modules/ipmb-js', fileName())), 'the native part is in a package of its own');
  const script = `
    const { sender, receiver } = ipmb.join({ identifier: 'js.published.' + process.pid, label: ['me'], token: '', controllerAffinity: true }, 20000);
    sender.send({ labelOp: new ipmb.LabelOp('me'), mode: ipmb.SelectorMode.Unicast, ttl: 0 }, { format: 1, data: Buffer.from('works') }, []);
    receiver.recv(20000).then(({ bytesMessage: { data } }) => { console.log(data.toString()); sender.close(); receiver.close(); });`;
  assert.strictEqual(run(user, `const ipmb = require('ipmb-js'); ${script}`), 'works\n');
  assert.strictEqual(run(user, `import * as ipmb from 'ipmb-js'; ${script}`, '--input-type=module'), 'works\n');
});
