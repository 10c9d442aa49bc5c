//! Chunks that are asked of a second peer: the end game, and stealing from peers that are slow or
//! silent.
//!
//! A chunk may be asked of two peers at once. The second request costs its bytes if the first peer
//! delivers after all, so each reason for it has its own patience, counted in the usual time of a
//! chunk:
//!
//! * *Silent*, 10 times: none of the peers that were asked delivers anything. There is other work,
//!   so nothing is lost by waiting.
//! * *Slow*, 3 times, when nothing is missing: the first peer takes much longer than the thief
//!   would.
//! * *Late*, 2 times, when nothing is missing: the chunk should have come long ago. Most chunks in
//!   flight have nearly come, and asking for all of them again, as a plain end game does (BEP 3),
//!   would be waste.

use std::time::{Duration, Instant};

use crate::swarm::download::limits::{END_GAME_AT_ONCE, PROBES_MAX};
use crate::swarm::download::picker::{ChunkPicker, ChunkRequest, PeerHandle, latest};

/// What a peer did until now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeerHistory {
    /// Mean time from request to completion.
    chunk_time: Option<Duration>,
    /// When its last chunk came.
    pub(super) last_came: Option<Instant>,
    /// The round trip to it.
    path: Duration,
    /// The chunk that was last asked of another peer in its place, and when it was asked for it.
    pub(super) stolen: Option<(u32, Instant)>,
}

/// Why a peer may ask for a chunk that another one was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StealReason {
    /// The other peer sends nothing at all.
    Silent,
    /// The other peer is much slower.
    Slow,
    /// The chunk should have come long ago.
    Late,
}

impl StealReason {
    /// How many times the usual time of a chunk it must be in flight.
    fn factor(self) -> u32 {
        match self {
            StealReason::Silent => 10,
            StealReason::Slow => 3,
            StealReason::Late => 2,
        }
    }
}

impl ChunkPicker {
    /// A request to `peer` and its answer travel that long.
    pub fn set_path(&mut self, peer: PeerHandle, path: Duration) {
        if let Some(p) = self.peers.get_mut(&peer) {
            p.history.path = path;
        }
    }

    /// The end game, once nothing is missing: a chunk that a much slower peer holds up, or one that
    /// is late.
    ///
    /// Before that, a peer without anything new waits: a second request for what comes anyway only
    /// takes bandwidth from other peers. Each peer has at most [`END_GAME_AT_ONCE`] such chunks, as
    /// they may still come from the first peer.
    pub fn acquire_end_game(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        if !self.is_all_asked() {
            return None;
        }
        let shared = self.in_flight.values().filter(|(_, second)| second.is_some_and(|s| s.peer == peer)).count();
        if shared >= END_GAME_AT_ONCE {
            return None;
        }
        self.steal(peer, now, StealReason::Slow).or_else(|| self.steal(peer, now, StealReason::Late))
    }

    /// A chunk in flight that `thief` has a reason to ask for, too.
    ///
    /// The oldest [`PROBES_MAX`] chunks are looked at. A queue in front of a chunk is no fault of
    /// the peer that was asked: the chunk must be late by the usual time of that peer, not only by
    /// that of the thief. A far peer that has given nothing yet has its round trip.
    pub(super) fn steal(&mut self, thief: PeerHandle, now: Instant, reason: StealReason) -> Option<u32> {
        self.by_age.first()?;
        let limit = self.usual_of(thief)?.max(CHUNK_TIME_MIN) * reason.factor();
        let mut found = None;
        for &(since, chunk) in self.by_age.iter().take(PROBES_MAX) {
            if now.saturating_duration_since(since) < limit {
                break;
            }
            if self.may_second(chunk, thief, now, reason) {
                found = Some(chunk);
                break;
            }
        }
        let chunk = found.filter(|_| self.may_steal(thief, now))?;
        self.ask_second(chunk, thief, now)
    }

    /// The usual time of a chunk of `peer`, as far as it is known.
    fn usual_of(&self, peer: PeerHandle) -> Option<Duration> {
        let own = self.peers.get(&peer)?.history.chunk_time;
        Some(own.or_else(|| self.mean_chunk_time()).unwrap_or(CHUNK_TIME_UNKNOWN))
    }

    /// Whether `thief` may be asked for `chunk`, too, for this `reason`.
    pub(super) fn may_second(&self, chunk: u32, thief: PeerHandle, now: Instant, reason: StealReason) -> bool {
        let (Some(&(first, second)), Some(time)) = (self.in_flight.get(&chunk), self.usual_of(thief)) else {
            return false;
        };
        let age = now.saturating_duration_since(latest(first, second));
        let limit = time.max(CHUNK_TIME_MIN) * reason.factor();
        let is_asked = first.peer == thief || second.is_some_and(|s| s.peer == thief);
        if age < limit || is_asked || !self.holds(thief, chunk) {
            return false;
        }
        let history = self.history(first);
        let usual = history.chunk_time.unwrap_or(time);
        let late = age >= usual.max(LATE_MIN).max(history.path) * reason.factor();
        match reason {
            StealReason::Silent => {
                [Some(first), second].into_iter().flatten().all(|asked| self.is_silent(asked, now, time))
            }
            StealReason::Slow => late || usual >= limit,
            StealReason::Late => late && second.is_none(),
        }
    }

    /// Asks `thief` for `chunk`, too. Of two earlier requests, the older one is dropped.
    pub(super) fn ask_second(&mut self, chunk: u32, thief: PeerHandle, now: Instant) -> Option<u32> {
        let (first, second) = self.in_flight.get_mut(&chunk)?;
        if let Some(p) = self.peers.get_mut(&first.peer) {
            p.history.stolen = Some((chunk, first.since));
        }
        self.by_age.remove(&(latest(*first, *second), chunk));
        if let Some(second) = second
            && second.since > first.since
        {
            *first = *second;
        }
        *second = Some(ChunkRequest { peer: thief, since: now });
        self.by_age.insert((latest(*first, *second), chunk));
        Some(chunk)
    }

    /// Whether `thief` gives about as lately as any peer. While others give, a peer that does not
    /// gets chunks that are missing, but none that another one was asked for: each request makes a
    /// chunk look young again, so that a crowd of silent peers could pass the last ones round for
    /// ever.
    pub(super) fn may_steal(&self, thief: PeerHandle, now: Instant) -> bool {
        let Some(latest) = self.peers.values().filter_map(|p| p.history.last_came).max() else { return true };
        let gave = self.peers.get(&thief).and_then(|p| p.history.last_came);
        now.saturating_duration_since(latest) > GIVES_FOR
            || gave.is_some_and(|at| latest.saturating_duration_since(at) <= GIVES_FOR)
    }

    /// Whether a peer that was asked delivers nothing, on any of its connections: a chunk that is
    /// held up on one of them while others bring chunks will still come. `time` is the usual one of
    /// a chunk if the peer has no history.
    fn is_silent(&self, asked: ChunkRequest, now: Instant, time: Duration) -> bool {
        let PeerHistory { chunk_time, last_came, path, .. } = self.history(asked);
        let since = last_came.map_or(asked.since, |at| at.max(asked.since));
        let silence = now.saturating_duration_since(since);
        silence >= chunk_time.unwrap_or(time).max(LATE_MIN).max(path) * StealReason::Silent.factor()
    }

    fn history(&self, asked: ChunkRequest) -> PeerHistory {
        self.peers.get(&asked.peer).map_or(PeerHistory::default(), |p| p.history)
    }

    fn mean_chunk_time(&self) -> Option<Duration> {
        let times = self.peers.values().filter_map(|p| p.history.chunk_time);
        let (sum, n) = times.fold((Duration::ZERO, 0), |(sum, n), t| (sum + t, n + 1));
        sum.checked_div(n)
    }

    /// A chunk of `peer` took that long.
    pub(super) fn learn(&mut self, peer: PeerHandle, time: Duration) {
        if let Some(p) = self.peers.get_mut(&peer) {
            let known = &mut p.history.chunk_time;
            *known = Some(known.map_or(time, |old| (old * 3 + time) / 4));
        }
    }
}

/// A peer gives for this time after a chunk of it came.
const GIVES_FOR: Duration = Duration::from_millis(500);
/// No chunk is late before twice this time: shorter delays are noise of a busy machine.
const LATE_MIN: Duration = Duration::from_millis(50);
/// Shorter times of a chunk are noise.
const CHUNK_TIME_MIN: Duration = Duration::from_millis(20);
/// The usual time of a chunk while no peer has a history.
const CHUNK_TIME_UNKNOWN: Duration = Duration::from_millis(250);
