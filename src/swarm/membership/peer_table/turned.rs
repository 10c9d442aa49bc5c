//! Peers that nobody can dial: they offer to answer on sessions that they open themselves.

use std::cmp::Reverse;

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

    /// Up to `max` of the peers of which no datagram came: they are on no link of this node, so that a NAT may lie
    /// between. `which` leaves some out. First those that TLS proved, then the last seen.
    pub fn distant(&self, max: usize, which: impl Fn(NodeId) -> bool) -> Vec<PeerRecord> {
        let is_distant = |e: &PeerEntry| e.is_serving() && e.provenance.first_datagram.is_none();
        let mut found: Vec<_> = self.entries.iter().filter(|(node, e)| is_distant(e) && which(**node)).collect();
        found.sort_by_key(|(_, e)| (Reverse(e.addrs.any_proved()), Reverse(e.last_seen)));
        found.into_iter().take(max).map(|(node, entry)| entry.record(*node)).collect()
    }
}
