// The station in JavaScript: node station.mjs BUS NEXT. It takes the letter, adds its line to the text, to the file and to the
// memory, and passes the letter on to whoever has the label NEXT.

import fs from 'node:fs';
// In a program of your own: from 'ipmb-js'.
import { join, LabelOp, SelectorMode } from '../../crates/ipmb-js/lib/index.mjs';

const PATIENCE = 60_000;
const [bus, next] = process.argv.slice(2);
if (next === undefined) throw new Error('usage: node station.mjs BUS NEXT');

const { sender, receiver } = join({ identifier: bus, label: ['node'], token: '', controllerAffinity: false }, PATIENCE);

const { bytesMessage, objects: [file], memoryRegions: [memory] } = await receiver.recv(PATIENCE);
const text = bytesMessage.data.toString();
// At once, as the others do, and not when the event loop comes to it.
fs.writeSync(1, `Node   has got the letter with ${text.split('\n').length - 1} lines and passes it to "${next}"\n`);

const line = `Node was here, process ${process.pid}\n`;
fs.writeSync(file.value(), line);
const bytes = memory.mapShared(); // The same bytes that all others see.
const end = bytes.indexOf(0);
if (end < 0 || bytes.length - end < line.length) throw new Error('the memory is full');
bytes.write(line, end);

// Kept until the next station has joined.
const selector = { labelOp: new LabelOp(next), mode: SelectorMode.Unicast, ttl: PATIENCE };
const letter = { format: 0, data: Buffer.from(text + line) };
await sender.sendAsync(selector, letter, [], { objects: [file], memoryRegions: [memory] });
sender.close();
receiver.close();
