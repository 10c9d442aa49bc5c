//! Chooses the chunk to ask a peer for.
//!
//! Pure: time and the seed of the random ties are arguments. A picker knows chunks by number only,
//! so that it serves the chunks of one large file as well as a batch of one-chunk files.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::content::Bitfield;
use crate::swarm::download::number_map::NumberMap;
use crate::swarm::download::picker::bits::Bits;
use crate::swarm::download::picker::end_game::{PeerHistory, StealReason};

mod bits;
mod end_game;
mod offers;
mod order;
mod rarest;
mod reads;

use reads::PickRule;
pub use reads::{ReadOrder, ReadWindow};

/// A peer, as small as its owner numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerHandle(pub u16);

/// What is known of one chunk; it is always exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    /// No peer is asked for it.
    Missing,
    /// ChunkRequest of one peer, and perhaps of a second one, too.
    InFlight(ChunkRequest, Option<ChunkRequest>),
    /// Kept from an earlier run and being verified.
    Checking,
    /// Verified and kept.
    Have,
}

/// The peer that is asked for a chunk, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRequest {
    /// The peer.
    pub peer: PeerHandle,
    /// When it was asked.
    pub since: Instant,
}

/// What a completed chunk was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// False when the chunk was there already, so that these bytes were wasted.
    pub fresh: bool,
    /// The other peers that were asked for it; what they still send of it is wasted.
    pub others: [Option<PeerHandle>; 2],
}

/// Chooses chunks: rarest first with random ties, at most two requests for each, stealing from slow
/// peers.
///
/// Rarest first spreads the pieces that few peers hold before their holders leave (Cohen,
/// "Incentives build robustness in BitTorrent", 2003; BEP 3). The missing chunks lie in one array,
/// grouped by the number of partial peers that hold them, so that each change is a few swaps. Peers
/// that hold everything make no chunk rarer than another and are not counted. The picker takes
/// about 10 bytes a chunk.
#[derive(Debug)]
pub struct ChunkPicker {
    /// The missing chunks; the ones with the fewest copies come first.
    order: Vec<u32>,
    /// Position of each chunk in `order`, or [`CHECKING`], [`IN_FLIGHT`] or [`HAVE`].
    place: Vec<u32>,
    /// Number of partial peers that hold each chunk.
    copies: Vec<u16>,
    /// End of each group of `order`, by number of copies.
    ends: Vec<u32>,
    in_flight: NumberMap<u32, (ChunkRequest, Option<ChunkRequest>)>,
    /// Chunks in flight by the time of their last request.
    by_age: BTreeSet<(Instant, u32)>,
    peers: NumberMap<PeerHandle, PickerPeer>,
    /// Missing chunks that complete holders were offered to choose from.
    offers: Vec<(PeerHandle, Vec<u32>)>,
    rule: PickRule,
    have: u32,
    checking: u32,
    random: u64,
}

#[derive(Debug)]
struct PickerPeer {
    /// `None`: everything.
    holds: Option<Bits>,
    /// Missing chunks that a partial peer holds.
    wanted: u32,
    /// The chunk that it was asked for last.
    last: Option<u32>,
    history: PeerHistory,
}

impl ChunkPicker {
    /// Nothing of `len` chunks is there yet. `seed` decides the random ties.
    pub fn new(len: u32, seed: u64) -> Self {
        ChunkPicker {
            order: (0..len).collect(),
            place: (0..len).collect(),
            copies: vec![0; len as usize],
            ends: vec![len],
            in_flight: NumberMap::default(),
            by_age: BTreeSet::new(),
            peers: NumberMap::default(),
            offers: Vec::new(),
            rule: PickRule::default(),
            have: 0,
            checking: 0,
            random: seed,
        }
    }

    /// The chunks in `have` are there already, the ones in `checking` perhaps: each is asked for
    /// only if [`checked`](Self::checked) says that it is wrong.
    pub fn resuming(have: &Bitfield, checking: &Bitfield, seed: u64) -> Self {
        let mut picker = Self::new(have.len(), seed);
        picker.order.retain(|&c| !have.bit(c) && !checking.bit(c));
        picker.place.fill(HAVE);
        checking.iter().for_each(|c| picker.place[c as usize] = CHECKING);
        picker.checking = checking.count();
        for (at, &chunk) in picker.order.iter().enumerate() {
            picker.place[chunk as usize] = at as u32;
        }
        picker.ends[0] = picker.order.len() as u32;
        picker.have = have.count();
        picker
    }

    /// Where all chunks are equally rare, a peer is asked for the one after its last one; its first
    /// one is random. This is for chunks that are files of their own, in order of their names: both
    /// ends then work in few directories at a time.
    pub fn in_runs(self) -> Self {
        ChunkPicker { rule: PickRule { in_runs: true, ..self.rule }, ..self }
    }

    /// `peer` holds every chunk. O(1) for a new peer.
    pub fn add_complete(&mut self, peer: PeerHandle) {
        let history = self.forget_holdings(peer);
        self.peers.insert(peer, PickerPeer { holds: None, wanted: 0, last: None, history });
    }

    /// `peer` holds exactly these chunks.
    pub fn add_partial(&mut self, peer: PeerHandle, holds: &Bitfield) {
        let history = self.forget_holdings(peer);
        let len = self.len();
        self.peers.insert(peer, PickerPeer { holds: Some(Bits::empty(len)), wanted: 0, last: None, history });
        for chunk in holds.iter().take_while(|&c| c < len) {
            self.add_have(peer, chunk);
        }
    }

    /// `peer` now holds `chunk`, too; a new peer holds only that one.
    pub fn add_have(&mut self, peer: PeerHandle, chunk: u32) {
        let len = self.len();
        let state = self.peers.entry(peer).or_insert_with(|| PickerPeer {
            holds: Some(Bits::empty(len)),
            wanted: 0,
            last: None,
            history: PeerHistory::default(),
        });
        let Some(bits) = &mut state.holds else { return };
        if chunk >= len || !bits.set(chunk, true) {
            return;
        }
        let place = self.place[chunk as usize];
        if place < CHECKING {
            state.wanted += 1;
            self.move_up(place);
        }
        self.copies[chunk as usize] += 1;
    }

    /// Forgets `peer`. A chunk that was asked of it alone is missing again.
    pub fn remove_peer(&mut self, peer: PeerHandle) {
        self.release_peer(peer);
        self.offers.retain(|offer| offer.0 != peer);
        self.forget_holdings(peer);
    }

    /// Whether `peer` holds everything.
    pub fn is_complete(&self, peer: PeerHandle) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.holds.is_none())
    }

    /// Whether `peer` holds `chunk`.
    pub fn holds(&self, peer: PeerHandle, chunk: u32) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.holds.as_ref().is_none_or(|bits| chunk < self.len() && bits.get(chunk)))
    }

    /// Whether a partial peer is known: another node that fetches the same.
    pub fn is_shared(&self) -> bool {
        self.peers.values().any(|p| p.holds.is_some())
    }

    /// The chunk to ask `peer` for next: one that a silent peer was asked for, else the rarest
    /// missing one, else what [`acquire_end_game`](Self::acquire_end_game) finds.
    pub fn acquire(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        self.acquire_new(peer, now).or_else(|| self.acquire_end_game(peer, now))
    }

    /// Like [`acquire`](Self::acquire) without the end game.
    pub fn acquire_new(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        if let Some(chunk) = self.steal(peer, now, StealReason::Silent) {
            return Some(chunk);
        }
        if let Some(chunk) = self.acquire_read(peer, now) {
            return Some(chunk);
        }
        if self.rule.reads.alone {
            return None;
        }
        let chunk = self.following(peer).or_else(|| self.rarest(peer))?;
        self.ask(chunk, peer, now);
        Some(chunk)
    }

    /// The missing `chunk` is asked of `peer`.
    fn ask(&mut self, chunk: u32, peer: PeerHandle, now: Instant) {
        if let Some(p) = self.peers.get_mut(&peer) {
            p.last = Some(chunk);
        }
        self.take_out(chunk, IN_FLIGHT);
        self.in_flight.insert(chunk, (ChunkRequest { peer, since: now }, None));
        self.by_age.insert((now, chunk));
    }

    /// The verified `chunk` came from `peer`, even if that is not asked for it (any longer).
    pub fn complete(&mut self, chunk: u32, peer: PeerHandle, now: Instant) -> Completed {
        let mut done = Completed { fresh: false, others: [None; 2] };
        if let Some(p) = self.peers.get_mut(&peer) {
            p.history.last_came = Some(now);
            // The chunk came too late, but shows how long this peer takes: its next chunks are left
            // to it for that long.
            if let Some((_, since)) = p.history.stolen.take_if(|r| r.0 == chunk && self.place[chunk as usize] == HAVE) {
                self.learn(peer, now.saturating_duration_since(since));
            }
        }
        match self.place.get(chunk as usize) {
            None | Some(&(HAVE | CHECKING)) => return done,
            Some(&IN_FLIGHT) => {
                if let Some((first, second)) = self.in_flight.remove(&chunk) {
                    self.by_age.remove(&(latest(first, second), chunk));
                    for (asked, other) in [Some(first), second].into_iter().flatten().zip(&mut done.others) {
                        if asked.peer == peer {
                            self.learn(peer, now.saturating_duration_since(asked.since));
                        } else {
                            *other = Some(asked.peer);
                        }
                    }
                }
                self.place[chunk as usize] = HAVE;
            }
            Some(_) => self.take_out(chunk, HAVE),
        }
        self.have += 1;
        done.fresh = true;
        done
    }

    /// What `peer` sent for `chunk` is bad: it is not asked for that chunk again.
    pub fn reject(&mut self, chunk: u32, peer: PeerHandle) {
        self.release(chunk, peer);
        let len = self.len();
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.holds.is_none() {
            self.add_partial(peer, &Bitfield::full(len));
        }
        self.drop_have(peer, chunk);
    }

    /// `peer` will not send `chunk` now; it is missing again unless a second peer was asked.
    pub fn release(&mut self, chunk: u32, peer: PeerHandle) {
        let Some(&(first, second)) = self.in_flight.get(&chunk) else { return };
        let left = match (first.peer == peer, second) {
            (true, Some(other)) => Some(other),
            (false, Some(other)) if other.peer == peer => Some(first),
            (true, None) => None,
            _ => return,
        };
        self.by_age.remove(&(latest(first, second), chunk));
        match left {
            Some(asked) => {
                self.in_flight.insert(chunk, (asked, None));
                self.by_age.insert((asked.since, chunk));
            }
            None => {
                self.in_flight.remove(&chunk);
                self.put_in(chunk);
            }
        }
    }

    /// `peer` will send none of the chunks that it was asked for.
    pub fn release_peer(&mut self, peer: PeerHandle) {
        let of_peer = |a: &ChunkRequest| a.peer == peer;
        let mut chunks: Vec<u32> = self
            .in_flight
            .iter()
            .filter(|(_, (first, second))| of_peer(first) || second.as_ref().is_some_and(of_peer))
            .map(|(&chunk, _)| chunk)
            .collect();
        // Sorted, so that the same seed leads to the same choices.
        chunks.sort_unstable();
        for chunk in chunks {
            self.release(chunk, peer);
        }
    }

    /// A chunk that was being verified is right, or is missing.
    pub fn checked(&mut self, chunk: u32, right: bool) {
        if self.place.get(chunk as usize) != Some(&CHECKING) {
            return;
        }
        self.checking -= 1;
        if right {
            self.place[chunk as usize] = HAVE;
            self.have += 1;
        } else {
            self.put_in(chunk);
        }
    }

    /// Whether chunks of an earlier run are still being verified.
    pub fn is_checking(&self) -> bool {
        self.checking > 0
    }

    /// A chunk that counted as there is missing.
    pub fn want(&mut self, chunk: u32) {
        if self.place.get(chunk as usize) == Some(&HAVE) {
            self.have -= 1;
            self.put_in(chunk);
        }
    }

    /// Chunks that `peer` is asked for, alone or besides another, and offers to it.
    #[cfg(test)]
    pub(super) fn in_flight_of(&self, peer: PeerHandle) -> usize {
        let asked = |(first, second): &&(ChunkRequest, Option<ChunkRequest>)| {
            first.peer == peer || second.is_some_and(|second| second.peer == peer)
        };
        self.in_flight.values().filter(asked).count() + self.offers.iter().filter(|offer| offer.0 == peer).count()
    }

    /// The state of `chunk`; `None` beyond the last one.
    pub fn state(&self, chunk: u32) -> Option<ChunkState> {
        Some(match *self.place.get(chunk as usize)? {
            HAVE => ChunkState::Have,
            CHECKING => ChunkState::Checking,
            IN_FLIGHT => self.in_flight.get(&chunk).map_or(ChunkState::Missing, |&(a, b)| ChunkState::InFlight(a, b)),
            _ => ChunkState::Missing,
        })
    }

    /// Number of chunks.
    pub fn len(&self) -> u32 {
        self.place.len() as u32
    }

    /// Whether there are no chunks at all.
    pub fn is_empty(&self) -> bool {
        self.place.is_empty()
    }

    /// Chunks that no peer is asked for.
    pub fn missing(&self) -> u32 {
        self.order.len() as u32
    }

    /// Chunks that are there.
    pub fn have(&self) -> u32 {
        self.have
    }

    /// Whether every chunk is there.
    pub fn is_done(&self) -> bool {
        self.have == self.len()
    }
}

/// When a chunk was asked for last.
fn latest(first: ChunkRequest, second: Option<ChunkRequest>) -> Instant {
    second.map_or(first.since, |s| s.since.max(first.since))
}

// Values of `place` that are no positions.
const CHECKING: u32 = u32::MAX - 2;
const IN_FLIGHT: u32 = u32::MAX - 1;
const HAVE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
