//! The rarest missing chunk that a peer holds.

use crate::swarm::download::limits::PROBES_MAX;
use crate::swarm::download::picker::{CHECKING, ChunkPicker, PeerHandle};
use crate::swarm::random::next_random;

impl ChunkPicker {
    /// The chunk after the last one of a peer that is asked in runs, if it is as rare as any.
    pub(super) fn following(&self, peer: PeerHandle) -> Option<u32> {
        let state = self.peers.get(&peer).filter(|_| self.rule.in_runs)?;
        let (chunk, rarest) = (state.last? + 1, *self.order.first()?);
        let missing = self.place.get(chunk as usize).is_some_and(|&place| place < CHECKING);
        let held = state.holds.as_ref().is_none_or(|b| missing && b.get(chunk));
        (missing && held && self.copies[chunk as usize] <= self.copies[rarest as usize]).then_some(chunk)
    }

    /// The rarest missing chunk that `peer` holds.
    ///
    /// Groups of equally rare chunks are tried from the rarest on, each from a random place. At
    /// most [`PROBES_MAX`] chunks of a group are looked at, so that the cost does not grow with the
    /// file: for a peer that holds few of many chunks, the result is then the rarest of a sample of
    /// what it holds.
    pub(super) fn rarest(&mut self, peer: PeerHandle) -> Option<u32> {
        let state = self.peers.get(&peer)?;
        let wanted = if state.holds.is_none() { self.order.len() as u32 } else { state.wanted };
        if wanted == 0 {
            return None;
        }
        // All missing chunks come from the only complete holder already, whichever it chooses.
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
                // Chunks that another complete holder may be sending come last.
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
}
