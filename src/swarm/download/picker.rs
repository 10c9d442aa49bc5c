//! Which chunk to ask which peer for.
//!
//! Pure: time and the seed of the random ties are arguments. A picker knows chunks by number only, so it serves the
//! chunks of one large file as well as a batch of one-chunk files.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::content::Bitfield;
use crate::swarm::download::limits::{LATE_AT_ONCE, PROBES_MAX};
use crate::swarm::download::picker::bits::Bits;
use crate::swarm::download::picker::numbers::NumberMap;
use crate::swarm::random::next_random;

mod bits;
pub(super) mod numbers;
mod order;

/// A peer, as small as its owner numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerHandle(pub u16);

/// What is known of one chunk; it is always exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    /// Nobody is asked for it.
    Missing,
    /// Asked of one peer since then, perhaps of a second one too.
    InFlight(Asked, Option<Asked>),
    /// Kept from an earlier run and being verified.
    Checking,
    /// Verified and kept.
    Have,
}

/// Who was asked for a chunk, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The peer.
    pub peer: PeerHandle,
    /// When.
    pub since: Instant,
}

/// What a completed chunk was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// False when the chunk was had already, so that these bytes were wasted.
    pub fresh: bool,
    /// Who else was asked for it; what they still send of it is wasted.
    pub others: [Option<PeerHandle>; 2],
}

/// Chooses chunks: rarest first with random ties, at most two requesters for each, stealing from the slow.
///
/// The missing chunks lie in one array, grouped by how many partial peers hold them, so every step is a few swaps;
/// peers that hold everything make no chunk rarer than another and are not counted. About 10 bytes a chunk.
#[derive(Debug)]
pub struct ChunkPicker {
    /// The missing chunks, those with the fewest copies first.
    order: Vec<u32>,
    /// Position of each chunk in `order`, or [`CHECKING`], [`IN_FLIGHT`] or [`HAVE`].
    place: Vec<u32>,
    /// How many partial peers hold each chunk.
    copies: Vec<u16>,
    /// Where each group of `order` (by number of copies) ends.
    ends: Vec<u32>,
    in_flight: NumberMap<u32, (Asked, Option<Asked>)>,
    /// Chunks in flight by when they were asked for last.
    by_age: BTreeSet<(Instant, u32)>,
    peers: NumberMap<PeerHandle, Peer>,
    /// Missing chunks of which complete holders were asked for any one.
    offers: Vec<(PeerHandle, Vec<u32>)>,
    /// Whether each peer is asked for one chunk after the other where all are equally rare.
    in_runs: bool,
    have: u32,
    checking: u32,
    random: u64,
}

#[derive(Debug)]
struct Peer {
    /// `None`: everything.
    holds: Option<Bits>,
    /// Missing chunks that a partial peer holds.
    wanted: u32,
    /// The chunk that it was asked for last.
    last: Option<u32>,
    history: History,
}

/// What a peer did so far, of those with a history.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    /// Mean time from request to completion.
    chunk_time: Option<Duration>,
    /// When a chunk came last.
    heard: Option<Instant>,
    /// What was last asked of another in its place, and when it was asked for that.
    robbed: Option<(u32, Instant)>,
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
            in_runs: false,
            have: 0,
            checking: 0,
            random: seed,
        }
    }

    /// The chunks in `have` are there already, those in `checking` perhaps: each is asked for only if
    /// [`checked`](Self::checked) says that it is wrong.
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

    /// Where random ties decide, each peer is asked for what follows the chunk before: for chunks that are files of their
    /// own, in order of their names, so that both ends work in few directories at a time. Where a peer begins is random.
    pub fn in_runs(self) -> Self {
        ChunkPicker { in_runs: true, ..self }
    }

    /// `peer` holds every chunk. O(1) for a new peer.
    pub fn add_complete(&mut self, peer: PeerHandle) {
        let history = self.forget_holdings(peer);
        self.peers.insert(peer, Peer { holds: None, wanted: 0, last: None, history });
    }

    /// `peer` holds these chunks; replaces what was known of it.
    pub fn add_partial(&mut self, peer: PeerHandle, holds: &Bitfield) {
        let history = self.forget_holdings(peer);
        let len = self.len();
        self.peers.insert(peer, Peer { holds: Some(Bits::empty(len)), wanted: 0, last: None, history });
        for chunk in holds.iter().take_while(|&c| c < len) {
            self.add_have(peer, chunk);
        }
    }

    /// `peer` now holds `chunk` too; a peer that is new begins with only that.
    pub fn add_have(&mut self, peer: PeerHandle, chunk: u32) {
        let len = self.len();
        let state = self.peers.entry(peer).or_insert_with(|| Peer {
            holds: Some(Bits::empty(len)),
            wanted: 0,
            last: None,
            history: History::default(),
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

    /// Forgets `peer`: what was asked of it alone is missing again.
    pub fn remove_peer(&mut self, peer: PeerHandle) {
        self.release_peer(peer);
        self.offers.retain(|offer| offer.0 != peer);
        self.forget_holdings(peer);
    }

    /// Whether `peer` holds anything here.
    pub fn knows(&self, peer: PeerHandle) -> bool {
        self.peers.contains_key(&peer)
    }

    /// Whether `peer` holds everything.
    pub fn is_complete(&self, peer: PeerHandle) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.holds.is_none())
    }

    /// Whether others fetch the same.
    pub fn is_shared(&self) -> bool {
        self.peers.values().any(|p| p.holds.is_some())
    }

    /// Whether any peer at all is known.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// What to ask `peer` for next: a chunk that somebody who has fallen silent keeps back, else the rarest missing one,
    /// else what [`acquire_late`](Self::acquire_late) finds.
    pub fn acquire(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        self.acquire_new(peer, now).or_else(|| self.acquire_late(peer, now))
    }

    /// Like [`acquire`](Self::acquire) without the end game.
    pub fn acquire_new(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        if let Some(chunk) = self.steal(peer, now, Excuse::Silent) {
            return Some(chunk);
        }
        let chunk = self.following(peer).or_else(|| self.rarest(peer))?;
        if let Some(p) = self.peers.get_mut(&peer) {
            p.last = Some(chunk);
        }
        self.take_out(chunk, IN_FLIGHT);
        self.in_flight.insert(chunk, (Asked { peer, since: now }, None));
        self.by_age.insert((now, chunk));
        Some(chunk)
    }

    /// Once nothing at all is missing: a chunk that somebody three times slower keeps back, or one in flight for twice
    /// as long as this peer takes, to be asked of two. Before, a peer without anything new waits: asking for what comes
    /// anyway would only take from others. Only a few at a time, as they may still come from whoever was asked first.
    pub fn acquire_late(&mut self, peer: PeerHandle, now: Instant) -> Option<u32> {
        if !self.order.is_empty() {
            return None;
        }
        let shared = self.in_flight.values().filter(|(_, second)| second.is_some_and(|s| s.peer == peer)).count();
        if shared >= LATE_AT_ONCE {
            return None;
        }
        self.steal(peer, now, Excuse::Slow).or_else(|| self.steal(peer, now, Excuse::Late))
    }

    /// Missing chunks, those that the fewest partial peers are known to hold, at most `max`: for a complete holder to
    /// choose from, so that those who ask it at the same time do not get the same. When its turn comes it knows better
    /// than this peer now which of them are rare: a holder that many ask may take seconds. Many may begin at the same time
    /// without knowing of each other, so a holder that is alone is always let choose. None for other peers, and none while
    /// nobody but several complete holders is known, since then there is nobody to share with.
    ///
    /// The chunks stay missing until [`begin`](Self::begin); [`withdraw`](Self::withdraw) ends the offer.
    pub fn offer(&mut self, peer: PeerHandle, max: usize) -> Vec<u32> {
        if self.order.len() <= self.offers.len() || !self.is_complete(peer) {
            return Vec::new();
        }
        let complete = self.complete_holders();
        // The only complete holder gives none twice; several must not be offered the same.
        let alone = complete == 1;
        if !alone && complete == self.peers.len() {
            return Vec::new();
        }
        let n = if alone { max } else { (self.order.len() / (2 * complete)).clamp(1, max) };
        let (mut chunks, mut probes, mut start) = (Vec::new(), PROBES_MAX + 2 * n, 0);
        for &end in &self.ends {
            let group = &self.order[start as usize..end as usize];
            start = end;
            if group.is_empty() {
                continue;
            }
            let from = (next_random(&mut self.random) % group.len() as u64) as usize;
            let around = group[from..].iter().chain(&group[..from]).copied().take(probes);
            probes -= group.len().min(probes);
            chunks.extend(around.filter(|c| alone || !self.is_offered(*c)).take(n - chunks.len()));
            if chunks.len() == n || probes == 0 {
                break;
            }
        }
        if !chunks.is_empty() {
            self.offers.push((peer, chunks.clone()));
        }
        chunks
    }

    /// An [`offer`](Self::offer) has ended.
    pub fn withdraw(&mut self, chunks: &[u32]) {
        if let Some(at) = self.offers.iter().position(|offer| offer.1 == chunks) {
            self.offers.swap_remove(at);
        }
    }

    /// Number of complete holders.
    fn complete_holders(&self) -> usize {
        self.peers.values().filter(|p| p.holds.is_none()).count()
    }

    fn is_offered(&self, chunk: u32) -> bool {
        self.offers.iter().any(|offer| offer.1.contains(&chunk))
    }

    /// `peer`, which was asked at `since`, is sending `chunk`.
    pub fn begin(&mut self, chunk: u32, peer: PeerHandle, since: Instant) {
        let asked = Asked { peer, since };
        match self.state(chunk) {
            Some(ChunkState::Missing) => {
                self.take_out(chunk, IN_FLIGHT);
                self.in_flight.insert(chunk, (asked, None));
                self.by_age.insert((since, chunk));
            }
            Some(ChunkState::InFlight(first, None)) if first.peer != peer => {
                self.by_age.remove(&(first.since, chunk));
                self.in_flight.insert(chunk, (first, Some(asked)));
                self.by_age.insert((latest(first, Some(asked)), chunk));
            }
            _ => {}
        }
    }

    /// The verified `chunk` came from `peer`, whether it was (still) asked or not.
    pub fn complete(&mut self, chunk: u32, peer: PeerHandle, now: Instant) -> Completed {
        let mut done = Completed { fresh: false, others: [None; 2] };
        if let Some(p) = self.peers.get_mut(&peer) {
            p.history.heard = Some(now);
            // Too late, but this shows how long it takes: what it is asked for next is left to it as long.
            if let Some((_, since)) = p.history.robbed.take_if(|r| r.0 == chunk && self.place[chunk as usize] == HAVE) {
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

    /// What `peer` sent for `chunk` is no good: it is not asked for that chunk again.
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

    /// `peer` will send nothing of what it was asked for.
    pub fn release_peer(&mut self, peer: PeerHandle) {
        let of_peer = |a: &Asked| a.peer == peer;
        let mut chunks: Vec<u32> = self
            .in_flight
            .iter()
            .filter(|(_, (first, second))| of_peer(first) || second.as_ref().is_some_and(of_peer))
            .map(|(&chunk, _)| chunk)
            .collect();
        // So that the same seed always leads to the same choices.
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

    /// A chunk that counted as had is missing after all.
    pub fn want(&mut self, chunk: u32) {
        if self.place.get(chunk as usize) == Some(&HAVE) {
            self.have -= 1;
            self.put_in(chunk);
        }
    }

    /// Chunks that `peer` is asked for, alone or besides another, and offers to it.
    #[cfg(test)]
    pub(super) fn in_flight_of(&self, peer: PeerHandle) -> usize {
        let asked = |(first, second): &&(Asked, Option<Asked>)| {
            first.peer == peer || second.is_some_and(|second| second.peer == peer)
        };
        self.in_flight.values().filter(asked).count() + self.offers.iter().filter(|offer| offer.0 == peer).count()
    }

    /// What is known of `chunk`; `None` beyond the last one.
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

    /// Chunks that nobody is asked for.
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

    /// Missing chunks that `peer` could be asked for.
    pub fn wanted_of(&self, peer: PeerHandle) -> u32 {
        self.peers.get(&peer).map_or(0, |p| if p.holds.is_none() { self.missing() } else { p.wanted })
    }

    /// In a run: the chunk after the last one, if it is as good as any.
    fn following(&self, peer: PeerHandle) -> Option<u32> {
        let state = self.peers.get(&peer).filter(|_| self.in_runs)?;
        let (chunk, rarest) = (state.last? + 1, *self.order.first()?);
        let missing = self.place.get(chunk as usize).is_some_and(|&place| place < CHECKING);
        let held = state.holds.as_ref().is_none_or(|b| missing && b.get(chunk));
        (missing && held && self.copies[chunk as usize] <= self.copies[rarest as usize]).then_some(chunk)
    }

    /// The rarest missing chunk that `peer` holds. For a peer with few of many chunks it is the rarest of a sample.
    fn rarest(&mut self, peer: PeerHandle) -> Option<u32> {
        let state = self.peers.get(&peer)?;
        let wanted = if state.holds.is_none() { self.order.len() as u32 } else { state.wanted };
        if wanted == 0 {
            return None;
        }
        // All that is missing comes from the only complete holder already, whatever it chooses.
        if state.holds.is_none() && self.order.len() <= self.offers.len() && self.complete_holders() == 1 {
            return None;
        }
        let mut random = self.random;
        let mut start = 0;
        let mut found = None;
        for &end in &self.ends {
            let group = &self.order[start as usize..end as usize];
            start = end;
            if group.is_empty() {
                continue;
            }
            let from = (next_random(&mut random) % group.len() as u64) as usize;
            found = match &state.holds {
                // Those that another complete holder may be sending come last.
                None => {
                    let free = group[from..].iter().chain(&group[..from]).take(PROBES_MAX);
                    free.copied().find(|&c| !self.is_offered(c))
                }
                Some(bits) if group.len() <= PROBES_MAX => {
                    group[from..].iter().chain(&group[..from]).copied().find(|&c| bits.get(c))
                }
                Some(bits) => (0..PROBES_MAX)
                    .map(|_| group[(next_random(&mut random) % group.len() as u64) as usize])
                    .find(|&c| bits.get(c)),
            };
            if found.is_some() {
                break;
            }
        }
        if found.is_none() && state.holds.is_none() {
            found = self.order.first().copied();
        } else if found.is_none()
            && let Some(bits) = &state.holds
        {
            let from = (next_random(&mut random) % self.place.len() as u64) as u32;
            let missing = bits.iter_from(from).filter(|&c| self.place[c as usize] < CHECKING);
            found = missing.take(PROBES_MAX).min_by_key(|&c| self.copies[c as usize]);
        }
        self.random = random;
        found
    }

    /// A chunk in flight that `thief` has an excuse to ask for, too. Of two who were asked, the elder gives way.
    fn steal(&mut self, thief: PeerHandle, now: Instant, excuse: Excuse) -> Option<u32> {
        let state = self.peers.get(&thief)?;
        self.by_age.first()?;
        let time = state.history.chunk_time.or_else(|| self.mean_chunk_time()).unwrap_or(CHUNK_TIME_UNKNOWN);
        let factor = excuse.factor();
        let limit = time.max(CHUNK_TIME_MIN) * factor;
        let mut found = None;
        for &(since, chunk) in self.by_age.iter().take(PROBES_MAX) {
            let age = now.saturating_duration_since(since);
            if age < limit {
                break;
            }
            let Some(&(first, second)) = self.in_flight.get(&chunk) else { continue };
            if first.peer == thief
                || second.is_some_and(|s| s.peer == thief)
                || !state.holds.as_ref().is_none_or(|b| b.get(chunk))
            {
                continue;
            }
            let history = |asked: Asked| self.peers.get(&asked.peer).map_or(History::default(), |p| p.history);
            let usual = history(first).chunk_time.unwrap_or(time);
            // A long queue before a chunk is no fault of who was asked: it must be late even for that peer.
            let late = age >= usual.max(LATE_MIN) * factor;
            let good = match excuse {
                // What is held up on one connection of a peer that sends on others will come yet.
                Excuse::Silent => [Some(first), second].into_iter().flatten().all(|asked| {
                    let History { chunk_time, heard, .. } = history(asked);
                    let silence = now.saturating_duration_since(heard.map_or(asked.since, |at| at.max(asked.since)));
                    silence >= chunk_time.unwrap_or(time).max(LATE_MIN) * factor
                }),
                Excuse::Slow => late || usual >= limit,
                Excuse::Late => late && second.is_none(),
            };
            if good {
                found = Some(chunk);
                break;
            }
        }
        let chunk = found?;
        let (first, second) = self.in_flight.get_mut(&chunk)?;
        if let Some(p) = self.peers.get_mut(&first.peer) {
            p.history.robbed = Some((chunk, first.since));
        }
        self.by_age.remove(&(latest(*first, *second), chunk));
        if let Some(second) = second
            && second.since > first.since
        {
            *first = *second;
        }
        *second = Some(Asked { peer: thief, since: now });
        self.by_age.insert((latest(*first, *second), chunk));
        Some(chunk)
    }

    fn mean_chunk_time(&self) -> Option<Duration> {
        let times = self.peers.values().filter_map(|p| p.history.chunk_time);
        let (sum, n) = times.fold((Duration::ZERO, 0), |(sum, n), t| (sum + t, n + 1));
        sum.checked_div(n)
    }

    fn learn(&mut self, peer: PeerHandle, time: Duration) {
        if let Some(p) = self.peers.get_mut(&peer) {
            let known = &mut p.history.chunk_time;
            *known = Some(known.map_or(time, |old| (old * 3 + time) / 4));
        }
    }
}

/// Why a peer may ask for what another was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    /// Whoever was asked sends nothing at all any more.
    Silent,
    /// Whoever was asked is much slower.
    Slow,
    /// It should have come long ago.
    Late,
}

impl Excuse {
    /// How many times as long as it should take a chunk must be in flight.
    fn factor(self) -> u32 {
        match self {
            // There is other work, so nothing is lost by waiting.
            Excuse::Silent => 10,
            Excuse::Slow => 3,
            // Most chunks in flight are nearly there, and asking for them too would be waste.
            Excuse::Late => 2,
        }
    }
}

fn latest(first: Asked, second: Option<Asked>) -> Instant {
    second.map_or(first.since, |s| s.since.max(first.since))
}

/// Nothing is asked of a second peer before twice this: delays below it are noise of a busy machine.
const LATE_MIN: Duration = Duration::from_millis(50);
/// Differences below this are noise.
const CHUNK_TIME_MIN: Duration = Duration::from_millis(20);
/// How long a chunk takes while nobody has a history.
const CHUNK_TIME_UNKNOWN: Duration = Duration::from_millis(250);
/// Values of `place` that are no positions.
const CHECKING: u32 = u32::MAX - 2;
const IN_FLIGHT: u32 = u32::MAX - 1;
const HAVE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
