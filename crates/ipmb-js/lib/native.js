'use strict';
// Loads the native part: a local build beside this package, or the package for this platform.

const path = require('node:path');
const { current, fileName, packageName } = require('./platform.js');

function load() {
  const platform = current();
  const places = [];
  if (process.env.IPMB_JS_NATIVE) places.push(path.resolve(process.env.IPMB_JS_NATIVE));
  else {
    places.push(path.join(__dirname, '..', fileName(platform)));
    if (platform) places.push(packageName(platform));
  }
  const tried = [];
  for (const place of places) {
    try {
      return require(place);
    } catch (error) {
      tried.push({ place, error });
    }
  }
  const lines = tried.map(({ place, error }) => `  ${place}: ${String(error.message).split('\n')[0]}`);
  const error = new Error(
    `ipmb-js has no native part for ${platform?.name ?? `${process.platform}-${process.arch}`}. Tried:\n${lines.join('\n')}\n` +
      (platform
        ? `Install without --omit=optional and --no-optional, or build it: npm run build (needs Rust)`
        : 'The bus runs on Linux and Windows (x64, arm64).'),
    { cause: tried[0].error },
  );
  error.code = 'IPMB_NO_NATIVE';
  error.tried = tried.map(({ place }) => place);
  throw error;
}

module.exports = load();
