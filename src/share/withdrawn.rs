//! Files whose bytes are not the hashed ones although their size and times did not change.

use std::collections::HashMap;

use crate::content::{Entry, Marks, RelPath};
use crate::runtime::EventSender;
use crate::share::inspector::FileState;
use crate::share::limits::WITHDRAWN_MAX;
use crate::swarm::Event;

/// Remembers withdrawn files, each in the state in which it must not be offered again: the same
/// name and times with other bytes would give one name two contents.
pub(super) struct Withdrawn {
    files: HashMap<RelPath, FileState>,
    /// Files that cannot be opened, in the state in which they could not.
    unreadable: HashMap<RelPath, FileState>,
    events: EventSender,
}

impl Withdrawn {
    pub(super) fn new(events: EventSender) -> Self {
        Withdrawn { files: HashMap::new(), unreadable: HashMap::new(), events }
    }

    /// Remembers and reports the withdrawal of `entry`. Beyond [`WITHDRAWN_MAX`] files it is only
    /// reported.
    pub(super) fn add(&mut self, entry: &Entry) {
        log::warn!(
            "file withdrawn, its bytes are not the hashed ones; a write to it offers it again path={} file={}",
            entry.path,
            entry.id
        );
        if self.files.len() < WITHDRAWN_MAX {
            // Only the records tell copies, not a look at the file.
            let marks = Marks { copy: false, temporary: false, ..entry.marks };
            self.files.insert(entry.path.clone(), FileState { len: entry.id.len, stamp: entry.stamp, marks });
        }
        self.events.emit(Event::FileWithdrawn { path: entry.path.clone(), id: entry.id });
    }

    /// Remembers that a file is not to be offered in this state, as the program wants it. Beyond
    /// [`WITHDRAWN_MAX`] files, a walk may offer it again.
    pub(super) fn set(&mut self, path: &RelPath, state: FileState) {
        if self.files.len() < WITHDRAWN_MAX {
            self.files.insert(path.clone(), state);
        }
    }

    /// Remembers that a file cannot be opened in this state, so that each walk tries before it is
    /// offered. Beyond [`WITHDRAWN_MAX`] files, a walk may offer it again.
    pub(super) fn add_unreadable(&mut self, path: &RelPath, state: FileState) {
        if self.unreadable.len() < WITHDRAWN_MAX {
            self.unreadable.insert(path.clone(), state);
        }
    }

    /// Whether the file could not be opened in this state.
    pub(super) fn is_unreadable(&self, path: &RelPath, state: FileState) -> bool {
        self.unreadable.get(path) == Some(&state)
    }

    /// Whether no file is, and none was found unreadable.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.unreadable.is_empty()
    }

    /// Whether the file was withdrawn in this state.
    pub(super) fn contains(&self, path: &RelPath, state: FileState) -> bool {
        self.files.get(path) == Some(&state)
    }

    /// Forgets a file that is gone or was changed.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.files.remove(path);
        self.unreadable.remove(path);
    }
}
