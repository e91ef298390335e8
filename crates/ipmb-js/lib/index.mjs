import ipmb from './index.js';

export const { join, joinAsync, version, LabelOp, SelectorMode, Sender, Receiver, Object, MemoryRegion, MemoryRegistry } = ipmb;
