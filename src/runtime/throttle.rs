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
/// the limit by 2 % at most. The rate may change at any time. A caller that waits by then asks again
/// within a second, since no wait is longer than the time of one byte or of a quarter of the bucket.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes a second; [`UNLIMITED`] for no limit.
    rate: AtomicU64,
    epoch: Instant,
    /// The time in ns since `epoch`, [`SHIFT_NS`] later, up to which all tokens are spent. The
    /// bucket is full when it lies the time of a burst back.
    spent_until_ns: AtomicU64,
}

/// A rate, and what follows from it.
#[derive(Debug, Clone, Copy)]
struct Flow {
    bytes_per_s: u64,
    burst_ns: u64,
    /// Fewest bytes of a grant, unless fewer are left to send.
    grant: usize,
}

impl Throttle {
    /// At most `bytes_per_s` (0 counts as 1); `None` is no limit and costs nothing.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self::since(bytes_per_s, Instant::now())
    }

    fn since(bytes_per_s: Option<u64>, epoch: Instant) -> Self {
        Throttle { rate: AtomicU64::new(coded(bytes_per_s)), epoch, spent_until_ns: AtomicU64::new(0) }
    }

    /// Changes the rate; the calls that follow go by it.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        self.rate.store(coded(bytes_per_s), Ordering::Relaxed);
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
        match self.flow() {
            Some(flow) if want > 0 => self.take_of(&flow, want, left.max(want), now),
            _ => Ok(want),
        }
    }

    /// Gives back what was taken but not used.
    pub fn put_back(&self, unused: usize) {
        if let (Some(flow), 1..) = (self.flow(), unused) {
            let ns = flow.ns(unused as u64);
            let back = |spent: u64| Some(spent.saturating_sub(ns));
            let _ = self.spent_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
    }

    /// The most bytes a second, if there is a limit.
    pub fn limit(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != UNLIMITED)
    }

    fn flow(&self) -> Option<Flow> {
        self.limit().map(Flow::new)
    }

    fn take_of(&self, flow: &Flow, want: usize, left: usize, now: Instant) -> Result<usize, Duration> {
        let now_ns = now.saturating_duration_since(self.epoch).as_nanos() as u64 + SHIFT_NS;
        let mut spent = self.spent_until_ns.load(Ordering::Relaxed);
        loop {
            let from = spent.max(now_ns - flow.burst_ns);
            let here = flow.bytes(now_ns.saturating_sub(from));
            let least = left.min(flow.grant);
            if here < least as u64 {
                return Err(Duration::from_nanos((from + flow.ns(least as u64)).saturating_sub(now_ns).max(1)));
            }
            let take = (want as u64).min(here);
            let new = from + flow.ns(take);
            match self.spent_until_ns.compare_exchange_weak(spent, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(take as usize),
                Err(other) => spent = other,
            }
        }
    }
}

impl Flow {
    fn new(bytes_per_s: u64) -> Self {
        let flow = |time: Duration| (bytes_per_s as u128 * time.as_nanos() / 1_000_000_000) as u64;
        let burst = flow(THROTTLE_BURST).max(flow(THROTTLE_BURST_SMALL).min(64 * KIB as u64)).max(1);
        let grant = THROTTLE_GRANT_MAX.min((burst / 4).max(1) as usize);
        let mut flow = Flow { bytes_per_s, burst_ns: 0, grant };
        flow.burst_ns = flow.ns(burst);
        flow
    }

    /// The time in which `bytes` flow, rounded up.
    fn ns(&self, bytes: u64) -> u64 {
        (bytes as u128 * 1_000_000_000).div_ceil(self.bytes_per_s as u128) as u64
    }

    fn bytes(&self, ns: u64) -> u64 {
        (ns as u128 * self.bytes_per_s as u128 / 1_000_000_000) as u64
    }
}

/// A limit as it is kept.
fn coded(bytes_per_s: Option<u64>) -> u64 {
    bytes_per_s.map_or(UNLIMITED, |rate| rate.clamp(1, UNLIMITED - 1))
}

const UNLIMITED: u64 = u64::MAX;
/// The longest burst: that of 1 byte a second. Times are shifted by it, so that a bucket that is
/// full at the epoch needs no negative time.
const SHIFT_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws `want` at a time for five virtual seconds, with exactly the returned waits.
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
    fn a_new_rate_counts_for_the_next_call_and_leaves_no_debt() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(1), start);
        assert_eq!(throttle.take(10, 10, start), Ok(1));
        let wait = throttle.take(10, 10, start).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "the longest wait of all: {wait:?}");
        throttle.set(Some(1_000_000));
        let soon = start + Duration::from_millis(100);
        assert!(throttle.take(usize::MAX, usize::MAX, soon).unwrap_or_default() <= 100_000);
        throttle.set(None);
        assert_eq!(throttle.take(usize::MAX, usize::MAX, soon), Ok(usize::MAX));
        throttle.set(Some(1_000_000));
        let later = soon + Duration::from_secs(1);
        let first = throttle.take(usize::MAX, usize::MAX, later).unwrap();
        assert!((50_000..=100_000).contains(&first), "no time is saved up while there is no limit: {first}");
    }

    #[test]
    fn no_limit_gives_everything() {
        let throttle = Throttle::new(None);
        assert_eq!(throttle.take(usize::MAX, usize::MAX, Instant::now()), Ok(usize::MAX));
        throttle.put_back(7);
        assert_eq!(throttle.limit(), None);
    }

    #[test]
    fn whoever_takes_little_at_a_time_does_not_starve_the_others() {
        let start = Instant::now();
        let throttle = Throttle::since(Some(10_000_000), start);
        let mut takers = [(16 * 1024, start, 0), (128 * 1024, start, 0)];
        loop {
            // Of takers that ask at the same time, to a microsecond, the one that got less is first,
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
