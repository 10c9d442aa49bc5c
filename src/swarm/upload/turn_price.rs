//! What a turn of a session costs.

use std::time::{Duration, Instant};

use crate::limits::TURN_LEN_MAX;
use crate::swarm::upload::limits::{TURN_COST, TURN_TIME_MAX};

/// What a turn costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnCost {
    /// In bytes.
    pub bytes: u64,
    /// Whether what it sent makes up the cost, rather than the time that it took.
    pub sends: bool,
}

/// Prices turns in bytes, so that sessions that send and sessions that compute or wait can be
/// compared.
///
/// A turn costs what it sent, or what a session sends in the time that the turn took, whichever is
/// more: a worker that one session keeps is not there for others. The rate is measured on turns
/// that send much. A second is worth a gigabyte between two fast hosts and a hundred megabytes on a
/// slower link, where a session that computes must not be held back for link time that it does not
/// use.
#[derive(Debug)]
pub struct TurnPrice {
    /// Bytes a second of the turns that sent much.
    rate: f64,
    measured: Instant,
}

impl TurnCost {
    /// A turn in which the session got nothing.
    pub const NOTHING: TurnCost = TurnCost { bytes: 0, sends: false };

    /// A turn that sent `bytes` without delay.
    pub fn of_bytes(bytes: u64) -> Self {
        TurnCost { bytes: TURN_COST + bytes, sends: true }
    }
}

impl TurnPrice {
    /// The price before anything was sent.
    pub fn new(now: Instant) -> Self {
        TurnPrice { rate: RATE_MIN, measured: now }
    }

    /// What a turn costs that sent `sent` bytes and kept its worker for `took`.
    pub fn of_turn(&mut self, sent: u64, took: Duration, now: Instant) -> TurnCost {
        if sent >= SAMPLE {
            let rate = sent as f64 / took.as_secs_f64().max(1e-6);
            let kept = if rate > self.rate { 0.0 } else { KEPT };
            self.rate = (rate + (self.rate - rate) * kept).max(RATE_MIN);
            self.measured = now;
        } else if now.saturating_duration_since(self.measured) >= FORGET {
            self.rate = (self.rate / 2.0).max(RATE_MIN);
            self.measured = now;
        }
        let time = self.of_time(took);
        TurnCost { bytes: TURN_COST + sent.max(time), sends: sent >= TURN_COST.max(time / 2) }
    }

    /// What a session sends in `time`, in bytes.
    pub fn of_time(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.rate) as u64
    }
}

/// Bytes a second that time is worth at least: what a full turn sends in the longest time that it
/// may take.
const RATE_MIN: f64 = TURN_LEN_MAX as f64 / (TURN_TIME_MAX.as_nanos() as f64 / 1e9);
/// Bytes that a turn sends at least if its rate is to be a measure.
const SAMPLE: u64 = TURN_LEN_MAX as u64 / 4;
/// Share of the rate that is kept when a turn had a lower one; a higher one counts at once.
const KEPT: f64 = 0.9;
/// The rate is halved whenever no turn has sent much for this time.
const FORGET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_turn_costs_its_bytes_or_its_time() {
        let now = Instant::now();
        let mut price = TurnPrice::new(now);
        assert_eq!(price.of_turn(0, Duration::ZERO, now), TurnCost { bytes: TURN_COST, sends: false });
        let slow = price.of_turn(SAMPLE, 100 * MS, now);
        assert_eq!(slow, TurnCost { bytes: TURN_COST + price.of_time(100 * MS), sends: false });
        assert_eq!(price.of_turn(SAMPLE, MS, now), TurnCost::of_bytes(SAMPLE));
        let mut unused = TurnPrice::new(now);
        let idle = unused.of_turn(1, TURN_TIME_MAX, now).bytes;
        assert!(idle.abs_diff(TURN_COST + TURN_LEN_MAX as u64) < 10, "{idle}");
    }

    #[test]
    fn time_is_worth_what_is_sent_in_it() {
        let mut now = Instant::now();
        let mut price = TurnPrice::new(now);
        price.of_turn(4 << 20, 4 * MS, now);
        assert!(price.of_time(MS).abs_diff(1 << 20) < 10, "at once");
        for _ in 0..50 {
            price.of_turn(0, 50 * MS, now);
        }
        assert!(price.of_time(MS).abs_diff(1 << 20) < 10, "what sends nothing is no measure");
        for _ in 0..50 {
            price.of_turn(4 << 20, 40 * MS, now);
        }
        assert!(price.of_time(MS).abs_diff((4 << 20) / 40) < 10_000, "a slower link");
        price.of_turn(4 << 20, 4 * MS, now);
        for _ in 0..10 {
            now += FORGET;
            price.of_turn(0, MS, now);
        }
        assert!(price.of_time(MS).abs_diff((RATE_MIN / 1000.0) as u64) < 2, "after a pause it is as at first");
    }
}
