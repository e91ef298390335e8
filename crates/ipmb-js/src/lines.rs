//! What waits to be sent: one line for each receiver whose link was full, so that a stuck receiver holds up its own messages
//! and no others. Nothing here blocks.

use crate::{
    fail::{FULL, Fail, Result, closed, fail, of_send},
    outbound::Outbound,
};
use ipmb::{EndpointSender, Message, SelectorMode, SendError};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
};

/// What an entry takes besides its data.
const OVERHEAD: usize = 128;
/// Bytes that one `drain` sends at most before it lets others have the event loop.
const TURN: usize = 4 << 20;

/// A number by which JavaScript knows what waits.
pub(crate) type Ticket = u32;

/// A message that waits. A multicast waits in the lines of all receivers that it has not reached.
struct Item {
    /// Taken when it is sent, or failed.
    message: RefCell<Option<Message<Outbound>>>,
    mode: SelectorMode,
    bytes: usize,
    ticket: Ticket,
}

#[derive(Default)]
struct Line {
    items: VecDeque<Rc<Item>>,
    bytes: usize,
}

/// What to do with a message that cannot go at once.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Otherwise {
    /// Give it up.
    Refuse,
    /// Let it wait, if the line is not too long.
    Wait,
    /// Let it wait in any case.
    WaitAnyhow,
}

/// What became of a message.
pub(crate) enum Fate {
    Sent,
    Refused,
    Waits(Ticket),
}

/// A message that left its lines.
pub(crate) struct Done {
    pub(crate) ticket: Ticket,
    pub(crate) error: Option<Fail>,
}

/// How to go on with what still waits.
#[derive(Default)]
pub(crate) struct Outlook {
    /// There may be more room right now.
    pub(crate) again: bool,
    /// Nobody tells when there is room: look again in some milliseconds.
    pub(crate) soon: bool,
}

/// The lines, and the endpoint that they are for.
pub(crate) struct Lines {
    sender: EndpointSender<Outbound>,
    lines: HashMap<u64, Line>,
    /// Messages of a time in which it is not settled who is on the bus: whose line they belong to is not known, so whatever
    /// comes after the first of them waits behind it.
    unsettled: Line,
    limit: usize,
    next: Ticket,
}

impl Lines {
    pub(crate) fn new(sender: EndpointSender<Outbound>, limit: usize) -> Self {
        Self {
            sender,
            lines: HashMap::new(),
            unsettled: Line::default(),
            limit,
            next: 1,
        }
    }

    pub(crate) fn sender(&self) -> &EndpointSender<Outbound> {
        &self.sender
    }

    pub(crate) fn into_sender(self) -> EndpointSender<Outbound> {
        self.sender
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.unsettled.items.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        let lines: usize = self.lines.values().map(|line| line.bytes).sum();
        lines + self.unsettled.bytes
    }

    /// Sends a message of so many bytes, or lets it wait.
    pub(crate) fn send(
        &mut self,
        message: Message<Outbound>,
        bytes: usize,
        otherwise: Otherwise,
    ) -> Result<Fate> {
        if !self.unsettled.items.is_empty() {
            return self.wait(message, bytes, otherwise, &[]);
        }
        let lines = &self.lines;
        let refused = match self
            .sender
            .try_send_if(message, |id| lines.is_empty() || !lines.contains_key(&id))
        {
            Ok(()) => return Ok(Fate::Sent),
            Err(refused) => refused,
        };
        match *refused.kind() {
            SendError::Full(id) => {
                let message = refused.into_message();
                let unreached = message.unreached().to_vec();
                match message.selector().mode {
                    SelectorMode::Unicast => self.wait(message, bytes, otherwise, &[id]),
                    SelectorMode::Multicast => self.wait(message, bytes, otherwise, &unreached),
                }
            }
            SendError::Settling => self.wait(refused.into_message(), bytes, otherwise, &[]),
            ref error => Err(of_send(error)),
        }
    }

    /// Appends a message to the lines of these receivers, or to that of nobody known.
    fn wait(
        &mut self,
        mut message: Message<Outbound>,
        bytes: usize,
        otherwise: Otherwise,
        receivers: &[u64],
    ) -> Result<Fate> {
        let bytes = bytes + OVERHEAD;
        match otherwise {
            Otherwise::Refuse => return Ok(Fate::Refused),
            Otherwise::WaitAnyhow => {}
            Otherwise::Wait => {
                let waits = |id: &u64| self.lines.get(id).map_or(0, |line| line.bytes);
                let longest = receivers.iter().map(waits).max();
                let longest = longest.unwrap_or(self.unsettled.bytes);
                if longest + bytes > self.limit {
                    return Err(fail(
                        FULL,
                        format!(
                            "{longest} bytes wait for a receiver already, the limit is {} (option `outboundQueue`)",
                            self.limit
                        ),
                    ));
                }
            }
        }
        message.payload.own();
        let ticket = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        let item = Rc::new(Item {
            mode: message.selector().mode,
            message: RefCell::new(Some(message)),
            bytes,
            ticket,
        });
        if receivers.is_empty() {
            self.unsettled.push(item);
            return Ok(Fate::Waits(ticket));
        }
        for id in receivers {
            self.lines.entry(*id).or_default().push(item.clone());
        }
        Ok(Fate::Waits(ticket))
    }

    /// Asks for news of room at those who have a line. True: nobody tells of some of them.
    pub(crate) fn watch(&self) -> bool {
        let untold = |id: &u64| !self.sender.watch_room(*id);
        // All are to be asked.
        self.lines.keys().filter(|id| untold(id)).count() > 0 || !self.unsettled.items.is_empty()
    }

    /// Sends what can be sent now: for those who have news of room, or (`all`) for everybody. Does not ask for more news.
    pub(crate) fn drain(&mut self, all: bool, done: &mut Vec<Done>) -> Outlook {
        let news = self.sender.rooms();
        let mut due: VecDeque<u64> = if all {
            self.lines.keys().copied().collect()
        } else {
            news.into()
        };
        let mut outlook = Outlook::default();
        let mut left = TURN;
        if !self.unsettled.items.is_empty() {
            self.settle(done, &mut outlook);
        }
        while let Some(id) = due.pop_front() {
            if left == 0 {
                outlook.again = true;
                break;
            }
            let Some(mut line) = self.lines.remove(&id) else {
                continue;
            };
            let mut moved = Vec::new();
            let blocked = line.drain(&self.sender, id, &mut left, &mut moved, done);
            for (other, item) in moved {
                // To the end of the line of whoever gets it now; if there is none, it is tried next.
                if other != id && !self.lines.contains_key(&other) {
                    due.push_back(other);
                }
                self.lines.entry(other).or_default().push(item);
            }
            if !line.items.is_empty() {
                self.lines.insert(id, line);
                outlook.again |= !blocked;
            }
        }
        outlook
    }

    /// Sends what waited for the bus to settle.
    fn settle(&mut self, done: &mut Vec<Done>, outlook: &mut Outlook) {
        let waiting = std::mem::take(&mut self.unsettled);
        let mut items = waiting.items.into_iter();
        while let Some(item) = items.next() {
            let Some(message) = item.message.take() else {
                continue;
            };
            let lines = &self.lines;
            let Err(refused) = self
                .sender
                .try_send_if(message, |id| !lines.contains_key(&id))
            else {
                done.push(item.end(None));
                continue;
            };
            let kind = refused.kind().clone();
            let message = refused.into_message();
            let receivers = match (&kind, item.mode) {
                (SendError::Full(id), SelectorMode::Unicast) => vec![*id],
                (SendError::Full(_), SelectorMode::Multicast) => message.unreached().to_vec(),
                _ => Vec::new(),
            };
            if receivers.is_empty() && !lasts(&kind) {
                done.push(item.end(Some(of_send(&kind))));
                continue;
            }
            item.message.replace(Some(message));
            outlook.soon = true;
            if receivers.is_empty() {
                self.unsettled.push(item);
                items.by_ref().for_each(|item| self.unsettled.push(item));
                return;
            }
            for id in receivers {
                self.lines.entry(id).or_default().push(item.clone());
            }
        }
    }

    /// Gives up all that waits.
    pub(crate) fn give_up(&mut self, done: &mut Vec<Done>) {
        let lines = std::mem::take(&mut self.lines).into_values();
        for line in lines.chain([std::mem::take(&mut self.unsettled)]) {
            for item in line.items {
                if item.message.take().is_some() {
                    done.push(item.end(Some(closed("sender"))));
                }
            }
        }
    }
}

impl Line {
    fn push(&mut self, item: Rc<Item>) {
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= item.bytes;
        }
    }

    /// Sends the line's items to the receiver `id`. Items that others get now go to `moved`. True: the link is full.
    fn drain(
        &mut self,
        sender: &EndpointSender<Outbound>,
        id: u64,
        left: &mut usize,
        moved: &mut Vec<(u64, Rc<Item>)>,
        done: &mut Vec<Done>,
    ) -> bool {
        while *left > 0 {
            let Some(item) = self.items.front().cloned() else {
                return false;
            };
            let Some(message) = item.message.take() else {
                self.pop();
                continue;
            };
            let Err(refused) = sender.try_send_if(message, |to| to == id) else {
                *left = left.saturating_sub(item.bytes);
                done.push(item.end(None));
                self.pop();
                continue;
            };
            let kind = refused.kind().clone();
            let message = refused.into_message();
            let is_left = message.unreached().contains(&id);
            match kind {
                SendError::Full(other) => {
                    let here = match item.mode {
                        SelectorMode::Unicast => other == id,
                        SelectorMode::Multicast => is_left,
                    };
                    item.message.replace(Some(message));
                    if here {
                        return true;
                    }
                    *left = left.saturating_sub(item.bytes);
                    self.pop();
                    // What follows it to the same receiver comes here too, behind it.
                    if item.mode == SelectorMode::Unicast {
                        moved.push((other, item));
                    }
                }
                ref kind if lasts(kind) => {
                    item.message.replace(Some(message));
                    return true;
                }
                kind => {
                    done.push(item.end(Some(of_send(&kind))));
                    self.pop();
                }
            }
        }
        false
    }
}

impl Item {
    fn end(&self, error: Option<Fail>) -> Done {
        Done {
            ticket: self.ticket,
            error,
        }
    }
}

/// Whether it is worth trying again what was refused for this.
fn lasts(kind: &SendError) -> bool {
    matches!(kind, SendError::Settling | SendError::Exhausted(..))
}
