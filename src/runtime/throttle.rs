//! Rate limits: a token bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::KIB;
use crate::runtime::limits::{THROTTLE_BURST, THROTTLE_BURST_SMALL, THROTTLE_GRANT_MAX};

/// A token bucket that many threads draw from. It never sleeps: a caller that gets nothing gets the
/// time to wait.
///
/// The bucket holds the bytes of 50 ms ([`THROTTLE_BURST`]), or up to 64 KiB for low rates, but
/// never more than the bytes of 100 ms ([`THROTTLE_BURST_SMALL`]). So the bytes of any 5 s exceed
/// the limit by 2 % at most.
#[derive(Debug)]
pub struct Throttle {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_s: u64,
    burst_ns: u64,
    /// Fewest bytes of a grant, unless fewer are left to send.
    grant: usize,
    epoch: Instant,
    /// The time in ns since `epoch` up to which all tokens are spent. The bucket is full when it
    /// lies `burst_ns` back.
    spent_until_ns: AtomicU64,
}

impl Throttle {
    /// At most `bytes_per_s` (0 counts as 1); `None` is no limit and costs nothing.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self::since(bytes_per_s, Instant::now())
    }

    fn since(bytes_per_s: Option<u64>, start: Instant) -> Self {
        Throttle { limit: bytes_per_s.map(|rate| Limit::new(rate.max(1), start)) }
    }

    /// Takes up to `want` bytes, at least 1 (0 only if `want` is 0), of `left` bytes that are to be
    /// sent in all.
    ///
    /// A grant costs the caller a timer and a turn, so a small rest in the bucket is not given out:
    /// the call waits for `min(left, grant)` bytes. It compares with `left`, not `want`, so
    /// that a caller that takes small amounts gets no advantage over one that takes large ones.
    ///
    /// # Errors
    /// The time after which a call can succeed.
    pub fn take(&self, want: usize, left: usize, now: Instant) -> Result<usize, Duration> {
        match &self.limit {
            Some(limit) if want > 0 => limit.take(want, left.max(want), now),
            _ => Ok(want),
        }
    }

    /// Gives back what was taken but not used.
    pub fn put_back(&self, unused: usize) {
        if let (Some(limit), 1..) = (&self.limit, unused) {
            let ns = limit.ns(unused as u64);
            let back = |spent: u64| Some(spent.saturating_sub(ns));
            let _ = limit.spent_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
    }

    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }
}

impl Limit {
    fn new(bytes_per_s: u64, start: Instant) -> Self {
        let flow = |time: Duration| (bytes_per_s as u128 * time.as_nanos() / 1_000_000_000) as u64;
        let burst = flow(THROTTLE_BURST).max(flow(THROTTLE_BURST_SMALL).min(64 * KIB as u64)).max(1);
        let mut limit = Limit {
            bytes_per_s,
            burst_ns: 0,
            grant: THROTTLE_GRANT_MAX.min((burst / 4).max(1) as usize),
            // Times are shifted by `burst_ns`, so that a bucket that is full at `start` needs no
            // negative time.
            epoch: start,
            spent_until_ns: AtomicU64::new(0),
        };
        limit.burst_ns = limit.ns(burst);
        limit
    }

    fn take(&self, want: usize, left: usize, now: Instant) -> Result<usize, Duration> {
        let now_ns = now.saturating_duration_since(self.epoch).as_nanos() as u64 + self.burst_ns;
        let mut spent = self.spent_until_ns.load(Ordering::Relaxed);
        loop {
            let from = spent.max(now_ns - self.burst_ns);
            let here = self.bytes(now_ns.saturating_sub(from));
            let least = left.min(self.grant);
            if here < least as u64 {
                return Err(Duration::from_nanos((from + self.ns(least as u64)).saturating_sub(now_ns).max(1)));
            }
            let take = (want as u64).min(here);
            let new = from + self.ns(take);
            match self.spent_until_ns.compare_exchange_weak(spent, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(take as usize),
                Err(other) => spent = other,
            }
        }
    }

    /// The time in which `bytes` flow, rounded up.
    fn ns(&self, bytes: u64) -> u64 {
        (bytes as u128 * 1_000_000_000).div_ceil(self.bytes_per_s as u128) as u64
    }

    fn bytes(&self, ns: u64) -> u64 {
        (ns as u128 * self.bytes_per_s as u128 / 1_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws `want` at a time for five virtual seconds, waiting exactly as told.
    fn bytes_in_5_s(rate: u64, want: usize) -> u64 {
        let start = Instant::now();
        let throttle = Throttle::since(Some(rate), start);
        let (mut now, mut sum) = (start, 0);
        while now < start + Duration::from_secs(5) {
            match throttle.take(want, want, now) {
                Ok(n) => {
                    assert!(n >= 1 && n <= want);
                    sum += n as u64;
                }
                Err(wait) => now += wait,
            }
        }
        sum
    }

    #[test]
    fn rates_hold_over_five_seconds() {
        for rate in [1_000, 50_000, 1_000_000, 100_000_000, 1_000_000_000, 10_000_000_000] {
            for want in [1_000, 16 * 1024, 128 * 1024] {
                let sum = bytes_in_5_s(rate, want) as f64;
                let error = sum / (5 * rate) as f64 - 1.0;
                assert!(error.abs() < 0.05, "rate {rate}, want {want}: off by {error}");
            }
        }
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(1_000_000), start);
        let later = start + Duration::from_secs(3600);
        let first = throttle.take(usize::MAX, usize::MAX, later).unwrap();
        assert!((50_000..=100_000).contains(&first), "{first}");
        assert!(throttle.take(100_000, 100_000, later).is_err());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(1_000_000), start);
        let all = throttle.take(usize::MAX, usize::MAX, start).unwrap();
        assert!(throttle.take(20_000, 20_000, start).is_err());
        throttle.put_back(all);
        assert_eq!(throttle.take(all, all, start), Ok(all));
    }

    #[test]
    fn the_smallest_rates_move_at_all() {
        assert!((5..=7).contains(&bytes_in_5_s(1, 100)));
        assert!((5..=7).contains(&bytes_in_5_s(0, 100)));
    }

    #[test]
    fn no_limit_gives_everything() {
        let throttle = Throttle::new(None);
        assert_eq!(throttle.take(usize::MAX, usize::MAX, Instant::now()), Ok(usize::MAX));
        throttle.put_back(7);
        assert!(!throttle.is_limited());
    }

    #[test]
    fn whoever_takes_little_at_a_time_does_not_starve_the_others() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(10_000_000), start);
        let mut takers = [(16 * 1024, start, 0), (128 * 1024, start, 0)];
        loop {
            // Of those that ask at the same time, to a microsecond, whoever got less comes first,
            // as with sessions.
            let soon = takers.iter().map(|t| t.1).min().unwrap() + Duration::from_micros(1);
            let (want, at, got) = takers.iter_mut().filter(|t| t.1 <= soon).min_by_key(|t| t.2).unwrap();
            if *at > start + Duration::from_secs(5) {
                break;
            }
            match throttle.take(*want, usize::MAX, *at) {
                Ok(n) => *got += n,
                Err(wait) => *at += wait,
            }
        }
        let [little, much] = takers.map(|t| t.2);
        assert!(much >= little && little > 0, "{little} and {much} bytes");
    }

    #[test]
    fn many_threads_share_one_rate() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(10_000_000), start);
        let end = start + Duration::from_secs(5);
        let sum: u64 = std::thread::scope(|s| {
            let draw = || {
                let (mut now, mut sum) = (start, 0);
                while now < end {
                    match throttle.take(16 * 1024, 16 * 1024, now) {
                        Ok(n) => sum += n as u64,
                        Err(wait) => now += wait,
                    }
                }
                sum
            };
            let threads: Vec<_> = (0..4).map(|_| s.spawn(draw)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!((47_500_000..=52_500_000).contains(&sum), "{sum}");
    }
}
