//! How busy the group is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::swarm::membership::limits::{BUSY_FROM_PER_S, CROWDED_FROM_PER_S, GROUP_PACKETS_PER_S};

/// A bucket that each announce to the group fills and time drains, and the announces of the last
/// second.
///
/// All nodes hear the same announces. So what can wait, waits until fewer than [`BUSY_FROM_PER_S`]
/// came within a second, as stations listen before they send on a shared wire (CSMA, IEEE 802.3):
/// announces of random times alone reach twice their mean in some second of each minute.
#[derive(Debug)]
pub(super) struct GroupLoad {
    level: f64,
    /// The times of the last announces, at most [`BUSY_FROM_PER_S`], which is all that matters.
    last: VecDeque<Instant>,
    /// Announces a second, averaged over about [`MEMORY_S`](Self::MEMORY_S).
    rate: f64,
    since: Instant,
    at: Instant,
}

impl GroupLoad {
    /// Announces per second that the bucket lets through: half of the packets, since each is two,
    /// and one less to stay below the bound.
    const DRAIN_PER_S: f64 = (GROUP_PACKETS_PER_S / 2 - 1) as f64;
    /// The level from which the group is busy. Usual coincidences stay below it.
    const FULL: f64 = Self::DRAIN_PER_S / 2.0;
    /// The level that shows a node that has just started that many started with it.
    pub(super) const COMPANY: f64 = 4.0;
    /// The level that only many nodes reach that start at the same time.
    pub(super) const FLOOD: f64 = Self::DRAIN_PER_S * 1.5;

    /// How long the average rate remembers, in seconds: one announce interval.
    const MEMORY_S: f64 = 10.0;

    /// A rate is averaged over at least this time.
    const LOOK_MIN: Duration = Duration::from_millis(100);

    pub(super) fn new(now: Instant) -> Self {
        GroupLoad { level: 0.0, last: VecDeque::new(), rate: 0.0, since: now, at: now }
    }

    /// Counts one announce. The level is bounded, so that a flood is forgotten two seconds after
    /// its end.
    pub(super) fn add(&mut self, now: Instant) {
        self.rate = self.rate * Self::kept(self.at, now) + 1.0 / Self::MEMORY_S;
        self.level = (self.level(now) + 1.0).min(2.0 * Self::DRAIN_PER_S);
        self.at = now;
        if self.last.len() >= BUSY_FROM_PER_S {
            self.last.pop_front();
        }
        self.last.push_back(now);
    }

    /// Whether what can wait is to wait.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < Duration::from_secs(1);
        let many = self.last.len() >= BUSY_FROM_PER_S && self.last.front().is_some_and(is_recent);
        many || self.level(now) >= Self::FULL
    }

    /// Whether the group sends more than the regular announces of a group that knows its size.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        self.is_busy(now) || self.rate(now) >= f64::from(CROWDED_FROM_PER_S)
    }

    /// The average so far: a node that has just started has seen a part of the memory only.
    fn rate(&self, now: Instant) -> f64 {
        let since = self.since.min(now.checked_sub(Self::LOOK_MIN).unwrap_or(now));
        self.rate * Self::kept(self.at, now) / (1.0 - Self::kept(since, now)).max(f64::MIN_POSITIVE)
    }

    /// The part of what was counted at `from` that is remembered at `now`.
    fn kept(from: Instant, now: Instant) -> f64 {
        (-now.saturating_duration_since(from).as_secs_f64() / Self::MEMORY_S).exp()
    }

    pub(super) fn level(&self, now: Instant) -> f64 {
        (self.level - now.saturating_duration_since(self.at).as_secs_f64() * Self::DRAIN_PER_S).max(0.0)
    }
}
