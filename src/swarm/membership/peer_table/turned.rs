//! Peers that nobody can dial: they offer to answer on sessions that they open themselves.

use std::cmp::Reverse;
use std::net::SocketAddr;

use super::PeerTable;
use super::entry::PeerEntry;
use crate::identity::NodeId;

/// A peer on no link of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistantPeer {
    /// The node.
    pub node: NodeId,
    /// Where to offer it a session, best first.
    pub addrs: Vec<SocketAddr>,
    /// Whether others alone told of these addresses.
    pub is_hinted: bool,
}

impl PeerTable {
    /// `node` offers to answer on a session that it opened: it can be reached again, however often dials failed.
    pub fn offered(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.sessions.offers = entry.sessions.offers.wrapping_add(1);
        }
    }

    /// Whether this node reached `node` by a dial, and no dial failed since.
    pub fn was_reached(&self, node: NodeId) -> bool {
        self.entries.get(&node).is_some_and(|entry| entry.addrs.any_proved())
    }

    /// Whether `node` offers files, on no link of this node: if it cannot be dialed, it may yet offer to answer.
    pub fn may_offer(&self, node: NodeId) -> bool {
        let offers = |e: &PeerEntry| e.is_serving() && e.revision > 0 && e.provenance.first_datagram.is_none();
        self.entries.get(&node).is_some_and(offers)
    }

    /// Up to `max` of the peers of which no datagram came: they are on no link of this node, so that a NAT may lie
    /// between. `rank` leaves some out, and orders the others. First those that were themselves met, then up to
    /// `hinted_max` of those of which others alone told; each with up to `addrs_max` addresses.
    pub fn distant<R: Ord>(
        &self,
        (max, hinted_max, addrs_max): (usize, usize, usize),
        rank: impl Fn(NodeId) -> Option<R>,
    ) -> Vec<DistantPeer> {
        let (mut met, mut hinted) = (Vec::new(), Vec::new());
        let distant = |e: &PeerEntry| e.is_serving() && e.provenance.first_datagram.is_none();
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
    use std::time::{Duration, Instant};

    use super::*;
    use crate::identity::Keypair;
    use crate::proto::{Announce, Flags, SignedAnnounce};
    use crate::swarm::{Received, Via};

    /// Cause: an address that failed was told to nobody. Effect: where one node had tried to dial a peer behind a NAT, others
    /// never heard of that peer, so that it could offer them nothing. Mend: who offers is told of all the same.
    #[test]
    fn who_offers_to_answer_is_told_to_others_though_a_dial_failed() {
        let (own, keypair, now) = (Keypair::generate().peer_id(), Keypair::generate(), Instant::now());
        let (mut table, addr) = (PeerTable::new(NodeId::new(own, 1)), SocketAddr::from(([10, 0, 0, 7], 4000)));
        let announce = Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: keypair.peer_id(),
            instance: 1,
            seq: 1000,
            ttl_s: 30,
            port: 4000,
            revision: 1,
            flags: Flags::default(),
        };
        let signed = SignedAnnounce::seal(&announce, &keypair);
        let via = |via| Received { signed: &signed, announce: &announce, addr, via, unix_ms: 1000, now };
        let (node, to) = (NodeId::new(keypair.peer_id(), 1), "10.0.0.9".parse().unwrap());
        table.upsert(&via(Via::Hello)).unwrap();
        assert!(table.hint(node, to).is_some() && table.may_offer(node) && !table.was_reached(node));
        table.failed(node, addr, now);
        assert!(table.hint(node, to).is_none());
        table.offered(node);
        assert_eq!(table.hint(node, to).unwrap().addrs, [addr]);
        assert_eq!((table.distant((9, 9, 9), |_| Some(())).len(), table.peer(node).unwrap().offers), (1, 1));
        table.proved(node, addr, now + Duration::from_secs(1));
        assert!(table.was_reached(node) && table.distant((9, 9, 9), |_| None::<()>).is_empty());
    }
}
