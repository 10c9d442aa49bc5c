//! Walking the directory, or a part of it, in small steps.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use crate::content::{Catalogue, EntryRef};

/// A walk that its owner drives entry by entry, so that it never keeps its owner from other work. It remembers which
/// entries of the catalogue were met: those that were not are gone.
pub(super) struct Scan {
    walk: walkdir::IntoIter,
    base: Arc<Catalogue>,
    range: Range<usize>,
    /// One bit for each entry of that range: those below the walked directory.
    met: Vec<u64>,
    whole: bool,
}

/// One step of a walk.
pub(super) enum Step {
    /// A file, link or special file.
    Entry(walkdir::DirEntry),
    /// A directory that is entered next unless [`Scan::leave`] is called.
    Dir(PathBuf),
    /// What cannot be read, and why.
    Unreadable(Option<PathBuf>, String),
    /// That was all.
    End,
}

impl Scan {
    /// A walk of the directory `root`, compared with `base`: of all of it when `below` is empty, else of what lies
    /// below that name.
    pub(super) fn new(root: &Path, below: &str, base: Arc<Catalogue>) -> Self {
        let start = if below.is_empty() { root.to_path_buf() } else { root.join(below) };
        let range = base.positions_below(below);
        // A start that was exchanged for a link is no directory to walk.
        let walk = WalkDir::new(start).follow_links(false).follow_root_links(false).into_iter();
        Scan { walk, base, met: vec![0; range.len().div_ceil(64)], range, whole: below.is_empty() }
    }

    /// Whether it walks all of the directory.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The next entry.
    pub(super) fn step(&mut self) -> Step {
        match self.walk.next() {
            None => Step::End,
            Some(Ok(entry)) if entry.file_type().is_dir() => Step::Dir(entry.into_path()),
            Some(Ok(entry)) => Step::Entry(entry),
            Some(Err(e)) => {
                let cause = e.io_error().map_or_else(|| "cannot be walked".into(), ToString::to_string);
                Step::Unreadable(e.path().map(Path::to_path_buf), cause)
            }
        }
    }

    /// Does not enter the directory of the last step.
    pub(super) fn leave(&mut self) {
        self.walk.skip_current_dir();
    }

    /// The entry of that name was met: the catalogue's entry in the base, if there was one.
    pub(super) fn meet(&mut self, path: &str) -> Option<EntryRef<'_>> {
        let at = self.base.position(path)?;
        let bit = at.checked_sub(self.range.start)?;
        *self.met.get_mut(bit / 64)? |= 1 << (bit % 64);
        self.base.entries(at..at + 1).next()
    }

    /// The entries that the walk did not meet.
    pub(super) fn missed(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let below = self.base.entries(self.range.clone()).enumerate();
        below.filter(|(bit, _)| self.met[bit / 64] & (1 << (bit % 64)) == 0).map(|(_, e)| e)
    }
}
