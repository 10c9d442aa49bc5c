//! A value of which only the newest state matters.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::runtime::deadline;

/// The newest state of a value, published by one thread and read by many.
///
/// Readers get an `Arc` of the state that was current when they asked, and may wait for a newer one.
#[derive(Debug)]
pub struct Latest<T> {
    state: Mutex<(u64, Arc<T>)>,
    changed: Condvar,
}

impl<T> Latest<T> {
    /// Begins with `value`, as state number 0.
    pub fn new(value: T) -> Self {
        Latest { state: Mutex::new((0, Arc::new(value))), changed: Condvar::new() }
    }

    /// Makes `value` the current state and wakes whoever waits for a newer one.
    pub fn publish(&self, value: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 + 1, Arc::new(value));
        self.changed.notify_all();
    }

    /// Wakes whoever waits for a newer state, as if the current one had been published again.
    pub fn wake(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
    }

    /// The current state.
    pub fn get(&self) -> Arc<T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The number of the current state, and the state.
    pub fn numbered(&self) -> (u64, Arc<T>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the state's number is over `seen`, at most until `timeout` is over.
    pub fn newer_than(&self, seen: u64, timeout: Duration) -> Option<(u64, Arc<T>)> {
        let end = deadline(timeout);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0 <= seen {
            let left = end.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state.clone())
    }
}
