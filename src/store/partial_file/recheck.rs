//! Chunks that may be there already: chunks that the journal claims without a proof, chunks of zeros,
//! and chunks that an older version of the file holds.

use std::cell::RefCell;
use std::sync::Arc;

use log::warn;

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, merkle};
use crate::limits::READ_LEN;
use crate::store::flusher::WriteOrigin;
use crate::store::limits::COPY_RUN_LEN;
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
pub(super) struct ChunkScratch {
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
            // What was a hole may no longer be one, and is read by others meanwhile.
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
            while len < max_len {
                let before = done.len();
                match self.check_claimed(scratch) {
                    Some(checked) => done.push(checked),
                    None => self.take_reusable(scratch, &mut done),
                }
                if done.len() == before {
                    break;
                }
                len += done[before..].iter().map(|checked| self.cost_of(checked)).sum::<u64>();
            }
        });
        done
    }

    /// What a look at a chunk counts for, in bytes.
    fn cost_of(&self, checked: &CheckedChunk) -> u64 {
        match checked.origin {
            ChunkOrigin::Zeros => ZEROS_COST,
            ChunkOrigin::Claimed | ChunkOrigin::Reused => self.manifest.geometry().span(checked.index).len.into(),
        }
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
            right = self.put(&[index], WriteOrigin::Fetched, || self.part.file.make_hole(offset..end)).is_ok();
        }
        Some(CheckedChunk { index, right, origin: ChunkOrigin::Zeros })
    }

    /// Looks for the next chunks that an older version may have, and copies them.
    fn take_reusable(&self, scratch: &mut ChunkScratch, done: &mut Vec<CheckedChunk>) {
        let sources: Arc<[ReuseSource]> = lock(&self.sources).clone();
        let (run, known_by) = self.next_run(&sources);
        if run.is_empty() {
            // The sources are no longer read.
            *lock(&self.sources) = Arc::default();
        }
        let found = |index: &ChunkIndex, right| CheckedChunk { index: *index, right, origin: ChunkOrigin::Reused };
        if known_by.is_some_and(|source| self.take_known(source, &run).is_ok()) {
            done.extend(run.iter().map(|index| found(index, true)));
        } else {
            // An older version that was known may have changed meanwhile.
            done.extend(run.iter().map(|index| found(index, self.take_verified(&sources, *index, scratch))));
        }
    }

    /// The next chunks to take: a run that one of `sources` has as its layer says, and that source, or one
    /// chunk alone. Empty when none is left.
    fn next_run<'a>(&self, sources: &'a [ReuseSource]) -> (Vec<ChunkIndex>, Option<&'a ReuseSource>) {
        let mut state = self.part.state();
        let Some(first) = state.reusable.pop() else { return (Vec::new(), None) };
        let knows = |source: &ReuseSource, index| source.knows(&self.manifest, index) == Some(true);
        // A run is written over as a whole, so a chunk that came another way is in none.
        let came = state.came.have().contains(first);
        let known_by = sources.iter().find(|source| !came && knows(source, first));
        let len_max = COPY_RUN_LEN / self.manifest.geometry().chunk_len();
        let mut run = vec![first];
        while let (Some(source), Some(next)) = (known_by, state.reusable.last().copied())
            && (run.len() as u64) < len_max
            && next.as_usize() == first.as_usize() + run.len()
            && !state.came.have().contains(next)
            && knows(source, next)
        {
            run.push(next);
            state.reusable.pop();
        }
        (run, known_by)
    }

    /// Takes the chunks of `run` that `source` has as its layer says. After a failure they have to be read and
    /// hashed: the source may have changed.
    fn take_known(&self, source: &ReuseSource, run: &[ChunkIndex]) -> Result<(), StoreError> {
        let geometry = self.manifest.geometry();
        let start = run.first().map_or(0, |first| geometry.span(*first).offset);
        let end = run.last().map(|last| geometry.span(*last)).map_or(0, |span| span.offset + u64::from(span.len));
        self.put(run, WriteOrigin::Copied, || match source.is_in_place {
            true => Ok(()),
            false => source.copy_known(&*self.part.file, start..end),
        })
    }

    /// Copies a chunk from the first of `sources` that has it at its place as it was read. False if none has, or
    /// it cannot be written.
    fn take_verified(&self, sources: &[ReuseSource], index: ChunkIndex, scratch: &mut ChunkScratch) -> bool {
        let span = self.manifest.geometry().span(index);
        for source in sources.iter().filter(|source| source.knows(&self.manifest, index) != Some(false)) {
            scratch.buffer.resize(span.len as usize, 0);
            if source.read(span.offset, &mut scratch.buffer) && self.manifest.verify(index, &scratch.buffer) {
                // What was verified is what is written, however the source changes meanwhile.
                let done = self.put(&[index], WriteOrigin::Copied, || match source.is_in_place {
                    true => Ok(()),
                    false => self.part.file.write_at(span.offset, &scratch.buffer),
                });
                return self.told(done).is_ok();
            }
        }
        false
    }

    pub(super) fn is_right(&self, index: ChunkIndex, ChunkScratch { blocks, buffer }: &mut ChunkScratch) -> bool {
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
