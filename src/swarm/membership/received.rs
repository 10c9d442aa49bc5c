//! An announce on its way into the table, and what it changed there.

use std::net::SocketAddr;
use std::time::Instant;

use crate::identity::NodeId;
use crate::proto::{Announce, Flags, SignedAnnounce};
use crate::swarm::Event;
use crate::swarm::membership::addresses::Standing;
#[cfg(doc)]
use crate::swarm::membership::addresses::is_far;

/// A *verified* announce and the way it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The announce as received.
    pub signed: &'a SignedAnnounce,
    /// The same, parsed.
    pub announce: &'a Announce,
    /// Where the peer serves. The port does not matter if the announced one is 0.
    pub addr: SocketAddr,
    /// The way it came.
    pub via: Via,
    /// This node's clock in Unix ms.
    pub unix_ms: u64,
    /// The time.
    pub now: Instant,
}

/// How an announce, and with it an address, became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A datagram from the peer: the source is the address, with the announced port.
    Datagram,
    /// Another peer named it (PEX).
    Hint,
    /// As [`Hint`](Via::Hint), but with an address that may mean nothing here: see [`is_far`].
    FarHint,
    /// A session that the peer opened: TLS proved the key at the source, the peer names the port.
    Hello,
    /// A session that this node opened to that address: TLS proved the key there.
    Session,
}

/// Why a node contacts a peer that it knows from no announce and from no other peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactSource {
    /// The user or the program named it.
    Named,
    /// The peer file names it.
    File,
    /// It was proved in an earlier run.
    Memory,
    /// A directory that anybody can write to named it: DNS-SD or a DHT.
    Directory,
}

impl Via {
    /// Whether another peer named it.
    pub fn is_hint(self) -> bool {
        matches!(self, Via::Hint | Via::FarHint)
    }
}

/// What an announce changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TableChange {
    /// What to tell users.
    pub events: Vec<Event>,
    /// Whether a peer joined, left or changed, or can be reached at a new address: threads that
    /// wait for the table look again.
    pub notable: bool,
    /// The peer's clock minus this one's in ms, if that is much and was not reported for this key
    /// before.
    pub skew_ms: Option<i64>,
    /// Two hosts that use this key at the same time, if that was not reported before.
    pub duplicate_key: Option<(SocketAddr, SocketAddr)>,
}

impl Received<'_> {
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.announce.peer, self.announce.instance)
    }

    pub(crate) fn is_goodbye(&self) -> bool {
        self.announce.flags.contains(Flags::GOODBYE)
    }

    /// Whether the announce came in a session of the peer, where nothing is replayed.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.via, Via::Hello | Via::Session)
    }

    /// When the announce was made, in Unix ms, but not later than this node's clock: a peer gains
    /// nothing by dating ahead.
    pub(crate) fn dated_unix_ms(&self) -> u64 {
        self.announce.seq.min(self.unix_ms)
    }

    /// How well a fresh announce makes its address known.
    pub(crate) fn standing(&self) -> Standing {
        match self.via {
            Via::Hint => Standing::Hint,
            Via::FarHint => Standing::FarHint,
            Via::Datagram | Via::Hello => Standing::Own,
            Via::Session => Standing::Proved,
        }
    }
}
