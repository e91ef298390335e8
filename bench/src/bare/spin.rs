//! Waiting by looking again and again.

/// Looks away from a ring that is empty or full, for long enough that the other side does several messages meanwhile. A side that looks all the
/// time takes each message while the next one is written, and the cache line of both then travels for each.
pub fn look_away() {
    for _ in 0..128 {
        std::hint::spin_loop();
    }
}

/// Spins; lets others run now and then, for a machine whose cores are all taken.
pub struct Spin(pub u32);

impl Spin {
    #[inline]
    pub fn once(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(512) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}
