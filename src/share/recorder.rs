//! Writes what was hashed to the index, and reads what an earlier run has written there.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::content::{Bare, Catalogue, Entry, FileId, RelPath};
use crate::share::inspector::FileState;
use crate::share::limits::{HASH_BATCH_FILES, INDEX_PRUNE, INDEX_SYNC, PRUNE_LATER, WATCH_DEBOUNCE};
use crate::store::{Copies, Hashed, Index, Life, Lookup};

/// Owns the index while the directory is shared.
///
/// A write to the index costs about as much for one file as for a thousand, so hashed files are
/// collected first. The index is a cache: what it loses is hashed again.
pub(super) struct Recorder {
    index: Arc<Index>,
    /// A view of the index for the files of one turn.
    lookup: Option<Lookup>,
    /// Hashed files that are not recorded yet, and when they must be.
    hashed: Vec<Hashed>,
    record_at: Option<Instant>,
    sync_at: Option<Instant>,
    /// The name at which pruning continues, while it is under way.
    prune_from: Option<String>,
    prune_at: Instant,
    /// Whether anything may have changed since files began to be hashed.
    is_disturbed: bool,
    /// Tells what a fetch put there; none where nothing is recorded.
    copies: Option<Copies>,
}

impl Recorder {
    pub(super) fn new(index: Arc<Index>, copies: Option<Copies>, now: Instant) -> Self {
        Recorder {
            index,
            lookup: None,
            hashed: Vec::new(),
            record_at: None,
            sync_at: None,
            prune_from: None,
            prune_at: now + PRUNE_LATER,
            is_disturbed: false,
            copies,
        }
    }

    // ---- what is known ----

    /// Makes [`known`](Recorder::known) answer from what is recorded now, until
    /// [`end_lookup`](Recorder::end_lookup).
    pub(super) fn begin_lookup(&mut self) {
        self.lookup = self.index.lookup();
    }

    /// Lets the database free what the view held.
    pub(super) fn end_lookup(&mut self) {
        self.lookup = None;
    }

    /// The content of the file, if it was hashed in this state. `None` outside of a lookup.
    pub(super) fn known(&mut self, name: &RelPath, state: FileState) -> Option<FileId> {
        self.lookup.as_mut()?.get(name.as_str(), state.len, &state.stamp)
    }

    /// How long the content `id` stays at `name`, if a fetch put it there.
    pub(super) fn copy_life(&mut self, name: &RelPath, id: &FileId, now: Instant) -> Option<Life> {
        self.copies.as_mut()?.life(name, id, now)
    }

    /// Whether a fetch made `name` this link, or this empty directory.
    pub(super) fn is_copied_bare(&mut self, name: &RelPath, bare: &Bare, now: Instant) -> bool {
        self.copies.as_mut().is_some_and(|copies| copies.is_copied_bare(name, bare, now))
    }

    /// A fetch has put files in place just now.
    pub(super) fn expect_copies(&mut self) {
        self.copies.iter_mut().for_each(Copies::expect_news);
    }

    /// Another directory has taken the place of the shared one.
    pub(super) fn set_root(&mut self, root: &Path) {
        self.copies.iter_mut().for_each(|copies| copies.set_root(root));
    }

    /// Whether, since the last call, an empty index replaced one that was damaged. Layers of
    /// offered files are lost then.
    pub(super) fn was_replaced(&self) -> bool {
        self.index.was_replaced()
    }

    /// Forgets a file and its layer.
    pub(super) fn forget(&mut self, name: &RelPath) {
        self.index.forget(name);
    }

    // ---- what was hashed ----

    /// Takes a file that was hashed. True if there are enough to be recorded at once.
    pub(super) fn add(&mut self, file: Hashed, now: Instant) -> bool {
        self.hashed.push(file);
        self.record_at.get_or_insert(now + WATCH_DEBOUNCE);
        self.hashed.len() >= HASH_BATCH_FILES
    }

    /// Drops what is not recorded yet, because it lies in a directory that is gone.
    pub(super) fn drop_hashed(&mut self) {
        self.hashed.clear();
        self.record_at = None;
    }

    pub(super) fn has_hashed(&self) -> bool {
        !self.hashed.is_empty()
    }

    /// Whether hashed files are to be recorded now. `is_idle`: no further file is being hashed.
    pub(super) fn is_due(&self, is_idle: bool, now: Instant) -> bool {
        self.record_at.is_some_and(|at| is_idle || now >= at)
    }

    /// Records the hashed files. Returns the ones that can be offered, and the names of the others:
    /// without its layer in the index no peer could verify a chunk of a file.
    pub(super) fn record(&mut self, now: Instant) -> (Vec<Entry>, Vec<RelPath>) {
        self.record_at = None;
        if self.hashed.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let hashed = std::mem::take(&mut self.hashed);
        let is_recorded = self.index.record(&hashed);
        self.sync_at.get_or_insert(now + INDEX_SYNC);
        part(hashed, is_recorded)
    }

    /// Notes that a path was inspected because of a hint, so that a file which is being hashed may
    /// have changed.
    pub(super) fn disturb(&mut self) {
        self.is_disturbed = true;
    }

    /// Notes that no file is being hashed.
    pub(super) fn calm(&mut self) {
        self.is_disturbed = false;
    }

    /// Whether hashed files must be inspected again before they are offered.
    pub(super) fn is_disturbed(&self) -> bool {
        self.is_disturbed
    }

    // ---- upkeep ----

    /// Makes recorded files durable if it is time to.
    pub(super) fn sync_if_due(&mut self, now: Instant) {
        if self.sync_at.take_if(|at| now >= *at).is_some() {
            self.index.sync();
        }
    }

    /// Lets the index forget files that `all` does not list, a part at each call. An empty
    /// catalogue prunes nothing: perhaps only a disk is missing.
    pub(super) fn prune(&mut self, all: &Catalogue, now: Instant) {
        if now >= self.prune_at && !all.is_empty() {
            self.prune_from = Some(String::new());
            self.prune_at = now + INDEX_PRUNE;
        }
        if let Some(from) = self.prune_from.take() {
            self.prune_from = self.index.prune_from(all, &from);
            self.sync_at.get_or_insert(now + INDEX_SYNC);
        }
    }

    /// Whether there is a part left to prune.
    pub(super) fn is_pruning(&self) -> bool {
        self.prune_from.is_some()
    }

    /// When there is something to record or to make durable.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.record_at.into_iter().chain(self.sync_at).min()
    }

    /// Makes all that is recorded durable, for the end.
    pub(super) fn finish(&mut self) {
        if self.sync_at.take().is_some() {
            self.index.sync_records();
        }
    }
}

/// The files that can be offered, and the names of the others.
fn part(hashed: Vec<Hashed>, is_recorded: bool) -> (Vec<Entry>, Vec<RelPath>) {
    let (offered, lost): (Vec<_>, Vec<_>) = hashed.into_iter().partition(|f| is_recorded || f.layer.is_empty());
    let entry = |f: Hashed| Entry { path: f.path, id: f.indexed.id, stamp: f.indexed.stamp, marks: f.marks };
    (offered.into_iter().map(entry).collect(), lost.into_iter().map(|f| f.path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Marks, Root, Stamp};
    use crate::store::Indexed;

    #[test]
    fn without_an_index_only_files_of_one_chunk_are_offered() {
        let hashed = |is_recorded| {
            let file = |name, chunks| {
                let id = FileId { root: Root::EMPTY, len: 5 };
                let indexed = Indexed { id, stamp: Stamp::default() };
                Hashed {
                    path: RelPath::new(name).unwrap(),
                    indexed,
                    marks: Marks::default(),
                    layer: vec![Digest([1; 32]); chunks],
                }
            };
            let (offered, lost) = part(vec![file("small", 0), file("large", 2)], is_recorded);
            let names = |all: Vec<RelPath>| all.iter().map(RelPath::to_string).collect::<Vec<_>>().join(" ");
            (names(offered.into_iter().map(|e| e.path).collect()), names(lost))
        };
        assert_eq!(hashed(true), ("small large".into(), String::new()));
        assert_eq!(hashed(false), ("small".into(), "large".into()));
    }
}
