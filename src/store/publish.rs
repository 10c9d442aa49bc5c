//! Giving finished files their final names: parent directories, renames, and few syncs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::content::RelPath;
use crate::store::StoreError;
use crate::store::disk_names::{DiskNames, is_taken_or_unknown};
use crate::store::inspect::{has_other_case, is_spelled_so, kind_at, replaceable, state_at, state_of_open};
use crate::store::limits::{DIRS_OPEN_MAX, REPLACE_TRIES};
use crate::store::open_beneath::{BeneathOpener, DIRECTORY};
use crate::store::own_dir::OwnDir;
use crate::store::place_guard::{OnTaken, PlaceGuard, SpellingAsk};
use crate::store::placed::PlacedState;
use crate::store::storage::{Storage, temp_name};
use crate::store::swap::{self, SwapNames, Swapped};

/// The directory in which files get their final names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishTarget<'a> {
    /// The directory of the unfinished files, and the one above.
    pub(crate) own: &'a OwnDir,
    /// Opens directories that exist.
    pub(crate) opener: &'a BeneathOpener,
    /// The path of the directory, for messages.
    pub(crate) path: &'a Path,
    /// Whether names have to be made durable.
    pub(crate) durable: bool,
    /// Decides about names that are taken; without it each file is replaced.
    pub(crate) guard: Option<&'a PlaceGuard>,
}

/// One batch of files. Directories stay open during the batch, so each is resolved and synced once.
/// They are closed after it, so that a directory which is moved away later is not written to.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    target: PublishTarget<'a>,
    /// The files of the batch in their order, if they are still open.
    open: &'a [Arc<dyn Storage>],
    /// Directories with new names, by path. `None` is the root, whose path is empty.
    dirs: HashMap<String, Option<OwnedFd>>,
    /// Index of the first file whose name may not be durable.
    unsynced_from: usize,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(target: PublishTarget<'a>, open: &'a [Arc<dyn Storage>]) -> Self {
        Publish { target, open, dirs: HashMap::new(), unsynced_from: 0 }
    }

    /// Gives own files their final names; see
    /// [`Volume::place`](crate::store::storage::Volume::place).
    pub(crate) fn place(mut self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        let mut results = Vec::with_capacity(moves.len());
        for (at, (own, path)) in moves.iter().enumerate() {
            results.push(self.rename(own, path, self.open.get(at)));
            if self.dirs.len() >= DIRS_OPEN_MAX {
                self.sync(moves, &mut results);
            }
        }
        self.sync(moves, &mut results);
        results
    }

    fn rename(&mut self, own: &str, path: &RelPath, open: Option<&Arc<dyn Storage>>) -> Result<(), StoreError> {
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        if !self.dirs.contains_key(parent) {
            let dir = if parent.is_empty() { None } else { Some(self.open(parent)?) };
            self.dirs.insert(parent.to_owned(), dir);
        }
        let dir = self.dirs.get(parent).and_then(Option::as_ref);
        let at = dir.map_or(self.target.own.root(), AsFd::as_fd);
        let at_path = |e| StoreError::at(self.path_of(path), e);
        let open = open.and_then(|file| file.fd());
        let look = || match open {
            Some(file) => state_of_open(file),
            None => Some(self.target.own.with(|o| Ok(state_at(o, own))).ok()??.1),
        };
        let before = self.target.guard.and_then(|_| look());
        // Most names are new. For them the first rename is the only one.
        let moved = match self.move_in(own, at, name) {
            Err(e) if is_taken_or_unknown(&e) => self.replace(own, path, at, name)?,
            renamed => renamed.map(|()| true).map_err(at_path)?,
        };
        if let (Some(guard), true) = (self.target.guard, moved) {
            let now = match open {
                Some(file) => state_of_open(file),
                None => state_at(at, name).map(|(_, state)| state),
            };
            // Another process may have put its file there since, or written to this one.
            let state = now.zip(before).filter(|(now, own)| now.is_renamed(own));
            state.into_iter().for_each(|(state, _)| guard.placed(path, state));
        }
        Ok(())
    }

    /// Renames an own file to a name that is not taken.
    fn move_in(&self, own: &str, at: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.target.own.with(|o| fs::renameat_with(o, own, at, name, RenameFlags::NOREPLACE))
    }

    /// Renames an own file to a name that is taken, if what lies there may be replaced; false if it has
    /// the content already, and stays.
    fn replace(&self, own: &str, path: &RelPath, at: BorrowedFd<'_>, name: &str) -> Result<bool, StoreError> {
        let at_path = |e| StoreError::at(self.path_of(path), e);
        let names = DiskNames { own_dir: self.target.own, own, at, name };
        let rename = || names.rename().map(|()| true).map_err(at_path);
        for _ in 0..REPLACE_TRIES {
            let kind =
                replaceable(at, name).map_err(|kind| StoreError::NotRegular { path: self.path_of(path), kind })?;
            let (Some(guard), Some(found)) = (self.target.guard, state_at(at, name)) else { return rename() };
            if kind == Some(FileType::Directory) {
                // Only an empty one goes. A rename reports all others better.
                let is_gone = guard.made_dir(path, &found.1) && fs::unlinkat(at, name, AtFlags::REMOVEDIR).is_ok();
                match is_gone.then(|| self.move_in(own, at, name)) {
                    None => return rename(),
                    Some(Err(e)) if is_taken_or_unknown(&e) => continue,
                    Some(moved) => return moved.map(|()| true).map_err(at_path),
                }
            }
            let spelling = |ask| match ask {
                SpellingAsk::IsExact => is_spelled_so(self.target.own.root(), path),
                SpellingAsk::HasOtherCase => has_other_case(self.target.own.root(), path),
            };
            let verdict = match guard.on_taken(path, found, &spelling) {
                // Another process brought the same meanwhile.
                Ok(OnTaken::Keep) | Err(StoreError::Exists { .. }) if names.is_same(found) => OnTaken::Done,
                verdict => verdict?,
            };
            let swapped = match verdict {
                OnTaken::Replace if self.is_own_dir(own) => replace_by_dir(&names, &found.1),
                OnTaken::Replace if guard.replaces_all() => return rename(),
                // The verdict may have taken long: it does not hold for what was saved meanwhile.
                OnTaken::Replace => swap::replace(&names, &found.1),
                OnTaken::Done => {
                    // What stays of it is removed as another leftover.
                    let _ = names.remove_own();
                    return Ok(false);
                }
                OnTaken::Keep => swap::replace_and_keep(&names, &found.1),
            };
            if swapped.map_err(at_path)? == Swapped::Done {
                guard.took_name(&found.1);
                return Ok(true);
            }
        }
        Err(StoreError::Exists { path: self.path_of(path) })
    }

    fn is_own_dir(&self, own: &str) -> bool {
        self.target.own.with(|o| Ok(kind_at(o, own))).is_ok_and(|kind| kind == Some(FileType::Directory))
    }

    /// Opens the directory `dir` and creates what is missing of it.
    fn open(&mut self, dir: &str) -> Result<OwnedFd, StoreError> {
        // After a failure, walking gives the better error.
        if let Ok(fd) = self.target.opener.open(self.target.own.root(), dir, DIRECTORY, ResolveFlags::NO_SYMLINKS) {
            return Ok(fd);
        }
        let mut here: Option<OwnedFd> = None;
        let mut end = 0;
        for name in dir.split('/') {
            let parent = &dir[..end];
            end += name.len() + usize::from(end > 0);
            let at = here.as_ref().map_or(self.target.own.root(), AsFd::as_fd);
            let opened = open_or_make(at, name).or_else(|e| match self.clear(at, name, &dir[..end]) {
                true => open_or_make(at, name),
                false => Err(e),
            });
            let (child, made) = opened.map_err(|e| {
                let e = if kind_at(at, name) == Some(FileType::Symlink) { Errno::LOOP } else { e };
                StoreError::at(self.target.path.join(&dir[..end]), e)
            })?;
            let above = here.replace(child);
            if made && !self.dirs.contains_key(parent) {
                self.dirs.insert(parent.to_owned(), above);
            }
        }
        here.ok_or_else(|| StoreError::at(self.target.path.join(dir), Errno::NOENT))
    }

    /// Removes a file or link at `path` that a fetch put there and nothing changed, so that a directory
    /// can be made in its place; whether it did.
    fn clear(&self, at: BorrowedFd<'_>, name: &str, path: &str) -> bool {
        let (Some(guard), Ok(path), Some(found)) = (self.target.guard, RelPath::new(path), state_at(at, name)) else {
            return false;
        };
        let own = temp_name();
        let names = DiskNames { own_dir: self.target.own, own: &own, at, name };
        guard.is_own(&path, found) && swap::remove(&names, &found.1).is_ok_and(|removed| removed == Swapped::Done)
    }

    /// Makes the new names durable and closes the directories. On most file systems the first sync
    /// commits them all, and the others cost little.
    fn sync(&mut self, moves: &[(String, &RelPath)], results: &mut [Result<(), StoreError>]) {
        let root = self.target.own.root();
        let mut dirs = self.dirs.values().filter(|_| self.target.durable);
        let synced = dirs.try_for_each(|dir| retry_on_intr(|| fs::fsync(dir.as_ref().map_or(root, AsFd::as_fd))));
        self.dirs.clear();
        let from = std::mem::replace(&mut self.unsynced_from, results.len());
        if let Err(e) = synced {
            for (result, (_, path)) in results.iter_mut().zip(moves).skip(from).filter(|(r, _)| r.is_ok()) {
                *result = Err(StoreError::at(self.path_of(path), e));
            }
        }
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        self.target.path.join(path.as_str())
    }
}

/// Replaces a file or link by an own directory. Where names cannot be exchanged, the old one is taken
/// away first, since no directory is renamed over it.
fn replace_by_dir(names: &DiskNames<'_>, found: &PlacedState) -> io::Result<Swapped> {
    match swap::replace(names, found) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            let out = temp_name();
            let old = DiskNames { own: &out, ..*names };
            match swap::remove(&old, found)? {
                Swapped::Done => names.move_in().map(|()| Swapped::Done),
                Swapped::Changed => Ok(Swapped::Changed),
            }
        }
        swapped => swapped,
    }
}

/// Opens the directory `name`, creating it if needed; true if it was created.
fn open_or_make(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<(OwnedFd, bool)> {
    match open_child(at, name) {
        Err(Errno::NOENT) => match retry_on_intr(|| fs::mkdirat(at, name, DIR_MODE)) {
            Ok(()) | Err(Errno::EXIST) => Ok((open_child(at, name)?, true)),
            Err(e) => Err(e),
        },
        other => Ok((other?, false)),
    }
}

fn open_child(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    retry_on_intr(|| fs::openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()))
}

/// Mode 0777, of which the umask takes bits away.
const DIR_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
