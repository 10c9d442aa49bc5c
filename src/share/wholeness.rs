//! Whether the catalogue has all that the directory has.
//!
//! A peer may remove its copy of what a complete list does not name. So whatever could hide a file
//! counts: a directory that cannot be read, a file that cannot be hashed or has no room, and a mount
//! that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use crate::limits::FILE_LEN_MAX;
use crate::share::limits::{HIDDEN_NAMES_MAX, MOUNTS_MAX};

/// What hides files of the directory, by names below it; the empty name is the directory itself.
#[derive(Debug, Default)]
pub(super) struct Wholeness {
    /// The directory, absolute and free of links.
    root: PathBuf,
    /// What is there and is not offered although it could be, and when that was seen last.
    hidden: BTreeMap<String, Instant>,
    /// Whether there was more of it than is remembered, and when that was seen last.
    overflow: Option<Instant>,
    /// Directories that were found mounted.
    mounts: BTreeSet<String>,
    /// Whether one of them was found to be mounted no longer.
    is_unmounted: bool,
    /// Whether nothing waits to be looked at or hashed.
    is_settled: bool,
}

impl Wholeness {
    /// Whether nothing is hidden, as far as is known.
    pub(super) fn is_whole(&self) -> bool {
        self.is_settled && self.hidden.is_empty() && self.overflow.is_none() && !self.is_unmounted
    }

    /// Takes note of whether anything waits to be looked at or hashed.
    pub(super) fn set_settled(&mut self, is_settled: bool) {
        self.is_settled = is_settled;
    }

    /// What has the name `name`, or lies below it, could not be offered.
    pub(super) fn hide(&mut self, name: &str, now: Instant) {
        if self.hidden.len() < HIDDEN_NAMES_MAX || self.hidden.contains_key(name) {
            self.hidden.insert(name.into(), now);
        } else {
            self.overflow = Some(now);
        }
    }

    /// What has the name `name` was looked at, and is offered or gone.
    pub(super) fn settle(&mut self, name: &str) {
        self.hidden.remove(name);
    }

    /// All below the directory `dir` was looked at, which began at `begun`.
    pub(super) fn walked(&mut self, dir: &str, begun: Instant) {
        let is_below = |name: &str| match name.strip_prefix(dir) {
            Some(rest) => dir.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        self.hidden.retain(|name, seen| *seen >= begun || !is_below(name));
        if dir.is_empty() {
            self.overflow = self.overflow.filter(|seen| *seen >= begun);
        }
        self.look_at_mounts();
    }

    /// Takes note of the directory `name` if a file system is mounted there.
    pub(super) fn dir(&mut self, name: &str, now: Instant) {
        if self.mounts.contains(name) || !is_mounted(&self.root.join(name)) {
            return;
        }
        if self.mounts.len() < MOUNTS_MAX {
            self.mounts.insert(name.into());
        } else {
            self.overflow = Some(now);
        }
    }

    /// Looks whether all that was mounted still is.
    pub(super) fn look_at_mounts(&mut self) {
        let gone = self.mounts.iter().find(|name| !is_mounted(&self.root.join(name)));
        if let Some(name) = gone.filter(|_| !self.is_unmounted) {
            log::warn!(
                "a file system below the shared directory is no longer mounted, the catalogue counts as incomplete \
                 path={}",
                self.root.join(name).display()
            );
        }
        self.is_unmounted = gone.is_some();
    }

    /// The directory is there, or another one has taken its place.
    pub(super) fn set_root(&mut self, root: &Path, now: Instant) {
        if self.root != root {
            self.mounts.clear();
            self.root = root.into();
        }
        self.hidden.clear();
        self.overflow = None;
        self.dir("", now);
        self.look_at_mounts();
    }
}

/// Whether what is skipped at `path` is a file that could be offered if it were readable and shorter.
/// What is of a kind that is never offered hides nothing.
pub(super) fn hides(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let is_hidden = |kind| !matches!(kind, NotFound | NotADirectory);
    match std::fs::symlink_metadata(path) {
        Err(e) => is_hidden(e.kind()),
        Ok(meta) if meta.is_symlink() => match std::fs::metadata(path) {
            Err(e) => is_hidden(e.kind()) && !is_endless(&e),
            Ok(target) => target.len() > FILE_LEN_MAX,
        },
        Ok(meta) => meta.is_file() && meta.len() > FILE_LEN_MAX,
    }
}

/// Whether a link cannot be followed whatever its names come to be.
fn is_endless(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::LOOP | Errno::NAMETOOLONG))
}

/// Whether a file system is mounted at `path`. A bind mount has the device of what it shows, so the
/// kernel is asked; before Linux 5.8 only the devices tell.
fn is_mounted(path: &Path) -> bool {
    let look = |path: &Path| statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    let Ok(found) = look(path) else { return false };
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    let device = |stat: &rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    look(&path.join("..")).is_ok_and(|above| device(&above) != device(&found))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settled(root: &Path) -> Wholeness {
        let mut whole = Wholeness::default();
        whole.set_root(root, Instant::now());
        whole.set_settled(true);
        whole
    }

    #[test]
    fn what_is_hidden_counts_until_a_walk_finds_it_no_longer() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut whole = settled(Path::new("/none"));
        assert!(whole.is_whole());
        whole.hide("d/x", at(1));
        whole.hide("d", at(1));
        whole.hide("dx", at(1));
        whole.settle("d");
        assert!(!whole.is_whole());
        whole.walked("d", at(2));
        whole.walked("", at(1));
        assert!(!whole.is_whole(), "`dx` was seen since that walk began");
        whole.walked("", at(2));
        assert!(whole.is_whole());
        whole.set_settled(false);
        assert!(!whole.is_whole());
    }

    #[test]
    fn more_than_is_remembered_counts_until_all_is_walked() {
        let start = Instant::now();
        let mut whole = settled(Path::new("/none"));
        (0..=HIDDEN_NAMES_MAX).for_each(|n| whole.hide(&n.to_string(), start));
        (0..=HIDDEN_NAMES_MAX).for_each(|n| whole.settle(&n.to_string()));
        let later = start + Duration::from_secs(1);
        whole.walked("d", later);
        assert!(!whole.is_whole());
        whole.walked("", later);
        assert!(whole.is_whole());
    }

    #[test]
    fn a_mount_that_is_gone_counts() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut whole = settled(Path::new("/"));
        for name in ["proc", "none", "proc/self"] {
            whole.dir(name, now);
        }
        assert_eq!(whole.mounts.iter().collect::<Vec<_>>(), ["", "proc"]);
        whole.look_at_mounts();
        assert!(whole.is_whole());
        // As if it were no longer a directory, and then a plain one.
        let root = std::mem::replace(&mut whole.root, dir.path().into());
        for _ in 0..2 {
            whole.walked("", now);
            assert!(!whole.is_whole());
            std::fs::create_dir_all(dir.path().join("proc")).unwrap();
        }
        whole.root = root;
        whole.look_at_mounts();
        assert!(whole.is_whole(), "it is mounted again");
    }

    #[test]
    fn what_is_never_offered_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(300);
        // Cause: links in a circle counted as files that may be offered later. Effect: a directory with one was never
        // complete, and no `sync` from it removed anything.
        let links = [("link", "/none"), ("circle", "circle"), ("to", "from"), ("from", "./to"), ("long", &*long)];
        for (name, text) in links {
            std::os::unix::fs::symlink(text, dir.path().join(name)).unwrap();
        }
        rustix::fs::mkfifoat(CWD, dir.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
        let names = links.map(|(name, _)| name).into_iter().chain(["fifo", "none"]);
        let found: Vec<&str> = names.filter(|name| hides(&dir.path().join(name))).collect();
        assert_eq!(found, [""; 0]);
    }
}
