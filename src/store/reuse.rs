//! Files on the disk that may hold a part of what is wanted.

use std::sync::Arc;

use crate::content::{Bitfield, Geometry, Manifest, RelPath, Stamp};
use crate::store::storage::Storage;

/// A file that has a wanted content, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCopy {
    /// Its name below the directory.
    pub path: RelPath,
    /// It has the content for sure while it is in this state. Otherwise it has to be hashed.
    pub verified: Option<Stamp>,
}

/// A file that may have chunks of another content at the same places, such as an older version.
/// Nothing is believed of it: each chunk is verified after it was read.
#[derive(Debug)]
pub struct ReuseSource {
    pub(super) file: Arc<dyn Storage>,
    pub(super) len: u64,
    /// It is the partial file itself, which shares the blocks of another one.
    pub(super) is_in_place: bool,
}

impl ReuseSource {
    /// The first `len` bytes of `file`.
    pub(super) fn new(file: Arc<dyn Storage>, len: u64) -> Self {
        ReuseSource { file, len, is_in_place: false }
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

    /// Adds the chunks of a content that the file has whole, and that do not lie in its holes: these are
    /// zeros, which are known without looking.
    pub(super) fn add_chunks(&self, geometry: &Geometry, chunks: &mut Bitfield) {
        let end = self.len.min(geometry.len());
        let mut at = 0;
        while let Some(data) = self.file.next_data(at).filter(|data| data.start < end) {
            at = data.end.min(end);
            let first = data.start / geometry.chunk_len();
            let touched = (first..at.div_ceil(geometry.chunk_len())).filter_map(|index| geometry.chunk(index as u32));
            for chunk in touched {
                let span = geometry.span(chunk);
                if span.offset + u64::from(span.len) <= end {
                    chunks.insert(chunk);
                }
            }
            if at == end {
                break;
            }
        }
    }
}
