//! Hearing of changes in the directory as they happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::share::limits::WATCH_EVENTS_MAX;

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

/// What GPB itself writes below the directory, much of it while it downloads.
fn is_own(root: &Path, path: &Path) -> bool {
    let first = path.strip_prefix(root).ok().and_then(|rel| rel.components().next());
    first.is_some_and(|c| c.as_os_str().eq_ignore_ascii_case(".gpb"))
}
