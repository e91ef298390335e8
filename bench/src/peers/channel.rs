//! ipc-channel: its typed channel for the struct, its byte channel for bytes (which spares it the encoding).

use super::Peer;
use crate::{load::Pair, rows::pair::Job, shared::Shared};
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender,
};
use serde::{Deserialize, Serialize};

pub struct TypedChannel {
    to: IpcSender<Pair>,
    from: IpcReceiver<Pair>,
}

pub struct ByteChannel {
    to: IpcBytesSender,
    from: IpcBytesReceiver,
}

/// Makes a channel in each direction. Receivers stay where they were made, senders travel.
fn connect<S>(shared: &Shared, sends_first: bool, own: S) -> S
where
    S: Serialize + for<'de> Deserialize<'de>,
{
    if sends_first {
        let (server, name) = IpcOneShotServer::<(S, IpcSender<S>)>::new().expect("server");
        shared.leave_note(&name);
        let (_, (to, back)) = server.accept().expect("accept");
        back.send(own).expect("answer");
        to
    } else {
        let name = shared.await_note();
        let (back, answers) = ipc::channel().expect("channel");
        let first = IpcSender::connect(name).expect("connect");
        first.send((own, back)).expect("introduce");
        answers.recv().expect("answer")
    }
}

impl Peer<Pair> for TypedChannel {
    const MEETS: bool = true;

    fn join(_: &Job, shared: &Shared, sends_first: bool) -> Self {
        let (own, from) = ipc::channel().expect("channel");
        let to = connect(shared, sends_first, own);
        Self { to, from }
    }

    #[inline]
    fn send(&mut self, payload: Pair) {
        self.to.send(payload).expect("send");
    }

    #[inline]
    fn recv(&mut self) -> Pair {
        self.from.recv().expect("recv")
    }
}

impl Peer<Vec<u8>> for ByteChannel {
    const MEETS: bool = true;

    fn join(_: &Job, shared: &Shared, sends_first: bool) -> Self {
        let (own, from) = ipc::bytes_channel().expect("channel");
        let to = connect(shared, sends_first, own);
        Self { to, from }
    }

    #[inline]
    fn send(&mut self, payload: Vec<u8>) {
        self.to.send(&payload).expect("send");
    }

    #[inline]
    fn recv(&mut self) -> Vec<u8> {
        self.from.recv().expect("recv")
    }
}
