//! What may have changed in the directory, collected until it is inspected.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::content::RelPath;
use crate::share::limits::{LINKS_FOLLOWED_MAX, RECHECK_MIN, RECHECKS_MAX, WATCH_DEBOUNCE, WATCH_EVENTS_MAX};
use crate::share::watch::PathChange;

/// Changed paths without their history. A hint only says where to look, so lost, doubled and
/// reordered hints do no harm. Pure: time is an argument.
#[derive(Debug, Default)]
pub(super) struct ChangeHints {
    /// Whether all that lies below the path may have changed as well.
    changed: HashMap<PathBuf, bool>,
    due_at: Option<Instant>,
    /// When each path was last looked at because a request found it changed.
    rechecked: HashMap<RelPath, Instant>,
    /// Symlinks to files inside the directory. Any hint may be about the target of a link.
    links: HashSet<RelPath>,
    /// Inodes with several names of which one changed: that is no hint for the others.
    inodes: HashSet<u64>,
}

impl ChangeHints {
    /// Adds hints, which are due together [`WATCH_DEBOUNCE`] after the first of them. False if
    /// there are too many to keep: all are dropped, and only a scan of the whole directory finds
    /// what changed.
    pub(super) fn add(&mut self, changes: impl Iterator<Item = PathChange>, now: Instant) -> bool {
        for change in changes.take(WATCH_EVENTS_MAX) {
            *self.changed.entry(change.path).or_default() |= change.tree;
        }
        self.due_at.get_or_insert(now + WATCH_DEBOUNCE);
        let fits = self.changed.len() <= WATCH_EVENTS_MAX;
        if !fits {
            self.changed.clear();
        }
        fits
    }

    /// When [`take_due`](ChangeHints::take_due) has something.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether a hint of `path` waits.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.changed.contains_key(path)
    }

    /// Whether `path` may be looked into because a request found it changed: once in
    /// [`RECHECK_MIN`].
    pub(super) fn may_recheck(&mut self, path: &RelPath, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < RECHECK_MIN;
        if self.rechecked.len() >= RECHECKS_MAX {
            self.rechecked.retain(|_, at| is_recent(at));
        }
        let may = self.rechecked.len() < RECHECKS_MAX && !self.rechecked.get(path).is_some_and(is_recent);
        if may {
            self.rechecked.insert(path.clone(), now);
        }
        may
    }

    /// The hints that are due, and all links that are followed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(HashMap<PathBuf, bool>, Vec<RelPath>)> {
        self.due_at.take_if(|at| now >= *at)?;
        Some((std::mem::take(&mut self.changed), self.links.iter().cloned().collect()))
    }

    /// Follows the symlink `link`, unless [`LINKS_FOLLOWED_MAX`] are followed already.
    pub(super) fn follow(&mut self, link: &RelPath) {
        if self.links.len() < LINKS_FOLLOWED_MAX {
            self.links.insert(link.clone());
        }
    }

    /// The path is no symlink that can be followed.
    pub(super) fn unfollow(&mut self, path: &RelPath) {
        self.links.remove(path);
    }

    /// A name of the inode changed. Beyond [`LINKS_FOLLOWED_MAX`] of them, a walk finds the others.
    pub(super) fn add_inode(&mut self, inode: u64) {
        if self.inodes.len() < LINKS_FOLLOWED_MAX {
            self.inodes.insert(inode);
        }
    }

    /// The inodes that were added since the last call.
    pub(super) fn take_inodes(&mut self) -> HashSet<u64> {
        std::mem::take(&mut self.inodes)
    }

    /// Forgets all links, because the directory is gone or another one.
    pub(super) fn clear_links(&mut self) {
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, tree: bool) -> PathChange {
        PathChange { path: path.into(), tree }
    }

    #[test]
    fn hints_of_one_path_are_one_and_due_together() {
        let (start, mut hints) = (Instant::now(), ChangeHints::default());
        assert!(hints.due_at().is_none() && hints.take_due(start).is_none());
        assert!(hints.add([change("/a", false), change("/b", false)].into_iter(), start));
        assert!(hints.add([change("/a", true), change("/a", false)].into_iter(), start + WATCH_DEBOUNCE / 2));
        assert!(hints.take_due(start + WATCH_DEBOUNCE / 2).is_none());
        hints.follow(&RelPath::new("link").unwrap());
        let (changed, links) = hints.take_due(start + WATCH_DEBOUNCE).unwrap();
        assert_eq!(changed, HashMap::from([("/a".into(), true), ("/b".into(), false)]));
        assert_eq!(links, [RelPath::new("link").unwrap()]);
        assert!(hints.take_due(start + WATCH_DEBOUNCE * 9).is_none(), "each hint is taken once");
        hints.unfollow(&links[0]);
        hints.add([change("/c", false)].into_iter(), start);
        assert!(hints.take_due(start + WATCH_DEBOUNCE).unwrap().1.is_empty());
    }

    /// Peers choose what they ask for: without a limit, one that asks for a file that is being written would have it
    /// hashed without end.
    #[test]
    fn requests_have_a_path_looked_into_at_a_bounded_rate() {
        let (start, mut hints) = (Instant::now(), ChangeHints::default());
        let path = |i: usize| RelPath::new(&i.to_string()).unwrap();
        assert!(hints.may_recheck(&path(0), start) && hints.may_recheck(&path(1), start));
        assert!(!hints.may_recheck(&path(0), start + RECHECK_MIN / 2));
        assert!(hints.may_recheck(&path(0), start + RECHECK_MIN));
        let now = start + 3 * RECHECK_MIN;
        let all = (0..2 * RECHECKS_MAX).filter(|i| hints.may_recheck(&path(*i), now)).count();
        assert!((RECHECKS_MAX - 2..=RECHECKS_MAX).contains(&all), "{all}");
        assert!(hints.may_recheck(&path(1), now + RECHECK_MIN) && hints.rechecked.len() == 1);
    }

    #[test]
    fn too_many_hints_are_dropped() {
        let (start, mut hints) = (Instant::now(), ChangeHints::default());
        let many = |from: usize| (from..from + WATCH_EVENTS_MAX).map(|i| change(&i.to_string(), false));
        assert!(hints.add(many(0), start));
        assert!(!hints.add(many(1), start));
        assert!(hints.take_due(start + WATCH_DEBOUNCE).unwrap().0.is_empty());
    }

    #[test]
    fn the_number_of_followed_links_is_bounded() {
        let (start, mut hints) = (Instant::now(), ChangeHints::default());
        (0..=LINKS_FOLLOWED_MAX).for_each(|i| hints.follow(&RelPath::new(&i.to_string()).unwrap()));
        hints.add([change("/a", false)].into_iter(), start);
        assert_eq!(hints.take_due(start + WATCH_DEBOUNCE).unwrap().1.len(), LINKS_FOLLOWED_MAX);
    }
}
