//! Which keys TLS proved, where this node dialed them, and what brought it there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::PeerTable;
use crate::identity::{NodeId, PeerId};
use crate::limits::ADDRS_PER_PEER_MAX;
use crate::swarm::membership::received::ContactSource;

impl PeerTable {
    /// The keys that TLS proved at an address that was dialed and did not fail since, each with that
    /// address and further ones that the peer itself showed: the best first, at most
    /// [`ADDRS_PER_PEER_MAX`].
    pub fn proved_peers(&self) -> BTreeMap<PeerId, Vec<SocketAddr>> {
        let mut all: BTreeMap<PeerId, Vec<SocketAddr>> = BTreeMap::new();
        for (node, entry) in self.entries.iter().filter(|(_, entry)| entry.addrs.any_proved()) {
            let addrs = all.entry(node.peer).or_default();
            for addr in entry.addrs.own_first() {
                if !addrs.contains(&addr) && addrs.len() < ADDRS_PER_PEER_MAX {
                    addrs.push(addr);
                }
            }
        }
        all
    }

    /// The address at which `node` is dialed first.
    pub fn first_addr(&self, node: NodeId) -> Option<SocketAddr> {
        self.entries.get(&node)?.addrs.best_first().next()
    }

    /// Whether a node of this key serves something.
    pub fn serves(&self, peer: &PeerId) -> bool {
        self.instances(*peer).any(|(_, entry)| entry.is_serving())
    }

    /// The nodes that serve something and that TLS has not proved where this node dials them.
    pub fn unproved(&self) -> Vec<NodeId> {
        let unproved = self.entries.iter().filter(|(_, entry)| entry.is_serving() && !entry.addrs.any_proved());
        unproved.map(|(node, _)| *node).collect()
    }

    /// The nodes that were remembered, or that DNS-SD or a DHT named, and of which no announce came: only contacts
    /// keep them alive.
    pub fn kept_by_contact(&self) -> Vec<NodeId> {
        let unheard = self.entries.iter().filter(|(_, entry)| {
            let provenance = &entry.provenance;
            let is_kept = matches!(provenance.contact, Some(ContactSource::Memory | ContactSource::Directory));
            is_kept && provenance.first_datagram.is_none() && entry.is_serving()
        });
        unheard.map(|(node, _)| *node).collect()
    }

    /// `node` answered a contact that was made for this reason. The first one counts.
    pub fn contacted(&mut self, node: NodeId, source: ContactSource) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.provenance.contact.get_or_insert(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::identity::Keypair;
    use crate::proto::{Announce, Flags, SignedAnnounce};
    use crate::swarm::{Received, Via};

    /// Cause: only remembered peers counted. Effect: with multicast, a peer that a DHT named expired half a minute after it
    /// was dialed. Mend: whatever made this node dial first, a peer of which no announce comes is contacted again.
    #[test]
    fn a_peer_that_a_directory_named_is_kept_by_contact() {
        let [own, peer] = [(); 2].map(|()| Keypair::generate());
        let mut table = PeerTable::new(NodeId::new(own.peer_id(), 1));
        let announce = Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: peer.peer_id(),
            instance: 2,
            seq: 1_000_000,
            ttl_s: 30,
            port: 27420,
            revision: 1,
            flags: Flags::default(),
        };
        let (signed, node) = (SignedAnnounce::seal(&announce, &peer), NodeId::new(peer.peer_id(), 2));
        let (addr, via, now) = (([11, 0, 0, 1], 27420).into(), Via::Session, Instant::now());
        table.upsert(&Received { signed: &signed, announce: &announce, addr, via, unix_ms: 1_000_000, now }).unwrap();
        assert!(table.kept_by_contact().is_empty());
        table.contacted(node, ContactSource::Directory);
        assert_eq!(table.kept_by_contact(), [node]);
    }
}
