//! Who has left: the last announce of ended instances, so that a replayed one does not bring them back.

use std::collections::{BTreeMap, VecDeque};

use crate::identity::NodeId;
use crate::limits::TOMBSTONES_MAX;

/// The last `seq` of at most [`TOMBSTONES_MAX`] ended (key, instance); the one that ended first is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    seqs: BTreeMap<NodeId, u64>,
    order: VecDeque<NodeId>,
}

impl Departed {
    /// `key` ended, `seq` being its last announce.
    pub(crate) fn insert(&mut self, key: NodeId, seq: u64) {
        if self.seqs.insert(key, seq).is_none() {
            self.order.push_back(key);
            // Keys that came back stand in the order all the same, so the order is what must be bounded.
            while self.order.len() > TOMBSTONES_MAX {
                if let Some(first) = self.order.pop_front() {
                    self.seqs.remove(&first);
                }
            }
        }
    }

    /// Whether an announce with `seq` is no newer than the last one of the ended `key`.
    pub(crate) fn covers(&self, key: &NodeId, seq: u64) -> bool {
        self.seqs.get(key).is_some_and(|&last| seq <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;

    #[test]
    fn old_announces_stay_covered_within_the_bound() {
        let mut departed = Departed::default();
        let key = |n: usize| NodeId::new(PeerId([n as u8; 32]), n as u64);
        departed.insert(key(0), 5);
        assert!(departed.covers(&key(0), 5) && departed.covers(&key(0), 4) && !departed.covers(&key(0), 6));
        departed.insert(key(0), 9);
        assert!(departed.covers(&key(0), 9));
        (1..=TOMBSTONES_MAX).for_each(|n| departed.insert(key(n), 1));
        assert!(!departed.covers(&key(0), 9), "forgotten");
        assert!(departed.covers(&key(1), 1) && departed.seqs.len() == TOMBSTONES_MAX);
    }
}
