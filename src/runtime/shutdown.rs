//! One signal that ends all threads of a node.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::runtime::deadline;
use crate::sync::{PanicAlarm, lock, wait_timeout};

/// Set once, seen by all: clones share the signal. Threads that wait in something else register a
/// wake-up.
#[derive(Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<ShutdownState>,
    changed: Condvar,
}

#[derive(Default)]
struct ShutdownState {
    begun: bool,
    /// The thread whose panic set the signal.
    defect: Option<String>,
    wakers: BTreeMap<u64, WakeUp>,
    next: u64,
}

type WakeUp = Box<dyn Fn() + Send>;

/// A wake-up that is forgotten when this is dropped; see [`Shutdown::while_held`].
pub struct OnBegin {
    inner: Weak<Inner>,
    id: Option<u64>,
}

impl Shutdown {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the signal and wakes all threads that wait. Later calls change nothing.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.begun = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.inner.changed.notify_all();
        // Without the lock: a woken thread reads the signal.
        wakers.into_values().for_each(|wake| wake());
    }

    /// Sets the signal because the thread called `thread` panicked: without it, what waits for it
    /// would wait for ever, and a service would be missing in silence.
    pub fn fail(&self, thread: &str) {
        self.lock().defect.get_or_insert_with(|| thread.into());
        self.begin();
    }

    /// An alarm that [fails](Self::fail) this, for threads of the storage.
    pub(crate) fn alarm(&self) -> PanicAlarm {
        let shutdown = self.clone();
        PanicAlarm::new(move |thread| shutdown.fail(thread))
    }

    /// The thread whose panic set the signal first, if one did.
    pub fn defect(&self) -> Option<String> {
        self.lock().defect.clone()
    }

    /// Whether the signal is set.
    pub fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// Calls `wake` once when the signal is set; at once if it is set already. `wake` must not
    /// block. It is kept as long as the signal, so this is for what lives as long.
    pub fn on_begin(&self, wake: impl Fn() + Send + 'static) {
        self.register(Box::new(wake));
    }

    /// As [`on_begin`](Self::on_begin), for what may end before: `wake` is forgotten when the guard
    /// is dropped.
    #[must_use = "the wake-up is forgotten when this is dropped"]
    pub fn while_held(&self, wake: impl Fn() + Send + 'static) -> OnBegin {
        OnBegin { id: self.register(Box::new(wake)), inner: Arc::downgrade(&self.inner) }
    }

    /// Shuts `socket` down when the signal is set, unless the guard is dropped before: what waits
    /// for it fails at once.
    #[must_use = "the socket is forgotten when this is dropped"]
    pub fn cuts(&self, socket: TcpStream) -> OnBegin {
        self.while_held(move || drop(socket.shutdown(std::net::Shutdown::Both)))
    }

    /// Sleeps for `time`, or until the signal is set; true if it is.
    pub fn wait(&self, time: Duration) -> bool {
        let end = deadline(time);
        let mut state = self.lock();
        while !state.begun {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            state = wait_timeout(&self.inner.changed, state, left);
        }
        true
    }

    fn register(&self, wake: WakeUp) -> Option<u64> {
        let mut state = self.lock();
        if state.begun {
            drop(state);
            wake();
            return None;
        }
        let id = state.next;
        state.next += 1;
        state.wakers.insert(id, wake);
        Some(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ShutdownState> {
        lock(&self.inner.state)
    }
}

impl Drop for OnBegin {
    fn drop(&mut self) {
        let (Some(id), Some(inner)) = (self.id, self.inner.upgrade()) else { return };
        let waker = lock(&inner.state).wakers.remove(&id);
        // Dropped without the lock: what it holds may have ends of its own.
        drop(waker);
    }
}

impl std::fmt::Debug for OnBegin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnBegin").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shutdown").field("begun", &self.has_begun()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn counter(count: &Arc<AtomicUsize>) -> impl Fn() + Send + 'static {
        let count = count.clone();
        move || {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_wake_up_is_called_once_and_may_look_at_the_signal() {
        let (shutdown, count) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        shutdown.on_begin(counter(&count));
        let (seen, wake) = (shutdown.clone(), counter(&count));
        shutdown.on_begin(move || {
            assert!(seen.has_begun());
            wake();
        });
        shutdown.begin();
        shutdown.begin();
        assert_eq!(count.load(Ordering::SeqCst), 2);
        shutdown.on_begin(counter(&count));
        assert_eq!(count.load(Ordering::SeqCst), 3, "at once when it has begun");
        assert!(shutdown.wait(Duration::MAX));
    }

    #[test]
    fn a_wake_up_that_is_let_go_takes_no_memory() {
        let (shutdown, count) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        drop(shutdown.while_held(counter(&count)));
        assert_eq!(Arc::strong_count(&count), 1);
        let held = shutdown.while_held(counter(&count));
        shutdown.begin();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(held);
    }
}
