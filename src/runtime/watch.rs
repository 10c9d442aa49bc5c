//! A shared value whose changes other threads wait for.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::runtime::deadline;
use crate::sync::{lock, wait_timeout};

/// A value behind a mutex with a count of its changes, like tokio's `watch`.
///
/// A thread that waits for nothing else blocks in [`wait_beyond`](Self::wait_beyond). One that
/// waits in a socket or a channel [subscribes](Self::subscribe) with a function that ends that
/// wait.
pub struct Watch<T> {
    state: Mutex<(u64, T)>,
    changed: Condvar,
    subscribers: Arc<Subscribers>,
}

#[derive(Default)]
struct Subscribers {
    /// The number of the next one, and the functions to call.
    wakes: Mutex<(u64, BTreeMap<u64, Wake>)>,
}

type Wake = Box<dyn Fn() + Send>;

/// Calls a function at each change of a [`Watch`]. Dropping it ends that: once the drop returns, no
/// call runs.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    subscribers: Weak<Subscribers>,
    id: u64,
}

impl<T> Watch<T> {
    /// Begins with `value` and no change.
    pub fn new(value: T) -> Self {
        Watch { state: Mutex::new((0, value)), changed: Condvar::new(), subscribers: Arc::default() }
    }

    /// Reads the value. `look` must be short: all other threads wait.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&lock(&self.state).1)
    }

    /// Changes the value without waking a thread, for changes that no thread waits for.
    pub fn touch<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut lock(&self.state).1)
    }

    /// Changes the value and wakes all threads that wait for a change.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut state = lock(&self.state);
        state.0 += 1;
        let result = change(&mut state.1);
        drop(state);
        self.changed.notify_all();
        self.subscribers.wake();
        result
    }

    /// The number of changes.
    pub fn changes(&self) -> u64 {
        lock(&self.state).0
    }

    /// Waits until there were more than `seen` changes, at most for `timeout`; returns their number
    /// now.
    pub fn wait_beyond(&self, seen: u64, timeout: Duration) -> u64 {
        let end = deadline(timeout);
        let mut state = lock(&self.state);
        while state.0 <= seen {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
            state = wait_timeout(&self.changed, state, left);
        }
        state.0
    }

    /// Wakes all threads that wait, as if something had changed.
    pub fn wake(&self) {
        self.update(|_| ());
    }

    /// Calls `wake` at each later change, on the thread that makes it. `wake` must not block, and
    /// neither subscribe nor end a subscription.
    pub fn subscribe(&self, wake: impl Fn() + Send + 'static) -> Subscription {
        let mut wakes = lock(&self.subscribers.wakes);
        let id = wakes.0;
        wakes.0 += 1;
        wakes.1.insert(id, Box::new(wake));
        Subscription { subscribers: Arc::downgrade(&self.subscribers), id }
    }
}

/// A value that is replaced as a whole: readers keep the state that was current when they asked.
impl<T> Watch<Arc<T>> {
    /// Makes `value` the current state and wakes all threads that wait for a newer one.
    pub fn publish(&self, value: T) {
        let value = Arc::new(value);
        drop(self.update(|current| std::mem::replace(current, value)));
    }

    /// The current state.
    pub fn get(&self) -> Arc<T> {
        self.read(Arc::clone)
    }
}

impl Subscribers {
    fn wake(&self) {
        lock(&self.wakes).1.values().for_each(|wake| wake());
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(subscribers) = self.subscribers.upgrade() else { return };
        let wake = lock(&subscribers.wakes).1.remove(&self.id);
        // Without the lock: what the function holds may have subscriptions of its own.
        drop(wake);
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("state", &self.state).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn waiters_and_subscribers_learn_of_each_change_but_not_of_a_touch() {
        let (watch, calls) = (Arc::new(Watch::new(1)), Arc::new(AtomicUsize::new(0)));
        let counter = calls.clone();
        let subscription = watch.subscribe(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        watch.touch(|n| *n += 1);
        assert_eq!((watch.changes(), calls.load(Ordering::SeqCst)), (0, 0));
        let waiter = std::thread::spawn({
            let watch = watch.clone();
            move || watch.wait_beyond(0, Duration::from_secs(20))
        });
        watch.update(|n| *n += 1);
        assert_eq!((waiter.join().unwrap(), watch.read(|n| *n), calls.load(Ordering::SeqCst)), (1, 3, 1));
        drop(subscription);
        watch.wake();
        assert_eq!((watch.changes(), calls.load(Ordering::SeqCst), Arc::strong_count(&calls)), (2, 1, 1));
        assert_eq!(watch.wait_beyond(2, Duration::from_millis(1)), 2, "the time is over");
    }

    #[test]
    fn a_subscriber_may_read_the_value_that_it_is_woken_for() {
        let watch = Arc::new(Watch::new(Arc::new(1)));
        let (tell, told) = std::sync::mpsc::channel();
        let seen = Arc::downgrade(&watch);
        let _subscription = watch.subscribe(move || tell.send(*seen.upgrade().unwrap().get()).unwrap());
        watch.publish(2);
        assert_eq!(told.recv().unwrap(), 2);
    }
}
