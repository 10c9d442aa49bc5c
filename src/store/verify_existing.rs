//! Checking whether an existing file holds a wanted content, by reading and hashing it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::Builder;

use crate::content::{Attributes, ChunkSpan, Digest, FileId, Geometry, Root, Stamp, merkle, zeros};
use crate::limits::READ_LEN;
use crate::store::dress::bring_in_line;
use crate::store::holes;
use crate::store::inspect::stamp_of;
use crate::store::limits::{CHECK_HELP_LEN, CHECK_THREADS_MAX};

/// An open file that holds the wanted content.
#[derive(Debug)]
pub(super) struct VerifiedFile {
    file: File,
    state: (u64, Stamp),
}

impl VerifiedFile {
    /// Takes `file` if it holds exactly `id` and did not change meanwhile. Returns `None` soon
    /// after `stop` returns true; it is called before every [`READ_LEN`] bytes. Large files are
    /// hashed by several threads, all of which have ended when this returns.
    pub(super) fn check(file: File, id: &FileId, stop: &(dyn Fn() -> bool + Sync)) -> Option<Self> {
        let state = state_of(&file).ok().filter(|s| s.0 == id.len)?;
        let whole = VerifiedFile { file, state };
        (root_of(&whole.file, id.len, stop)? == id.root.0 && whole.check_unchanged().is_ok()).then_some(whole)
    }

    /// Takes `file` without reading it if it is still the one with this `stamp`, which was verified
    /// when it got it.
    pub(super) fn known(file: File, id: &FileId, stamp: Stamp) -> Option<Self> {
        let state = state_of(&file).ok().filter(|s| *s == (id.len, stamp))?;
        Some(VerifiedFile { file, state })
    }

    /// Brings the attributes of the file in line with `wanted`. It stays the checked one. `kept` tells
    /// which time a file has there for one that it was given. True if something was changed.
    pub(super) fn bring_in_line(&mut self, wanted: &Attributes, kept: &dyn Fn(i64) -> i64) -> io::Result<bool> {
        self.check_unchanged()?;
        let changed = bring_in_line(&self.file, wanted, kept)?;
        if changed {
            let now = state_of(&self.file)?;
            // What is written after the time was set has another one.
            let times = [self.state.1.mtime_ns, wanted.mtime_ns, kept(wanted.mtime_ns)];
            if now.0 != self.state.0 || !times.contains(&now.1.mtime_ns) {
                return Err(io::Error::other(CHANGED));
            }
            self.state = now;
        }
        Ok(changed)
    }

    /// Whether it was verified with this stamp.
    pub(super) fn has(&self, stamp: &Stamp) -> bool {
        self.state.1 == *stamp
    }

    /// Whether `other` is the very same file, in the same state.
    pub(super) fn is(&self, other: &File) -> bool {
        state_of(other).is_ok_and(|state| state == self.state)
    }

    /// Another handle of the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// An error if the file has changed since it was checked.
    pub(super) fn check_unchanged(&self) -> io::Result<()> {
        if state_of(&self.file)? == self.state { Ok(()) } else { Err(io::Error::other(CHANGED)) }
    }
}

const CHANGED: &str = "changed while it was read";

fn state_of(file: &File) -> io::Result<(u64, Stamp)> {
    file.metadata().map(|m| (m.len(), stamp_of(&m)))
}

/// The content of a file of `len` bytes in the state `stamp`; `None` if it is in another one, changes
/// meanwhile or cannot be read, or if `stop` returns true.
pub(super) fn identify(file: &File, len: u64, stamp: &Stamp, stop: &(dyn Fn() -> bool + Sync)) -> Option<FileId> {
    let is_unchanged = || state_of(file).is_ok_and(|state| state == (len, *stamp));
    let root = is_unchanged().then(|| root_of(file, len, stop)).flatten()?;
    is_unchanged().then_some(FileId { root: Root(root), len })
}

/// The root of a file of `len` bytes; `None` if it cannot be read or `stop` returns true.
fn root_of(file: &File, len: u64, stop: &(dyn Fn() -> bool + Sync)) -> Option<Digest> {
    let geometry = Geometry::new(len);
    if !geometry.needs_layer() {
        let mut hash = Hash::new(file, len, stop);
        hash.read(ChunkSpan { offset: 0, len: len as u32 })?;
        return Some(hash.blocks.finish_root());
    }
    let (next, failed) = (AtomicU32::new(0), AtomicBool::new(false));
    let work = || {
        let (mut hash, mut digests) = (Hash::new(file, len, stop), Vec::new());
        let height = geometry.chunk_height();
        // The next bytes that do not lie in a hole: all that lie before them are zeros.
        let mut data = None;
        while !failed.load(Ordering::Relaxed) {
            let Some(chunk) = geometry.chunk(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let span = geometry.span(chunk);
            let end = span.offset + u64::from(span.len);
            if data.as_ref().is_none_or(|data: &Range<u64>| data.end <= span.offset) {
                data = Some(holes::next_data(file, span.offset).unwrap_or(len..u64::MAX));
            }
            if data.as_ref().is_some_and(|data| data.start >= end) && !stop() {
                digests.push((chunk, zeros::chunk_of_zeros(span.len.into(), height)));
                continue;
            }
            match hash.read(span) {
                Some(()) => digests.push((chunk, hash.blocks.finish_chunk(height))),
                None => failed.store(true, Ordering::Relaxed),
            }
        }
        digests
    };
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let helpers = if len < CHECK_HELP_LEN { 0 } else { processors.min(CHECK_THREADS_MAX) - 1 };
    let mut layer = vec![Digest::ZERO; geometry.chunk_count() as usize];
    let mut known = 0;
    std::thread::scope(|scope| {
        // With fewer threads it only takes longer.
        let start = |i| Builder::new().name(format!("gpb-check-{i}")).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..=helpers).map_while(start).collect();
        let own = work();
        for (chunk, digest) in own.into_iter().chain(helpers.into_iter().flat_map(|h| h.join().unwrap_or_default())) {
            layer[chunk.as_usize()] = digest;
            known += 1;
        }
    });
    (known == layer.len()).then(|| merkle::root_of_layer(&layer, geometry.chunk_height()))
}

/// The buffer and tree of one thread.
struct Hash<'f> {
    file: &'f File,
    stop: &'f (dyn Fn() -> bool + Sync),
    buffer: Vec<u8>,
    blocks: merkle::Blocks,
}

impl<'f> Hash<'f> {
    fn new(file: &'f File, len: u64, stop: &'f (dyn Fn() -> bool + Sync)) -> Self {
        Hash { file, stop, buffer: vec![0; len.min(READ_LEN as u64) as usize], blocks: merkle::Blocks::new() }
    }

    fn read(&mut self, span: ChunkSpan) -> Option<()> {
        let (mut offset, end) = (span.offset, span.offset + span.len as u64);
        while offset < end {
            let run = (end - offset).min(READ_LEN as u64) as usize;
            if (self.stop)() || self.file.read_exact_at(&mut self.buffer[..run], offset).is_err() {
                return None;
            }
            self.blocks.push(&self.buffer[..run]);
            offset += run as u64;
        }
        Some(())
    }
}
