'use strict';

const native = require('./native.js');
const { LabelOp } = require('./label.js');
const { MemoryRegion, MemoryRegistry } = require('./region.js');
const { Receiver } = require('./receiver.js');
const { Sender } = require('./sender.js');

const SelectorMode = Object.freeze({ Unicast: 0, Multicast: 1, 0: 'Unicast', 1: 'Multicast' });

const dress = ({ sender, receiver }) => ({ sender: new Sender(sender), receiver: new Receiver(receiver) });

/** Joins a bus. Blocks until it has, at most for `timeout` milliseconds. */
function join(options, timeout) {
  return dress(native.join(options, timeout ?? undefined));
}

/** Joins a bus without blocking the event loop. */
function joinAsync(options, timeout) {
  return new Promise((resolve, reject) => {
    const joining = native.NativeJoining.start(options, timeout ?? undefined, () => {
      try {
        resolve(dress(joining.finish()));
      } catch (error) {
        reject(error);
      }
    });
  });
}

module.exports.join = join;
module.exports.joinAsync = joinAsync;
module.exports.version = native.version;
module.exports.LabelOp = LabelOp;
module.exports.SelectorMode = SelectorMode;
module.exports.Sender = Sender;
module.exports.Receiver = Receiver;
module.exports.Object = native.Object;
module.exports.MemoryRegion = MemoryRegion;
module.exports.MemoryRegistry = MemoryRegistry;
