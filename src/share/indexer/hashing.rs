//! From files to hash to entries of the draft.

use std::time::Instant;

use super::Indexer;
use crate::content::{Entry, RelPath};
use crate::share::hash_job::{HashJob, HashOutcome};
use crate::share::inspector::{FileState, Inspection};
use crate::share::publish_error::PublishError;

impl Indexer {
    pub(super) fn hash(&mut self, name: &RelPath, state: FileState) {
        if !self.withdrawn.contains(name, state) {
            self.hasher.queue(HashJob { path: name.clone(), len: state.len, stamp: state.stamp, marks: state.marks });
        }
    }

    /// As [`hash`](Self::hash), before all files that wait.
    pub(super) fn hash_first(&mut self, name: &RelPath, state: FileState) {
        self.hasher.queue_first(HashJob { path: name.clone(), len: state.len, stamp: state.stamp, marks: state.marks });
    }

    pub(super) fn take_outcome(&mut self, outcome: HashOutcome) {
        let now = Instant::now();
        match outcome {
            HashOutcome::Hashed(file) => {
                let is_awaited = self.callers.wait_for(&file.path);
                if self.recorder.add(file, now) || is_awaited {
                    self.record(now);
                }
            }
            HashOutcome::Changed(name) => self.postpone(&name, now),
            HashOutcome::Unreadable(name, e) => {
                let path = self.inspector.path_of(name.as_str());
                self.inspector.skip(&path, &e.to_string());
                self.draft.whole.hide(name.as_str(), now);
                self.callers.not_shared(&name, &e.to_string());
            }
        }
    }

    /// Waits until a file is quiet that changed while it was hashed.
    pub(super) fn postpone(&mut self, name: &RelPath, now: Instant) {
        let path = self.inspector.path_of(name.as_str());
        match self.inspector.inspect(&path) {
            Inspection::File { state, .. } if self.draft.get(name).is_some_and(|e| state.is_of(e)) => {}
            // What was hashed may be an earlier state than the published one.
            Inspection::File { state, .. } if self.callers.may_retry(name) => {
                self.draft.drop(name);
                self.hash_first(name, state);
            }
            Inspection::File { state, .. } => {
                self.callers.fail(name, &PublishError::Changed(name.clone()));
                self.draft.drop(name);
                self.debounce.see(name, state, now);
            }
            found => {
                self.callers.fail(name, &PublishError::Changed(name.clone()));
                self.apply(name, &path, found, now);
            }
        }
    }

    /// Records what was hashed and offers what is still there.
    pub(super) fn record(&mut self, now: Instant) {
        if !self.recorder.has_hashed() {
            return;
        }
        self.refresh_own_files(now);
        let (recorded, lost) = self.recorder.record(now);
        for name in &lost {
            self.draft.whole.hide(name.as_str(), now);
            self.callers.not_shared(name, "the index cannot be written");
        }
        // Where every change is reported and none was, a file is as it was when it had been hashed.
        let is_untouched = self.dir.is_watched() && !self.recorder.is_disturbed();
        for entry in recorded {
            let path = self.inspector.path_of(entry.path.as_str());
            if self
                .withdrawn
                .contains(&entry.path, FileState { len: entry.id.len, stamp: entry.stamp, marks: entry.marks })
            {
                self.recorder.forget(&entry.path);
                self.take_out(&entry.path);
            } else if is_untouched
                || matches!(self.inspector.inspect(&path), Inspection::File { state, .. } if state.is_of(entry.view()))
            {
                let marks = self.marked(&entry.path, &entry.id, entry.marks, now);
                self.draft.put(Entry { marks, ..entry });
            } else {
                self.postpone(&entry.path, now);
            }
        }
    }
}
