//! What a fetch may replace: what it or an earlier fetch put there, and nothing of the user's unless
//! told so.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FileType;

use crate::content::{FileId, RelPath, Stamp};
use crate::store::placed::{PlacedFile, PlacedLog, PlacedState};
use crate::store::{Overwrite, StoreError};
use crate::sync::lock;

/// Decides about files that lie where others go, and records what was put in place.
#[derive(Debug)]
pub(crate) struct PlaceGuard {
    overwrite: Overwrite,
    /// The directory, for messages.
    dir: PathBuf,
    log: Option<PlacedLog>,
    places: Mutex<Places>,
}

/// The places of one fetch.
#[derive(Debug, Default)]
struct Places {
    /// What each name is about to get.
    going: HashMap<RelPath, FileId>,
    /// The states of the files that were put in place and are not taken note of.
    fresh: HashMap<RelPath, PlacedState>,
    /// The names that have what they are to have, by device and inode: two names may be one on the
    /// file system.
    here: HashMap<(u64, u64), HereFile>,
    /// Files that may be replaced, in this state.
    replaceable: HashMap<RelPath, PlacedState>,
}

/// A name that has what it is to have, in this state.
#[derive(Debug)]
struct HereFile {
    path: RelPath,
    id: FileId,
    state: PlacedState,
}

/// What becomes of a file that lies where another one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnTaken {
    /// It is replaced.
    Replace,
    /// It gets another name.
    Keep,
    /// It has the content already, and stays.
    Done,
}

/// Whether a name that is looked for exists with exactly these letters.
pub(crate) type IsSpelledSo<'a> = &'a dyn Fn() -> bool;

impl PlaceGuard {
    /// A guard for a fetch into `dir`. Without a `log` nothing counts as fetched before.
    pub(crate) fn new(overwrite: Overwrite, dir: &Path, log: Option<PlacedLog>) -> Self {
        PlaceGuard { overwrite, dir: dir.to_path_buf(), log, places: Mutex::default() }
    }

    /// These names are about to get these contents.
    pub(crate) fn begin<'p>(&self, files: impl IntoIterator<Item = (&'p RelPath, FileId)>) {
        let mut places = lock(&self.places);
        for (path, id) in files {
            if let Some(log) = &self.log {
                log.note(path.as_str(), PlacedFile { id, state: None });
            }
            places.going.insert(path.clone(), id);
        }
        drop(places);
        // Before any file is placed: a process that is killed then leaves no file that nothing
        // knows of.
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// The file for `path` was put in place, and is in this state.
    pub(crate) fn placed(&self, path: &RelPath, state: PlacedState) {
        lock(&self.places).fresh.insert(path.clone(), state);
    }

    /// Nothing more happens to `path`; it has its content unless it `failed`.
    pub(crate) fn end(&self, path: &RelPath, failed: bool) {
        let mut places = lock(&self.places);
        let (going, fresh) = (places.going.remove(path), places.fresh.get(path).copied());
        if let (Some(id), Some(state), false) = (going, fresh, failed) {
            places.here.insert((state.device, state.inode), HereFile { path: path.clone(), id, state });
            if let Some(log) = &self.log {
                log.note(path.as_str(), PlacedFile { id, state: Some(state) });
            }
        }
    }

    /// The state in which `path` was put in place, once.
    pub(crate) fn take_stamp(&self, path: &RelPath) -> Option<Stamp> {
        lock(&self.places).fresh.remove(path).map(|state| state.stamp())
    }

    /// `path` had its content before.
    pub(crate) fn is_here(&self, path: &RelPath, id: FileId, state: PlacedState) {
        let here = HereFile { path: path.clone(), id, state };
        lock(&self.places).here.entry((state.device, state.inode)).or_insert(here);
    }

    /// Whether `path` is known to have the content `id` while it is in this state.
    fn has(&self, path: &RelPath, id: FileId, state: &PlacedState) -> bool {
        let places = lock(&self.places);
        let here = places.here.get(&(state.device, state.inode));
        here.is_some_and(|here| here.path == *path && here.id == id && here.state == *state)
    }

    /// Whether each file is replaced, whatever it is.
    pub(crate) fn replaces_all(&self) -> bool {
        self.overwrite == Overwrite::Replace
    }

    /// Looks at a file that is to be replaced by `id`, before anything is fetched. `holds` tells
    /// whether it has a content.
    ///
    /// # Errors
    /// [`StoreError::Exists`] and [`StoreError::SameName`] if it may not be replaced.
    pub(crate) fn check(
        &self,
        path: &RelPath,
        id: FileId,
        (kind, state): (FileType, PlacedState),
        is_spelled_so: IsSpelledSo<'_>,
        holds: &dyn Fn(&FileId) -> bool,
    ) -> Result<(), StoreError> {
        let is_twin = self.refuse_same_name(path, Some(id), &state, is_spelled_so)?;
        if is_twin || self.overwrite != Overwrite::Refuse {
            return Ok(());
        }
        let mut own = self.recorded(path, kind);
        own.retain(|file| file.id.len == state.len);
        if !own.iter().any(|file| file.state == Some(state)) {
            let mut looked = HashSet::new();
            let Some(own) = own.iter().find(|file| looked.insert(file.id) && holds(&file.id)) else {
                return Err(StoreError::Exists { path: self.dir.join(path.as_str()) });
            };
            // A later intent for the name would hide this one.
            if let Some(log) = &self.log {
                log.note(path.as_str(), PlacedFile { state: Some(state), ..*own });
            }
        }
        lock(&self.places).replaceable.insert(path.clone(), state);
        Ok(())
    }

    /// What an earlier fetch may have put at `path`.
    fn recorded(&self, path: &RelPath, kind: FileType) -> Vec<PlacedFile> {
        let log = self.log.as_ref().filter(|_| kind == FileType::RegularFile);
        log.map_or(Vec::new(), |log| log.find(path.as_str()))
    }

    /// What becomes of a file that lies at `path` when another one is about to be put there.
    ///
    /// # Errors
    /// [`StoreError::Exists`] and [`StoreError::SameName`] if it may not be replaced.
    pub(crate) fn on_taken(
        &self,
        path: &RelPath,
        (kind, state): (FileType, PlacedState),
        is_spelled_so: IsSpelledSo<'_>,
    ) -> Result<OnTaken, StoreError> {
        let going = lock(&self.places).going.get(path).copied();
        let is_twin = self.refuse_same_name(path, going, &state, is_spelled_so)?;
        if going.is_some_and(|id| self.has(path, id, &state)) {
            return Ok(OnTaken::Done);
        }
        if is_twin || self.replaces_all() || lock(&self.places).replaceable.get(path) == Some(&state) {
            return Ok(OnTaken::Replace);
        }
        let is_own = self.recorded(path, kind).iter().any(|file| file.state == Some(state));
        match (is_own, self.overwrite) {
            (true, _) => Ok(OnTaken::Replace),
            (false, Overwrite::Backup) => Ok(OnTaken::Keep),
            (false, _) => Err(StoreError::Exists { path: self.dir.join(path.as_str()) }),
        }
    }

    /// Refuses `path` if the file there has another name of this fetch and another content; true if
    /// it has the same content. Hard links are different names, so the letters decide.
    fn refuse_same_name(
        &self,
        path: &RelPath,
        id: Option<FileId>,
        state: &PlacedState,
        is_spelled_so: IsSpelledSo<'_>,
    ) -> Result<bool, StoreError> {
        let other = {
            let places = lock(&self.places);
            let key = (state.device, state.inode);
            let fresh = || places.fresh.iter().find(|(_, fresh)| (fresh.device, fresh.inode) == key);
            let fresh = || fresh().map(|(path, _)| (path.clone(), places.going.get(path).copied()));
            places.here.get(&key).map(|here| (here.path.clone(), Some(here.id))).or_else(fresh)
        };
        match other {
            Some((other, other_id)) if other != *path && !is_spelled_so() => match id.is_some() && other_id == id {
                true => Ok(true),
                false => {
                    let (path, other) = (self.dir.join(path.as_str()), self.dir.join(other.as_str()));
                    Err(StoreError::SameName { path, other })
                }
            },
            _ => Ok(false),
        }
    }

    /// The fetch is over.
    pub(crate) fn finish(&self, durable: bool) {
        if let Some(log) = &self.log {
            log.finish(durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    fn name(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    fn id(n: u8) -> FileId {
        FileId { root: Root(Digest([n; 32])), len: 5 }
    }

    fn file(inode: u64) -> (FileType, PlacedState) {
        (FileType::RegularFile, PlacedState { device: 1, inode, len: 5, mtime_ns: 1, ctime_ns: 1 })
    }

    /// A file system without cases: the second name is found to be the file of the first one.
    #[test]
    fn two_names_of_one_file_never_lose_a_content() {
        for overwrite in [Overwrite::Refuse, Overwrite::Replace, Overwrite::Backup] {
            let guard = PlaceGuard::new(overwrite, Path::new("/d"), None);
            let (upper, lower, twin) = (name("A.txt"), name("a.txt"), name("A.TXT"));
            guard.begin([(&upper, id(1)), (&lower, id(2)), (&twin, id(1))]);
            guard.placed(&upper, file(7).1);
            let same_name = |result: Result<OnTaken, StoreError>| {
                let Err(StoreError::SameName { path, other }) = result else { panic!("{overwrite:?} {result:?}") };
                assert_eq!((path, other), ("/d/a.txt".into(), "/d/A.txt".into()));
            };
            // In the batch of the first one, and later.
            same_name(guard.on_taken(&lower, file(7), &|| false));
            guard.end(&upper, false);
            same_name(guard.on_taken(&lower, file(7), &|| false));
            assert_eq!(guard.on_taken(&twin, file(7), &|| false).unwrap(), OnTaken::Replace, "of the same content");
            let looked = guard.check(&lower, id(2), file(7), &|| false, &|_| false);
            assert!(matches!(looked, Err(StoreError::SameName { .. })), "{looked:?}");
            // A hard link has letters of its own.
            let linked = guard.on_taken(&lower, file(7), &|| true);
            assert!(!matches!(linked, Err(StoreError::SameName { .. })), "{linked:?}");
        }
    }

    #[test]
    fn the_choice_decides_about_files_that_nothing_is_known_of() {
        let taken = |overwrite, found| {
            let guard = PlaceGuard::new(overwrite, Path::new("/d"), None);
            guard.on_taken(&name("a"), found, &|| true)
        };
        for kind in [FileType::RegularFile, FileType::Symlink] {
            let found = (kind, file(3).1);
            assert!(matches!(taken(Overwrite::Refuse, found), Err(StoreError::Exists { .. })));
            assert_eq!(taken(Overwrite::Replace, found).unwrap(), OnTaken::Replace);
            assert_eq!(taken(Overwrite::Backup, found).unwrap(), OnTaken::Keep);
        }
    }

    #[test]
    fn a_file_that_was_looked_at_is_replaced_only_as_it_was() {
        let guard = PlaceGuard::new(Overwrite::Refuse, Path::new("/d"), None);
        lock(&guard.places).replaceable.insert(name("a"), file(3).1);
        assert_eq!(guard.on_taken(&name("a"), file(3), &|| true).unwrap(), OnTaken::Replace);
        let later = (FileType::RegularFile, PlacedState { ctime_ns: 2, ..file(3).1 });
        assert!(matches!(guard.on_taken(&name("a"), later, &|| true), Err(StoreError::Exists { .. })));
    }
}
