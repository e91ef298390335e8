// Compiled by `npm run types`, never run: what a program in TypeScript relies on.
import { join, joinAsync, LabelOp, MemoryRegion, MemoryRegistry, Object, SelectorMode } from 'ipmb-js';
import type { BytesMessage, IpmbError, Message, Receiver, Selector, Sender } from 'ipmb-js';
import * as ipmb from 'ipmb-js';

const options = { identifier: 'com.solar', label: ['earth'], token: '', controllerAffinity: true };
const { sender, receiver }: { sender: Sender; receiver: Receiver } = join(options, null);
const other: Awaited<ReturnType<typeof joinAsync>> = await joinAsync(options, 1000);
ipmb.join(options);

const labelOp = new LabelOp('moon');
labelOp.not();
labelOp.and(new LabelOp(true));
labelOp.or(labelOp);
const text: string = labelOp.toString();

const selector: Selector = { labelOp, mode: SelectorMode.Multicast, ttl: 0 };
const bytesMessage: BytesMessage = { format: 1, data: Buffer.from(text) };
const nothing: void = sender.send(selector, bytesMessage, [Buffer.alloc(16)]);
const sent: boolean = sender.trySend(selector, bytesMessage);
const region = new MemoryRegion(4096);
region.freeze();
const settled: Promise<void> = sender.sendAsync(selector, bytesMessage, [], { objects: [0, Object.fromFd(1)], memoryRegions: [region] });
await settled;

const message: Message = await receiver.recv(null, { signal: AbortSignal.timeout(10) });
const fd: number | undefined = message.objects[0]?.value();
const view: Buffer | undefined = message.memoryRegions[0]?.mapShared();
const copy: Buffer | undefined = message.memoryRegions[0]?.map(0, -1);
for await (const { bytesMessage: { format, data } } of receiver.unref()) console.log(format, data.length);
const registry = new MemoryRegistry();
registry.alloc(8 << 20, 'video', () => registry.maintain()).close();

try {
  await other.receiver.recv();
} catch (error) {
  const { code } = error as IpmbError;
  if (code === 'IPMB_TIMEOUT' || code === 'IPMB_CLOSED') console.log(nothing, sent, fd, view, copy);
  // @ts-expect-error There is no such code.
  if (code === 'IPMB_TIME_OUT') throw error;
}
// @ts-expect-error A selector needs a LabelOp, not a string.
sender.send({ labelOp: 'moon', mode: SelectorMode.Unicast, ttl: 0 }, bytesMessage, []);
// @ts-expect-error Halves come from join only.
new ipmb.Sender();
