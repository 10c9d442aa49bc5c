//! Hashing files again, to compare them with what is known of them.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use super::Disk;
use crate::content::{FileId, RelPath};
use crate::store::disk_volume::{LocalKind, LocalName};
use crate::store::limits::{CHECK_HELP_LEN, CHECK_THREADS_MAX};
use crate::store::placed::PlacedState;
use crate::store::verify_existing::identify;

/// What an earlier fetch, or a server, knew of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownContent {
    /// The content that it had.
    pub id: FileId,
    /// Whether the file is in the state that it was in then.
    pub is_unchanged: bool,
}

impl Disk {
    /// Hashes files on all cores and tells `done` of each, by its position: its content, or none where
    /// it cannot be read or changes meanwhile. Returns soon after `stop` returns true.
    pub fn identify_each(
        &self,
        names: &[LocalName],
        stop: &(dyn Fn() -> bool + Sync),
        done: &(dyn Fn(usize, Option<FileId>) + Sync),
    ) {
        let (large, small): (Vec<_>, Vec<_>) = (0..names.len()).partition(|at| names[*at].len >= CHECK_HELP_LEN);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(at) = small.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !stop()) {
                done(*at, self.identify(&names[*at], stop));
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let helpers = processors.min(CHECK_THREADS_MAX).min(small.len().max(1)) - 1;
        std::thread::scope(|scope| {
            // With fewer threads it only takes longer.
            let start = |i| Builder::new().name(format!("gpb-verify-{i}")).spawn_scoped(scope, work).ok();
            let _helpers: Vec<_> = (1..=helpers).map_while(start).collect();
            work();
        });
        // Each of these is hashed by several threads.
        for at in large {
            if !stop() {
                done(at, self.identify(&names[at], stop));
            }
        }
    }

    fn identify(&self, name: &LocalName, stop: &(dyn Fn() -> bool + Sync)) -> Option<FileId> {
        let file: File = self.volume.open_file(&name.path).ok().filter(|_| name.kind == LocalKind::File)?;
        identify(&file, name.len, &name.state.stamp(), stop)
    }

    /// What fetches are known to have put under this name, the last one first.
    pub fn known(&self, name: &LocalName) -> Vec<KnownContent> {
        let found = self.volume.guard().map_or(Vec::new(), |guard| guard.known(&name.path));
        let known =
            |(id, state): (FileId, Option<PlacedState>)| KnownContent { id, is_unchanged: state == Some(name.state) };
        found.into_iter().map(known).collect()
    }

    /// Whether nothing has the name `path`.
    pub fn is_free(&self, path: &RelPath) -> bool {
        matches!(self.volume.look(path), Ok(None))
    }

    /// Whether a fetch put a file at `path` that did not expire since.
    pub fn was_fetched(&self, path: &RelPath) -> bool {
        self.volume.guard().is_some_and(|guard| guard.was_fetched(path))
    }

    /// Lets files be replaced that were hashed and have other bytes than they should, each in the state
    /// in which it was hashed. What is recorded of files no longer counts: each is read.
    pub fn repair(&self, names: &[LocalName]) {
        if let Some(guard) = self.volume.guard() {
            guard.repair(names.iter().map(|name| (&name.path, name.state)));
        }
    }

    /// Whether each file is read, whatever is recorded of it.
    pub(super) fn reads_all(&self) -> bool {
        self.volume.guard().is_some_and(|guard| guard.reads_all())
    }

    /// Notes that an earlier fetch put `id` there, in the state that the file is in.
    pub fn note(&self, name: &LocalName, id: FileId) {
        if let Some(guard) = self.volume.guard() {
            guard.note(&name.path, id, name.state);
        }
    }

    /// The name `path`, if a file, a link or the like has it.
    pub fn local_name(&self, path: &RelPath) -> Option<LocalName> {
        self.volume.local_name(path)
    }
}
