//! The order in which readers need chunks.
//!
//! A reader wants the next bytes first, a swarm wants the rarest chunks first. As with the
//! time-critical pieces of libtorrent, the chunks right ahead of a reader are asked for in their
//! order, and each of a second peer once it is late, even while there is other work. In the rest of
//! the window that is fetched ahead of the reader, the rarest chunk comes first, and of equally rare
//! ones the one that is needed first (BiToS, Vlavianos et al., 2006). What lies in no window is left
//! alone, or comes last.

use std::time::Instant;

use crate::swarm::download::limits::READ_URGENT_CHUNKS;
use crate::swarm::download::picker::end_game::StealReason;
use crate::swarm::download::picker::{CHECKING, ChunkPicker, IN_FLIGHT, PeerHandle};

/// What decides besides rarity.
#[derive(Debug, Default)]
pub(super) struct PickRule {
    /// Where all chunks are equally rare, a peer is asked for one after the other.
    pub(super) in_runs: bool,
    /// What readers need comes first.
    pub(super) reads: ReadOrder,
}

/// Which chunks readers need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOrder {
    /// The chunks from each reader on, the reader that is to be served first at the front.
    pub windows: Vec<ReadWindow>,
    /// Only what lies in a window is fetched.
    pub alone: bool,
}

/// Chunks ahead of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadWindow {
    /// The chunk that the reader is at.
    pub first: u32,
    /// Number of chunks, which may go beyond the end.
    pub len: u32,
}

impl ReadOrder {
    /// The chunks in windows of a file of `count` chunks, each with its distance from the reader. Chunks
    /// of several windows come several times.
    fn chunks(&self, count: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let chunks = move |w: &ReadWindow| (w.first..w.first.saturating_add(w.len).min(count)).zip(0..);
        self.windows.iter().flat_map(chunks)
    }

    /// The next chunks of all readers, the ones that are needed first at the front.
    fn urgent(&self, count: u32) -> impl Iterator<Item = u32> + '_ {
        let at = |n: u32| self.windows.iter().filter(move |w| n < w.len).filter_map(move |w| w.first.checked_add(n));
        (0..READ_URGENT_CHUNKS).flat_map(at).filter(move |&chunk| chunk < count)
    }
}

impl ChunkPicker {
    /// From now on the chunks are asked for in the order in which readers need them.
    pub fn set_reads(&mut self, reads: ReadOrder) {
        self.rule.reads = reads;
    }

    /// The chunk that readers need of `peer` next: one right ahead of a reader that another peer is
    /// late with, or one of a window that no peer is asked for.
    pub fn acquire_read(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        if self.rule.reads.windows.is_empty() {
            return None;
        }
        if let Some(chunk) = self.late_read(peer, now) {
            return self.ask_second(chunk, peer, now);
        }
        let chunk = self.next_read(peer)?;
        self.ask(chunk, peer, now);
        Some(chunk)
    }

    /// Whether readers lack no chunk of their windows.
    pub fn are_reads_served(&self) -> bool {
        let lacks = |chunk: u32| self.place[chunk as usize] < CHECKING || self.place[chunk as usize] == IN_FLIGHT;
        !self.rule.reads.chunks(self.len()).any(|(chunk, _)| lacks(chunk))
    }

    /// Whether a reader needs `chunk`.
    pub(super) fn is_read(&self, chunk: u32) -> bool {
        self.rule.reads.windows.iter().any(|w| chunk.checked_sub(w.first).is_some_and(|at| at < w.len))
    }

    /// Missing chunks that `peer` could be asked for.
    pub fn wanted_of(&self, peer: PeerHandle) -> u32 {
        if self.rule.reads.alone {
            let mut windows: Vec<u32> = self.rule.reads.chunks(self.len()).map(|(chunk, _)| chunk).collect();
            windows.sort_unstable();
            windows.dedup();
            return windows.into_iter().filter(|&chunk| self.is_to_ask(chunk, peer)).count() as u32;
        }
        self.peers.get(&peer).map_or(0, |p| if p.holds.is_none() { self.missing() } else { p.wanted })
    }

    /// Whether every chunk that is to be fetched is there or asked for.
    pub(super) fn is_all_asked(&self) -> bool {
        let is_missing = |chunk: u32| self.place[chunk as usize] < CHECKING;
        match self.rule.reads.alone {
            true => !self.rule.reads.chunks(self.len()).any(|(chunk, _)| is_missing(chunk)),
            false => self.order.is_empty(),
        }
    }

    fn next_read(&self, peer: PeerHandle) -> Option<u32> {
        let reads = &self.rule.reads;
        let urgent = reads.urgent(self.len()).find(|&chunk| self.is_to_ask(chunk, peer));
        let ahead = || {
            let chunks = reads.chunks(self.len()).filter(|&(chunk, _)| self.is_to_ask(chunk, peer));
            chunks.min_by_key(|&(chunk, distance)| (self.copies[chunk as usize], distance)).map(|(chunk, _)| chunk)
        };
        urgent.or_else(ahead)
    }

    /// A chunk right ahead of a reader that should have come long ago.
    fn late_read(&self, thief: PeerHandle, now: Instant) -> Option<u32> {
        let is_late = |&chunk: &u32| {
            self.place[chunk as usize] == IN_FLIGHT && self.may_second(chunk, thief, now, StealReason::Late)
        };
        self.rule.reads.urgent(self.len()).find(is_late).filter(|_| self.may_steal(thief, now))
    }

    /// Whether `chunk` is missing and `peer` holds it.
    fn is_to_ask(&self, chunk: u32, peer: PeerHandle) -> bool {
        self.place[chunk as usize] < CHECKING && self.holds(peer, chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::content::{Bitfield, Geometry};
    use crate::swarm::download::limits::END_GAME_AT_ONCE;
    use crate::swarm::download::picker::ChunkState;

    const MS: Duration = Duration::from_millis(1);

    fn reads(windows: &[(u32, u32)], alone: bool) -> ReadOrder {
        ReadOrder { windows: windows.iter().map(|&(first, len)| ReadWindow { first, len }).collect(), alone }
    }

    fn asked(p: &mut ChunkPicker, peer: u16, now: Instant, max: usize) -> Vec<u32> {
        std::iter::from_fn(|| p.acquire(PeerHandle(peer), now)).take(max).collect()
    }

    #[test]
    fn what_is_read_comes_in_order_and_the_rest_last_or_not_at_all() {
        for alone in [true, false] {
            let (mut p, t) = (ChunkPicker::new(1000, 7), Instant::now());
            p.add_complete(PeerHandle(0));
            p.set_reads(reads(&[(500, 40)], alone));
            assert_eq!(asked(&mut p, 0, t, 40), (500..540).collect::<Vec<_>>());
            let rest = asked(&mut p, 0, t, 10);
            assert_eq!(rest.len(), if alone { 0 } else { 10 });
            assert!(rest.iter().all(|chunk| !(500..540).contains(chunk)));
            // A reader that jumps is served before what was ahead of it.
            p.set_reads(reads(&[(20, 4)], alone));
            assert_eq!(p.acquire(PeerHandle(0), t), Some(20));
        }
    }

    #[test]
    fn several_readers_are_served_in_turn_and_none_beyond_the_end() {
        let (mut p, t) = (ChunkPicker::new(100, 7), Instant::now());
        p.add_complete(PeerHandle(0));
        p.set_reads(reads(&[(98, 10), (50, 3), (u32::MAX, 5)], true));
        assert_eq!(asked(&mut p, 0, t, 9), [98, 50, 99, 51, 52]);
    }

    #[test]
    fn right_ahead_the_order_counts_and_beyond_it_the_rarest() {
        let (mut p, t) = (ChunkPicker::new(100, 7), Instant::now());
        p.add_complete(PeerHandle(0));
        let mut common = Bitfield::empty(100);
        let rare = [11, 37, 55];
        Geometry::new(100 * (256 << 10)).chunks().filter(|c| !rare.contains(&c.get())).for_each(|c| {
            common.insert(c);
        });
        p.add_partial(PeerHandle(1), &common);
        p.set_reads(reads(&[(10, 30)], true));
        let got = asked(&mut p, 0, t, 7);
        assert_eq!(got, [10, 11, 12, 13, 37, 14, 15]);
        assert_eq!(p.acquire(PeerHandle(1), t), Some(16), "what it does not hold is not asked of it");
    }

    #[test]
    fn a_reader_does_not_wait_for_a_peer_that_is_late() {
        let (mut p, t) = (ChunkPicker::new(1000, 7), Instant::now());
        (0..2).for_each(|h| p.add_complete(PeerHandle(h)));
        p.set_reads(reads(&[(10, 500)], true));
        assert_eq!(p.acquire(PeerHandle(0), t), Some(10));
        let mut now = t;
        let mut second = None;
        while second.is_none() && now < t + MS * 1000 {
            let chunk = p.acquire(PeerHandle(1), now).unwrap();
            if chunk == 10 {
                second = Some(now);
            }
            now += MS * 10;
            p.complete(chunk, PeerHandle(1), now);
        }
        let waited = second.unwrap() - t;
        assert!(waited >= MS * 100 && waited < MS * 600, "{waited:?}");
        assert!(p.missing() > 0, "other work was left");
    }

    #[test]
    fn only_what_is_read_counts_as_work() {
        let (mut p, t) = (ChunkPicker::new(100, 7), Instant::now());
        p.add_complete(PeerHandle(0));
        p.add_complete(PeerHandle(1));
        p.set_reads(reads(&[(0, 8), (4, 8)], true));
        assert_eq!((p.wanted_of(PeerHandle(0)), p.offer(PeerHandle(0), 8)), (12, Vec::new()));
        let chunks = asked(&mut p, 0, t, 100);
        assert!(chunks.len() == 12 && !p.are_reads_served() && p.wanted_of(PeerHandle(1)) == 0);
        // The last of a window are asked of a second peer, as the last ones of a file are.
        let late = asked(&mut p, 1, t + MS * 10_000, 100);
        assert!(late.len() >= END_GAME_AT_ONCE, "{late:?}");
        chunks.iter().for_each(|&chunk| assert!(p.complete(chunk, PeerHandle(0), t + MS).fresh));
        assert!(p.are_reads_served() && !p.is_done());
        assert_eq!(p.acquire(PeerHandle(1), t + MS * 2), None);
    }

    /// Reads all chunks of `len` in order as they come, with the window that a reader has, or fetches
    /// them in any order. The time until all of it is there.
    fn fetch(len: u32, speeds: &[u32], window: Option<u32>) -> Duration {
        let (mut p, t) = (ChunkPicker::new(len, 7), Instant::now());
        let mut queues: Vec<Vec<(Instant, u32)>> = vec![Vec::new(); speeds.len()];
        (0..speeds.len() as u16).for_each(|h| p.add_complete(PeerHandle(h)));
        let (mut now, mut at) = (t, 0);
        while !p.is_done() {
            if let Some(ahead) = window {
                while p.state(at) == Some(ChunkState::Have) {
                    at += 1;
                }
                p.set_reads(reads(&[(at, ahead)], true));
            }
            for (h, queue) in queues.iter_mut().enumerate() {
                let peer = PeerHandle(h as u16);
                while let Some(&(due, chunk)) = queue.first().filter(|(due, _)| *due <= now) {
                    queue.remove(0);
                    p.complete(chunk, peer, due);
                }
                while queue.len() < 3 {
                    let Some(chunk) = p.acquire(peer, now) else { break };
                    let from = queue.last().map_or(now, |q| q.0);
                    queue.push((from + MS * speeds[h], chunk));
                }
            }
            now += MS;
            assert!(now - t < Duration::from_secs(600), "no end");
        }
        now - t
    }

    #[test]
    fn reading_in_order_takes_no_longer_than_fetching() {
        for speeds in [&[5][..], &[5, 5, 5], &[3, 9, 27], &[4, 4, 4, 200]] {
            let (any, read) = (fetch(600, speeds, None), fetch(600, speeds, Some(128)));
            println!("{speeds:?}: fetched in {any:?}, read in {read:?}");
            assert!(read.as_secs_f64() <= any.as_secs_f64() * 1.1, "{speeds:?}: {read:?} over {any:?}");
        }
    }
}
