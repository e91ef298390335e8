//! A registry uses memory regions again once all receivers have dropped them.

use ipmb::{MemoryRegistry, Message, Options, Selector, label};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let bus = format!("example.registry.{}", std::process::id());
    let (_, receiver) = ipmb::join::<(), u32>(Options::new(&*bus, label!("earth"), ""), None)?;
    let (sender, _) = ipmb::join::<u32, ()>(Options::new(&*bus, label!("moon"), ""), None)?;

    let mut registry = MemoryRegistry::default();
    for frame in 1..=5u32 {
        // The tag keeps regions of different uses apart. The closure is called once nobody has the region any more.
        let free = move || println!("frame {frame} is free again");
        let mut region = registry.alloc_with_free(8 << 20, Some("video"), free);
        let pixels = region.map(..4)?;
        println!("frame {frame}: found {pixels:?} in the memory");
        pixels.copy_from_slice(&frame.to_le_bytes());

        let mut message = Message::new(Selector::unicast("earth"), frame);
        message.memory_regions.push(region);
        sender.send(message)?;
        // The receiver drops the message with its region, so that the next frame uses the same memory.
        drop(receiver.recv(None)?);
    }
    registry.maintain();
    Ok(())
}
