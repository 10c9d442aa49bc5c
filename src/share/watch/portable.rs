//! The watch on systems other than Linux: what the crate `notify` has for each of them.
//!
//! The feature `portable-watch` selects it on Linux, too, so that it is compiled and tested there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher};

use crate::share::watch::PathChanges;

/// A watch of a directory and all below it, until it is dropped.
#[derive(Debug)]
pub(in crate::share) struct NotifyWatch {
    _watcher: RecommendedWatcher,
}

impl NotifyWatch {
    /// Begins to watch `dir`, which is absolute and free of links, and all below it but for the
    /// names `own`.
    pub(in crate::share) fn begin(dir: &Path, changes: &PathChanges, own: &Arc<[String]>) -> io::Result<Self> {
        let sink = changes.sink(dir, own);
        let handler = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else {
                sink.lose();
                return;
            };
            if event.need_rescan() {
                sink.lose();
            }
            let Some(tree) = concerns_tree(&event.kind) else { return };
            for path in event.paths {
                if !sink.ignores(&path) {
                    sink.send(path, tree);
                }
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config).map_err(io::Error::other)?;
        // `configure` is the only call that reports a thread that did not start. The others, and
        // the drop, would panic.
        if watcher.configure(config).is_err() {
            std::mem::forget(watcher);
            return Err(io::Error::other("its thread cannot be started; end other programs, or raise ulimit -u"));
        }
        watcher.watch(dir, RecursiveMode::Recursive).map_err(io::Error::other)?;
        Ok(NotifyWatch { _watcher: watcher })
    }

    /// Does nothing: all directories are watched.
    pub(in crate::share) fn add(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// `None` for what changes nothing, else whether a whole directory may be concerned.
fn concerns_tree(kind: &EventKind) -> Option<bool> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(false),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(false),
        EventKind::Create(CreateKind::File) | EventKind::Remove(RemoveKind::File) => Some(false),
        _ => Some(true),
    }
}
