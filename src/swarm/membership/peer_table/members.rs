//! The nodes that count: what a source address may add to the size of the group.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::PeerTable;
use crate::identity::{NodeId, PeerId};
use crate::swarm::membership::group_size::GroupSize;
use crate::swarm::membership::limits::{MEMBER_AFTER, NODES_PER_SOURCE_MAX};
use crate::swarm::membership::received::{Received, Via};

/// Number of nodes of each source address, and their sum, to which one address adds at most
/// [`NODES_PER_SOURCE_MAX`].
#[derive(Debug, Default)]
pub(super) struct SourceCounts {
    by_source: BTreeMap<IpAddr, usize>,
    pub(super) counted: usize,
}

impl SourceCounts {
    pub(super) fn add(&mut self, source: IpAddr) {
        let count = self.by_source.entry(source).or_default();
        *count += 1;
        self.counted += usize::from(*count <= NODES_PER_SOURCE_MAX);
    }

    pub(super) fn remove(&mut self, source: IpAddr) {
        let Some(count) = self.by_source.get_mut(&source) else { return };
        self.counted -= usize::from(*count <= NODES_PER_SOURCE_MAX);
        *count -= 1;
        if *count == 0 {
            self.by_source.remove(&source);
        }
    }

    pub(super) fn of(&self, source: IpAddr) -> usize {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_source.is_empty() && self.counted == 0
    }
}

impl PeerTable {
    /// When the last new announce of a node with the key `peer` came.
    pub fn last_seen(&self, peer: PeerId) -> Option<Instant> {
        let nodes = NodeId::new(peer, 0)..=NodeId::new(peer, u64::MAX);
        self.entries.range(nodes).map(|(_, entry)| entry.last_seen).max()
    }

    /// The port that `node` announced; none if it serves nothing.
    pub fn port(&self, node: NodeId) -> Option<u16> {
        self.entries.get(&node).map(|entry| entry.port).filter(|port| *port != 0)
    }

    /// The size of the group as known here.
    pub fn size(&self) -> GroupSize {
        GroupSize { known: self.nodes(), proved: self.members.counted + 1 }
    }

    /// Whether `node` has proved itself: TLS proved its key, or it announced itself for an
    /// interval.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.entries.get(&node).is_some_and(|entry| entry.provenance.member_from.is_some())
    }

    /// Makes `node` a member if an announce that came now shows that it is one: in a session of its
    /// own, or a datagram at least [`MEMBER_AFTER`] later than its first one.
    pub(super) fn count_member(&mut self, received: &Received<'_>) {
        let node = received.node();
        let Some(entry) = self.entries.get_mut(&node) else { return };
        let is_proved = match received.via {
            Via::Hint | Via::FarHint => false,
            Via::Hello | Via::Session => true,
            Via::Datagram => {
                entry.provenance.last_datagram = Some(received.now);
                let first = *entry.provenance.first_datagram.get_or_insert(received.now);
                received.now.saturating_duration_since(first) >= MEMBER_AFTER
            }
        };
        if is_proved {
            self.make_member(node, received.addr.ip());
        }
    }

    pub(super) fn make_member(&mut self, node: NodeId, source: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&node)
            && entry.provenance.member_from.is_none()
        {
            entry.provenance.member_from = Some(source);
            self.members.add(source);
        }
    }
}
