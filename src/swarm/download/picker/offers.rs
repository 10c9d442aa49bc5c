//! Chunks that a complete holder chooses from (super-seeding, BEP 16).
//!
//! When many peers ask one seed at the same time, each on its own finds the same chunks rarest. The
//! seed sees all of these requests: it gives each peer the chunk that it has sent least, and the
//! peers then fetch the rest from each other. When the turn of a request comes, which may take
//! seconds, the holder also knows better than the peer did which chunks are rare.

use std::time::Instant;

use crate::swarm::download::limits::PROBES_MAX;
use crate::swarm::download::picker::{ChunkPicker, ChunkRequest, ChunkState, IN_FLIGHT, PeerHandle, latest};
use crate::swarm::random::next_random;

impl ChunkPicker {
    /// Lets a complete holder choose: at most `max` missing chunks, rarest first.
    ///
    /// The only complete holder always chooses, as peers that begin at the same time may not know
    /// of each other yet. With several complete holders, each is offered other chunks, and none
    /// while no partial peer is known: then there is no peer to share with. The chunks stay missing
    /// until [`begin`](Self::begin), and [`withdraw`](Self::withdraw) ends the offer. No holder
    /// chooses among chunks that readers need, nor where only these are fetched.
    pub fn offer(&mut self, peer: PeerHandle, max: usize) -> Vec<u32> {
        if self.order.len() <= self.offers.len() || self.rule.reads.alone || !self.is_complete(peer) {
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
            let is_free = |c: &u32| (alone || !self.is_offered(*c)) && !self.is_read(*c);
            chunks.extend(around.filter(is_free).take(n - chunks.len()));
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

    /// `peer`, which was asked at `since`, is sending `chunk`.
    pub fn begin(&mut self, chunk: u32, peer: PeerHandle, since: Instant) {
        let asked = ChunkRequest { peer, since };
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

    /// Number of complete holders.
    pub(super) fn complete_holders(&self) -> usize {
        self.peers.values().filter(|p| p.holds.is_none()).count()
    }

    /// Whether a complete holder may be sending `chunk`.
    pub(super) fn is_offered(&self, chunk: u32) -> bool {
        self.offers.iter().any(|offer| offer.1.contains(&chunk))
    }
}
