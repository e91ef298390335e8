//! A process whose costs the program `costs` looks at.

use crate::{
    peers::{SOON, TOKEN},
    process::{limit_descriptors, listen, say},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub bus: String,
    /// Tells the processes of a bus apart.
    pub index: usize,
}

/// What such a process is told to do; it answers when it has done it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Joins another bus and leaves it: what a process needs once is there.
    Prepare,
    /// Joins so many endpoints.
    Join(usize),
    /// Sends a message to each of so many endpoints of that process.
    Greet(usize, usize),
    /// Takes one message at each endpoint.
    Take,
    /// Sends so many messages of so many bytes that nobody matches.
    Park(usize, usize),
}

type Endpoint = (ipmb::EndpointSender<String>, ipmb::EndpointReceiver<String>);

fn label(process: usize, endpoint: usize) -> String {
    format!("endpoint-{process}-{endpoint}")
}

impl Job {
    /// In a child.
    pub fn play(&self) {
        limit_descriptors(4096);
        say(&());
        let mut endpoints: Vec<Endpoint> = Vec::new();
        while let Some(line) = listen() {
            match serde_json::from_str(&line).expect("a task") {
                Task::Prepare => {
                    let bus = format!("{}.prepare.{}", self.bus, self.index);
                    let options = ipmb::Options::new(bus, ipmb::label!("once"), TOKEN);
                    endpoints.push(ipmb::join(options, SOON).expect("join"));
                    endpoints.clear();
                }
                Task::Join(count) => {
                    for number in 0..count {
                        let own = label(self.index, number);
                        let options = ipmb::Options::new(&*self.bus, ipmb::label!(own), TOKEN);
                        endpoints.push(ipmb::join(options, SOON).expect("join"));
                    }
                }
                Task::Greet(process, count) => {
                    for number in 0..count {
                        let selector = ipmb::Selector::unicast(label(process, number));
                        let message = ipmb::Message::new(selector, "good morning".to_owned());
                        endpoints[0].0.send(message).expect("send");
                    }
                }
                Task::Take => {
                    for (_, receiver) in &endpoints {
                        receiver.recv(SOON).expect("a greeting");
                    }
                }
                Task::Park(count, size) => {
                    for _ in 0..count {
                        let mut selector = ipmb::Selector::unicast("nobody");
                        selector.ttl = Duration::from_secs(3600);
                        let message = ipmb::Message::new(selector, "x".repeat(size));
                        endpoints[0].0.send(message).expect("send");
                    }
                }
            }
            say(&());
        }
        std::process::exit(0);
    }
}
