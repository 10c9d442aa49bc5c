//! Names that are no plain files: empty directories, symbolic links, and further names of a file.
//!
//! Each is made under a temporary name with all that belongs to it, and then gets its final name as a
//! file does. So the name is whole or absent wherever the power fails, the guard of the places decides
//! about what lies there, and what is made is recorded as what fetches put in place.

use std::collections::BTreeMap;
use std::convert::Infallible;

use rustix::fs::FileType;

use crate::content::{FileId, RelPath, Root, Stamp, merkle};
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::place_bare::place_bare;
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
struct ToMake<'a> {
    path: &'a RelPath,
    /// Stands for it where a file has its content.
    id: FileId,
    what: OwnBare<'a>,
}

impl Disk {
    /// Makes empty directories with these modification times, in ns since the Unix epoch. A directory
    /// that is there gets the time if it is empty.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_dirs(&self, dirs: &[(RelPath, i64)]) -> Vec<Result<bool, StoreError>> {
        let to_make = |(path, mtime_ns): &'_ (RelPath, i64)| match self.volume.line_up_dir(path, *mtime_ns) {
            Ok(true) => None,
            Ok(false) | Err(_) => Some(*mtime_ns),
        };
        self.make(dirs, |dir| {
            let mtime_ns = to_make(dir)?;
            Some(ToMake { path: &dir.0, id: id_of(DIR_TEXT, ""), what: OwnBare::Dir { mtime_ns } })
        })
    }

    /// Makes symbolic links. One that is there with that text only gets its time.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_links(&self, links: &[LinkText]) -> Vec<Result<bool, StoreError>> {
        self.make(links, |LinkText { path, target, mtime_ns }| {
            let id = id_of(LINK_TEXT, target);
            if let Some((text, before)) = self.volume.link_at(path)
                && text == **target
            {
                let changed = before.mtime_ns != *mtime_ns && self.volume.set_link_time(path, *mtime_ns).is_ok();
                if changed && let (Some(guard), Some((_, now))) = (self.volume.guard(), self.volume.link_at(path)) {
                    guard.restate(path, id, before, now);
                }
                return None;
            }
            Some(ToMake { path, id, what: OwnBare::Link { target, mtime_ns: *mtime_ns } })
        })
    }

    /// Makes each `path` another name of the file at `first`, which this handle put in place or found
    /// whole: triples of `path`, `first` and their content. A file of the user's with the same content
    /// is left as it is.
    ///
    /// # Errors
    /// For each of them, why it cannot be made.
    pub fn make_names(&self, names: &[(RelPath, RelPath, FileId)]) -> Vec<Result<bool, StoreError>> {
        let state_of = |path: &RelPath| self.volume.state_of(path).filter(|(kind, _)| *kind == FileType::RegularFile);
        let states: BTreeMap<&RelPath, PlacedState> = names
            .iter()
            .flat_map(|(path, first, _)| [path, first])
            .filter_map(|path| Some((path, state_of(path)?.1)))
            .collect();
        let mut made = self.make(names, |(path, first, id)| {
            let inode = |path: &RelPath| state_of(path).map(|(_, state)| (state.device, state.inode));
            let is_one = inode(first).is_some() && inode(path) == inode(first);
            (!is_one).then_some(ToMake { path, id: *id, what: OwnBare::Name { of: first, id: *id } })
        });
        for (result, (path, _, id)) in made.iter_mut().zip(names) {
            let holds =
                || self.volume.open_file(path).is_ok_and(|file| VerifiedFile::check(file, id, &|| false).is_some());
            if matches!(result, Err(StoreError::Exists { .. })) && holds() {
                *result = Ok(false);
            }
        }
        // A further name changes the state of all that there were before.
        let Some(guard) = self.volume.guard() else { return made };
        for ((path, first, id), made) in names.iter().zip(&made) {
            let placed = if matches!(made, Ok(true)) { guard.state_of(path) } else { None };
            for (path, before) in [(path, placed.or(states.get(path).copied())), (first, states.get(first).copied())] {
                if let (Some(before), Some((_, now))) = (before, state_of(path))
                    && before != now
                {
                    guard.restate(path, *id, before, now);
                }
            }
        }
        made
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

    /// Makes what `to_make` says of each item, and puts all in place together.
    fn make<'i, T>(&self, items: &'i [T], to_make: impl Fn(&'i T) -> Option<ToMake<'i>>) -> Made {
        let mut made: Made = Vec::with_capacity(items.len());
        let mut missing: Vec<(usize, ToMake<'i>)> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            made.push(Ok(false));
            let Some(to_make) = to_make(item) else { continue };
            match self.check_first(&to_make.what) {
                Ok(()) => missing.push((at, to_make)),
                Err(e) => made[at] = Err(StoreError::at(self.volume.path_of(to_make.path), e)),
            }
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
        for ((at, _), placed) in missing.iter().zip(placed) {
            made[*at] = placed.map(|()| true);
        }
        self.volume.tidy();
        made
    }

    /// An error unless the file that gets another name is known to have its content.
    fn check_first(&self, what: &OwnBare<'_>) -> std::io::Result<()> {
        let OwnBare::Name { of, id } = what else { return Ok(()) };
        let state = self.volume.state_of(of).map(|(_, state)| state);
        let is_known = self.volume.guard().zip(state).is_some_and(|(guard, state)| guard.knows(of, *id, state));
        let holds = || self.volume.open_file(of).is_ok_and(|file| VerifiedFile::check(file, id, &|| false).is_some());
        if is_known || holds() { Ok(()) } else { Err(std::io::Error::other(FIRST_IS_GONE)) }
    }
}

/// Stands for the content of a name without one, in the records of what was put in place.
fn id_of(kind: &str, text: &str) -> FileId {
    let root = Root(merkle::root_of_bytes(format!("{kind}{text}").as_bytes()));
    FileId { root, len: text.len() as u64 }
}

const DIR_TEXT: &str = "gpb empty directory\0";
const LINK_TEXT: &str = "gpb symbolic link\0";
const FIRST_IS_GONE: &str = "the file of which it is a name is not there";
