//! Who is there.

use std::net::SocketAddr;
use std::time::Instant;

use crate::identity::PeerId;
use crate::proto::{Announce, SignedAnnounce};
use crate::swarm::Event;

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

/// How a peer's address became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The source of its own datagram.
    Datagram,
    /// Somebody else's word.
    Hint,
    /// A TLS session with that key at that address.
    Session,
}

/// All live peers, bounded.
#[derive(Debug)]
pub struct PeerTable;

impl PeerTable {
    /// An empty table of a node that is `own` (key, instance).
    pub fn new(own: (PeerId, u64)) -> Self {
        todo!("{own:?}")
    }

    /// Takes in a verified announce that came from (or points to) `addr`, the address where the peer serves.
    /// Returns the events to tell.
    pub fn upsert(
        &mut self,
        signed: &SignedAnnounce,
        announce: &Announce,
        addr: SocketAddr,
        via: Via,
        unix_ms: u64,
        now: Instant,
    ) -> Vec<Event> {
        todo!("{signed:?} {announce:?} {addr} {via:?} {unix_ms} {now:?}")
    }

    /// Ends what has not been heard for its time to live.
    pub fn expire(&mut self, now: Instant) -> Vec<Event> {
        todo!("{now:?}")
    }

    /// TLS proved `peer` (instance) at `addr`: it is alive, and this address is best.
    pub fn proved(&mut self, peer: PeerId, instance: u64, addr: SocketAddr, now: Instant) {
        todo!("{peer} {instance} {addr} {now:?}")
    }

    /// `addr` of `peer` could not be reached or is someone else: other addresses come first now.
    pub fn failed(&mut self, peer: PeerId, instance: u64, addr: SocketAddr, now: Instant) {
        todo!("{peer} {instance} {addr} {now:?}")
    }

    /// All live peers that serve something (port other than 0).
    pub fn peers(&self) -> Vec<PeerRecord> {
        todo!()
    }

    /// A peer at `addr` answered but refused this node's key (or was refused by it).
    pub fn refused(&mut self, peer: PeerId, addr: SocketAddr, now: Instant) {
        todo!("{peer} {addr} {now:?}")
    }

    /// How many different peers have refused this node so far.
    pub fn refusals(&self) -> usize {
        todo!()
    }

    /// Number of live (key, instance).
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
