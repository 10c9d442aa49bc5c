//! The walks of the indexing thread: each inspects all that lies in a directory.

use std::time::Instant;

use super::Indexer;
use crate::content::EntryRef;
use crate::share::inspector::Inspection;
use crate::share::limits::SCAN_TURN;
use crate::share::scanner::{TreeWalk, WalkStep};

impl Indexer {
    /// Walks for at most [`SCAN_TURN`], or until enough files wait to be hashed.
    pub(super) fn continue_walk(&mut self, now: Instant) {
        if !self.dir.is_there() || self.hasher.is_full() {
            return;
        }
        let may_rescan = self.hasher.pending() == 0 && !self.recorder.has_hashed();
        if self.scanner.begins_whole(may_rescan, now) {
            self.inspector.unnamed().begin_walk();
            if self.dir.may_watch_again(now) {
                self.dir.begin_watch(self.inspector.root(), self.inspector.own_names());
            }
        }
        let (root, published) = (self.inspector.root(), self.draft.published());
        let begin = |below: &str| TreeWalk::new(root, below, published.clone());
        let Some(mut walk) = self.scanner.take(may_rescan, now, begin) else { return };
        self.recorder.begin_lookup();
        for step in 1u32.. {
            let next = walk.step();
            if let Some(dir) = walk.take_empty() {
                self.note_walked_empty(&mut walk, &dir, now);
            }
            match next {
                WalkStep::Entry(entry) => self.inspect_entry(&mut walk, &entry, now),
                WalkStep::Dir(path) if self.inspector.may_enter(&path) => {
                    if let Some(name) = self.inspector.name(&path) {
                        self.draft.whole.dir(&name, now);
                    }
                    self.dir.watch(self.inspector.root(), &path);
                }
                WalkStep::Dir(_) => walk.leave(),
                WalkStep::Unreadable(path, cause) => {
                    let path = path.unwrap_or_else(|| self.inspector.root().to_path_buf());
                    self.inspector.skip(&path, &cause);
                    let name = self.inspector.name(&path).unwrap_or_default();
                    self.draft.whole.hide(&name, Instant::now());
                }
                WalkStep::End => {
                    self.inspect_missed(&walk, now);
                    self.scanner.end(&walk, now);
                    self.draft.whole.walked(walk.below(), self.scanner.begun_at());
                    if walk.is_whole() {
                        self.inspector.unnamed().end_walk();
                        self.dir.walked(self.inspector.root());
                    }
                    break;
                }
            }
            // Reading the clock costs about as much as a step.
            if step.is_multiple_of(64) && (now.elapsed() >= SCAN_TURN || self.hasher.is_full()) {
                self.scanner.put_back(walk);
                break;
            }
        }
        self.recorder.end_lookup();
    }

    fn inspect_entry(&mut self, walk: &mut TreeWalk, entry: &walkdir::DirEntry, now: Instant) {
        let path = entry.path();
        let Some(name) = self.inspector.name(path) else { return };
        let found = match entry.metadata() {
            Ok(meta) => self.inspector.inspect_known(path, &meta),
            Err(_) => self.inspector.inspect(path),
        };
        walk.mark_bare(&name);
        // The common case first, without a copy of the name: nothing has changed.
        if let Some(entry) = walk.mark(&name)
            && matches!(found, Inspection::File { state, is_linked: false, .. } if state.is_of(entry))
            && self.draft.is_published()
        {
            return;
        }
        if let Some(name) = self.inspector.valid(&name, path) {
            self.apply(&name, path, found, now);
        }
    }

    fn inspect_missed(&mut self, walk: &TreeWalk, now: Instant) {
        for entry in walk.missed().map(EntryRef::to_entry) {
            let path = self.inspector.path_of(entry.path.as_str());
            // The walk has logged what hides the file, such as a directory that cannot be read.
            let found = match self.inspector.inspect(&path) {
                Inspection::Skip(_) => Inspection::Nothing,
                found => found,
            };
            self.apply(&entry.path, &path, found, now);
        }
        self.inspect_missed_bare(walk, now);
    }
}
