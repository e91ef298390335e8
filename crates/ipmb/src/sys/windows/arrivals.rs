//! What has arrived at an end of a channel: read ahead into a queue, within bounds. Only who reads all that there is sees
//! that the other end is gone.

use super::{
    event::Signal,
    handle,
    pipe::{Pipe, Read},
    transfer::{self, Numbers, Partner},
};
use crate::sys::BorrowedHandle;
use std::{
    collections::VecDeque,
    io,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use windows_sys::Win32::System::Pipes::GetNamedPipeServerProcessId;

/// Kind of the numbers, their count, length of the bytes.
pub(super) const HEAD: usize = 8;
/// Bytes that are read ahead.
const AHEAD: usize = 64 << 10;

/// What an end is made of, shared with the wait sets that watch it.
#[derive(Debug)]
pub(super) struct Core {
    state: Mutex<State>,
    /// Set when a read that was under way is done.
    arrived: Arc<Signal>,
    /// Set while something lies in the queue that another than its taker has put there, or the channel has ended.
    ahead: Signal,
}

#[derive(Debug)]
pub(super) struct State {
    /// None once it was closed here.
    pub(super) pipe: Option<Pipe>,
    pub(super) partner: Option<Partner>,
    pub(super) queue: VecDeque<Arrived>,
    queued: usize,
    /// Nothing more comes.
    pub(super) ended: bool,
    /// `ahead` is set.
    pub(super) told: bool,
    /// What comes is for this process: an end that is only handed over is not read.
    pub(super) reads: bool,
    /// The far end of a pair that was made here. Its other end is this process's, too, for as long as it stays here.
    pub(super) far: bool,
}

impl State {
    /// The process at the other end. The far end of a pair asks for it only when it is read here after all.
    pub(super) fn partner(&mut self) -> Option<&Partner> {
        if let (None, true, Some(pipe)) = (&self.partner, self.far, &self.pipe) {
            let end = pipe.as_handle();
            let maker = server_of(end).and_then(|pid| Partner::behind(pid, end));
            self.partner = maker.ok();
        }
        self.partner.as_ref()
    }
}

/// A packet as it came.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) bytes: Vec<u8>,
    /// There was more of it, and it is no packet of the library.
    pub(super) too_long: bool,
}

/// A packet taken apart.
pub(super) struct Parts {
    pub(super) kind: Numbers,
    pub(super) numbers: Vec<u64>,
    /// Where the bytes begin.
    pub(super) at: usize,
}

impl Arrived {
    pub(super) fn parts(&self) -> Option<Parts> {
        let bytes = &self.bytes;
        let kind = match bytes.first()? {
            0 => Numbers::Pushed,
            1 => Numbers::ToPull,
            _ => return None,
        };
        let count = u16::from_le_bytes(bytes.get(2..4)?.try_into().ok()?);
        let len = u32::from_le_bytes(bytes.get(4..HEAD)?.try_into().ok()?);
        let at = HEAD.checked_add(usize::from(count).checked_mul(8)?)?;
        let numbers = bytes.get(HEAD..at)?.chunks_exact(8);
        let numbers = numbers.filter_map(|n| n.try_into().ok().map(u64::from_le_bytes));
        let whole = bytes.len() - at == usize::try_from(len).ok()? && len > 0;
        (whole || self.too_long).then(|| Parts {
            kind,
            numbers: numbers.collect(),
            at,
        })
    }
}

/// What can be said of a channel without taking anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    pub(super) readable: bool,
    pub(super) ended: bool,
    /// So many packets have come since the last look.
    pub(super) fresh: usize,
}

impl Core {
    pub(super) fn new(end: OwnedHandle, partner: Option<Partner>) -> io::Result<Self> {
        let arrived = Arc::new(Signal::new()?);
        Ok(Self {
            state: Mutex::new(State {
                pipe: Some(Pipe::new(end, arrived.clone())?),
                partner,
                queue: VecDeque::new(),
                queued: 0,
                ended: false,
                told: false,
                reads: false,
                far: false,
            }),
            arrived,
            ahead: Signal::new()?,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has arrived into the queue. Returns how many packets that were.
    fn read_ahead(&self, state: &mut State) -> usize {
        let mut fresh = 0;
        let mut under_way = false;
        state.reads = true;
        while !state.ended && state.queued < AHEAD {
            let read = match &mut state.pipe {
                Some(pipe) => pipe.read(),
                None => return fresh,
            };
            match read {
                Ok(Read::Packet(bytes)) => {
                    state.queued += bytes.len();
                    state.queue.push_back(Arrived {
                        bytes,
                        too_long: false,
                    });
                    fresh += 1;
                }
                Ok(Read::Nothing) => {
                    under_way = true;
                    break;
                }
                Ok(Read::TooLong) => {
                    state.queue.push_back(Arrived {
                        bytes: Vec::new(),
                        too_long: true,
                    });
                    state.ended = true;
                    fresh += 1;
                }
                Err(e) => {
                    if !super::is_hangup(&e) {
                        log::warn!("a channel cannot be read: {e}");
                    }
                    state.ended = true;
                }
            }
        }
        if !under_way {
            // Nothing that is under way would set it, and what it was set for was seen.
            self.arrived.reset();
        }
        fresh
    }

    /// Looks at what has arrived, for somebody who does not take it.
    pub(super) fn look(&self) -> Outlook {
        let mut state = self.state();
        let fresh = self.read_ahead(&mut state);
        let outlook = Outlook {
            readable: !state.queue.is_empty(),
            ended: state.ended || state.pipe.is_none(),
            fresh,
        };
        if (outlook.readable || outlook.ended) && !state.told {
            state.told = true;
            self.ahead.set();
        }
        outlook
    }

    /// Takes the first packet off.
    pub(super) fn pop(&self, state: &mut State) {
        if let Some(packet) = state.queue.pop_front() {
            state.queued -= packet.bytes.len();
        }
        if state.told && state.queue.is_empty() && !state.ended && state.pipe.is_some() {
            state.told = false;
            self.ahead.reset();
        }
    }

    /// The event that is set when more has arrived.
    pub(super) fn arrived(&self) -> &Arc<Signal> {
        &self.arrived
    }

    pub(super) fn ahead(&self) -> &Signal {
        &self.ahead
    }

    /// Reads ahead until there is a packet. `WouldBlock`: there is none; a packet of length 0 is the end.
    pub(super) fn fill(&self, state: &mut State) -> io::Result<bool> {
        if state.queue.is_empty() {
            self.read_ahead(state);
        }
        match state.queue.is_empty() {
            false => Ok(true),
            true if state.ended || state.pipe.is_none() => Ok(false),
            true => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        discard_all(state);
    }
}

/// Closes the handles of what nobody will take, as far as it has come.
pub(super) fn discard_all(state: &mut State) {
    if let Some(pipe) = state.pipe.as_mut().filter(|_| state.reads) {
        while let (false, Ok(Read::Packet(bytes))) = (state.ended, pipe.read()) {
            let too_long = false;
            state.queue.push_back(Arrived { bytes, too_long });
        }
    }
    for packet in std::mem::take(&mut state.queue) {
        if let Some(parts) = packet.parts() {
            transfer::discard(state.partner(), parts.kind, &parts.numbers);
        }
    }
    state.queued = 0;
}

/// The process that made a pipe, by the system's word.
pub(super) fn server_of(end: BorrowedHandle<'_>) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: an open handle, and a place for the result.
    handle::check(unsafe { GetNamedPipeServerProcessId(end.as_raw_handle(), &raw mut pid) })?;
    Ok(pid)
}
