//! Files that the program says are finished, or no longer to be offered.

use std::time::Instant;

use crossbeam::channel::Sender;

use super::Indexer;
use crate::content::RelPath;
use crate::share::inspector::Inspection;
use crate::share::publish_error::PublishError;
use crate::share::setup::PublishAnswer;

impl Indexer {
    /// Hashes `name` before all that waits, however short ago it was written, and has it published
    /// with the next snapshot. A file that was withdrawn or forgotten is offered again.
    pub(super) fn publish(&mut self, name: &RelPath, answer: PublishAnswer) {
        let now = Instant::now();
        self.refresh_own_files(now);
        let path = self.inspector.path_of(name.as_str());
        let not_shared = |cause: &str| PublishError::NotShared { path: name.clone(), cause: cause.into() };
        let refused = match self.inspector.inspect(&path) {
            Inspection::File { owner_only: true, .. } if self.inspector.is_private_key(name) => {
                not_shared("a private key that only its owner may read")
            }
            Inspection::File { .. } if self.draft.get(name).is_none() && !self.draft.has_room() => {
                not_shared("the catalogue is full")
            }
            Inspection::File { state, is_linked, .. } => {
                if is_linked {
                    self.hints.follow(name);
                }
                self.withdrawn.forget(name);
                self.callers.publish(name, answer);
                if self.draft.get(name).is_some_and(|e| state.is_of(e)) {
                    return self.answer_callers();
                }
                self.draft.drop(name);
                self.debounce.forget(name);
                return self.hash_first(name, state);
            }
            Inspection::Nothing => PublishError::NotFound(name.clone()),
            Inspection::Dir | Inspection::DirLink(_) => not_shared("a directory"),
            Inspection::Own => not_shared("a file of the node itself"),
            Inspection::Skip(cause) => not_shared(&cause),
        };
        let _ = answer.try_send(Err(refused));
    }

    /// Looks at `names`, which a fetch of this node has just put in place or which have just expired:
    /// nothing is waited for.
    pub(super) fn look(&mut self, names: &[RelPath]) {
        let now = Instant::now();
        self.refresh_own_files(now);
        self.recorder.expect_copies();
        for name in names {
            let path = self.inspector.path_of(name.as_str());
            match self.inspector.inspect(&path) {
                Inspection::File { state, .. } if self.draft.get(name).is_some_and(|e| state.is_of(e)) => {}
                Inspection::File { state, owner_only: false, link: None, .. } if self.draft.has_room() => {
                    self.withdrawn.forget(name);
                    self.draft.drop(name);
                    self.debounce.forget(name);
                    self.hash_first(name, state);
                }
                // A fetch makes empty directories, too.
                Inspection::Dir => self.inspect_name(name.as_str(), true, now),
                found => self.apply(name, &path, found, now),
            }
        }
    }

    /// Offers `name` no longer until it changes or is published. The answer is whether it was
    /// offered, once no snapshot still has it.
    pub(super) fn forget(&mut self, name: &RelPath, answer: Sender<bool>) {
        let path = self.inspector.path_of(name.as_str());
        if let Inspection::File { state, .. } = self.inspector.inspect(&path) {
            self.withdrawn.set(name, state);
        }
        self.debounce.forget(name);
        let is_offered = self.draft.get(name).is_some();
        self.take_out(name);
        if !is_offered {
            let _ = answer.try_send(false);
            return;
        }
        self.callers.forget(answer);
        self.answer_callers();
    }

    /// Whether nothing is left to be looked at or hashed, and nothing that is there was withdrawn.
    pub(super) fn is_settled(&self) -> bool {
        let has_hints = self.hints.due_at().is_some() || !self.dir.changes().is_empty();
        self.dir.is_there() && !has_hints && self.debounce.is_empty() && self.withdrawn.is_empty()
    }

    /// Answers what is waited for and published already.
    pub(super) fn answer_callers(&mut self) {
        if self.draft.is_published() && self.callers.is_waiting() {
            let offered = self.draft.published();
            self.callers.published(|path| offered.get(path.as_str()).map(|entry| entry.id));
        }
    }
}
