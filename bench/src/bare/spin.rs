//! Waiting by looking again and again.

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
