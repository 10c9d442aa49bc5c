//! What to ask whom for next, and what to do when it does not come.

use std::time::Instant;

use crate::content::{ChunkIndex, FileId, Geometry};
use crate::limits::{HAVE_POLL, LAYER_PATIENCE, SMALL_FILES_LEN_MAX};
use crate::swarm::schedule::{File, FileNo, Held, Phase, Schedule, small_weight};
use crate::swarm::{ChunkPicker, PeerHandle};

/// Something to ask a peer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work<F> {
    /// A chunk of a file of several.
    Chunk {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
        /// The chunk.
        index: ChunkIndex,
        /// Bytes of the chunk.
        len: u32,
        /// What goes with the open file.
        open: F,
    },
    /// A file of one chunk.
    Small {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
        /// The chunk.
        index: ChunkIndex,
        /// Bytes of the chunk.
        len: u32,
    },
    /// The whole list of digests.
    Layer {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
    },
    /// Which chunks it holds by now.
    Have {
        /// Its number.
        file: FileNo,
        /// Its identity.
        id: FileId,
        /// What is known already.
        revision: u64,
    },
}

impl<F: Clone> Schedule<F> {
    /// What to ask `peer` for next; with `late`, also what others were asked for and do not send.
    pub fn next_work(&mut self, peer: PeerHandle, now: Instant, late: bool) -> Option<Work<F>> {
        if self.useful.get(peer.0 as usize).is_none_or(|&n| n == 0) {
            return None;
        }
        self.list_work(peer, now)
            .or_else(|| self.small_work(now, |small, now| small.acquire_new(peer, now)))
            .or_else(|| self.chunk_work(now, |picker, now| picker.acquire_new(peer, now)))
            .or_else(|| if late { self.chunk_work(now, |picker, now| picker.acquire_late(peer, now)) } else { None })
            .or_else(|| if late { self.small_work(now, |small, now| small.acquire_late(peer, now)) } else { None })
    }

    fn list_work(&mut self, peer: PeerHandle, now: Instant) -> Option<Work<F>> {
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
            let Some((_, held)) = at.holders.iter_mut().find(|h| h.0 == peer) else { continue };
            match (&mut at.phase, held) {
                (Phase::Layer(asked), _) => {
                    asked.push((peer, now));
                    return Some(Work::Layer { file, id: at.id });
                }
                (Phase::Chunks(..), Held::Partial(revision, asked))
                    if asked.is_none_or(|then| now.saturating_duration_since(then) >= HAVE_POLL) =>
                {
                    *asked = Some(now);
                    return Some(Work::Have { file, id: at.id, revision: *revision });
                }
                _ => {}
            }
        }
        None
    }

    fn chunk_work(
        &mut self,
        now: Instant,
        mut acquire: impl FnMut(&mut ChunkPicker, Instant) -> Option<u32>,
    ) -> Option<Work<F>> {
        for &file in &self.active {
            let at = &mut self.files[file as usize];
            let Phase::Chunks(picker, open) = &mut at.phase else { continue };
            if let Some(chunk) = acquire(picker, now) {
                let geometry = Geometry::new(at.id.len);
                let index = geometry.chunk(chunk)?;
                let len = geometry.span(index).len;
                return Some(Work::Chunk { file, id: at.id, index, len, open: open.clone() });
            }
        }
        None
    }

    fn small_work(
        &mut self,
        now: Instant,
        acquire: impl FnOnce(&mut ChunkPicker, Instant) -> Option<u32>,
    ) -> Option<Work<F>> {
        if self.small_len >= SMALL_FILES_LEN_MAX {
            return None;
        }
        let file = self.small_files[acquire(&mut self.small, now)? as usize];
        let id = self.id(file);
        let index = Geometry::new(id.len).chunk(0)?;
        self.small_len += small_weight(id.len);
        Some(Work::Small { file, id, index, len: id.len as u32 })
    }

    /// The work cannot be done by `peer` now; others may.
    pub fn give_back(&mut self, work: &Work<F>, peer: PeerHandle) {
        match work {
            Work::Chunk { file, index, .. } => {
                if let Phase::Chunks(picker, _) = &mut self.files[*file as usize].phase {
                    picker.release(index.get(), peer);
                }
            }
            Work::Small { file, len, .. } => {
                self.small_len -= small_weight(*len as u64);
                if let Phase::Small(slot) = self.files[*file as usize].phase {
                    self.small.release(slot, peer);
                }
            }
            Work::Layer { file, .. } => {
                if let Phase::Layer(asked) = &mut self.files[*file as usize].phase {
                    asked.retain(|a| a.0 != peer);
                }
            }
            Work::Have { .. } => {}
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

/// What a one-chunk file weighs against chunks when connections are shared out.
const SMALL_COST: u64 = 64 << 10;
