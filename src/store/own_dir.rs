//! The node's own directory below the one that it writes to: `.gpb`, which holds what is
//! unfinished.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use log::debug;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::store::OWN;
use crate::store::inspect::kind_at;
use crate::store::limits::{OWN_TRIES, TEMP_STALE};
use crate::store::open_beneath::DIRECTORY;
use crate::store::storage::TEMP_SUFFIX;
use crate::sync::lock;

/// The own directory, which exists only while there is something in it. Several processes may use
/// one.
#[derive(Debug)]
pub(crate) struct OwnDir {
    root: OwnedFd,
    open: Mutex<Option<Arc<OwnedFd>>>,
}

impl OwnDir {
    /// The own directory below `root`. Nothing is made before the first use.
    pub(crate) fn new(root: OwnedFd) -> Self {
        OwnDir { root, open: Mutex::new(None) }
    }

    /// The directory above.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Runs `act` on the own directory, which is made again if another process removed it
    /// meanwhile.
    pub(crate) fn with<R>(&self, act: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<R>) -> io::Result<R> {
        for _ in 0..OWN_TRIES {
            let own = self.open()?;
            match retry_on_intr(|| act(own.as_fd())) {
                // A directory that was removed takes no new names.
                Err(Errno::NOENT) if fs::fstat(&*own).is_ok_and(|s| s.st_nlink == 0) => self.forget(&own),
                other => return other.map_err(Into::into),
            }
        }
        Err(Errno::NOENT.into())
    }

    /// Opens the directory, which is made where there is none.
    pub(crate) fn open(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        let mut open = lock(&self.open);
        if let Some(dir) = &*open {
            return Ok(dir.clone());
        }
        for _ in 0..OWN_TRIES {
            let found = match retry_on_intr(|| fs::mkdirat(&self.root, OWN, Mode::RWXU)) {
                Ok(()) => false,
                Err(Errno::EXIST) => true,
                Err(e) => return Err(e),
            };
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            match retry_on_intr(|| fs::openat(&self.root, OWN, flags, Mode::empty())) {
                Ok(dir) => {
                    let dir = Arc::new(dir);
                    if found {
                        sweep(&dir, SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
                    }
                    *open = Some(dir.clone());
                    return Ok(dir);
                }
                Err(Errno::NOENT) => (),
                Err(e) => {
                    return Err(if kind_at(&self.root, OWN) == Some(FileType::Symlink) { Errno::LOOP } else { e });
                }
            }
        }
        Err(Errno::NOENT)
    }

    /// Removes the directory if it is empty.
    pub(crate) fn tidy(&self) {
        // The call fails while any process has a file there. The descriptor that is still held is
        // found dead by its next user.
        if fs::unlinkat(&self.root, OWN, AtFlags::REMOVEDIR).is_ok() {
            *lock(&self.open) = None;
        }
    }

    fn forget(&self, dead: &Arc<OwnedFd>) {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|dir| Arc::ptr_eq(dir, dead)) {
            *open = None;
        }
    }
}

/// Removes a file, link or empty directory.
pub(crate) fn remove_name(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<()> {
    match fs::unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => fs::unlinkat(at, name, AtFlags::REMOVEDIR),
        removed => removed,
    }
}

/// Removes temporary files that a killed process left behind; `now` is counted from 1970.
fn sweep(own: &OwnedFd, now: Duration) {
    let Ok(dir) = fs::Dir::read_from(own) else { return };
    for entry in dir.flatten() {
        let name = entry.file_name();
        let is_temp = name.to_bytes().ends_with(TEMP_SUFFIX.as_bytes());
        if is_temp && let Ok(stat) = fs::statat(own, name, AtFlags::SYMLINK_NOFOLLOW) {
            let written = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
            if now.saturating_sub(written) > TEMP_STALE && remove_name(own.as_fd(), name).is_ok() {
                debug!("left-over temporary file removed name={name:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The change time, which nothing sets, is the one that counts: so the clock is put forward.
    #[test]
    fn temporary_files_that_nobody_touched_for_long_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.tmp", "a.part", "a.journal"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", dir.path().join("link.tmp")).unwrap();
        std::fs::create_dir(dir.path().join("dir.tmp")).unwrap();
        std::fs::create_dir_all(dir.path().join("full.tmp/x")).unwrap();
        let own = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let names = || {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let (all, now) = (names(), SystemTime::UNIX_EPOCH.elapsed().unwrap());
        sweep(&own, now + TEMP_STALE / 2);
        assert_eq!(names(), all, "they may be in use");
        sweep(&own, Duration::ZERO);
        assert_eq!(names(), all, "a clock that is wrong removes nothing");
        sweep(&own, now + 2 * TEMP_STALE);
        assert_eq!(names(), ["a.journal", "a.part", "full.tmp"].map(String::from).into());
    }
}
