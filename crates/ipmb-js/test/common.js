'use strict';
// What the tests share: bus names, peers in other processes and in Rust.

const { execFileSync, fork, spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const ipmb = require('..');

let next = 0;

/** A bus name that no other test, and no other run, uses. */
const busName = (test) => `js.${test}.${process.pid}.${next++}`;

/** Long enough for a loaded machine. */
const SOON = 20_000;

const options = (bus, label, more) => ({ identifier: bus, label: [].concat(label), token: 'token', controllerAffinity: true, ...more });
const join = (bus, label, more) => ipmb.join(options(bus, label, more), SOON);
const to = (label, more) => ({ labelOp: new ipmb.LabelOp(label), mode: ipmb.SelectorMode.Unicast, ttl: 0, ...more });
const bytes = (data, format = 0) => ({ format, data: Buffer.from(data) });

/** Processes that the test under way has started. */
const children = new Set();

const started = (child) => {
  children.add(child);
  return child;
};

/** `test` of node:test. A test that fails leaves no process behind, on which the runner would wait. */
function test(name, ...rest) {
  const body = rest.pop();
  require('node:test').test(name, ...rest, async (t) => {
    try {
      await body(t);
    } finally {
      for (const child of children) child.kill('SIGKILL');
      children.clear();
    }
  });
}

/** The Rust program examples/js_peer.rs, built once by whoever runs the tests, else here. */
function rustPeer() {
  if (process.env.IPMB_JS_PEER) return process.env.IPMB_JS_PEER;
  const root = path.join(__dirname, '..', '..', '..');
  const args = ['build', '--release', '-p', 'ipmb-js', '--example', 'js_peer', '--message-format=json-render-diagnostics'];
  const { status, stdout } = spawnSync('cargo', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error('cargo cannot build examples/js_peer.rs');
  const built = stdout.split('\n').filter((line) => line.includes('"js_peer"')).map((line) => JSON.parse(line));
  return built.find((artifact) => artifact.executable).executable;
}

/** Starts the Rust peer; settled once it has joined. */
async function startRust(bus, role) {
  const child = started(spawn(rustPeer(), [bus, role], { stdio: ['ignore', 'pipe', 'inherit'] }));
  const lines = readline.createInterface({ input: child.stdout });
  await new Promise((resolve, reject) => {
    lines.once('line', resolve);
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`the Rust peer ended: ${code ?? signal}`)));
  });
  child.removeAllListeners('exit');
  return child;
}

/** Runs a piece of a test in another Node process: `role` is a file in test/roles. */
function startRole(role, args, more) {
  const execArgv = process.execArgv.filter((arg) => !arg.startsWith('--test'));
  return started(fork(path.join(__dirname, 'roles', role), args, { execArgv, ...more }));
}

/** The same. Settled with its first message. */
async function startNode(role, ...args) {
  const child = startRole(role, args);
  const first = await answer(child);
  return { child, first };
}

/** The next message of a forked process. */
function answer(child) {
  return new Promise((resolve, reject) => {
    const ended = (code, signal) => reject(new Error(`the peer ended: ${code ?? signal}`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message);
    });
  });
}

/** How a process ends: its exit code, or the signal's name. */
const end = (child) =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve(child.exitCode ?? child.signalCode);
    else child.once('exit', (code, signal) => resolve(code ?? signal));
  });

/** How many handles (descriptors) and threads this process has, and whether the library's serving thread is among these. */
function inUse() {
  if (process.platform === 'win32') return JSON.parse(execFileSync(rustPeer(), [String(process.pid), 'in-use'], { encoding: 'utf8' }));
  const tasks = fs.readdirSync('/proc/self/task');
  const serving = tasks.some((task) => {
    try {
      return fs.readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim() === 'ipmb';
    } catch {
      return false; // Ended meanwhile.
    }
  });
  return { handles: fs.readdirSync('/proc/self/fd').length, threads: tasks.length, serving };
}

module.exports = { ipmb, busName, SOON, options, join, to, bytes, test, started, startRust, startRole, startNode, answer, end, inUse };
