//! One key on two hosts: a copied key file, by mistake or by theft.

use crate::identity::NodeId;
use std::net::{IpAddr, SocketAddr};

use super::PeerTable;
use crate::limits::PEERS_MAX;

impl PeerTable {
    /// Another host that uses the key of `key`. A node has one source address an interface and family, so each
    /// instance must have been heard twice, when all its interfaces are known, before two can be told apart.
    pub(super) fn find_twins(&mut self, key: NodeId) -> Option<(SocketAddr, SocketAddr)> {
        if self.twins_told.contains(&key.peer) || self.twins_told.len() >= PEERS_MAX {
            return None;
        }
        let entry = self.entries.get(&key).filter(|e| e.first_hand >= 2)?;
        let twins =
            self.instances(key.peer).filter(|(k, e)| **k != key && e.first_hand >= 2).find_map(|(_, other)| {
                let same = |a: SocketAddr| other.addrs.hosts().any(|b| a.ip() == b.ip());
                if entry.addrs.hosts().any(same) {
                    return None;
                }
                let pairs = entry.addrs.hosts().flat_map(|a| other.addrs.hosts().map(move |b| (a, b)));
                pairs.into_iter().find(|(a, b)| comparable(a.ip(), b.ip()))
            })?;
        self.twins_told.insert(key.peer);
        Some(twins)
    }
}

/// Whether two addresses of one host would be the same: an interface has one IPv4 address that it announces from and
/// one IPv6 link-local one, but may well have several global IPv6 ones.
fn comparable(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(_), IpAddr::V4(_)) => true,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.is_unicast_link_local() && b.is_unicast_link_local(),
        _ => false,
    }
}
