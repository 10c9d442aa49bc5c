//! What is known of the peer of a session.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use crate::content::FileId;
use crate::identity::{NodeId, PeerId};
use crate::limits::{SERVED_REMEMBERED, WINDOW_MAX};
use crate::peers::{AnswerTicket, Presence};
use crate::proto::ChunkRef;
use crate::runtime::keystore::TrustView;
use crate::server::connection_slots::ConnectionSlot;

/// The peer of a session, whose key TLS has proved.
#[derive(Debug)]
pub(crate) struct RemotePeer {
    /// The number of its session.
    pub(crate) session: usize,
    pub(crate) id: PeerId,
    pub(crate) addr: SocketAddr,
    /// Whether it is on this host.
    pub(crate) is_local: bool,
    /// Taken by `Hello`; without it every other request is refused.
    pub(crate) slot: Option<ConnectionSlot>,
    /// Set by `Hello`: random per start of the peer.
    pub(crate) instance: u64,
    /// Set by a `Hello` with an announce: other peers learn of this one while it is here.
    pub(crate) presence: Option<Presence>,
    /// What it says that it is, until that is logged.
    pub(crate) agent: String,
    /// Its requests for chunks waited too long: the ones that have come are deferred.
    pub(crate) is_deferred: bool,
    /// Which side asks on its session.
    pub(crate) role: SessionRole,
    /// `None` before the first chunk: most idle sessions never ask for one.
    served: Option<Box<ServedChunks>>,
    /// The state of the trusted keys that allowed it.
    trust_generation: u64,
}

/// Which side asks on a session.
#[derive(Debug)]
pub(crate) enum SessionRole {
    /// The peer, which opened it.
    Asks,
    /// The peer opened it and offered to answer: this node may ask from now on.
    Answers,
    /// The peer, on a session that this node opened and offered to answer on.
    AsksTurned(Box<AnswerTicket>),
}

/// The chunks that were sent last, which may be reported as bad: a keyed hash of each, as thousands of
/// sessions may have [`SERVED_REMEMBERED`] of them.
#[derive(Debug, Default)]
struct ServedChunks {
    last: VecDeque<u64>,
    key: RandomState,
}

impl RemotePeer {
    pub(crate) fn new(session: usize, id: PeerId, addr: SocketAddr, trust: &TrustView) -> Self {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        RemotePeer {
            session,
            id,
            is_local: addr.ip().is_loopback(),
            addr,
            slot: None,
            instance: 0,
            presence: None,
            agent: String::new(),
            is_deferred: false,
            role: SessionRole::Asks,
            served: None,
            trust_generation: trust.generation(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.id, self.instance)
    }

    /// Whether it said `Hello` and was let in.
    pub(crate) fn is_admitted(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether it was let in by a trust that has ended since.
    pub(crate) fn is_revoked(&mut self, trust: &TrustView) -> bool {
        let generation = trust.generation();
        if !self.is_admitted() || generation == self.trust_generation {
            return false;
        }
        let is_revoked = !trust.allows(&self.id);
        if !is_revoked {
            self.trust_generation = generation;
        }
        is_revoked
    }

    /// Notes that it is being sent `chunk`.
    pub(crate) fn note_served(&mut self, chunk: ChunkRef) {
        let served = self.served.get_or_insert_default();
        if served.last.len() == SERVED_REMEMBERED {
            served.last.pop_front();
        }
        served.last.push_back(served.key.hash_one(chunk));
    }

    /// The `chunks` of a file that it may be sent as an answer to `AnyOf`. A peer names what it
    /// lacks when it asks, and some of that is on its way to it already: what it was sent last comes
    /// only when there is nothing else, the oldest first.
    pub(crate) fn lacking(&self, file: FileId, chunks: impl Iterator<Item = u32>) -> Vec<u32> {
        let sent_at = |index: &u32| {
            let served = self.served.as_deref()?;
            let hash = served.key.hash_one(ChunkRef { file, index: *index });
            served.last.iter().rev().position(|sent| *sent == hash)
        };
        let all: Vec<(u32, Option<usize>)> = chunks.map(|index| (index, sent_at(&index))).collect();
        let is_old = |at: &Option<usize>| at.is_none_or(|at| at >= WINDOW_MAX as usize);
        if all.iter().any(|(_, at)| is_old(at)) {
            return all.into_iter().filter(|(_, at)| is_old(at)).map(|(index, _)| index).collect();
        }
        all.into_iter().max_by_key(|(_, at)| *at).map(|(index, _)| index).into_iter().collect()
    }

    /// Whether `chunk` is one of the last that it was sent.
    pub(crate) fn was_served(&self, chunk: &ChunkRef) -> bool {
        self.served.as_deref().is_some_and(|served| served.last.contains(&served.key.hash_one(chunk)))
    }
}
