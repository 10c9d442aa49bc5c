//! The watch on systems other than Linux: whatever `notify` has for them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::TrySendError;
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher};

use crate::share::watch::{Change, Changes, OwnWrites};

/// A watch of a directory and all below it, until it is dropped.
#[derive(Debug)]
pub(in crate::share) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch `dir`, which is absolute and free of links, and all below it.
    pub(in crate::share) fn begin(dir: &Path, changes: &Changes, own_names: &Arc<[String]>) -> io::Result<Self> {
        let (sender, lost) = (changes.sender.clone(), changes.lost.clone());
        let own = OwnWrites { root: dir.to_path_buf(), names: own_names.clone() };
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
                if own.contains(&path) {
                    continue;
                }
                if let Err(TrySendError::Full(_)) = sender.try_send(Change { path, tree }) {
                    lost.store(true, Ordering::Relaxed);
                }
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config).map_err(io::Error::other)?;
        // Asking is the only call that reports a thread that did not start; all others, its drop too, would panic.
        if watcher.configure(config).is_err() {
            std::mem::forget(watcher);
            return Err(io::Error::other("its thread cannot be started; end other programs, or raise ulimit -u"));
        }
        watcher.watch(dir, RecursiveMode::Recursive).map_err(io::Error::other)?;
        Ok(Watch { _watcher: watcher })
    }

    /// Nothing to do: all directories are watched.
    pub(in crate::share) fn add(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
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
