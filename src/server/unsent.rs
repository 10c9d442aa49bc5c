//! How much may wait in a socket of the server before it is on the wire.

use std::time::{Duration, Instant};

use crate::server::limits::{UNSENT_FAR, UNSENT_FAR_LEN_MAX, UNSENT_FIRST_LEN, UNSENT_LEN_MAX, UNSENT_SPAN};

/// The bound of one session (`TCP_NOTSENT_LOWAT`), which follows what the peer takes.
///
/// What waits in a socket can be neither reordered nor shared fairly, so on a short path it is little.
/// On a long path little is too little. Linux says that a socket can be written once a third of its
/// buffer is free; with next to nothing unsent, no more than two thirds of it travel. At most that is
/// 2.8 MiB, and BBR begins with 2.9 times bandwidth times delay, 3.5 MiB at 100 Mbit/s and 100 ms: it
/// waits for the application, for that reason stays in its start-up, and overruns the narrow place
/// again and again. So on a long path the bound is what the peer takes in one round trip.
#[derive(Debug)]
pub(crate) struct UnsentBound {
    len: usize,
    /// How long the peer took to answer the handshake; zero while that is unknown.
    round_trip: Duration,
    /// Begin of the present measurement.
    since: Instant,
    /// Bytes sent since then.
    sent: usize,
}

impl UnsentBound {
    /// Of a session that begins `now`, for [`UNSENT_FIRST_LEN`].
    pub(crate) fn new(now: Instant) -> Self {
        UnsentBound { len: UNSENT_FIRST_LEN, round_trip: Duration::ZERO, since: now, sent: 0 }
    }

    /// The handshake took that long, which is about one round trip.
    pub(crate) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip.min(UNSENT_SPAN);
    }

    /// The peer took an answer of full length at once. The bound if it changes.
    pub(crate) fn takes_much(&mut self, now: Instant) -> Option<usize> {
        if self.len >= UNSENT_LEN_MAX {
            return None;
        }
        (self.len, self.since, self.sent) = (UNSENT_LEN_MAX, now, 0);
        Some(self.len)
    }

    /// The socket took `bytes`. The bound if it changes.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        if self.round_trip < UNSENT_FAR || self.len < UNSENT_LEN_MAX {
            return None;
        }
        self.sent += bytes;
        let span = now.saturating_duration_since(self.since);
        if span < UNSENT_SPAN {
            return None;
        }
        let in_round_trip = self.sent as f64 * self.round_trip.as_secs_f64() / span.as_secs_f64();
        // In steps of two, so that it seldom changes.
        let len = (in_round_trip as usize).clamp(UNSENT_LEN_MAX, UNSENT_FAR_LEN_MAX).next_power_of_two();
        (self.since, self.sent) = (now, 0);
        (std::mem::replace(&mut self.len, len) != len).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{KIB, MIB};

    const MS: Duration = Duration::from_millis(1);

    /// The last bound of a peer that takes `rate` bytes a second for some seconds, at the end of such a path.
    fn bound(round_trip: Duration, rate: usize) -> usize {
        let mut now = Instant::now();
        let mut unsent = UnsentBound::new(now);
        unsent.set_round_trip(round_trip);
        assert_eq!(unsent.sent(MIB, now + 9 * MS), None, "a peer that has not taken much");
        assert_eq!(unsent.takes_much(now), Some(UNSENT_LEN_MAX));
        assert_eq!(unsent.takes_much(now), None);
        let mut bound = UNSENT_LEN_MAX;
        for _ in 0..500 {
            now += 10 * MS;
            bound = unsent.sent(rate / 100, now).unwrap_or(bound);
        }
        bound
    }

    #[test]
    fn what_a_peer_takes_in_a_round_trip_may_wait_on_a_long_path_only() {
        // 100 Mbit/s at 100 and 200 ms, 1 Gbit/s, a local network, and a share of a slow link.
        assert_eq!(bound(100 * MS, 12_500_000), 2 * MIB);
        assert_eq!(bound(50 * MS, 12_500_000), MIB);
        assert_eq!(bound(200 * MS, 125_000_000), UNSENT_FAR_LEN_MAX);
        assert_eq!(bound(MS, 1_000_000_000), UNSENT_LEN_MAX);
        assert_eq!(bound(50 * MS, 800_000), UNSENT_LEN_MAX);
        assert_eq!(bound(Duration::ZERO, 12_500_000), UNSENT_LEN_MAX);
    }

    #[test]
    fn a_peer_that_slows_down_has_less_waiting_soon() {
        let (begin, mut now) = (Instant::now(), Instant::now());
        let mut unsent = UnsentBound::new(begin);
        unsent.set_round_trip(100 * MS);
        unsent.takes_much(begin);
        now += UNSENT_SPAN;
        assert_eq!(unsent.sent(4 * MIB, now), Some(MIB));
        now += UNSENT_SPAN;
        assert_eq!(unsent.sent(100 * KIB, now), Some(UNSENT_LEN_MAX));
    }
}
