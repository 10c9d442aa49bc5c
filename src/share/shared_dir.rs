//! The shared directory as a whole: whether it is there, and the watch on it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use crate::chain::Chain;
use crate::runtime::Shutdown;
use crate::share::limits::{RESCAN, ROOT_POLL, WATCH_RETRY_MAX};
use crate::share::watch::{DirWatch, PathChange, PathChanges};

/// The directory by its configured path. It may be removed, replaced, mounted over, and come back.
pub(super) struct SharedDir {
    path: PathBuf,
    /// Device and inode, while it is there.
    identity: Option<(u64, u64)>,
    poll_at: Instant,
    /// None while it cannot be watched. Then only scans find changes.
    watch: Option<DirWatch>,
    changes: PathChanges,
    is_failure_logged: bool,
    /// When it may be tried to watch it again, and the wait after a further failure.
    retry: (Instant, Duration),
}

/// The directory is not the one that it was.
pub(super) struct DirSwap {
    /// Whether there was one before.
    pub(super) was_there: bool,
    /// The new one without links, if there is one.
    pub(super) found: Option<PathBuf>,
}

impl SharedDir {
    /// The directory is not looked for before the first [`poll`](SharedDir::poll), which reports it
    /// as new.
    pub(super) fn new(path: PathBuf, now: Instant, shutdown: &Shutdown) -> Self {
        let changes = PathChanges::new(shutdown);
        let retry = (now, RESCAN);
        SharedDir { path, identity: None, poll_at: now, watch: None, changes, is_failure_logged: false, retry }
    }

    /// Where hints of changes arrive.
    pub(super) fn changes(&self) -> Receiver<PathChange> {
        self.changes.receiver()
    }

    /// Whether hints were lost since the last call, so that the whole directory must be scanned.
    pub(super) fn take_lost(&self) -> bool {
        self.changes.take_lost()
    }

    pub(super) fn is_there(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether the system reports changes.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// When the directory is looked for again.
    pub(super) fn poll_at(&self) -> Instant {
        self.poll_at
    }

    /// Looks for the directory at the next [`poll`](SharedDir::poll).
    pub(super) fn poll_soon(&mut self, now: Instant) {
        self.poll_at = now;
    }

    /// Looks for the directory if it is time to. Reports that it appeared, vanished or was
    /// replaced; the watch on the former one ends then.
    pub(super) fn poll(&mut self, now: Instant) -> Option<DirSwap> {
        if now < self.poll_at {
            return None;
        }
        self.poll_at = now + ROOT_POLL;
        let found = std::fs::metadata(&self.path).ok().filter(|m| m.is_dir()).map(|m| (m.dev(), m.ino()));
        if found == self.identity {
            return None;
        }
        let was_there = self.identity.is_some();
        if was_there {
            log::warn!("shared directory is gone or was replaced path={}", self.path.display());
        }
        self.identity = found;
        self.watch = None;
        let real = || std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        Some(DirSwap { was_there, found: found.map(|_| real()) })
    }

    /// Begins to watch `root`, the directory without links, but for the names `own` below it.
    pub(super) fn begin_watch(&mut self, root: &Path, own: &Arc<[String]>) {
        match DirWatch::begin(root, &self.changes, own) {
            Ok(watch) => self.watch = Some(watch),
            Err(e) => self.end_watch(root, &e),
        }
    }

    /// Watches `dir` below `root` as well. Called before its entries are read, so that no change is
    /// missed.
    pub(super) fn watch(&mut self, root: &Path, dir: &Path) {
        if let Some(Err(e)) = self.watch.as_ref().map(|watch| watch.add(dir)) {
            self.end_watch(root, &e);
        }
    }

    /// Whether to try to watch it again, now that all of it is about to be walked: the limit that was
    /// reached may have been raised. Each try may cost all watches that the system gives, so there
    /// are fewer and fewer.
    pub(super) fn may_watch_again(&mut self, now: Instant) -> bool {
        let (at, wait) = self.retry;
        let may = self.watch.is_none() && self.identity.is_some() && now >= at;
        if may {
            self.retry = (now + wait, (2 * wait).min(WATCH_RETRY_MAX));
        }
        may
    }

    /// All of it was walked, and so watched if the system allowed it.
    pub(super) fn walked(&mut self, root: &Path) {
        if self.watch.is_some() && std::mem::take(&mut self.is_failure_logged) {
            self.retry.1 = RESCAN;
            log::info!("directory watched again path={}", root.display());
        }
    }

    fn end_watch(&mut self, root: &Path, cause: &io::Error) {
        self.watch = None;
        if !std::mem::replace(&mut self.is_failure_logged, true) {
            log::warn!(
                "directory not watched, changes are seen every {} s only path={} error=\"{}\"",
                RESCAN.as_secs(),
                root.display(),
                Chain(cause)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_failed_is_tried_again_ever_more_seldom_until_it_succeeds() {
        let (tmp, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut dir = SharedDir::new(tmp.path().into(), start, &Shutdown::new());
        assert!(!dir.may_watch_again(start), "it was not looked for");
        assert!(dir.poll(start).is_some());
        dir.end_watch(tmp.path(), &io::Error::other("a limit is reached"));
        let tries = (0..7200).filter(|s| dir.may_watch_again(start + Duration::from_secs(*s))).count();
        assert!((6..=9).contains(&tries), "{tries} in two hours");
        dir.begin_watch(tmp.path(), &Vec::new().into());
        assert!(dir.is_watched() && !dir.may_watch_again(start + 2 * WATCH_RETRY_MAX));
        dir.walked(tmp.path());
        assert!(!dir.is_failure_logged, "the next failure is news");
    }
}
