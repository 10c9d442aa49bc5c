//! What lies below the directory of a fetch, whose it is, and removing some of it.

use std::collections::{BTreeSet, HashSet};

use rustix::fs::FileType;

use super::Disk;
use crate::content::{FileId, RelPath};
use crate::store::StoreError;
use crate::store::disk_volume::{LocalKind, LocalName, LocalTree};
use crate::store::limits::DIRS_OPEN_MAX;
use crate::store::place_guard::SpellingAsk;
use crate::store::placed::PlacedState;
use crate::store::storage::Volume;

/// Files, by device and inode, of which a name may be taken.
#[derive(Debug, Clone, Default)]
pub struct SharedInodes(HashSet<(u64, u64)>);

impl Disk {
    /// What lies below the directory `dir`, which may be missing; below the whole one if it is empty.
    /// What is mounted there, unfinished files, and names that no file can be shared under are left
    /// out. No symlink is followed. Returns soon after `stop` returns true.
    ///
    /// # Errors
    /// [`StoreError`]: a directory that cannot be read, or more names than any list can have.
    pub fn tree(&self, dir: &str, stop: &dyn Fn() -> bool) -> Result<LocalTree, StoreError> {
        self.volume.tree(dir, stop).map_err(|(dir, e)| StoreError::at(self.path().join(dir), e))
    }

    /// The content that an earlier fetch put under this name, if what lies there is still that: in the
    /// recorded state, or else by its bytes, which are read and hashed then. `None` for what is the
    /// user's.
    pub fn fetched_as(&self, name: &LocalName, stop: &(dyn Fn() -> bool + Sync)) -> Option<FileId> {
        let kind = match name.kind {
            LocalKind::File => FileType::RegularFile,
            LocalKind::Link => FileType::Symlink,
            LocalKind::Other => return None,
        };
        let holds = |id: &FileId| self.has_text_or_content(&name.path, kind, id, stop);
        self.volume.guard()?.owned(&name.path, (kind, name.state), &holds)
    }

    /// Whether `path`, another spelling of `name`, is its file, too: on some file systems the two are one
    /// name. Some of them show an inode of its own for each spelling (exFAT by FUSE); then what `path`
    /// leads to is listed under other letters.
    pub fn has(&self, name: &LocalName, path: &str) -> bool {
        let Ok(path) = RelPath::new(path) else { return false };
        let state = self.volume.state_of(&path);
        state.is_some_and(|(_, state)| {
            (state.device, state.inode) == (name.state.device, name.state.inode)
                || !self.volume.spelling(&path, SpellingAsk::IsExact)
        })
    }

    /// Removes names, each only while it is the one that was looked at; false for one that is not,
    /// which stays. A file that has other names keeps them.
    pub fn remove(&self, names: &[LocalName]) -> Vec<Result<bool, StoreError>> {
        self.remove_besides(names, &SharedInodes::default())
    }

    /// As [`remove`](Self::remove), where a fetch may have replaced other names of files, meanwhile.
    pub fn remove_besides(&self, names: &[LocalName], others: &SharedInodes) -> Vec<Result<bool, StoreError>> {
        let all: Vec<(&RelPath, PlacedState)> = names.iter().map(|name| (&name.path, name.state)).collect();
        self.remove_placed(&all, others)
    }

    /// The files of `names` that have a name of `others`, too.
    pub fn shared_with<'p>(&self, names: &[LocalName], others: impl IntoIterator<Item = &'p RelPath>) -> SharedInodes {
        let files: HashSet<(u64, u64)> = names.iter().map(|name| (name.state.device, name.state.inode)).collect();
        if files.is_empty() {
            return SharedInodes::default();
        }
        let states = others.into_iter().filter_map(|path| self.volume.state_of(path));
        let inodes = states.map(|(_, state)| (state.device, state.inode));
        SharedInodes(inodes.filter(|inode| files.contains(inode)).collect())
    }

    /// As [`remove`](Self::remove), by the states in which they were seen.
    pub(crate) fn remove_placed(
        &self,
        names: &[(&RelPath, PlacedState)],
        others: &SharedInodes,
    ) -> Vec<Result<bool, StoreError>> {
        let (mut results, mut dirs) = (Vec::with_capacity(names.len()), BTreeSet::new());
        // Removing a name changes the time of the inode, which the names that are left still have.
        let mut unlinked: HashSet<(u64, u64)> = others.0.clone();
        for (path, state) in names {
            let file = (state.device, state.inode);
            let now = || self.volume.state_of(path).map(|(_, now)| now).filter(|now| now.is_renamed(state));
            let found = if unlinked.contains(&file) { now().unwrap_or(*state) } else { *state };
            let removed = self.volume.remove_one(path, &found);
            if matches!(removed, Ok(true)) {
                unlinked.insert(file);
            }
            results.push(removed.map_err(|e| StoreError::at(self.volume.path_of(path), e)));
            dirs.insert(path.as_str().rsplit_once('/').map_or("", |(dir, _)| dir));
        }
        if self.is_durable() {
            // What comes back after a power loss is removed by the next run.
            let synced = match dirs.len() <= DIRS_OPEN_MAX {
                true => dirs.iter().try_for_each(|dir| self.volume.sync_dir(dir)),
                false => self.volume.sync_files(),
            };
            if let Err(e) = synced {
                log::debug!("removal not made durable error=\"{}\"", crate::chain::Chain(&e));
            }
        }
        self.volume.tidy();
        results
    }

    /// Removes the directory `path` if it is empty; whether it did.
    pub fn remove_dir(&self, path: &RelPath) -> bool {
        self.volume.remove_dir(path)
    }
}

#[cfg(test)]
mod tests;
