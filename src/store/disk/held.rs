//! Files that lose their names to others while their contents are still wanted elsewhere: of names that change places the
//! one that goes first would cost its content.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use crate::content::{FileId, RelPath};
use crate::store::disk::Disk;
use crate::store::inspect::state_of_open;
use crate::store::limits::HELD_FILES_MAX;
use crate::sync::lock;

/// What a fetch still wants, and files that it replaced which have that.
#[derive(Debug, Default)]
pub(super) struct HeldFiles {
    wanted: HashSet<FileId>,
    files: HashMap<FileId, Arc<File>>,
}

impl HeldFiles {
    /// Whether a file with the content `id` is to be held, and there is room for it.
    fn lacks(&self, id: &FileId) -> bool {
        self.wanted.contains(id) && !self.files.contains_key(id) && self.files.len() < HELD_FILES_MAX
    }
}

impl Disk {
    /// These contents are about to be put in place. Costs nothing where no fetch has put any file before.
    pub fn want<'i>(&self, ids: impl IntoIterator<Item = &'i FileId>) {
        if self.volume.guard().is_some_and(|guard| guard.has_records()) {
            *lock(&self.held) = HeldFiles { wanted: ids.into_iter().copied().collect(), ..HeldFiles::default() };
        }
    }

    /// `files` are about to get their places: opens what lies there, if an earlier fetch put it there and its content is
    /// still wanted.
    pub(super) fn hold<'p>(&self, files: impl Iterator<Item = (&'p RelPath, FileId)> + Clone) {
        if lock(&self.held).wanted.is_empty() {
            return;
        }
        // These are known to be had.
        let coming: HashSet<FileId> = files.clone().map(|(_, id)| id).collect();
        for (path, _) in files {
            let Some(id) = self.left_at(path).filter(|id| !coming.contains(id)) else { continue };
            if lock(&self.held).lacks(&id)
                && let Ok(file) = self.volume.open_file(path)
            {
                lock(&self.held).files.entry(id).or_insert_with(|| file.into());
            }
        }
    }

    /// `id` is in place.
    pub(super) fn let_go(&self, id: &FileId) {
        let mut held = lock(&self.held);
        held.wanted.remove(id);
        held.files.remove(id);
    }

    /// A file that was replaced and had the content `id` before.
    pub(super) fn held(&self, id: &FileId) -> Option<File> {
        let file = lock(&self.held).files.get(id).cloned()?;
        file.try_clone().ok()
    }

    /// The content that an earlier fetch put at `path`, and left in the state that it is in.
    fn left_at(&self, path: &RelPath) -> Option<FileId> {
        let guard = self.volume.guard()?;
        let state = state_of_open(&self.volume.open_file(path).ok()?)?;
        guard.known(path).into_iter().find(|(_, left)| left.as_ref() == Some(&state)).map(|(id, _)| id)
    }
}
