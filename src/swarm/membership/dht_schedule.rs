//! When a key is looked up in a DHT, and when the own item is put there.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::identity::PeerId;
use crate::limits::DHT_ADDRS_MAX;
use crate::swarm::membership::limits::{
    DHT_CHANGED_AFTER, DHT_ITEM_LIFE, DHT_LOOKUP_AFTER, DHT_LOOKUP_RETRY, DHT_LOOKUP_RETRY_MAX, DHT_LOOKUPS_AT_ONCE,
    DHT_PUBLISH_EVERY, DHT_PUBLISH_RETRY,
};

/// The keys to look up, each again after a while: soon if it was not found, less and less often while
/// it is not.
#[derive(Debug, Default)]
pub struct DhtLookups {
    keys: BTreeMap<PeerId, KeyLookup>,
}

#[derive(Debug)]
struct KeyLookup {
    due: Instant,
    wait: Duration,
    /// The sequence number of the newest item that was seen.
    newest: i64,
    found: bool,
}

impl DhtLookups {
    /// Takes over the keys of the group: new ones are due at once, others are forgotten.
    pub fn set_keys(&mut self, keys: impl IntoIterator<Item = PeerId>, now: Instant) {
        let keys: HashSet<PeerId> = keys.into_iter().collect();
        self.keys.retain(|key, _| keys.contains(key));
        for key in keys {
            let first = || KeyLookup { due: now, wait: DHT_LOOKUP_RETRY, newest: i64::MIN, found: false };
            self.keys.entry(key).or_insert_with(first);
        }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of keys that had an item when they were looked up last.
    pub fn found(&self) -> usize {
        self.keys.values().filter(|key| key.found).count()
    }

    /// At most [`DHT_LOOKUPS_AT_ONCE`] keys that are due, the longest due first. A key for which
    /// `is_heard` holds is there anyway, and waits for its next time.
    pub fn take_due(&mut self, is_heard: impl Fn(PeerId) -> bool, now: Instant) -> Vec<PeerId> {
        let mut due: Vec<_> = self.keys.iter_mut().filter(|(_, key)| key.due <= now).collect();
        due.sort_by_key(|(_, key)| key.due);
        let mut taken = Vec::new();
        for (peer, key) in due {
            if is_heard(*peer) {
                (key.due, key.wait) = (now + DHT_LOOKUP_AFTER, DHT_LOOKUP_RETRY);
            } else if taken.len() < DHT_LOOKUPS_AT_ONCE {
                key.due = now + key.wait;
                taken.push(*peer);
            }
        }
        taken
    }

    /// The sequence number of the newest item of `peer` that was seen; older ones are replays.
    pub fn newest(&self, peer: PeerId) -> i64 {
        self.keys.get(&peer).map_or(i64::MIN, |key| key.newest)
    }

    /// The lookup of `peer` has ended, with a good item of this number if there was one.
    pub fn looked_up(&mut self, peer: PeerId, seq: Option<i64>, now: Instant) {
        let Some(key) = self.keys.get_mut(&peer) else { return };
        key.found = seq.is_some();
        // Only a key that is there rests for long: the dial of what was found may fail. A newer item is a node
        // that has begun, or moved.
        if seq.is_some_and(|seq| seq > key.newest) {
            (key.newest, key.wait) = (seq.unwrap_or(key.newest), DHT_LOOKUP_RETRY);
        }
        key.due = now + key.wait;
        key.wait = (key.wait * 2).min(DHT_LOOKUP_RETRY_MAX);
    }

    /// What was found of `peer` could not be used now: it is due at `at`.
    pub fn postpone(&mut self, peer: PeerId, at: Instant) {
        self.keys.iter_mut().filter(|(key, _)| **key == peer).for_each(|(_, key)| key.due = at);
    }

    /// The DHT can be asked from now on, so all keys are due.
    pub fn joined(&mut self, now: Instant) {
        self.keys.values_mut().for_each(|key| (key.due, key.wait) = (now, DHT_LOOKUP_RETRY));
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.keys.values().map(|key| key.due).min()
    }
}

/// When the own item is put into the DHT.
#[derive(Debug)]
pub struct DhtPublishing {
    /// When it was put there last, and what it said.
    last: Option<(Instant, Vec<SocketAddr>)>,
    /// Not before this time, after a failure.
    retry_at: Option<Instant>,
    wait: Duration,
    /// The sequence number that the next item must exceed.
    seq: i64,
}

impl Default for DhtPublishing {
    fn default() -> Self {
        DhtPublishing { last: None, retry_at: None, wait: DHT_PUBLISH_RETRY, seq: 0 }
    }
}

impl DhtPublishing {
    /// Whether an item with `addrs` is to be put there now. One without addresses never is.
    pub fn is_due(&self, addrs: &[SocketAddr], now: Instant) -> bool {
        let rests = self.retry_at.is_some_and(|at| now < at);
        let due = self.last.as_ref().is_none_or(|(at, said)| {
            let after = if said == addrs { DHT_PUBLISH_EVERY } else { DHT_CHANGED_AFTER };
            now.saturating_duration_since(*at) >= after
        });
        !addrs.is_empty() && !rests && due
    }

    /// The sequence number of the next item: the clock, and above all that were seen.
    pub fn next_seq(&mut self, unix_ms: u64) -> i64 {
        self.seq = i64::try_from(unix_ms).unwrap_or(i64::MAX).max(self.seq.saturating_add(1));
        self.seq
    }

    /// An item of the own key with this number is there, of an earlier run.
    pub fn seen(&mut self, seq: i64) {
        self.seq = self.seq.max(seq);
    }

    /// It was put there.
    pub fn published(&mut self, addrs: Vec<SocketAddr>, now: Instant) {
        debug_assert!(addrs.len() <= DHT_ADDRS_MAX);
        *self = DhtPublishing { last: Some((now, addrs)), seq: self.seq, ..DhtPublishing::default() };
    }

    /// It could not be put there.
    pub fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(DHT_CHANGED_AFTER);
    }

    /// Whether an item is there now, as far as is known.
    pub fn is_published(&self, now: Instant) -> bool {
        self.last.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) < DHT_ITEM_LIFE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    #[test]
    fn few_keys_are_looked_up_at_once_and_each_has_its_turn() {
        let (mut lookups, start) = (DhtLookups::default(), Instant::now());
        lookups.set_keys((0..30).map(key), start);
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let taken = lookups.take_due(|_| false, start);
            assert!(taken.len() <= DHT_LOOKUPS_AT_ONCE);
            taken.into_iter().for_each(|peer| {
                seen.insert(peer);
                lookups.looked_up(peer, None, start);
            });
        }
        assert_eq!((seen.len(), lookups.take_due(|_| false, start).len()), (30, 0));
        assert_eq!(lookups.next_due(), Some(start + DHT_LOOKUP_RETRY));
    }

    #[test]
    fn a_key_that_is_not_found_is_looked_up_ever_less_often() {
        let (mut lookups, mut now) = (DhtLookups::default(), Instant::now());
        lookups.set_keys([key(1)], now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(lookups.take_due(|_| false, now), [key(1)]);
            lookups.looked_up(key(1), None, now);
            let due = lookups.next_due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1800]);
        assert_eq!(lookups.take_due(|_| false, now), [key(1)]);
        for (seq, wait) in [(5, 15), (5, 30), (4, 60), (6, 15)] {
            lookups.looked_up(key(1), Some(seq), now);
            let due = Some(now + Duration::from_secs(wait));
            assert_eq!((lookups.next_due(), lookups.found()), (due, 1), "what was found may not be reached");
        }
        lookups.postpone(key(1), now);
        assert_eq!(lookups.next_due(), Some(now));
    }

    #[test]
    fn when_the_dht_is_joined_all_keys_are_due() {
        let (mut lookups, start) = (DhtLookups::default(), Instant::now());
        lookups.set_keys([key(1), key(2)], start);
        lookups.take_due(|_| false, start);
        for _ in 0..9 {
            lookups.looked_up(key(1), None, start);
        }
        lookups.joined(start);
        assert_eq!(lookups.take_due(|_| false, start).len(), 2);
        lookups.looked_up(key(1), None, start);
        assert_eq!(lookups.next_due(), Some(start + DHT_LOOKUP_RETRY));
    }

    #[test]
    fn a_key_that_is_heard_is_not_looked_up() {
        let (mut lookups, start) = (DhtLookups::default(), Instant::now());
        lookups.set_keys([key(1), key(2)], start);
        assert_eq!(lookups.take_due(|peer| peer == key(1), start), [key(2)]);
        lookups.set_keys([key(1)], start);
        assert_eq!((lookups.len(), lookups.next_due()), (1, Some(start + DHT_LOOKUP_AFTER)));
    }

    #[test]
    fn the_newest_number_of_a_key_is_kept() {
        let (mut lookups, start) = (DhtLookups::default(), Instant::now());
        lookups.set_keys([key(1)], start);
        lookups.looked_up(key(1), Some(9), start);
        lookups.looked_up(key(1), Some(7), start);
        lookups.set_keys([key(1), key(2)], start);
        assert_eq!((lookups.newest(key(1)), lookups.newest(key(2)), lookups.newest(key(3))), (9, i64::MIN, i64::MIN));
    }

    #[test]
    fn an_item_is_put_there_each_hour_and_soon_after_a_change() {
        let (mut item, start) = (DhtPublishing::default(), Instant::now());
        let addrs = |n: u8| vec![SocketAddr::from(([11, 0, 0, n], 2000))];
        assert!(!item.is_due(&[], start) && item.is_due(&addrs(1), start) && !item.is_published(start));
        item.failed(start);
        assert!(!item.is_due(&addrs(1), start) && item.is_due(&addrs(1), start + DHT_PUBLISH_RETRY));
        item.published(addrs(1), start);
        let after = |time| (item.is_due(&addrs(1), start + time), item.is_due(&addrs(2), start + time));
        assert_eq!(after(DHT_CHANGED_AFTER / 2), (false, false));
        assert_eq!(after(DHT_CHANGED_AFTER), (false, true));
        assert_eq!(after(DHT_PUBLISH_EVERY), (true, true));
        assert!(item.is_published(start + DHT_PUBLISH_EVERY) && !item.is_published(start + DHT_ITEM_LIFE));
    }

    #[test]
    fn numbers_grow_whatever_the_clock_says() {
        let mut item = DhtPublishing::default();
        assert_eq!([item.next_seq(100), item.next_seq(50)], [100, 101]);
        item.seen(500);
        assert_eq!([item.next_seq(102), item.next_seq(u64::MAX)], [501, i64::MAX]);
        item.published(vec![], Instant::now());
        assert_eq!(item.next_seq(0), i64::MAX);
    }
}
