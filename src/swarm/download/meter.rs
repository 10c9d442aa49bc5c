//! How fast bytes come.

use std::time::{Duration, Instant};

/// How fast bytes come: an exponentially weighted mean of about half a second, or of a few round
/// trips where these are longer.
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

    /// `bytes` more came. Returns the rate of the last span alone, once that is over: a span is a
    /// round trip, or `METER_SPAN` if that is longer, since a sender in its slow start sends one
    /// burst each round trip.
    pub fn add(&mut self, bytes: u64, round_trip: Duration, now: Instant) -> Option<f64> {
        self.bytes += bytes;
        let span = now.saturating_duration_since(self.begun);
        if span < METER_SPAN.max(round_trip) {
            return None;
        }
        let memory = METER_MEMORY.max(round_trip * METER_MEMORY_ROUND_TRIPS);
        let fresh = self.bytes as f64 / span.as_secs_f64();
        let weight = (span.as_secs_f64() / memory.as_secs_f64()).min(1.0);
        self.rate = Some(self.rate.map_or(fresh, |old| old + (fresh - old) * weight));
        self.pause(now);
        Some(fresh)
    }

    /// Nothing was asked until `now`: that time does not count.
    pub fn pause(&mut self, now: Instant) {
        self.begun = now;
        self.bytes = 0;
    }

    /// The mean is known otherwise.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = Some(rate);
    }

    /// Bytes a second; `None` before the first measurement.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// Time over which bytes are added up before they move the mean.
const METER_SPAN: Duration = Duration::from_millis(100);
/// How far the mean looks back.
const METER_MEMORY: Duration = Duration::from_millis(500);
/// The same in round trips.
const METER_MEMORY_ROUND_TRIPS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count() {
        let t = Instant::now();
        let mut m = Meter::new(t);
        m.add(1_000_000, Duration::ZERO, t + Duration::from_millis(100));
        m.pause(t + Duration::from_secs(100));
        m.add(1_000_000, Duration::ZERO, t + Duration::from_millis(100_100));
        let rate = m.rate().unwrap();
        assert!((9e6..11e6).contains(&rate), "{rate}");
    }

    #[test]
    fn bursts_of_a_long_path_are_one_rate() {
        let t = Instant::now();
        let mut m = Meter::new(t);
        for round in 1..20u32 {
            // A megabyte in the last tenth of each round trip.
            let (trip, begin) = (Duration::from_millis(300), t + Duration::from_millis(300) * (round - 1));
            for step in 0..10u32 {
                m.add(100_000, trip, begin + Duration::from_millis(270) + Duration::from_millis(3) * (step + 1));
            }
            let rate = m.rate().unwrap();
            assert!((3.2e6..3.5e6).contains(&rate), "{rate}");
        }
    }
}
