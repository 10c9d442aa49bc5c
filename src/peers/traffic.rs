//! What was exchanged with which peer since the start.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::PeerId;
use crate::peers::limits::TRAFFIC_PEERS_MAX;
use crate::sync::lock;

/// Counters that the sessions of all services add to, once a turn or chunk.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: Tally,
    received: Tally,
    verified: AtomicU64,
    wrong: AtomicU64,
    wasted: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    by_peer: Mutex<HashMap<PeerId, u64>>,
}

/// What a node exchanged with its peers since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TrafficStats {
    /// Bytes that were sent to peers, as they go over the wire.
    pub bytes_sent: u64,
    /// Bytes of files that came from peers, verified and wanted.
    pub bytes_received: u64,
    /// The bytes that were sent to each key, most first. Of keys beyond 4,096 only the sum counts.
    pub sent_to: Vec<(PeerId, u64)>,
    /// The bytes that came from each key, most first, bounded likewise.
    pub received_from: Vec<(PeerId, u64)>,
    /// Chunks that came, were verified and were wanted.
    pub chunks_verified: u64,
    /// Chunks and lists of digests that were not what their peer said.
    pub chunks_wrong: u64,
    /// Bytes that came and were of no use: wrong, or there already.
    pub bytes_wasted: u64,
}

impl Traffic {
    /// `bytes` were sent to `peer`.
    pub fn sent(&self, peer: PeerId, bytes: u64) {
        self.sent.add(peer, bytes);
    }

    /// A chunk of `bytes` came from `peer`, verified and wanted.
    pub fn received(&self, peer: PeerId, bytes: u64) {
        self.received.add(peer, bytes);
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    /// A chunk or layer was wrong.
    pub fn wrong(&self) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }

    /// `bytes` came and were of no use.
    pub fn wasted(&self, bytes: u64) {
        self.wasted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters as of now.
    pub fn stats(&self) -> TrafficStats {
        TrafficStats {
            bytes_sent: self.sent.bytes.load(Ordering::Relaxed),
            bytes_received: self.received.bytes.load(Ordering::Relaxed),
            sent_to: self.sent.by_peer(),
            received_from: self.received.by_peer(),
            chunks_verified: self.verified.load(Ordering::Relaxed),
            chunks_wrong: self.wrong.load(Ordering::Relaxed),
            bytes_wasted: self.wasted.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    fn add(&self, peer: PeerId, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut by_peer = lock(&self.by_peer);
        // In an open group keys cost nothing.
        if by_peer.len() < TRAFFIC_PEERS_MAX || by_peer.contains_key(&peer) {
            *by_peer.entry(peer).or_default() += bytes;
        }
    }

    fn by_peer(&self) -> Vec<(PeerId, u64)> {
        let mut all: Vec<_> = lock(&self.by_peer).iter().map(|(peer, bytes)| (*peer, *bytes)).collect();
        all.sort_by_key(|(peer, bytes)| (std::cmp::Reverse(*bytes), *peer));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_keys_take_no_memory_and_count_in_the_sum() {
        let (traffic, one) = (Traffic::default(), PeerId([0; 32]));
        traffic.sent(one, 7);
        for n in 0..2 * TRAFFIC_PEERS_MAX as u64 {
            let mut key = [1; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            traffic.sent(PeerId(key), 1);
        }
        traffic.sent(one, 8);
        let stats = traffic.stats();
        assert_eq!((stats.bytes_sent, stats.sent_to.len()), (15 + 2 * TRAFFIC_PEERS_MAX as u64, TRAFFIC_PEERS_MAX));
        assert_eq!((stats.sent_to[0], stats.received_from.len()), ((one, 15), 0));
    }
}
