//! Names that are no plain files: empty directories, symbolic links, and further names of a file.
//!
//! Each is made under a temporary name with all that belongs to it, and then gets its final name as a
//! file does. So the name is whole or absent wherever the power fails, the guard of the places decides
//! about what lies there, and what is made is recorded as what fetches put in place.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;

use rustix::fs::FileType;

use crate::content::{FileId, RelPath, Stamp};
use crate::store::StoreError;
use crate::store::bare_id::{empty_dir_id, link_id};
use crate::store::disk::Disk;
use crate::store::disk::here::Stop;
use crate::store::limits::BARE_AT_ONCE_MAX;
use crate::store::place_bare::{HARD_LINK, place_bare};
use crate::store::placed::PlacedState;
use crate::store::storage::{OwnBare, Volume};
use crate::store::verify_existing::VerifiedFile;

/// A symbolic link to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkText {
    /// Its name.
    pub path: RelPath,
    /// Its text, which is not followed here.
    pub target: Box<str>,
    /// Its modification time, ns since the Unix epoch.
    pub mtime_ns: i64,
}

/// For each name whether it is new; false for one that was as it is to be.
type Made = Vec<Result<bool, StoreError>>;

/// A name to make.
pub(super) struct ToMake<'a> {
    pub(super) path: &'a RelPath,
    /// Stands for it where a file has its content.
    pub(super) id: FileId,
    pub(super) what: OwnBare<'a>,
}

impl Disk {
    /// Makes empty directories with these modification times, in ns since the Unix epoch. A directory
    /// that a fetch made gets the time if it is empty.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_dirs(&self, dirs: &[(RelPath, i64)], stop: Stop<'_>) -> Vec<Result<bool, StoreError>> {
        let is_own = |path: &RelPath| self.volume.guard().is_none_or(|guard| guard.owns(path, &empty_dir_id()));
        self.make(dirs, stop, |(path, mtime_ns)| match self.volume.line_up_dir(path, *mtime_ns, &is_own) {
            Ok(true) => Ok(None),
            Ok(false) | Err(_) => {
                Ok(Some(ToMake { path, id: empty_dir_id(), what: OwnBare::Dir { mtime_ns: *mtime_ns } }))
            }
        })
    }

    /// Makes symbolic links. One that is there with that text only gets its time, if a fetch made it.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_links(&self, links: &[LinkText], stop: Stop<'_>) -> Vec<Result<bool, StoreError>> {
        self.make(links, stop, |LinkText { path, target, mtime_ns }| {
            let id = link_id(target);
            if let Some((text, before)) = self.volume.link_at(path)
                && text == **target
            {
                let has_time = |state: &PlacedState| {
                    state.mtime_ns == *mtime_ns || state.mtime_ns == self.volume.kept_time(*mtime_ns)
                };
                let is_in_line = has_time(&before);
                let is_own = || self.volume.guard().is_none_or(|guard| guard.owns(path, &id));
                let changed = !is_in_line && is_own() && self.volume.set_link_time(path, *mtime_ns).is_ok();
                if changed
                    && let (Some(guard), Some((text, now))) = (self.volume.guard(), self.volume.link_at(path))
                    && text == **target
                    && is_one(&before, &now)
                    && has_time(&now)
                {
                    guard.restate_made(path, id, before, now);
                }
                return Ok(None);
            }
            Ok(Some(ToMake { path, id, what: OwnBare::Link { target, mtime_ns: *mtime_ns } }))
        })
    }

    /// Makes each `path` another name of the file at `first`, which this handle put in place or found
    /// whole: triples of `path`, `first` and their content. A file of the user's with the same content
    /// is left as it is. Where no hard link can be made, and where `first` is the user's, `path` becomes a
    /// copy, with one warning for all.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_names(&self, names: &[(RelPath, RelPath, FileId)], stop: Stop<'_>) -> Vec<Result<bool, StoreError>> {
        let states: BTreeMap<&RelPath, PlacedState> =
            names.iter().filter_map(|(_, first, _)| Some((first, self.file_at(first)?))).collect();
        let mut made = self.make(names, stop, |(path, first, id)| {
            match (self.volume.state_of(path), self.file_at(first)) {
                (Some((FileType::RegularFile, there)), Some(first)) if is_one(&there, &first) => return Ok(None),
                (Some((FileType::RegularFile | FileType::Symlink, _)), _) => {
                    match self.check_replaceable(path, id, stop) {
                        Err(StoreError::Exists { .. }) if self.has_content(path, id, stop) => return Ok(None),
                        checked => checked?,
                    }
                }
                _ => {}
            }
            if self.volume.guard().is_some_and(|guard| !guard.owns(first, id)) {
                return Err(StoreError::NoLinks { path: self.volume.path_of(path), kind: HARD_LINK });
            }
            Ok(Some(ToMake { path, id: *id, what: OwnBare::Name { of: first, known: None } }))
        });
        let is_no_link = |made: &Result<bool, StoreError>| matches!(made, Err(StoreError::NoLinks { .. }));
        let unlinked: Vec<usize> = (0..names.len()).filter(|at| is_no_link(&made[*at])).collect();
        let triples: Vec<_> = unlinked.iter().map(|at| names[*at].clone()).collect();
        for (at, copied) in unlinked.into_iter().zip(self.make_copies(&triples, HARD_LINK, stop)) {
            made[at] = copied;
        }
        // A further name changes the state of all that there were before, and so do other attributes.
        let Some(guard) = self.volume.guard() else { return made };
        for ((path, first, id), made) in names.iter().zip(&made) {
            let Some(now) = self.file_at(first) else { continue };
            if let Some(before) = states.get(first).filter(|before| **before != now) {
                guard.restate(first, *id, *before, now);
            }
            let is_known = guard.knows(first, *id, now) && self.file_at(path) == Some(now);
            match (made, guard.state_of(path)) {
                _ if !is_known => {}
                (Ok(true), Some(placed)) if placed != now => guard.restate(path, *id, placed, now),
                (Ok(false), _) if !guard.is_placed(path, id, &now) => guard.renew(path, id, now),
                _ => {}
            }
        }
        made
    }

    /// Makes each `path` a copy of the file at `end`, which this handle put in place or found whole,
    /// since no link of the kind `instead_of` can be made there: triples of `path`, `end` and their
    /// content. One warning tells of all that are new.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_copies(
        &self,
        copies: &[(RelPath, RelPath, FileId)],
        instead_of: &str,
        stop: Stop<'_>,
    ) -> Vec<Result<bool, StoreError>> {
        let made: Made = copies.iter().map(|(path, end, id)| self.copy_to(path, end, id, stop)).collect();
        let new = made.iter().filter(|made| matches!(made, Ok(true))).count();
        if let (Some((path, ..)), 1..) = (copies.first(), new) {
            let dir = self.path().display();
            log::warn!("no {instead_of} can be made, copies are instead dir={dir} path={path} copies={new}");
        }
        made
    }

    fn copy_to(&self, path: &RelPath, end: &RelPath, id: &FileId, stop: Stop<'_>) -> Result<bool, StoreError> {
        if stop() {
            return Err(StoreError::at(self.path(), io::Error::other(STOPPED)));
        }
        if let Some(held) = self.holds(std::slice::from_ref(path), id, stop).pop()
            && held?
        {
            return Ok(false);
        }
        let (state, guard) = (self.file_at(end), self.volume.guard());
        let known = state.filter(|state| guard.is_some_and(|guard| guard.knows(end, *id, *state)));
        let whole = self.volume.open_file(end).ok().and_then(|file| match known {
            Some(state) => VerifiedFile::known(file, id, state.stamp()),
            None => VerifiedFile::check(file, id, stop),
        });
        let gone = || StoreError::at(self.volume.path_of(path), io::Error::other(FIRST_IS_GONE));
        self.try_copy(&whole.ok_or_else(gone)?, id, path).map(|()| true)
    }

    /// The state of the regular file at `path`.
    fn file_at(&self, path: &RelPath) -> Option<PlacedState> {
        let (kind, state) = self.volume.state_of(path)?;
        (kind == FileType::RegularFile).then_some(state)
    }

    /// Whether the file at `path` has the content `id`. It is read and hashed, until `stop` returns true.
    pub fn has_content(&self, path: &RelPath, id: &FileId, stop: Stop<'_>) -> bool {
        self.volume.open_file(path).is_ok_and(|file| VerifiedFile::check(file, id, stop).is_some())
    }

    /// Whether a file lies at `path`, with no link on the way.
    pub fn is_file_at(&self, path: &RelPath) -> bool {
        self.is_at(path, FileType::RegularFile)
    }

    /// Whether a directory lies at `path`, with no link on the way.
    pub fn is_dir_at(&self, path: &RelPath) -> bool {
        self.is_at(path, FileType::Directory)
    }

    /// Whether a symbolic link with this text has the name.
    pub fn has_link(&self, path: &RelPath, target: &str) -> bool {
        self.volume.link_at(path).is_some_and(|(text, _)| text == target)
    }

    fn is_at(&self, path: &RelPath, kind: FileType) -> bool {
        let is = |path: &RelPath, kind| self.volume.state_of(path).is_some_and(|(found, _)| found == kind);
        // From the top, so that each part is looked up in a directory that is none by a link.
        let above = path.as_str().match_indices('/').map(|(end, _)| &path.as_str()[..end]);
        above.map(RelPath::new).all(|dir| dir.is_ok_and(|dir| is(&dir, FileType::Directory))) && is(path, kind)
    }

    /// The state of the file at `path` now.
    pub fn stamp_at(&self, path: &RelPath) -> Option<Stamp> {
        self.volume.state_of(path).map(|(_, state)| state.stamp())
    }

    /// Makes what `to_make` says of each item, some at once. Soon after `stop` returns true the rest
    /// fails.
    fn make<'i, T>(
        &self,
        items: &'i [T],
        stop: Stop<'_>,
        to_make: impl Fn(&'i T) -> Result<Option<ToMake<'i>>, StoreError>,
    ) -> Made {
        let made = items.chunks(BARE_AT_ONCE_MAX).flat_map(|some| self.make_some(some, stop, &to_make)).collect();
        self.volume.tidy();
        made
    }

    /// Puts what is missing of `items` in place together.
    fn make_some<'i, T>(
        &self,
        items: &'i [T],
        stop: Stop<'_>,
        to_make: impl Fn(&'i T) -> Result<Option<ToMake<'i>>, StoreError>,
    ) -> Made {
        let mut made: Made = Vec::with_capacity(items.len());
        let mut missing: Vec<(usize, ToMake<'i>)> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let ready =
                if stop() { Err(StoreError::at(self.path(), io::Error::other(STOPPED))) } else { to_make(item) };
            made.push(ready.and_then(|to_make| {
                let Some(mut to_make) = to_make else { return Ok(false) };
                let checked = self.check_first(&mut to_make, stop);
                checked.map_err(|e| StoreError::at(self.volume.path_of(to_make.path), e))?;
                self.check_taken(&to_make, stop)?;
                missing.push((at, to_make));
                Ok(true)
            }));
        }
        if missing.is_empty() {
            return made;
        }
        let files = missing.iter().map(|(_, to_make)| (to_make.path, to_make.id));
        let place = || {
            let items: Vec<_> = missing.iter().map(|(_, to_make)| (to_make.path, to_make.what)).collect();
            Ok::<_, Infallible>(place_bare(&*self.volume, &items))
        };
        let placed = self.recording(files, place).unwrap_or_else(|never| match never {});
        for ((at, to_make), placed) in missing.iter().zip(placed) {
            if let (Err(StoreError::NoLinks { .. }), Some(guard)) = (&placed, self.volume.guard()) {
                guard.keep_as_before(to_make.path);
            }
            made[*at] = placed.map(|()| true);
        }
        made
    }

    /// An error unless the file that gets another name is known to have its content. It is linked only
    /// while it is that file.
    fn check_first(&self, to_make: &mut ToMake<'_>, stop: Stop<'_>) -> io::Result<()> {
        let (OwnBare::Name { of, known }, id) = (&mut to_make.what, to_make.id) else { return Ok(()) };
        let state = self.file_at(of);
        let is_known = self.volume.guard().zip(state).is_some_and(|(guard, state)| guard.knows(of, id, state));
        let verified = state.filter(|_| is_known || self.has_content(of, &id, stop));
        *known = verified.map(|state| (state.len, state.stamp()));
        if known.is_some() { Ok(()) } else { Err(io::Error::other(FIRST_IS_GONE)) }
    }
}

/// Whether two states are of one file.
fn is_one(a: &PlacedState, b: &PlacedState) -> bool {
    (a.device, a.inode) == (b.device, b.inode)
}

const STOPPED: &str = "stopped before it was made";
const FIRST_IS_GONE: &str = "the file of which it is a name is not there";

#[cfg(test)]
mod tests;
