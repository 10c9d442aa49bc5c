//! How much to ask for at once on a connection.

use std::time::{Duration, Instant};

use crate::content::Geometry;
use crate::limits::{WINDOW_LEN_MAX, WINDOW_LEN_MIN};
use crate::swarm::download::task::{AnyOfTask, ChunkTask, Task};

/// How fast bytes come: an exponentially weighted mean of about half a second.
#[derive(Debug, Clone)]
pub struct Meter {
    begun: Instant,
    bytes: u64,
    rate: Option<f64>,
}

impl Meter {
    /// Nothing has come.
    pub fn new(now: Instant) -> Self {
        Meter { begun: now, bytes: 0, rate: None }
    }

    /// `bytes` more came.
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

    /// Nothing was asked until `now`: that time does not count.
    pub fn pause(&mut self, now: Instant) {
        self.begun = now;
        self.bytes = 0;
    }

    /// Bytes a second; `None` before the first measurement.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// How many bytes to keep in flight on a connection: the bandwidth-delay product, and a little
/// more.
///
/// A window that is too small leaves the link idle for a round trip. One that is too large queues
/// chunks behind a slow peer that a quick one could have delivered. The delay is the shortest time
/// from a request on an idle connection to its answer, the bandwidth a mean rate of arrival;
/// `QUEUE_TIME` is added to twice the delay, so that the peer always has a request at hand.
#[derive(Debug, Clone)]
pub struct Window {
    meter: Meter,
    /// Shortest time to an answer that was seen.
    delay: Duration,
    /// Bytes that are asked for before a rate is known.
    start: u64,
    /// Whether the last task was a one-chunk file: then the window never falls below `start`.
    small: bool,
}

impl Window {
    /// A connection without any measurement.
    pub fn new(now: Instant) -> Self {
        Window { meter: Meter::new(now), delay: DELAY_UNKNOWN, start: START_SMALL, small: true }
    }

    /// An answer began `delay` after its request, on a connection that was idle otherwise.
    pub fn delay(&mut self, delay: Duration) {
        self.delay = self.delay.min(delay);
    }

    /// `bytes` of chunks came.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.meter.add(bytes, now);
    }

    /// The connection had nothing to do.
    pub fn pause(&mut self, now: Instant) {
        self.meter.pause(now);
    }

    /// The window in bytes: less in flight is a reason to ask for more. `None` before the first
    /// measurement.
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

    /// How far the `in_flight` bytes exceed the window.
    pub fn excess(&self, in_flight: u64) -> u64 {
        let len = self.target().map_or(self.start, |len| if self.small { len.max(self.start) } else { len });
        in_flight.saturating_sub(len)
    }

    /// Bytes a second on this connection.
    pub fn rate(&self) -> Option<f64> {
        self.meter.rate()
    }
}

/// Time over which bytes are added up before they move the mean.
const METER_SPAN: Duration = Duration::from_millis(100);
/// How far the mean looks back, in seconds.
const METER_MEMORY_S: f64 = 0.5;
/// Chunks that are asked for before a rate is known.
const START_CHUNKS: u64 = 2;
/// The same for one-chunk files, in bytes; later it is the least, since each of them comes within
/// moments.
const START_SMALL: u64 = 512 << 10;
/// Delay that is assumed before the first measurement.
const DELAY_UNKNOWN: Duration = Duration::from_millis(10);
/// Time for which a peer has requests at hand beyond two round trips.
const QUEUE_TIME: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests {
    use super::*;

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
