//! What lies at the places of a fetch already.

use rustix::fs::FileType;

use crate::content::{FileId, RelPath};
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::inspect::LookedAt;
use crate::store::placed::PlacedState;
use crate::store::storage::Volume;
use crate::store::verify_existing::VerifiedFile;

/// Tells that a check is to end.
pub(super) type Stop<'s> = &'s (dyn Fn() -> bool + Sync);

/// A file that has its content.
struct HeldFile {
    state: PlacedState,
    /// It, if it was opened.
    open: Option<VerifiedFile>,
}

impl Disk {
    /// Whether each of `paths` holds exactly `id`. If at least one does, the others are made copies
    /// of it first. A file of another length is never read. Other files are read and hashed, large
    /// ones by several threads, all of which have ended when this returns. Returns soon after
    /// `stop` returns true, and then nothing that can be relied on.
    ///
    /// # Errors
    /// For each of `paths`, what keeps a file from being put there: [`StoreError::NotRegular`] for
    /// something that a file must not replace, such as a device, [`StoreError::NameTaken`] for a
    /// directory, [`StoreError::Exists`] for a file that is not to be replaced, and
    /// [`StoreError::SameName`] for a name that is another one of `paths`, or of an earlier call.
    pub fn holds(
        &self,
        paths: &[RelPath],
        id: &FileId,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Vec<Result<bool, StoreError>> {
        let mut whole = None;
        let mut look = |path: &RelPath| match self.volume.look_at(path)? {
            Some(there) if there.kind == FileType::RegularFile => {
                let Some(found) = self.whole_at(path, there, id, stop) else {
                    // A check that was cut short says nothing.
                    return if stop() { Ok(false) } else { self.check_replaceable(path, id, stop).map(|()| false) };
                };
                if let Some(guard) = self.volume.guard() {
                    guard.is_here(path, *id, found.state);
                }
                whole = whole.take().or(found.open);
                if whole.is_none() && paths.len() > 1 {
                    let file = self.volume.open_file(path).ok();
                    whole = file.and_then(|file| VerifiedFile::known(file, id, found.state.stamp()));
                }
                Ok(true)
            }
            Some(there) if there.kind == FileType::Symlink => self.check_replaceable(path, id, stop).map(|()| false),
            Some(there) if there.kind == FileType::Directory && self.is_made_dir(path) => Ok(false),
            Some(there) if there.kind == FileType::Directory => {
                Err(StoreError::NameTaken { path: self.volume.path_of(path), by: "a directory" })
            }
            _ => Ok(false),
        };
        let mut results: Vec<Result<bool, StoreError>> = paths.iter().map(&mut look).collect();
        if let Some(whole) = whole.filter(|_| !stop()) {
            for (path, result) in paths.iter().zip(&mut results).filter(|(_, result)| matches!(result, Ok(false))) {
                *result = Ok(self.copy(&whole, id, path));
            }
        }
        results
    }

    /// The file at `path` if it holds exactly `id`. If fetches put it there, or are to replace whatever
    /// lies there, its attributes are brought in line; what is the user's is not touched.
    fn whole_at(&self, path: &RelPath, there: LookedAt, id: &FileId, stop: Stop<'_>) -> Option<HeldFile> {
        let (guard, before) = (self.volume.guard(), there.state);
        let is_placed = guard.is_some_and(|guard| guard.is_placed(path, id, &before));
        let open = || self.volume.open_file(path).ok();
        let mut whole = HeldFile { state: before, open: None };
        // An older version of a large file takes as long to read as it takes to reuse.
        let is_other = || guard.is_some_and(|guard| before.len == id.len && guard.is_other(path, id, &before));
        if !is_placed {
            if is_other() {
                return None;
            }
            whole.open = Some(VerifiedFile::check(open()?, id, stop)?);
        }
        let is_own = is_placed || guard.is_none_or(|guard| guard.replaces_all() || guard.is_recorded(path, id));
        if is_own && self.is_out_of_line(path, &there) {
            whole.open = whole.open.or_else(|| VerifiedFile::known(open()?, id, before.stamp()));
            let shared = guard.and_then(|guard| guard.other_name_of(path, &before));
            let is_changed = match (whole.open.as_mut(), shared) {
                (None, _) => false,
                (Some(file), None) => {
                    let is_changed = self.bring_in_line(path, file);
                    let is_it = |now: PlacedState| file.check_unchanged().is_ok() && file.has(&now.stamp());
                    if is_changed && !self.volume.state_of(path).is_some_and(|(_, now)| is_it(now)) {
                        // Another program saved it meanwhile.
                        return None;
                    }
                    is_changed
                }
                (Some(file), Some(other)) => self.part(path, file, id, (&other, before)),
            };
            if is_changed {
                whole.state = self.volume.state_of(path)?.1;
                whole.open = whole.open.filter(|file| file.check_unchanged().is_ok());
            }
        }
        if let Some(guard) = guard.filter(|_| is_own && !(is_placed && whole.state == before)) {
            guard.renew(path, id, whole.state);
        }
        Some(whole)
    }

    /// Makes `path`, which is one file with `other` here and another one at the source, a copy with
    /// attributes of its own; whether it did.
    fn part(&self, path: &RelPath, file: &VerifiedFile, id: &FileId, other: (&RelPath, PlacedState)) -> bool {
        if let Some(guard) = self.volume.guard() {
            guard.is_own_in(path, other.1);
        }
        let is_parted = self.copy(file, id, path);
        if let (true, Some(guard), Some((_, now))) = (is_parted, self.volume.guard(), self.volume.state_of(other.0)) {
            guard.restate(other.0, *id, other.1, now);
        }
        is_parted
    }

    /// An error if what lies at `path` must not be replaced by `id`.
    pub(super) fn check_replaceable(
        &self,
        path: &RelPath,
        id: &FileId,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), StoreError> {
        let (Some(guard), Some(found)) = (self.volume.guard(), self.volume.state_of(path)) else { return Ok(()) };
        if self.volume.is_mount_point(path) {
            return Err(StoreError::NotRegular { path: self.volume.path_of(path), kind: "a mount point" });
        }
        let holds = |other: &FileId| self.has_text_or_content(path, found.0, other, stop);
        guard.check(path, *id, found, &|ask| self.volume.spelling(path, ask), &holds)
    }
}
