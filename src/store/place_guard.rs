//! What a fetch may replace: what it or an earlier fetch put there, and nothing of the user's unless
//! [`Overwrite`] permits it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use rustix::fs::FileType;

use crate::content::{FileId, RelPath, Stamp};
use crate::store::placed::{Keeping, PlacedFile, PlacedLog, PlacedState};
use crate::store::{Life, Overwrite, StoreError};
use crate::sync::lock;

mod made;
mod recorded;
mod repair;
mod restated;

/// Decides about files that lie where others go, and records what was put in place.
#[derive(Debug)]
pub(crate) struct PlaceGuard {
    overwrite: Overwrite,
    /// The directory, for messages.
    dir: PathBuf,
    log: Option<PlacedLog>,
    /// How long what is put in place stays.
    life: Life,
    places: Mutex<Places>,
}

/// The places of one fetch.
#[derive(Debug, Default)]
struct Places {
    /// The names that are about to get a content, or have it.
    names: HashMap<RelPath, PlaceName>,
    /// The name by which the file of a device and inode was put in place or found: two names may be
    /// one on the file system. Made when the first name is found to be taken.
    by_file: Option<HashMap<(u64, u64), RelPath>>,
    /// Files that may be replaced, in this state.
    replaceable: HashMap<RelPath, PlacedState>,
    /// How long stays what replaces the content of a name, where an earlier fetch decided about that.
    /// `None` if it is the user's and remains so: nothing is recorded of it.
    keepings: HashMap<RelPath, Option<Keeping>>,
    /// No recorded state stands for a content: each file is read.
    reads_all: bool,
    /// Files, by device and inode, of which this fetch took a name.
    unlinked: HashSet<(u64, u64)>,
    /// What this fetch recorded again of files that it only found.
    renewed: HashMap<RelPath, PlacedFile>,
}

/// A name of a fetch.
#[derive(Debug)]
struct PlaceName {
    /// What it is to have.
    id: FileId,
    /// It is about to get that.
    going: bool,
    /// It has that.
    here: bool,
    /// The state of the file that was put in place or found there.
    state: Option<PlacedState>,
    /// That it was put in place is not taken note of.
    fresh: bool,
    /// It was put in place, whatever state the file system shows then.
    landed: bool,
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

/// What is asked of a name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpellingAsk {
    /// Whether a directory has it with exactly these letters. Reads the directories on the way.
    IsExact,
    /// Whether the name with other cases exists, too. Costs one call of the system.
    HasOtherCase,
}

/// Answers about the name that is looked for.
pub(crate) type Spelling<'a> = &'a dyn Fn(SpellingAsk) -> bool;

impl PlaceGuard {
    /// A guard for a fetch into `dir`. Without a `log` nothing counts as fetched before.
    pub(crate) fn new(overwrite: Overwrite, dir: &Path, log: Option<PlacedLog>) -> Self {
        PlaceGuard { overwrite, dir: dir.to_path_buf(), log, life: Life::Kept, places: Mutex::default() }
    }

    /// The same for a fetch whose files stay for this `life`.
    pub(crate) fn with_life(self, life: Life) -> Self {
        PlaceGuard { life, ..self }
    }

    /// What is recorded of how long `path` stays, if it is put in place now; nothing of the user's.
    fn keeping(&self, places: &Places, path: &RelPath) -> Option<Keeping> {
        places.keepings.get(path).copied().unwrap_or_else(|| {
            // The clock is asked for each file otherwise.
            Some(if self.life == Life::Kept { Keeping::Kept } else { Keeping::new(self.life, now_s()) })
        })
    }

    /// These names are about to get these contents.
    pub(crate) fn begin<'p>(&self, files: impl IntoIterator<Item = (&'p RelPath, FileId)>) {
        let mut places = lock(&self.places);
        for (path, id) in files {
            if let Some((log, keeping)) = self.log.as_ref().zip(self.keeping(&places, path)) {
                log.note(path.as_str(), PlacedFile { id, state: None, keeping });
            }
            let new = PlaceName { id, going: true, here: false, state: None, fresh: false, landed: false };
            match places.names.entry(path.clone()) {
                Entry::Occupied(mut name) if name.get().id == id => name.get_mut().going = true,
                Entry::Occupied(mut name) => *name.get_mut() = new,
                Entry::Vacant(name) => drop(name.insert(new)),
            }
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
        let mut places = lock(&self.places);
        if let Some(name) = places.names.get_mut(path) {
            (name.state, name.fresh) = (Some(state), true);
        }
        places.is_at(path, &state);
    }

    /// Nothing more happens to `path`; it has its content unless it `failed`.
    pub(crate) fn end(&self, path: &RelPath, failed: bool) {
        let mut places = lock(&self.places);
        let keeping = self.keeping(&places, path);
        let Some(name) = places.names.get_mut(path) else { return };
        let was_going = std::mem::take(&mut name.going);
        name.landed |= was_going && !failed;
        if let (true, true, Some(state), false) = (was_going, name.fresh, name.state, failed) {
            name.here = true;
            if let Some((log, keeping)) = self.log.as_ref().zip(keeping) {
                log.note(path.as_str(), PlacedFile { id: name.id, state: Some(state), keeping });
            }
        }
    }

    /// The state in which `path` was put in place, once.
    pub(crate) fn take_stamp(&self, path: &RelPath) -> Option<Stamp> {
        let mut places = lock(&self.places);
        let name = places.names.get_mut(path)?;
        let was_fresh = std::mem::take(&mut name.fresh);
        name.state.filter(|_| was_fresh).map(|state| state.stamp())
    }

    /// `path` had its content before. One that may expire is used by that, and kept from now on if
    /// this fetch is to keep it.
    pub(crate) fn is_here(&self, path: &RelPath, id: FileId, state: PlacedState) {
        let mut places = lock(&self.places);
        if places.of_file(&state).is_none() {
            let going = places.names.get(path).is_some_and(|name| name.going && name.id == id);
            let name = PlaceName { id, going, here: true, state: Some(state), fresh: false, landed: false };
            places.names.insert(path.clone(), name);
            places.is_at(path, &state);
        }
        let is_decided = places.keepings.contains_key(path);
        drop(places);
        let Some(log) = self.log.as_ref().filter(|_| !is_decided) else { return };
        if self.life == Life::Kept {
            log.keep_elsewhere(path.as_str(), &state);
        }
        if !log.may_expire() {
            return;
        }
        let found = log.find(path.as_str());
        let Some(own) = found.iter().find(|file| file.state == Some(state)) else { return };
        let keeping = match (self.life, own.keeping) {
            (_, Keeping::Kept | Keeping::Expired) => return,
            (Life::Kept, _) => Keeping::Kept,
            (_, Keeping::Mirrored { .. }) => Keeping::Mirrored { used_s: now_s() },
            (_, Keeping::Temporary { .. }) => Keeping::Temporary { used_s: now_s() },
        };
        log.note(path.as_str(), PlacedFile { keeping, ..*own });
    }

    /// Whether `path` is known to have the content `id` while it is in this state.
    fn has(&self, path: &RelPath, id: FileId, state: &PlacedState) -> bool {
        let places = lock(&self.places);
        places.names.get(path).is_some_and(|name| name.here && name.id == id && name.state.as_ref() == Some(state))
    }

    /// A fetch put `id` at `path`, and left it in this state.
    pub(crate) fn note(&self, path: &RelPath, id: FileId, state: PlacedState) {
        if let Some(log) = &self.log {
            log.note(path.as_str(), PlacedFile { id, state: Some(state), keeping: Keeping::Kept });
        }
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
        spelling: Spelling<'_>,
        holds: &dyn Fn(&FileId) -> bool,
    ) -> Result<(), StoreError> {
        let is_twin = self.refuse_same_name(path, Some(id), &state, spelling)?;
        if is_twin || self.overwrite != Overwrite::Refuse || self.is_to_be_repaired(path, &state) {
            return Ok(());
        }
        let mut own = self.recorded(path, kind);
        own.retain(|file| file.id.len == state.len);
        if own.iter().any(|file| file.keeping == Keeping::Kept) {
            lock(&self.places).keepings.insert(path.clone(), Some(Keeping::Kept));
        }
        if !own.iter().any(|file| self.is_still(file.state, &state)) {
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

    /// The content that an earlier fetch put at `path`, if it lies there still, as [`check`](Self::check)
    /// would find it.
    pub(crate) fn owned(
        &self,
        path: &RelPath,
        (kind, state): (FileType, PlacedState),
        holds: &dyn Fn(&FileId) -> bool,
    ) -> Option<FileId> {
        let mut own = self.recorded(path, kind);
        own.retain(|file| file.id.len == state.len);
        let mut looked = HashSet::new();
        let as_recorded = own.iter().find(|file| file.state == Some(state));
        as_recorded.or_else(|| own.iter().find(|f| looked.insert(f.id) && holds(&f.id))).map(|file| file.id)
    }

    /// What an earlier fetch may have put at `path`.
    fn recorded(&self, path: &RelPath, kind: FileType) -> Vec<PlacedFile> {
        let is_made = matches!(kind, FileType::RegularFile | FileType::Symlink);
        let log = self.log.as_ref().filter(|_| is_made);
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
        spelling: Spelling<'_>,
    ) -> Result<OnTaken, StoreError> {
        let going = lock(&self.places).names.get(path).filter(|name| name.going).map(|name| name.id);
        let is_twin = self.refuse_same_name(path, going, &state, spelling)?;
        if going.is_some_and(|id| self.has(path, id, &state)) {
            return Ok(OnTaken::Done);
        }
        let looked_at = lock(&self.places).replaceable.get(path).copied();
        if is_twin || self.replaces_all() || self.is_still(looked_at, &state) {
            return Ok(OnTaken::Replace);
        }
        let own = self.recorded(path, kind).into_iter().find(|file| self.is_still(file.state, &state));
        if own.is_some_and(|file| file.keeping == Keeping::Kept) {
            lock(&self.places).keepings.insert(path.clone(), Some(Keeping::Kept));
        }
        match (own.is_some(), self.overwrite) {
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
        spelling: Spelling<'_>,
    ) -> Result<bool, StoreError> {
        let mut places = lock(&self.places);
        let mut other = places.of_file(state).filter(|(other, _)| other != path);
        // Where inode numbers are made up, as by some FUSE file systems, only the letters tell.
        if other.is_none() && spelling(SpellingAsk::HasOtherCase) {
            other = places.of_other_case(path);
        }
        drop(places);
        match other {
            Some((other, other_id)) if !spelling(SpellingAsk::IsExact) => match id.is_some() && other_id == id {
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

impl Places {
    /// The name by which a file is known here, and what that has, or is about to get.
    fn of_file(&mut self, state: &PlacedState) -> Option<(RelPath, Option<FileId>)> {
        let names = &self.names;
        let by_file = self.by_file.get_or_insert_with(|| {
            let known = names.iter().filter_map(|(path, name)| Some((file_key(&name.state?), path.clone())));
            known.collect()
        });
        let path = by_file.get(&file_key(state))?;
        let name = names.get(path)?;
        let is_it = name.state.is_some_and(|known| file_key(&known) == file_key(state)) && (name.here || name.fresh);
        is_it.then(|| (path.clone(), (name.here || name.going).then_some(name.id)))
    }

    /// A name that differs from `path` in cases alone, and the content that it has.
    fn of_other_case(&self, path: &RelPath) -> Option<(RelPath, Option<FileId>)> {
        let folded = path.as_str().to_lowercase();
        let is_it = |(other, name): &(&RelPath, &PlaceName)| {
            (name.here || name.fresh || name.landed) && *other != path && other.as_str().to_lowercase() == folded
        };
        self.names.iter().find(is_it).map(|(other, name)| (other.clone(), Some(name.id)))
    }

    /// The file of `path` is this one.
    fn is_at(&mut self, path: &RelPath, state: &PlacedState) {
        if let Some(by_file) = &mut self.by_file {
            by_file.insert(file_key(state), path.clone());
        }
    }
}

fn file_key(state: &PlacedState) -> (u64, u64) {
    (state.device, state.inode)
}

/// Seconds since 1970.
fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
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
            same_name(guard.on_taken(&lower, file(7), &|_| false));
            guard.end(&upper, false);
            same_name(guard.on_taken(&lower, file(7), &|_| false));
            assert_eq!(guard.on_taken(&twin, file(7), &|_| false).unwrap(), OnTaken::Replace, "of the same content");
            let looked = guard.check(&lower, id(2), file(7), &|_| false, &|_| false);
            assert!(matches!(looked, Err(StoreError::SameName { .. })), "{looked:?}");
            // A hard link has letters of its own.
            let linked = guard.on_taken(&lower, file(7), &|_| true);
            assert!(!matches!(linked, Err(StoreError::SameName { .. })), "{linked:?}");
        }
    }

    /// Cause: a FUSE file system shows another inode number for each name of a file. Effect: the second of two names
    /// that differ in case was taken for a file of before, and replaced the first one with exit code 0. Mend: where the
    /// name exists in another case as well, the letters of the directory decide.
    #[test]
    fn two_names_of_one_file_with_two_numbers_never_lose_a_content() {
        for overwrite in [Overwrite::Refuse, Overwrite::Replace, Overwrite::Backup] {
            let guard = PlaceGuard::new(overwrite, Path::new("/d"), None);
            let (upper, lower) = (name("Dir/A.txt"), name("dir/a.txt"));
            let folds = |ask| ask == SpellingAsk::HasOtherCase;
            guard.begin([(&upper, id(1)), (&lower, id(2))]);
            // The number may change with the rename, so that no state is known.
            guard.end(&upper, false);
            let taken = guard.on_taken(&lower, file(8), &folds);
            assert!(matches!(taken, Err(StoreError::SameName { .. })), "{overwrite:?} {taken:?}");
            let taken = guard.on_taken(&lower, file(8), &|_| true);
            assert!(!matches!(taken, Err(StoreError::SameName { .. })), "two files with letters of their own");
        }
    }

    #[test]
    fn the_choice_decides_about_files_that_nothing_is_known_of() {
        let taken = |overwrite, found| {
            let guard = PlaceGuard::new(overwrite, Path::new("/d"), None);
            guard.on_taken(&name("a"), found, &|_| true)
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
        assert_eq!(guard.on_taken(&name("a"), file(3), &|_| true).unwrap(), OnTaken::Replace);
        let later = (FileType::RegularFile, PlacedState { ctime_ns: 2, ..file(3).1 });
        assert!(matches!(guard.on_taken(&name("a"), later, &|_| true), Err(StoreError::Exists { .. })));
    }
}
