//! Forks without `exec`: what the child holds of the library, and what it may do with it.

// Mappings that a child does not get, and sockets that keep packets apart.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, alone, join, listen, name, role, say, skip};
use ipmb::{Error, MemoryRegion, MemoryRegistry, Message, RecvError, Selector, SendError, label};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, send, socketpair},
    pipe::pipe,
};
use std::{cell::Cell, rc::Rc, time::Duration};

/// What the other process of these tests does; nothing when run as a test.
#[test]
fn peer() {
    let Some((_, bus)) = role() else { return };
    // Leaves a forked child behind that lives on.
    let _endpoint = join::<u64, u64>(&bus, label!("forks"));
    // SAFETY: the child only sleeps until its parent's death ends it, and then for a while.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: closes the pipes to the test and sleeps; no lock is needed.
        unsafe {
            libc::close(0);
            libc::close(1);
            libc::sleep(5);
            libc::_exit(0);
        }
    }
    say("forked");
    while listen().is_some() {}
}

#[test]
fn an_endpoint_of_the_parent_works_in_a_forked_child() {
    let bus = name("fork");
    let (sender, receiver) = join::<u64, u64>(&bus, label!("test"));
    // SAFETY: the child calls nothing that needs another thread, and ends with `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let sent = sender.send(Message::new(Selector::unicast("test"), 1));
        let received = receiver.try_recv();
        drop((sender, receiver));
        let good =
            matches!(sent, Err(SendError::Forked)) && matches!(received, Err(RecvError::Forked));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child of above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    sender
        .send(Message::new(Selector::unicast("test"), 2))
        .expect("done");
    assert_eq!(receiver.recv(SOON).expect("done").payload, 2);
}

/// Of messages of one handle each that wait in line, the handles come in together.
#[test]
fn what_came_for_messages_in_line_stays_open_in_a_child_or_after_the_receiver() {
    if !alone("what_came_for_messages_in_line_stays_open_in_a_child_or_after_the_receiver") {
        return;
    }
    let bus = name("line");
    let (sender, _own) = join::<u64, u64>(&bus, label!("from"));
    let (other, receiver) = join::<u64, u64>(&bus, label!("to"));
    let ends = [0, 1, 2, 3].map(|n| {
        let (read, write) = pipe().expect("pipe");
        let mut message = Message::new(Selector::unicast("to"), n);
        message.objects.push(ipmb::Object::from(write));
        sender.send(message).expect("sent");
        read
    });
    let first = receiver.recv(SOON).expect("received");
    assert_eq!((first.payload, first.objects.len()), (0, 1));
    // SAFETY: the child only sleeps, and ends by itself if nobody ends it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(15);
            libc::_exit(0);
        }
    }
    drop((other, receiver));
    for end in &ends[1..] {
        let mut ended = [PollFd::new(end, PollFlags::empty())];
        let timeout = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut ended, Some(&timeout)), Ok(1));
        assert_eq!(ended[0].revents(), PollFlags::HUP);
    }
    // SAFETY: ends the child of above, and waits for it.
    unsafe {
        assert_eq!(libc::kill(child, libc::SIGKILL), 0);
        assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
    }
}

/// The handles of the parent's threads mean nothing in the child, or threads of its own: the system gives the numbers out again.
#[test]
fn an_inherited_endpoint_that_is_dropped_takes_a_thread_of_the_childs_own() {
    if !alone("an_inherited_endpoint_that_is_dropped_takes_a_thread_of_the_childs_own") {
        return;
    }
    if !forks_start_threads() {
        let why = "a forked child of several threads starts none here (an emulator's fault)";
        return skip(
            "an_inherited_endpoint_that_is_dropped_takes_a_thread_of_the_childs_own",
            why,
        );
    }
    let ends = join::<u64, u64>(&name("inherited"), label!("parent"));
    let own = name("own");
    // SAFETY: the child's allocator works, as glibc and musl keep it consistent; it ends with `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let new = join::<u64, u64>(&own, label!("child"));
            drop(ends);
            drop(new);
        }));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child of above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn a_forked_child_keeps_the_name_of_a_dead_controller() {
    let bus = name("forkname");
    let mut controller = Peer::start("peer", "forks", &bus);
    controller.expect("forked");
    controller.kill();
    let start = std::time::Instant::now();
    join::<(), ()>(&bus, label!("next"));
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// Whether the forked child of a process with other threads can start one, nothing of the library being there yet. In the child
/// qemu 7.2 gives the new thread a number that one of the parent's has, and ends by an assertion of its own.
fn forks_start_threads() -> bool {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || stopped.recv().is_err());
    // SAFETY: as in the test that asks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let started = std::thread::spawn(|| ()).join().is_ok();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!started)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child of above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    drop(stop);
    assert!(other.join().expect("the other thread"));
    status == 0
}

/// Whether a forked child is without what its parent asked to be left out.
fn forks_leave_out() -> bool {
    let len = rustix::param::page_size();
    // SAFETY: a page that nobody else knows. The child makes one system call, which looks whether it has the page.
    unsafe {
        let flags = (ProtFlags::READ, MapFlags::PRIVATE);
        let page = mmap_anonymous(std::ptr::null_mut(), len, flags.0, flags.1).expect("a page");
        let _ = madvise(page, len, Advice::LinuxDontFork);
        let child = libc::fork();
        if child == 0 {
            let missing = libc::mprotect(page, len, libc::PROT_NONE) != 0;
            libc::_exit(i32::from(missing));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        libc::WEXITSTATUS(status) == 1
    }
}

// In a process of its own: the forked child would keep what other tests have open.
#[test]
fn a_forked_child_holds_no_region() {
    if !alone("a_forked_child_holds_no_region") {
        return;
    }
    if !forks_leave_out() {
        let why = "a forked child has all mappings here (an emulator without MADV_DONTFORK)";
        return skip("a_forked_child_holds_no_region", why);
    }
    let mut region = MemoryRegion::new(10);
    region.map(..).expect("done");
    let mut other = region.clone().expect("done");
    let mut registry = MemoryRegistry::default();
    let freed = Rc::new(Cell::new(false));
    let lent = {
        let freed = freed.clone();
        registry.alloc_with_free(10, None, move || freed.set(true))
    };
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("done");
    // SAFETY: the child makes system calls and little else, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // So that it learns of its parent's end.
        drop(ours);
        let good = matches!(other.map(..), Err(Error::Forked))
            && matches!(other.as_frozen(), Err(Error::Forked))
            && matches!(other.freeze(), Err(Error::Forked))
            && other.clone().is_err()
            && other.ref_count() == 0;
        drop(other);
        drop(lent);
        drop(registry);
        // What the child makes for itself works.
        let mut own = MemoryRegistry::default();
        let good = good
            && !freed.get()
            && own.alloc(10, None).map(..).is_ok()
            && own.alloc(10, None).ref_count() == 2;
        let _ = send(&theirs, &[u8::from(good)], SendFlags::NOSIGNAL);
        let _ = rustix::net::recv(&theirs, &mut [0], RecvFlags::empty());
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut answer = [0];
    rustix::net::recv(&ours, &mut answer, RecvFlags::empty()).expect("done");
    assert_eq!(answer, [1]);
    // The child lives, and has taken nothing away nor kept anything.
    assert_eq!(region.ref_count(), 2);
    drop(other);
    assert_eq!(region.ref_count(), 1);
    region.freeze().expect("done");
    drop(lent);
    registry.maintain();
    assert!(freed.get());
    send(&ours, &[0], SendFlags::NOSIGNAL).expect("done");
    // SAFETY: waits for the child of this test.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
