'use strict';
// Which native part belongs to this platform.

/** What native parts are published for. */
const platforms = [
  { name: 'linux-x64-gnu', os: 'linux', cpu: 'x64', libc: 'glibc' },
  { name: 'linux-x64-musl', os: 'linux', cpu: 'x64', libc: 'musl' },
  { name: 'linux-arm64-gnu', os: 'linux', cpu: 'arm64', libc: 'glibc' },
  { name: 'linux-arm64-musl', os: 'linux', cpu: 'arm64', libc: 'musl' },
  { name: 'win32-x64', os: 'win32', cpu: 'x64' },
];

function libc() {
  if (process.platform !== 'linux') return undefined;
  // The report names the C library's version only for glibc.
  return process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
}

/** This platform, `undefined` if nothing is published for it. */
function current() {
  const own = libc();
  return platforms.find((p) => p.os === process.platform && p.cpu === process.arch && p.libc === own);
}

const fileName = (platform = current()) => `ipmb-js.${platform?.name ?? `${process.platform}-${process.arch}`}.node`;
const packageName = (platform) => `ipmb-js-${platform.name}`;

module.exports = { platforms, current, fileName, packageName };
