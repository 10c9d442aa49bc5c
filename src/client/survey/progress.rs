//! How far a survey is, and when it has ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::client::FetchError;
use crate::client::limits::{LIST_QUIET, RESOLVE_MAX};
use crate::identity::PeerId;
use crate::peers::Hindrance;
use crate::swarm::RefusalCause;

/// How far a survey is.
#[derive(Debug, Default)]
pub(crate) struct SurveyProgress {
    /// Peers that answered.
    pub(crate) answered: usize,
    /// Peers that refused this node, or that it refused.
    pub(crate) refused: BTreeMap<PeerId, RefusalCause>,
    /// Peers that list more than is taken in, and what is, in bytes.
    pub(crate) long: BTreeMap<PeerId, usize>,
    /// Peers that answered that they have no place for this node now; it asks them again.
    pub(crate) full: usize,
    /// Sessions that said hello, whether an answer came on them or not.
    pub(crate) connected: usize,
    /// What stands in the way of reaching peers.
    pub(crate) hindrance: Option<Hindrance>,
    /// Peers that are being asked.
    pub(crate) pending: usize,
    /// Peers that could not be asked yet and may be soon: the user named them, or they offer files elsewhere and were not
    /// reached, so that they may offer to answer on sessions of their own.
    pub(crate) awaited: usize,
    /// No other peer can appear: announces are not received, and all that was named or is known has
    /// answered.
    pub(crate) complete: bool,
    /// When the last new peer appeared.
    pub(crate) last_peer: Option<Instant>,
    /// When the first answer came, and the last one.
    pub(crate) answers: Option<(Instant, Instant)>,
    pub(crate) first_refusal: Option<Instant>,
}

impl SurveyProgress {
    /// An answer came.
    pub(super) fn note_answer(&mut self, now: Instant) {
        let first = self.answers.map_or(now, |(first, _)| first);
        self.answers = Some((first, now));
    }

    /// When a listing is complete.
    pub(super) fn listing_end(&self, begin: Instant, wait: Duration) -> Instant {
        let end = begin + wait;
        match self.last_peer {
            Some(last) if self.pending == 0 && self.answered + self.long.len() > 0 => end.min(last + LIST_QUIET),
            // The peers that refuse may not be all: others get a moment to appear.
            _ if self.pending == 0 && self.answered == 0 => {
                self.first_refusal.map_or(end, |at| end.min(at + RESOLVE_MAX))
            }
            _ => end,
        }
    }

    /// An error if no peer answered when asked for `what`, for the time `wait`.
    pub(crate) fn check(&self, what: &str, wait: Duration) -> Result<(), FetchError> {
        if let (0, Some((&peer, &len_max))) = (self.answered, self.long.first_key_value()) {
            return Err(FetchError::LongListing { what: what.into(), peer, len_max });
        }
        match (self.answered, self.refused.len()) {
            (0, _) if self.full > 0 => Err(FetchError::Full { full: self.full, wait }),
            (0, 0) if self.connected > 0 => Err(FetchError::Silent { what: what.into(), wait }),
            (0, 0) => Err(match self.hindrance {
                Some(Hindrance::NoSocket(errno)) => FetchError::no_socket(errno),
                Some(Hindrance::ClocksDiffer) => FetchError::ClocksDiffer(wait),
                None => FetchError::NoPeer(wait),
            }),
            (0, _) => Err(FetchError::Refused { peers: self.refused.clone().into_iter().collect() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_peers_have_an_error_of_their_own() {
        let wait = Duration::from_secs(2);
        let of = |answered, full, refusing: u8| {
            let refused = (0..refusing).map(|n| (PeerId([n; 32]), RefusalCause::Unstated)).collect();
            SurveyProgress { answered, full, refused, ..SurveyProgress::default() }.check("x", wait)
        };
        assert!(matches!(of(0, 2, 0), Err(FetchError::Full { full: 2, .. })));
        assert!(matches!(of(0, 1, 1), Err(FetchError::Full { full: 1, .. })), "not every peer refused");
        let hindrance = Some(Hindrance::NoSocket(24));
        let no_socket = SurveyProgress { hindrance, ..SurveyProgress::default() }.check("x", wait);
        assert!(matches!(no_socket, Err(FetchError::Sockets(e)) if e.raw_os_error() == Some(24)));
        let long = SurveyProgress { long: [(PeerId([7; 32]), 1 << 20)].into(), connected: 1, ..Default::default() };
        let Err(e @ FetchError::LongListing { .. }) = long.check("x", wait) else { panic!() };
        assert!(e.to_string().ends_with("takes more than 1 MiB") && e.to_string().starts_with("x: the listing of ed"));
        assert!(SurveyProgress { answered: 1, ..long }.check("x", wait).is_ok(), "others answered");
        assert!(of(1, 1, 0).is_ok() && matches!(of(0, 0, 0), Err(FetchError::NoPeer(_))));
    }
}
