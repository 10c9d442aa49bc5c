//! One direction of a long link: when each packet arrives, and which are lost. It has no device, so that the tests and
//! `scripts/bench` share it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// Time there and back.
    pub round_trip: Duration,
    /// Megabits a second; without a limit if `None`.
    pub rate_mbit: Option<u32>,
    /// Part of the packets that are lost.
    pub loss: f64,
    /// Decides which.
    pub seed: u64,
}

/// Packets on their way in one direction.
pub struct Way {
    distance: Distance,
    random: u64,
    /// When each of them arrives, and what it was marked with.
    queue: VecDeque<(Instant, Vec<u8>, u64)>,
    /// When the narrow place has sent all that came to it.
    free_at: Instant,
}

impl Distance {
    /// A long way without other faults.
    pub const fn ms(round_trip_ms: u64) -> Self {
        Distance { round_trip: Duration::from_millis(round_trip_ms), rate_mbit: None, loss: 0.0, seed: 1 }
    }
}

impl Way {
    /// Way number `number` of a link.
    pub fn new(distance: Distance, number: u64) -> Self {
        let random = distance.seed.wrapping_mul(2).wrapping_add(number);
        Way { distance, random, queue: VecDeque::new(), free_at: Instant::now() }
    }

    /// `packet` sets out, of which that many bytes are on the link, and comes out with `mark`.
    pub fn take(&mut self, packet: &[u8], len: usize, mark: u64, now: Instant) {
        if self.distance.loss > 0.0 && self.unit() < self.distance.loss {
            return;
        }
        let mut leaves = now;
        if let Some(mbit) = self.distance.rate_mbit {
            let waits = self.free_at.saturating_duration_since(now);
            if waits > QUEUE_TIME.max(self.distance.round_trip) {
                return;
            }
            leaves = self.free_at.max(now) + Duration::from_secs_f64(len as f64 * 8e-6 / f64::from(mbit));
            self.free_at = leaves;
        }
        if self.queue.len() < PACKETS_MAX {
            self.queue.push_back((leaves + self.distance.round_trip / 2, packet.to_vec(), mark));
        }
    }

    /// The next packet and its mark, if it has arrived by `now`.
    pub fn arrived(&mut self, now: Instant) -> Option<(Vec<u8>, u64)> {
        let is_due = self.next_at().is_some_and(|at| at <= now);
        if is_due { self.queue.pop_front().map(|(_, packet, mark)| (packet, mark)) } else { None }
    }

    /// When the next packet arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.front().map(|(at, ..)| *at)
    }

    /// SplitMix64, as a number in `0..1`.
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Most packets on their way in one direction: a gigabit for half a second.
const PACKETS_MAX: usize = 50_000;
/// Packets that would wait for longer at the narrow place, and for longer than the round trip, are dropped there.
const QUEUE_TIME: Duration = Duration::from_millis(20);
