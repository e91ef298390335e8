//! Where the ports of packets arrive: one registered port per process, its *mailbox*.
//!
//! It is registered with launchd under a name that whoever wants to send can make: of the application group, if there is one, and the
//! process's number. (Its start time would be harder to guess, but a sandbox need not let anybody else ask for it.) Who has
//! registered that name is who gets the ports; see `SECURITY.md`. launchd frees it when the port is gone.
//!
//! A letter is sent before its packet, so whoever has the packet finds the letter on the shelf, or in the mailbox still.
//! All that empty the mailbox do it under the lock of the shelf, so nothing is ever on its way between the two. A thread empties
//! it too: what is never asked for must not fill the queue, which belongs to all senders.
//!
//! A forked child has neither the port nor the thread, and gets its own when it joins.

use super::{
    closing,
    fork::{forked_since, generation},
    mach::{self, Came, Junk, Name, SendRight},
    memory::app_group,
};
use crate::{
    sync::process::{AtomicPtr, Ordering},
    sys::ports::{
        Token,
        letter::{self, LETTER_WORDS, Letter},
        shelf::Shelf,
    },
};
use std::{
    ffi::CString,
    io, ptr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

/// The mailbox of a process. Made once per process, and never freed.
struct Mailbox {
    generation: u32,
    state: Mutex<State>,
    /// Held while a thread starts or ends, so that there is one at most. The thread does not take it.
    attended: Mutex<Attended>,
}

#[derive(Default)]
struct State {
    port: Option<Name>,
    shelf: Shelf<SendRight>,
    /// The thread is to end.
    ending: bool,
}

#[derive(Default)]
struct Attended {
    by: usize,
    thread: Option<(Name, JoinHandle<()>)>,
}

/// The one of this process. Another generation's is that of the parent, in which a thread may have held a lock when it forked.
static MAILBOX: AtomicPtr<Mailbox> = AtomicPtr::new(ptr::null_mut());

fn mailbox() -> &'static Mailbox {
    let known = MAILBOX.load(Ordering::Acquire);
    // SAFETY: null or a leaked box that was published with Release.
    let mailbox = unsafe { known.as_ref() };
    if let Some(mailbox) = mailbox.filter(|mailbox| !forked_since(mailbox.generation)) {
        return mailbox;
    }
    let fresh = Box::into_raw(Box::new(Mailbox {
        generation: generation(),
        state: Mutex::default(),
        attended: Mutex::default(),
    }));
    match MAILBOX.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just published, thus leaked.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` came from `Box::into_raw` just now and was not published.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: published, thus leaked; never null again once it was not.
            unsafe { &*other }
        }
    }
}

/// The name of a process's mailbox.
fn name_of(pid: u32) -> io::Result<CString> {
    let group = app_group().map(|group| format!("{group}."));
    let group = group.unwrap_or_default();
    let name = format!("{group}ipmb.{pid}");
    if name.len() >= mach::NAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name of the application group is too long",
        ));
    }
    Ok(CString::new(name)?)
}

/// Registers this process's mailbox, unless that is done. Without one nobody can send ports here; all else works.
pub(super) fn open() {
    let mut state = mailbox().state();
    if state.port.is_none() {
        match name_of(super::pid()).and_then(|name| mach::register(&name)) {
            Ok(port) => state.port = Some(port),
            Err(e) => log::warn!("no Mach ports can be sent to this process: {e}"),
        }
    }
}

/// A right to send to the mailbox of a process.
pub(super) fn of(pid: u32) -> io::Result<SendRight> {
    let own = || mailbox().state().port.ok_or(io::ErrorKind::NotFound.into());
    let right = match pid == super::pid() {
        true => own().and_then(mach::right_to),
        false => name_of(pid).and_then(|name| mach::look_up(&name)),
    };
    right.map_err(|e| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("Mach ports cannot be sent to process {pid}: it has no mailbox here ({e})"),
        )
    })
}

/// Sends ports to a mailbox, at once or not at all. Returns what their packet has to say.
pub(super) fn send(to: &SendRight, ports: &[Name]) -> io::Result<Token> {
    let mut token = Token::default();
    for word in &mut token {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        *word = u32::from_ne_bytes(random);
    }
    mach::send(&mut letter::write(to.name(), token, ports))?;
    Ok(token)
}

/// The ports that came with this token, if they did.
pub(super) fn take(token: &Token) -> Option<Vec<SendRight>> {
    let mut unwanted = Unwanted::new();
    let mut state = mailbox().state();
    state.empty(&mut unwanted);
    if let (true, Some(port)) = (state.ending, state.port) {
        // What was taken may have been the call.
        let _ = call(port);
    }
    let ports = state.shelf.take(token);
    drop(state);
    give_up(unwanted);
    ports
}

/// What the mailbox has brought and nobody wants. To give it up may wait, so nobody does it under a lock, or where it matters.
type Unwanted = Vec<Box<dyn Send>>;

fn give_up(unwanted: Unwanted) {
    if !unwanted.is_empty() {
        closing::drop_elsewhere(unwanted);
    }
}

/// Whether ports are here whose packet was not taken.
pub(super) fn has_some() -> bool {
    !mailbox().state().shelf.is_empty()
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attended(&self) -> MutexGuard<'_, Attended> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the mailbox until it is told to end.
    fn run(&self, port: Name) {
        loop {
            let mut unwanted = Unwanted::new();
            let ending = {
                let mut state = self.state();
                state.empty(&mut unwanted);
                state.ending
            };
            give_up(unwanted);
            if ending {
                return;
            }
            if let Err(e) = mach::wait(port) {
                log::warn!("no Mach ports are received any more: {e}");
                return;
            }
        }
    }
}

impl State {
    /// Puts on the shelf what is in the mailbox. No more than twice what it holds: who sends all the time keeps nobody here.
    fn empty(&mut self, unwanted: &mut Unwanted) {
        let Some(port) = self.port else { return };
        let mut space = [0; LETTER_WORDS];
        for _ in 0..2 * mach::LARGE {
            match mach::receive(port, &mut space) {
                Came::Nothing => return,
                Came::Gone => {}
                Came::Longer(words) => {
                    let mut long = vec![0; words];
                    if let Came::Message | Came::Part = mach::receive(port, &mut long) {
                        // SAFETY: the kernel has written it just now.
                        unwanted.push(Box::new(unsafe { Junk::new(long) }));
                    }
                }
                // SAFETY: the kernel has written it just now.
                Came::Part => unwanted.push(Box::new(unsafe { Junk::new(space.to_vec()) })),
                Came::Message => match Letter::read(&space) {
                    Some(Letter {
                        token,
                        sender,
                        ports,
                    }) => {
                        // SAFETY: the message has brought a right for each.
                        let right = |name| unsafe { SendRight::own(name) };
                        let rights = ports.into_iter().map(right).collect();
                        let gone = self.shelf.put(token, sender, rights);
                        if !gone.is_empty() {
                            unwanted.push(Box::new(gone));
                        }
                    }
                    // SAFETY: the kernel has written it just now.
                    None => unwanted.push(Box::new(unsafe { Junk::new(space.to_vec()) })),
                },
            }
        }
    }
}

/// Wakes whoever waits for a letter, with an empty one. There is always room for it: it goes to a right of its own.
fn call(port: Name) -> io::Result<()> {
    mach::send(&mut letter::empty(mach::MAKE_SEND_ONCE, port))
}

/// Keeps the thread that empties the mailbox. Its drop waits until the thread has ended.
struct Attendant(&'static Mailbox);

impl Attendant {
    fn start() -> io::Result<Self> {
        let mailbox = mailbox();
        let mut attended = mailbox.attended();
        let port = mailbox.state().port;
        if let (None, Some(port)) = (&attended.thread, port) {
            let thread = super::spawn("ipmb-ports", move || mailbox.run(port))?;
            attended.thread = Some((port, thread));
        }
        attended.by += 1;
        Ok(Self(mailbox))
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        // A forked child has no thread, and a lock may be that of one of its parent's.
        if forked_since(self.0.generation) {
            return;
        }
        let mut attended = self.0.attended();
        attended.by -= 1;
        if attended.by > 0 {
            return;
        }
        let Some((port, thread)) = attended.thread.take() else {
            return;
        };
        self.0.state().ending = true;
        match call(port) {
            Ok(()) => drop(thread.join()),
            Err(e) => log::warn!("a thread for Mach ports does not end: {e}"),
        }
        self.0.state().ending = false;
    }
}

/// Keeps the threads that close what others handed over, and that empty the mailbox.
pub(crate) struct Closing {
    /// Ends first: what it gives up last the other one drops.
    _attendant: Attendant,
    _closing: closing::Closing,
}

impl Closing {
    pub(crate) fn start() -> io::Result<Self> {
        let closing = closing::Closing::start()?;
        Ok(Self {
            _attendant: Attendant::start()?,
            _closing: closing,
        })
    }
}
