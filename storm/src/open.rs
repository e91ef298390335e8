//! What this process has open, for the balance.

use crate::board::{OPEN, Open};
use std::{fs, sync::atomic::Ordering::SeqCst};

/// Counts, and writes it down. `links`: in and out.
pub fn count(open: &Open, links: (u64, u64)) {
    // SAFETY: gives free memory back to the system; no other effect.
    unsafe { libc::malloc_trim(0) };
    let mut counts = [0u64; OPEN.len()];
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let of = |what: &str| OPEN.iter().position(|o| *o == what).unwrap_or(0);
        let kind = if target.starts_with("socket:") {
            of("socket")
        } else if target.contains("[eventpoll]") {
            of("epoll")
        } else if target.contains("[eventfd]") {
            of("eventfd")
        } else if target.contains("pidfd") {
            of("pidfd")
        } else if target.starts_with("pipe:") {
            of("pipe")
        } else if let Some(name) = target.strip_prefix("/memfd:ipmb-") {
            let word = name.split([' ', '-']).next().unwrap_or_default();
            match OPEN.iter().position(|o| *o == word) {
                Some(kind) => kind,
                None => of("memfd"),
            }
        } else if target.starts_with("/memfd:") {
            of("memfd")
        } else {
            of("other")
        };
        counts[kind] += 1;
    }
    for (to, count) in open.descriptors.iter().zip(counts) {
        to.store(count, SeqCst);
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let ours = |line: &&str| line.contains("memfd:ipmb") && !line.contains("ipmb-block");
    let mappings = maps.lines().filter(ours).count();
    open.mappings.store(mappings as u64, SeqCst);
    open.resident.store(resident(), SeqCst);
    open.links_in.store(links.0, SeqCst);
    open.links_out.store(links.1, SeqCst);
    open.counts.fetch_add(1, SeqCst);
}

/// Memory that is resident and this process's own, KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("RssAnon:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
