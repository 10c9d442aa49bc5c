//! Whether an answer comes fast enough.

use std::time::{Duration, Instant};

use crate::swarm::download::limits::{
    CHUNK_RATE_MIN, CHUNK_RATE_SPAN, CHUNK_RATE_SPAN_FULL, LAYER_RATE_MIN, LAYER_TIME, SURPLUS_GRACE,
};

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
    /// Begin of the answer; of a chunk, of the present measurement.
    since: Instant,
    /// Bytes of a chunk that have come since then.
    came: u64,
    /// Since when the connection is surplus.
    surplus_since: Option<Instant>,
}

impl AnswerPace {
    /// The pace of a connection to a peer with that number of `failures`.
    pub fn new(failures: u32, now: Instant) -> Self {
        AnswerPace { leniency: 1 << failures.min(LENIENCY_STEPS_MAX), since: now, came: 0, surplus_since: None }
    }

    /// An answer begins.
    pub fn begin(&mut self, now: Instant) {
        (self.since, self.came) = (now, 0);
    }

    /// `n` more bytes of a chunk came. True when they come too slowly over some time, which is
    /// shorter while `others_wait` for a connection.
    pub fn is_chunk_slow(&mut self, n: u64, others_wait: bool, now: Instant) -> bool {
        self.came += n;
        let elapsed = now.saturating_duration_since(self.since);
        let span = if others_wait { CHUNK_RATE_SPAN_FULL } else { CHUNK_RATE_SPAN };
        if elapsed < span * self.leniency {
            return false;
        }
        let is_slow = (self.came as f64) < CHUNK_RATE_MIN as f64 * elapsed.as_secs_f64();
        self.begin(now);
        is_slow
    }

    /// Whether a connection that is `surplus` was left enough time for its last answers.
    pub fn overstays(&mut self, surplus: bool, now: Instant) -> bool {
        if !surplus {
            return false;
        }
        let since = *self.surplus_since.get_or_insert(now);
        now.saturating_duration_since(since) >= SURPLUS_GRACE
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

    /// When a connection that brings `n` bytes every `every` is found to be slow.
    fn slow_after(failures: u32, n: u64, every: Duration, others_wait: bool) -> Option<Duration> {
        let begin = Instant::now();
        let mut pace = AnswerPace::new(failures, begin);
        pace.begin(begin);
        (1..2000).map(|i| every * i).find(|&at| pace.is_chunk_slow(n, others_wait, begin + at))
    }

    #[test]
    fn a_dripped_chunk_is_slow_and_a_slow_link_is_not() {
        assert_eq!(slow_after(0, 1, ms(1000), false), Some(CHUNK_RATE_SPAN));
        assert_eq!(slow_after(0, 1, ms(1000), true), Some(CHUNK_RATE_SPAN_FULL));
        assert_eq!(slow_after(2, 1, ms(1000), false), Some(CHUNK_RATE_SPAN * 4), "a failure makes patient");
        // 5 Mbit/s, 1/100 of a gigabit, and 5 Mbit/s that 30 connections share.
        for (n, every) in [(625, 1), (12_500, 10), (1400, 67)] {
            for others_wait in [false, true] {
                assert_eq!(slow_after(0, n, ms(every), others_wait), None, "{n} {every}");
            }
        }
        // Bytes that came at the begin do not excuse what comes after them.
        let (begin, mut pace) = (Instant::now(), AnswerPace::new(0, Instant::now()));
        pace.begin(begin);
        assert!(!pace.is_chunk_slow(1 << 20, false, begin + CHUNK_RATE_SPAN));
        assert!(pace.is_chunk_slow(1, false, begin + CHUNK_RATE_SPAN * 2));
    }

    #[test]
    fn a_surplus_connection_has_a_grace_time() {
        let now = Instant::now();
        let mut pace = AnswerPace::new(5, now);
        assert!(!pace.overstays(false, now + SURPLUS_GRACE * 9));
        let now = now + SURPLUS_GRACE * 9;
        assert!(!pace.overstays(true, now) && !pace.overstays(true, now + SURPLUS_GRACE - ms(1)));
        assert!(pace.overstays(true, now + SURPLUS_GRACE));
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
