//! What a download learns from other downloads, and what its caller learns from it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::client::coordinator::Coordinator;
use crate::client::limits::TELL_EVERY;

/// What the caller of the download knows.
#[derive(Default)]
pub(super) struct LastNews {
    /// Bytes that were there and places that were filled.
    mark: (u64, usize),
    at: Option<Instant>,
    /// There is more by now.
    pub(super) is_old: bool,
}

impl Coordinator {
    /// Counts what other downloads have done for this one: what it waits for makes progress there.
    /// The limit follows what waits for this one.
    pub(super) fn read_lent(&self) {
        let (limit, caller) = &self.shared.terms.limit;
        if caller.is_some() {
            limit.set(self.shared.terms.joins.limit_of(&*self.shared));
        }
        if self.shared.terms.has_joined.load(Ordering::Acquire) {
            let lent = self.shared.terms.joins.lent_to(&*self.shared);
            self.shared.stats.borrowed(lent);
        }
    }

    /// Tells the caller of the download that it is further, at most each [`TELL_EVERY`].
    pub(super) fn tell_progress(&mut self, now: Instant) {
        let mark = self.shared.stats.mark();
        let is_soon = self.told.at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY);
        self.told.is_old = mark != self.told.mark && is_soon;
        if mark != self.told.mark && !is_soon {
            self.told = LastNews { mark, at: Some(now), is_old: false };
            (self.shared.terms.notify)();
        }
    }
}
