//! An event loop waits with poll(2) for messages and for something else, here a socket.

use ipmb::{Message, Options, RecvError, Selector, label};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    error::Error,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
};

fn main() -> Result<(), Box<dyn Error>> {
    let bus = format!("example.loop.{}", std::process::id());
    let (_, receiver) = ipmb::join::<(), String>(Options::new(&*bus, label!("earth"), ""), None)?;
    let (sender, _) = ipmb::join::<String, ()>(Options::new(&*bus, label!("moon"), ""), None)?;
    let (mut socket, mut far_end) = UnixStream::pair()?;

    let writing = thread::spawn(move || {
        for n in 1..=3 {
            let message = Message::new(Selector::unicast("earth"), format!("message {n}"));
            sender.send(message).map_err(|e| e.to_string())?;
            far_end.write_all(&[n]).map_err(|e| e.to_string())?;
        }
        Ok::<_, String>(())
    });

    let (mut messages, mut open) = (0, true);
    while open || messages < 3 {
        let mut waiting = [
            PollFd::new(&receiver, PollFlags::IN),
            PollFd::new(&socket, PollFlags::IN),
        ];
        // A socket that was closed stays readable: wait for it no longer.
        let count = if open { 2 } else { 1 };
        poll(&mut waiting[..count], None)?;
        let [has_message, has_bytes] = waiting.map(|fd| !fd.revents().is_empty());

        if has_message {
            // Until there is none: the descriptor tells of the next message, not of those that are there.
            loop {
                match receiver.try_recv() {
                    Ok(message) => println!("from the bus: {}", message.payload),
                    Err(RecvError::Empty) => break,
                    Err(error) => return Err(error.into()),
                }
                messages += 1;
            }
        }
        if has_bytes {
            let mut bytes = [0; 16];
            let n = socket.read(&mut bytes)?;
            println!("from the socket: {:?}", &bytes[..n]);
            open = n > 0;
        }
    }
    writing.join().map_err(|_| "the writer panicked")??;
    Ok(())
}
