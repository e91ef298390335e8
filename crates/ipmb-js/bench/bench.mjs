// Messages per second from a Node process to a Node and to a Rust process, beside process.send and a Unix socket in Node. All of
// it in one run, interleaved, medians of several rounds: node bench/bench.mjs [--rounds N] [--quick]
//
// Every message is made by the sender, and the receiver reads a byte of each of its cache lines and counts it (the Rust one reads
// every byte); the time is that from the first send to the answer to the last message, which has the count.

import { fork, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { join, LabelOp, SelectorMode, version } from '../lib/index.mjs';

const self = fileURLToPath(import.meta.url);
const quick = process.argv.includes('--quick');
const rounds = Number(process.argv[process.argv.indexOf('--rounds') + 1]) || (quick ? 1 : 5);
const sizes = [
  { size: 16, bus: 300_000, rival: 40_000 },
  { size: 1024, bus: 150_000, rival: 30_000 },
  { size: 65_536, bus: 10_000, rival: 1000 },
];
const scale = quick ? 0.1 : 1;

const SOON = 20_000;
const options = (bus, label, host) => ({ identifier: bus, label: [label], token: 'token', controllerAffinity: host });

/** Touches each cache line of a message. */
function read(data) {
  let sum = 0;
  for (let i = 0; i < data.length; i += 64) sum = (sum + data[i]) | 0;
  return sum;
}

/** The same of a string. */
function readText(text) {
  let sum = 0;
  for (let i = 0; i < text.length; i += 64) sum = (sum + text.charCodeAt(i)) | 0;
  return sum;
}

const roles = {
  /** A Node process at the far end of the bus. */
  async bus(name) {
    const { sender, receiver } = join(options(name, 'sink', false), SOON);
    process.send('joined');
    const back = { labelOp: new LabelOp('node'), mode: SelectorMode.Unicast, ttl: 0 };
    let count = 0;
    let sum = 0;
    for await (const { bytesMessage } of receiver) {
      const { format, data } = bytesMessage;
      if (format === 9) break;
      count++;
      sum = (sum + read(data)) | 0;
      if (format !== 1) continue;
      sender.send(back, { format: 1, data: Buffer.from(`${count} ${sum}`) }, []);
      count = sum = 0;
    }
    receiver.close();
    sender.close();
    process.disconnect();
  },

  /** The far end of process.send. */
  ipc() {
    let count = 0;
    let sum = 0;
    process.on('message', ({ last, data }) => {
      if (data === undefined) return process.disconnect();
      count++;
      sum = (sum + readText(data)) | 0;
      if (!last) return;
      process.send({ count, length: data.length, sum });
      count = sum = 0;
    });
    process.send('joined');
  },

  /** The far end of a Unix socket: messages of a known length. */
  socket(file) {
    const server = net.createServer((socket) => {
      let [size, expected, got, sum] = [0, 0, 0, 0];
      let parts = [];
      let have = 0;
      socket.on('data', (chunk) => {
        parts.push(chunk);
        have += chunk.length;
        if (size === 0) {
          if (have < 8) return;
          const all = Buffer.concat(parts);
          [size, expected] = [all.readUInt32LE(0), all.readUInt32LE(4)];
          parts = [all.subarray(8)];
          have -= 8;
        }
        if (have < size) return;
        const all = parts.length === 1 ? parts[0] : Buffer.concat(parts, have);
        let at = 0;
        for (; at + size <= have; at += size) {
          sum = (sum + read(all.subarray(at, at + size))) | 0;
          got++;
        }
        parts = at === have ? [] : [all.subarray(at)];
        have -= at;
        if (got === expected) {
          socket.write(`${got}\n`);
          [size, got, sum] = [0, 0, 0];
        }
      });
      socket.on('end', () => server.close());
    });
    server.listen(file, () => process.send('joined'));
    process.on('message', () => process.disconnect());
  },
};

const next = (child) =>
  new Promise((resolve, reject) => {
    const ended = (code) => reject(new Error(`a peer ended: ${code}`));
    child.once('exit', ended);
    child.once('message', (message) => (child.off('exit', ended), resolve(message)));
  });

async function start(role, argument) {
  const child = fork(self, ['--role', role, argument], { serialization: 'json' });
  await next(child);
  return child;
}

async function rustPeer(bus) {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(path.dirname(self), '../../../target');
  const program = process.env.IPMB_JS_PEER ?? path.join(target, 'release/examples/js_peer');
  if (!fs.existsSync(program)) throw new Error(`${program} is missing: cargo build --release -p ipmb-js --example js_peer`);
  const child = spawn(program, [bus, 'sink'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => readline.createInterface({ input: child.stdout }).once('line', resolve));
  return child;
}

/** A way to send: `run(size, count)` returns messages per second. */
async function busWay(to) {
  const bus = `bench.${process.pid}.${to}`;
  const { sender, receiver } = join(options(bus, 'node', true), SOON);
  const child = await (to === 'rust' ? rustPeer(bus) : start('bus', bus));
  const selector = { labelOp: new LabelOp('sink'), mode: SelectorMode.Unicast, ttl: 0 };
  return {
    async run(size, count) {
      const data = Buffer.alloc(size, 1);
      const begin = performance.now();
      for (let n = 1; n <= count; n++) {
        const message = { format: n === count ? 1 : 0, data };
        if (!sender.trySend(selector, message, [])) await sender.sendAsync(selector, message, []);
      }
      const answer = (await receiver.recv(60_000)).bytesMessage.data.toString();
      const time = performance.now() - begin;
      if (Number(answer.split(' ')[0]) !== count) throw new Error(`${answer} of ${count} messages arrived`);
      return (count / time) * 1000;
    },
    async end() {
      await sender.sendAsync(selector, { format: 9, data: Buffer.alloc(0) }, []);
      sender.close();
      receiver.close();
      await new Promise((resolve) => child.once('exit', resolve));
    },
  };
}

async function ipcWay() {
  const child = await start('ipc', '');
  return {
    async run(size, count) {
      // JSON has no bytes; a string of as many characters is what it carries fastest.
      const data = 'x'.repeat(size);
      const begin = performance.now();
      const answer = next(child);
      for (let n = 1; n <= count; ) {
        let more = true;
        while (more && n <= count) {
          more = child.send({ last: n === count, data });
          n++;
        }
        // Its own sign that enough is under way.
        if (!more) await new Promise(setImmediate);
      }
      const { count: got, length } = await answer;
      const time = performance.now() - begin;
      if (got !== count || length !== size) throw new Error(`${got} of ${count} messages arrived`);
      return (count / time) * 1000;
    },
    async end() {
      child.send({ last: true });
      await new Promise((resolve) => child.once('exit', resolve));
    },
  };
}

async function socketWay() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ipmb-js-bench-'));
  const child = await start('socket', path.join(dir, 'socket'));
  const socket = net.connect(path.join(dir, 'socket'));
  await new Promise((resolve) => socket.once('connect', resolve));
  return {
    async run(size, count) {
      const data = Buffer.alloc(size, 1);
      const begin = performance.now();
      const head = Buffer.alloc(8);
      head.writeUInt32LE(size);
      head.writeUInt32LE(count, 4);
      socket.write(head);
      const answer = new Promise((resolve) => socket.once('data', (text) => resolve(Number(text))));
      for (let n = 0; n < count; n++) {
        if (!socket.write(data)) await new Promise((resolve) => socket.once('drain', resolve));
      }
      const got = await answer;
      const time = performance.now() - begin;
      if (got !== count) throw new Error(`${got} of ${count} messages arrived`);
      return (count / time) * 1000;
    },
    async end() {
      socket.end();
      child.send('end');
      await new Promise((resolve) => child.once('exit', resolve));
      fs.rmSync(dir, { recursive: true });
    },
  };
}

const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];

async function main() {
  const ways = { 'Node → Node': await busWay('node'), 'Node → Rust': await busWay('rust'), 'process.send': await ipcWay(), 'Unix socket': await socketWay() };
  console.log(`ipmb-js ${version()}, Node ${process.version}, Linux ${os.release()}, ${os.cpus()[0].model}, ${os.cpus().length} CPUs, load ${os.loadavg()[0].toFixed(1)}`);
  console.log(`Messages per second, medians of ${rounds} rounds; in brackets the multiple of process.send.\n`);
  console.log(`| bytes | ${Object.keys(ways).join(' | ')} |\n|---|${'---|'.repeat(4)}`);
  for (const { size, bus, rival } of sizes) {
    const rates = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
    for (let round = quick ? 1 : 0; round <= rounds; round++) {
      for (const [name, way] of Object.entries(ways)) {
        const count = Math.ceil((name.startsWith('Node') ? bus : rival) * scale);
        const rate = await way.run(size, count);
        if (round > 0) rates[name].push(rate); // The first one warms up.
      }
    }
    const base = median(rates['process.send']);
    const cells = Object.entries(rates).map(([name, all]) => {
      const rate = median(all);
      const multiple = name === 'process.send' ? '' : ` (${(rate / base).toFixed(1)})`;
      return Math.round(rate).toLocaleString('en') + multiple;
    });
    console.log(`| ${size.toLocaleString('en')} | ${cells.join(' | ')} |`);
  }
  for (const way of Object.values(ways)) await way.end();
}

const role = process.argv.indexOf('--role');
await (role < 0 ? main() : roles[process.argv[role + 1]](process.argv[role + 2]));
