//! Whose listing to read, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::identity::NodeId;
use crate::swarm::mirror::limits::{MIRROR_ASK_RETRY, MIRROR_ASK_RETRY_MAX, MIRROR_ASK_TIME_SHARE, MIRROR_ASKS_MAX};

/// A listing is read when the announced revision is not the one that was read: at once, but after a
/// failure later and later, and at most for a tenth of the time.
#[derive(Debug, Default)]
pub struct AskSchedule {
    peers: HashMap<NodeId, AskedPeer>,
}

#[derive(Debug)]
struct AskedPeer {
    announced: u64,
    /// The revision that was announced when the listing was last read.
    listed: Option<u64>,
    /// The revision that is being read, and since when.
    reading: Option<(u64, Instant)>,
    not_before: Instant,
    failures: u32,
}

impl AskSchedule {
    /// The peers that are there now, each with its announced revision. Returns those that are gone.
    pub fn seen(&mut self, peers: impl IntoIterator<Item = (NodeId, u64)>, now: Instant) -> Vec<NodeId> {
        let mut gone: HashMap<NodeId, AskedPeer> = std::mem::take(&mut self.peers);
        for (node, announced) in peers {
            let new = || AskedPeer { announced, listed: None, reading: None, not_before: now, failures: 0 };
            let known = gone.remove(&node).unwrap_or_else(new);
            self.peers.insert(node, AskedPeer { announced, ..known });
        }
        gone.into_keys().collect()
    }

    /// The peers to ask now, which then count as being asked.
    pub fn due(&mut self, now: Instant) -> Vec<NodeId> {
        let free = MIRROR_ASKS_MAX.saturating_sub(self.peers.values().filter(|peer| peer.reading.is_some()).count());
        let mut due: Vec<(Instant, NodeId)> = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_stale() && p.not_before <= now)
            .map(|(n, p)| (p.not_before, *n))
            .collect();
        due.sort_unstable();
        due.truncate(free);
        for (_, node) in &due {
            if let Some(peer) = self.peers.get_mut(node) {
                peer.reading = Some((peer.announced, now));
            }
        }
        due.into_iter().map(|(_, node)| node).collect()
    }

    /// The listing of `node` was read; false if that is gone.
    pub fn answered(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if let Some((revision, since)) = peer.reading.take() {
            peer.listed = Some(revision);
            peer.failures = 0;
            peer.not_before = now + now.saturating_duration_since(since) * MIRROR_ASK_TIME_SHARE;
        }
        true
    }

    /// The listing of `node` could not be read.
    pub fn failed(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.reading = None;
        peer.not_before = now + doubled(MIRROR_ASK_RETRY, peer.failures, MIRROR_ASK_RETRY_MAX);
        peer.failures = peer.failures.saturating_add(1);
    }

    /// When the next peer is due that waits now, if nothing happens before.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        self.peers.values().filter(|peer| peer.is_stale()).map(|peer| peer.not_before).filter(|at| *at > now).min()
    }

    /// Whether the listings of all peers that are there were read.
    pub fn is_up_to_date(&self) -> bool {
        self.peers.values().all(|peer| peer.listed == Some(peer.announced))
    }
}

impl AskedPeer {
    fn is_stale(&self) -> bool {
        self.reading.is_none() && self.listed != Some(self.announced)
    }
}

/// `first`, doubled `times` times, at most `most`.
pub(super) fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;

    fn node(n: u8) -> NodeId {
        NodeId::new(PeerId([n; 32]), 1)
    }

    #[test]
    fn only_a_new_revision_is_read_and_never_for_more_than_a_tenth_of_the_time() {
        let (mut asks, start) = (AskSchedule::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(asks.seen([(node(1), 5), (node(2), 9)], start).is_empty());
        let mut due = asks.due(start);
        due.sort();
        assert_eq!(due, [node(1), node(2)]);
        assert!(asks.due(start).is_empty() && asks.next_at(start).is_none() && !asks.is_up_to_date());
        assert!(asks.answered(node(1), at(100)) && asks.answered(node(2), at(1)));
        assert!(asks.is_up_to_date() && asks.next_at(start).is_none());
        asks.seen([(node(1), 6), (node(2), 9)], at(200));
        assert!(asks.due(at(200)).is_empty(), "it took 100 ms");
        assert_eq!(asks.next_at(at(200)), Some(at(1000)));
        assert_eq!(asks.due(at(1000)), [node(1)]);
        // A revision that comes while it is read is read, too.
        asks.seen([(node(1), 7), (node(2), 9)], at(1001));
        asks.answered(node(1), at(1001));
        assert_eq!(asks.due(at(1010)), [node(1)]);
        assert_eq!(asks.seen([(node(2), 9)], at(1011)), [node(1)]);
        assert!(!asks.answered(node(1), at(1012)) && asks.is_up_to_date(), "what is gone is not waited for");
    }

    #[test]
    fn a_peer_that_fails_is_asked_ever_more_seldom_and_holds_up_no_other() {
        let (mut asks, start) = (AskSchedule::default(), Instant::now());
        asks.seen([(node(1), 1)], start);
        let mut asked = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            if asks.due(now) == [node(1)] {
                asked += 1;
                asks.failed(node(1), now);
            }
        }
        assert!((10..=17).contains(&asked), "{asked} times in ten minutes");
        let now = start + Duration::from_secs(600);
        asks.seen((1..=20).map(|n| (node(n), 1)), now);
        assert_eq!(asks.due(now).len(), MIRROR_ASKS_MAX);
        assert!(asks.due(now).is_empty());
    }
}
