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

    /// Whether a node of this key serves something.
    pub fn serves(&self, peer: &PeerId) -> bool {
        self.instances(*peer).any(|(_, entry)| entry.is_serving())
    }

    /// The nodes that serve something and that TLS has not proved where this node dials them.
    pub fn unproved(&self) -> Vec<NodeId> {
        let unproved = self.entries.iter().filter(|(_, entry)| entry.is_serving() && !entry.addrs.any_proved());
        unproved.map(|(node, _)| *node).collect()
    }

    /// The nodes that were remembered, and that no announce was heard of: only contacts keep them alive.
    pub fn kept_by_contact(&self) -> Vec<NodeId> {
        let unheard = self.entries.iter().filter(|(_, entry)| {
            let provenance = &entry.provenance;
            let is_remembered = provenance.contact == Some(ContactSource::Memory);
            is_remembered && provenance.first_datagram.is_none() && entry.is_serving()
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
