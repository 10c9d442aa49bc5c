//! Warnings that are reported once per key.

use std::collections::BTreeSet;

use crate::identity::PeerId;
use crate::limits::{CLOCK_SKEW_MAX, PEERS_MAX};
use crate::swarm::membership::admit::Dropped;
use crate::swarm::membership::limits::CLOCK_SKEW_LOGGED;
use crate::swarm::membership::received::Received;

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
        let is_much = skew_ms.unsigned_abs() > CLOCK_SKEW_LOGGED.as_millis() as u64 && !received.via.is_hint();
        let may_be_new = is_much && self.skews.len() < PEERS_MAX;
        (may_be_new && self.skews.insert(received.announce.peer)).then_some(skew_ms)
    }
}

/// The peer's clock minus this one's in ms.
///
/// # Errors
/// Beyond [`CLOCK_SKEW_MAX`] if the announce can be a replay. In a session it cannot: TLS proved
/// that the peer sent it now, so a wrong clock on either side costs a warning and no peer.
pub(super) fn skew(received: &Received<'_>) -> Result<i64, Dropped> {
    let (seq, unix_ms) = (received.announce.seq, received.unix_ms);
    let differs = seq.abs_diff(unix_ms);
    if differs > FAR_MS && !received.is_fresh() {
        return Err(if seq > unix_ms { Dropped::Future } else { Dropped::Stale });
    }
    let differs = i64::try_from(differs).unwrap_or(i64::MAX);
    Ok(if seq > unix_ms { differs } else { -differs })
}

/// [`CLOCK_SKEW_MAX`] in ms.
pub(super) const FAR_MS: u64 = CLOCK_SKEW_MAX.as_millis() as u64;
