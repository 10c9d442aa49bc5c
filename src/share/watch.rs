//! Hearing of changes in the directory as they happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher};

use crate::limits::WATCH_EVENTS_MAX;

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

/// A watch of a directory and all below it, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
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

impl Watch {
    /// Begins to watch `dir`, which is absolute and free of links.
    pub(super) fn begin(dir: &Path, changes: &Changes) -> notify::Result<Self> {
        let (sender, lost, root) = (changes.sender.clone(), changes.lost.clone(), dir.to_path_buf());
        let handler = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else {
                lost.store(true, Ordering::Relaxed);
                return;
            };
            if event.need_rescan() {
                lost.store(true, Ordering::Relaxed);
            }
            let Some(tree) = concerns(&event.kind) else { return };
            for path in event.paths {
                if is_own(&root, &path) {
                    continue;
                }
                if let Err(TrySendError::Full(_)) = sender.try_send(Change { path, tree }) {
                    lost.store(true, Ordering::Relaxed);
                }
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config)?;
        // Asking is the only call that reports a thread that did not start; all others, its drop too, would panic.
        if watcher.configure(config).is_err() {
            std::mem::forget(watcher);
            return Err(notify::Error::generic("its thread cannot be started; end other programs, or raise ulimit -u"));
        }
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Watch { _watcher: watcher })
    }
}

/// `None` for what changes nothing, else whether a whole directory may be concerned.
fn concerns(kind: &EventKind) -> Option<bool> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(false),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(false),
        EventKind::Create(CreateKind::File) | EventKind::Remove(RemoveKind::File) => Some(false),
        _ => Some(true),
    }
}

/// What GPB itself writes below the directory, much of it while it downloads.
fn is_own(root: &Path, path: &Path) -> bool {
    let first = path.strip_prefix(root).ok().and_then(|rel| rel.components().next());
    first.is_some_and(|c| c.as_os_str().eq_ignore_ascii_case(".gpb"))
}
