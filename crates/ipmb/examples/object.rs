//! An open file descriptor travels with a message: here one end of a socket pair.

use ipmb::{Message, Object, Options, Selector, label};
use std::{
    error::Error,
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

#[allow(clippy::unnecessary_fallible_conversions)] // On macOS an object can be a port that is no file.
fn main() -> Result<(), Box<dyn Error>> {
    let bus = format!("example.object.{}", std::process::id());
    let (_, receiver) = ipmb::join::<(), String>(Options::new(&*bus, label!("earth"), ""), None)?;
    let (sender, _) = ipmb::join::<String, ()>(Options::new(&*bus, label!("moon"), ""), None)?;

    // Anything that is a file descriptor will do: files, sockets, devices.
    let (mut writer, reader) = UnixStream::pair()?;
    let mut message = Message::new(Selector::unicast("earth"), "listen to this".to_string());
    message.objects.push(Object::from(reader));
    sender.send(message)?;
    writer.write_all(b"hello through the socket")?;
    drop(writer);

    let mut message = receiver.recv(None)?;
    println!("received: {}", message.payload);
    if let Some(object) = message.objects.pop() {
        let mut text = String::new();
        File::from(OwnedFd::try_from(object)?).read_to_string(&mut text)?;
        println!("read from it: {text}");
    }
    Ok(())
}
