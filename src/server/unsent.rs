//! How much may wait in a socket of the server before it is on the wire.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::server::limits::{
    UNSENT_FAR, UNSENT_FAR_LEN_MAX, UNSENT_FAR_SUM_MAX, UNSENT_FIRST_LEN, UNSENT_LEN_MAX, UNSENT_SPAN,
};

/// The bound of one session (`TCP_NOTSENT_LOWAT`), which follows what the peer takes.
///
/// What waits in a socket can be neither reordered nor shared fairly, so on a short path it is little.
/// On a long path little is too little. Linux says that a socket can be written once a third of its
/// buffer is free; with next to nothing unsent, no more than two thirds of it travel. At most that is
/// 2.8 MiB, and BBR begins with 2.9 times bandwidth times delay, 3.5 MiB at 100 Mbit/s and 100 ms: it
/// waits for the application, for that reason stays in its start-up, and overruns the narrow place
/// again and again. So on a long path the bound is what the peer takes in one round trip.
///
/// How long the path is, the peer says itself, by the time of its answer in the handshake; one that
/// then takes nothing leaves so much in the memory of the kernel. So all sessions together have at most
/// [`UNSENT_FAR_SUM_MAX`] of it.
#[derive(Debug)]
pub(crate) struct UnsentBound {
    len: usize,
    /// `None` before the handshake is over.
    round_trip: Option<Duration>,
    /// Begin of the present measurement.
    since: Instant,
    /// When the socket last took something.
    last: Instant,
    /// Bytes that it took since the begin.
    sent: usize,
}

/// What the sessions of a server may have waiting beyond [`UNSENT_LEN_MAX`] each, in bytes.
#[derive(Debug, Default)]
pub(crate) struct UnsentSum(AtomicUsize);

impl UnsentSum {
    /// Takes `len` in place of what a session `had`; false if that is too much.
    fn exchange(&self, had: usize, len: usize) -> bool {
        let next = |sum: usize| (len <= had || sum - had + len <= UNSENT_FAR_SUM_MAX).then_some(sum - had + len);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl UnsentBound {
    /// Of a session that begins `now`, for [`UNSENT_FIRST_LEN`].
    pub(crate) fn new(now: Instant) -> Self {
        UnsentBound { len: UNSENT_FIRST_LEN, round_trip: None, since: now, last: now, sent: 0 }
    }

    /// The path is known from another measurement.
    pub(crate) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip.min(UNSENT_SPAN));
    }

    /// All that was to be said so far is written: in the handshake the answer follows a round trip later.
    pub(crate) fn flushed(&mut self) {
        if self.round_trip.is_none() {
            self.since = Instant::now();
        }
    }

    /// The peer answered in the handshake.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.set_round_trip(now.saturating_duration_since(self.since));
    }

    /// The peer took an answer of full length at once. The bound if it changes.
    pub(crate) fn takes_much(&mut self, now: Instant) -> Option<usize> {
        if self.len >= UNSENT_LEN_MAX {
            return None;
        }
        (self.len, self.since, self.last, self.sent) = (UNSENT_LEN_MAX, now, now, 0);
        Some(self.len)
    }

    /// The socket took `bytes`. The bound if it changes.
    pub(crate) fn sent(&mut self, bytes: usize, sum: &UnsentSum, now: Instant) -> Option<usize> {
        let round_trip = self.round_trip.filter(|trip| *trip >= UNSENT_FAR)?;
        if self.len < UNSENT_LEN_MAX {
            return None;
        }
        // A pause says nothing of what the peer takes. While lost packets are sent again the socket takes nothing, which is
        // no pause: twice the round trip of a path whose queue is full, and longer when some of them are lost again.
        let pause = UNSENT_SPAN.max(round_trip * REPAIR_ROUND_TRIPS);
        if now.saturating_duration_since(std::mem::replace(&mut self.last, now)) > pause {
            (self.since, self.sent) = (now, 0);
            return None;
        }
        self.sent += bytes;
        let span = now.saturating_duration_since(self.since);
        if span < UNSENT_SPAN {
            return None;
        }
        let in_round_trip = self.sent as f64 * round_trip.as_secs_f64() / span.as_secs_f64();
        (self.since, self.sent) = (now, 0);
        // In steps of two, so that it seldom changes.
        self.change((in_round_trip as usize).clamp(UNSENT_LEN_MAX, UNSENT_FAR_LEN_MAX).next_power_of_two(), sum)
    }

    /// The session is over.
    pub(crate) fn end(&mut self, sum: &UnsentSum) {
        if self.len > UNSENT_LEN_MAX {
            self.change(UNSENT_LEN_MAX, sum);
        }
    }

    fn change(&mut self, len: usize, sum: &UnsentSum) -> Option<usize> {
        if len == self.len || !sum.exchange(self.len - UNSENT_LEN_MAX, len - UNSENT_LEN_MAX) {
            return None;
        }
        self.len = len;
        Some(len)
    }
}

/// The shortest round trips that a repair may take.
const REPAIR_ROUND_TRIPS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{KIB, MIB};

    const MS: Duration = Duration::from_millis(1);

    /// A session at the end of a path with that `round_trip`, of a peer that has taken much.
    fn session(round_trip: Duration, now: Instant) -> UnsentBound {
        let mut unsent = UnsentBound::new(now);
        unsent.answered(now + round_trip);
        assert_eq!(unsent.sent(MIB, &UnsentSum::default(), now + 9 * MS), None, "a peer that has not taken much");
        assert_eq!(unsent.takes_much(now), Some(UNSENT_LEN_MAX));
        assert_eq!(unsent.takes_much(now), None);
        unsent
    }

    /// The last bound of a peer that takes `rate` bytes a second for some seconds.
    fn bound(round_trip: Duration, rate: usize) -> usize {
        let (mut now, sum) = (Instant::now(), UnsentSum::default());
        let (mut unsent, mut bound) = (session(round_trip, now), UNSENT_LEN_MAX);
        for _ in 0..500 {
            now += 10 * MS;
            bound = unsent.sent(rate / 100, &sum, now).unwrap_or(bound);
        }
        unsent.end(&sum);
        assert_eq!(sum.0.into_inner(), 0);
        bound
    }

    #[test]
    fn what_a_peer_takes_in_a_round_trip_may_wait_on_a_long_path_only() {
        // 100 Mbit/s at 100 and 50 ms, 1 Gbit/s, a local network, and a share of a slow link.
        assert_eq!(bound(100 * MS, 12_500_000), 2 * MIB);
        assert_eq!(bound(50 * MS, 12_500_000), MIB);
        assert_eq!(bound(200 * MS, 125_000_000), UNSENT_FAR_LEN_MAX);
        assert_eq!(bound(MS, 1_000_000_000), UNSENT_LEN_MAX);
        assert_eq!(bound(50 * MS, 800_000), UNSENT_LEN_MAX);
        assert_eq!(bound(Duration::ZERO, 12_500_000), UNSENT_LEN_MAX);
    }

    #[test]
    fn a_peer_that_slows_down_has_less_waiting_and_one_that_pauses_has_not() {
        let (mut now, sum) = (Instant::now(), UnsentSum::default());
        let mut unsent = session(100 * MS, now);
        let mut takes = |bytes: usize, gap: Duration, times: u32| {
            let takes = |_| {
                now += gap;
                unsent.sent(bytes, &sum, now)
            };
            (0..times).filter_map(takes).last()
        };
        assert_eq!(takes(800 * KIB, 100 * MS, 5), Some(MIB));
        assert_eq!(takes(800 * KIB, 5000 * MS, 1), None);
        assert_eq!(takes(800 * KIB, 100 * MS, 5), None, "as before the pause");
        assert_eq!(takes(20 * KIB, 100 * MS, 5), Some(UNSENT_LEN_MAX));
    }

    /// The socket took nothing for a quarter of a second again and again, as the start-up of BBR lost packets; each time the
    /// measurement began anew, the bound stayed, and the start-up did not end for want of what could be sent.
    #[test]
    fn while_losses_are_repaired_a_peer_does_not_pause() {
        for round_trip in [40 * MS, 100 * MS, 200 * MS] {
            let (mut now, sum) = (Instant::now(), UnsentSum::default());
            let (mut unsent, mut bound) = (session(round_trip, now), UNSENT_LEN_MAX);
            for burst in 0..200 {
                now += if burst % 10 == 0 { round_trip * 5 / 2 } else { 10 * MS };
                bound = unsent.sent(MIB, &sum, now).unwrap_or(bound);
            }
            assert!(bound > UNSENT_LEN_MAX, "{round_trip:?}");
        }
    }

    /// A stranger chooses how late it answers and how much it takes before it takes nothing.
    #[test]
    fn all_sessions_together_have_a_bound() {
        let (begin, sum) = (Instant::now(), UnsentSum::default());
        let grows = |_| {
            let mut unsent = session(500 * MS, begin);
            let steps = (1..=5).filter_map(|n| unsent.sent(MIB, &sum, begin + 100 * MS * n));
            (steps.last(), unsent)
        };
        let mut all: Vec<_> = (0..100).map(grows).collect();
        let grown = all.iter().filter(|(len, _)| *len == Some(UNSENT_FAR_LEN_MAX)).count();
        assert_eq!(grown, UNSENT_FAR_SUM_MAX / (UNSENT_FAR_LEN_MAX - UNSENT_LEN_MAX));
        assert!(sum.0.load(Ordering::Relaxed) <= UNSENT_FAR_SUM_MAX);
        all.iter_mut().for_each(|(_, unsent)| unsent.end(&sum));
        assert_eq!(grows(0).0, Some(UNSENT_FAR_LEN_MAX));
    }
}
