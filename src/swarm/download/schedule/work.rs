//! What to ask whom for next, and what to do when it does not come.

use std::time::Instant;

use crate::content::{FileId, Geometry};
use crate::limits::{ANY_OF_CHUNKS_MAX, SMALL_FILES_LEN_MAX};
use crate::swarm::download::limits::{
    HAVE_POLL_MAX, HAVE_POLL_MIN, HOLDERS_ENOUGH, LAYER_PATIENCE, PEERS_POLL_MAX, PEERS_POLL_MIN,
};
use crate::swarm::download::schedule::{Backoff, DownloadState, File, Held, Phase, small_weight};
use crate::swarm::download::task::{AnyOfTask, ChunkTask, FileNo, LayerTask, SmallTask, Task};
use crate::swarm::{ChunkPicker, PeerHandle};

impl<F: Clone> DownloadState<F> {
    /// What to ask `peer` for next; with `end_game`, also what others were asked for and do not send.
    pub fn next_task(&mut self, peer: PeerHandle, now: Instant, end_game: bool) -> Option<Task<F>> {
        if self.useful.get(peer.0 as usize).is_none_or(|&n| n == 0) {
            return None;
        }
        self.list_work(peer, now)
            .or_else(|| self.name_work(peer, now))
            .or_else(|| self.small_work(now, |small, now| small.acquire_new(peer, now)))
            .or_else(|| self.any_work(peer))
            .or_else(|| self.chunk_work(peer, |picker| picker.acquire_new(peer, now)))
            .or_else(|| if end_game { self.chunk_work(peer, |picker| picker.acquire_late(peer, now)) } else { None })
            .or_else(|| if end_game { self.small_work(now, |small, now| small.acquire_late(peer, now)) } else { None })
    }

    fn list_work(&mut self, peer: PeerHandle, now: Instant) -> Option<Task<F>> {
        for &file in &self.active {
            let at = &mut self.files[file as usize];
            // This is looked through for every request: what is cheap to see comes before the search for the holder.
            let possible = match &at.phase {
                Phase::Layer(asked) => match asked[..] {
                    [] => true,
                    [(first, since)] => first != peer && now.saturating_duration_since(since) > LAYER_PATIENCE,
                    _ => false,
                },
                Phase::Chunks(picker, _) => !picker.is_complete(peer),
                _ => false,
            };
            if !possible {
                continue;
            }
            let holders = at.holders.len() as f64;
            let Some(holder) = at.holders.iter_mut().find(|h| h.peer == peer) else { continue };
            match &mut at.phase {
                Phase::Layer(asked) if holder.poll.is_due(now) => {
                    asked.push((peer, now));
                    return Some(Task::Layer(LayerTask { file, id: at.id, digests: Vec::new() }));
                }
                // While it has something that is lacked, the news come with the chunks.
                Phase::Chunks(picker, _) if picker.wanted_of(peer) == 0 && holder.poll.is_due(now) => {
                    // What is asked and answered in vain stays a small part of what comes.
                    let cost = HAVE_POLL_COST * holders / Geometry::new(at.id.len).chunk_len() as f64;
                    let since = self.came.map_or(HAVE_POLL_MAX, |at| now.saturating_duration_since(at));
                    let gap = self.gap.max(since).min(HAVE_POLL_MAX);
                    holder.poll.asked(now, gap.mul_f64(cost).clamp(HAVE_POLL_MIN, HAVE_POLL_MAX));
                    return Some(Task::Have { file, id: at.id, revision: holder.revision });
                }
                _ => {}
            }
        }
        None
    }

    /// As long as few are known to hold a file that takes long, those who hold it are asked for more.
    fn name_work(&mut self, peer: PeerHandle, now: Instant) -> Option<Task<F>> {
        if self.active.is_empty() || self.naming.get(&peer).is_some_and(|poll| !poll.is_due(now)) {
            return None;
        }
        let holds = |at: &File<F>| at.holders.iter().any(|h| h.peer == peer);
        let few = |&&file: &&FileNo| self.files[file as usize].holders.len() < HOLDERS_ENOUGH;
        let least = self.active.iter().filter(few).filter(|&&file| holds(&self.files[file as usize]));
        let file = least.min_by_key(|&&file| self.files[file as usize].holders.len()).copied();
        let poll = self.naming.entry(peer).or_insert(Backoff::new(PEERS_POLL_MIN));
        match file {
            Some(file) => {
                poll.asked(now, PEERS_POLL_MAX);
                Some(Task::Peers { file, id: self.id(file) })
            }
            None => {
                // That is not looked through for every request.
                poll.at = Some(now + PEERS_POLL_MIN);
                None
            }
        }
    }

    fn chunk_work(
        &mut self,
        peer: PeerHandle,
        mut acquire: impl FnMut(&mut ChunkPicker) -> Option<u32>,
    ) -> Option<Task<F>> {
        for &file in &self.active {
            let at = &mut self.files[file as usize];
            let Phase::Chunks(picker, open) = &mut at.phase else { continue };
            if let Some(chunk) = acquire(picker) {
                let since = at.holders.iter().find(|h| h.peer == peer && h.held == Held::Partial);
                let since = since.map_or(0, |h| h.revision);
                return chunk_of(file, at.id, chunk, since, open.clone()).map(Task::Chunk);
            }
        }
        None
    }

    fn any_work(&mut self, peer: PeerHandle) -> Option<Task<F>> {
        for &file in &self.active {
            let at = &mut self.files[file as usize];
            let Phase::Chunks(picker, open) = &mut at.phase else { continue };
            let chunks = picker.offer(peer, ANY_OF_CHUNKS_MAX);
            if !chunks.is_empty() {
                return Some(Task::AnyOf(AnyOfTask { file, id: at.id, chunks, open: open.clone() }));
            }
        }
        None
    }

    /// `peer` gives `chunk` as the answer to a task that it was asked at `asked`: from now on it is a task like any other
    /// chunk. `None` if it was not offered.
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
        if let Phase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
            picker.withdraw(chunks);
            picker.begin(chunk, peer, asked);
        }
        chunk_of(*file, *id, chunk, 0, open.clone())
    }

    fn small_work(
        &mut self,
        now: Instant,
        acquire: impl FnOnce(&mut ChunkPicker, Instant) -> Option<u32>,
    ) -> Option<Task<F>> {
        if self.small_len >= SMALL_FILES_LEN_MAX {
            return None;
        }
        let file = self.small_files[acquire(&mut self.small, now)? as usize];
        let id = self.id(file);
        let index = Geometry::new(id.len).chunk(0)?;
        self.small_len += small_weight(id.len);
        Some(Task::Small(SmallTask { file, id, index, len: id.len as u32 }))
    }

    /// The task cannot be done by `peer` now; others may.
    pub fn give_back(&mut self, task: &Task<F>, peer: PeerHandle) {
        match task {
            Task::Chunk(ChunkTask { file, index, .. }) => {
                if let Phase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
                    picker.release(index.get(), peer);
                }
            }
            Task::Small(SmallTask { file, len, .. }) => {
                self.small_len -= small_weight(*len as u64);
                if let Phase::Small(slot) = self.files[*file as usize].phase {
                    self.small.release(slot, peer);
                }
            }
            Task::Layer(LayerTask { file, .. }) => {
                if let Phase::Layer(asked) = &mut self.files[*file as usize].phase {
                    asked.retain(|a| a.0 != peer);
                }
            }
            Task::AnyOf(AnyOfTask { file, chunks, .. }) => {
                if let Phase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
                    picker.withdraw(chunks);
                }
            }
            Task::Have { .. } | Task::Peers { .. } | Task::Locate(_) => {}
        }
    }

    /// Bytes that `peer` could be asked for at once, roughly: whether a further connection could help.
    pub fn backlog(&self, peer: PeerHandle) -> u64 {
        let chunks = self.active.iter().map(|&file| match &self.files[file as usize] {
            File { phase: Phase::Chunks(picker, _), id, .. } => {
                picker.wanted_of(peer) as u64 * Geometry::new(id.len).chunk_len()
            }
            _ => 0,
        });
        // A small file costs as much as a round trip, however short it is.
        chunks.sum::<u64>() + self.small.wanted_of(peer) as u64 * SMALL_COST
    }
}

fn chunk_of<F>(file: FileNo, id: FileId, chunk: u32, since: u64, open: F) -> Option<ChunkTask<F>> {
    let geometry = Geometry::new(id.len);
    let index = geometry.chunk(chunk)?;
    let len = geometry.span(index).len;
    Some(ChunkTask { file, id, index, len, since, open })
}

/// Bytes that must come for each question what a peer has by now: a few hundred times as many as it costs.
const HAVE_POLL_COST: f64 = 80e3;
/// What a one-chunk file weighs against chunks when connections are shared out.
const SMALL_COST: u64 = 64 << 10;
