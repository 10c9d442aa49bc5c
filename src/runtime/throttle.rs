//! Rate limits.

use std::time::{Duration, Instant};

/// A token bucket that many threads draw from. It never sleeps: who gets nothing is told when to ask again.
#[derive(Debug)]
pub struct Throttle;

impl Throttle {
    /// At most `bytes_per_s`; `None` is no limit and costs nothing.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        todo!("{bytes_per_s:?}")
    }

    /// Takes up to `want` bytes, at least 1. `Err` says how long to wait when there are none now.
    ///
    /// # Errors
    /// The time after which asking again has a chance.
    pub fn take(&self, want: usize, now: Instant) -> Result<usize, Duration> {
        todo!("{want} {now:?}")
    }

    /// Gives back what was taken but not used.
    pub fn put_back(&self, unused: usize) {
        todo!("{unused}")
    }
}
