//! What a sync leaves alone, on both sides: by its name, or by its content.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::client::{Selection, WholeListing};
use crate::content::{FileId, Pattern, PatternKind, RelPath};
use crate::store::{Disk, LocalKind, LocalName, LocalTree};
use crate::sync::lock;

/// Names that are neither fetched nor removed.
pub(super) struct SyncExclude<'a> {
    selection: &'a Selection,
    /// Of contents that are excluded, at the peer or here.
    names: HashSet<RelPath>,
}

impl<'a> SyncExclude<'a> {
    /// Takes out of `listing` what `selection` excludes.
    pub(super) fn take_out(selection: &'a Selection, listing: &mut WholeListing) -> Self {
        let is_out = |path: &RelPath, id: &FileId| selection.excludes(path.as_str(), id);
        let names = listing.files.extract_if(.., |file| is_out(&file.path, &file.id)).map(|file| file.path).collect();
        let exclude = SyncExclude { selection, names };
        listing.bare.retain(|bare| !exclude.has(&bare.path));
        exclude
    }

    /// Leaves alone what is here with an excluded content, whatever the peer has under that name, and takes
    /// it out of `listing`. What no fetch is known to have put there is hashed.
    pub(super) fn look_at(
        &mut self,
        listing: &mut WholeListing,
        (disk, tree): (&Disk, &LocalTree),
        stop: &(dyn Fn() -> bool + Sync),
    ) {
        let by_root: Vec<&Pattern> =
            self.selection.exclude.iter().filter(|p| matches!(p.kind(), PatternKind::Root(..))).collect();
        if by_root.is_empty() {
            return;
        }
        let (mut names, mut unknown): (Vec<RelPath>, Vec<LocalName>) = Default::default();
        for name in tree.names.iter().filter(|name| name.kind == LocalKind::File) {
            match disk.fetched_as(name, stop) {
                Some(id) if by_root.iter().any(|pattern| pattern.matches_id(&id)) => names.push(name.path.clone()),
                Some(_) => {}
                None => unknown.push(name.clone()),
            }
        }
        let hashed = Mutex::new(names);
        disk.identify_each(&unknown, stop, &|at, id| {
            if id.is_some_and(|id| by_root.iter().any(|pattern| pattern.matches_id(&id))) {
                lock(&hashed).push(unknown[at].path.clone());
            }
        });
        self.names.extend(std::mem::take(&mut *lock(&hashed)));
        listing.files.retain(|file| !self.names.contains(&file.path));
        listing.bare.retain(|bare| !self.names.contains(&bare.path));
    }

    /// Whether the name is left alone.
    pub(super) fn has(&self, path: &RelPath) -> bool {
        let is_path = |pattern: &&Pattern| matches!(pattern.kind(), PatternKind::Path { .. });
        let mut by_path = self.selection.exclude.iter().filter(is_path);
        self.names.contains(path) || by_path.any(|pattern| pattern.matches_path(path.as_str()))
    }
}
