//! Peers that were reached and did not let this node in.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::identity::PeerId;
use crate::limits::REFUSALS_MAX;
use crate::swarm::membership::limits::FULL_REMEMBERED;
use crate::swarm::membership::refusal::RefusalCause;

/// What each of them said last, at most [`REFUSALS_MAX`]. Where all places are taken, the peer that
/// was full longest ago is forgotten for a new one: that one may have places again.
#[derive(Debug, Default)]
pub(super) struct Denials {
    by_peer: BTreeMap<PeerId, Denial>,
}

/// Why a peer did not let this node in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    Refused(RefusalCause),
    /// It had no place then.
    Full(Instant),
}

impl Denials {
    /// `peer` refused this node, or was refused by it.
    pub(super) fn refused(&mut self, peer: PeerId, cause: RefusalCause) {
        self.note(peer, Denial::Refused(cause));
    }

    /// `peer` had no place for this node.
    pub(super) fn was_full(&mut self, peer: PeerId, now: Instant) {
        self.note(peer, Denial::Full(now));
    }

    /// `peer` let this node in.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.by_peer.remove(peer);
    }

    fn note(&mut self, peer: PeerId, denial: Denial) {
        if self.by_peer.len() >= REFUSALS_MAX && !self.by_peer.contains_key(&peer) {
            let full = self.by_peer.iter().filter_map(|(peer, denial)| match denial {
                Denial::Full(at) => Some((*at, *peer)),
                Denial::Refused(_) => None,
            });
            let Some((_, oldest)) = full.min() else { return };
            self.by_peer.remove(&oldest);
        }
        self.by_peer.insert(peer, denial);
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = (PeerId, RefusalCause)> + '_ {
        self.by_peer.iter().filter_map(|(peer, denial)| match denial {
            Denial::Refused(cause) => Some((*peer, *cause)),
            Denial::Full(_) => None,
        })
    }

    /// The peers that had no place in the last [`FULL_REMEMBERED`].
    pub(super) fn full(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        let is_recent = move |at: &Instant| now.saturating_duration_since(*at) < FULL_REMEMBERED;
        let full = self.by_peer.iter().filter(move |(_, denial)| matches!(denial, Denial::Full(at) if is_recent(at)));
        full.map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> PeerId {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        PeerId(key)
    }

    /// Peers that were full once took all places for good: no further refusal was noted, and the user read that no
    /// peer is there.
    #[test]
    fn a_peer_that_was_full_gives_its_place_to_a_new_denial() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        (0..REFUSALS_MAX).for_each(|n| denials.was_full(key(n), start + n as u32 * FULL_REMEMBERED));
        denials.refused(key(5000), RefusalCause::Unstated);
        denials.was_full(key(5001), start);
        assert_eq!(denials.refusals().count(), 1);
        assert!(!denials.by_peer.contains_key(&key(0)) && denials.by_peer.contains_key(&key(5001)));
        (0..2 * REFUSALS_MAX).for_each(|n| denials.refused(key(n), RefusalCause::Unstated));
        assert_eq!((denials.refusals().count(), denials.by_peer.len()), (REFUSALS_MAX, REFUSALS_MAX));
    }
}
