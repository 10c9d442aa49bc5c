//! Peers that nobody can dial: they offer to answer on sessions that they open themselves.

use super::entry::PeerEntry;
use super::{PeerRecord, PeerTable};
use crate::identity::NodeId;

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

    /// The peers of which no datagram came, in the order of [`peers`](Self::peers): they are on no link of this node,
    /// so that a NAT may lie between.
    pub fn distant(&self) -> Vec<PeerRecord> {
        let mut peers = self.peers();
        peers.retain(|p| self.entries.get(&p.node()).is_some_and(|e| e.provenance.first_datagram.is_none()));
        peers
    }
}
