//! Files that were written to a moment ago, until they are quiet.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::content::RelPath;
use crate::share::inspector::FileState;
use crate::share::limits::{DEBOUNCED_MAX, QUIET};

/// Remembers in which state each file was seen and since when. Pure: time is an argument.
#[derive(Debug, Default)]
pub(super) struct WriteDebounce {
    files: HashMap<RelPath, RecentWrite>,
    /// When each file is due. The wait is the same for all, so the first entry is always the
    /// earliest; a file that changed has several entries, of which only the last counts.
    due: VecDeque<(Instant, RelPath)>,
}

#[derive(Debug)]
struct RecentWrite {
    state: FileState,
    due_at: Instant,
    /// Whether its state differed between two inspections: it is being written, so a catalogue
    /// without it is complete.
    is_changing: bool,
}

impl WriteDebounce {
    /// The file was seen in `state`. False if more than [`DEBOUNCED_MAX`] files wait, so that a
    /// walk must find it.
    pub(super) fn see(&mut self, path: &RelPath, state: FileState, now: Instant) -> bool {
        let is_full = self.files.len() >= DEBOUNCED_MAX;
        let due_at = now + QUIET;
        match self.files.get_mut(path) {
            Some(seen) if seen.state == state => return true,
            Some(seen) => *seen = RecentWrite { state, due_at, is_changing: true },
            None if is_full => return false,
            None => {
                self.files.insert(path.clone(), RecentWrite { state, due_at, is_changing: false });
            }
        }
        self.due.push_back((due_at, path.clone()));
        true
    }

    /// The next file whose inspection is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<RelPath> {
        while let Some((at, _)) = self.due.front() {
            if *at > now {
                return None;
            }
            let (at, path) = self.due.pop_front()?;
            if self.files.get(&path).is_some_and(|s| s.due_at == at) {
                return Some(path);
            }
        }
        None
    }

    /// Whether the file, whose inspection was due and found `state`, has not changed for [`QUIET`].
    /// It is forgotten then, and due once more later otherwise.
    pub(super) fn is_quiet(&mut self, path: &RelPath, state: FileState, now: Instant) -> bool {
        let is_quiet = self.files.get(path).is_some_and(|seen| seen.state == state);
        if is_quiet {
            self.files.remove(path);
        } else {
            self.see(path, state, now);
        }
        is_quiet
    }

    /// Forgets a file.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.files.remove(path);
    }

    /// Forgets all files.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When to call [`WriteDebounce::next_due`].
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Whether no file waits.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether each file that waits is really being written.
    pub(super) fn only_changing(&self) -> bool {
        self.files.values().all(|s| s.is_changing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Stamp;

    fn state(len: u64) -> FileState {
        FileState { len, stamp: Stamp::default(), marks: Default::default() }
    }

    #[test]
    fn a_file_is_quiet_once_it_has_not_changed_for_the_whole_time() {
        let (start, f) = (Instant::now(), RelPath::new("f").unwrap());
        let mut u = WriteDebounce::default();
        assert!(u.see(&f, state(1), start));
        assert!(!u.only_changing());
        assert_eq!(u.next_due(start + QUIET / 2), None);
        assert!(u.see(&f, state(2), start + QUIET / 2));
        assert_eq!(u.next_due(start + QUIET), None, "the first look is void");
        assert_eq!(u.next_due(start + QUIET * 3 / 2), Some(f.clone()));
        assert!(!u.is_quiet(&f, state(3), start + QUIET * 3 / 2));
        assert!(u.only_changing());
        let later = start + QUIET * 5 / 2;
        assert_eq!(u.next_due(later), Some(f.clone()));
        assert!(u.is_quiet(&f, state(3), later));
        assert_eq!((u.next_due(later + QUIET), u.wake_at()), (None, None));
    }

    #[test]
    fn what_is_forgotten_is_not_looked_at() {
        let (start, f) = (Instant::now(), RelPath::new("f").unwrap());
        let mut u = WriteDebounce::default();
        u.see(&f, state(1), start);
        u.forget(&f);
        assert_eq!(u.next_due(start + QUIET), None);
        assert!(u.only_changing());
    }
}
