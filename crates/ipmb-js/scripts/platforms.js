'use strict';
// Lays out what is published, in npm/ or the directory that is named: one package per platform with its native part, and
// their names as optional dependencies of this package. Run it where the native parts (ipmb-js.*.node) are; it prints what is
// left to do.

const fs = require('node:fs');
const path = require('node:path');
const { platforms, fileName, packageName } = require('../lib/platform.js');

const here = path.join(__dirname, '..');
const out = path.resolve(process.argv[2] ?? path.join(here, 'npm'));
const manifest = JSON.parse(fs.readFileSync(path.join(here, 'package.json'), 'utf8'));
const found = [];
for (const platform of platforms) {
  const native = fileName(platform);
  if (!fs.existsSync(path.join(here, native))) {
    console.log(`${native} is not here: ${packageName(platform)} is left out`);
    continue;
  }
  const dir = path.join(out, platform.name);
  fs.mkdirSync(dir, { recursive: true });
  fs.copyFileSync(path.join(here, native), path.join(dir, native));
  for (const license of ['LICENSE-MIT', 'LICENSE-APACHE']) fs.copyFileSync(path.join(here, license), path.join(dir, license));
  const { version, license, repository, engines } = manifest;
  const own = {
    name: packageName(platform),
    version,
    description: `The native part of ipmb-js for ${platform.name}`,
    license,
    repository,
    main: native,
    files: [native, 'LICENSE-MIT', 'LICENSE-APACHE'],
    os: [platform.os],
    cpu: [platform.cpu],
    ...(platform.libc && { libc: [platform.libc] }),
    engines,
  };
  fs.writeFileSync(path.join(dir, 'package.json'), JSON.stringify(own, null, 2) + '\n');
  found.push(platform);
}
const published = {
  ...manifest,
  optionalDependencies: Object.fromEntries(found.map((platform) => [packageName(platform), manifest.version])),
};
delete published.devDependencies;
delete published.scripts;
const dir = path.join(out, 'ipmb-js');
fs.rmSync(dir, { recursive: true, force: true });
fs.mkdirSync(dir, { recursive: true });
for (const name of manifest.files) fs.cpSync(path.join(here, name), path.join(dir, name), { recursive: true });
fs.writeFileSync(path.join(dir, 'package.json'), JSON.stringify(published, null, 2) + '\n');
const names = [...found.map((platform) => platform.name), 'ipmb-js'];
console.log('npm publish each of: ' + names.map((name) => path.relative(process.cwd(), path.join(out, name))).join(' '));
