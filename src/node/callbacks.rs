//! The functions that a fetch calls when it is further.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use log::warn;

use crate::client::Progress;
use crate::sync::lock;

/// What is called with each state of a fetch.
pub(super) type Callback = Box<dyn FnMut(Progress) + Send>;

/// The callbacks of a fetch. They run without the lock, so that one of them may add another; each
/// is in one hand at a time.
#[derive(Default)]
pub(super) struct Callbacks(Mutex<Vec<Callback>>);

impl Callbacks {
    pub(super) fn add(&self, callback: Callback) {
        lock(&self.0).push(callback);
    }

    /// Calls each one with `at`, and drops it if it panics.
    pub(super) fn tell(&self, at: Progress) {
        let mut callbacks = std::mem::take(&mut *lock(&self.0));
        if callbacks.is_empty() {
            return;
        }
        callbacks = callbacks.into_iter().filter_map(|callback| call(callback, at)).collect();
        let mut all = lock(&self.0);
        // In front of what was added meanwhile.
        callbacks.append(&mut all);
        *all = callbacks;
    }

    /// Calls each with `at` for the last time and drops it, until none is left. What a callback
    /// holds is let go without a lock: it may be a handle of the fetch.
    pub(super) fn end(&self, at: Progress) {
        loop {
            let callbacks = std::mem::take(&mut *lock(&self.0));
            if callbacks.is_empty() {
                return;
            }
            callbacks.into_iter().for_each(|callback| let_go(call(callback, at)));
        }
    }
}

/// Calls `callback`. One that panics is dropped, and the thread of the fetch continues.
fn call(mut callback: Callback, at: Progress) -> Option<Callback> {
    if catch_unwind(AssertUnwindSafe(|| callback(at))).is_ok() {
        return Some(callback);
    }
    warn!("a callback of a fetch panicked, it is not called again phase={:?}", at.phase);
    let_go(Some(callback));
    None
}

/// Drops `callback`, and what it holds may panic.
fn let_go(callback: Option<Callback>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(callback)));
}
