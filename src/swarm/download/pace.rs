//! Whether an answer comes fast enough.

use std::time::{Duration, Instant};

use crate::swarm::download::limits::{LAYER_RATE_MIN, LAYER_TIME};

/// How fast the answer comes that a connection reads.
///
/// A peer that sends a byte from time to time is not silent, yet holds up whatever it was asked
/// for, and takes the place of a peer that gives. So an answer also has a least rate. Each failure
/// of the peer since its last success doubles the time: where all peers are slow, answers come in
/// the end.
#[derive(Debug, Clone)]
pub struct AnswerPace {
    /// Factor of all times.
    leniency: u32,
    /// Begin of the answer.
    since: Instant,
}

impl AnswerPace {
    /// The pace of a connection to a peer with that number of `failures`.
    pub fn new(failures: u32, now: Instant) -> Self {
        AnswerPace { leniency: 1 << failures.min(LENIENCY_STEPS_MAX), since: now }
    }

    /// An answer begins.
    pub fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether the answer is part of a layer, of `len` bytes, that should be there.
    pub fn is_layer_late(&self, len: u32, now: Instant) -> bool {
        let time = LAYER_TIME + Duration::from_secs_f64(f64::from(len) / LAYER_RATE_MIN as f64);
        now.saturating_duration_since(self.since) >= time * self.leniency
    }
}

/// Most failures that make a connection more patient.
const LENIENCY_STEPS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_layer_has_a_deadline_that_failures_prolong() {
        let now = Instant::now();
        for (failures, factor) in [(0, 1), (1, 2), (3, 8), (40, 32)] {
            let mut pace = AnswerPace::new(failures, now - ms(5000));
            pace.begin(now);
            let time = ms(2250) * factor;
            assert!(!pace.is_layer_late(250_000, now + time - ms(1)), "{failures}");
            assert!(pace.is_layer_late(250_000, now + time), "{failures}");
        }
    }
}
