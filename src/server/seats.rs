//! How many connections there may be, in all and of one key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::PeerId;

/// On whose account a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// The source address: before a peer is known, and in an open group, where keys cost nothing.
    Addr(IpAddr),
    /// The key, in a closed group.
    Peer(PeerId),
}

/// Counts connections that said `Hello` and are not over.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    max_per_key: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_key: HashMap<Key, usize>,
}

/// A counted connection; dropped when it ends.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    key: Key,
}

impl Seats {
    pub(crate) fn new(max: usize, max_per_key: usize) -> Arc<Self> {
        Arc::new(Seats { max, max_per_key, taken: Mutex::default() })
    }

    /// A seat for one more connection of `key`, unless its seats or all are taken.
    pub(crate) fn take(self: &Arc<Self>, key: Key) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max || taken.by_key.get(&key).is_some_and(|n| *n >= self.max_per_key) {
            return None;
        }
        taken.all += 1;
        *taken.by_key.entry(key).or_default() += 1;
        Some(Seat { seats: self.clone(), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Entry::Occupied(mut count) = taken.by_key.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_limited_in_all_and_by_key_and_come_back() {
        let seats = Seats::new(3, 2);
        let (a, b) = (Key::Peer(PeerId([1; 32])), Key::Addr([127, 0, 0, 1].into()));
        let first = seats.take(a).unwrap();
        let _second = seats.take(a).unwrap();
        assert!(seats.take(a).is_none());
        let _third = seats.take(b).unwrap();
        assert!(seats.take(b).is_none());
        drop(first);
        let again = seats.take(a).unwrap();
        assert!(seats.take(b).is_none());
        drop(again);
        assert_eq!(seats.taken.lock().unwrap().by_key.len(), 2);
    }
}
