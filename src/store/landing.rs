//! Giving finished files their final names: parent directories, renames, and as few syncs of directories as possible.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::content::RelPath;
use crate::store::StoreError;
use crate::store::limits::DIRS_OPEN_MAX;
use crate::store::storage::Volume;
use crate::store::volume_dir::{Beneath, DIRECTORY, kind_at, replaceable};

/// One batch of files. Directories stay open while it lasts, so each is resolved and synced once; not longer, so that
/// one which is moved away meanwhile is not written to.
#[derive(Debug)]
pub(crate) struct Landing<'a> {
    volume: &'a Beneath,
    /// Directories in which names are new, by name. `None` is the root, which is called ``.
    dirs: HashMap<String, Option<OwnedFd>>,
    /// Files from here on are not known to be durable.
    unsynced_from: usize,
}

impl<'a> Landing<'a> {
    pub(crate) fn new(volume: &'a Beneath) -> Self {
        Landing { volume, dirs: HashMap::new(), unsynced_from: 0 }
    }

    /// See [`Volume::place`].
    pub(crate) fn place(mut self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        let mut results = Vec::with_capacity(moves.len());
        for (own, path) in moves {
            results.push(self.rename(own, path));
            if self.dirs.len() >= DIRS_OPEN_MAX {
                self.sync(moves, &mut results);
            }
        }
        self.sync(moves, &mut results);
        results
    }

    fn rename(&mut self, own: &str, path: &RelPath) -> Result<(), StoreError> {
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        if !self.dirs.contains_key(parent) {
            let dir = if parent.is_empty() { None } else { Some(self.open(parent)?) };
            self.dirs.insert(parent.to_owned(), dir);
        }
        let dir = self.dirs.get(parent).and_then(Option::as_ref);
        let at = dir.map_or(self.volume.root(), AsFd::as_fd);
        let at_path = |e| StoreError::at(self.volume.path_of(path), e);
        // Most names are new, and need no look at what has them.
        match self.volume.with_own(|o| fs::renameat_with(o, own, at, name, RenameFlags::NOREPLACE)) {
            Err(e) if is_taken_or_unknown(&e) => {
                replaceable(at, name)
                    .map_err(|kind| StoreError::NotRegular { path: self.volume.path_of(path), kind })?;
                self.volume.with_own(|o| fs::renameat(o, own, at, name)).map_err(at_path)
            }
            renamed => renamed.map_err(at_path),
        }
    }

    /// Opens the directory `dir`, making what is missing of it.
    fn open(&mut self, dir: &str) -> Result<OwnedFd, StoreError> {
        // Whatever stands against the short way is told best by walking.
        if let Ok(fd) = self.volume.open_dir(dir) {
            return Ok(fd);
        }
        let mut here: Option<OwnedFd> = None;
        let mut end = 0;
        for name in dir.split('/') {
            let parent = &dir[..end];
            end += name.len() + usize::from(end > 0);
            let at = here.as_ref().map_or(self.volume.root(), AsFd::as_fd);
            let (child, made) = open_or_make(at, name).map_err(|e| {
                let e = if kind_at(at, name) == Some(FileType::Symlink) { Errno::LOOP } else { e };
                StoreError::at(self.volume.path().join(&dir[..end]), e)
            })?;
            let above = here.replace(child);
            if made && !self.dirs.contains_key(parent) {
                self.dirs.insert(parent.to_owned(), above);
            }
        }
        here.ok_or_else(|| StoreError::at(self.volume.path().join(dir), Errno::NOENT))
    }

    /// Makes the names given so far durable and closes the directories. The first sync commits them all on most file
    /// systems, so the further ones cost little.
    fn sync(&mut self, moves: &[(String, &RelPath)], results: &mut [Result<(), StoreError>]) {
        let root = self.volume.root();
        let synced =
            self.dirs.values().try_for_each(|dir| self.volume.sync_dir(dir.as_ref().map_or(root, AsFd::as_fd)));
        self.dirs.clear();
        let from = std::mem::replace(&mut self.unsynced_from, results.len());
        if let Err(e) = synced {
            for (result, (_, path)) in results.iter_mut().zip(moves).skip(from).filter(|(r, _)| r.is_ok()) {
                *result = Err(StoreError::at(self.volume.path_of(path), e));
            }
        }
    }
}

/// Whether a rename that replaces nothing failed because the name is taken, or because the system has no such rename.
fn is_taken_or_unknown(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM))
}

/// Opens the directory `name`; true if it was made.
fn open_or_make(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<(OwnedFd, bool)> {
    match open_child(at, name) {
        Err(Errno::NOENT) => match fs::mkdirat(at, name, DIR_MODE) {
            Ok(()) | Err(Errno::EXIST) => Ok((open_child(at, name)?, true)),
            Err(e) => Err(e),
        },
        other => Ok((other?, false)),
    }
}

fn open_child(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    fs::openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// 0777, of which the umask takes its part.
const DIR_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
