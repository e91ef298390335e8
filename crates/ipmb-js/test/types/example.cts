// Compiled by `npm run types`, never run: the CommonJS entry.
import ipmb = require('ipmb-js');

const { sender, receiver } = ipmb.join({ identifier: 'com.solar', label: [], token: '' });
sender.send({ labelOp: new ipmb.LabelOp('moon'), mode: ipmb.SelectorMode.Unicast, ttl: 0 }, { format: 0, data: Buffer.alloc(0) }, []);
receiver.recv(1000).then(({ bytesMessage }) => bytesMessage.data.length);
