//! Peers that cannot be dialed: they offer to answer on sessions that they open themselves.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Instant;

use super::PeerTable;
use super::entry::PeerEntry;
use crate::identity::{NodeId, PeerId};
use crate::swarm::membership::limits::UNDIALED_AFTER;

/// A peer that serves something, and was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreachedPeer {
    /// Its key.
    pub peer: PeerId,
    /// Where it is sought first.
    pub addr: SocketAddr,
    /// Whether each of its addresses was tried in vain, or they were not tried to the end.
    pub failed: bool,
}

/// A peer on no link of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistantPeer {
    /// The node.
    pub node: NodeId,
    /// Where to offer it a session, best first.
    pub addrs: Vec<SocketAddr>,
    /// Whether only other peers named these addresses.
    pub is_hinted: bool,
}

impl PeerTable {
    /// `node` offers to answer on a session that it opened: it can be reached again, however often dials failed.
    pub fn offered(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.sessions.offers = entry.sessions.offers.wrapping_add(1);
        }
    }

    /// `node` dialed this one.
    pub fn dialed_here(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.provenance.dialed_here = true;
        }
    }

    /// Whether this node reached `node` by a dial, and no dial failed since.
    pub fn was_reached(&self, node: NodeId) -> bool {
        self.entries.get(&node).is_some_and(|entry| entry.addrs.any_proved())
    }

    /// The nodes that serve something and that no dial of this one reached.
    pub fn unreached(&self) -> Vec<UnreachedPeer> {
        let serving = self.entries.iter().filter(|(_, entry)| entry.is_serving() && !entry.addrs.any_proved());
        let unreached = serving.filter_map(|(node, entry)| {
            let addr = entry.addrs.best_first().next()?;
            Some(UnreachedPeer { peer: node.peer, addr, failed: entry.addrs.all_failed() })
        });
        unreached.collect()
    }

    /// Where this node reached `node` by a dial, if no dial failed since.
    pub fn reached_at(&self, node: NodeId) -> Option<SocketAddr> {
        let entry = self.entries.get(&node).filter(|entry| entry.addrs.any_proved())?;
        entry.addrs.best_first().next()
    }

    /// Whether `node` is on a link of this one: its datagrams arrive.
    pub fn is_on_link(&self, node: NodeId, now: Instant) -> bool {
        self.entries.get(&node).is_some_and(|entry| entry.is_on_link(now))
    }

    /// Whether peers on links of this node have been there for long, and none of them dialed it: something may let
    /// datagrams in and no connections.
    fn is_undialed(&self, now: Instant) -> bool {
        let here = || self.entries.values().filter(|entry| entry.is_on_link(now));
        let since = |entry: &PeerEntry| entry.provenance.first_datagram.filter(|_| entry.is_serving());
        let is_long = |at| now.saturating_duration_since(at) >= UNDIALED_AFTER;
        here().filter_map(since).any(is_long) && !here().any(|entry| entry.provenance.dialed_here)
    }

    /// Whether `node` offers files, and is on no link of this node or has offered to answer: if it cannot be dialed, that may
    /// be waited for.
    pub fn may_offer(&self, node: NodeId) -> bool {
        let answers = |e: &PeerEntry| e.provenance.first_datagram.is_none() || e.sessions.offers > 0;
        let offers = |e: &PeerEntry| e.is_serving() && e.revision > 0 && answers(e);
        self.entries.get(&node).is_some_and(offers)
    }

    /// Up to `max` of the peers of which no datagrams come: they are on no link of this node, so that a NAT may lie
    /// between. Those on its links are among them if none of these ever dialed it. `rank` leaves some out, and orders the
    /// others. First those that were themselves met, then up to `hinted_max` of those of which others alone told; each with
    /// up to `addrs_max` addresses.
    pub fn distant<R: Ord>(
        &self,
        (max, hinted_max, addrs_max): (usize, usize, usize),
        now: Instant,
        rank: impl Fn(NodeId) -> Option<R>,
    ) -> Vec<DistantPeer> {
        let (mut met, mut hinted) = (Vec::new(), Vec::new());
        let undialed = self.is_undialed(now);
        let distant = |e: &PeerEntry| e.is_serving() && (undialed || !e.is_on_link(now));
        for (&node, entry) in self.entries.iter().filter(|(_, entry)| distant(entry)) {
            let Some(rank) = rank(node) else { continue };
            let (addrs, is_hinted) = entry.addrs.for_offer(addrs_max);
            if addrs.is_empty() {
                continue;
            }
            let (best, max) = if is_hinted { (&mut hinted, hinted_max) } else { (&mut met, max) };
            let key = (rank, Reverse(entry.last_seen));
            // Only the best are kept, as the table may be large.
            let at = best.partition_point(|(other, _)| *other <= key);
            if at < max {
                best.insert(at, (key, DistantPeer { node, addrs, is_hinted }));
                best.truncate(max);
            }
        }
        met.into_iter().chain(hinted).map(|(_, peer)| peer).take(max).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::Keypair;
    use crate::proto::{Announce, Flags, SignedAnnounce};
    use crate::swarm::{Received, Via};

    fn announce_of(keypair: &Keypair) -> Announce {
        Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: keypair.peer_id(),
            instance: 1,
            seq: 1000,
            ttl_s: 30,
            port: 4000,
            revision: 1,
            flags: Flags::default(),
        }
    }

    /// Cause: an address that failed was passed to no peer. Effect: where one node had tried to dial a peer behind a NAT,
    /// others never learned of that peer, so that it could offer them nothing. Mend: a peer that offers is still named.
    #[test]
    fn who_offers_to_answer_is_told_to_others_though_a_dial_failed() {
        let (own, keypair, now) = (Keypair::generate().peer_id(), Keypair::generate(), Instant::now());
        let (mut table, addr) = (PeerTable::new(NodeId::new(own, 1)), SocketAddr::from(([10, 0, 0, 7], 4000)));
        let announce = announce_of(&keypair);
        let signed = SignedAnnounce::seal(&announce, &keypair);
        let via = |via| Received { signed: &signed, announce: &announce, addr, via, unix_ms: 1000, now };
        let (node, to) = (NodeId::new(keypair.peer_id(), 1), "10.0.0.9".parse().unwrap());
        table.upsert(&via(Via::Hello)).unwrap();
        assert!(table.hint(node, to).is_some() && table.may_offer(node) && !table.was_reached(node));
        table.failed(node, addr, now);
        assert!(table.hint(node, to).is_none());
        table.offered(node);
        assert_eq!(table.hint(node, to).unwrap().addrs, [addr]);
        assert_eq!((table.distant((9, 9, 9), now, |_| Some(())).len(), table.peer(node).unwrap().offers), (1, 1));
        table.proved(node, addr, now + Duration::from_secs(1));
        assert!(table.was_reached(node) && table.distant((9, 9, 9), now, |_| None::<()>).is_empty());
        assert_eq!(table.reached_at(node), Some(addr));
    }

    /// Cause: a peer of which one datagram came counted as one on a link for good. Effect: a node that moved behind a NAT, and
    /// one whose firewall lets datagrams in alone, offered nothing and gave nothing. Mend: datagrams count for a while, and for
    /// less if none of those that hear this node ever dials it.
    #[test]
    fn peers_on_a_link_are_offered_a_session_if_they_moved_or_never_dial() {
        let (own, keypair, begin) = (Keypair::generate().peer_id(), Keypair::generate(), Instant::now());
        let mut announce = announce_of(&keypair);
        let node = NodeId::new(keypair.peer_id(), 1);
        let mut hear = |table: &mut PeerTable, via, now| {
            announce.seq += 1;
            let (signed, addr) = (SignedAnnounce::seal(&announce, &keypair), SocketAddr::from(([10, 0, 0, 7], 4000)));
            table.upsert(&Received { signed: &signed, announce: &announce, addr, via, unix_ms: 1000, now }).unwrap();
        };
        let s = |seconds| begin + Duration::from_secs(seconds);
        let mut table = PeerTable::new(NodeId::new(own, 1));
        let distant = |table: &PeerTable, now| table.distant((9, 9, 9), now, |_| Some(())).len();
        hear(&mut table, Via::Datagram, begin);
        hear(&mut table, Via::Datagram, s(25));
        hear(&mut table, Via::Datagram, s(50));
        assert_eq!((distant(&table, s(50)), distant(&table, s(59))), (0, 0));
        assert_eq!(distant(&table, s(60)), 1, "nobody ever dials this node");
        table.dialed_here(node);
        assert_eq!(distant(&table, s(61)), 0, "it is known that it can be dialed");
        // Only sessions tell of it from now on.
        hear(&mut table, Via::Session, s(75));
        assert_eq!((distant(&table, s(80)), distant(&table, s(81))), (0, 1), "it went elsewhere, or this node did");
        hear(&mut table, Via::Datagram, s(90));
        assert_eq!((distant(&table, s(90)), table.may_offer(node)), (0, false));
        table.offered(node);
        assert!(table.may_offer(node), "who asks for its files waits for it");
    }
}
