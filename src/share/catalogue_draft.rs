//! The catalogue between two snapshots: changes that are not published yet.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::content::{Bare, Catalogue, CatalogueNotes, Entry, EntryRef, RelPath};
use crate::limits::CATALOGUE_ENTRIES_MAX;
use crate::runtime::{EventSender, Watch};
use crate::share::limits::{
    PUBLISH_CHANGES_MAX, PUBLISH_MIN, PUBLISH_SHARE_MAX, PUBLISH_TIME_SHARE, PUBLISH_TIME_SHARE_BUSY,
};
use crate::share::wholeness::Wholeness;
use crate::store::Reader;
use crate::swarm::Event;

/// Owns what is published. A snapshot takes time in proportion to the catalogue, so the time
/// between two of them grows with it.
pub(super) struct CatalogueDraft {
    published: Arc<Catalogue>,
    latest: Arc<Watch<Arc<Catalogue>>>,
    reader: Arc<Reader>,
    events: EventSender,
    /// Entries to put, and paths to drop, at the next snapshot.
    changes: BTreeMap<RelPath, Option<Entry>>,
    /// The same for bare names.
    bare_changes: BTreeMap<RelPath, Option<Bare>>,
    /// Number of entries and bare names after the next snapshot.
    count: usize,
    /// Whether an entry of the last snapshot is no longer true.
    is_urgent: bool,
    /// Whether the last snapshot was reported as complete.
    is_complete: bool,
    /// What the directory has and the draft does not.
    pub(super) whole: Wholeness,
    published_at: Instant,
    /// How long the last snapshot took.
    cost: Duration,
}

impl CatalogueDraft {
    /// Begins with what `latest` has.
    pub(super) fn new(
        latest: Arc<Watch<Arc<Catalogue>>>,
        reader: Arc<Reader>,
        events: EventSender,
        now: Instant,
    ) -> Self {
        let published = latest.get();
        CatalogueDraft {
            count: published.len() + published.bare().all().len(),
            published,
            latest,
            reader,
            events,
            changes: BTreeMap::new(),
            bare_changes: BTreeMap::new(),
            is_urgent: false,
            is_complete: false,
            whole: Wholeness::default(),
            published_at: now,
            cost: Duration::ZERO,
        }
    }

    /// The last snapshot.
    pub(super) fn published(&self) -> &Arc<Catalogue> {
        &self.published
    }

    /// What the next snapshot offers at `path`.
    pub(super) fn get(&self, path: &RelPath) -> Option<EntryRef<'_>> {
        match self.changes.get(path) {
            Some(changed) => changed.as_ref().map(Entry::view),
            None => self.published.get(path.as_str()),
        }
    }

    /// Whether nothing has changed since the last snapshot.
    pub(super) fn is_published(&self) -> bool {
        self.changes.is_empty() && self.bare_changes.is_empty()
    }

    /// Whether there is room for another file.
    pub(super) fn has_room(&self) -> bool {
        self.count < CATALOGUE_ENTRIES_MAX
    }

    /// Offers a file.
    pub(super) fn put(&mut self, entry: Entry) {
        if self.get(&entry.path).is_none() {
            self.count += 1;
        }
        self.changes.insert(entry.path.clone(), Some(entry));
    }

    /// The bare name that the next snapshot has at `path`.
    pub(super) fn bare(&self, path: &RelPath) -> Option<&Bare> {
        match self.bare_changes.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.published.bare().get(path.as_str()),
        }
    }

    /// Makes `path` this bare name, or none. One for which there is no room is left out.
    pub(super) fn set_bare(&mut self, path: &RelPath, bare: Option<Bare>) {
        let before = self.bare(path);
        if before == bare.as_ref() {
            return;
        }
        match (before.is_some(), bare.is_some()) {
            (false, true) if !self.has_room() => return,
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => {}
        }
        self.bare_changes.insert(path.clone(), bare);
    }

    /// The bare names below the directory `dir`; all of them when it is empty.
    pub(super) fn bare_below(&self, dir: &str) -> Vec<RelPath> {
        let is_below = |path: &&RelPath| dir.is_empty() || path.is_below(dir);
        let published = self.published.bare();
        let range = if dir.is_empty() { 0..published.all().len() } else { published.positions_below(dir) };
        let known = published.all()[range].iter().map(|(path, _)| path);
        let fresh = self.bare_changes.iter().filter(|(_, bare)| bare.is_some()).map(|(path, _)| path);
        let fresh = fresh.filter(is_below).filter(|path| published.get(path.as_str()).is_none());
        known.filter(|path| self.bare(path).is_some()).chain(fresh).cloned().collect()
    }

    /// Offers nothing at `path`.
    pub(super) fn drop(&mut self, path: &RelPath) {
        if self.get(path).is_none() {
            return;
        }
        self.count -= 1;
        self.is_urgent = true;
        if self.published.get(path.as_str()).is_some() {
            self.changes.insert(path.clone(), None);
        } else {
            self.changes.remove(path);
        }
    }

    /// The names that are offered below the directory `dir`; all names when it is empty.
    pub(super) fn below(&self, dir: &str) -> Vec<RelPath> {
        let range = self.published.positions_below(dir);
        let known = self.published.entries(range).map(|e| e.to_entry().path);
        let from = RelPath::new(dir).map_or(Bound::Unbounded, Bound::Included);
        let fresh = self.changes.range((from, Bound::Unbounded)).map(|(path, _)| path);
        // Names like `dir-x` lie between `dir` and `dir/x`.
        let fresh = fresh.take_while(|p| p.as_str().starts_with(dir)).filter(|p| dir.is_empty() || p.is_below(dir));
        let fresh = fresh.filter(|p| self.published.get(p.as_str()).is_none()).cloned();
        known.chain(fresh).filter(|p| self.get(p).is_some()).collect()
    }

    /// The names that are offered with one of these inode numbers.
    pub(super) fn with_inodes(&self, inodes: &HashSet<u64>) -> Vec<RelPath> {
        let fresh = self.changes.values().flatten().filter(|e| inodes.contains(&e.stamp.inode)).map(|e| e.path.clone());
        let known = self.published.iter().filter(|e| inodes.contains(&e.stamp.inode)).map(|e| e.to_entry().path);
        known.filter(|path| !self.changes.contains_key(path)).chain(fresh).collect()
    }

    /// When the next snapshot is due, if there is something to publish. `is_busy`: more is about to
    /// change.
    ///
    /// A snapshot that removes what is no longer true comes as soon as its cost allows. One that
    /// only adds files waits longer while more are being hashed.
    pub(super) fn due(&self, is_busy: bool, is_complete: bool, unnamed: u64) -> Option<Instant> {
        // Changes take more memory than entries.
        if self.changes.len() + self.bare_changes.len()
            >= PUBLISH_CHANGES_MAX.max(self.published.len() / PUBLISH_SHARE_MAX)
        {
            return Some(self.published_at);
        }
        let notes = self.published.notes();
        let is_noted = (unnamed == notes.unnamed || is_busy) && (notes.complete || !self.whole.is_whole());
        if self.is_published() && is_complete == self.is_complete && is_noted {
            return None;
        }
        let only_adds = is_busy && !self.is_urgent;
        let pause = if only_adds {
            PUBLISH_MIN.max(self.cost * PUBLISH_TIME_SHARE_BUSY)
        } else {
            self.cost * PUBLISH_TIME_SHARE
        };
        Some(self.published_at + pause)
    }

    /// Makes a snapshot, publishes and reports it. `unnamed`: files whose names cannot be shared.
    pub(super) fn publish(&mut self, is_complete: bool, unnamed: u64) {
        let begun = Instant::now();
        self.whole.look_at_mounts();
        let notes = CatalogueNotes { complete: self.whole.is_whole(), unnamed };
        let has_changed = !self.is_published() || unnamed != self.published.notes().unnamed;
        let is_news = has_changed || is_complete != self.is_complete;
        if has_changed || self.published.revision() == 0 {
            let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
            // Revisions begin at the clock, so none is used twice although none is remembered from
            // run to run.
            let revision = unix_ms.max(self.published.revision() + 1);
            let mut next = self.published.changed(revision, &self.changes);
            if !self.bare_changes.is_empty() {
                let bare = next.bare().changed(&self.bare_changes);
                next = next.with_bare(Arc::new(bare));
            }
            self.latest.publish(next.with_notes(notes));
            self.published = self.latest.get();
            (self.changes, self.bare_changes) = Default::default();
        } else if notes.complete && !self.published.notes().complete {
            // The list as it was turned out to be complete. That something waits now does not make it
            // less so: a change is published with a note of its own.
            self.latest.publish(Catalogue::clone(&self.published).with_notes(notes));
            self.published = self.latest.get();
        }
        self.is_urgent = false;
        self.is_complete = is_complete;
        self.published_at = Instant::now();
        self.cost = self.published_at - begun;
        let (revision, files, bytes) = (self.published.revision(), self.published.len() as u64, self.published.bytes());
        log::debug!("catalogue published revision={revision} files={files} bytes={bytes} complete={is_complete}");
        if is_news {
            self.events.emit(Event::CatalogueChanged { revision, files, bytes, complete: is_complete });
        }
        // An open file keeps its space on disk although it was removed.
        self.reader.close_stale();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{FileId, Marks, Root, Stamp};

    fn draft(tmp: &tempfile::TempDir, now: Instant) -> CatalogueDraft {
        let latest = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        CatalogueDraft::new(latest, Arc::new(Reader::open(tmp.path()).unwrap()), EventSender::channel().0, now)
    }

    fn entry(path: &str) -> Entry {
        let id = FileId { root: Root(crate::content::Digest([path.len() as u8; 32])), len: 1 };
        let stamp = Stamp { inode: path.len() as u64, ..Stamp::default() };
        Entry { path: RelPath::new(path).unwrap(), id, stamp, marks: Marks::default() }
    }

    #[test]
    fn what_is_no_longer_true_is_published_sooner_than_what_is_new() {
        let (tmp, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut draft = draft(&tmp, start);
        assert!(draft.due(true, false, 0).is_none());
        assert!(draft.due(false, true, 0).is_some(), "that it is complete is news");
        assert!(draft.due(false, false, 2).is_some(), "so is what is left out");
        draft.put(entry("a"));
        assert_eq!(draft.due(true, false, 0), Some(start + PUBLISH_MIN));
        assert_eq!(draft.due(false, false, 0), Some(start));
        draft.publish(false, 0);
        let cost = Duration::from_millis(100);
        draft.cost = cost;
        draft.put(entry("b"));
        assert_eq!(draft.due(true, false, 0), Some(draft.published_at + cost * PUBLISH_TIME_SHARE_BUSY));
        draft.drop(&entry("a").path);
        assert_eq!(draft.due(true, false, 0), Some(draft.published_at + cost * PUBLISH_TIME_SHARE));
    }

    #[test]
    fn entries_are_found_by_inode_published_or_not() {
        let tmp = tempfile::tempdir().unwrap();
        let mut draft = draft(&tmp, Instant::now());
        ["a", "bb", "ccc"].iter().for_each(|path| draft.put(entry(path)));
        draft.publish(true, 0);
        draft.put(entry("dd"));
        draft.drop(&entry("ccc").path);
        let found = |inodes: &[u64]| {
            let mut names: Vec<_> =
                draft.with_inodes(&inodes.iter().copied().collect()).iter().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(found(&[2, 3]), ["bb", "dd"]);
        assert_eq!(found(&[1]), ["a"]);
        assert!(found(&[7]).is_empty());
    }

    #[test]
    fn bare_names_are_published_with_the_files_and_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let mut draft = draft(&tmp, Instant::now());
        let name = |path: &str| RelPath::new(path).unwrap();
        let dir = || Some(Bare::EmptyDir { mtime_ns: 4, copy: false });
        draft.put(entry("a"));
        draft.set_bare(&name("d"), dir());
        draft.publish(true, 0);
        let revision = draft.published().revision();
        draft.set_bare(&name("d"), dir());
        assert!(draft.is_published(), "nothing has changed");
        draft.set_bare(&name("d"), None);
        draft.set_bare(&name("d/e"), dir());
        assert_eq!((draft.bare_below("d"), draft.bare_below("").len()), (vec![name("d/e")], 1));
        assert!(draft.due(false, true, 0).is_some());
        draft.publish(true, 0);
        let published = draft.published();
        assert!(published.revision() > revision && published.len() == 1);
        assert_eq!((published.bare().get("d"), published.bare().get("d/e").cloned()), (None, dir()));
        assert_eq!((draft.count, draft.bare_below("x").len()), (2, 0));
    }
}
