//! Hints of changes in the directory, from the system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::runtime::Shutdown;
use crate::share::limits::WATCH_EVENTS_MAX;
use crate::store::is_one_of;

#[cfg(target_os = "linux")]
#[cfg_attr(feature = "portable-watch", allow(dead_code, reason = "the portable watch takes its place"))]
mod inotify;
#[cfg(any(not(target_os = "linux"), feature = "portable-watch"))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable-watch")))]
pub(super) use inotify::InotifyWatch as DirWatch;
#[cfg(any(not(target_os = "linux"), feature = "portable-watch"))]
pub(super) use portable::NotifyWatch as DirWatch;

/// Something happened to `path`.
#[derive(Debug)]
pub(super) struct PathChange {
    pub(super) path: PathBuf,
    /// Whether it may be a directory with other contents: made, renamed or of unknown kind.
    pub(super) tree: bool,
}

/// The queue of changes between the watch and the indexing thread.
#[derive(Debug)]
pub(super) struct PathChanges {
    sender: Sender<PathChange>,
    receiver: Receiver<PathChange>,
    is_lost: Arc<AtomicBool>,
    /// What a panic of a thread that watches begins.
    shutdown: Shutdown,
}

impl PathChanges {
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        // The bound is kept by `send`: a bounded channel would take all its memory from the start.
        let (sender, receiver) = unbounded();
        PathChanges { sender, receiver, is_lost: Arc::default(), shutdown: shutdown.clone() }
    }

    pub(super) fn receiver(&self) -> Receiver<PathChange> {
        self.receiver.clone()
    }

    /// Whether changes were lost since the last call, so that the whole directory must be scanned.
    pub(super) fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Ordering::Relaxed)
    }

    /// The end of the queue for a watch of `root` that ignores the names `own` below it.
    fn sink(&self, root: &Path, own: &Arc<[String]>) -> ChangeSink {
        let (sender, is_lost) = (self.sender.clone(), self.is_lost.clone());
        ChangeSink { root: root.to_path_buf(), own: own.clone(), sender, is_lost }
    }
}

/// Takes the changes that a watch reports.
#[derive(Debug)]
struct ChangeSink {
    root: PathBuf,
    own: Arc<[String]>,
    sender: Sender<PathChange>,
    is_lost: Arc<AtomicBool>,
}

impl ChangeSink {
    /// Whether the node itself writes there: unfinished downloads and its own files. If these were
    /// reported, each line of a log file in the directory would wake the indexing thread.
    fn ignores(&self, path: &Path) -> bool {
        let Ok(rel) = path.strip_prefix(&self.root) else { return false };
        let is_unfinished = || rel.components().next().is_some_and(|c| c.as_os_str().eq_ignore_ascii_case(".gpb"));
        is_unfinished() || rel.to_str().is_some_and(|name| is_one_of(name, &self.own))
    }

    /// Queues a change, or notes that it was lost because the queue is full.
    fn send(&self, path: PathBuf, tree: bool) {
        if self.sender.len() >= WATCH_EVENTS_MAX {
            self.lose();
        } else {
            // Without a receiver the directory is shared no longer.
            let _ = self.sender.send(PathChange { path, tree });
        }
    }

    /// Notes that changes were lost.
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }
}
