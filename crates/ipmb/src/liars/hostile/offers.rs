//! The maker of a link lies in the handles that it offers.

use super::{
    Victim,
    link::{AT_CAPACITY, AT_START, AT_VERSION, CAPACITY, HEADER, HandLink, half, memory, word},
    logged,
    member::Liar,
    until,
};
use crate::sync::process::Ordering;
use crate::{
    label,
    sys::{Handle, Interest, Ringer, WaitSet},
};
use std::os::fd::AsFd;

const SEALED: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
const RECORDS: usize = 0;
const RETURNS: usize = 1;
const BELL: usize = 2;
const SIDE: usize = 3;

fn file() -> Handle {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn eventfd() -> Handle {
    let ringer = Ringer::local().unwrap();
    ringer.as_fd().try_clone_to_owned().unwrap()
}

/// A memory that can be mapped for reading only.
fn read_only() -> Handle {
    use std::os::fd::AsRawFd;
    let memory = memory(4096, 0, SEALED).unwrap();
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    std::fs::File::open(path).unwrap().into()
}

#[test]
fn an_offer_of_wrong_handles_is_accepted() {
    let mut victim = Victim::new("offer");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let to = liar.find("victim");
    let whole = HEADER as u64 + CAPACITY;
    let huge = libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    let head = |at: usize, value: u64| {
        move |link: &HandLink| word(&link.records, at).store(value, Ordering::Relaxed)
    };
    type Lie = Box<dyn Fn(&HandLink, &mut Vec<Handle>)>;
    let swap = |place: usize, make: fn() -> Handle| -> Lie {
        Box::new(move |_, offer| offer[place] = make())
    };
    let swap_memory = |place: usize, size: u64, flags: u32, seals: i32| -> Lie {
        Box::new(move |_, offer| {
            offer[place] = memory(size, flags, seals).unwrap_or_else(|_| file());
        })
    };
    let say = |at: usize, value: u64| -> Lie {
        let lie = head(at, value);
        Box::new(move |link, _| lie(link))
    };
    let mut lies: Vec<Lie> = vec![
        // Unsealed, truncated, too large, of huge pages, empty.
        swap_memory(RECORDS, whole, 0, 0),
        swap_memory(RECORDS, whole, 0, libc::F_SEAL_GROW),
        swap_memory(RECORDS, whole - 1, 0, SEALED),
        swap_memory(RECORDS, whole + 4096, 0, SEALED),
        swap_memory(RECORDS, 4096, 0, SEALED),
        swap_memory(RECORDS, 0, 0, SEALED),
        swap_memory(RECORDS, 1 << 62, 0, SEALED),
        swap_memory(RECORDS, 1 << 21, huge, SEALED),
        swap_memory(RETURNS, 4096, 0, 0),
        swap_memory(RETURNS, 4095, 0, SEALED),
        swap_memory(RETURNS, 8192, 0, SEALED),
        swap_memory(RETURNS, 4096, 0, SEALED | libc::F_SEAL_FUTURE_WRITE),
        swap_memory(RETURNS, 4096, 0, SEALED),
        say(0, 0),
        say(AT_CAPACITY, 0),
        say(AT_CAPACITY, 1 << 63),
        say(AT_CAPACITY, CAPACITY - 1),
        say(AT_CAPACITY, CAPACITY * 2),
        say(AT_START, 4),
        Box::new(|link, _| half(&link.records, AT_VERSION).store(2, Ordering::Relaxed)),
        Box::new(|link, _| half(&link.returns, AT_VERSION).store(0, Ordering::Relaxed)),
        swap(RETURNS, read_only),
    ];
    for place in [RECORDS, RETURNS, BELL, SIDE] {
        lies.push(swap(place, file));
        lies.push(swap(place, eventfd));
    }
    let line = format!("a link from endpoint {} is refused", liar.id);
    for (number, lie) in lies.iter().enumerate() {
        let mut link = HandLink::new();
        let mut offer = link.offer();
        lie(&link, &mut offer);
        let before = logged(&[&line]);
        liar.introduce(to, number as u64 + 1, &offer);
        drop(offer);
        until("the link is refused", || logged(&["WARN", &line]) > before);
        victim.hears_its_friend();
    }
    // What was refused was no shortage: the next honest link is accepted.
    let mut link = HandLink::new();
    liar.introduce(to, 1000, &link.offer());
    until("an honest link is accepted", || {
        half(&link.returns, super::link::AT_ACCEPTED).load(Ordering::Acquire) != 0
    });
}

/// The kernel refuses to watch what is nested too deeply: that is no shortage, and concerns nobody else.
#[test]
fn a_bell_that_cannot_be_watched_poisons_the_receiver() {
    let mut victim = Victim::new("nested");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let mut sets = vec![WaitSet::new().unwrap()];
    while let Ok(set) = WaitSet::new()
        && let Some(last) = sets.last()
        && set.add(last, 0, Interest::Arrivals).is_ok()
    {
        sets.push(set);
    }
    let mut link = HandLink::new();
    let mut offer = link.offer();
    offer[BELL] = sets.last().unwrap().as_fd().try_clone_to_owned().unwrap();
    liar.introduce(liar.find("victim"), 1, &offer);
    drop(offer);
    victim.lives_until("the link is dropped", || link.is_dropped());
    let line = format!("the link from endpoint {} is dropped", liar.id);
    assert!(logged(&["WARN", &line]) >= 1);
}

/// Links without end, of one member: the receiver keeps a few.
#[test]
fn links_without_end_pile_up() {
    let mut victim = Victim::new("links");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let to = liar.find("victim");
    let mut links = Vec::new();
    for number in 1..=100 {
        let mut link = HandLink::new();
        liar.introduce(to, number, &link.offer());
        links.push(link);
        if number % 10 == 0 {
            victim.hears_its_friend();
        }
    }
    victim.lives_until("most are dropped", || {
        links.iter().filter(|link| !link.is_dropped()).count() <= 4
    });
    assert!(victim.receiver.stats().links_in <= 5);
}

/// An introduction that is repeated is the same link, and an older number is an older link.
#[test]
fn a_link_is_accepted_twice() {
    let mut victim = Victim::new("replay");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let to = liar.find("victim");
    let (mut first, second) = (HandLink::new(), HandLink::new());
    let offer = first.offer();
    let copy = |offer: &[Handle]| -> Vec<Handle> {
        offer.iter().map(|h| h.try_clone().unwrap()).collect()
    };
    liar.introduce(to, 7, &copy(&offer));
    until("it is accepted", || {
        half(&first.returns, super::link::AT_ACCEPTED).load(Ordering::Acquire) != 0
    });
    half(&first.returns, super::link::AT_ACCEPTED).store(0, Ordering::Release);
    for number in [7, 7, 6, 1, 0] {
        liar.introduce(to, number, &copy(&offer));
    }
    let mut second = second;
    liar.introduce(to, 8, &second.offer());
    until("a later one is accepted", || {
        half(&second.returns, super::link::AT_ACCEPTED).load(Ordering::Acquire) != 0
    });
    assert_eq!(
        half(&first.returns, super::link::AT_ACCEPTED).load(Ordering::Acquire),
        0
    );
    victim.hears_its_friend();
}
