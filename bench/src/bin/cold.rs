//! What memory costs after a pause: sleeps 10 ms, reads some cache lines, of which each says where the next one is, and reads them
//! again at once. Prints the medians in nanoseconds. Nothing else runs, no message, no second process.
//!
//! It shows what a message can touch on its way between two sides that slept and still be as fast as a bare wake-up.

use std::time::{Duration, Instant};

const LINES: [usize; 5] = [10, 20, 40, 80, 160];
const LINE: usize = 64;
/// Four lines of a page, as code and data of a message lie.
const STRIDE: usize = 1024 + LINE;
const COUNT: usize = 200;

/// Follows `lines` steps of the chain.
fn walk(chain: &[u32], lines: usize) -> (Duration, u32) {
    let (start, mut at) = (Instant::now(), 0);
    for _ in 0..lines {
        at = chain[at as usize * (STRIDE / 4)];
    }
    (start.elapsed(), std::hint::black_box(at))
}

fn main() {
    println!("| lines | after 10 ms | again |\n|--:|--:|--:|");
    for lines in LINES {
        let mut chain = vec![0u32; lines * STRIDE / 4];
        // In an order that no prefetcher guesses: the factor has no divisor in common with any of the numbers of lines.
        for line in 0..lines {
            let [from, to] = [line, line + 1].map(|n| n * 7 % lines);
            chain[from * (STRIDE / 4)] = to as u32;
        }
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..COUNT {
            std::thread::sleep(Duration::from_millis(10));
            for times in &mut times {
                let (time, end) = walk(&chain, lines);
                assert_eq!(end, 0);
                times.push(time.as_nanos());
            }
        }
        let [cold, warm] = times.map(|mut times| {
            times.sort_unstable();
            times[COUNT / 2]
        });
        println!("| {lines} | {cold} | {warm} |");
    }
}
