//! Offers to answer on sessions that this node opens: for peers that cannot dial it, behind a NAT or a firewall.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::discovery::DiscoveryContext;
use crate::discovery::limits::{
    CONTACT_TIMEOUT, OFFER_AFTER, OFFER_AGAIN, OFFER_FURTHER, OFFER_RETRY_FIRST, OFFER_RETRY_MAX, OFFERED_PEERS_MAX,
    OFFERS_AT_ONCE,
};
use crate::identity::NodeId;
use crate::peers::limits::TURNED_PER_NODE_MAX;
use crate::peers::{Answered, AskError, TurnAnswer};
use crate::swarm::{PeerRecord, PeerTable};

/// Decides which peers are offered a session when.
///
/// A node cannot know whether others reach it, so it offers to all peers that are on no link of its own; a peer that has
/// dialed it says so, and is asked again much later.
pub(super) struct TurnOffers {
    peers: HashMap<NodeId, OfferedPeer>,
    begin: Instant,
    pending: usize,
}

/// What became of the offers to one peer.
struct OfferedPeer {
    /// When the last one was taken.
    taken: Option<Instant>,
    /// No offer before this time; `None` while one is made.
    retry_at: Option<Instant>,
    failures: u32,
}

/// How an offer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfferEnd {
    Taken,
    /// None is needed, or none is known there.
    NotNeeded,
    /// Not before that time.
    Later(Duration),
    Failed,
}

impl TurnOffers {
    pub(super) fn new(now: Instant) -> Self {
        TurnOffers { peers: HashMap::new(), begin: now + OFFER_AFTER, pending: 0 }
    }

    /// The peers to offer a session to now; each counts as being offered one until [`ended`](Self::ended).
    pub(super) fn due(&mut self, shared: &DiscoveryContext, now: Instant) -> Vec<PeerRecord> {
        let turned = shared.directory().turned();
        if now < self.begin || self.pending >= OFFERS_AT_ONCE || !turned.can_answer() {
            return Vec::new();
        }
        let distant = shared.directory().read(PeerTable::distant);
        self.peers.retain(|node, known| known.retry_at.is_none() || distant.iter().any(|peer| peer.node() == *node));
        let is_full = turned.asking() >= OFFERED_PEERS_MAX;
        let mut due = Vec::new();
        for peer in distant {
            if self.pending >= OFFERS_AT_ONCE {
                break;
            }
            let (node, answered) = (peer.node(), turned.answered(peer.node()));
            let known = self.peers.entry(node).or_insert(OfferedPeer { taken: None, retry_at: Some(now), failures: 0 });
            if (answered.open > 0 || !is_full) && known.is_due(answered, now) {
                known.retry_at = None;
                self.pending += 1;
                due.push(peer);
            }
        }
        due
    }

    /// An offer ended.
    pub(super) fn ended(&mut self, node: NodeId, end: OfferEnd, now: Instant) {
        self.pending -= 1;
        let Some(known) = self.peers.get_mut(&node) else { return };
        known.failures = if end == OfferEnd::Failed { known.failures + 1 } else { 0 };
        let wait = match end {
            OfferEnd::Taken => Duration::ZERO,
            OfferEnd::NotNeeded => OFFER_RETRY_MAX,
            OfferEnd::Later(wait) => wait.clamp(OFFER_RETRY_FIRST, OFFER_RETRY_MAX),
            OfferEnd::Failed => OFFER_RETRY_FIRST.saturating_mul(1 << known.failures.min(8)).min(OFFER_RETRY_MAX),
        };
        known.taken = if end == OfferEnd::Taken { Some(now) } else { known.taken };
        known.retry_at = Some(now + wait);
    }
}

impl OfferedPeer {
    /// One session waits to be asked on, or all that there may be are in use.
    fn is_due(&self, answered: Answered, now: Instant) -> bool {
        let since = |rest| self.taken.is_none_or(|at| now.saturating_duration_since(at) >= rest);
        let lacks = answered.open == answered.begun && answered.open < TURNED_PER_NODE_MAX;
        let rested = since(if answered.begun > 0 { OFFER_FURTHER } else { OFFER_AGAIN });
        lacks && rested && self.retry_at.is_some_and(|at| at <= now)
    }
}

/// Offers the peer at the first of `addrs` that answers to answer on the session.
pub(super) fn offer(shared: &DiscoveryContext, node: NodeId, addrs: &[SocketAddr]) -> OfferEnd {
    let dialer = &shared.offering;
    let made = dialer.open_any(node.peer, addrs).map_err(|(e, addr)| {
        if matches!(e, AskError::Stream(_)) {
            shared.directory().failed(node, addr, Instant::now());
        }
        e
    });
    let made = made.and_then(|session| match session.node() == node {
        true => session.turn(dialer, Instant::now() + CONTACT_TIMEOUT),
        // The peer started again; its new node is offered a session of its own.
        false => Ok(TurnAnswer::NotNeeded),
    });
    log::debug!("offers to answer peer={} error={:?}", node.peer, made.as_ref().err());
    match made {
        Ok(TurnAnswer::Taken(answering)) => {
            shared.directory().turned().answer(*answering);
            OfferEnd::Taken
        }
        Ok(TurnAnswer::NotNeeded | TurnAnswer::Unknown) => OfferEnd::NotNeeded,
        Ok(TurnAnswer::Later(wait)) | Err(AskError::Busy(wait)) => OfferEnd::Later(wait),
        Err(_) => OfferEnd::Failed,
    }
}
