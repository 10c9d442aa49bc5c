//! One signal that ends all threads of a node.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set once, seen by all: clones share the signal. Threads that wait in something else register a wake-up.
#[derive(Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: bool,
    wakers: Vec<Box<dyn Fn() + Send>>,
}

impl Shutdown {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the signal and wakes everyone. Later calls change nothing.
    pub fn begin(&self) {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.begun, true) {
            for wake in state.wakers.drain(..) {
                wake();
            }
        }
        self.inner.changed.notify_all();
    }

    /// Whether the signal is set.
    pub fn has_begun(&self) -> bool {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).begun
    }

    /// Calls `wake` once when the signal is set; at once if it is set already. `wake` must not block.
    pub fn on_begin(&self, wake: impl Fn() + Send + 'static) {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.begun {
            wake();
        } else {
            state.wakers.push(Box::new(wake));
        }
    }

    /// Sleeps for `time`, or until the signal is set; true if it is.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.begun {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            state = self.inner.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shutdown").field("begun", &self.has_begun()).finish()
    }
}
