//! The station in Rust: `polyglot_station BUS NEXT`. It takes the letter, adds its line to the text, to the file and to the
//! memory, and passes the letter on to whoever has the label `NEXT`.

use ipmb::{BytesMessage, Message, Options, Selector, label};
use std::{error::Error, fs::File, io::Write, os::fd::OwnedFd, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(bus), Some(next)) = (words.next(), words.next()) else {
        return Err("usage: polyglot_station BUS NEXT".into());
    };
    let mut options = Options::new(bus, label!("rust"), "");
    options.controller_affinity = false;
    let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(options, Some(PATIENCE))?;

    let mut letter = receiver.recv(Some(PATIENCE))?;
    let mut text = letter.payload.data;
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    println!("Rust   has got the letter with {lines} lines and passes it to \"{next}\"");

    let line = format!("Rust was here, process {}\n", std::process::id());
    text.extend(line.as_bytes());
    let payload = BytesMessage {
        format: 0,
        data: text,
    };

    let object = letter.objects.pop().ok_or("no file came with the letter")?;
    let mut file = File::from(OwnedFd::from(object));
    file.write_all(line.as_bytes())?;

    let memory = letter.memory_regions.pop();
    let mut memory = memory.ok_or("no memory came with the letter")?;
    let bytes = memory.map(..)?;
    let free = bytes.iter_mut().skip_while(|byte| **byte != 0);
    let written = free
        .zip(line.as_bytes())
        .map(|(place, byte)| *place = *byte)
        .count();
    if written != line.len() {
        return Err("the memory is full".into());
    }

    let mut to = Selector::unicast(next);
    to.ttl = PATIENCE; // Kept until the next station has joined.
    let mut letter = Message::new(to, payload);
    letter.objects.push(OwnedFd::from(file).into());
    letter.memory_regions.push(memory);
    sender.send(letter)?;
    Ok(())
}
