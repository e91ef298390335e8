//! Sleeping on many sources.
//!
//! One call can wait for 64 objects. A set of fewer waits for its own; a larger one has helpers, threads that wait for a
//! group each and note what is set. A set that lends a handle to an event loop has them too, because that handle must be
//! set when one of the sources is. Helpers are never ended before the set is.
//!
//! Nothing tells when there is room in a pipe: who waits for that is told so now and then, and tries.

use super::{
    event::{Signal, wait_any},
    wake::{AsSource, Event, Interest, SourceRef},
    watched::{Entry, Object, Watched},
};
use crate::sys::BorrowedHandle;
use std::{
    io,
    os::windows::io::AsHandle,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use windows_sys::Win32::Foundation::HANDLE;

/// Objects that one call waits for, beside the one that says that they have changed.
const GROUP: usize = 63;
/// When to try to write again.
const ROOM: Duration = Duration::from_millis(2);

/// A set of sources to sleep on.
#[derive(Debug)]
pub(crate) struct WaitSet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Set when whoever waits for the sources themselves has to look at them anew.
    changed: Arc<Signal>,
    /// Set while a helper has noted something that was not looked at.
    noted: Signal,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    next: u64,
    /// Entries to look at before the next sleep, by their numbers.
    recheck: Vec<u64>,
    /// Entries of which helpers say that they are set.
    fired: Vec<u64>,
    helpers: Vec<Helper>,
    helped: bool,
    /// No helper could be started: the handle that was lent stays set.
    helpless: bool,
    /// A thread waits for the sources themselves.
    waiting: bool,
    over: bool,
}

#[derive(Debug)]
struct Helper {
    changed: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl State {
    fn look(&mut self, number: u64, set: bool, events: &mut Vec<Event>) {
        let Some(at) = self.entries.iter().position(|e| e.number == number) else {
            return;
        };
        // Sources that were dropped without a word are forgotten when they are met.
        if self.entries[at].source.is_gone() {
            self.entries.remove(at);
            return;
        }
        let entry = &mut self.entries[at];
        let (event, again) = entry.look(set);
        if entry.noted {
            entry.noted = false;
            let group = entry.group;
            self.tell(group);
        }
        events.extend(event);
        if again {
            self.recheck.push(number);
        }
    }

    fn wants_room(&self) -> bool {
        self.entries
            .iter()
            .any(|e| e.interest == Interest::ReadableOrWritable)
    }

    fn tell(&self, group: usize) {
        if let Some(helper) = self.helpers.get(group) {
            helper.changed.set();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sources have changed.
    fn renew(&self, state: &State, group: usize) {
        if state.helped {
            state.tell(group);
            // There may be something to look at before the next sleep.
            self.noted.set();
        } else if state.waiting {
            self.changed.set();
        }
    }

    /// The objects to wait for, of one group or of all, behind the event that says that they have changed.
    fn objects(
        state: &State,
        group: Option<usize>,
        changed: &Arc<Signal>,
    ) -> (Vec<Object>, Vec<u64>) {
        let mut objects = vec![Object::Signal(changed.clone())];
        let mut numbers = vec![u64::MAX];
        let wanted = |e: &&Entry| !e.noted && group.is_none_or(|group| e.group == group);
        for entry in state.entries.iter().filter(wanted) {
            if let Some(object) = entry.object() {
                objects.push(object);
                numbers.push(entry.number);
            }
        }
        (objects, numbers)
    }

    /// Lets helpers wait for the sources from now on.
    fn call_helpers(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        for _ in 0..state.entries.len().div_ceil(GROUP).max(1) {
            if let Err(e) = self.call_helper(state) {
                // Those that were called wait for the lock, and find that they are not needed.
                state.helpers.clear();
                return Err(e);
            }
        }
        for (i, entry) in state.entries.iter_mut().enumerate() {
            entry.group = i / GROUP;
        }
        state.helped = true;
        // Whoever waits for the sources itself waits for the helpers from now on.
        self.changed.set();
        if !state.recheck.is_empty() {
            self.noted.set();
        }
        Ok(())
    }

    fn call_helper(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let changed = Arc::new(Signal::new()?);
        let (shared, group, mine) = (self.clone(), state.helpers.len(), changed.clone());
        let thread = super::spawn("ipmb-wait", move || shared.help(group, &mine))?;
        state.helpers.push(Helper {
            changed,
            thread: Some(thread),
        });
        Ok(())
    }

    /// A helper's life.
    fn help(&self, group: usize, changed: &Arc<Signal>) {
        loop {
            let (objects, numbers) = {
                let state = self.state();
                let known = state.helpers.get(group).map(|helper| &helper.changed);
                if state.over || !known.is_some_and(|known| Arc::ptr_eq(known, changed)) {
                    return;
                }
                // Before the look: what changes after it sets the event again.
                changed.reset();
                Self::objects(&state, Some(group), changed)
            };
            let raw: Vec<HANDLE> = objects.iter().map(Object::raw).collect();
            let set = match wait_any(&raw, None) {
                Ok(set) => set.unwrap_or(0),
                Err(e) => {
                    log::error!("cannot wait for a source: {e}");
                    self.state().helpless = true;
                    self.noted.set();
                    return;
                }
            };
            let Some(number) = numbers.get(set).filter(|_| set > 0) else {
                continue;
            };
            let mut state = self.state();
            if let Some(entry) = state.entries.iter_mut().find(|e| e.number == *number) {
                // A bell's ring was taken by the wait; others would end the next one, too.
                entry.noted = !matches!(entry.source, Watched::Bell(_));
                // Who rings all the time is noted once.
                if !state.fired.contains(number) {
                    state.fired.push(*number);
                }
                self.noted.set();
            }
        }
    }
}

impl WaitSet {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Arc::new(Signal::new()?),
                noted: Signal::new()?,
            }),
        })
    }

    pub(crate) fn add(
        &self,
        source: impl AsSource,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut guard = self.shared.state();
        let state = &mut *guard;
        state.entries.retain(|entry| !entry.source.is_gone());
        let number = state.next;
        state.next += 1;
        let mut sizes = vec![0usize; state.helpers.len()];
        for entry in &state.entries {
            if let Some(size) = sizes.get_mut(entry.group) {
                *size += 1;
            }
        }
        let group = sizes.iter().position(|size| *size < GROUP);
        let group = group.unwrap_or(sizes.len());
        if state.helped && group == state.helpers.len() {
            self.shared.call_helper(state)?;
        }
        state.entries.push(Entry {
            number,
            token,
            interest,
            source: Watched::of(source.source().0),
            group,
            noted: false,
            told: false,
        });
        if !state.helped && state.entries.len() > GROUP {
            if let Err(e) = self.shared.call_helpers(state) {
                state.entries.pop();
                return Err(e);
            }
        }
        state.recheck.push(number);
        self.shared.renew(state, group);
        Ok(())
    }

    pub(crate) fn change(
        &self,
        source: impl AsSource,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let SourceRef(source) = source.source();
        let mut guard = self.shared.state();
        let state = &mut *guard;
        let entry = state.entries.iter_mut().find(|e| e.source.is(source));
        let entry = entry.ok_or(io::ErrorKind::NotFound)?;
        (entry.token, entry.interest) = (token, interest);
        entry.told = false;
        let (number, group) = (entry.number, entry.group);
        state.recheck.push(number);
        self.shared.renew(state, group);
        Ok(())
    }

    pub(crate) fn remove(&self, source: impl AsSource) {
        let SourceRef(source) = source.source();
        let mut guard = self.shared.state();
        let state = &mut *guard;
        let Some(at) = state.entries.iter().position(|e| e.source.is(source)) else {
            return;
        };
        let entry = state.entries.remove(at);
        self.shared.renew(state, entry.group);
    }

    /// Sleeps until something happens or the timeout is over, and appends what happened. May return without events
    /// before that.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let shared = &self.shared;
        let begin = events.len();
        let mut guard = shared.state();
        let state = &mut *guard;
        for number in std::mem::take(&mut state.recheck) {
            state.look(number, false, events);
        }
        let room = state.wants_room();
        let timeout = match (events.len() > begin, room) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(timeout.map_or(ROOM, |t| t.min(ROOM))),
            (false, false) => timeout,
        };
        let mut fired = Vec::new();
        if state.helped {
            drop(guard);
            wait_any(&[shared.noted.raw()], timeout)?;
            guard = shared.state();
            fired.append(&mut guard.fired);
        } else {
            let (objects, numbers) = Shared::objects(state, None, &shared.changed);
            shared.changed.reset();
            state.waiting = true;
            drop(guard);
            let waited = wait_many(&objects, timeout);
            guard = shared.state();
            guard.waiting = false;
            let set = waited?;
            fired.extend(set.into_iter().filter(|at| *at > 0).map(|at| numbers[at]));
        }
        let state = &mut *guard;
        for number in fired {
            state.look(number, true, events);
        }
        if state.helped && state.fired.is_empty() && state.recheck.is_empty() && !state.helpless {
            shared.noted.reset();
        }
        if room {
            tell_of_room(state, events);
        }
        Ok(())
    }
}

/// Says of all who wait for room that there may be some.
fn tell_of_room(state: &State, events: &mut Vec<Event>) {
    for entry in &state.entries {
        if entry.interest != Interest::ReadableOrWritable {
            continue;
        }
        match events.iter_mut().find(|event| event.token == entry.token) {
            Some(event) => event.writable = true,
            None => events.push(Event {
                token: entry.token,
                readable: false,
                writable: true,
                hangup: false,
            }),
        }
    }
}

/// Waits until an object is set, and says which are.
fn wait_many(objects: &[Object], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let raw: Vec<HANDLE> = objects.iter().map(Object::raw).collect();
    let mut set = Vec::new();
    let mut from = 0;
    let mut timeout = timeout;
    while from < raw.len() {
        let Some(at) = wait_any(&raw[from..], timeout)? else {
            break;
        };
        set.push(from + at);
        from += at + 1;
        timeout = Some(Duration::ZERO);
    }
    Ok(set)
}

impl AsHandle for WaitSet {
    /// A handle that is set while something is to be looked at.
    fn as_handle(&self) -> BorrowedHandle<'_> {
        let mut guard = self.shared.state();
        let state = &mut *guard;
        if !state.helped && !state.helpless {
            if let Err(e) = self.shared.call_helpers(state) {
                log::error!("no thread to wait for messages; the handle stays set: {e}");
                state.helpless = true;
                self.shared.noted.set();
            }
        }
        self.shared.noted.as_handle()
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        let helpers = {
            let mut state = self.shared.state();
            state.over = true;
            for group in 0..state.helpers.len() {
                state.tell(group);
            }
            std::mem::take(&mut state.helpers)
        };
        for mut helper in helpers {
            if let Some(thread) = helper.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::windows::{Channel, Ringer, bell, event};
    use std::os::windows::io::AsRawHandle;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

    fn happened(set: &WaitSet, timeout: Option<Duration>) -> Vec<Event> {
        let mut events = Vec::new();
        set.wait(&mut events, timeout).unwrap();
        events
    }

    /// What the set says within ten seconds.
    fn next(set: &WaitSet) -> Event {
        loop {
            if let Some(event) = happened(set, PATIENCE).first() {
                return *event;
            }
        }
    }

    #[test]
    fn the_ring_of_one_of_many_bells_is_lost_or_heard_twice() {
        for many in [3, 200] {
            let set = WaitSet::new().unwrap();
            let bells: Vec<_> = (0..many).map(|_| bell().unwrap()).collect();
            for (token, (_, bell)) in bells.iter().enumerate() {
                set.add(bell, token as u64, Interest::Arrivals).unwrap();
            }
            for (token, (ringer, _)) in bells.iter().enumerate() {
                ringer.ring();
                assert_eq!(next(&set).token, token as u64);
            }
            let again = happened(&set, Some(Duration::ZERO));
            assert!(again.is_empty(), "a ring is heard twice");
            set.remove(&bells[1].1);
            bells[1].0.ring();
            bells[2].0.ring();
            assert_eq!(next(&set).token, 2);
        }
    }

    #[test]
    fn the_handle_of_a_set_is_not_set_when_something_happens() {
        let set = WaitSet::new().unwrap();
        let (ringer, bell) = bell().unwrap();
        let local = Ringer::local().unwrap();
        set.add(&bell, 1, Interest::Arrivals).unwrap();
        set.add(&local, 2, Interest::Arrivals).unwrap();
        let handle = set.as_handle();
        while !happened(&set, Some(Duration::ZERO)).is_empty() {}
        assert!(!event::is_set(handle).unwrap());
        for (token, ring) in [(1, &ringer), (2, &local), (1, &ringer)] {
            ring.ring();
            assert!(
                wait_any(&[handle.as_raw_handle()], PATIENCE)
                    .unwrap()
                    .is_some()
            );
            assert_eq!(next(&set).token, token);
            while !happened(&set, Some(Duration::ZERO)).is_empty() {}
            assert!(!event::is_set(handle).unwrap(), "after {token}");
        }
    }

    #[test]
    fn a_hang_up_behind_packets_that_nobody_reads_is_not_heard() {
        for helped in [false, true] {
            let set = WaitSet::new().unwrap();
            if helped {
                let _ = set.as_handle();
            }
            let (far, near) = Channel::pair(0).unwrap();
            set.add(&near, 5, Interest::Hangup).unwrap();
            far.send(b"unread", &[]).unwrap();
            assert!(happened(&set, Some(Duration::from_millis(50))).is_empty());
            drop(far);
            let event = next(&set);
            assert!(event.hangup && event.token == 5);
            assert!(
                happened(&set, Some(Duration::ZERO)).is_empty(),
                "told twice"
            );
            set.change(&near, 6, Interest::Readable).unwrap();
            for _ in 0..2 {
                let event = next(&set);
                assert!(event.readable && event.hangup && event.token == 6);
            }
            // What was read ahead is still there.
            assert_eq!(near.recv(&mut [0; 9], &mut Vec::new()).unwrap().len, 6);
        }
    }

    #[test]
    fn a_source_that_was_dropped_stays_open_or_disturbs_the_others() {
        let set = WaitSet::new().unwrap();
        let (far, near) = Channel::pair(0).unwrap();
        let (ringer, bell) = bell().unwrap();
        set.add(&near, 1, Interest::Readable).unwrap();
        set.add(&bell, 2, Interest::Arrivals).unwrap();
        assert!(happened(&set, Some(Duration::from_millis(1))).is_empty());
        drop(near);
        assert!(
            crate::sys::wait_for(&far, PATIENCE).unwrap().1,
            "it stays open"
        );
        ringer.ring();
        assert_eq!(next(&set).token, 2);
    }
}
