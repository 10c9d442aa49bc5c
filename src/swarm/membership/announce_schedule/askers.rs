//! The nodes that queried lately.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::identity::NodeId;
use crate::limits::UNICAST_ANSWERS_TRACKED_MAX;
use crate::swarm::membership::limits::UNICAST_ANSWER_MIN;

/// At most [`UNICAST_ANSWERS_TRACKED_MAX`] nodes with their last query.
#[derive(Debug, Default)]
pub(super) struct RecentAskers {
    askers: BTreeMap<NodeId, RecentAsker>,
}

#[derive(Debug)]
struct RecentAsker {
    /// The announce of its last query. A query arrives once per link and address family and counts
    /// once.
    seq: u64,
    last_seen: Instant,
    /// When it was last answered at its own address.
    answered: Option<Instant>,
}

impl RecentAskers {
    /// Whether this query did not arrive before. While too many nodes ask at once, the others count
    /// as known.
    pub(super) fn is_new(&mut self, asker: NodeId, seq: u64, now: Instant) -> bool {
        if let Some(known) = self.askers.get_mut(&asker) {
            let new = seq > known.seq;
            (known.seq, known.last_seen) = (seq.max(known.seq), now);
            return new;
        }
        if self.askers.len() >= UNICAST_ANSWERS_TRACKED_MAX {
            // The copies of a query arrive within moments.
            self.askers.retain(|_, asker| now.saturating_duration_since(asker.last_seen) < UNICAST_ANSWER_MIN);
        }
        let has_place = self.askers.len() < UNICAST_ANSWERS_TRACKED_MAX;
        if has_place {
            self.askers.insert(asker, RecentAsker { seq, last_seen: now, answered: None });
        }
        has_place
    }

    /// Whether `asker` may be answered at its own address now; if so, this counts as the answer.
    pub(super) fn may_answer(&mut self, asker: NodeId, now: Instant) -> bool {
        let Some(asker) = self.askers.get_mut(&asker) else { return false };
        let may = asker.answered.is_none_or(|at| now.saturating_duration_since(at) >= UNICAST_ANSWER_MIN);
        if may {
            asker.answered = Some(now);
        }
        may
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.askers.len()
    }
}
