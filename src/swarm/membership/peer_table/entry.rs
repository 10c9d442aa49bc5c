//! One node of the table.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::identity::{NodeId, PeerId};
use crate::limits::{TTL_MAX, TTL_MIN};
use crate::proto::{PeerHint, SignedAnnounce};
use crate::swarm::KnownPeer;
use crate::swarm::membership::addresses::{Addresses, Standing, is_usable};
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::limits::ECHO_WITHIN;
use crate::swarm::membership::peer_table::reported::FAR_MS;
use crate::swarm::membership::received::{ContactSource, Received, Via};

/// A live node that serves something, for users of the table.
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
    /// When its last new announce came.
    pub last_seen: Instant,
    /// Number of times that it offered to answer on a session of its own.
    pub offers: u32,
    /// The announce as received, to hand on.
    pub announce: SignedAnnounce,
}

impl From<PeerRecord> for KnownPeer {
    fn from(record: PeerRecord) -> Self {
        let PeerRecord { peer, instance, revision, addrs, last_seen, .. } = record;
        KnownPeer { node: NodeId { peer, instance }, revision, addrs, last_seen }
    }
}

impl PeerRecord {
    /// The node: its key and instance.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.peer, self.instance)
    }
}

#[derive(Debug)]
pub(super) struct PeerEntry {
    pub(super) dated: Dated,
    /// The time to live that it announced.
    pub(super) ttl: Duration,
    /// When it last gave a sign of life.
    pub(super) alive_at: Instant,
    /// 0 if the node serves nothing.
    pub(super) port: u16,
    pub(super) revision: u64,
    pub(super) last_seen: Instant,
    /// When it expires: its place in the table's deadlines.
    pub(super) deadline: Instant,
    pub(super) addrs: Addresses,
    pub(super) announce: SignedAnnounce,
    pub(super) sessions: Sessions,
    pub(super) provenance: Provenance,
}

/// How a node became known.
#[derive(Debug)]
pub(super) struct Provenance {
    /// Number of new announces that came from the node itself, not as hints.
    pub(super) first_hand: u32,
    /// How its first announce came, and from which source address.
    pub(super) found: Via,
    pub(super) origin: IpAddr,
    /// Why this node contacted it first.
    pub(super) contact: Option<ContactSource>,
    /// When its first datagram came, and its last one.
    pub(super) first_datagram: Option<Instant>,
    pub(super) last_datagram: Option<Instant>,
    /// Whether it opened a session to this node, by a dial.
    pub(super) dialed_here: bool,
    /// The source address of the announce that made it a member.
    pub(super) member_from: Option<IpAddr>,
}

/// When the last announce was made.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) seq: u64,
    /// `seq`, but not later than this node's clock at that time.
    pub(super) unix_ms: u64,
}

impl Dated {
    /// The number that a later announce must exceed.
    ///
    /// A clock may be more than a day ahead and be set right, after which the node's numbers are
    /// lower. So a number that is too far ahead for a datagram does not count: the first
    /// announce by the right time is a newer one.
    pub(super) fn of(received: &Received<'_>) -> Self {
        let seq = received.announce.seq;
        let is_far = seq.saturating_sub(received.unix_ms) > FAR_MS;
        let seq = if is_far { received.unix_ms.saturating_sub(1) } else { seq };
        Dated { seq, unix_ms: received.dated_unix_ms() }
    }
}

/// Live sessions with a node, which stays in the table as long as there are any.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) live: u32,
    /// Whether the node said goodbye. It ends with its last session.
    pub(super) leaving: bool,
    /// Number of times that it offered to answer on one that it opened.
    pub(super) offers: u32,
}

impl PeerEntry {
    /// A node that serves nothing yet; [`renew`](Self::renew) fills in the rest.
    pub(super) fn new(received: &Received<'_>) -> Self {
        PeerEntry {
            dated: Dated::of(received),
            ttl: TTL_MIN,
            alive_at: received.now,
            port: 0,
            revision: received.announce.revision,
            last_seen: received.now,
            deadline: received.now,
            addrs: Addresses::default(),
            announce: received.signed.clone(),
            sessions: Sessions::default(),
            provenance: Provenance {
                first_hand: 0,
                found: received.via,
                origin: received.addr.ip(),
                contact: None,
                first_datagram: None,
                last_datagram: None,
                dialed_here: false,
                member_from: None,
            },
        }
    }

    /// Takes over what a newer announce says. True if it brings a new address.
    pub(super) fn renew(&mut self, received: &Received<'_>) -> bool {
        let announce = received.announce;
        if self.port != announce.port {
            self.addrs.clear();
        }
        self.sessions.leaving = false;
        self.port = announce.port;
        self.revision = announce.revision;
        self.ttl = Duration::from_secs(announce.ttl_s.into()).clamp(TTL_MIN, TTL_MAX);
        self.last_seen = received.now;
        self.announce = received.signed.clone();
        if !received.via.is_hint() {
            let count = &mut self.provenance.first_hand;
            *count = count.saturating_add(1);
        }
        self.port != 0 && is_usable(received.addr) && self.addrs.note(received.addr, received.standing(), received.now)
    }

    /// Takes note of the address of an announce that is no newer than the last one. True if the
    /// address is new.
    pub(super) fn note_again(&mut self, received: &Received<'_>) -> Result<bool, Dropped> {
        let age = received.now.saturating_duration_since(self.last_seen);
        let is_echo = *received.signed == self.announce && age <= ECHO_WITHIN;
        let standing = match received.via {
            Via::Datagram if !is_echo => return Err(Dropped::Replayed),
            Via::Datagram => Standing::Echo,
            _ => received.standing(),
        };
        Ok(self.port != 0 && is_usable(received.addr) && self.addrs.note(received.addr, standing, received.now))
    }

    /// Whether it is on a link of this node: its datagrams arrive. One that moved elsewhere is none once they would have
    /// expired.
    pub(super) fn is_on_link(&self, now: Instant) -> bool {
        self.provenance.last_datagram.is_some_and(|at| now.saturating_duration_since(at) <= self.ttl)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.port != 0 && !self.sessions.leaving
    }

    /// What to tell a peer at `to` of this one.
    pub(super) fn hint(&self, to: IpAddr) -> Option<PeerHint> {
        let addrs: Vec<_> = match self.sessions.offers {
            0 => self.addrs.for_others(to).collect(),
            _ => self.addrs.of_offerer(to).collect(),
        };
        let is_useful = self.is_serving() && !addrs.is_empty();
        is_useful.then(|| PeerHint { announce: self.announce.as_bytes().to_vec(), addrs })
    }

    pub(super) fn record(&self, node: NodeId) -> PeerRecord {
        PeerRecord {
            peer: node.peer,
            instance: node.instance,
            revision: self.revision,
            addrs: self.addrs.best_first().collect(),
            last_seen: self.last_seen,
            offers: self.sessions.offers,
            announce: self.announce.clone(),
        }
    }
}
