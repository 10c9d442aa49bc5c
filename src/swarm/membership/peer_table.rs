//! Who is there: all live peers, what they last said, and where they may be reached.
//!
//! A peer is a (key, instance), since a user's server and client share one key. The table believes verified
//! announces only (its callers verify), and takes nobody's word for another's address: see `addresses`.
//! Whom to trust is decided before; [`PeerTable::retain`] follows when that changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::identity::{NodeId, PeerId};
use crate::limits::{CLOCK_SKEW_MAX, PEERS_MAX, REFUSALS_MAX, TTL_MAX, TTL_MIN};
use crate::proto::{Announce, Flags, PeerHint, SignedAnnounce};
use crate::swarm::Event;
use crate::swarm::membership::addresses::{Addresses, Standing, canonical, is_usable};
use crate::swarm::membership::admit::{Dropped, open_announce};
use crate::swarm::membership::departed::Departed;
use crate::swarm::membership::limits::{CLOCK_SKEW_LOGGED, ECHO_WITHIN};

mod room;
mod twins;

/// All live peers, at most [`PEERS_MAX`].
///
/// A full table makes room by levelling: peers known only by others' word give way first, then those of the source
/// address that has most; never one that TLS proved or that has a session. So one host with many keys cannot push
/// out the others.
#[derive(Debug)]
pub struct PeerTable {
    own: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    /// Every entry once, by when it expires.
    deadlines: BTreeSet<(Instant, NodeId)>,
    /// Entries that `peers` returns.
    serving: usize,
    departed: Departed,
    refusals: BTreeMap<PeerId, (SocketAddr, Instant)>,
    /// Peers that the user named and that have not been heard of yet.
    awaited: usize,
    /// Keys whose clock, and whose use on two hosts, has been reported.
    skew_told: BTreeSet<PeerId>,
    twins_told: BTreeSet<PeerId>,
    /// Where the last `hints` ended.
    cursor: NodeId,
    /// How many entries first came from each source.
    origins: BTreeMap<IpAddr, usize>,
    /// Until when no room is sought in a full table for a source that has so many entries or more.
    full_until: Option<(Instant, usize)>,
}

/// A live (key, instance).
#[derive(Debug, Clone)]
pub struct PeerRecord {
    /// Its key.
    pub peer: PeerId,
    /// Its instance.
    pub instance: u64,
    /// Revision of its catalogue, as last announced.
    pub revision: u64,
    /// Where it serves, best first: addresses that TLS proved, then the freshest hints.
    pub addrs: Vec<SocketAddr>,
    /// When it was last heard.
    pub heard: Instant,
    /// The announce as received, to hand on.
    pub announce: SignedAnnounce,
}

impl PeerRecord {
    /// The node: its key and instance.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.peer, self.instance)
    }
}

/// How an announce, and with it an address, became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A datagram from the peer: the source is the address, with the announced port.
    Datagram,
    /// Somebody else's word.
    Hint,
    /// A session that the peer opened: TLS proved the key at the source, the announced port is the peer's word.
    Hello,
    /// A session that this node opened to that address: TLS proved the key there.
    Session,
}

/// What an announce changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What to tell.
    pub events: Vec<Event>,
    /// Whether somebody joined, left or changed, or can be reached at an address that is new: who waits for the
    /// table should look again.
    pub news: bool,
    /// The peer's clock minus this one's in ms, if that is much and was not reported for this key before.
    pub skew_ms: Option<i64>,
    /// Two hosts that use this key at the same time, if that was not reported before.
    pub twins: Option<(SocketAddr, SocketAddr)>,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    /// `seq`, but not later than this node's clock when it came: dating ahead gains nothing.
    said_unix_ms: u64,
    ttl: Duration,
    port: u16,
    revision: u64,
    heard: Instant,
    /// Its place in `deadlines`.
    deadline: Instant,
    addrs: Addresses,
    announce: SignedAnnounce,
    /// Live sessions with it; it stays as long as there are any.
    sessions: u32,
    /// It said goodbye, and ends with its last session.
    leaving: bool,
    /// Fresh announces that came from itself, not by others' word.
    first_hand: u32,
    /// Where its first announce came from.
    origin: IpAddr,
}

impl PeerTable {
    /// An empty table of a node that is `own` (key, instance).
    pub fn new(own: NodeId) -> Self {
        PeerTable {
            own,
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serving: 0,
            departed: Departed::default(),
            refusals: BTreeMap::new(),
            awaited: 0,
            skew_told: BTreeSet::new(),
            twins_told: BTreeSet::new(),
            cursor: own,
            origins: BTreeMap::new(),
            full_until: None,
        }
    }

    /// A cheap look before the signature is checked: `Ok(true)` if these very bytes have been verified before,
    /// `Ok(false)` if the announce is news.
    ///
    /// # Errors
    /// [`Dropped::Own`] and [`Dropped::Replayed`].
    pub fn screen(&self, signed: &SignedAnnounce, announce: &Announce) -> Result<bool, Dropped> {
        let key = NodeId::new(announce.peer, announce.instance);
        if key == self.own {
            return Err(Dropped::Own);
        }
        match self.entries.get(&key) {
            Some(entry) if entry.announce == *signed => Ok(true),
            Some(entry) if announce.seq <= entry.seq => Err(Dropped::Replayed),
            None if self.departed.covers(&key, announce.seq) => Err(Dropped::Replayed),
            _ => Ok(false),
        }
    }

    /// Takes in a *verified* announce that came from (or points to) `addr`, the address where the peer serves; the
    /// port does not matter if the announced one is 0. `unix_ms` is this node's clock.
    ///
    /// # Errors
    /// [`Dropped`]: own, replayed, stale, future, crowded, full. Hints that are older than what is known are no
    /// error, as others may simply have heard less.
    pub fn upsert(
        &mut self,
        signed: &SignedAnnounce,
        announce: &Announce,
        addr: SocketAddr,
        via: Via,
        unix_ms: u64,
        now: Instant,
    ) -> Result<Heard, Dropped> {
        let key = NodeId::new(announce.peer, announce.instance);
        if key == self.own {
            return Err(Dropped::Own);
        }
        let skew_ms = skew(announce.seq, unix_ms)?;
        let addr = canonical(addr);
        let mut heard = Heard::default();
        if !self.entries.contains_key(&key) {
            if self.departed.covers(&key, announce.seq) {
                return Err(Dropped::Replayed);
            }
            if !announce.flags.contains(Flags::GOODBYE) {
                self.give_way(announce, addr, via, unix_ms, &mut heard)?;
                self.make_room(addr.ip(), via, now, &mut heard)?;
                self.insert(key, signed, announce, addr, via, unix_ms, now, &mut heard);
                self.note_skew(announce.peer, skew_ms, via, &mut heard);
            }
            return Ok(heard);
        }
        if via == Via::Session {
            heard.events = self.proved(announce.peer, announce.instance, addr, now);
        }
        let Some(entry) = self.entries.get_mut(&key) else { return Ok(heard) };
        if announce.seq <= entry.seq {
            let echo = *signed == entry.announce && now.saturating_duration_since(entry.heard) <= ECHO_WITHIN;
            let standing = match via {
                Via::Datagram if !echo => return Err(Dropped::Replayed),
                Via::Datagram => Standing::Echo,
                Via::Hint => Standing::Hint,
                Via::Hello => Standing::Own,
                Via::Session => Standing::Proved,
            };
            heard.news |= entry.port != 0 && is_usable(addr) && entry.addrs.note(addr, standing, now);
            return Ok(heard);
        }
        entry.seq = announce.seq;
        entry.said_unix_ms = announce.seq.min(unix_ms);
        if announce.flags.contains(Flags::GOODBYE) {
            self.leave(key, &mut heard);
            return Ok(heard);
        }
        self.refresh(key, signed, announce, addr, via, now, &mut heard);
        self.note_skew(announce.peer, skew_ms, via, &mut heard);
        heard.twins = self.find_twins(key);
        Ok(heard)
    }

    /// Takes in the announce that `peer` (key and instance, the key proved by TLS) sent over a session from or to
    /// `addr`: reads it, verifies it, and [`upsert`](Self::upsert)s it. With [`Via::Hello`] the port of `addr` is
    /// replaced by the announced one. Whether the key is trusted is decided before.
    ///
    /// # Errors
    /// [`Dropped`]
    #[allow(clippy::too_many_arguments)]
    pub fn admit(
        &mut self,
        bytes: &[u8],
        network: &str,
        peer: NodeId,
        mut addr: SocketAddr,
        via: Via,
        unix_ms: u64,
        now: Instant,
    ) -> Result<Heard, Dropped> {
        let (signed, announce) = open_announce(bytes, network, peer)?;
        if via == Via::Hello {
            addr.set_port(announce.port);
        }
        self.upsert(&signed, &announce, addr, via, unix_ms, now)
    }

    /// Ends what has not been heard for its time to live. Costs nothing when nobody has expired.
    pub fn expire(&mut self, now: Instant) -> Vec<Event> {
        let mut heard = Heard::default();
        while let Some(&(deadline, key)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            match self.entries.get(&key) {
                Some(entry) if entry.sessions > 0 => self.set_deadline(key, now + entry.ttl),
                Some(_) => self.remove(key, &mut heard),
                None => drop(self.deadlines.remove(&(deadline, key))),
            }
        }
        heard.events
    }

    /// When somebody expires next, unless heard before.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// TLS proved `peer` (instance) at `addr`: it is alive, and this address is best. Another instance of that key
    /// is not there any more.
    pub fn proved(&mut self, peer: PeerId, instance: u64, addr: SocketAddr, now: Instant) -> Vec<Event> {
        let (key, addr, mut heard) = (NodeId::new(peer, instance), canonical(addr), Heard::default());
        self.refusals.remove(&peer);
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.port != 0 {
                entry.addrs.note(addr, Standing::Proved, now);
            }
            let deadline = now + entry.ttl;
            self.set_deadline(key, deadline);
            self.displace(key, addr, &mut heard);
        }
        heard.events
    }

    /// `addr` of `peer` could not be reached or is someone else: other addresses come first now.
    pub fn failed(&mut self, peer: PeerId, instance: u64, addr: SocketAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&NodeId::new(peer, instance)) {
            entry.addrs.failed(canonical(addr), now);
        }
    }

    /// A session with `peer` (instance) began; while there is one, the peer neither expires nor leaves. Call
    /// [`session_closed`](Self::session_closed) once for each.
    pub fn session_opened(&mut self, peer: PeerId, instance: u64) {
        if let Some(entry) = self.entries.get_mut(&NodeId::new(peer, instance)) {
            entry.sessions = entry.sessions.saturating_add(1);
        }
    }

    /// A session with `peer` (instance) ended. It was alive until now.
    pub fn session_closed(&mut self, peer: PeerId, instance: u64, now: Instant) -> Vec<Event> {
        let (key, mut heard) = (NodeId::new(peer, instance), Heard::default());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.sessions = entry.sessions.saturating_sub(1);
            let (ended, deadline) = (entry.leaving && entry.sessions == 0, now + entry.ttl);
            if ended { self.remove(key, &mut heard) } else { self.set_deadline(key, deadline) }
        }
        heard.events
    }

    /// Forgets every peer whose key is not `allowed` any more.
    pub fn retain(&mut self, allowed: impl Fn(&PeerId) -> bool) -> Vec<Event> {
        let gone: Vec<NodeId> = self.entries.keys().filter(|NodeId { peer, .. }| !allowed(peer)).copied().collect();
        let mut heard = Heard::default();
        for key in gone {
            self.remove(key, &mut heard);
        }
        heard.events
    }

    /// All live peers that serve something (port other than 0): first those that TLS proved, then the last heard.
    pub fn peers(&self) -> Vec<PeerRecord> {
        let mut serving: Vec<_> = self.entries.iter().filter(|(_, e)| e.is_serving()).collect();
        serving.sort_by_key(|(_, e)| (Reverse(e.addrs.any_proved()), Reverse(e.heard)));
        serving.into_iter().map(|(key, entry)| record(key, entry)).collect()
    }

    /// One live peer that serves something.
    pub fn peer(&self, peer: PeerId, instance: u64) -> Option<PeerRecord> {
        let key = NodeId::new(peer, instance);
        self.entries.get(&key).filter(|e| e.is_serving()).map(|entry| record(&key, entry))
    }

    /// What to tell a peer at `to` of the others: at most `max`, of addresses that TLS proved or that announces came
    /// from, and no address that means something only on this host unless `to` is on it. Calls take turns through
    /// the table, so that whoever asks again hears of everyone.
    pub fn hints(&mut self, to: IpAddr, max: usize) -> Vec<PeerHint> {
        let to = to.to_canonical();
        let after = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let turn = self.entries.range(after).chain(self.entries.range(..=self.cursor));
        let mut last = self.cursor;
        let hints = turn
            .filter_map(|(key, entry)| Some((*key, entry.hint(to)?)))
            .take(max)
            .map(|(key, hint)| {
                last = key;
                hint
            })
            .collect();
        self.cursor = last;
        hints
    }

    /// What to tell a peer at `to` of one other, by the rules of [`hints`](Self::hints); `None` if there is nothing that
    /// may be told.
    pub fn hint(&self, peer: PeerId, instance: u64, to: IpAddr) -> Option<PeerHint> {
        self.entries.get(&NodeId::new(peer, instance))?.hint(to.to_canonical())
    }

    /// A peer at `addr` answered but refused this node's key (or was refused by it).
    pub fn refused(&mut self, peer: PeerId, addr: SocketAddr, now: Instant) {
        if self.refusals.len() < REFUSALS_MAX || self.refusals.contains_key(&peer) {
            self.refusals.insert(peer, (canonical(addr), now));
        }
    }

    /// How many different peers have refused this node, and not let it in since; counted up to [`REFUSALS_MAX`].
    pub fn refusals(&self) -> usize {
        self.refusals.len()
    }

    /// So many peers are named by the user, and are being contacted for the first time.
    pub fn expect(&mut self, named: usize) {
        self.awaited += named;
    }

    /// One of them was contacted, or seems not to be there.
    pub fn expected_came(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    /// How many of them may still turn up.
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// Number of live (key, instance) that serve something.
    pub fn len(&self) -> usize {
        self.serving
    }

    /// Whether nobody serves anything.
    pub fn is_empty(&self) -> bool {
        self.serving == 0
    }

    /// Number of live nodes, those that serve nothing and this one included: the size of the group as known here.
    pub fn nodes(&self) -> usize {
        self.entries.len() + 1
    }

    /// Whether there is that node.
    pub fn knows(&self, node: NodeId) -> bool {
        self.entries.contains_key(&node)
    }

    /// Number of live sessions.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> u32 {
        self.entries.values().map(|e| e.sessions).sum()
    }

    /// Nodes other than this one that offer files.
    pub fn offering(&self) -> usize {
        self.entries.values().filter(|e| e.revision > 0).count()
    }

    #[allow(clippy::too_many_arguments)]
    fn insert(
        &mut self,
        key: NodeId,
        signed: &SignedAnnounce,
        announce: &Announce,
        addr: SocketAddr,
        via: Via,
        unix_ms: u64,
        now: Instant,
        heard: &mut Heard,
    ) {
        let entry = Entry {
            seq: announce.seq,
            said_unix_ms: announce.seq.min(unix_ms),
            ttl: TTL_MIN,
            port: 0,
            revision: announce.revision,
            heard: now,
            deadline: now,
            addrs: Addresses::default(),
            announce: signed.clone(),
            sessions: 0,
            leaving: false,
            first_hand: 0,
            origin: addr.ip(),
        };
        self.deadlines.insert((entry.deadline, key));
        *self.origins.entry(entry.origin).or_default() += 1;
        self.entries.insert(key, entry);
        self.refresh(key, signed, announce, addr, via, now, heard);
    }

    /// Takes over what a newer announce says.
    #[allow(clippy::too_many_arguments)]
    fn refresh(
        &mut self,
        key: NodeId,
        signed: &SignedAnnounce,
        announce: &Announce,
        addr: SocketAddr,
        via: Via,
        now: Instant,
        heard: &mut Heard,
    ) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let was_serving = entry.is_serving();
        if entry.port != announce.port {
            entry.addrs.clear();
        }
        entry.leaving = false;
        entry.port = announce.port;
        entry.ttl = Duration::from_secs(announce.ttl_s.into()).clamp(TTL_MIN, TTL_MAX);
        entry.heard = now;
        entry.announce = signed.clone();
        if via != Via::Hint {
            entry.first_hand = entry.first_hand.saturating_add(1);
        }
        if entry.port != 0 && is_usable(addr) {
            let standing = match via {
                Via::Hint => Standing::Hint,
                Via::Datagram | Via::Hello => Standing::Own,
                Via::Session => Standing::Proved,
            };
            heard.news |= entry.addrs.note(addr, standing, now);
        }
        let revision_changed = std::mem::replace(&mut entry.revision, announce.revision) != announce.revision;
        let (serving, deadline) = (entry.is_serving(), now + entry.ttl);
        match (was_serving, serving) {
            (false, true) => {
                self.serving += 1;
                heard.events.push(Event::PeerJoined { peer: key.peer, addr });
            }
            (true, false) => {
                self.serving -= 1;
                heard.events.push(Event::PeerLeft { peer: key.peer });
            }
            (true, true) if revision_changed => {
                heard.events.push(Event::PeerChanged { peer: key.peer, revision: announce.revision });
            }
            _ => {}
        }
        heard.news |= !heard.events.is_empty();
        self.set_deadline(key, deadline);
    }

    /// `key` said goodbye.
    fn leave(&mut self, key: NodeId, heard: &mut Heard) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.sessions == 0 {
            return self.remove(key, heard);
        }
        if entry.is_serving() {
            self.serving -= 1;
            heard.events.push(Event::PeerLeft { peer: key.peer });
            heard.news = true;
        }
        entry.leaving = true;
    }

    fn remove(&mut self, key: NodeId, heard: &mut Heard) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.deadlines.remove(&(entry.deadline, key));
        self.departed.insert(key, entry.seq);
        if let Some(count) = self.origins.get_mut(&entry.origin) {
            *count -= 1;
            if *count == 0 {
                self.origins.remove(&entry.origin);
            }
        }
        if entry.is_serving() {
            self.serving -= 1;
            heard.events.push(Event::PeerLeft { peer: key.peer });
            heard.news = true;
        }
    }

    /// Takes `addr` from all other instances of the key: it has been proved to be `key`'s.
    fn displace(&mut self, key: NodeId, addr: SocketAddr, heard: &mut Heard) {
        let others: Vec<NodeId> = self.instances(key.peer).map(|(k, _)| *k).filter(|k| *k != key).collect();
        for other in others {
            let Some(entry) = self.entries.get_mut(&other).filter(|e| e.port != 0) else { continue };
            entry.addrs.remove(addr);
            if entry.sessions == 0 && entry.addrs.best_first().next().is_none() {
                self.remove(other, heard);
            }
        }
    }

    fn set_deadline(&mut self, key: NodeId, deadline: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.deadlines.remove(&(entry.deadline, key));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, key));
        }
    }

    fn note_skew(&mut self, peer: PeerId, skew_ms: i64, via: Via, heard: &mut Heard) {
        let much = skew_ms.unsigned_abs() > CLOCK_SKEW_LOGGED.as_millis() as u64;
        // What others hand on is older than their clocks are wrong.
        if much && via != Via::Hint && self.skew_told.len() < PEERS_MAX && self.skew_told.insert(peer) {
            heard.skew_ms = Some(skew_ms);
        }
    }

    fn instances(&self, peer: PeerId) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.entries.range(NodeId::new(peer, 0)..=NodeId::new(peer, u64::MAX))
    }
}

impl Entry {
    fn is_serving(&self) -> bool {
        self.port != 0 && !self.leaving
    }

    /// What to tell a peer at `to` of this one.
    fn hint(&self, to: IpAddr) -> Option<PeerHint> {
        let addrs: Vec<_> = self.addrs.for_others(to).collect();
        let told = self.is_serving() && !addrs.is_empty();
        told.then(|| PeerHint { announce: self.announce.as_bytes().to_vec(), addrs })
    }
}

fn record(&NodeId { peer, instance }: &NodeId, entry: &Entry) -> PeerRecord {
    PeerRecord {
        peer,
        instance,
        revision: entry.revision,
        addrs: entry.addrs.best_first().collect(),
        heard: entry.heard,
        announce: entry.announce.clone(),
    }
}

/// The peer's clock minus this one's in ms, bounded.
fn skew(seq: u64, unix_ms: u64) -> Result<i64, Dropped> {
    let bound = CLOCK_SKEW_MAX.as_millis() as u64;
    match seq.abs_diff(unix_ms) {
        ahead if seq > unix_ms => {
            if ahead > bound {
                Err(Dropped::Future)
            } else {
                Ok(ahead as i64)
            }
        }
        behind if behind > bound => Err(Dropped::Stale),
        behind => Ok(-(behind as i64)),
    }
}

#[cfg(test)]
mod tests;
