//! Which copies expire.

use std::time::Duration;

use crate::swarm::mirror::limits::IN_USE_S;

/// For how long copies stay that are not used, and how many bytes they may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// A copy that was not used for so long expires, unless no other node keeps it.
    pub retain: Option<Duration>,
    /// Most bytes of all copies. Beyond it the ones expire that were unused for the longest time, last
    /// those that no other node keeps.
    pub quota: Option<u64>,
}

/// A copy that may expire. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryCandidate {
    /// Its bytes.
    pub len: u64,
    /// When it was used last.
    pub used_s: u64,
    /// Whether no other node keeps it.
    pub is_last: bool,
}

/// What may go for files that are about to be fetched, the copy first that was not used for the
/// longest time. Each question costs two searches, however many copies there are.
#[derive(Debug, Clone)]
pub struct ExpiryRoom {
    /// The positions of the copies, and when each was used last.
    order: Vec<usize>,
    used_s: Vec<u64>,
    /// Bytes of the copies before each place of the order, and of all.
    freed: Vec<u64>,
    /// What stands before this place went for earlier questions.
    next: usize,
}

impl ExpiryRoom {
    /// The positions of the copies that go so that `needed` bytes are freed for a file that was first
    /// seen at `seen_s`, besides those of earlier calls, and the bytes that they free; `None` if they
    /// cannot be. Nothing goes for it that was used since, and no last copy: what is listed first would
    /// push out what was fetched first, again and again.
    pub fn take(&mut self, needed: u64, seen_s: u64) -> Option<(&[usize], u64)> {
        let end = self.used_s.partition_point(|used_s| *used_s < seen_s).max(self.next);
        let (before, begin) = (self.freed[self.next], self.next);
        if self.freed[end] - before < needed {
            return None;
        }
        self.next = begin + self.freed[begin..=end].partition_point(|freed| *freed - before < needed);
        Some((&self.order[begin..self.next], self.freed[self.next] - before))
    }
}

impl Retention {
    /// Whether copies expire at all.
    pub fn is_on(&self) -> bool {
        self.retain.is_some() || self.quota.is_some()
    }

    /// The positions of the files that expire now, in the order in which they go.
    pub fn expired(&self, files: &[ExpiryCandidate], now_s: u64) -> Vec<usize> {
        let is_over = |file: &ExpiryCandidate| {
            self.retain.is_some_and(|retain| file.used_s.saturating_add(retain.as_secs()) <= now_s)
        };
        let is_gone = |at: &usize| is_over(&files[*at]) && !files[*at].is_last;
        let (mut gone, mut order): (Vec<usize>, Vec<usize>) = by_use(files, now_s).into_iter().partition(is_gone);
        let len_of = |at: usize| u128::from(files[at].len);
        // Files with holes may be longer in all than a disk.
        let freed: u128 = gone.iter().map(|&at| len_of(at)).sum();
        let mut bytes = (0..files.len()).map(len_of).sum::<u128>() - freed;
        // The bound holds whatever it costs.
        order.sort_by_key(|&at| files[at].is_last);
        for at in order {
            if self.quota.is_none_or(|quota| bytes <= quota.into()) {
                break;
            }
            bytes -= len_of(at);
            gone.push(at);
        }
        gone
    }

    /// The order in which `files` may go for others, found once for many questions.
    pub fn room(&self, files: &[ExpiryCandidate], now_s: u64) -> ExpiryRoom {
        let mut order = if self.is_on() { by_use(files, now_s) } else { Vec::new() };
        order.retain(|&at| !files[at].is_last);
        let used_s = order.iter().map(|&at| files[at].used_s).collect();
        let lens = order.iter().map(|&at| files[at].len);
        let sum = |freed: &mut u64, len: u64| {
            *freed = freed.saturating_add(len);
            Some(*freed)
        };
        let freed = std::iter::once(0).chain(lens.scan(0, sum)).collect();
        ExpiryRoom { order, used_s, freed, next: 0 }
    }

    /// When the next file may expire by its age, in seconds since 1970.
    pub fn next_s(&self, files: &[ExpiryCandidate], now_s: u64) -> Option<u64> {
        let retain = self.retain?.as_secs();
        let over = files.iter().filter(|file| !file.is_last).map(|file| file.used_s.saturating_add(retain));
        over.filter(|at| *at > now_s).min()
    }
}

/// The positions of the files that are not being used, the one that was not used for the longest time
/// first.
fn by_use(files: &[ExpiryCandidate], now_s: u64) -> Vec<usize> {
    let is_idle = |at: &usize| files[*at].used_s.saturating_add(IN_USE_S) <= now_s;
    let mut order: Vec<usize> = (0..files.len()).filter(is_idle).collect();
    order.sort_by_key(|&at| (files[at].used_s, at));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 100 * DAY;

    fn file(len: u64, days_ago: u64) -> ExpiryCandidate {
        ExpiryCandidate { len, used_s: NOW - days_ago * DAY, is_last: false }
    }

    fn last(len: u64, days_ago: u64) -> ExpiryCandidate {
        ExpiryCandidate { is_last: true, ..file(len, days_ago) }
    }

    fn of(days: Option<u64>, quota: Option<u64>) -> Retention {
        Retention { retain: days.map(|days| Duration::from_secs(days * DAY)), quota }
    }

    fn room_for(
        retention: Retention,
        files: &[ExpiryCandidate],
        needed: u64,
        seen: u64,
        now: u64,
    ) -> Option<Vec<usize>> {
        retention.room(files, now).take(needed, seen).map(|(gone, _)| gone.to_vec())
    }

    #[test]
    fn what_was_not_used_for_too_long_goes_unless_no_other_node_keeps_it() {
        let files = [file(1, 8), file(1, 6), last(1, 30), file(1, 9), file(1, 7)];
        assert_eq!(of(Some(7), None).expired(&files, NOW), [3, 0, 4]);
        assert_eq!(of(Some(7), None).next_s(&files, NOW), Some(NOW + DAY));
        assert_eq!(of(Some(7), None).expired(&files, NOW + DAY), [3, 0, 4, 1]);
        assert!(of(None, None).expired(&files, NOW).is_empty() && of(None, None).next_s(&files, NOW).is_none());
        // A clock that was set back lets nothing expire.
        assert!(of(Some(7), None).expired(&files, 0).is_empty());
    }

    #[test]
    fn the_quota_takes_the_least_recently_used_and_last_copies_last() {
        let files = [file(10, 1), file(10, 3), last(10, 9), file(10, 2)];
        assert_eq!(of(None, Some(40)).expired(&files, NOW), [0; 0]);
        assert_eq!(of(None, Some(39)).expired(&files, NOW), [1]);
        assert_eq!(of(None, Some(20)).expired(&files, NOW), [1, 3]);
        assert_eq!(of(None, Some(0)).expired(&files, NOW), [1, 3, 0, 2]);
        assert_eq!(of(Some(3), Some(20)).expired(&files, NOW), [1, 3], "first by age");
        // What is being used never goes.
        let files = [file(10, 0), file(10, 2)];
        assert_eq!(of(Some(0), Some(0)).expired(&files, NOW), [1]);
    }

    #[test]
    fn room_is_made_only_by_what_was_used_before_the_new_file_was_seen() {
        let files = [file(10, 1), file(10, 3), last(10, 9), file(10, 2)];
        let quota = of(None, Some(40));
        assert_eq!(room_for(quota, &files, 5, NOW, NOW), Some(vec![1]));
        assert_eq!(room_for(quota, &files, 25, NOW, NOW), Some(vec![1, 3, 0]));
        assert_eq!(room_for(quota, &files, 31, NOW, NOW), None, "the last copy stays");
        assert_eq!(room_for(quota, &files, 15, NOW - 2 * DAY, NOW), None, "it was used since");
        assert_eq!(room_for(of(Some(7), None), &files, 5, NOW, NOW), Some(vec![1]));
        assert_eq!(room_for(of(None, None), &files, 5, NOW, NOW), None, "nothing may expire");
        assert_eq!(room_for(of(None, None), &files, 0, NOW, NOW), Some(vec![]));
    }

    #[test]
    fn one_order_serves_many_files() {
        let files = [file(10, 1), file(10, 3), last(10, 9), file(10, 2), file(0, 2), file(10, 4)];
        let mut room = of(None, Some(50)).room(&files, NOW);
        assert_eq!(room.take(15, NOW), Some((&[5, 1][..], 20)));
        assert_eq!(room.take(0, NOW), Some((&[][..], 0)));
        assert_eq!(room.take(11, NOW - DAY), None, "one copy is left that was used before");
        assert_eq!(room.take(1, 0), None, "seen at the start");
        assert_eq!(room.take(10, NOW - DAY), Some((&[3][..], 10)));
        assert_eq!(room.take(11, NOW), None);
        assert_eq!(room.take(10, NOW), Some((&[4, 0][..], 10)));
        assert_eq!(room.take(1, NOW), None);
    }

    /// A set that is larger than the quota must not push itself out in circles.
    #[test]
    fn a_set_that_does_not_fit_is_fetched_in_part_and_stays() {
        let (retention, mut files, mut now) = (of(None, Some(50)), Vec::new(), NOW);
        let needed = |files: &[ExpiryCandidate]| (files.len() as u64 * 10 + 10).saturating_sub(50);
        let mut fetched = 0;
        for _ in 0..1000 {
            now += 100;
            // Each of 20 files of 10 bytes was seen at the start.
            if let Some(gone) = room_for(retention, &files, needed(&files), NOW, now) {
                assert!(gone.is_empty());
                files.push(ExpiryCandidate { len: 10, used_s: now, is_last: false });
                fetched += 1;
            }
        }
        assert_eq!((fetched, files.len()), (5, 5));
        // A new one takes the place of the one that was used least recently.
        now += 100;
        assert_eq!(room_for(retention, &files, needed(&files), now, now), Some(vec![0]));
    }
}
