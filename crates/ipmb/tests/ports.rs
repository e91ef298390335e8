//! Objects that are Mach ports, between processes.

#![cfg(target_os = "macos")]

mod common;

use common::{Peer, SOON, join, name, owned, role, say, scratch_file};
use ipmb::{MemoryRegion, Message, Object, Selector, label};
use std::{
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
};

/// What the system's headers say (`mach/port.h`, `mach/message.h`).
mod mach {
    unsafe extern "C" {
        pub static mach_task_self_: u32;
        pub fn mach_port_allocate(task: u32, right: u32, name: *mut u32) -> i32;
        pub fn mach_port_insert_right(task: u32, name: u32, port: u32, kind: u32) -> i32;
        pub fn mach_port_mod_refs(task: u32, name: u32, right: u32, delta: i32) -> i32;
        pub fn mach_port_get_refs(task: u32, name: u32, right: u32, count: *mut u32) -> i32;
        pub fn mach_msg(
            message: *mut u32,
            option: i32,
            send_size: u32,
            receive_size: u32,
            receive_name: u32,
            timeout: u32,
            notify: u32,
        ) -> i32;
    }

    pub const SEND: u32 = 0;
    pub const RECEIVE: u32 = 1;
    pub const MAKE_SEND: u32 = 20;
    pub const COPY_SEND: u32 = 19;
    pub const SEND_MSG: i32 = 1;
    pub const RCV_MSG_TIMEOUT: i32 = 0x102;
}

/// A port that this process receives from.
struct Port(u32);

impl Port {
    fn new() -> Self {
        let mut name = 0;
        // SAFETY: a place for the name.
        let code = unsafe {
            mach::mach_port_allocate(mach::mach_task_self_, mach::RECEIVE, &raw mut name)
        };
        assert_eq!(code, 0);
        Self(name)
    }

    /// A right to send to it.
    fn object(&self) -> Object {
        // SAFETY: takes names; the right that is made is given to the object.
        unsafe {
            let task = mach::mach_task_self_;
            let code = mach::mach_port_insert_right(task, self.0, self.0, mach::MAKE_SEND);
            assert_eq!(code, 0);
            Object::from_raw(self.0)
        }
    }

    /// How many rights to send to it this process has.
    fn rights(&self) -> u32 {
        let mut count = 0;
        // SAFETY: a place for the number.
        let code = unsafe {
            let task = mach::mach_task_self_;
            mach::mach_port_get_refs(task, self.0, mach::SEND, &raw mut count)
        };
        assert_eq!(code, 0);
        count
    }

    /// The number of the next message, which comes soon.
    fn hear(&self) -> u32 {
        let mut message = [0u32; 32];
        // SAFETY: the space is as large as it says.
        let code = unsafe {
            mach::mach_msg(
                message.as_mut_ptr(),
                mach::RCV_MSG_TIMEOUT,
                0,
                size_of_val(&message) as u32,
                self.0,
                60_000,
                0,
            )
        };
        assert_eq!(code, 0, "{code:#x}");
        message[5]
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: takes a name; the right is this one's.
        unsafe { mach::mach_port_mod_refs(mach::mach_task_self_, self.0, mach::RECEIVE, -1) };
    }
}

/// Sends a message with a number to the port that the object is.
fn speak(to: &Object, number: u32) {
    let mut message = [mach::COPY_SEND, 24, to.as_raw(), 0, 0, number];
    // SAFETY: a message as long as it says.
    let code = unsafe { mach::mach_msg(message.as_mut_ptr(), mach::SEND_MSG, 24, 0, 0, 0, 0) };
    assert_eq!(code, 0, "{code:#x}");
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    let (sender, receiver) = join::<u32, u32>(&bus, label!("peer"));
    say("joined");
    let Ok(mut message) = receiver.recv(SOON) else {
        return;
    };
    match role.as_str() {
        // Says the number of the message and the numbers after it to its ports, and sends all back.
        "speak" => {
            for (object, number) in message.objects.iter().zip(message.payload..) {
                speak(object, number);
            }
            let mut back = Message::new(Selector::unicast("test"), message.payload);
            back.objects = message.objects;
            sender.send(back).expect("send");
        }
        // Sends the descriptor back as the port that its number is.
        "as port" => {
            let object = message.objects.remove(0).into_raw();
            assert_ne!(object, 0);
            let mut back = Message::new(Selector::unicast("test"), 0);
            // SAFETY: `into_raw` has just given it up.
            back.objects.push(unsafe { Object::from_raw(object) });
            sender.send(back).expect("send");
        }
        other => panic!("unknown role {other}"),
    }
    let _ = receiver.recv(SOON);
}

#[test]
fn a_port_does_not_arrive_or_is_another_one() {
    let bus = name("port");
    let (sender, receiver) = join::<u32, u32>(&bus, label!("test"));
    let mut other = Peer::start("peer", "speak", &bus);
    other.expect("joined");
    let ports = [Port::new(), Port::new(), Port::new()];
    let mut message = Message::new(Selector::unicast("peer"), 70);
    message.objects = ports.iter().map(Port::object).collect();
    sender.send(message).unwrap();
    let back = receiver.recv(SOON).unwrap();
    for ((port, object), number) in ports.iter().zip(&back.objects).zip(70..) {
        assert_eq!(port.hear(), number);
        assert_eq!(
            object.as_raw(),
            port.0,
            "a right to a port has the port's name"
        );
        assert_eq!(port.rights(), 1, "what was sent was given up");
        let copy = object.clone().unwrap();
        assert_eq!((copy.as_raw(), port.rights()), (port.0, 2));
        drop(copy);
        assert_eq!(port.rights(), 1);
    }
    sender
        .send(Message::new(Selector::unicast("peer"), 0))
        .unwrap();
    other.wait();
}

#[test]
fn a_descriptor_is_no_file_port_or_the_way_back_is_lost() {
    let bus = name("fileport");
    let (sender, receiver) = join::<u32, u32>(&bus, label!("test"));
    let mut other = Peer::start("peer", "as port", &bus);
    other.expect("joined");
    let mut file = scratch_file();
    file.write_all(b"contents").unwrap();
    let mut message = Message::new(Selector::unicast("peer"), 0);
    message.objects.push(Object::from(file));
    sender.send(message).unwrap();
    let mut back = receiver.recv(SOON).unwrap();
    let mut file = std::fs::File::from(owned(back.objects.remove(0)));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "contents");
    sender
        .send(Message::new(Selector::unicast("peer"), 0))
        .unwrap();
    other.wait();
}

#[test]
fn a_port_that_is_no_file_becomes_a_descriptor_or_a_region() {
    let port = Port::new();
    assert!(OwnedFd::try_from(port.object()).is_err());
    assert!(MemoryRegion::from_object(port.object()).is_err());
    // SAFETY: no port; nothing is given up.
    let none = unsafe { Object::from_raw(0) };
    assert_eq!(none.clone().unwrap().as_raw(), 0);
    assert!(OwnedFd::try_from(none).is_err());
}

#[test]
fn handles_of_all_kinds_change_places() {
    let bus = name("mixed");
    let (sender, _) = join::<u32, ()>(&bus, label!("sender"));
    let (_sender, receiver) = join::<(), u32>(&bus, label!("receiver"));
    let ports: Vec<Port> = (0..125).map(|_| Port::new()).collect();
    for round in 0..3 {
        let mut message = Message::new(Selector::unicast("receiver"), round);
        for port in &ports {
            message.objects.push(port.object());
            let mut file = scratch_file();
            file.write_all(&port.0.to_ne_bytes()).unwrap();
            message.objects.push(Object::from(file));
        }
        message.memory_regions.push(MemoryRegion::new(1));
        sender.send(message).unwrap();
        let message = receiver.recv(SOON).unwrap();
        assert_eq!((message.payload, message.objects.len()), (round, 250));
        let mut objects = message.objects.into_iter();
        for port in &ports {
            assert_eq!(objects.next().unwrap().as_raw(), port.0);
            let mut file = std::fs::File::from(owned(objects.next().unwrap()));
            let mut bytes = [0; 4];
            file.rewind().unwrap();
            file.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, port.0.to_ne_bytes());
        }
        assert_eq!(message.memory_regions.len(), 1);
    }
}

#[test]
fn a_dead_port_costs_the_message_or_the_link() {
    let bus = name("dead");
    let (sender, _) = join::<u32, ()>(&bus, label!("sender"));
    let (_sender, receiver) = join::<(), u32>(&bus, label!("receiver"));
    let (dead, alive) = (Port::new(), Port::new());
    let mut message = Message::new(Selector::unicast("receiver"), 1);
    message.objects = vec![dead.object(), alive.object()];
    drop(dead);
    sender.send(message).unwrap();
    let message = receiver.recv(SOON).unwrap();
    assert_eq!(message.objects[1].as_raw(), alive.0);
    speak(&message.objects[1], 5);
    assert_eq!(alive.hear(), 5);
}

#[test]
fn ports_of_messages_that_nobody_takes_are_kept() {
    let bus = name("untaken");
    let port = Port::new();
    {
        let (sender, _) = join::<u32, ()>(&bus, label!("sender"));
        let (_sender, receiver) = join::<(), u32>(&bus, label!("receiver"));
        for number in 0..10 {
            let mut message = Message::new(Selector::unicast("receiver"), number);
            message.objects.push(port.object());
            sender.send(message).unwrap();
        }
        // One, and with it the link to all of them.
        assert_eq!(receiver.recv(SOON).unwrap().payload, 0);
    }
    assert_eq!(port.rights(), 0);
}
