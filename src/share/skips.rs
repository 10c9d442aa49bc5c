//! Saying once what is left out.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use crate::share::limits::SKIPS_LOGGED_MAX;

/// What is left out, each logged once.
#[derive(Default)]
pub(super) struct Skips {
    seen: HashSet<u64>,
    hash: RandomState,
}

impl Skips {
    /// Logs that `path` is left out, and why.
    pub(super) fn once(&mut self, path: &Path, cause: impl FnOnce() -> String) {
        let cause = cause();
        if self.is_new(&(path, &cause)) {
            log::warn!("skipped path={} cause={cause}", path.display());
            if self.seen.len() == SKIPS_LOGGED_MAX {
                log::warn!("more is skipped than is logged count={SKIPS_LOGGED_MAX}");
            }
        }
    }

    /// The same for what everyone expects to be left out.
    pub(super) fn once_quietly(&mut self, path: &Path) {
        if self.is_new(&path) {
            log::debug!("skipped path={} cause=gpb's own files", path.display());
        }
    }

    /// Whether `what` was not said before; it counts as said from now on.
    pub(super) fn is_new(&mut self, what: &impl std::hash::Hash) -> bool {
        self.seen.len() < SKIPS_LOGGED_MAX && self.seen.insert(self.hash.hash_one(what))
    }
}
