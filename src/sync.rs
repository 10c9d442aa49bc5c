//! Locks without poison, and what follows from a panic. Tier 0.
//!
//! A thread that panics while it holds a lock poisons it. Every value behind a lock of this crate
//! is whole between two statements, so the other threads may keep using it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Locks `mutex`, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for reading, poisoned or not.
pub(crate) fn read_lock<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for writing, poisoned or not.
pub(crate) fn write_lock<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `condvar`, poisoned or not.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `condvar`, poisoned or not, at most for `timeout`.
pub(crate) fn wait_timeout<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}

/// What a panic of a thread ends, for threads of a tier that knows nothing of it: is called with
/// the name of the thread.
#[derive(Clone, Default)]
pub(crate) struct PanicAlarm(Option<Arc<Ring>>);

type Ring = dyn Fn(&str) + Send + Sync;

impl PanicAlarm {
    /// An alarm that calls `ring`.
    pub(crate) fn new(ring: impl Fn(&str) + Send + Sync + 'static) -> Self {
        PanicAlarm(Some(Arc::new(ring)))
    }

    /// Tells that the thread called `thread` panicked.
    pub(crate) fn ring(&self, thread: &str) {
        if let Some(ring) = &self.0 {
            ring(thread);
        }
    }
}

impl fmt::Debug for PanicAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PanicAlarm").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_lock_usable() {
        let mutex = Mutex::new(1);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _held = lock(&mutex);
                panic!("while the lock is held");
            });
            assert!(panics.join().is_err());
        });
        assert!(mutex.is_poisoned());
        *lock(&mutex) += 1;
        assert_eq!(*wait_timeout(&Condvar::new(), lock(&mutex), Duration::from_millis(1)), 2);
    }
}
