//! The number of chunks that a server sends at the same time, and the keys that they are for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::UPLOADS_MAX;
use crate::swarm::upload::limits::UPLOADS_MIN;

/// Keeps the number of chunks that are under way small, so that each is soon whole.
///
/// Only a whole chunk can be passed on. If a thousand peers share an uplink, all chunks are whole
/// at the same late time; one after the other, the first is passed on while the second is sent.
/// BitTorrent has upload slots for the same reason (BEP 3; Legout, Urvoy-Keller, Michiardi 2006:
/// *Rarest first and choke algorithms are enough*). The number that keeps the link busy depends on
/// the peers: it rises by one for each round of chunks that take less than 100 ms, and falls by one
/// otherwise. An upload that takes four times as long as the mean stops counting, so that a slow
/// peer keeps no other waiting: between quick hosts that is after some hundredths of a second.
///
/// The next slot is for a waiting key with the fewest uploads under way. So a key with ten
/// connections has no more than a key with one, and a newcomer waits for one chunk, not for ten.
#[derive(Debug)]
pub struct UploadSlots<K> {
    limit: f64,
    /// The uploads under way, by ticket; tickets ascend with time.
    active: BTreeMap<u64, (Instant, K)>,
    tickets: u64,
    /// Mean time that a chunk took.
    mean: Duration,
    /// How many sessions of each key wait.
    waiting: BTreeMap<K, usize>,
}

/// An upload that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId(u64);

impl<K> Default for UploadSlots<K> {
    fn default() -> Self {
        UploadSlots {
            limit: UPLOADS_START,
            active: BTreeMap::new(),
            tickets: 0,
            mean: Duration::ZERO,
            waiting: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord> UploadSlots<K> {
    /// Begins to send a chunk on the account of `key`. `None`: not now, [`wait`](Self::wait).
    pub fn begin(&mut self, key: K, now: Instant) -> Option<SlotId> {
        let free = self.free(now);
        if free == 0 || (!self.waiting.is_empty() && self.ahead_of(key, 0, now) >= free) {
            return None;
        }
        Some(self.enter(key, now))
    }

    /// A session of `key` waits from now on, until it is [granted](Self::grant) an upload or
    /// [leaves](Self::leave).
    pub fn wait(&mut self, key: K) {
        *self.waiting.entry(key).or_default() += 1;
    }

    /// Begins to send a chunk for a session of `key` that waits. `None`: others come before it, and
    /// it still waits.
    pub fn grant(&mut self, key: K, now: Instant) -> Option<SlotId> {
        let free = self.free(now);
        if free == 0 || self.ahead_of(key, 1, now) >= free {
            return None;
        }
        self.leave(key);
        Some(self.enter(key, now))
    }

    /// A session of `key` no longer waits.
    pub fn leave(&mut self, key: K) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&key);
            }
        }
    }

    /// How many may begin now.
    pub fn free(&self, now: Instant) -> usize {
        (self.limit as usize).saturating_sub(self.fresh(now).count())
    }

    /// When one more may begin although none ends, because the oldest one stops counting.
    pub fn next_free(&self, now: Instant) -> Instant {
        self.fresh(now).last().map_or(now, |(begun, _)| begun + self.overdue())
    }

    /// The uploads that count, with their beginnings and keys, the latest first.
    fn fresh(&self, now: Instant) -> impl Iterator<Item = (Instant, K)> {
        let overdue = self.overdue();
        let began = self.active.values().rev().copied();
        began.take_while(move |(begun, _)| now.saturating_duration_since(*begun) <= overdue).take(UPLOADS_MAX)
    }

    fn overdue(&self) -> Duration {
        if self.mean.is_zero() { CHUNK_TIME } else { (self.mean * OVERDUE).max(OVERDUE_MIN) }
    }

    fn enter(&mut self, key: K, now: Instant) -> SlotId {
        self.tickets += 1;
        self.active.insert(self.tickets, (now, key));
        SlotId(self.tickets)
    }

    /// The number of waiting keys that have at least `fewer` uploads fewer under way than `key`,
    /// and so come before it.
    fn ahead_of(&self, key: K, fewer: usize, now: Instant) -> usize {
        // One that is stuck does not keep its key from another.
        let mut under_way: BTreeMap<K, usize> = BTreeMap::new();
        self.fresh(now).for_each(|(_, key)| *under_way.entry(key).or_default() += 1);
        let count = |key: &K| under_way.get(key).copied().unwrap_or(0);
        let own = count(&key);
        self.waiting.keys().filter(|&other| *other != key && count(other) + fewer <= own).count()
    }

    /// How many of `key` are under way and count.
    pub fn of(&self, key: K, now: Instant) -> usize {
        self.fresh(now).filter(|(_, of)| *of == key).count()
    }

    /// An upload is over; `whole`: the peer took all of it.
    pub fn end(&mut self, slot: SlotId, whole: bool, now: Instant) {
        let Some((begun, _)) = self.active.remove(&slot.0) else { return };
        if whole {
            let took = now.saturating_duration_since(begun);
            self.mean = if self.mean.is_zero() { took } else { (self.mean * 7 + took) / 8 };
            let step = if took < CHUNK_TIME { 1.0 } else { -1.0 } / self.limit;
            self.limit = (self.limit + step).clamp(UPLOADS_MIN as f64, UPLOADS_MAX as f64);
        }
    }

    /// Uploads under way.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }
}

/// Uploads at the same time before anything is known.
const UPLOADS_START: f64 = 8.0;
/// How long a chunk should take.
const CHUNK_TIME: Duration = Duration::from_millis(100);
/// An upload that takes this many times the mean time stops counting.
const OVERDUE: u32 = 4;
/// Shortest time after which an upload stops counting.
const OVERDUE_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Serves for a while peers that all want more, over a link that gives `link` chunks a second
    /// in all and `each` to each; returns how many were under way at the end, and chunks a
    /// second.
    fn run(link: f64, each: f64) -> (usize, f64) {
        let (mut uploads, mut active, begin) = (UploadSlots::default(), Vec::new(), Instant::now());
        let (mut now, mut done, mut under_way) = (begin, 0, 0);
        while now < begin + 20_000 * MS {
            while let Some(upload) = uploads.begin(0, now) {
                active.push((upload, 1.0));
            }
            under_way = active.len();
            let rate = (link / active.len() as f64).min(each) / 1000.0;
            active.iter_mut().for_each(|a| a.1 -= rate);
            now += MS;
            let before = active.len();
            active.retain(|(upload, left)| {
                if *left <= 0.0 {
                    uploads.end(*upload, true, now);
                }
                *left > 0.0
            });
            done += before - active.len();
        }
        (under_way, done as f64 / 20.0)
    }

    #[test]
    fn a_slow_link_sends_few_chunks_at_a_time() {
        let (under_way, rate) = run(24.0, 1000.0);
        assert!(under_way <= UPLOADS_MIN + 1 && rate > 23.0, "{under_way} {rate}");
    }

    #[test]
    fn slow_receivers_do_not_leave_a_quick_link_idle() {
        let (under_way, rate) = run(10_000.0, 50.0);
        assert!(under_way >= UPLOADS_MAX - 1 && rate > 2500.0, "{under_way} {rate}");
    }

    #[test]
    fn who_takes_too_long_keeps_nobody_waiting() {
        let (mut uploads, mut now) = (UploadSlots::default(), Instant::now());
        let stuck: Vec<_> = std::iter::from_fn(|| uploads.begin(0, now)).collect();
        assert_eq!(stuck.len(), UPLOADS_START as usize);
        now += CHUNK_TIME + MS;
        let next = uploads.begin(0, now).expect("those before are overdue");
        uploads.end(next, true, now + 5 * MS);
        stuck.into_iter().for_each(|u| uploads.end(u, false, now));
        assert!(uploads.is_empty());
    }

    #[test]
    fn those_who_wait_come_first() {
        let (mut uploads, now) = (UploadSlots::default(), Instant::now());
        let mut all: Vec<_> = std::iter::from_fn(|| uploads.begin('a', now)).collect();
        assert_eq!(uploads.begin('b', now), None);
        uploads.wait('b');
        assert_eq!(uploads.grant('b', now), None);
        uploads.end(all.pop().unwrap(), true, now);
        assert_eq!(uploads.begin('a', now), None, "it has others under way");
        assert_eq!(uploads.begin('c', now), None, "it comes later");
        uploads.wait('a');
        assert_eq!(uploads.grant('a', now), None, "others have none");
        assert!(uploads.grant('b', now).is_some());
        uploads.end(all.pop().unwrap(), true, now);
        assert!(uploads.grant('a', now).is_some() && uploads.waiting.is_empty());
        uploads.end(all.pop().unwrap(), true, now);
        uploads.wait('d');
        uploads.leave('d');
        assert!(uploads.begin('a', now).is_some(), "nobody waits any more");
    }

    #[test]
    fn one_that_is_stuck_does_not_keep_its_key_from_another() {
        let (mut uploads, mut now) = (UploadSlots::default(), Instant::now());
        assert!(uploads.begin('a', now).is_some());
        "abcdefghij".chars().for_each(|key| uploads.wait(key));
        assert_eq!(uploads.grant('a', now), None, "others have none");
        now += CHUNK_TIME + MS;
        assert!(uploads.grant('a', now).is_some() && uploads.of('a', now) == 1);
    }

    #[test]
    fn it_is_known_when_those_that_take_too_long_make_room() {
        let (mut uploads, now) = (UploadSlots::default(), Instant::now());
        for i in 0..UPLOADS_START as u32 {
            assert!(uploads.begin(i, now + i * MS).is_some());
        }
        let later = now + 20 * MS;
        assert_eq!((uploads.free(later), uploads.begin(99, later)), (0, None));
        let at = uploads.next_free(later);
        assert_eq!(at, now + CHUNK_TIME);
        assert_eq!((uploads.free(at), uploads.free(at + MS)), (0, 1));
        assert_eq!(uploads.next_free(at + MS), at + MS, "the next one follows");
    }

    #[test]
    fn ten_connections_do_not_keep_one_waiting() {
        let (mut uploads, mut now) = (UploadSlots::default(), Instant::now());
        let mut active: Vec<(char, SlotId, u32)> = Vec::new();
        let (mut waiting, mut got) = ([10, 1], [0; 2]);
        waiting.into_iter().zip(['a', 'b']).for_each(|(n, key)| (0..n).for_each(|_| uploads.wait(key)));
        for _ in 0..20_000 {
            for (at, key) in ['a', 'b'].into_iter().enumerate() {
                while waiting[at] > 0
                    && let Some(upload) = uploads.grant(key, now)
                {
                    waiting[at] -= 1;
                    active.push((key, upload, 150));
                }
            }
            now += MS;
            active.retain_mut(|(key, upload, left)| {
                *left -= 1;
                if *left == 0 {
                    uploads.end(*upload, true, now);
                    got[usize::from(*key == 'b')] += 1;
                    waiting[usize::from(*key == 'b')] += 1;
                    uploads.wait(*key);
                }
                *left > 0
            });
        }
        // It waits for the next chunk that ends, of the few that are under way, and for none after
        // that.
        let [ten, one] = got;
        assert!(one * (UPLOADS_MIN as u32 + 2) >= ten && one * 150 <= 20_000, "{one} of the one, {ten} of the ten");
    }

    /// Cause: an upload counted for 100 ms, though chunks took two. Effect: 500 readers that took nothing
    /// kept all slots for seconds, and a quick client waited. Mend: it counts four times as long as
    /// others take, once that is known.
    #[test]
    fn readers_that_take_nothing_keep_the_slots_of_a_quick_link_for_a_moment() {
        let (mut uploads, mut now) = (UploadSlots::default(), Instant::now());
        for _ in 0..50 {
            let upload = uploads.begin('q', now).unwrap();
            now += 2 * MS;
            uploads.end(upload, true, now);
        }
        let stuck = (0..).map_while(|_| uploads.begin('s', now)).count();
        assert!(stuck >= UPLOADS_START as usize && uploads.free(now + 5 * MS) == 0, "{stuck}");
        assert_eq!(uploads.free(now + 11 * MS), stuck);
        // Where nothing is known yet, and where chunks take long, it counts for longer.
        let mut fresh = UploadSlots::default();
        assert!(std::iter::from_fn(|| fresh.begin('s', now)).count() > 0 && fresh.free(now + 90 * MS) == 0);
        uploads.mean = 50 * MS;
        assert_eq!(uploads.free(now + 190 * MS), 0);
    }
}
