//! When a peer of a survey is asked again.

use std::time::Instant;

use crate::client::limits::UNREACHED_WAIT;
use crate::swarm::download::limits::OFFER_HONOURED_EVERY;

/// The attempts to ask one peer.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) made: u32,
    /// Number of its offers to answer on sessions of its own when it was asked last.
    pub(super) offers: u32,
    /// When it was asked because of one last.
    pub(super) honoured: Option<Instant>,
    /// When it could not be asked first.
    pub(super) failed: Option<Instant>,
    /// When it may be asked again; `None` while it is being asked and once it has answered.
    pub(super) retry_at: Option<Instant>,
}

impl Attempts {
    /// Whether the peer made an offer that has it asked before its time. If it made one a moment ago, it is asked when that
    /// is over: a peer that offers again and again has no more of a thread than others.
    pub(super) fn honour(&mut self, offers: u32, now: Instant) -> bool {
        let Some(retry_at) = self.retry_at.filter(|_| self.offers != offers) else { return false };
        let rested = self.honoured.map_or(now, |at| at + OFFER_HONOURED_EVERY);
        self.retry_at = Some(retry_at.min(rested));
        if rested <= now {
            self.honoured = Some(now);
        }
        rested <= now
    }

    /// When it is no longer waited for, should it make no offer.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        self.failed.filter(|_| self.retry_at.is_some()).map(|at| at + UNREACHED_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_offers_again_and_again_is_asked_no_more_often() {
        let begin = Instant::now();
        let far = begin + 100 * OFFER_HONOURED_EVERY;
        let mut attempts = Attempts { made: 1, retry_at: Some(far), failed: Some(begin), ..Attempts::default() };
        assert!(!attempts.honour(0, begin) && attempts.retry_at == Some(far), "it made none");
        let mut asked = 0;
        for n in 1..=100 {
            let now = begin + OFFER_HONOURED_EVERY * n / 20;
            if attempts.honour(n, now) || attempts.retry_at.is_some_and(|at| at <= now) {
                (attempts.offers, attempts.retry_at, asked) = (n, Some(far), asked + 1);
            }
        }
        assert_eq!(asked, 5, "of 100 offers in 10 s");
        assert!(!attempts.honour(101, begin + OFFER_HONOURED_EVERY * 100 / 20));
        assert!(attempts.retry_at < Some(far), "the last one counts, too, when it is time");
        assert_eq!(attempts.awaited_until(), Some(begin + UNREACHED_WAIT));
    }
}
