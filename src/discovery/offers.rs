//! Offers to answer on sessions that this node opens: for peers that cannot dial it, behind a NAT or a firewall.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::discovery::DiscoveryContext;
use crate::discovery::limits::{
    CONTACT_TIMEOUT, OFFER_ADDRS_MAX, OFFER_AFTER, OFFER_AGAIN, OFFER_DIAL_TIMEOUT, OFFER_FURTHER, OFFER_HINTED_EVERY,
    OFFER_HINTED_FIRST, OFFER_LOOK_EVERY, OFFER_RETRY_FIRST, OFFER_RETRY_MAX, OFFER_UNUSED_MAX, OFFERED_PEERS_MAX,
    OFFERS_AT_ONCE,
};
use crate::identity::NodeId;
use crate::limits::ANNOUNCE_INTERVAL;
use crate::net::{LinkOptions, own_addrs};
use crate::peers::limits::TURNED_PER_NODE_MAX;
use crate::peers::{Answered, AskError, Call, Session, TurnAnswer};
use crate::swarm::{DistantPeer, PeerTable};

/// Decides which peers are offered a session when.
///
/// A node cannot know whether others reach it, so it offers to all peers that are on no link of its own; a peer that has
/// dialed it says so, and is asked again much later, or when this host has other addresses. It offers to those on its links,
/// too, if none of them has dialed it for long.
pub(super) struct TurnOffers {
    peers: HashMap<NodeId, OfferedPeer>,
    /// When peers are looked for next.
    look_at: Instant,
    /// Whether there may be more of them than were found.
    is_busy: bool,
    /// For nodes that only other peers named.
    hinted: OfferTokens,
    pending: usize,
    /// The addresses of this host, and when they are looked at again.
    own: (Vec<IpAddr>, Instant),
}

/// [`OFFER_HINTED_FIRST`] offers at once, and one each [`OFFER_HINTED_EVERY`].
struct OfferTokens {
    full_at: Instant,
}

impl OfferTokens {
    /// Number of offers that may be made now.
    fn has(&self, now: Instant) -> usize {
        let lacking = self.full_at.saturating_duration_since(now).as_millis();
        let taken = lacking.div_ceil(OFFER_HINTED_EVERY.as_millis()) as usize;
        (OFFER_HINTED_FIRST as usize).saturating_sub(taken)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + OFFER_HINTED_EVERY;
    }
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
        let (begin, hinted) = (now + OFFER_AFTER, OfferTokens { full_at: now });
        TurnOffers {
            peers: HashMap::new(),
            look_at: begin,
            is_busy: true,
            hinted,
            pending: 0,
            own: (Vec::new(), begin),
        }
    }

    /// When the next look for peers is due, unless none was due at the last one.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.is_busy && self.pending < OFFERS_AT_ONCE).then_some(self.look_at)
    }

    /// The peers to offer a session to now; each counts as being offered one until [`ended`](Self::ended).
    pub(super) fn due(&mut self, shared: &DiscoveryContext, now: Instant) -> Vec<DistantPeer> {
        let turned = shared.directory().turned();
        if now >= self.own.1 && turned.can_answer() {
            self.take_own(own_addrs(&LinkOptions::default()), now);
        }
        if self.pending >= OFFERS_AT_ONCE || now < self.look_at {
            self.is_busy = true;
            return Vec::new();
        }
        let answered = turned.answered();
        let (due, unused) = match turned.can_answer() {
            true => shared.directory().read(|table| self.choose(table, &answered, now)),
            false => (Vec::new(), None),
        };
        if let Some(node) = unused {
            turned.end_unused(node);
        }
        self.is_busy = !due.is_empty();
        self.look_at = now + OFFER_LOOK_EVERY;
        due
    }

    /// The peers to offer a session to, and the one whose unused session gives way to that.
    fn choose(
        &mut self,
        table: &PeerTable,
        answered: &HashMap<NodeId, Answered>,
        now: Instant,
    ) -> (Vec<DistantPeer>, Option<NodeId>) {
        self.peers.retain(|node, known| known.retry_at.is_none() || table.knows(*node));
        let is_full = answered.len() >= OFFERED_PEERS_MAX;
        let unused = if is_full { self.longest_unused(answered, now) } else { None };
        let room = if is_full { 1 } else { OFFERS_AT_ONCE - self.pending };
        let (may_be_new, peers) = (!is_full || unused.is_some(), &self.peers);
        let rank = |node| {
            let (known, of_peer) = (peers.get(&node), answered.get(&node).copied());
            let is_due = known.is_none_or(|known| known.is_due(of_peer.unwrap_or_default(), now));
            // A peer that was never offered one comes first, then the one that waits longest.
            (is_due && (of_peer.is_some() || may_be_new)).then(|| known.map(|known| known.retry_at))
        };
        let due = table.distant((room, self.hinted.has(now), OFFER_ADDRS_MAX), now, rank);
        self.pending += due.len();
        for peer in &due {
            self.peers.entry(peer.node).or_default().retry_at = None;
            if peer.is_hinted {
                self.hinted.take(now);
            }
        }
        let unused = unused.filter(|_| due.iter().any(|peer| !answered.contains_key(&peer.node)));
        if let Some(known) = unused.and_then(|node| self.peers.get_mut(&node)) {
            (known.taken, known.retry_at) = (None, Some(now + OFFER_RETRY_MAX));
        }
        (due, unused)
    }

    /// The peer that asked nothing for the longest time, if that is long.
    fn longest_unused(&self, answered: &HashMap<NodeId, Answered>, now: Instant) -> Option<NodeId> {
        let since = |(node, known): (&NodeId, &OfferedPeer)| {
            let is_unused = answered.get(node).is_some_and(|answered| answered.begun == 0);
            known.taken.filter(|_| is_unused && known.retry_at.is_some()).map(|at| (at, *node))
        };
        let (at, node) = self.peers.iter().filter_map(since).min_by_key(|(at, _)| *at)?;
        (now.saturating_duration_since(at) >= OFFER_UNUSED_MAX).then_some(node)
    }

    /// The host has these addresses. If one is gone that it had, who reached it there does not do so any more.
    fn take_own(&mut self, mut addrs: Vec<IpAddr>, now: Instant) {
        // Containers come and go with link-local ones.
        addrs.retain(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        let (before, _) = std::mem::replace(&mut self.own, (addrs, now + ANNOUNCE_INTERVAL));
        if before.iter().all(|ip| self.own.0.contains(ip)) {
            return;
        }
        for known in self.peers.values_mut().filter(|known| known.retry_at.is_some()) {
            (known.retry_at, known.failures) = (Some(now), 0);
        }
        (self.is_busy, self.look_at) = (true, now);
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
        let call = Call { addr, expect, dial_timeout: OFFER_DIAL_TIMEOUT, welcome_by };
        result = shared.offering.open(&call, &mut |_, _, _| ());
        // The failure is not noted: others may reach the address, or may be offered a session by the peer.
        if !matches!(result, Err(AskError::Stream(_))) || shared.shutdown.has_begun() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::identity::{Keypair, PeerId};
    use crate::peers::fake;
    use crate::proto::{Announce, SignedAnnounce};
    use crate::swarm::{Received, Via};

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

    /// Cause: who had reached this node was asked again a minute later. Effect: a laptop that went behind a NAT gave nothing for
    /// that time. Mend: other addresses of the host end the rests.
    #[test]
    fn other_addresses_end_the_rests() {
        let (mut offers, now, node) =
            (TurnOffers::new(Instant::now()), Instant::now(), NodeId::new(PeerId([1; 32]), 1));
        let addrs = |text: &[&str]| text.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        offers.take_own(addrs(&["10.0.0.1", "fe80::1"]), now);
        offers.peers.insert(node, OfferedPeer::default());
        offers.pending = 1;
        offers.ended(node, OfferEnd::NotNeeded, now);
        let is_due = |offers: &TurnOffers| offers.peers[&node].is_due(Answered::default(), now + OFFER_RETRY_FIRST);
        offers.take_own(addrs(&["172.17.0.1", "10.0.0.1", "fe80::2"]), now);
        assert!(!is_due(&offers), "it has them still");
        offers.take_own(addrs(&["192.168.7.2"]), now);
        assert!(is_due(&offers) && offers.next_look() == Some(now));
    }

    /// A table with `nodes` that announces of this kind named, from as many hosts.
    fn table(nodes: u32, via: Via, now: Instant) -> PeerTable {
        let keypair = Keypair::generate();
        let mut announce = Announce { ttl_s: 3600, ..fake::announce(&keypair, 1, 1000) };
        // The table believes its caller that signatures are good, so one serves for all.
        let signed = SignedAnnounce::seal(&announce, &keypair);
        let mut table = PeerTable::new(NodeId::new(PeerId([0xee; 32]), 1));
        for n in 0..nodes {
            announce.peer.0[..4].copy_from_slice(&n.to_be_bytes());
            let addr = SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 4000));
            let received = Received { signed: &signed, announce: &announce, addr, via, unix_ms: 1000, now };
            table.upsert(&received).unwrap();
        }
        table
    }

    /// Cause: each announce that a stranger made up brought dials, as fast as they failed. Effect: the group's servers
    /// knocked at third parties hundreds of times a second. Mend: nodes that only others named share a small rate.
    #[test]
    fn made_up_nodes_bring_few_offers() {
        let begin = Instant::now();
        let (table, answered, mut offers) = (table(2000, Via::Hint, begin), HashMap::new(), TurnOffers::new(begin));
        let mut made = 0;
        for step in 0..10_000 / OFFER_LOOK_EVERY.as_millis() as u32 {
            let now = begin + OFFER_LOOK_EVERY * step;
            for peer in offers.choose(&table, &answered, now).0 {
                assert!(peer.is_hinted && peer.addrs.len() <= OFFER_ADDRS_MAX);
                offers.ended(peer.node, OfferEnd::Failed, now);
                made += 1;
            }
        }
        assert!((OFFER_HINTED_FIRST + 9..=OFFER_HINTED_FIRST + 10).contains(&made), "{made} in 10 s");
    }

    /// Cause: a peer that took an offer kept its place for ever. Effect: in a large group the first peers, which may want
    /// nothing, kept all others from the files of a node behind a NAT. Mend: an unused session gives way to a waiting peer.
    #[test]
    fn unused_places_go_round() {
        let begin = Instant::now();
        let all = OFFERED_PEERS_MAX + 6;
        let (table, mut answered, mut offers) =
            (table(all as u32, Via::Hello, begin), HashMap::new(), TurnOffers::new(begin));
        let (mut offered, mut gone) = (HashSet::new(), HashSet::new());
        for step in 0..240 {
            let now = begin + OFFER_LOOK_EVERY * step;
            let (due, unused) = offers.choose(&table, &answered, now);
            assert!(unused.is_none() || now - begin >= OFFER_UNUSED_MAX);
            for peer in due {
                assert!(offered.insert(peer.node), "nobody comes twice before all came once");
                offers.ended(peer.node, OfferEnd::Taken, now);
                answered.insert(peer.node, WAITS);
            }
            if let Some(node) = unused {
                answered.remove(&node);
                gone.insert(node);
            }
            assert!(answered.len() <= OFFERED_PEERS_MAX);
        }
        assert_eq!((offered.len(), gone.len(), answered.len()), (all, 6, OFFERED_PEERS_MAX));
    }
}
