//! How long a request and its answer travel.

use std::time::{Duration, Instant};

/// The round trip to a peer: the shortest one in a period of time.
///
/// A request that finds nothing before it at the peer, neither chunks that are still to be sent nor
/// a line for upload slots, comes back after the time of the path alone. Each such answer is a
/// measurement; the minimum over the present `PERIOD` and the one before it leaves out what a
/// busy peer or a lost packet added (a windowed minimum, as BBR keeps it for 10 s:
/// draft-cardwell-iccrg-bbr-congestion-control, `RTprop`). A path that became longer is noticed
/// since old periods are forgotten.
///
/// A connection that is kept busy has no such request. It then [`wants`](Self::wants) one: the
/// owner lets the last answer but one come in full and asks something small. That costs at most a
/// round trip, a hundredth of the time. A path that is short beside `IMMATERIAL` is not measured
/// without a reason, as nothing would follow from it.
#[derive(Debug, Clone)]
pub struct RoundTrip {
    /// The shortest one of the present period and of the one before it.
    periods: [Option<Duration>; 2],
    min: Duration,
    /// Begin of the present period.
    since: Instant,
    wants: bool,
    /// What was measured so far may not hold.
    doubted: bool,
}

impl RoundTrip {
    /// The first measurement, of the handshake.
    pub fn new(first: Duration, now: Instant) -> Self {
        let first = first.min(ROUND_TRIP_MAX);
        RoundTrip { periods: [Some(first), None], min: first, since: now, wants: false, doubted: false }
    }

    /// The round trip.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// A request that found nothing before it was answered after `time`.
    pub fn measured(&mut self, time: Duration) {
        let time = time.min(ROUND_TRIP_MAX);
        if std::mem::take(&mut self.doubted) {
            self.periods = [None; 2];
        }
        let [present, ..] = &mut self.periods;
        *present = Some(present.map_or(time, |present| present.min(time)));
        self.wants = false;
        self.find_min();
    }

    /// A request was answered after `time`, which may have been spent in a line: the round trip is
    /// not longer.
    pub fn is_at_most(&mut self, time: Duration) {
        if time < self.min {
            self.measured(time);
        }
    }

    /// The rate fell, for which a longer path may be the reason: the next measurement counts alone.
    pub fn doubt(&mut self) {
        (self.doubted, self.wants) = (true, true);
    }

    /// Begins a new period if the present one is over.
    pub fn tick(&mut self, now: Instant) {
        let period = PERIOD.max(self.min * PERIOD_ROUND_TRIPS);
        if now.saturating_duration_since(self.since) < period {
            return;
        }
        self.since = now;
        self.periods = [None, self.periods[0]];
        self.find_min();
        self.wants |= self.min >= IMMATERIAL;
    }

    /// Without a measurement in all that time, the last minimum stays.
    fn find_min(&mut self) {
        self.min = self.periods.iter().flatten().min().copied().unwrap_or(self.min);
    }

    /// A request is on its way that measures it.
    pub fn asked(&mut self) {
        self.wants = false;
    }

    /// Whether a measurement is due.
    pub fn wants(&self) -> bool {
        self.wants
    }
}

/// Longest round trip that is believed; over a geostationary satellite it is some 600 ms (RFC 2488).
/// A peer that holds answers back says of itself how far away it is, and the window, and the time
/// until its chunks are asked of others, follow from that. On a longer path the window is smaller
/// than the path could take.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// Time after which the round trip is measured again.
const PERIOD: Duration = Duration::from_secs(10);
/// The same in round trips: a measurement costs up to one.
const PERIOD_ROUND_TRIPS: u32 = 100;
/// A round trip below this is not measured again without a reason: it hardly changes the window.
const IMMATERIAL: Duration = Duration::from_millis(15);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peer_cannot_say_that_it_is_farther_away_than_any_path() {
        let t = Instant::now();
        let mut path = RoundTrip::new(3000 * MS, t);
        assert_eq!(path.min(), ROUND_TRIP_MAX);
        path.doubt();
        path.measured(5000 * MS);
        assert_eq!(path.min(), ROUND_TRIP_MAX);
    }

    #[test]
    fn the_shortest_of_two_periods_counts() {
        let t = Instant::now();
        let mut path = RoundTrip::new(100 * MS, t);
        path.measured(130 * MS);
        assert_eq!(path.min(), 100 * MS);
        path.measured(90 * MS);
        assert_eq!(path.min(), 90 * MS);
        path.tick(t + PERIOD - MS);
        assert!(!path.wants());
        // The path becomes longer.
        path.tick(t + PERIOD);
        assert!(path.wants() && path.min() == 90 * MS, "the last known one, until another is measured");
        path.measured(200 * MS);
        assert!(!path.wants() && path.min() == 90 * MS);
        path.tick(t + PERIOD * 2);
        assert_eq!(path.min(), 200 * MS);
        // A single late answer is left out.
        path.measured(800 * MS);
        assert_eq!(path.min(), 200 * MS);
        // A period of a very long path is longer: 100 * 200 ms.
        path.tick(t + PERIOD * 3);
        assert_eq!(path.min(), 200 * MS);
        path.tick(t + PERIOD * 4);
        path.asked();
        assert_eq!((path.min(), path.wants()), (800 * MS, false), "the only one that is known");
        // Where nothing is measured, the last one stays.
        (6..99).for_each(|n| path.tick(t + PERIOD * 8 * n));
        assert_eq!(path.min(), 800 * MS);
    }

    #[test]
    fn a_line_bounds_the_round_trip_from_above_only() {
        let mut path = RoundTrip::new(10 * MS, Instant::now());
        path.is_at_most(700 * MS);
        assert_eq!(path.min(), 10 * MS);
        path.is_at_most(2 * MS);
        assert_eq!(path.min(), 2 * MS);
    }

    #[test]
    fn a_doubted_path_is_measured_at_once_and_a_near_one_only_then() {
        let t = Instant::now();
        let mut path = RoundTrip::new(MS, t);
        path.tick(t + PERIOD * 2);
        assert!(!path.wants());
        path.doubt();
        assert!(path.wants() && path.min() == MS);
        path.measured(120 * MS);
        assert_eq!((path.min(), path.wants()), (120 * MS, false));
    }
}
