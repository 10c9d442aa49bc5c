//! Hearing of changes in the directory as they happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::share::limits::WATCH_EVENTS_MAX;
use crate::store::is_one_of;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod inotify;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Watch;
#[cfg(target_os = "linux")]
pub(super) use inotify::Watch;

/// Something happened to `path`.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    /// Whether it may be a directory with other contents: made, renamed or of unknown kind.
    pub(super) tree: bool,
}

/// Where changes arrive, and whether some were lost.
#[derive(Debug)]
pub(super) struct Changes {
    sender: Sender<Change>,
    receiver: Receiver<Change>,
    lost: Arc<AtomicBool>,
}

impl Changes {
    pub(super) fn new() -> Self {
        let (sender, receiver) = bounded(WATCH_EVENTS_MAX);
        Changes { sender, receiver, lost: Arc::default() }
    }

    pub(super) fn receiver(&self) -> Receiver<Change> {
        self.receiver.clone()
    }

    /// Whether changes were lost since the last call: the directory must be scanned whole.
    pub(super) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

/// Leaves out what the node itself writes below the directory: unfinished downloads, and its own files. Else a log file
/// there would wake the node with each of its lines.
#[derive(Debug)]
struct OwnWrites {
    root: PathBuf,
    names: Arc<[String]>,
}

impl OwnWrites {
    fn contains(&self, path: &Path) -> bool {
        let Ok(rel) = path.strip_prefix(&self.root) else { return false };
        let is_unfinished = || rel.components().next().is_some_and(|c| c.as_os_str().eq_ignore_ascii_case(".gpb"));
        is_unfinished() || rel.to_str().is_some_and(|name| is_one_of(name, &self.names))
    }
}
