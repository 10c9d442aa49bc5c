//! Which of the known peers a download is connected to, and when it dials them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limits::DOWNLOAD_CONNECTIONS_MAX;
use crate::swarm::download::limits::{
    DIAL_EVERY, DIALS_AT_ONCE, DROPPED_REST, HOLDERS_FIRST, LOCATE_POLL_MAX, LOCATE_POLL_MIN, LOCATES_AT_ONCE,
};
use crate::swarm::download::mesh::host_turns::HostTurns;
use crate::swarm::download::picker::PeerHandle;
use crate::swarm::download::reputation::Reputation;
use crate::swarm::download::scaler::{ConnectionScaler, ScalerAdvice};
use crate::swarm::random::next_random;

mod host_turns;
mod rotation;

/// The connections of one download: at most [`DOWNLOAD_CONNECTIONS_MAX`], whatever the size of the
/// group.
///
/// In a large group each peer has connections to a few random others. Together they form one mesh,
/// through which a chunk reaches every peer in a few steps (as in GossipSub, Vyzovitis et al.,
/// 2020). Every [`MESH_ROTATE`](crate::swarm::download::limits::MESH_ROTATE) a full set drops the
/// connections that gave little, for peers that were not tried, like the optimistic unchoke of
/// BEP 3: so a download finds better peers, and does not stay among peers that have nothing.
#[derive(Debug)]
pub struct Mesh {
    peers: BTreeMap<PeerHandle, MeshPeer>,
    connections: usize,
    /// Connections that were opened to ask what a peer holds.
    locating: usize,
    rotated: Instant,
    /// The bucket of dials, see [`dial`](Self::dial): its debt is paid off by this time.
    paid_at: Instant,
    /// Whether the last [`dial`](Self::dial) left out a peer because the bucket was empty.
    bucket_empty: bool,
    random: u64,
}

/// A peer to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// The peer.
    pub peer: PeerHandle,
    /// Whether to ask it first which files it holds.
    pub locate: bool,
    /// Attempts that failed since the last success.
    pub failures: u32,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Nothing was left to ask on it.
    Idle {
        /// The peer did not have what it had said.
        lost: bool,
    },
    /// The download is over.
    Stopped,
    /// It was surplus, and its last answers did not come in time.
    Cut,
    /// The peer sent wrong bytes.
    Lied,
    /// The peer is full and asks for a pause of that length.
    Busy(Duration),
    /// The peer closed it while it lay unused, which says nothing about the peer.
    Stale,
    /// The peer refused this node, or is not trusted.
    Refused,
    /// The peer sent so little that another one is asked in its place.
    Slow,
    /// No connection was made.
    Unreachable,
    /// It broke.
    Failed,
}

#[derive(Debug)]
struct MeshPeer {
    reputation: Reputation,
    connections: usize,
    scaler: ConnectionScaler,
    /// When to ask which files it holds; `None`: that is known for its present revision.
    locate_at: Option<Instant>,
    /// How long to wait before that if it held nothing.
    locate_wait: Duration,
    /// Whether its only connection was opened to ask which files it holds.
    locating: bool,
    revision: u64,
    /// Since when it has a connection.
    since: Instant,
    /// Bytes that had come from it at the last rotation.
    read: u64,
    /// It was dropped, and other peers come before it until then.
    rests_until: Option<Instant>,
    /// Where it is.
    host: Option<IpAddr>,
    /// Number of its offers to answer on sessions of its own, and when one made its failures count for nothing.
    offers: (u32, Option<Instant>),
}

impl MeshPeer {
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
    /// No peer is known yet. `seed` makes the random choices.
    pub fn new(seed: u64, now: Instant) -> Self {
        Mesh {
            peers: BTreeMap::new(),
            connections: 0,
            locating: 0,
            rotated: now,
            paid_at: now,
            bucket_empty: false,
            random: seed,
        }
    }

    /// `peer` is there, with this revision of its catalogue. A new peer is asked which files it
    /// holds, unless it is known that it `holds` some; a known one is asked again when the revision
    /// has changed.
    pub fn meet(&mut self, peer: PeerHandle, revision: u64, holds: bool, now: Instant) {
        let known = self.peers.entry(peer).or_insert_with(|| MeshPeer {
            reputation: Reputation::default(),
            connections: 0,
            scaler: ConnectionScaler::new(now),
            locate_at: (!holds).then_some(now),
            locate_wait: LOCATE_POLL_MIN,
            locating: false,
            revision,
            since: now,
            read: 0,
            rests_until: None,
            host: None,
            offers: (0, None),
        });
        if revision != known.revision {
            known.revision = revision;
            known.locate_at.get_or_insert(now);
        }
    }

    /// Forgets peers that are not `here` and have no connection, and peers that may not keep
    /// theirs.
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

    /// `peer` lied and is never dialed again. False if that was known.
    pub fn ban(&mut self, peer: PeerHandle) -> bool {
        let Some(known) = self.peers.get_mut(&peer).filter(|p| !p.reputation.is_banned()) else { return false };
        known.reputation.strike();
        true
    }

    /// The peers to dial now, each for its first connection; they count as connected until
    /// [`ended`](Self::ended).
    ///
    /// Peers that hold something (`holds`) come before peers that are to be asked; among equals
    /// the hosts take turns, and chance decides. Once the download has a peer to fetch from, two bounds spread the dials out,
    /// so that a large group does not rush at the few peers that hold something at first, and
    /// connections are left for peers that come later:
    /// * at most [`LOCATES_AT_ONCE`] connections only ask what a peer holds;
    /// * a token bucket lets [`DIALS_AT_ONCE`] dials pass at once, then one every [`DIAL_EVERY`].
    ///   It is kept as the time `paid_at` at which its debt is paid off: each dial adds
    ///   [`DIAL_EVERY`] to it. Dials without the bound, while there is no peer to fetch from, never
    ///   take it further into debt than an empty bucket.
    pub fn dial(&mut self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> Vec<Dial> {
        if self.connections >= DOWNLOAD_CONNECTIONS_MAX && self.locating == 0 {
            return Vec::new();
        }
        self.bucket_empty = false;
        // Peers that were dropped come after all that were not tried.
        let (mut first, mut asked, mut resting) = (Vec::new(), Vec::new(), Vec::new());
        for (&peer, known) in &mut self.peers {
            if !known.is_free(now) {
                // A peer that turned out to hold something is no longer only asked.
                if known.locating && holds(peer) {
                    known.locating = false;
                    self.locating -= 1;
                }
                continue;
            }
            let place = (0, next_random(&mut self.random));
            if holds(peer) {
                if known.rests(now) { &mut resting } else { &mut first }.push((place, peer));
            } else if known.locate_is_due(now) {
                asked.push((place, peer));
            }
        }
        let mut turns = HostTurns::new(self.peers.values());
        let host = |peer| self.peers.get(&peer).and_then(|known| known.host.as_ref());
        [&mut first, &mut asked, &mut resting].into_iter().for_each(|v| turns.order(v, host));
        let fetching = self.connections - self.locating;
        let mut room = DOWNLOAD_CONNECTIONS_MAX.saturating_sub(self.connections);
        if !first.is_empty() || !resting.is_empty() || fetching > 0 {
            // In a large group most peers are never asked.
            asked.truncate(LOCATES_AT_ONCE.saturating_sub(self.locating));
            let bucket = (now + DIAL_EVERY * DIALS_AT_ONCE).saturating_duration_since(self.paid_at.max(now));
            let due = (bucket.as_nanos() / DIAL_EVERY.as_nanos()) as usize;
            self.bucket_empty = due < room && due < first.len() + asked.len() + resting.len();
            room = room.min(due);
        }
        // Known holders come first for the first few connections only: soon all peers hold
        // something.
        let mut rest = first.split_off(first.len().min(HOLDERS_FIRST.saturating_sub(fetching)));
        rest.append(&mut asked);
        rest.sort_unstable();
        let chosen = first.into_iter().chain(rest).chain(resting).take(room);
        let dials: Vec<Dial> = chosen.filter_map(|(_, peer)| self.open(peer, !holds(peer), now)).collect();
        let paid_at = self.paid_at.max(now) + DIAL_EVERY * dials.len() as u32;
        self.paid_at = paid_at.min(now + DIAL_EVERY * DIALS_AT_ONCE);
        dials
    }

    /// Whether each peer that could be dialed has a connection.
    pub fn all_have_one(&self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> bool {
        self.connections < DOWNLOAD_CONNECTIONS_MAX && !self.has_free(holds, now)
    }

    /// Whether the set is full and a peer that could be dialed has no connection.
    pub fn others_wait(&self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> bool {
        self.connections >= DOWNLOAD_CONNECTIONS_MAX && self.has_free(holds, now)
    }

    fn has_free(&self, holds: impl Fn(PeerHandle) -> bool, now: Instant) -> bool {
        self.peers.iter().any(|(&peer, p)| p.is_free(now) && (holds(peer) || p.locate_is_due(now)))
    }

    /// What to do about the number of connections to each peer. `read` is the number of bytes that
    /// came from a peer, `backlog` what it could still be asked for, `round_trip` the way to it. Connections to
    /// [`Add`](ScalerAdvice::Add) count as open until [`ended`](Self::ended).
    pub fn grow(
        &mut self,
        read: impl Fn(PeerHandle) -> u64,
        backlog: impl Fn(PeerHandle) -> u64,
        round_trip: impl Fn(PeerHandle) -> Duration,
        now: Instant,
    ) -> Vec<(Dial, ScalerAdvice)> {
        let enough = ADD_BACKLOG * self.connections as u64;
        let look = |(&peer, known): (&PeerHandle, &mut MeshPeer)| {
            let (connections, path) = (known.connections, round_trip(peer));
            let advice = known.scaler.advise(connections, path, read(peer), || backlog(peer) >= enough, now);
            (peer, advice)
        };
        let advice: Vec<_> = self.peers.iter_mut().map(look).filter(|(_, a)| *a != ScalerAdvice::Keep).collect();
        let mut taken = Vec::new();
        for (peer, advice) in advice {
            match advice {
                ScalerAdvice::Add if self.connections >= DOWNLOAD_CONNECTIONS_MAX => {}
                ScalerAdvice::Add => taken.extend(self.open(peer, false, now).map(|dial| (dial, advice))),
                _ => taken.push((Dial { peer, locate: false, failures: 0 }, advice)),
            }
        }
        taken
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

    /// A connection that [`dial`](Self::dial) or [`grow`](Self::grow) opened has ended. `useful`:
    /// it brought something; `holds`: the peer holds something that is wanted; `jitter` in `0..1`.
    /// Returns when a peer that failed is dialed again.
    pub fn ended(
        &mut self,
        dial: Dial,
        end: ConnectionEnd,
        (useful, holds): (bool, bool),
        now: Instant,
        jitter: f64,
    ) -> Option<Instant> {
        self.connections -= 1;
        let known = self.peers.get_mut(&dial.peer)?;
        // A peer that was forgotten meanwhile and is back has other connections.
        known.connections = known.connections.saturating_sub(1);
        if end == ConnectionEnd::Unreachable && known.connections > 0 {
            known.scaler.could_not_add(now);
        }
        if known.connections == 0 && std::mem::take(&mut known.locating) {
            self.locating -= 1;
        }
        if useful {
            known.reputation.succeeded();
        }
        match end {
            ConnectionEnd::Idle { lost } => {
                known.reputation.succeeded();
                if holds {
                    known.locate_wait = LOCATE_POLL_MIN;
                    return None;
                }
                // What it says after that may be as short-lived.
                if lost {
                    known.locate_wait = LOCATE_POLL_MAX;
                }
                known.locate_at.get_or_insert(if dial.locate || lost { now + known.locate_wait } else { now });
                known.locate_wait = (known.locate_wait * 2).min(LOCATE_POLL_MAX);
                None
            }
            ConnectionEnd::Stopped => None,
            ConnectionEnd::Cut => {
                known.locate_at = known.locate_at.or(dial.locate.then_some(now));
                None
            }
            ConnectionEnd::Lied => {
                known.reputation.strike();
                None
            }
            ConnectionEnd::Busy(wait) => Some(known.reputation.busy(now, wait)),
            ConnectionEnd::Stale if !useful && dial.failures == 0 => {
                // It may be dialed at once.
                known.reputation.failed(now - STALE_GRACE, 0.0);
                known.locate_at = known.locate_at.or(dial.locate.then_some(now));
                None
            }
            ConnectionEnd::Slow
            | ConnectionEnd::Stale
            | ConnectionEnd::Refused
            | ConnectionEnd::Unreachable
            | ConnectionEnd::Failed => {
                if end == ConnectionEnd::Slow {
                    // Peers that were not tried come first.
                    known.rests_until = Some(now + DROPPED_REST);
                }
                let at = known.reputation.failed(now, jitter);
                // What was not located yet is to be asked again.
                if dial.locate {
                    known.locate_at = Some(at);
                }
                Some(at)
            }
        }
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// When a peer may be dialed or asked again: no event says so.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.peers.values().filter(|p| p.connections == 0 && !p.reputation.is_banned());
        let times = waiting.flat_map(|p| p.reputation.retry_at().into_iter().chain(p.locate_at));
        // A peer that was due and found the bucket empty is looked at again when there is a dial
        // left.
        let refilled = self.bucket_empty.then_some(now + DIAL_EVERY);
        times.filter(|at| *at > now).chain(refilled).min()
    }
}

/// Bytes that must be left for each connection, so that a further one is worth its handshake.
const ADD_BACKLOG: u64 = 16 << 20;
/// A stale connection counts as failed that long ago, so that its peer may be dialed at once.
const STALE_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
