//! Shared memory travels with a message, and nothing is copied: both sides see the same bytes.

use ipmb::{MemoryRegion, Message, Options, Selector, label};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let bus = format!("example.region.{}", std::process::id());
    let (_, receiver) = ipmb::join::<(), String>(Options::new(&*bus, label!("earth"), ""), None)?;
    let (sender, _) = ipmb::join::<String, ()>(Options::new(&*bus, label!("moon"), ""), None)?;

    let mut region = MemoryRegion::new(16 << 10);
    region.map(..)?[0] = 0x10;
    let mut message = Message::new(Selector::unicast("earth"), "a region".to_string());
    // A clone is a second handle of the same memory.
    message.memory_regions.push(region.clone()?);
    sender.send(message)?;

    let mut message = receiver.recv(None)?;
    println!("handles of the memory: {}", region.ref_count());
    if let Some(mut received) = message.memory_regions.pop() {
        println!("received: {:#x}", received.map(..)?[0]);
        received.map(..)?[0] += 1;
    }
    println!("changed to: {:#x}", region.map(..)?[0]);
    println!("handles left: {}", region.ref_count());
    Ok(())
}
