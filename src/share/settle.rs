//! Files that were written to a moment ago, until they are quiet.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::content::RelPath;
use crate::share::limits::{QUIET, UNSETTLED_MAX};
use crate::share::look::State;

/// Remembers in which state each file was seen and since when. Pure: time is an argument.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    files: HashMap<RelPath, Seen>,
    /// When to look again. The wait is the same for all, so the first is always the earliest; a file that changed has
    /// several, of which only the last counts.
    looks: VecDeque<(Instant, RelPath)>,
}

#[derive(Debug)]
struct Seen {
    state: State,
    look_at: Instant,
    /// Whether its state differed between two looks: it is being written, so nobody need wait for it.
    changing: bool,
}

/// What a look at an unsettled file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did not change for [`QUIET`].
    Quiet,
    /// It must be looked at again later.
    Wait,
}

impl Unsettled {
    /// The file was seen in `state`. False when there are too many to watch.
    pub(super) fn see(&mut self, path: &RelPath, state: State, now: Instant) -> bool {
        let is_full = self.files.len() >= UNSETTLED_MAX;
        match self.files.get_mut(path) {
            Some(seen) if seen.state == state => return true,
            Some(seen) => *seen = Seen { state, look_at: now + QUIET, changing: true },
            None if is_full => return false,
            None => {
                self.files.insert(path.clone(), Seen { state, look_at: now + QUIET, changing: false });
            }
        }
        self.looks.push_back((now + QUIET, path.clone()));
        true
    }

    /// The next file whose look is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<RelPath> {
        while let Some((at, _)) = self.looks.front() {
            if *at > now {
                return None;
            }
            let (at, path) = self.looks.pop_front()?;
            if self.files.get(&path).is_some_and(|s| s.look_at == at) {
                return Some(path);
            }
        }
        None
    }

    /// The file, whose look was due, was found in `state`.
    pub(super) fn judge(&mut self, path: &RelPath, state: State, now: Instant) -> Verdict {
        match self.files.get(path) {
            Some(seen) if seen.state == state => {
                self.files.remove(path);
                Verdict::Quiet
            }
            _ => {
                self.see(path, state, now);
                Verdict::Wait
            }
        }
    }

    /// The file is of no interest any more.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.files.remove(path);
    }

    /// Forgets all files.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When to call [`Unsettled::next_due`].
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// Whether all that is not quiet is really being written.
    pub(super) fn only_changing(&self) -> bool {
        self.files.values().all(|s| s.changing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Stamp;

    fn state(len: u64) -> State {
        State { len, stamp: Stamp::default() }
    }

    #[test]
    fn a_file_is_quiet_once_it_has_not_changed_for_the_whole_time() {
        let (start, f) = (Instant::now(), RelPath::new("f").unwrap());
        let mut u = Unsettled::default();
        assert!(u.see(&f, state(1), start));
        assert!(!u.only_changing());
        assert_eq!(u.next_due(start + QUIET / 2), None);
        assert!(u.see(&f, state(2), start + QUIET / 2));
        assert_eq!(u.next_due(start + QUIET), None, "the first look is void");
        assert_eq!(u.next_due(start + QUIET * 3 / 2), Some(f.clone()));
        assert_eq!(u.judge(&f, state(3), start + QUIET * 3 / 2), Verdict::Wait);
        assert!(u.only_changing());
        let later = start + QUIET * 5 / 2;
        assert_eq!(u.next_due(later), Some(f.clone()));
        assert_eq!(u.judge(&f, state(3), later), Verdict::Quiet);
        assert_eq!((u.next_due(later + QUIET), u.wake_at()), (None, None));
    }

    #[test]
    fn what_is_forgotten_is_not_looked_at() {
        let (start, f) = (Instant::now(), RelPath::new("f").unwrap());
        let mut u = Unsettled::default();
        u.see(&f, state(1), start);
        u.forget(&f);
        assert_eq!(u.next_due(start + QUIET), None);
        assert!(u.only_changing());
    }
}
