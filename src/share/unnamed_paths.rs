//! How many paths have names that cannot be shared: peers learn the number with the listing, since a
//! fetch of everything would otherwise seem whole.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use crate::share::limits::UNNAMED_COUNTED_MAX;

/// Paths whose names are not UTF-8, too long, or otherwise none that a listing can have. A directory
/// counts once, with all that lies below it.
///
/// What is gone counts until the end of the next walk of the whole directory, unless a hint came.
#[derive(Debug, Default)]
pub(super) struct UnnamedPaths {
    /// Hashes of the paths, at most [`UNNAMED_COUNTED_MAX`].
    paths: HashSet<u64>,
    /// The ones that the present walk of the whole directory found.
    walked: Option<HashSet<u64>>,
    hash: RandomState,
}

impl UnnamedPaths {
    /// Counts `path` if something is there; otherwise it counts no longer.
    pub(super) fn found(&mut self, path: &Path) {
        let hash = self.hash.hash_one(path);
        if std::fs::symlink_metadata(path).is_err() {
            self.paths.remove(&hash);
        } else if self.paths.len() < UNNAMED_COUNTED_MAX {
            self.paths.insert(hash);
            if let Some(walked) = &mut self.walked {
                walked.insert(hash);
            }
        }
    }

    /// A walk of the whole directory begins: what it does not find is gone.
    pub(super) fn begin_walk(&mut self) {
        self.walked = Some(HashSet::new());
    }

    /// That walk came to its end.
    pub(super) fn end_walk(&mut self) {
        self.paths = self.walked.take().unwrap_or_else(|| std::mem::take(&mut self.paths));
    }

    /// Their number.
    pub(super) fn count(&self) -> u64 {
        self.paths.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_counts_until_a_hint_or_a_walk() {
        let tmp = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| tmp.path().join(name));
        let mut unnamed = UnnamedPaths::default();
        for path in [&a, &b, &a] {
            std::fs::write(path, "").unwrap();
            unnamed.found(path);
        }
        assert_eq!(unnamed.count(), 2);
        std::fs::remove_file(&a).unwrap();
        unnamed.found(&a);
        assert_eq!(unnamed.count(), 1);
        unnamed.begin_walk();
        assert_eq!(unnamed.count(), 1, "the walk may come to it");
        unnamed.end_walk();
        assert_eq!(unnamed.count(), 0);
        unnamed.begin_walk();
        unnamed.found(&b);
        unnamed.end_walk();
        assert_eq!(unnamed.count(), 1);
    }
}
