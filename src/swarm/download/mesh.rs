//! With whom a download has connections, out of all who are known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::DOWNLOAD_CONNECTIONS_MAX;
use crate::swarm::download::limits::{
    DIAL_EVERY, DIALS_AT_ONCE, HOLDERS_FIRST, LET_GO_MAX, LET_GO_REST, LOCATE_POLL_MAX, LOCATE_POLL_MIN,
    LOCATES_AT_ONCE, MESH_REVIEW,
};
use crate::swarm::random::next_random;
use crate::swarm::{Advice, Growth, PeerHandle, Reputation};

/// The connections of one download: at most [`DOWNLOAD_CONNECTIONS_MAX`], whatever the size of the group.
///
/// In a large group each peer talks to a few that it chose by chance, so that all of them together are one mesh, through
/// which a chunk reaches everyone in a few steps. Every [`MESH_REVIEW`] a full set lets go of who gave little, for somebody
/// who was not tried: so it finds those that are worth more to it, and nobody is stuck among peers that have nothing.
#[derive(Debug)]
pub struct Mesh {
    peers: BTreeMap<PeerHandle, Peer>,
    connections: usize,
    /// Connections that were opened to ask what a peer holds.
    locating: usize,
    reviewed: Instant,
    /// When all dials so far would be over, had there been one every [`DIAL_EVERY`]; at most [`DIALS_AT_ONCE`] ahead.
    spread: Instant,
    /// Whether somebody is to be dialed who was not at the last [`dial`](Self::dial), because of that.
    others_wait: bool,
    random: u64,
}

/// Somebody to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Whom.
    pub peer: PeerHandle,
    /// Whether to ask first which files it holds.
    pub locate: bool,
    /// Attempts that failed since the last success.
    pub failures: u32,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was left to ask on it; with `lost`, as the peer did not have what it had said.
    Idle {
        /// Whether it did not have what it had said.
        lost: bool,
    },
    /// The download is over.
    Stopped,
    /// The peer sent wrong bytes.
    Lied,
    /// The peer is full and asks to be left alone for so long.
    Busy(Duration),
    /// The peer closed it while it lay unused: that says nothing about the peer.
    Stale,
    /// It failed.
    Failed,
}

#[derive(Debug)]
struct Peer {
    reputation: Reputation,
    connections: usize,
    growth: Growth,
    /// When it is to be asked which files it holds; `None`: that is known, for its present revision.
    locate_at: Option<Instant>,
    /// How long it is left alone when it held nothing.
    locate_wait: Duration,
    /// Whether its only connection was opened to ask that.
    locating: bool,
    revision: u64,
    /// Since when it has a connection.
    since: Instant,
    /// Bytes that had come from it at the last review.
    read: u64,
    /// It was let go, and others come before it until then.
    rests_until: Option<Instant>,
}

impl Peer {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn is_free(&self, now: Instant) -> bool {
        self.connections == 0 && self.reputation.may_try(now)
    }

    fn locate_is_due(&self, now: Instant) -> bool {
        self.locate_at.is_some_and(|at| at <= now)
    }
}

impl Mesh {
    /// Nobody is known yet. `seed` makes the random choices.
    pub fn new(seed: u64, now: Instant) -> Self {
        Mesh {
            peers: BTreeMap::new(),
            connections: 0,
            locating: 0,
            reviewed: now,
            spread: now,
            others_wait: false,
            random: seed,
        }
    }

    /// `peer` is there, with this revision of its catalogue. Somebody new is asked which files it holds, unless that it
    /// `holds` some is known; somebody known is asked again when the revision has changed.
    pub fn meet(&mut self, peer: PeerHandle, revision: u64, holds: bool, now: Instant) {
        let known = self.peers.entry(peer).or_insert_with(|| Peer {
            reputation: Reputation::default(),
            connections: 0,
            growth: Growth::new(now),
            locate_at: (!holds).then_some(now),
            locate_wait: LOCATE_POLL_MIN,
            locating: false,
            revision,
            since: now,
            read: 0,
            rests_until: None,
        });
        if revision != known.revision {
            known.revision = revision;
            known.locate_at.get_or_insert(now);
        }
    }

    /// Forgets those who are not `here` and have no connection, and those who have one and may not keep it.
    pub fn retain(&mut self, here: impl Fn(PeerHandle) -> bool, may_stay: impl Fn(PeerHandle) -> bool) {
        let locating = &mut self.locating;
        self.peers.retain(|&peer, known| {
            let stays = here(peer) || known.connections > 0 && may_stay(peer);
            *locating -= usize::from(!stays && known.locating);
            stays
        });
    }

    /// Whether `peer` is known.
    pub fn knows(&self, peer: PeerHandle) -> bool {
        self.peers.contains_key(&peer)
    }

    /// `peer` lied: it is never dialed again. False if that was known.
    pub fn ban(&mut self, peer: PeerHandle) -> bool {
        let Some(known) = self.peers.get_mut(&peer).filter(|p| !p.reputation.is_banned()) else { return false };
        known.reputation.strike();
        true
    }

    /// Whom to dial now, each with a first connection; they count as connected until [`ended`](Self::ended). Those that
    /// hold something (`holds`) come before those that are to be asked; who of them is left to chance.
    pub fn dial(&mut self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> Vec<Dial> {
        if self.connections >= DOWNLOAD_CONNECTIONS_MAX && self.locating == 0 {
            return Vec::new();
        }
        self.others_wait = false;
        // Those that were let go come after all who were not tried.
        let (mut first, mut asked, mut resting) = (Vec::new(), Vec::new(), Vec::new());
        for (&peer, known) in &mut self.peers {
            if !known.is_free(now) {
                // Whoever turned out to hold something is no longer only asked.
                if known.locating && holds(peer) {
                    known.locating = false;
                    self.locating -= 1;
                }
                continue;
            }
            let place = next_random(&mut self.random);
            if holds(peer) {
                if known.rests(now) { &mut resting } else { &mut first }.push((place, peer));
            } else if known.locate_is_due(now) {
                asked.push((place, peer));
            }
        }
        [&mut first, &mut asked, &mut resting].into_iter().for_each(|v| v.sort_unstable());
        let fetching = self.connections - self.locating;
        let mut room = DOWNLOAD_CONNECTIONS_MAX.saturating_sub(self.connections);
        if !first.is_empty() || !resting.is_empty() || fetching > 0 {
            // Somebody to fetch from is there: the others can wait, and in a large group most will never be asked.
            asked.truncate(LOCATES_AT_ONCE.saturating_sub(self.locating));
            // A few hold something at first. Were all connections to them, nobody would fetch from those who come later.
            let bucket = (now + DIAL_EVERY * DIALS_AT_ONCE).saturating_duration_since(self.spread.max(now));
            let due = (bucket.as_nanos() / DIAL_EVERY.as_nanos()) as usize;
            self.others_wait = due < room && due < first.len() + asked.len() + resting.len();
            room = room.min(due);
        }
        // Beyond a few it makes no difference who is known to hold something already: soon all will.
        let mut rest = first.split_off(first.len().min(HOLDERS_FIRST.saturating_sub(fetching)));
        rest.append(&mut asked);
        rest.sort_unstable();
        let chosen = first.into_iter().chain(rest).chain(resting).take(room);
        let dials: Vec<Dial> = chosen.filter_map(|(_, peer)| self.open(peer, !holds(peer), now)).collect();
        // While there is nobody to fetch from, those who are asked in vain leave no more than an empty bucket.
        let spread = self.spread.max(now) + DIAL_EVERY * dials.len() as u32;
        self.spread = spread.min(now + DIAL_EVERY * DIALS_AT_ONCE);
        dials
    }

    /// Whether everyone that could be dialed has a connection.
    pub fn all_have_one(&self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> bool {
        self.connections < DOWNLOAD_CONNECTIONS_MAX
            && !self.peers.iter().any(|(&peer, p)| p.is_free(now) && (holds(peer) || p.locate_is_due(now)))
    }

    /// What to do about the number of connections to each peer, which have `read` so many bytes by now; `backlog` is what
    /// the peer could still be asked for. Those that are [`Added`](Advice::Add) count as open until
    /// [`ended`](Self::ended).
    pub fn grow(
        &mut self,
        read: impl Fn(PeerHandle) -> u64,
        backlog: impl Fn(PeerHandle) -> u64,
        now: Instant,
    ) -> Vec<(Dial, Advice)> {
        let enough = GROWTH_BACKLOG * self.connections as u64;
        let look = |(&peer, known): (&PeerHandle, &mut Peer)| {
            let advice = known.growth.look(known.connections, read(peer), || backlog(peer) >= enough, now);
            (peer, advice)
        };
        let advice: Vec<_> = self.peers.iter_mut().map(look).filter(|(_, a)| *a != Advice::Keep).collect();
        let mut taken = Vec::new();
        for (peer, advice) in advice {
            match advice {
                Advice::Add if self.connections >= DOWNLOAD_CONNECTIONS_MAX => {}
                Advice::Add => taken.extend(self.open(peer, false, now).map(|dial| (dial, advice))),
                _ => taken.push((Dial { peer, locate: false, failures: 0 }, advice)),
            }
        }
        taken
    }

    /// Of a full set, whose connections are to be let go for somebody else's, every [`MESH_REVIEW`]: the one that gave
    /// least since then, as else nobody would ever fetch from those who came when all sets were full, and a few more that
    /// gave much less than others. Whoever has more than others of what is lacked is kept, however little it gives: a
    /// thousand may share the first holder. `read` is how many bytes came from a peer in all, `backlog` what it could still
    /// be asked for.
    pub fn review(
        &mut self,
        read: impl Fn(PeerHandle) -> u64,
        backlog: impl Fn(PeerHandle) -> u64,
        holds: impl Fn(PeerHandle) -> bool,
        now: Instant,
    ) -> Vec<PeerHandle> {
        if now.saturating_duration_since(self.reviewed) < MESH_REVIEW {
            return Vec::new();
        }
        self.reviewed = now;
        let is_next =
            |(&peer, p): (&PeerHandle, &Peer)| p.is_free(now) && !p.rests(now) && (holds(peer) || p.locate_is_due(now));
        let is_full = self.connections >= DOWNLOAD_CONNECTIONS_MAX;
        let others = if is_full { self.peers.iter().filter(|p| is_next(*p)).take(LET_GO_MAX).count() } else { 0 };
        let (mut gains, mut sum, mut lacked) = (Vec::new(), 0, 0);
        for (&peer, known) in self.peers.iter_mut().filter(|(_, p)| p.connections > 0) {
            let came = read(peer);
            let gain = came - std::mem::replace(&mut known.read, came);
            let has = backlog(peer);
            (sum, lacked) = (sum + gain, lacked + has);
            // Whoever has just come had no time to give anything.
            if now.saturating_duration_since(known.since) >= MESH_REVIEW && !known.rests(now) {
                gains.push((gain, next_random(&mut self.random), peer, has));
            }
        }
        let all = self.connections as u64;
        gains.retain(|&(.., has)| has * all <= lacked);
        gains.sort_unstable();
        let poor = gains.iter().take_while(|(gain, ..)| gain * POOR < sum / all.max(1)).count();
        let let_go: Vec<PeerHandle> =
            gains.into_iter().take(poor.max(1).min(others)).map(|(_, _, peer, _)| peer).collect();
        for peer in &let_go {
            if let Some(known) = self.peers.get_mut(peer) {
                known.rests_until = Some(now + LET_GO_REST);
            }
        }
        let_go
    }

    fn open(&mut self, peer: PeerHandle, to_ask: bool, now: Instant) -> Option<Dial> {
        let known = self.peers.get_mut(&peer)?;
        if known.connections == 0 {
            (known.since, known.locating) = (now, to_ask);
            self.locating += usize::from(to_ask);
        }
        known.connections += 1;
        self.connections += 1;
        let locate = known.locate_at.take_if(|at| *at <= now).is_some();
        Some(Dial { peer, locate, failures: known.reputation.failures() })
    }

    /// A connection that [`dial`](Self::dial) or [`grow`](Self::grow) opened has ended. `useful`: it brought something;
    /// `located`: the dial was to ask which files the peer holds; `holds`: it holds something that is lacked. `jitter` in
    /// `0..1`. Returns when a peer that failed is dialed again.
    pub fn ended(
        &mut self,
        dial: Dial,
        ending: Ending,
        (useful, holds): (bool, bool),
        now: Instant,
        jitter: f64,
    ) -> Option<Instant> {
        self.connections -= 1;
        let known = self.peers.get_mut(&dial.peer)?;
        // A peer that was forgotten meanwhile and is back has other connections.
        known.connections = known.connections.saturating_sub(1);
        if known.connections == 0 && std::mem::take(&mut known.locating) {
            self.locating -= 1;
        }
        if useful {
            known.reputation.succeeded();
        }
        match ending {
            Ending::Idle { lost } => {
                known.reputation.succeeded();
                if holds {
                    known.locate_wait = LOCATE_POLL_MIN;
                    return None;
                }
                // What it says to hold after that may be as short-lived.
                if lost {
                    known.locate_wait = LOCATE_POLL_MAX;
                }
                known.locate_at.get_or_insert(if dial.locate || lost { now + known.locate_wait } else { now });
                known.locate_wait = (known.locate_wait * 2).min(LOCATE_POLL_MAX);
                None
            }
            Ending::Stopped => None,
            Ending::Lied => {
                known.reputation.strike();
                None
            }
            Ending::Busy(wait) => Some(known.reputation.busy(now, wait)),
            Ending::Stale if !useful && dial.failures == 0 => {
                // It may be dialed at once.
                known.reputation.failed(now - STALE_GRACE, 0.0);
                known.locate_at = known.locate_at.or(dial.locate.then_some(now));
                None
            }
            Ending::Stale | Ending::Failed => {
                let at = known.reputation.failed(now, jitter);
                // What was not located yet is to be asked again.
                if dial.locate {
                    known.locate_at = Some(at);
                }
                Some(at)
            }
        }
    }

    /// Connections in all.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// When something is due that no event will bring up: a peer may be dialed, or asked, again.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.peers.values().filter(|p| p.connections == 0 && !p.reputation.is_banned());
        let times = waiting.flat_map(|p| p.reputation.retry_at().into_iter().chain(p.locate_at));
        // What was due already and found no room is looked at again when there is some.
        let spread = self.others_wait.then_some(now + DIAL_EVERY);
        times.filter(|at| *at > now).chain(spread).min()
    }
}

/// With less than this left for each connection, a further one is not worth its handshake.
const GROWTH_BACKLOG: u64 = 16 << 20;
/// Who gives so many times less than the mean gives little.
const POOR: u64 = 4;
/// How far back a stale connection is dated.
const STALE_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
