//! One log line for each path that is left out.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use crate::share::limits::SKIPS_LOGGED_MAX;

/// Remembers which skipped paths were logged, by a hash of path and cause.
#[derive(Debug, Default)]
pub(super) struct SkipLog {
    logged: HashSet<u64>,
    hash: RandomState,
}

impl SkipLog {
    /// Logs that `path` is left out, and why.
    pub(super) fn warn_once(&mut self, path: &Path, cause: &str) {
        if self.is_new(&(path, cause)) {
            log::warn!("skipped path={} error=\"{cause}\"", path.display());
            if self.logged.len() == SKIPS_LOGGED_MAX {
                log::warn!("no further skipped paths are logged count={SKIPS_LOGGED_MAX}");
            }
        }
    }

    /// Logs at debug that `path` is left out because it belongs to the node.
    pub(super) fn debug_once(&mut self, path: &Path) {
        if self.is_new(&path) {
            log::debug!("skipped path={} error=\"a file of this node itself\"", path.display());
        }
    }

    fn is_new(&mut self, what: &impl std::hash::Hash) -> bool {
        self.logged.len() < SKIPS_LOGGED_MAX && self.logged.insert(self.hash.hash_one(what))
    }
}
