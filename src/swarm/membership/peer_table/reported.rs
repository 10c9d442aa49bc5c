//! Warnings that are reported once per key.

use std::collections::BTreeSet;

use crate::identity::PeerId;
use crate::limits::{CLOCK_SKEW_MAX, PEERS_MAX};
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::limits::CLOCK_SKEW_LOGGED;
use crate::swarm::membership::received::{Received, Via};

/// The keys of the warnings that have been reported, at most [`PEERS_MAX`] of each kind.
#[derive(Debug, Default)]
pub(super) struct Reported {
    skews: BTreeSet<PeerId>,
    pub(super) duplicate_keys: BTreeSet<PeerId>,
}

impl Reported {
    /// `skew_ms`, if it is over [`CLOCK_SKEW_LOGGED`] and has not been reported for that key. A
    /// hint does not count: the time that it took to come here looks like a skew.
    pub(super) fn skew(&mut self, received: &Received<'_>, skew_ms: i64) -> Option<i64> {
        let is_much = skew_ms.unsigned_abs() > CLOCK_SKEW_LOGGED.as_millis() as u64 && received.via != Via::Hint;
        let may_be_new = is_much && self.skews.len() < PEERS_MAX;
        (may_be_new && self.skews.insert(received.announce.peer)).then_some(skew_ms)
    }
}

/// The peer's clock minus this one's in ms; an error beyond [`CLOCK_SKEW_MAX`].
pub(super) fn skew(seq: u64, unix_ms: u64) -> Result<i64, Dropped> {
    let bound = CLOCK_SKEW_MAX.as_millis() as u64;
    match seq.abs_diff(unix_ms) {
        ahead if seq > unix_ms => {
            if ahead > bound {
                Err(Dropped::Future)
            } else {
                Ok(ahead as i64)
            }
        }
        behind if behind > bound => Err(Dropped::Stale),
        behind => Ok(-(behind as i64)),
    }
}
