//! All live nodes, what they last announced, and where they may be reached.
//!
//! The table takes verified announces only (its callers verify), and takes no peer's word for the
//! address of another: see `addresses`. Trust is decided before; [`PeerTable::retain`] follows when
//! it changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Instant;

use crate::identity::{NodeId, PeerId};
use crate::proto::{Announce, Flags, PeerHint, SignedAnnounce};
use crate::swarm::Event;
use crate::swarm::membership::addresses::{Standing, canonical};
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::received::{Received, TableChange, Via};
use crate::swarm::membership::refusal::RefusalCause;
use crate::swarm::membership::tombstones::Tombstones;

mod counts;
mod denials;
mod duplicate_keys;
mod entry;
mod eviction;
mod lifetime;
mod members;
mod proved;
mod reported;
mod turned;

pub use counts::PeerCounts;
pub use entry::PeerRecord;
pub use turned::{DistantPeer, UnreachedPeer};

use denials::Denials;
use entry::{Dated, PeerEntry};
use members::SourceCounts;
use reported::{Reported, skew};

/// All live nodes, at most [`PEERS_MAX`](crate::limits::PEERS_MAX). A full table evicts entries for
/// newcomers: see `eviction`.
#[derive(Debug)]
pub struct PeerTable {
    own: NodeId,
    entries: BTreeMap<NodeId, PeerEntry>,
    /// Every entry once, by when it expires.
    deadlines: BTreeSet<(Instant, NodeId)>,
    /// Number of entries that `peers` returns.
    serving: usize,
    tombstones: Tombstones,
    /// Peers that answered and did not let this node in.
    denials: Denials,
    /// Number of peers that the user named and that are still sought.
    awaited: usize,
    reported: Reported,
    /// Where the last page of `hints` ended.
    cursor: NodeId,
    /// Number of entries whose first announce came from each source address.
    origins: SourceCounts,
    /// Number of members of each source address.
    members: SourceCounts,
    /// Until when a full table evicts none for a source address that has this number of entries or
    /// more.
    full_until: Option<(Instant, usize)>,
}

impl PeerTable {
    /// An empty table of the node `own`.
    pub fn new(own: NodeId) -> Self {
        PeerTable {
            own,
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serving: 0,
            tombstones: Tombstones::default(),
            denials: Denials::default(),
            awaited: 0,
            reported: Reported::default(),
            cursor: own,
            origins: SourceCounts::default(),
            members: SourceCounts::default(),
            full_until: None,
        }
    }

    /// A cheap check before the signature is verified: `Ok(true)` if these very bytes have been
    /// verified before, `Ok(false)` if the announce is new.
    ///
    /// # Errors
    /// [`Dropped::Own`] and [`Dropped::Replayed`].
    pub fn screen(&self, signed: &SignedAnnounce, announce: &Announce) -> Result<bool, Dropped> {
        let node = NodeId::new(announce.peer, announce.instance);
        if node == self.own {
            return Err(Dropped::Own);
        }
        match self.entries.get(&node) {
            _ if self.has_left(&node, announce) => Ok(false),
            Some(entry) if entry.announce == *signed => Ok(true),
            Some(entry) if announce.seq <= entry.dated.seq => Err(Dropped::Replayed),
            None if self.tombstones.covers(&node, announce.seq) => Err(Dropped::Replayed),
            _ => Ok(false),
        }
    }

    /// Whether this is the goodbye of a node that said it before: it comes once a link, which is no replay.
    fn has_left(&self, node: &NodeId, announce: &Announce) -> bool {
        announce.flags.contains(Flags::GOODBYE) && self.entries.get(node).is_none_or(|entry| entry.sessions.leaving)
    }

    /// Takes in a *verified* announce.
    ///
    /// # Errors
    /// [`Dropped`]: own, replayed, stale, future, crowded, full. A hint that is older than what is
    /// known is no error, as the peer that gave it may know less.
    pub fn upsert(&mut self, received: &Received<'_>) -> Result<TableChange, Dropped> {
        let received = &Received { addr: canonical(received.addr), ..*received };
        let (node, announce) = (received.node(), received.announce);
        if node == self.own {
            return Err(Dropped::Own);
        }
        let skew_ms = skew(received)?;
        let mut change = TableChange::default();
        if self.has_left(&node, announce) {
            return Ok(change);
        }
        if !self.entries.contains_key(&node) {
            if self.tombstones.covers(&node, announce.seq) {
                return Err(Dropped::Replayed);
            }
            self.insert(received, &mut change)?;
            change.skew_ms = self.reported.skew(received, skew_ms);
            return Ok(change);
        }
        if received.via == Via::Session {
            change.events = self.proved(node, received.addr, received.now);
        }
        let Some(entry) = self.entries.get_mut(&node) else { return Ok(change) };
        if announce.seq <= entry.dated.seq {
            change.notable |= entry.note_again(received)?;
            return Ok(change);
        }
        entry.dated = Dated::of(received);
        if received.is_goodbye() {
            self.leave(node, &mut change);
            return Ok(change);
        }
        self.renew(received, &mut change);
        change.skew_ms = self.reported.skew(received, skew_ms);
        change.duplicate_key = self.find_duplicate_key(node);
        Ok(change)
    }

    /// TLS proved the key of `node` at `addr`: it is alive, and this is its best address. Other
    /// instances of the key lose that address.
    pub fn proved(&mut self, node: NodeId, addr: SocketAddr, now: Instant) -> Vec<Event> {
        let (addr, mut change) = (canonical(addr), TableChange::default());
        self.denials.remove(&node.peer);
        if let Some(entry) = self.entries.get_mut(&node) {
            if entry.port != 0 {
                entry.addrs.note(addr, Standing::Proved, now);
            }
            self.alive(node, now);
            self.make_member(node, addr.ip());
            self.displace(node, addr, &mut change);
        }
        change.events
    }

    /// `node` could not be reached at `addr`, or another one is there: its other addresses come
    /// first now.
    pub fn failed(&mut self, node: NodeId, addr: SocketAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.addrs.failed(canonical(addr), now);
        }
    }

    /// A session with `node` began; while there is one, the node neither expires nor leaves. Needs
    /// one call of [`session_closed`](Self::session_closed).
    pub fn session_opened(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.sessions.live = entry.sessions.live.saturating_add(1);
        }
    }

    /// A session with `node` ended. The node was alive until now.
    pub fn session_closed(&mut self, node: NodeId, now: Instant) -> Vec<Event> {
        let mut change = TableChange::default();
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.sessions.live = entry.sessions.live.saturating_sub(1);
            let ended = entry.sessions.leaving && entry.sessions.live == 0;
            if ended { self.remove(node, &mut change) } else { self.alive(node, now) }
        }
        change.events
    }

    /// Ends every node whose key is no longer `allowed`.
    pub fn retain(&mut self, allowed: impl Fn(&PeerId) -> bool) -> Vec<Event> {
        let gone: Vec<NodeId> = self.entries.keys().filter(|node| !allowed(&node.peer)).copied().collect();
        let mut change = TableChange::default();
        gone.into_iter().for_each(|node| self.remove(node, &mut change));
        change.events
    }

    /// All live nodes that serve something (port other than 0): first the ones that TLS proved,
    /// then the last seen.
    pub fn peers(&self) -> Vec<PeerRecord> {
        let mut serving: Vec<_> = self.entries.iter().filter(|(_, e)| e.is_serving()).collect();
        serving.sort_by_key(|(_, e)| (Reverse(e.addrs.any_proved()), Reverse(e.last_seen)));
        serving.into_iter().map(|(node, entry)| entry.record(*node)).collect()
    }

    /// One live node that serves something.
    pub fn peer(&self, node: NodeId) -> Option<PeerRecord> {
        self.entries.get(&node).filter(|e| e.is_serving()).map(|entry| entry.record(node))
    }

    /// What to tell a peer at `to` of the others: at most `max` hints. Each names addresses that
    /// TLS proved or that announces came from, and none that is valid on this host alone unless
    /// `to` is on it. Each call continues where the last one ended, so that a peer that asks again
    /// learns of all.
    pub fn hints(&mut self, to: IpAddr, max: usize) -> Vec<PeerHint> {
        let to = to.to_canonical();
        let after = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let turn = self.entries.range(after).chain(self.entries.range(..=self.cursor));
        let mut last = self.cursor;
        let hints = turn
            .filter_map(|(node, entry)| Some((*node, entry.hint(to)?)))
            .take(max)
            .map(|(node, hint)| {
                last = node;
                hint
            })
            .collect();
        self.cursor = last;
        hints
    }

    /// What to tell a peer at `to` of `node`, by the rules of [`hints`](Self::hints).
    pub fn hint(&self, node: NodeId, to: IpAddr) -> Option<PeerHint> {
        self.entries.get(&node)?.hint(to.to_canonical())
    }

    /// A peer was reached and refused this node, or was refused by this node.
    pub fn refused(&mut self, peer: PeerId, cause: RefusalCause) {
        self.denials.refused(peer, cause);
    }

    /// A peer answered that it has no place for this node now.
    pub fn was_full(&mut self, peer: PeerId, now: Instant) {
        self.denials.was_full(peer, now);
    }

    /// The peers that have refused this node and not let it in since, up to [`REFUSALS_MAX`](crate::limits::REFUSALS_MAX), and
    /// why.
    pub fn refusals(&self) -> impl Iterator<Item = (PeerId, RefusalCause)> + '_ {
        self.denials.refusals()
    }

    /// The peers that had no place for this node in the last
    /// [`FULL_REMEMBERED`](crate::swarm::membership::limits::FULL_REMEMBERED) and have not let it
    /// in since.
    pub fn full(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        self.denials.full(now)
    }

    /// The user named `count` peers, which are contacted for the first time.
    pub fn expect(&mut self, count: usize) {
        self.awaited += count;
    }

    /// One of them was contacted, or seems not to be there.
    pub fn expected_came(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    /// Number of named peers that may still turn up.
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// Number of live nodes that serve something.
    pub fn len(&self) -> usize {
        self.serving
    }

    /// Whether no live node serves anything.
    pub fn is_empty(&self) -> bool {
        self.serving == 0
    }

    /// Number of live nodes, this one and the ones that serve nothing included: the size of the
    /// group as known here.
    pub fn nodes(&self) -> usize {
        self.entries.len() + 1
    }

    /// Whether `node` is in the table.
    pub fn knows(&self, node: NodeId) -> bool {
        self.entries.contains_key(&node)
    }

    /// Number of live sessions.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> u32 {
        self.entries.values().map(|e| e.sessions.live).sum()
    }

    /// Number of other nodes that offer files.
    pub fn offering(&self) -> usize {
        self.entries.values().filter(|e| e.revision > 0).count()
    }

    /// Adds a node that is not in the table.
    fn insert(&mut self, received: &Received<'_>, change: &mut TableChange) -> Result<(), Dropped> {
        self.evict_instance(received, change)?;
        self.evict_for(received.addr.ip(), received.via, received.now, change)?;
        let (node, entry) = (received.node(), PeerEntry::new(received));
        self.deadlines.insert((entry.deadline, node));
        self.origins.add(entry.provenance.origin);
        self.entries.insert(node, entry);
        self.renew(received, change);
        Ok(())
    }

    /// Takes over what a newer announce of a known node says.
    fn renew(&mut self, received: &Received<'_>, change: &mut TableChange) {
        let (node, announce) = (received.node(), received.announce);
        let Some(entry) = self.entries.get_mut(&node) else { return };
        let (was_serving, old_revision) = (entry.is_serving(), entry.revision);
        change.notable |= entry.renew(received);
        match (was_serving, entry.is_serving()) {
            (false, true) => {
                self.serving += 1;
                change.events.push(Event::PeerJoined { node, addr: received.addr });
            }
            (true, false) => {
                self.serving -= 1;
                change.events.push(Event::PeerLeft { node });
            }
            (true, true) if announce.revision != old_revision => {
                change.events.push(Event::PeerChanged { node, revision: announce.revision });
            }
            _ => {}
        }
        change.notable |= !change.events.is_empty();
        self.count_member(received);
        self.alive(node, received.now);
    }

    /// `node` said goodbye.
    fn leave(&mut self, node: NodeId, change: &mut TableChange) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        if entry.sessions.live == 0 {
            return self.remove(node, change);
        }
        if entry.is_serving() {
            self.serving -= 1;
            change.events.push(Event::PeerLeft { node });
            change.notable = true;
        }
        entry.sessions.leaving = true;
    }

    fn remove(&mut self, node: NodeId, change: &mut TableChange) {
        let Some(entry) = self.entries.remove(&node) else { return };
        self.deadlines.remove(&(entry.deadline, node));
        self.tombstones.insert(node, entry.dated.seq);
        self.origins.remove(entry.provenance.origin);
        entry.provenance.member_from.into_iter().for_each(|source| self.members.remove(source));
        if entry.is_serving() {
            self.serving -= 1;
            change.events.push(Event::PeerLeft { node });
            change.notable = true;
        }
    }

    /// Takes `addr`, which has been proved to be `node`'s, from all other instances of its key.
    fn displace(&mut self, node: NodeId, addr: SocketAddr, change: &mut TableChange) {
        let others: Vec<NodeId> = self.instances(node.peer).map(|(n, _)| *n).filter(|n| *n != node).collect();
        for other in others {
            let Some(entry) = self.entries.get_mut(&other).filter(|e| e.port != 0) else { continue };
            entry.addrs.remove(addr);
            if entry.sessions.live == 0 && entry.addrs.best_first().next().is_none() {
                self.remove(other, change);
            }
        }
    }

    fn instances(&self, peer: PeerId) -> impl Iterator<Item = (&NodeId, &PeerEntry)> {
        self.entries.range(NodeId::new(peer, 0)..=NodeId::new(peer, u64::MAX))
    }
}

#[cfg(test)]
mod tests;
