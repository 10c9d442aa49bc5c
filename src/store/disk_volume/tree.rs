//! What lies below the directory, and removing some of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, ResolveFlags};
use rustix::io::Errno;

use super::DiskVolume;
use crate::content::{RelPath, Stamp};
use crate::limits::CATALOGUE_ENTRIES_MAX;
use crate::store::OWN;
use crate::store::disk_names::DiskNames;
use crate::store::inspect::state_at;
use crate::store::open_beneath::DIRECTORY;
use crate::store::placed::PlacedState;
use crate::store::storage::temp_name;
use crate::store::swap::{self, Swapped};

/// What lies below a directory, without what belongs to nodes.
#[derive(Debug, Clone, Default)]
pub struct LocalTree {
    /// Files, links and other things that are no directories, in no order.
    pub names: Vec<LocalName>,
    /// Directories, each before the ones in it.
    pub dirs: Vec<RelPath>,
}

/// What has one name below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalName {
    /// The name.
    pub path: RelPath,
    /// Its kind.
    pub kind: LocalKind,
    /// Length in bytes; of a link, of its target's text.
    pub len: u64,
    pub(crate) state: PlacedState,
}

impl LocalName {
    /// Whether the file has this length and state.
    pub fn is_in(&self, len: u64, stamp: &Stamp) -> bool {
        self.state.len == len && self.state.stamp() == *stamp
    }
}

#[cfg(test)]
impl LocalName {
    /// One that lies nowhere.
    pub(crate) fn made_up(path: RelPath, kind: LocalKind) -> Self {
        let state = PlacedState { device: 1, inode: 1, len: 5, mtime_ns: 0, ctime_ns: 0 };
        LocalName { path, kind, len: 5, state }
    }
}

/// The kind of what has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

impl DiskVolume {
    /// What lies below the directory `dir`; below the whole directory if that is empty. What is
    /// mounted there, the directories of unfinished files and names that no file can be shared under
    /// are left out. No symlink is followed. A directory that is missing has nothing below it.
    pub(crate) fn tree(&self, dir: &str, stop: &dyn Fn() -> bool) -> Result<LocalTree, (String, io::Error)> {
        let (mut tree, mut todo) = (LocalTree::default(), vec![dir.to_owned()]);
        while let Some(dir) = todo.pop() {
            let at_dir = |e: Errno| (dir.clone(), e.into());
            let open = match self.open_dir(&dir) {
                // Another file system is not entered. What was removed meanwhile has nothing below it.
                Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                open => open.map_err(at_dir)?,
            };
            if !self.has_device(&open) {
                continue;
            }
            let entries = fs::Dir::read_from(&open).map_err(at_dir)?;
            for entry in entries {
                let entry = entry.map_err(at_dir)?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if stop() || tree.names.len() + tree.dirs.len() > CATALOGUE_ENTRIES_MAX {
                    return Err((dir, io::Error::other(if stop() { "stopped" } else { "too many files" })));
                }
                if !matches!(name, "." | "..") && !name.eq_ignore_ascii_case(OWN) {
                    self.add_to(&mut tree, &mut todo, &open, &dir, name);
                }
            }
        }
        Ok(tree)
    }

    fn add_to(&self, tree: &mut LocalTree, todo: &mut Vec<String>, open: &OwnedFd, dir: &str, name: &str) {
        let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        let Ok(path) = RelPath::new(&path) else { return };
        let Some((kind, state)) = state_at(open, name) else { return };
        let kind = match kind {
            FileType::Directory => {
                todo.push(path.as_str().into());
                return tree.dirs.push(path);
            }
            FileType::RegularFile => LocalKind::File,
            FileType::Symlink => LocalKind::Link,
            _ => LocalKind::Other,
        };
        tree.names.push(LocalName { path, kind, len: state.len, state });
    }

    /// Removes the name `path` of the file in the state `found`; false if anything else has the name.
    /// Then that is left where it is.
    pub(crate) fn remove_one(&self, path: &RelPath, found: &PlacedState) -> io::Result<bool> {
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let dir = match self.open_dir(parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(false),
            dir => dir?,
        };
        // A directory is never moved, so that nothing in it vanishes even for a moment.
        let kind = state_at(&dir, name).map(|(kind, _)| kind);
        if !self.has_device(&dir) || !matches!(kind, Some(FileType::RegularFile | FileType::Symlink)) {
            return Ok(false);
        }
        let own = temp_name();
        let names = DiskNames { own_dir: &self.own, own: &own, at: dir.as_fd(), name };
        Ok(swap::remove(&names, found)? == Swapped::Done)
    }

    /// Removes the directory `path` if it is empty; whether it did.
    pub(crate) fn remove_dir(&self, path: &RelPath) -> bool {
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let parent = self.open_dir(parent).ok().filter(|parent| self.has_device(parent));
        parent.is_some_and(|parent| fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok())
    }

    /// Makes the names in the directory `dir` durable.
    pub(crate) fn sync_dir(&self, dir: &str) -> io::Result<()> {
        match self.open_dir(dir) {
            Err(Errno::NOENT) => Ok(()),
            dir => Ok(rustix::io::retry_on_intr(|| fs::fsync(dir.as_ref().map_err(|e| *e)?))?),
        }
    }

    /// The name `path`, if a file, a link or the like has it.
    pub(crate) fn local_name(&self, path: &RelPath) -> Option<LocalName> {
        let (parent, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let dir = self.open_dir(parent).ok().filter(|dir| self.has_device(dir))?;
        let mut tree = LocalTree::default();
        self.add_to(&mut tree, &mut Vec::new(), &dir, parent, name);
        tree.names.pop()
    }

    fn open_dir(&self, dir: &str) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        self.opener.open(self.root(), if dir.is_empty() { "." } else { dir }, DIRECTORY, resolve)
    }

    fn has_device(&self, dir: &OwnedFd) -> bool {
        let device = |stat: rustix::io::Result<fs::Stat>| stat.map(|stat| stat.st_dev).ok();
        device(fs::fstat(dir)).is_some_and(|found| device(fs::fstat(self.root())) == Some(found))
    }
}
