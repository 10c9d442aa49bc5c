//! The directories that a node shares, each kept by a service of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::{Entry, FileId, RelPath};
use crate::node::board::CatalogueBoard;
use crate::runtime::deadline;
use crate::server::FileDoubt;
use crate::share::{PublishError, Sharer};
use crate::store::SharedRoots;

/// A service for each shared directory, in the order of their roots.
pub(super) struct Sharers {
    pub(super) roots: SharedRoots,
    all: Vec<Sharer>,
    /// Dropped behind the services, whose threads call it. If one of them had it last, it would end its
    /// own subscription, and would wait for itself.
    _board: Arc<CatalogueBoard>,
}

impl Sharers {
    pub(super) fn new(roots: SharedRoots, all: Vec<Sharer>, board: Arc<CatalogueBoard>) -> Self {
        Sharers { roots, all, _board: board }
    }

    /// Waits until each has hashed what was there at its start, at most for `timeout`. Returns their
    /// files and bytes together.
    pub(super) fn wait_ready(&self, timeout: Duration) -> Option<(u64, u64)> {
        if self.all.is_empty() {
            return None;
        }
        let end = deadline(timeout);
        let left = || end.saturating_duration_since(Instant::now());
        let each = self.all.iter().map(|sharer| sharer.wait_ready(left()));
        each.reduce(|sum, one| Some((sum?.0 + one?.0, sum?.1 + one?.1))).flatten()
    }

    /// The service of the directory of `name`, and the name there.
    fn of(&self, name: &RelPath) -> Result<(&Sharer, RelPath), PublishError> {
        if self.all.is_empty() {
            return Err(PublishError::NotSharing);
        }
        let (number, local) = self.roots.place_of(name).ok_or_else(|| PublishError::NotFound(name.clone()))?;
        Ok((self.all.get(number).ok_or(PublishError::NotSharing)?, local))
    }

    pub(super) fn publish(&self, name: &RelPath) -> Result<FileId, PublishError> {
        let (sharer, local) = self.of(name)?;
        sharer.publish(local).map_err(|e| of_name(e, name))
    }

    pub(super) fn forget(&self, name: &RelPath) -> Result<bool, PublishError> {
        let (sharer, local) = self.of(name)?;
        sharer.forget(local).map_err(|e| of_name(e, name))
    }

    /// A request found something wrong with `entry`.
    pub(super) fn doubt(&self, entry: &Entry, doubt: FileDoubt) {
        let Some((number, path)) = self.roots.place_of(&entry.path) else { return };
        let (Some(sharer), entry) = (self.all.get(number), Entry { path, ..entry.clone() }) else { return };
        match doubt {
            FileDoubt::Falsified => sharer.withdraw(&entry),
            FileDoubt::Changed => sharer.recheck(&entry),
        }
    }

    /// Has the files `names` of the directory without a name looked at without a wait: a fetch of this
    /// node has just put them in place, or they have just been removed.
    pub(super) fn look(&self, names: Vec<RelPath>) {
        let mut unnamed = self.roots.all().zip(&self.all).filter(|(root, _)| root.name.is_none());
        if let Some((_, sharer)) = unnamed.next() {
            sharer.look(names);
        }
    }

    /// Whether each has hashed what was there at its start.
    pub(super) fn are_ready(&self) -> bool {
        self.all.iter().all(Sharer::is_ready)
    }

    pub(super) fn hashed_bytes(&self) -> u64 {
        self.all.iter().map(Sharer::hashed_bytes).sum()
    }

    pub(super) fn hashing_left(&self) -> u64 {
        self.all.iter().map(Sharer::hashing_left).sum()
    }
}

/// An error of a directory, by the name that its file has for other nodes.
fn of_name(error: PublishError, name: &RelPath) -> PublishError {
    match error {
        PublishError::NotFound(_) => PublishError::NotFound(name.clone()),
        PublishError::NotShared { cause, .. } => PublishError::NotShared { path: name.clone(), cause },
        PublishError::Changed(_) => PublishError::Changed(name.clone()),
        other => other,
    }
}
