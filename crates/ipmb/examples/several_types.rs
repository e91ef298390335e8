//! One endpoint receives messages of several types; what it has no variant for, it skips.

use ipmb::{BytesMessage, Message, MessageBox, Options, Selector, TypeUuid, label};
use serde::{Deserialize, Serialize};
use std::error::Error;

/// Any type with a UUID can be sent.
#[derive(Debug, PartialEq, Serialize, Deserialize, TypeUuid)]
#[uuid = "7b07473e-9659-4d47-a502-8245d71c0078"]
struct MyMessage {
    foo: i32,
    bar: bool,
}

#[derive(MessageBox)]
enum Anything {
    Text(String),
    Number(i32),
    Bytes(BytesMessage),
    Mine(MyMessage),
}

#[derive(Debug, PartialEq, MessageBox)]
enum Wanted {
    Text(String),
    Mine(MyMessage),
}

fn main() -> Result<(), Box<dyn Error>> {
    let bus = format!("example.types.{}", std::process::id());
    let (_, receiver) = ipmb::join::<(), Wanted>(Options::new(&*bus, label!("earth"), ""), None)?;
    let (sender, _) = ipmb::join::<Anything, ()>(Options::new(&*bus, label!("moon"), ""), None)?;

    let data = vec![1, 2, 3];
    for payload in [
        Anything::Number(1), // The receiver has no variant for these two.
        Anything::Bytes(BytesMessage { format: 0, data }),
        Anything::Text("hello".to_string()),
        Anything::Mine(MyMessage { foo: 1, bar: true }),
    ] {
        sender.send(Message::new(Selector::unicast("earth"), payload))?;
    }

    for _ in 0..2 {
        match receiver.recv(None)?.payload {
            Wanted::Text(text) => println!("a string: {text}"),
            Wanted::Mine(mine) => println!("a struct: {mine:?}"),
        }
    }
    println!("skipped: {}", receiver.stats().skipped);
    Ok(())
}
