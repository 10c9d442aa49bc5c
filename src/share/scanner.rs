//! Walks of the directory, or of a part of it, in small steps.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use walkdir::WalkDir;

use crate::content::{Catalogue, EntryRef, RelPath};
use crate::limits::WAIT_MAX;
use crate::share::limits::{RESCAN, TREES_MAX, WALK_TIME_SHARE};

/// Decides what is walked next: the whole directory when a rescan is due, else one of the changed
/// trees.
pub(super) struct Scanner {
    /// The walk that is not finished.
    walk: Option<TreeWalk>,
    /// Directories to walk after the current walk.
    trees: VecDeque<String>,
    rescan_at: Instant,
    begun_at: Instant,
    has_walked_whole: bool,
}

impl Scanner {
    /// The first walk is one of the whole directory, due at once.
    pub(super) fn new(now: Instant) -> Self {
        Scanner { walk: None, trees: VecDeque::new(), rescan_at: now, begun_at: now, has_walked_whole: false }
    }

    /// Makes the next walk of the whole directory due at `at` at the latest.
    pub(super) fn rescan_by(&mut self, at: Instant) {
        self.rescan_at = self.rescan_at.min(at);
    }

    /// Walks the directory `name` soon; more than [`TREES_MAX`] of them make one walk of the whole
    /// directory.
    pub(super) fn add_tree(&mut self, name: &str, now: Instant) {
        if !self.trees.iter().any(|t| t == name) {
            self.trees.push_back(name.into());
        }
        if self.trees.len() > TREES_MAX {
            self.trees.clear();
            self.rescan_by(now);
        }
    }

    /// Ends all walks, because the directory is gone or another one. `is_known_whole`: what was
    /// walked last still counts as a walk of the whole directory.
    pub(super) fn clear(&mut self, is_known_whole: bool) {
        if self.walk.as_ref().is_some_and(|walk| walk.is_whole()) {
            self.rescan_at = self.begun_at;
        }
        self.walk = None;
        self.trees.clear();
        self.has_walked_whole &= is_known_whole;
    }

    /// The walk to continue or to begin. `may_rescan`: no file waits to be hashed or recorded,
    /// which a walk of the whole directory would find once more. `below` makes a walk below a name.
    pub(super) fn take(
        &mut self,
        may_rescan: bool,
        now: Instant,
        below: impl FnOnce(&str) -> TreeWalk,
    ) -> Option<TreeWalk> {
        if let Some(walk) = self.walk.take() {
            return Some(walk);
        }
        let name = if may_rescan && now >= self.rescan_at {
            // From here on, only what happens during the walk can make another one due earlier.
            self.rescan_at = now + WAIT_MAX;
            String::new()
        } else {
            self.trees.pop_front()?
        };
        self.begun_at = now;
        Some(below(&name))
    }

    /// The walk is to be continued later.
    pub(super) fn put_back(&mut self, walk: TreeWalk) {
        self.walk = Some(walk);
    }

    /// The walk came to its end. A directory that takes long to walk is walked less often, unless
    /// another walk became due during this one: it may have passed by what happened.
    pub(super) fn end(&mut self, walk: &TreeWalk, now: Instant) {
        if walk.is_whole() {
            self.rescan_by(now + RESCAN.max(self.begun_at.elapsed() * WALK_TIME_SHARE));
            self.has_walked_whole = true;
        }
    }

    /// Whether a walk is not finished.
    pub(super) fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// Whether a tree waits and could be walked at once.
    pub(super) fn has_next_tree(&self) -> bool {
        self.walk.is_none() && !self.trees.is_empty()
    }

    /// Whether the whole directory was walked and nothing waits to be walked.
    pub(super) fn is_complete(&self) -> bool {
        self.has_walked_whole && self.walk.is_none() && self.trees.is_empty()
    }

    /// Whether [`take`](Self::take) begins a walk of the whole directory now.
    pub(super) fn begins_whole(&self, may_rescan: bool, now: Instant) -> bool {
        self.walk.is_none() && may_rescan && now >= self.rescan_at
    }

    /// When the walk that is under way, or else the last one, began.
    pub(super) fn begun_at(&self) -> Instant {
        self.begun_at
    }

    /// When the whole directory is walked again.
    pub(super) fn rescan_at(&self) -> Instant {
        self.rescan_at
    }
}

/// A walk that its owner drives entry by entry, so that other work gets its turns. It marks which
/// entries of the catalogue it found: the files of the others are gone.
pub(super) struct TreeWalk {
    walk: walkdir::IntoIter,
    base: Arc<Catalogue>,
    range: Range<usize>,
    /// One bit for each entry of that range, which is what the catalogue has below the walked
    /// directory.
    found: Vec<u64>,
    /// The bare names of the base that were found.
    found_bare: HashSet<String>,
    /// The directory of the last step, in which nothing was found so far.
    entered: Option<(PathBuf, usize)>,
    /// The last directory in which nothing was.
    empty: Option<PathBuf>,
    /// The name below which it goes; empty for the whole directory.
    below: String,
}

/// One step of a walk.
pub(super) enum WalkStep {
    /// A file, link or special file.
    Entry(walkdir::DirEntry),
    /// A directory that is entered next unless [`TreeWalk::leave`] is called.
    Dir(PathBuf),
    /// What cannot be read, and why.
    Unreadable(Option<PathBuf>, String),
    /// There is no further entry.
    End,
}

impl TreeWalk {
    /// A walk of the directory `root`, compared with `base`: of all of it when `below` is empty,
    /// else of what lies below that name.
    pub(super) fn new(root: &Path, below: &str, base: Arc<Catalogue>) -> Self {
        let start = if below.is_empty() { root.to_path_buf() } else { root.join(below) };
        let range = base.positions_below(below);
        // A start that a link has replaced is no directory to walk.
        let walk = WalkDir::new(start).follow_links(false).follow_root_links(false).into_iter();
        let found = vec![0; range.len().div_ceil(64)];
        let (below, found_bare) = (below.to_owned(), HashSet::new());
        TreeWalk { walk, base, found, range, found_bare, entered: None, empty: None, below }
    }

    /// Whether it is one of the whole directory.
    pub(super) fn is_whole(&self) -> bool {
        self.below.is_empty()
    }

    /// The name of the directory below which it goes.
    pub(super) fn below(&self) -> &str {
        &self.below
    }

    /// The next entry.
    pub(super) fn step(&mut self) -> WalkStep {
        let next = self.walk.next();
        let entered = self.entered.take();
        match &next {
            Some(Err(_)) => {}
            Some(Ok(entry)) if entered.as_ref().is_some_and(|(_, depth)| entry.depth() > *depth) => {}
            _ => self.empty = entered.map(|(dir, _)| dir),
        }
        match next {
            None => WalkStep::End,
            Some(Ok(entry)) if entry.file_type().is_dir() => {
                self.entered = Some((entry.path().to_path_buf(), entry.depth()));
                WalkStep::Dir(entry.into_path())
            }
            Some(Ok(entry)) => WalkStep::Entry(entry),
            Some(Err(e)) => {
                let cause = e.io_error().map_or_else(|| "cannot be walked".into(), ToString::to_string);
                WalkStep::Unreadable(e.path().map(Path::to_path_buf), cause)
            }
        }
    }

    /// Does not enter the directory of the last step.
    pub(super) fn leave(&mut self) {
        self.entered = None;
        self.walk.skip_current_dir();
    }

    /// A directory that the last step has left, and in which nothing was.
    pub(super) fn take_empty(&mut self) -> Option<PathBuf> {
        self.empty.take()
    }

    /// Marks the entry of that name as found. Returns it as the base has it.
    pub(super) fn mark(&mut self, path: &str) -> Option<EntryRef<'_>> {
        let at = self.base.position(path)?;
        let bit = at.checked_sub(self.range.start)?;
        *self.found.get_mut(bit / 64)? |= 1 << (bit % 64);
        self.base.entries(at..at + 1).next()
    }

    /// Marks the bare name as found, if the base has it.
    pub(super) fn mark_bare(&mut self, path: &str) {
        if self.base.bare().get(path).is_some() {
            self.found_bare.insert(path.into());
        }
    }

    /// The bare names that the walk did not find.
    pub(super) fn missed_bare(&self) -> Vec<RelPath> {
        let bare = self.base.bare();
        let range = if self.is_whole() { 0..bare.all().len() } else { bare.positions_below(&self.below) };
        let names = bare.all()[range].iter().map(|(path, _)| path);
        names.filter(|path| !self.found_bare.contains(path.as_str())).cloned().collect()
    }

    /// The entries that the walk did not find.
    pub(super) fn missed(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let below = self.base.entries(self.range.clone()).enumerate();
        below.filter(|(bit, _)| self.found[bit / 64] & (1 << (bit % 64)) == 0).map(|(_, e)| e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name below which the next walk goes, if there is one.
    fn next(scanner: &mut Scanner, may_rescan: bool, now: Instant) -> Option<String> {
        let mut name = None;
        let walk = scanner.take(may_rescan, now, |below| {
            name = Some(below.to_string());
            TreeWalk::new(Path::new("/none"), below, Arc::default())
        })?;
        scanner.end(&walk, now);
        name
    }

    #[test]
    fn a_due_rescan_comes_first_and_changed_trees_meanwhile() {
        let start = Instant::now();
        let mut scanner = Scanner::new(start);
        ["a", "b", "a"].iter().for_each(|tree| scanner.add_tree(tree, start));
        assert_eq!(next(&mut scanner, false, start).as_deref(), Some("a"), "while files wait to be hashed");
        assert!(!scanner.is_complete());
        assert_eq!(next(&mut scanner, true, start).as_deref(), Some(""));
        assert_eq!(next(&mut scanner, true, start).as_deref(), Some("b"));
        assert!(scanner.is_complete() && next(&mut scanner, true, start).is_none());
        assert_eq!(scanner.rescan_at(), start + RESCAN);
        scanner.rescan_by(start + RESCAN / 2);
        scanner.rescan_by(start + RESCAN * 2);
        assert_eq!(next(&mut scanner, true, start + RESCAN / 2).as_deref(), Some(""));
    }

    #[test]
    fn too_many_changed_trees_are_walked_together() {
        let start = Instant::now();
        let mut scanner = Scanner::new(start);
        assert_eq!(next(&mut scanner, true, start).as_deref(), Some(""));
        (0..=TREES_MAX).for_each(|i| scanner.add_tree(&i.to_string(), start));
        assert_eq!(next(&mut scanner, true, start).as_deref(), Some(""));
        assert!(next(&mut scanner, true, start).is_none());
    }

    /// Hints that were lost during a walk, in parts that it had passed, were not made up for before the next regular
    /// walk a minute later: its end forgot that another one was due.
    #[test]
    fn what_becomes_due_during_a_walk_is_walked_after_it() {
        let start = Instant::now();
        let mut scanner = Scanner::new(start);
        let below = |below: &str| TreeWalk::new(Path::new("/none"), below, Arc::default());
        let walk = scanner.take(true, start, below).unwrap();
        scanner.rescan_by(start);
        scanner.end(&walk, start);
        assert_eq!(next(&mut scanner, true, start).as_deref(), Some(""), "a second walk");
        assert!(next(&mut scanner, true, start).is_none(), "and no third one");
        // A walk that is broken off starts again.
        let walk = scanner.take(true, start + RESCAN, below).unwrap();
        scanner.put_back(walk);
        scanner.clear(false);
        assert_eq!(next(&mut scanner, true, start + RESCAN).as_deref(), Some(""));
    }

    #[test]
    fn a_walk_is_continued_before_another_begins() {
        let start = Instant::now();
        let mut scanner = Scanner::new(start);
        let below = |below: &str| TreeWalk::new(Path::new("/none"), below, Arc::default());
        let walk = scanner.take(true, start, below).unwrap();
        scanner.put_back(walk);
        scanner.add_tree("a", start);
        assert!(scanner.is_walking() && !scanner.has_next_tree());
        assert!(scanner.take(true, start, below).unwrap().is_whole());
        assert!(scanner.has_next_tree());
        scanner.clear(true);
        assert!(!scanner.has_next_tree());
    }
}
