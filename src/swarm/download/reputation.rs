//! What a download has learned about a peer: whether to ask it again, when, and for how much at once.

use std::time::{Duration, Instant};

use crate::content::Geometry;
use crate::limits::{RETRY_MIN, WINDOW_LEN_MAX, WINDOW_LEN_MIN};
use crate::swarm::download::limits::RETRY_MAX;
use crate::swarm::download::task::{AnyOfTask, ChunkTask, Task};

/// A peer's record in one run: lies and failures.
#[derive(Debug, Clone, Default)]
pub struct Reputation {
    strikes: u32,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Reputation {
    /// It sent something that its own word says is right and is not. It is not asked again in this run.
    pub fn strike(&mut self) {
        self.strikes += 1;
    }

    /// Whether it has lied.
    pub fn is_banned(&self) -> bool {
        self.strikes > 0
    }

    /// A connection failed: returns when to try again, doubling from [`RETRY_MIN`] to [`RETRY_MAX`]. `jitter` in
    /// `0..1` keeps many from trying again together; at most a quarter is taken off.
    pub fn failed(&mut self, now: Instant, jitter: f64) -> Instant {
        let full = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures += 1;
        let at = now + full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
        self.retry_at = Some(at);
        at
    }

    /// It is full and asked to be left alone for `wait`, of which at most [`RETRY_MAX`] is believed.
    pub fn busy(&mut self, now: Instant, wait: Duration) -> Instant {
        let at = now + wait.clamp(RETRY_MIN, RETRY_MAX);
        self.retry_at = Some(at);
        at
    }

    /// It gave something useful: earlier failures are forgotten.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it may be dialed now.
    pub fn may_try(&self, now: Instant) -> bool {
        !self.is_banned() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// When it may be dialed again, if that is in the future of the last failure.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// How fast bytes come: an exponentially weighted mean over about a second.
#[derive(Debug, Clone)]
pub struct Meter {
    begun: Instant,
    bytes: u64,
    rate: Option<f64>,
}

impl Meter {
    /// Nothing came yet.
    pub fn new(now: Instant) -> Self {
        Meter { begun: now, bytes: 0, rate: None }
    }

    /// So many bytes came.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        let span = now.saturating_duration_since(self.begun);
        if span >= METER_SPAN {
            let fresh = self.bytes as f64 / span.as_secs_f64();
            let weight = (span.as_secs_f64() / METER_MEMORY_S).min(1.0);
            self.rate = Some(self.rate.map_or(fresh, |old| old + (fresh - old) * weight));
            self.begun = now;
            self.bytes = 0;
        }
    }

    /// Time passed in which nothing was asked: it does not count.
    pub fn pause(&mut self, now: Instant) {
        self.begun = now;
        self.bytes = 0;
    }

    /// Bytes a second; `None` before there is anything to tell.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// How much to ask for at once on a connection: bandwidth times delay, and a little more.
///
/// Too little leaves the link idle for a round trip; too much queues up behind a slow peer what a quick one could
/// have given long ago.
#[derive(Debug, Clone)]
pub struct Window {
    meter: Meter,
    /// Shortest wait for an answer seen.
    delay: Duration,
    /// Bytes that are asked for at first.
    start: u64,
    /// Whether what was asked for last is small: of such things `start` is asked for at least, always.
    small: bool,
}

impl Window {
    /// A connection that nothing is known of.
    pub fn new(now: Instant) -> Self {
        Window { meter: Meter::new(now), delay: DELAY_UNKNOWN, start: START_SMALL, small: true }
    }

    /// An answer to a request on an otherwise idle connection began so long after it.
    pub fn delay(&mut self, delay: Duration) {
        self.delay = self.delay.min(delay);
    }

    /// So many bytes of answers came.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.meter.add(bytes, now);
    }

    /// The connection had nothing to do.
    pub fn pause(&mut self, now: Instant) {
        self.meter.pause(now);
    }

    /// Bytes on the way below which more is to be asked for: what comes in the time that an answer takes. `None` before
    /// anything is known.
    pub fn target(&self) -> Option<u64> {
        let flying = self.meter.rate()? * (self.delay * 2 + QUEUE_TIME).as_secs_f64();
        Some((flying as u64).clamp(WINDOW_LEN_MIN, WINDOW_LEN_MAX))
    }

    /// `task` is asked for.
    pub fn asked<F>(&mut self, task: &Task<F>) {
        match task {
            Task::Chunk(ChunkTask { id, .. }) | Task::AnyOf(AnyOfTask { id, .. }) => {
                (self.start, self.small) = (START_CHUNKS * Geometry::new(id.len).chunk_len(), false);
            }
            Task::Small(_) => (self.start, self.small) = (START_SMALL, true),
            Task::Layer(_) | Task::Peers { .. } | Task::Have { .. } | Task::Locate(_) => {}
        }
    }

    /// How many of the `in_flight` bytes are more than need to be on the way.
    pub fn excess(&self, in_flight: u64) -> u64 {
        let len = self.target().map_or(self.start, |len| if self.small { len.max(self.start) } else { len });
        in_flight.saturating_sub(len)
    }

    /// Bytes a second on this connection.
    pub fn rate(&self) -> Option<f64> {
        self.meter.rate()
    }
}

/// Time over which bytes are summed up before they move the mean.
const METER_SPAN: Duration = Duration::from_millis(100);
/// How far the mean looks back.
const METER_MEMORY_S: f64 = 0.5;
/// Chunks that are asked for before anything is known of the connection.
const START_CHUNKS: u64 = 2;
/// The same for small things, in bytes; later it is the least, since each of them is a matter of a moment.
const START_SMALL: u64 = 512 << 10;
/// Delay that is assumed before one was seen.
const DELAY_UNKNOWN: Duration = Duration::from_millis(10);
/// Work that lies in front of a peer beyond what the round trip takes, so that it never waits for requests.
const QUEUE_TIME: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let now = Instant::now();
        let mut r = Reputation::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(r.failed(now, 0.0) - now);
        }
        assert_eq!(waits[0], RETRY_MIN);
        assert_eq!(waits[1], RETRY_MIN * 2);
        assert_eq!(*waits.last().unwrap(), RETRY_MAX);
        assert!(!r.may_try(now) && r.may_try(now + RETRY_MAX));
        let jittered = r.failed(now, 1.0) - now;
        assert!(jittered >= RETRY_MAX * 3 / 4 - Duration::from_millis(1) && jittered < RETRY_MAX);
        r.succeeded();
        assert!(r.may_try(now) && r.failures() == 0);
    }

    #[test]
    fn a_liar_stays_banned_and_busy_is_believed_within_bounds() {
        let now = Instant::now();
        let mut r = Reputation::default();
        assert_eq!(r.busy(now, Duration::from_secs(9999)) - now, RETRY_MAX);
        assert_eq!(r.busy(now, Duration::ZERO) - now, RETRY_MIN);
        r.strike();
        r.succeeded();
        assert!(r.is_banned() && !r.may_try(now + Duration::from_secs(9999)));
    }

    #[test]
    fn the_window_follows_bandwidth_and_delay() {
        let begin = Instant::now();
        let mut w = Window::new(begin);
        assert_eq!(w.target(), None);
        w.delay(Duration::from_millis(1));
        let mut now = begin;
        for _ in 0..50 {
            now += Duration::from_millis(100);
            w.add(100 << 20, now);
        }
        assert_eq!(w.target(), Some(16 << 20));
        for _ in 0..200 {
            now += Duration::from_millis(100);
            w.add(1_000_000, now);
        }
        assert!((300_000..350_000).contains(&w.target().unwrap()), "10 MB/s for 32 ms: {:?}", w.target());
        for _ in 0..200 {
            now += Duration::from_millis(100);
            w.add(1000, now);
        }
        assert_eq!(w.target(), Some(32 << 10));
    }

    #[test]
    fn idle_time_does_not_count() {
        let t = Instant::now();
        let mut m = Meter::new(t);
        m.add(1_000_000, t + Duration::from_millis(100));
        m.pause(t + Duration::from_secs(100));
        m.add(1_000_000, t + Duration::from_millis(100_100));
        let rate = m.rate().unwrap();
        assert!((9e6..11e6).contains(&rate), "{rate}");
    }
}
