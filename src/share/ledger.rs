//! The catalogue between two snapshots: what changed and is not published yet.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::content::{Catalogue, Entry, EntryRef, RelPath};
use crate::limits::CATALOGUE_ENTRIES_MAX;
use crate::runtime::{Events, Watch};
use crate::share::limits::{PUBLISH_CHANGES_MAX, PUBLISH_MIN, PUBLISH_SHARE_MAX};
use crate::swarm::Event;

/// Owns what is published. A snapshot takes time in proportion to the catalogue, so while much is happening they are
/// made so seldom that they take a small part of the time.
pub(super) struct Ledger {
    published: Arc<Catalogue>,
    latest: Arc<Watch<Arc<Catalogue>>>,
    events: Events,
    changes: BTreeMap<RelPath, Option<Entry>>,
    /// Entries there would be if it were published now.
    count: usize,
    /// Whether something that was offered is not true any more.
    urgent: bool,
    /// Whether the last snapshot was said to be complete.
    complete: bool,
    published_at: Instant,
    cost: Duration,
}

impl Ledger {
    pub(super) fn new(latest: Arc<Watch<Arc<Catalogue>>>, events: Events, now: Instant) -> Self {
        Ledger {
            published: latest.get(),
            count: latest.get().len(),
            latest,
            events,
            changes: BTreeMap::new(),
            urgent: false,
            complete: false,
            published_at: now,
            cost: Duration::ZERO,
        }
    }

    /// The last snapshot.
    pub(super) fn published(&self) -> &Arc<Catalogue> {
        &self.published
    }

    /// What is offered at `path`, changes that are not published included.
    pub(super) fn get(&self, path: &RelPath) -> Option<EntryRef<'_>> {
        match self.changes.get(path) {
            Some(changed) => changed.as_ref().map(Entry::view),
            None => self.published.get(path.as_str()),
        }
    }

    /// Whether nothing has changed since the last snapshot.
    pub(super) fn is_settled(&self) -> bool {
        self.changes.is_empty()
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

    /// Offers nothing at `path` any more.
    pub(super) fn drop(&mut self, path: &RelPath) {
        if self.get(path).is_none() {
            return;
        }
        self.count -= 1;
        self.urgent = true;
        if self.published.get(path.as_str()).is_some() {
            self.changes.insert(path.clone(), None);
        } else {
            self.changes.remove(path);
        }
    }

    /// The names of what is offered below the directory `dir`, of everything when it is empty.
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

    /// The names of what is offered with one of these inode numbers.
    pub(super) fn with_inodes(&self, inodes: &HashSet<u64>) -> Vec<RelPath> {
        let fresh = self.changes.values().flatten().filter(|e| inodes.contains(&e.stamp.inode)).map(|e| e.path.clone());
        let known = self.published.iter().filter(|e| inodes.contains(&e.stamp.inode)).map(|e| e.to_entry().path);
        known.filter(|path| !self.changes.contains_key(path)).chain(fresh).collect()
    }

    /// When the next snapshot is due, if anything is to be told. `busy`: more is about to change.
    pub(super) fn due(&self, busy: bool, complete: bool) -> Option<Instant> {
        let news = !self.changes.is_empty() || complete != self.complete;
        // Changes take more memory than entries.
        if self.changes.len() >= PUBLISH_CHANGES_MAX.max(self.published.len() / PUBLISH_SHARE_MAX) {
            return Some(self.published_at);
        }
        news.then(|| match (busy, self.urgent) {
            (true, false) => self.published_at + PUBLISH_MIN.max(self.cost * 20),
            (true, true) => self.published_at + self.cost * 4,
            (false, _) => self.published_at + self.cost * 4,
        })
    }

    /// Makes a snapshot and tells it.
    pub(super) fn publish(&mut self, complete: bool) {
        let begun = Instant::now();
        if !self.changes.is_empty() || self.published.revision() == 0 {
            let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
            // Beginning at the clock, no revision is used twice even if nothing is remembered of an earlier run.
            let revision = unix_ms.max(self.published.revision() + 1);
            let next = self.published.changed(revision, &self.changes);
            self.latest.publish(next);
            self.published = self.latest.get();
            self.changes = BTreeMap::new();
        }
        self.urgent = false;
        self.complete = complete;
        self.published_at = Instant::now();
        self.cost = self.published_at - begun;
        let (revision, files, bytes) = (self.published.revision(), self.published.len() as u64, self.published.bytes());
        log::debug!("catalogue revision={revision} files={files} bytes={bytes} complete={complete}");
        self.events.emit(Event::CatalogueChanged { revision, files, bytes, complete });
    }
}
