//! The array of missing chunks, grouped by copies. Each change is a few swaps.
//!
//! The groups for 0, 1, 2 ... copies follow each other in `order`, and `ends` has the end of each.
//! A chunk changes to a neighbouring group by a swap to the border between the two, which then
//! moves by one. It leaves the array by one swap in each group behind its own, and comes back the
//! same way. libtorrent keeps its pieces in such an array, too.

use crate::swarm::download::picker::{CHECKING, ChunkPicker, PeerHandle, PeerHistory};

impl ChunkPicker {
    pub(super) fn forget_holdings(&mut self, peer: PeerHandle) -> PeerHistory {
        let Some(old) = self.peers.remove(&peer) else { return PeerHistory::default() };
        if let Some(bits) = old.holds {
            for chunk in bits.iter_from(0) {
                self.one_copy_less(chunk);
            }
        }
        old.history
    }

    pub(super) fn drop_have(&mut self, peer: PeerHandle, chunk: u32) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if let Some(bits) = &mut state.holds
            && bits.set(chunk, false)
        {
            state.wanted -= (self.place[chunk as usize] < CHECKING) as u32;
            self.one_copy_less(chunk);
        }
    }

    fn one_copy_less(&mut self, chunk: u32) {
        let place = self.place[chunk as usize];
        if place < CHECKING {
            let first = self.ends[self.copies[chunk as usize] as usize - 1];
            self.swap(place, first);
            self.ends[self.copies[chunk as usize] as usize - 1] += 1;
        }
        self.copies[chunk as usize] -= 1;
    }

    /// The missing chunk at `place` has one copy more, which is not counted yet.
    pub(super) fn move_up(&mut self, place: u32) {
        let group = self.copies[self.order[place as usize] as usize] as usize;
        if self.ends.len() <= group + 1 {
            self.ends.push(self.order.len() as u32);
        }
        self.ends[group] -= 1;
        self.swap(place, self.ends[group]);
    }

    /// Takes a missing chunk out of `order`; it is `state` from now on.
    pub(super) fn take_out(&mut self, chunk: u32, state: u32) {
        let mut at = self.place[chunk as usize];
        for group in self.copies[chunk as usize] as usize..self.ends.len() {
            self.ends[group] -= 1;
            self.swap(at, self.ends[group]);
            at = self.ends[group];
        }
        self.order.pop();
        self.place[chunk as usize] = state;
        for p in self.peers.values_mut() {
            p.wanted -= p.holds.as_ref().is_some_and(|b| b.get(chunk)) as u32;
        }
    }

    /// Puts a chunk that is not missing back into `order`.
    pub(super) fn put_in(&mut self, chunk: u32) {
        let copies = self.copies[chunk as usize] as usize;
        while self.ends.len() <= copies {
            self.ends.push(self.order.len() as u32);
        }
        let mut at = self.order.len() as u32;
        self.order.push(chunk);
        self.place[chunk as usize] = at;
        let last = self.ends.len() - 1;
        self.ends[last] += 1;
        for group in (copies..last).rev() {
            self.swap(at, self.ends[group]);
            at = self.ends[group];
            self.ends[group] += 1;
        }
        for p in self.peers.values_mut() {
            p.wanted += p.holds.as_ref().is_some_and(|b| b.get(chunk)) as u32;
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize] as usize] = a;
        self.place[self.order[b as usize] as usize] = b;
    }
}
