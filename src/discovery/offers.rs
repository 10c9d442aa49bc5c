//! Offers to answer on sessions that this node opens: for peers that cannot dial it, behind a NAT or a firewall.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::discovery::DiscoveryContext;
use crate::discovery::limits::{
    CONTACT_TIMEOUT, OFFER_AFTER, OFFER_AGAIN, OFFER_DIAL_TIMEOUT, OFFER_FURTHER, OFFER_RETRY_FIRST, OFFER_RETRY_MAX,
    OFFERED_PEERS_MAX, OFFERS_AT_ONCE,
};
use crate::identity::NodeId;
use crate::peers::limits::TURNED_PER_NODE_MAX;
use crate::peers::{Answered, AskError, Call, Session, TurnAnswer};
use crate::swarm::PeerRecord;

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
#[derive(Default)]
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
        let answered = turned.answered();
        let room = OFFERS_AT_ONCE - self.pending;
        let due = shared.directory().read(|table| {
            self.peers.retain(|node, known| known.retry_at.is_none() || table.knows(*node));
            table.distant(room, |node| self.is_due(node, &answered, now))
        });
        self.pending += due.len();
        for peer in &due {
            self.peers.entry(peer.node()).or_default().retry_at = None;
        }
        due
    }

    fn is_due(&self, node: NodeId, answered: &HashMap<NodeId, Answered>, now: Instant) -> bool {
        match (self.peers.get(&node), answered.get(&node)) {
            (_, None) if answered.len() >= OFFERED_PEERS_MAX => false,
            (None, None) => true,
            (known, of_peer) => known.is_none_or(|known| known.is_due(of_peer.copied().unwrap_or_default(), now)),
        }
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
    let made = dial(shared, node, addrs).and_then(|session| match session.node() == node {
        true => session.turn(dialer, Instant::now() + CONTACT_TIMEOUT),
        // The peer started again; its new node is offered a session of its own.
        false => Ok(TurnAnswer::NotNeeded),
    });
    match made {
        Ok(TurnAnswer::Taken(answering)) => {
            let tag = shared.directory().own().tag();
            log::info!("answers on a session that it opened peer={} addr={}{tag}", node.peer, answering.end.addr);
            shared.directory().turned().answer(*answering);
            OfferEnd::Taken
        }
        Ok(TurnAnswer::NotNeeded | TurnAnswer::Unknown) => OfferEnd::NotNeeded,
        Ok(TurnAnswer::Later(wait)) | Err(AskError::Busy(wait)) => OfferEnd::Later(wait),
        Err(e) => {
            log::debug!("offer failed peer={} error=\"{e}\"", node.peer);
            OfferEnd::Failed
        }
    }
}

/// Opens a session at the first of `addrs` that answers, each within a short time: many lead nowhere from here.
fn dial(shared: &DiscoveryContext, node: NodeId, addrs: &[SocketAddr]) -> Result<Session, AskError> {
    let mut result = Err(AskError::NoAddress);
    for &addr in addrs {
        let (expect, welcome_by) = (Some(node.peer), Some(Instant::now() + CONTACT_TIMEOUT));
        result = shared.offering.open(&Call { addr, expect, dial_timeout: OFFER_DIAL_TIMEOUT, welcome_by, also: &[] });
        // The failure is not noted: others may reach the address, or may be offered a session by the peer.
        if !matches!(result, Err(AskError::Stream(_))) || shared.shutdown.has_begun() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;

    const WAITS: Answered = Answered { open: 1, begun: 0 };
    const USED: Answered = Answered { open: 1, begun: 1 };

    fn after(end: OfferEnd) -> (OfferedPeer, Instant) {
        let (mut offers, now, node) =
            (TurnOffers::new(Instant::now()), Instant::now(), NodeId::new(PeerId([1; 32]), 1));
        offers.peers.insert(node, OfferedPeer::default());
        offers.pending = 1;
        offers.ended(node, end, now);
        assert_eq!(offers.pending, 0);
        (offers.peers.remove(&node).unwrap(), now)
    }

    #[test]
    fn one_session_waits_and_one_more_follows_when_it_is_used() {
        let (peer, now) = after(OfferEnd::Taken);
        assert!(!peer.is_due(WAITS, now + OFFER_RETRY_MAX), "it waits to be asked on");
        assert!(!peer.is_due(USED, now) && peer.is_due(USED, now + OFFER_FURTHER));
        let none = Answered::default();
        assert!(
            !peer.is_due(none, now + OFFER_FURTHER),
            "whoever closes it at once is not offered another one at once"
        );
        assert!(peer.is_due(none, now + OFFER_AGAIN));
        let all = Answered { open: TURNED_PER_NODE_MAX, begun: TURNED_PER_NODE_MAX };
        assert!(!peer.is_due(all, now + OFFER_RETRY_MAX), "that is all that there may be");
    }

    #[test]
    fn a_peer_that_needs_none_or_is_not_reached_is_left_alone() {
        let none = Answered::default();
        for end in [OfferEnd::NotNeeded, OfferEnd::Later(Duration::MAX)] {
            let (peer, now) = after(end);
            assert!(
                !peer.is_due(none, now + OFFER_RETRY_MAX / 2) && peer.is_due(none, now + OFFER_RETRY_MAX),
                "{end:?}"
            );
        }
        let (peer, now) = after(OfferEnd::Failed);
        assert!(!peer.is_due(none, now + OFFER_RETRY_FIRST / 2) && peer.is_due(none, now + 2 * OFFER_RETRY_FIRST));
        assert!(!OfferedPeer::default().is_due(none, now + OFFER_RETRY_MAX), "it is being offered one");
    }
}
