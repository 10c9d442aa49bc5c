//! How much may wait in a socket of the server before it is on the wire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::connection_slots::Account;
use crate::server::limits::{
    UNSENT_FAR, UNSENT_FAR_LEN_MAX, UNSENT_FAR_PARTS, UNSENT_FAR_SUM_MAX, UNSENT_FIRST_LEN, UNSENT_LEN_MAX, UNSENT_SPAN,
};
use crate::sync::lock;

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
/// [`UNSENT_FAR_SUM_MAX`] of it, which [`UnsentSum`] shares out.
#[derive(Debug)]
pub(crate) struct UnsentBound {
    len: usize,
    /// What it has beyond [`UNSENT_LEN_MAX`].
    room: Option<Box<UnsentRoom>>,
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
///
/// An account gets no more than one of [`UNSENT_FAR_PARTS`] parts of what then stays free. So whoever takes all that
/// it can leaves three quarters of what it found, and hosts without number are needed to leave nothing.
#[derive(Debug, Default)]
pub(crate) struct UnsentSum(Mutex<UnsentShares>);

#[derive(Debug, Default)]
struct UnsentShares {
    len: usize,
    by_account: HashMap<Account, usize>,
}

/// The part of a session in [`UnsentSum`], given back when it is dropped.
#[derive(Debug)]
struct UnsentRoom {
    sum: Arc<UnsentSum>,
    account: Account,
    len: usize,
}

impl UnsentRoom {
    /// Takes `len` in place of what it had; false if that is too much.
    fn change(&mut self, len: usize) -> bool {
        let mut all = lock(&self.sum.0);
        let of_account = all.by_account.get(&self.account).copied().unwrap_or(0);
        let (sum, own) = (all.len - self.len + len, of_account - self.len + len);
        if len > self.len && sum + own * UNSENT_FAR_PARTS > UNSENT_FAR_SUM_MAX {
            return false;
        }
        all.len = sum;
        if own > 0 {
            all.by_account.insert(self.account, own);
        } else {
            all.by_account.remove(&self.account);
        }
        self.len = len;
        true
    }
}

impl Drop for UnsentRoom {
    fn drop(&mut self) {
        self.change(0);
    }
}

impl UnsentBound {
    /// Of a session that begins `now`, for [`UNSENT_FIRST_LEN`].
    pub(crate) fn new(now: Instant) -> Self {
        UnsentBound { len: UNSENT_FIRST_LEN, room: None, round_trip: None, since: now, last: now, sent: 0 }
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

    /// The socket took `bytes` of a session of `account`. The bound if it changes.
    pub(crate) fn sent(&mut self, bytes: usize, account: Account, sum: &Arc<UnsentSum>, now: Instant) -> Option<usize> {
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
        let mut len = (in_round_trip as usize).clamp(UNSENT_LEN_MAX, UNSENT_FAR_LEN_MAX).next_power_of_two();
        if len == UNSENT_LEN_MAX {
            self.room = None;
        } else {
            let new = || Box::new(UnsentRoom { sum: sum.clone(), account: account.of_host(), len: 0 });
            let room = self.room.get_or_insert_with(new);
            // What it has it may keep, so this ends.
            while !room.change(len - UNSENT_LEN_MAX) {
                len /= 2;
            }
        }
        (std::mem::replace(&mut self.len, len) != len).then_some(len)
    }
}

/// The shortest round trips that a repair may take.
const REPAIR_ROUND_TRIPS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{KIB, MIB};

    const MS: Duration = Duration::from_millis(1);

    fn account(n: u8) -> Account {
        Account::Addr([10, 0, 0, n].into())
    }

    /// A session at the end of a path with that `round_trip`, of a peer that has taken much.
    fn session(round_trip: Duration, now: Instant) -> UnsentBound {
        let mut unsent = UnsentBound::new(now);
        unsent.answered(now + round_trip);
        let sent = unsent.sent(MIB, account(1), &Arc::default(), now + 9 * MS);
        assert_eq!(sent, None, "a peer that has not taken much");
        assert_eq!(unsent.takes_much(now), Some(UNSENT_LEN_MAX));
        assert_eq!(unsent.takes_much(now), None);
        unsent
    }

    fn taken(sum: &UnsentSum) -> usize {
        let shares = sum.0.lock().unwrap();
        assert_eq!(shares.len, shares.by_account.values().sum::<usize>());
        shares.len
    }

    /// The last bound of a peer that takes `rate` bytes a second for some seconds.
    fn bound(round_trip: Duration, rate: usize) -> usize {
        let (mut now, sum) = (Instant::now(), Arc::default());
        let (mut unsent, mut bound) = (session(round_trip, now), UNSENT_LEN_MAX);
        for _ in 0..500 {
            now += 10 * MS;
            bound = unsent.sent(rate / 100, account(1), &sum, now).unwrap_or(bound);
        }
        assert_eq!(taken(&sum), bound - UNSENT_LEN_MAX);
        drop(unsent);
        assert_eq!(taken(&sum), 0);
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
        let (mut now, sum) = (Instant::now(), Arc::default());
        let mut unsent = session(100 * MS, now);
        let mut takes = |bytes: usize, gap: Duration, times: u32| {
            let takes = |_| {
                now += gap;
                unsent.sent(bytes, account(1), &sum, now)
            };
            let last = (0..times).filter_map(takes).last();
            (last, taken(&sum))
        };
        assert_eq!(takes(800 * KIB, 100 * MS, 5), (Some(MIB), MIB - UNSENT_LEN_MAX));
        assert_eq!(takes(800 * KIB, 5000 * MS, 1).0, None);
        assert_eq!(takes(800 * KIB, 100 * MS, 5).0, None, "as before the pause");
        assert_eq!(takes(400 * KIB, 100 * MS, 5), (Some(512 * KIB), 512 * KIB - UNSENT_LEN_MAX));
        assert_eq!(takes(20 * KIB, 100 * MS, 5), (Some(UNSENT_LEN_MAX), 0));
    }

    /// The socket took nothing for a quarter of a second again and again, as the start-up of BBR lost packets; each time the
    /// measurement began anew, the bound stayed, and the start-up did not end for want of what could be sent.
    #[test]
    fn while_losses_are_repaired_a_peer_does_not_pause() {
        for round_trip in [40 * MS, 100 * MS, 200 * MS] {
            let (mut now, sum) = (Instant::now(), Arc::default());
            let (mut unsent, mut bound) = (session(round_trip, now), UNSENT_LEN_MAX);
            for burst in 0..200 {
                now += if burst % 10 == 0 { round_trip * 5 / 2 } else { 10 * MS };
                bound = unsent.sent(MIB, account(1), &sum, now).unwrap_or(bound);
            }
            assert!(bound > UNSENT_LEN_MAX, "{round_trip:?}");
        }
    }

    /// A stranger chooses how late it answers and how much it takes before it takes nothing. Cause: the bound was one
    /// for all. Effect: 32 sessions of one host had all of it, and no far peer had more than a near one. Mend: the bound
    /// of an account is part of what is free.
    #[test]
    fn all_sessions_together_have_a_bound_and_nobody_takes_all() {
        let (begin, sum) = (Instant::now(), Arc::default());
        let grows = |account| {
            let mut unsent = session(500 * MS, begin);
            let steps = (1..=5).filter_map(|n| unsent.sent(MIB, account, &sum, begin + 100 * MS * n));
            (steps.last().unwrap_or(UNSENT_LEN_MAX), unsent)
        };
        let mut all: Vec<_> = (0..100).map(|_| grows(account(1))).collect();
        let full = all.iter().filter(|(len, _)| *len == UNSENT_FAR_LEN_MAX).count();
        assert_eq!(full, UNSENT_FAR_SUM_MAX / (1 + UNSENT_FAR_PARTS) / (UNSENT_FAR_LEN_MAX - UNSENT_LEN_MAX));
        assert!(taken(&sum) <= UNSENT_FAR_SUM_MAX / (1 + UNSENT_FAR_PARTS));
        // What is left over is given in smaller parts.
        assert!(all.iter().any(|(len, _)| (UNSENT_LEN_MAX + 1..UNSENT_FAR_LEN_MAX).contains(len)));

        assert_eq!(grows(account(2)).0, UNSENT_FAR_LEN_MAX, "another host");
        // A host has all addresses of its network in IPv6.
        let of_v6 = |n: u16| Account::Addr([0xfd00, 0, 0, 1, 0, 0, 0, n].into());
        all.extend((0..100).map(|n| grows(of_v6(n))));
        assert_eq!(grows(account(3)).0, UNSENT_FAR_LEN_MAX);

        // Many hosts have no more than all of it.
        all.extend((4..100).flat_map(|n| [account(n); 9]).map(grows));
        assert!(taken(&sum) <= UNSENT_FAR_SUM_MAX);
        drop(all);
        assert_eq!(taken(&sum), 0);
        assert_eq!(grows(account(1)).0, UNSENT_FAR_LEN_MAX);
    }
}
