//! What an endpoint has done so far.

/// Counters of one endpoint, since it joined. Ask with [`EndpointSender::stats`](crate::EndpointSender::stats) or
/// [`EndpointReceiver::stats`](crate::EndpointReceiver::stats); all zero in a forked child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages put into links, and into the queue to itself; a multicast counts once per receiver.
    pub sent: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Bytes of their payloads.
    pub received_bytes: u64,
    /// Messages skipped because the receiver does not take their type.
    pub skipped: u64,
    /// Messages that nobody matched and that had no time to live.
    pub dropped: u64,
    /// Messages that were parked because nobody matched yet.
    pub parked: u64,
    /// Parked messages whose time was over.
    pub expired: u64,
    /// Messages that a dead receiver had not taken and that went to another.
    pub rerouted: u64,
    /// Messages that a dead receiver had not taken and that could go to nobody: with objects or regions, or nobody else
    /// matched and there was no ttl. Copies of multicasts do not count. Also parked messages that did not get through.
    pub lost: u64,
    /// How often a `send` found a link full and waited.
    pub blocked: u64,
    /// How long those waits took, in nanoseconds.
    pub blocked_ns: u64,
    /// Links to other endpoints.
    pub links_out: u64,
    /// Links from other endpoints.
    pub links_in: u64,
}
