//! Tombstones: the last announces of ended nodes, so that replays do not bring them back.

use std::collections::{BTreeMap, VecDeque};

use crate::identity::NodeId;
use crate::limits::TOMBSTONES_MAX;

/// The last `seq` of at most [`TOMBSTONES_MAX`] ended nodes. The one that ended first is forgotten
/// first.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    seqs: BTreeMap<NodeId, u64>,
    order: VecDeque<NodeId>,
}

impl Tombstones {
    /// `node` ended after its announce `seq`.
    pub(crate) fn insert(&mut self, node: NodeId, seq: u64) {
        if self.seqs.insert(node, seq).is_none() {
            self.order.push_back(node);
            // Nodes that came back keep their place in the order, so the order is what is bounded.
            while self.order.len() > TOMBSTONES_MAX {
                if let Some(first) = self.order.pop_front() {
                    self.seqs.remove(&first);
                }
            }
        }
    }

    /// Whether `seq` is no newer than the last announce of the ended `node`.
    pub(crate) fn covers(&self, node: &NodeId, seq: u64) -> bool {
        self.seqs.get(node).is_some_and(|&last| seq <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;

    #[test]
    fn old_announces_stay_covered_within_the_bound() {
        let mut tombstones = Tombstones::default();
        let key = |n: usize| NodeId::new(PeerId([n as u8; 32]), n as u64);
        tombstones.insert(key(0), 5);
        assert!(tombstones.covers(&key(0), 5) && tombstones.covers(&key(0), 4) && !tombstones.covers(&key(0), 6));
        tombstones.insert(key(0), 9);
        assert!(tombstones.covers(&key(0), 9));
        (1..=TOMBSTONES_MAX).for_each(|n| tombstones.insert(key(n), 1));
        assert!(!tombstones.covers(&key(0), 9), "forgotten");
        assert!(tombstones.covers(&key(1), 1) && tombstones.seqs.len() == TOMBSTONES_MAX);
    }
}
