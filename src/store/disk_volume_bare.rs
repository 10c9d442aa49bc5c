//! What [`DiskVolume`] does with names that are no plain files. No symlink on the way to one is
//! followed, and none at its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::content::RelPath;
use crate::store::disk_volume::DiskVolume;
use crate::store::dress::{is_unknown, times, unless_unknown};
use crate::store::inspect::state_at;
use crate::store::open_beneath::DIRECTORY;
use crate::store::placed::PlacedState;
use crate::store::storage::OwnBare;

impl DiskVolume {
    /// Makes an own name a directory, a link or another name of a file.
    pub(super) fn create_bare(&self, name: &str, what: &OwnBare<'_>) -> io::Result<()> {
        #[cfg(test)]
        if self.lacks_links.load(std::sync::atomic::Ordering::Relaxed) && !matches!(what, OwnBare::Dir { .. }) {
            return Err(Errno::PERM.into());
        }
        match what {
            OwnBare::Dir { mtime_ns } => {
                self.with_own(|own| fs::mkdirat(own, name, DIR_MODE))?;
                self.with_own(|own| set_time(own, name, *mtime_ns))
            }
            OwnBare::Link { target, mtime_ns } => {
                self.with_own(|own| fs::symlinkat(*target, own, name))?;
                self.with_own(|own| set_time(own, name, *mtime_ns))
            }
            OwnBare::Name { of, known } => {
                let (parent, file) = self.parent_of(of)?;
                let at = parent.as_ref().map_or(self.root(), AsFd::as_fd);
                let of_state = |state: &PlacedState| (state.len, state.stamp());
                let (len, stamp) = known.or_else(|| Some(of_state(&state_at(at, file)?.1))).ok_or(Errno::NOENT)?;
                self.with_own(|own| fs::linkat(at, file, own, name, AtFlags::empty()))?;
                // Another program may have put a link or another file there.
                let linked = self.with_own(|own| Ok(state_at(own, name)))?;
                let same = |(kind, now): (FileType, PlacedState)| {
                    let is_it = (now.len, now.inode, now.mtime_ns) == (len, stamp.inode, stamp.mtime_ns);
                    kind == FileType::RegularFile && is_it
                };
                if linked.is_some_and(same) { Ok(()) } else { Err(Errno::STALE.into()) }
            }
        }
    }

    /// Text and state of the link at `path`, if one is there.
    pub(super) fn link_at(&self, path: &RelPath) -> Option<(String, PlacedState)> {
        let (parent, name) = self.parent_of(path).ok()?;
        let at = parent.as_ref().map_or(self.root(), AsFd::as_fd);
        let (_, state) = state_at(at, name).filter(|(kind, _)| *kind == FileType::Symlink)?;
        let text = fs::readlinkat(at, name, Vec::new()).ok()?.into_string().ok()?;
        Some((text, state))
    }

    /// Sets the time of the link at `path`.
    pub(super) fn set_link_time(&self, path: &RelPath, mtime_ns: i64) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        Ok(set_time(parent.as_ref().map_or(self.root(), AsFd::as_fd), name, mtime_ns)?)
    }

    /// Whether `path` is a directory. An empty one that `is_own` gets the time `mtime_ns`.
    pub(super) fn line_up_dir(
        &self,
        path: &RelPath,
        mtime_ns: i64,
        is_own: &dyn Fn(&RelPath) -> bool,
    ) -> io::Result<bool> {
        let (parent, name) = self.parent_of(path)?;
        let at = parent.as_ref().map_or(self.root(), AsFd::as_fd);
        let dir = match fs::openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let is_empty = has_nothing(&dir)?;
        let now = state_at(at, name).map(|(_, state)| state.mtime_ns);
        let is_in_line = || now == Some(mtime_ns) || now == Some(self.kept_time(mtime_ns));
        if is_empty && !is_in_line() && is_own(path) {
            unless_unknown(fs::futimens(&dir, &times(mtime_ns)))?;
        }
        Ok(true)
    }

    /// Whether `path` is a directory with nothing in it.
    pub(super) fn is_empty_dir(&self, path: &RelPath) -> bool {
        let dir = self.opener().open(self.root(), path.as_str(), DIRECTORY, ResolveFlags::NO_SYMLINKS);
        dir.and_then(has_nothing).unwrap_or(false)
    }

    /// The directory of a final name, `None` for the root, and its last part.
    fn parent_of<'p>(&self, path: &'p RelPath) -> io::Result<(Option<OwnedFd>, &'p str)> {
        let Some((dir, name)) = path.as_str().rsplit_once('/') else { return Ok((None, path.as_str())) };
        Ok((Some(self.opener().open(self.root(), dir, DIRECTORY, ResolveFlags::NO_SYMLINKS)?), name))
    }
}

/// Whether nothing is in an open directory.
fn has_nothing(dir: impl AsFd) -> rustix::io::Result<bool> {
    let is_here = |entry: &fs::DirEntry| !matches!(entry.file_name().to_bytes(), b"." | b"..");
    Ok(!fs::Dir::read_from(dir)?.flatten().any(|entry| is_here(&entry)))
}

/// Sets the modification time of a name; of a symlink itself.
fn set_time(at: BorrowedFd<'_>, name: &str, mtime_ns: i64) -> rustix::io::Result<()> {
    match fs::utimensat(at, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW) {
        // A file system without times of links, or without this one.
        Err(e) if is_unknown(e) => Ok(()),
        set => set,
    }
}

/// Mode 0777, of which the umask takes bits away.
const DIR_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
