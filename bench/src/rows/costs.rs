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
    /// Joins another bus as its controller and as a member, sends a message from one to the other, parks one, and leaves: what a process needs
    /// once is there.
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

fn send(sender: &ipmb::EndpointSender<String>, selector: ipmb::Selector, text: &str) {
    let message = ipmb::Message::new(selector, text.to_owned());
    sender.send(message).expect("send");
}

fn park(sender: &ipmb::EndpointSender<String>, text: &str) {
    let mut selector = ipmb::Selector::unicast("nobody");
    selector.ttl = Duration::from_secs(3600);
    send(sender, selector, text);
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
                    let join = |label: &str| -> Endpoint {
                        let options = ipmb::Options::new(&*bus, ipmb::label!(label), TOKEN);
                        ipmb::join(options, SOON).expect("join")
                    };
                    let ((_, receiver), (sender, _other)) = (join("host"), join("member"));
                    send(&sender, ipmb::Selector::unicast("host"), "good morning");
                    receiver.recv(SOON).expect("a greeting");
                    park(&sender, "x");
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
                        send(&endpoints[0].0, selector, "good morning");
                    }
                }
                Task::Take => {
                    for (_, receiver) in &endpoints {
                        receiver.recv(SOON).expect("a greeting");
                    }
                }
                Task::Park(count, size) => {
                    for _ in 0..count {
                        park(&endpoints[0].0, &"x".repeat(size));
                    }
                }
            }
            say(&());
        }
        std::process::exit(0);
    }
}
