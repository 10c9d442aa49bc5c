//! The next task of a peer, and what becomes of a task that it does not do.

use std::time::Instant;

use crate::content::{FileId, Geometry};
use crate::limits::ANY_OF_CHUNKS_MAX;
use crate::swarm::download::limits::{HAVE_POLL_MAX, HAVE_POLL_MIN, HOLDERS_ENOUGH, PEERS_POLL_MAX, PEERS_POLL_MIN};
use crate::swarm::download::picker::{ChunkPicker, PeerHandle};
use crate::swarm::download::state::file::{Backoff, DownloadFile, Extent, FilePhase};
use crate::swarm::download::state::{DownloadState, PeerNumbers};
use crate::swarm::download::task::{AnyOfTask, ChunkTask, FileNo, LayerTask, SmallTask, Task};

impl<F: Clone> DownloadState<F> {
    /// What to ask `peer` for next; with `end_game`, also chunks that other peers were asked for
    /// and do not send.
    ///
    /// Layers come first, since their files have nothing else to do; then what is read meanwhile;
    /// then one-chunk files and chunks; the end game last.
    pub fn next_task(&mut self, peer: PeerHandle, now: Instant, end_game: bool) -> Option<Task<F>> {
        if self.useful(peer) == 0 {
            return None;
        }
        let task = self
            .layer_or_have_task(peer, now)
            .or_else(|| self.peers_task(peer, now))
            .or_else(|| self.read_task(peer, now))
            .or_else(|| self.small_task(|small| small.acquire_new(peer, now)))
            .or_else(|| self.any_of_task(peer))
            .or_else(|| self.chunk_task(peer, |picker| picker.acquire_new(peer, now)));
        if task.is_some() || !end_game {
            return task;
        }
        self.chunk_task(peer, |picker| picker.acquire_end_game(peer, now))
            .or_else(|| self.small_task(|small| small.acquire_end_game(peer, now)))
    }

    /// Asks for a layer, or for what a partial holder has by now.
    fn layer_or_have_task(&mut self, peer: PeerHandle, now: Instant) -> Option<Task<F>> {
        for &file in &self.active.files {
            let at = &mut self.files[file as usize];
            // This loop runs for each request: cheap conditions come before the search for the
            // holder.
            let possible = match &at.phase {
                FilePhase::Layer(asks) => {
                    asks.may_ask(peer, self.peers.has_given(peer), Geometry::new(at.id.len).chunk_count(), now)
                }
                FilePhase::Chunks(picker, _) => !picker.is_complete(peer),
                _ => false,
            };
            if !possible {
                continue;
            }
            let holders = at.holders.len() as f64;
            let Some(holder) = at.holders.iter_mut().find(|h| h.peer == peer) else { continue };
            match &mut at.phase {
                FilePhase::Layer(asks) if holder.poll.is_due(now) => {
                    asks.ask(peer, now);
                    return Some(Task::Layer(LayerTask { file, id: at.id, digests: Vec::new() }));
                }
                // While the holder has a wanted chunk, its new haves come with the chunks.
                FilePhase::Chunks(picker, _) if picker.wanted_of(peer) == 0 && holder.poll.is_due(now) => {
                    // Questions without a result stay a small part of the bytes that come.
                    let cost = HAVE_POLL_COST * holders / Geometry::new(at.id.len).chunk_len() as f64;
                    let wait = self.arrivals.usual(now).mul_f64(cost).clamp(HAVE_POLL_MIN, HAVE_POLL_MAX);
                    holder.poll.polled(now, wait);
                    return Some(Task::Have { file, id: at.id, revision: holder.revision });
                }
                _ => {}
            }
        }
        None
    }

    /// Asks a holder for the other peers that fetch a file, while few holders of it are known (as
    /// of a tracker, BEP 3).
    fn peers_task(&mut self, peer: PeerHandle, now: Instant) -> Option<Task<F>> {
        if self.active.files.is_empty() || self.peer_polls.get(&peer).is_some_and(|poll| !poll.is_due(now)) {
            return None;
        }
        let holders_of = |file: FileNo| &self.files[file as usize].holders;
        let few = |&file: &FileNo| holders_of(file).len() < HOLDERS_ENOUGH;
        let held = self
            .active
            .files
            .iter()
            .copied()
            .filter(few)
            .filter(|&file| holders_of(file).iter().any(|holder| holder.peer == peer));
        let file = held.min_by_key(|&file| holders_of(file).len());
        let poll = self.peer_polls.entry(peer).or_insert(Backoff::new(PEERS_POLL_MIN));
        match file {
            Some(file) => {
                poll.polled(now, PEERS_POLL_MAX);
                Some(Task::Peers { file, id: self.id(file) })
            }
            None => {
                // The search does not run again for each request.
                poll.at = Some(now + PEERS_POLL_MIN);
                None
            }
        }
    }

    fn chunk_task(
        &mut self,
        peer: PeerHandle,
        mut acquire: impl FnMut(&mut ChunkPicker) -> Option<u32>,
    ) -> Option<Task<F>> {
        for &file in &self.active.files {
            let at = &mut self.files[file as usize];
            let FilePhase::Chunks(picker, open) = &mut at.phase else { continue };
            picker.set_path(peer, self.peers.paths.get(peer.0 as usize).copied().unwrap_or_default());
            if let Some(chunk) = acquire(picker) {
                let since = at.holders.iter().find(|h| h.peer == peer && h.extent == Extent::Partial);
                let since = since.map_or(0, |h| h.revision);
                return chunk_of(file, at.id, chunk, since, open.clone()).map(Task::Chunk);
            }
        }
        None
    }

    fn read_task(&mut self, peer: PeerHandle, now: Instant) -> Option<Task<F>> {
        if self.reads.is_empty() {
            return None;
        }
        self.small_task(|small| small.acquire_read(peer, now))
            .or_else(|| self.chunk_task(peer, |picker| picker.acquire_read(peer, now)))
    }

    fn any_of_task(&mut self, peer: PeerHandle) -> Option<Task<F>> {
        for &file in &self.active.files {
            let at = &mut self.files[file as usize];
            let FilePhase::Chunks(picker, open) = &mut at.phase else { continue };
            let chunks = picker.offer(peer, ANY_OF_CHUNKS_MAX);
            if !chunks.is_empty() {
                return Some(Task::AnyOf(AnyOfTask { file, id: at.id, chunks, open: open.clone() }));
            }
        }
        None
    }

    fn small_task(&mut self, acquire: impl FnOnce(&mut ChunkPicker) -> Option<u32>) -> Option<Task<F>> {
        let file = self.small.acquire(acquire)?;
        let id = self.id(file);
        let index = Geometry::new(id.len).chunk(0)?;
        self.small.reserve(id.len);
        Some(Task::Small(SmallTask { file, id, index, len: id.len as u32 }))
    }

    /// `peer` gives `chunk` as the answer to `task`, which it was asked at `asked`: now this is a
    /// task like any other chunk. `None` if the chunk was not offered.
    pub fn chosen(
        &mut self,
        task: &AnyOfTask<F>,
        chunk: u32,
        peer: PeerHandle,
        asked: Instant,
    ) -> Option<ChunkTask<F>> {
        let AnyOfTask { file, id, chunks, open } = task;
        if !chunks.contains(&chunk) {
            return None;
        }
        if let FilePhase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
            picker.withdraw(chunks);
            picker.begin(chunk, peer, asked);
        }
        chunk_of(*file, *id, chunk, 0, open.clone())
    }

    /// `peer` does not do the task now: other peers may.
    pub fn give_back(&mut self, task: &Task<F>, peer: PeerHandle) {
        match task {
            Task::Chunk(ChunkTask { file, index, .. }) => {
                if let FilePhase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
                    picker.release(index.get(), peer);
                }
            }
            Task::Small(SmallTask { file, id, .. }) => {
                self.small.release(id.len);
                if let FilePhase::Small(slot) = self.files[*file as usize].phase {
                    self.small.picker.release(slot, peer);
                }
            }
            Task::Layer(LayerTask { file, .. }) => {
                if let FilePhase::Layer(asks) = &mut self.files[*file as usize].phase {
                    asks.fail(peer);
                }
            }
            Task::AnyOf(AnyOfTask { file, chunks, .. }) => {
                if let FilePhase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
                    picker.withdraw(chunks);
                }
            }
            Task::Have { .. } | Task::Peers { .. } | Task::Locate(_) => {}
        }
    }

    /// The bytes of chunks that no peer was asked for yet, if all files are under way and a peer gives that is at less
    /// than half the distance of `peer`: it would bring them sooner.
    pub fn left_to_nearer(&self, peer: PeerHandle) -> Option<u64> {
        if (self.next as usize) < self.files.len() || !self.peers.has_nearer(peer) {
            return None;
        }
        let left = self.active.files.iter().map(|&file| match &self.files[file as usize] {
            DownloadFile { phase: FilePhase::Chunks(picker, _), id, .. } => {
                u64::from(picker.missing()) * Geometry::new(id.len).chunk_len()
            }
            DownloadFile { phase: FilePhase::Finishing, .. } => 0,
            // Its chunks come once it is open.
            _ => u64::MAX,
        });
        Some(left.fold(u64::from(self.small.picker.missing()) * SMALL_COST, u64::saturating_add))
    }

    /// Roughly the bytes that `peer` could be asked for at once: whether a further connection could
    /// help.
    pub fn backlog(&self, peer: PeerHandle) -> u64 {
        let chunks = self.active.files.iter().map(|&file| match &self.files[file as usize] {
            DownloadFile { phase: FilePhase::Chunks(picker, _), id, .. } => {
                picker.wanted_of(peer) as u64 * Geometry::new(id.len).chunk_len()
            }
            _ => 0,
        });
        chunks.sum::<u64>() + self.small.picker.wanted_of(peer) as u64 * SMALL_COST
    }
}

impl PeerNumbers {
    /// Whether a peer that has given, and holds something that is wanted, is at less than half the distance of `peer`.
    fn has_nearer(&self, peer: PeerHandle) -> bool {
        let own = self.paths.get(peer.0 as usize).copied().unwrap_or_default();
        let mut all = self.paths.iter().zip(&self.gave).zip(&self.useful);
        all.any(|((&path, &gave), &useful)| gave && useful > 0 && path < own / 2)
    }
}

fn chunk_of<F>(file: FileNo, id: FileId, chunk: u32, since: u64, open: F) -> Option<ChunkTask<F>> {
    let geometry = Geometry::new(id.len);
    let index = geometry.chunk(chunk)?;
    let len = geometry.span(index).len;
    Some(ChunkTask { file, id, index, len, since, open })
}

/// Bytes of chunks that must come for each question for new haves: a few hundred times what the
/// question costs.
const HAVE_POLL_COST: f64 = 80e3;
/// What a one-chunk file counts for in [`DownloadState::backlog`], in bytes: however short, it
/// takes a round trip.
const SMALL_COST: u64 = 64 << 10;
