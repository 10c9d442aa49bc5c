//! Files on the disk that may hold a part of what is wanted.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::content::{Bitfield, ChunkIndex, Manifest, RelPath, Stamp};
use crate::store::storage::{CopyOnto, Stat, Storage, copy_range};

/// A file that has a wanted content, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCopy {
    /// Its name below the directory.
    pub path: RelPath,
    /// It has the content for sure while it is in this state. Otherwise it has to be hashed.
    pub verified: Option<Stamp>,
}

/// A file that may have chunks of another content at the same places, such as an older version. Each
/// chunk is verified after it was read, unless a fetch put the file there and nothing changed it since:
/// then its layer tells.
#[derive(Debug)]
pub struct ReuseSource {
    pub(super) file: Arc<dyn Storage>,
    pub(super) len: u64,
    /// It is the partial file itself, which shares the blocks of another one.
    pub(super) is_in_place: bool,
    known: Option<KnownLayer>,
}

/// The layer of a file that is in the state in which a fetch left it.
#[derive(Debug)]
struct KnownLayer {
    manifest: Manifest,
    file: Arc<dyn Storage>,
    stamp: Stamp,
    /// It was in another state once.
    is_stale: AtomicBool,
}

impl KnownLayer {
    fn is_unchanged(&self) -> bool {
        let is_same = |now: Stat| (now.len, now.stamp) == (self.manifest.id().len, self.stamp);
        if !self.file.stat().is_ok_and(is_same) {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        !self.is_stale.load(Ordering::Relaxed)
    }
}

impl ReuseSource {
    /// The first `len` bytes of `file`.
    pub(super) fn new(file: Arc<dyn Storage>, len: u64) -> Self {
        ReuseSource { file, len, is_in_place: false, known: None }
    }

    /// As a file that has `layer` while it is in the state `stamp`.
    pub(super) fn with_layer(self, layer: Option<Manifest>, stamp: Stamp) -> Self {
        let known = layer.map(|manifest| KnownLayer {
            manifest,
            file: self.file.clone(),
            stamp,
            is_stale: AtomicBool::new(false),
        });
        ReuseSource { known, ..self }
    }

    /// The partial file itself, `len` bytes long, that was made a copy of this one.
    pub(super) fn cloned_to(&mut self, file: Arc<dyn Storage>, len: u64) {
        let known = self.known.take().filter(KnownLayer::is_unchanged);
        *self = ReuseSource { file, len, is_in_place: true, known };
    }

    /// Whether the file has chunk `index` of `manifest` at its place, where that is known without
    /// reading it.
    pub(super) fn knows(&self, manifest: &Manifest, index: ChunkIndex) -> Option<bool> {
        let known = &self.known.as_ref().filter(|known| !known.is_stale.load(Ordering::Relaxed))?.manifest;
        let (ours, theirs) = (manifest.geometry(), known.geometry());
        if ours.chunk_len() != theirs.chunk_len() {
            return None;
        }
        // Two digests of one chunk length are equal for equal bytes alone, of equal number.
        let digest = manifest.layer().get(index.as_usize())?;
        Some(
            theirs.chunk(index.get()).is_some_and(|at| theirs.span(at) == ours.span(index))
                && known.layer().get(index.as_usize()) == Some(digest),
        )
    }

    /// Copies bytes that are known, through the kernel where it can.
    ///
    /// # Errors
    /// Also when the file has changed by now: what was copied may be anything.
    pub(super) fn copy_known(&self, to: &dyn Storage, range: Range<u64>) -> io::Result<()> {
        let is_unchanged = || self.known.as_ref().is_some_and(KnownLayer::is_unchanged);
        if is_unchanged() {
            copy_range(&*self.file, to, range, CopyOnto::Bytes)?;
            if is_unchanged() {
                return Ok(());
            }
        }
        Err(io::Error::other("an older version changed"))
    }

    /// Fills `into`; false if the file ends before, or cannot be read.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let end = offset + into.len() as u64;
        end <= self.len && self.file.read_at(offset, into).is_ok()
    }

    /// Whether the file seems to be the content of `manifest`, by the chunks at its ends and in its
    /// middle. Many files have one length by chance.
    pub(super) fn seems_to_be(&self, manifest: &Manifest) -> bool {
        let (geometry, zero_chunks) = (manifest.geometry(), manifest.zero_chunks());
        let last = geometry.chunk_count().saturating_sub(1);
        let mut probes = [0, last / 2, last].into_iter().filter_map(|index| geometry.chunk(index));
        let mut buffer = Vec::new();
        self.len == geometry.len()
            && probes.all(|chunk| {
                let span = geometry.span(chunk);
                buffer.resize(span.len as usize, 0);
                // A file of zeros looks like many others.
                zero_chunks.contains(chunk) || self.read(span.offset, &mut buffer) && manifest.verify(chunk, &buffer)
            })
    }

    /// Adds the chunks of a content that the file may have whole, and that do not lie in its holes: these are
    /// zeros, which are known without looking.
    pub(super) fn add_chunks(&self, manifest: &Manifest, chunks: &mut Bitfield) {
        let geometry = &manifest.geometry();
        let end = self.len.min(geometry.len());
        let mut at = 0;
        while let Some(data) = self.file.next_data(at).filter(|data| data.start < end) {
            at = data.end.min(end);
            let first = data.start / geometry.chunk_len();
            let touched = (first..at.div_ceil(geometry.chunk_len())).filter_map(|index| geometry.chunk(index as u32));
            for chunk in touched {
                let span = geometry.span(chunk);
                if span.offset + u64::from(span.len) <= end && self.knows(manifest, chunk) != Some(false) {
                    chunks.insert(chunk);
                }
            }
            if at == end {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileId, Geometry, Root, merkle};
    use crate::limits::CHUNK_LEN_MIN;
    use crate::store::memory::Memory;

    fn manifest(chunks: &[u8]) -> Manifest {
        let (len, height) = (chunks.len() as u64 * CHUNK_LEN_MIN, Geometry::new(2 * CHUNK_LEN_MIN).chunk_height());
        let digest = |byte: &u8| merkle::chunk_digest(&vec![*byte; CHUNK_LEN_MIN as usize], height);
        let layer: Vec<Digest> = chunks.iter().map(digest).collect();
        Manifest::new(FileId { root: Root(merkle::root_of_layer(&layer, height)), len }, layer).unwrap()
    }

    /// A part that became a copy which shares the blocks holds what its source held then.
    #[test]
    fn a_clone_is_known_if_its_source_was_untouched_behind_it() {
        let (old, new) = (manifest(&[1, 2, 3]), manifest(&[1, 9]));
        let chunk = |index| new.geometry().chunk(index).unwrap();
        for touched in [false, true] {
            let volume = Memory::new();
            volume.put("old", &vec![0; old.id().len as usize]);
            let file = volume.open_name("old").unwrap().unwrap();
            let stamp = file.stat().unwrap().stamp;
            let mut source = ReuseSource::new(file.clone(), old.id().len).with_layer(Some(old.clone()), stamp);
            assert_eq!([0, 1].map(|index| source.knows(&new, chunk(index))), [Some(true), Some(false)]);
            if touched {
                file.write_at(0, b"x").unwrap();
            }
            source.cloned_to(file.clone(), new.id().len);
            let known = if touched { [None; 2] } else { [Some(true), Some(false)] };
            assert_eq!([0, 1].map(|index| source.knows(&new, chunk(index))), known);
        }
    }
}
