//! One key on two hosts: a key file that was copied, by mistake or by theft.

use std::net::{IpAddr, SocketAddr};

use super::PeerTable;
use crate::identity::NodeId;
use crate::limits::PEERS_MAX;

impl PeerTable {
    /// An address of `node` and one of another instance of its key that belong to different hosts.
    ///
    /// A host announces from one address per interface and family. So two instances are compared
    /// once each has announced twice, when the addresses of all its interfaces are known.
    pub(super) fn find_duplicate_key(&mut self, node: NodeId) -> Option<(SocketAddr, SocketAddr)> {
        if self.reported.duplicate_keys.contains(&node.peer) || self.reported.duplicate_keys.len() >= PEERS_MAX {
            return None;
        }
        let entry = self.entries.get(&node).filter(|e| e.provenance.first_hand >= 2)?;
        let others = self.instances(node.peer).filter(|(other, e)| **other != node && e.provenance.first_hand >= 2);
        let pair = others.into_iter().find_map(|(_, other)| {
            let same = |a: SocketAddr| other.addrs.hosts().any(|b| a.ip() == b.ip());
            if entry.addrs.hosts().any(same) {
                return None;
            }
            let mut pairs = entry.addrs.hosts().flat_map(|a| other.addrs.hosts().map(move |b| (a, b)));
            pairs.find(|(a, b)| comparable(a.ip(), b.ip()))
        })?;
        self.reported.duplicate_keys.insert(node.peer);
        Some(pair)
    }
}

/// Whether two addresses of one host would be equal: an interface announces from one IPv4 address
/// and one IPv6 link-local one, but may have several global IPv6 ones.
fn comparable(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(_), IpAddr::V4(_)) => true,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.is_unicast_link_local() && b.is_unicast_link_local(),
        _ => false,
    }
}
