//! A shared value whose changes others wait for.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::runtime::deadline;

/// A value behind a mutex, with a count of its changes that threads can wait on.
#[derive(Debug)]
pub struct Watched<T> {
    state: Mutex<(u64, T)>,
    changed: Condvar,
}

impl<T> Watched<T> {
    /// Begins with `value` and no change.
    pub fn new(value: T) -> Self {
        Watched { state: Mutex::new((0, value)), changed: Condvar::new() }
    }

    /// Looks at the value. `look` must be short: everyone else waits.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Changes the value without waking anyone: nothing that others wait for has changed.
    pub fn touch<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Changes the value and wakes whoever waits for a change.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let result = change(&mut state.1);
        self.changed.notify_all();
        result
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until there were more than `seen` changes, at most for `timeout`; returns their number now.
    pub fn wait_beyond(&self, seen: u64, timeout: Duration) -> u64 {
        let end = deadline(timeout);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0 <= seen {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.0
    }

    /// Wakes everyone who waits, as if something had changed.
    pub fn wake(&self) {
        self.update(|_| ());
    }
}
