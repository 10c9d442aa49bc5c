//! Which remembered peers are dialed when. Pure: `now` is an argument.
//!
//! The last proved are dialed at once, a few at a time, and the others one a second, so that a long
//! list costs next to nothing once some answered: they name the others. All are tried again when
//! the group is empty, after a pause that grows.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::discovery::limits::{
    CONTACT_RETRY_FIRST, RECALL_AT_ONCE, RECALL_FIRST, RECALL_NEXT_AFTER, RECALL_RETRY_MAX,
};
use crate::identity::PeerId;
use crate::swarm::RememberedPeer;

/// The remembered peers of a node that are not dialed yet.
#[derive(Debug)]
pub(super) struct Recall {
    waiting: VecDeque<RememberedPeer>,
    /// Peers that did not answer, and peers that did or were proved since.
    failed: Vec<RememberedPeer>,
    met: Vec<RememberedPeer>,
    /// The ones that are being dialed, and whether each is one of the first.
    dialed: Vec<(RememberedPeer, bool)>,
    /// Peers that may be dialed without a wait.
    first_left: usize,
    /// When the next one is dialed that has to wait.
    next: Instant,
    retry: Duration,
}

impl Recall {
    /// To be dialed are `peers`, the last proved first.
    pub(super) fn new(peers: Vec<RememberedPeer>, now: Instant) -> Self {
        Recall {
            first_left: RECALL_FIRST.min(peers.len()),
            waiting: peers.into(),
            failed: Vec::new(),
            met: Vec::new(),
            dialed: Vec::new(),
            next: now,
            retry: CONTACT_RETRY_FIRST,
        }
    }

    /// Whether all that are dialed without a wait have been.
    pub(super) fn is_first_over(&self) -> bool {
        self.first_left == 0 && !self.dialed.iter().any(|(_, is_first)| *is_first)
    }

    /// The next peer to dial now, if any. `is_empty`: the group is; `is_wanted`: the key is trusted, and no node of it is known.
    pub(super) fn take_due(
        &mut self,
        is_empty: bool,
        is_wanted: impl Fn(&PeerId) -> bool,
        now: Instant,
    ) -> Option<RememberedPeer> {
        if self.waiting.is_empty() && self.dialed.is_empty() && is_empty && now >= self.next {
            self.waiting = self.met.drain(..).chain(self.failed.drain(..)).collect();
        }
        let at_once = self.first_left > 0;
        if self.dialed.len() >= RECALL_AT_ONCE || !(at_once || now >= self.next) {
            return None;
        }
        while let Some(peer) = self.waiting.pop_front() {
            self.first_left = self.first_left.saturating_sub(1);
            if is_wanted(&peer.peer) {
                self.dialed.push((peer.clone(), at_once));
                if self.first_left == 0 {
                    self.next = now + RECALL_NEXT_AFTER;
                }
                return Some(peer);
            }
        }
        self.first_left = 0;
        None
    }

    /// The dial of `peer` has ended.
    pub(super) fn ended(&mut self, peer: &PeerId, succeeded: bool, now: Instant) {
        let Some(at) = self.dialed.iter().position(|(dialed, _)| dialed.peer == *peer) else { return };
        let (dialed, _) = self.dialed.swap_remove(at);
        if succeeded {
            self.retry = CONTACT_RETRY_FIRST;
            self.met.push(dialed);
        } else {
            self.failed.push(dialed);
        }
        if self.waiting.is_empty() && self.dialed.is_empty() {
            self.next = now + self.retry;
            self.retry = (2 * self.retry).min(RECALL_RETRY_MAX);
        }
    }

    /// These are remembered now, so that they are dialed once the group is empty.
    pub(super) fn learn(&mut self, peers: Vec<RememberedPeer>) {
        let others = self.waiting.iter().chain(&self.failed).chain(self.dialed.iter().map(|(peer, _)| peer));
        let others: HashSet<PeerId> = others.map(|known| known.peer).collect();
        self.met = peers.into_iter().filter(|known| !others.contains(&known.peer)).collect();
    }

    /// When to look again; `None` while there is nothing to dial.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let some = !(self.waiting.is_empty() && self.failed.is_empty() && self.met.is_empty());
        (some && self.dialed.len() < RECALL_AT_ONCE && self.first_left == 0).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(n: u8) -> Vec<RememberedPeer> {
        let peer = |n| RememberedPeer { peer: PeerId([n; 32]), seen_s: 1, addrs: vec![([10, 0, 0, n], 1).into()] };
        (0..n).map(peer).collect()
    }

    #[test]
    fn the_first_go_at_once_and_the_others_one_a_second() {
        let now = Instant::now();
        let mut recall = Recall::new(peers(40), now);
        assert!(!recall.is_first_over());
        let mut at_once = 0;
        while let Some(peer) = recall.take_due(true, |_| true, now) {
            recall.ended(&peer.peer, true, now);
            at_once += 1;
        }
        assert!(at_once == RECALL_FIRST && recall.is_first_over());
        let next = recall.next_due().unwrap();
        assert_eq!(next, now + RECALL_NEXT_AFTER);
        assert!(recall.take_due(false, |_| true, next).is_some());
        assert!(recall.take_due(false, |_| true, next).is_none());
    }

    #[test]
    fn few_are_dialed_at_the_same_time() {
        let now = Instant::now();
        let mut recall = Recall::new(peers(40), now);
        let dialed: Vec<_> = std::iter::from_fn(|| recall.take_due(true, |_| true, now)).collect();
        assert_eq!(dialed.len(), RECALL_AT_ONCE);
        recall.ended(&dialed[0].peer, false, now);
        assert!(recall.take_due(true, |_| true, now).is_some() && recall.take_due(true, |_| true, now).is_none());
    }

    #[test]
    fn known_and_untrusted_peers_are_left_out() {
        let now = Instant::now();
        let mut recall = Recall::new(peers(10), now);
        let (known, wanted) = (PeerId([0; 32]), PeerId([9; 32]));
        assert_eq!(recall.take_due(false, |peer| *peer == wanted && *peer != known, now).unwrap().peer, wanted);
        recall.ended(&wanted, true, now);
        assert_eq!(recall.take_due(false, |_| true, now), None);
    }

    /// A peer that answered was forgotten, so a node whose group was gone for a while stayed alone.
    #[test]
    fn who_answered_is_dialed_again_once_the_group_is_empty() {
        let mut now = Instant::now();
        let mut recall = Recall::new(peers(1), now);
        for _ in 0..3 {
            let peer = recall.take_due(true, |_| true, now).unwrap();
            recall.ended(&peer.peer, true, now);
            let next = recall.next_due().unwrap();
            assert_eq!(recall.take_due(false, |_| true, next), None, "the group is there");
            now = next;
        }
        // What was proved meanwhile counts as well, and what is known is not doubled.
        recall.learn(peers(3));
        let dialed: Vec<_> = std::iter::from_fn(|| recall.take_due(true, |_| true, now + RECALL_RETRY_MAX)).collect();
        assert_eq!(dialed.len(), 1);
        recall.ended(&dialed[0].peer, true, now);
        assert_eq!((recall.waiting.len(), recall.met.len()), (2, 1));
    }

    #[test]
    fn what_failed_is_tried_again_while_the_group_is_empty() {
        let mut now = Instant::now();
        let mut recall = Recall::new(peers(1), now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let peer = recall.take_due(true, |_| true, now).unwrap();
            recall.ended(&peer.peer, false, now);
            let next = recall.next_due().unwrap();
            assert_eq!(recall.take_due(false, |_| true, next), None, "the group is not empty");
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
