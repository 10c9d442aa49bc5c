//! Chunks that may be there already: those that the journal claims without a proof, chunks of zeros,
//! and those that an older version of the file holds.

use std::cell::RefCell;
use std::sync::Arc;

use log::warn;

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, merkle};
use crate::limits::READ_LEN;
use crate::store::reuse::ReuseSource;
use crate::store::{PartialFile, StoreError};
use crate::sync::lock;

/// What came of a chunk that may have been there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedChunk {
    /// The chunk.
    pub index: ChunkIndex,
    /// It is verified, or known by the layer of an untouched file, and written. Otherwise it has to be
    /// written.
    pub right: bool,
    /// Where it was looked for.
    pub origin: ChunkOrigin,
}

/// Where a chunk was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkOrigin {
    /// In the partial file: the journal claims it.
    Claimed,
    /// In the partial file: it holds nothing but zeros.
    Zeros,
    /// In an older version of the file.
    Reused,
}

/// Memory for checking chunks.
#[derive(Default)]
struct ChunkScratch {
    blocks: merkle::Blocks,
    buffer: Vec<u8>,
}

impl PartialFile {
    /// The chunks that may be there without a proof: the journal claims them, or they hold nothing but
    /// zeros, and the file was not left by an orderly end, or was touched since. They count as
    /// written only after [`recheck`](Self::recheck).
    pub fn unchecked(&self) -> Bitfield {
        self.set_of(&self.part.state().unchecked)
    }

    /// The chunks that hold nothing but zeros. None of them has to be fetched.
    pub fn zero_chunks(&self) -> &Bitfield {
        &self.zero_chunks
    }

    /// Lets [`recheck`](Self::recheck) take missing chunks from `sources`, each from the first that
    /// has it at its place. Returns the chunks that may be found; they are not looked at yet.
    ///
    /// Where the file system shares blocks, a new file becomes a copy of the first source, and its
    /// chunks are checked in place.
    pub(crate) fn reuse(&self, mut sources: Vec<ReuseSource>) -> Bitfield {
        let part = &*self.part;
        let geometry = self.manifest.geometry();
        let is_new = {
            let state = part.state();
            state.unchecked.is_empty() && state.dirty.is_empty() && *state.came.have() == self.zero_chunks
        };
        let mut may_have = Bitfield::empty(geometry.chunk_count());
        for source in &sources {
            source.add_chunks(&self.manifest, &mut may_have);
        }
        let zeros: Vec<ChunkIndex> = geometry.chunks().filter(|c| self.zero_chunks.contains(*c)).collect();
        let may_be_cloned = is_new && !may_have.is_empty();
        if may_be_cloned {
            // What was a hole may not be one any more, and is read by others meanwhile.
            part.state().came.remove(zeros.iter().copied());
        }
        let is_cloned = may_be_cloned && self.become_copy(&mut sources);
        let mut state = part.state();
        match is_cloned {
            true => state.unchecked.extend(zeros.into_iter().rev()),
            false if may_be_cloned => zeros.into_iter().for_each(|chunk| _ = state.came.insert(chunk)),
            false => {}
        }
        let unchecked = self.set_of(&state.unchecked);
        let is_missing = |c: &ChunkIndex| !state.came.have().contains(*c) && !unchecked.contains(*c);
        let mut missing: Vec<ChunkIndex> =
            geometry.chunks().filter(|c| may_have.contains(*c)).filter(is_missing).collect();
        missing.reverse();
        let found = self.set_of(&missing);
        state.reusable = missing;
        drop(state);
        *lock(&self.sources) = sources.into();
        found
    }

    /// Makes the file a copy of the first of `sources` that shares its blocks, of which only the length
    /// differs, and then the first source itself.
    fn become_copy(&self, sources: &mut [ReuseSource]) -> bool {
        let (part, len) = (&*self.part, self.manifest.id().len);
        let Some(first) = sources.first_mut().filter(|first| part.file.become_clone_of(&*first.file)) else {
            return false;
        };
        if let Err(e) = part.file.set_len(len) {
            // The end of the file finds out, too.
            warn!("not cut to its length path={} error=\"{}\"", part.path.display(), Chain(&e));
        }
        first.cloned_to(part.file.clone(), len);
        true
    }

    /// Verifies the next [`unchecked`](Self::unchecked) chunks, and takes the next ones that may be
    /// reused, until at least `max_len` bytes are done. The result is empty when no
    /// chunk is left. A chunk that cannot be read has to be written again. Several threads may call
    /// this at the same time. Needs the memory of a chunk.
    pub fn recheck(&self, max_len: u64) -> Vec<CheckedChunk> {
        thread_local! {
            static SCRATCH: RefCell<ChunkScratch> = RefCell::default();
        }
        let (mut done, mut len) = (Vec::new(), 0);
        SCRATCH.with_borrow_mut(|scratch| {
            while len < max_len
                && let Some(checked) = self.check_claimed(scratch).or_else(|| self.take_reusable(scratch))
            {
                let is_cheap = checked.origin == ChunkOrigin::Zeros;
                len += if is_cheap { ZEROS_COST } else { self.manifest.geometry().span(checked.index).len.into() };
                done.push(checked);
            }
        });
        done
    }

    /// Checks the next chunk that may be in the file.
    fn check_claimed(&self, scratch: &mut ChunkScratch) -> Option<CheckedChunk> {
        let index = self.part.state().next_unchecked()?;
        if !self.zero_chunks.contains(index) {
            let right = self.is_right(index, scratch);
            self.part.state().checked(index, right);
            return Some(CheckedChunk { index, right, origin: ChunkOrigin::Claimed });
        }
        let span = self.manifest.geometry().span(index);
        let (offset, end) = (span.offset, span.offset + u64::from(span.len));
        let is_hole = self.part.file.next_data(offset).is_none_or(|data| data.start >= end);
        let mut right = is_hole || self.is_right(index, scratch);
        self.part.state().checked(index, right);
        if !right {
            right = self.put(index, || self.part.file.make_hole(offset..end)).is_ok();
        }
        Some(CheckedChunk { index, right, origin: ChunkOrigin::Zeros })
    }

    /// Looks for the next chunk that an older version may have, and copies it.
    fn take_reusable(&self, scratch: &mut ChunkScratch) -> Option<CheckedChunk> {
        let next = self.part.state().reusable.pop();
        let Some(index) = next else {
            // They are not read any more.
            *lock(&self.sources) = Arc::default();
            return None;
        };
        let sources: Arc<[ReuseSource]> = lock(&self.sources).clone();
        let found = |right| Some(CheckedChunk { index, right, origin: ChunkOrigin::Reused });
        let span = self.manifest.geometry().span(index);
        for source in &*sources {
            let known = source.knows(&self.manifest, index);
            if known == Some(false) {
                continue;
            }
            if known == Some(true) && self.take_known(source, index).is_ok() {
                return found(true);
            }
            scratch.buffer.resize(span.len as usize, 0);
            if source.read(span.offset, &mut scratch.buffer) && self.manifest.verify(index, &scratch.buffer) {
                // What was verified is what is written, however the source changes meanwhile.
                let done = match source.is_in_place {
                    true => self.put(index, || Ok(())),
                    false => self.write(index, &scratch.buffer),
                };
                return found(done.is_ok());
            }
        }
        found(false)
    }

    /// Takes a chunk that `source` has as its layer says. After a failure it is read and hashed: the source
    /// may have changed.
    fn take_known(&self, source: &ReuseSource, index: ChunkIndex) -> Result<(), StoreError> {
        let span = self.manifest.geometry().span(index);
        let range = span.offset..span.offset + u64::from(span.len);
        self.put(index, || match source.is_in_place {
            true => Ok(()),
            false => source.copy_known(&*self.part.file, range),
        })
    }

    fn is_right(&self, index: ChunkIndex, ChunkScratch { blocks, buffer }: &mut ChunkScratch) -> bool {
        let geometry = self.manifest.geometry();
        let span = geometry.span(index);
        let (mut offset, end) = (span.offset, span.offset + span.len as u64);
        blocks.clear();
        buffer.resize(buffer.len().max(READ_LEN), 0);
        while offset < end {
            let run = (end - offset).min(READ_LEN as u64) as usize;
            if let Err(e) = self.read_at(offset, &mut buffer[..run]) {
                warn!("chunk not readable file={} chunk={} error=\"{}\"", self.manifest.id(), index.get(), Chain(&e));
                return false;
            }
            blocks.push(&buffer[..run]);
            offset += run as u64;
        }
        match self.manifest.layer().get(index.as_usize()) {
            Some(digest) => blocks.finish_chunk(geometry.chunk_height()) == *digest,
            None => blocks.finish_root() == self.manifest.id().root.0,
        }
    }

    fn set_of(&self, chunks: &[ChunkIndex]) -> Bitfield {
        let mut set = Bitfield::empty(self.manifest.geometry().chunk_count());
        set.extend(chunks.iter().copied());
        set
    }
}

/// What a look at a chunk of zeros counts for, in bytes: most lie in holes.
const ZEROS_COST: u64 = 4096;
