//! What each source address may do to the schedule of this node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::SOURCES_TRACKED_MAX;
use crate::swarm::membership::limits::{SILENCES_AGAIN_AFTER, SOURCE_COUNTED_BURST, SOURCE_COUNTED_PER_S};

/// The part of each source address in how busy the group is, and in which answers are left out.
///
/// A host can announce made-up nodes as fast as the limit of a source allows. So few of its announces
/// count for the load, no more than an honest host sends, and it holds an answer back only now and
/// then. At most [`SOURCES_TRACKED_MAX`] addresses; beyond that all are forgotten.
#[derive(Debug, Default)]
pub(super) struct SourceShares {
    by_source: HashMap<IpAddr, SourceShare>,
}

#[derive(Debug)]
struct SourceShare {
    /// Announces that may still count, as of `at`.
    left: f64,
    at: Instant,
    /// When it last held an answer back.
    silenced: Option<Instant>,
}

impl SourceShares {
    /// Whether an announce of `source` counts for the load of the group.
    pub(super) fn counts(&mut self, source: IpAddr, now: Instant) -> bool {
        let share = self.share(source, now);
        let refilled = now.saturating_duration_since(share.at).as_secs_f64() * SOURCE_COUNTED_PER_S;
        share.left = (share.left + refilled).min(SOURCE_COUNTED_BURST);
        share.at = now;
        let counts = share.left >= 1.0;
        if counts {
            share.left -= 1.0;
        }
        counts
    }

    /// Whether an announce of `source` may hold an answer back; if so, this counts as the one.
    pub(super) fn may_silence(&mut self, source: IpAddr, now: Instant) -> bool {
        let share = self.share(source, now);
        let may = share.silenced.is_none_or(|at| now.saturating_duration_since(at) >= SILENCES_AGAIN_AFTER);
        if may {
            share.silenced = Some(now);
        }
        may
    }

    fn share(&mut self, source: IpAddr, now: Instant) -> &mut SourceShare {
        if self.by_source.len() >= SOURCES_TRACKED_MAX && !self.by_source.contains_key(&source) {
            self.by_source.clear();
        }
        let full = SourceShare { left: SOURCE_COUNTED_BURST, at: now, silenced: None };
        self.by_source.entry(source).or_insert(full)
    }
}
