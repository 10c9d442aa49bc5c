//! What chunks are verified against: a file's identity and its layer.

use crate::content::{Bitfield, ChunkIndex, Digest, FileId, Geometry, merkle, zeros};

/// A file's layer (the digests of its chunks, BEP 52 piece layers), proved to belong to its root.
/// With it each chunk is verified alone, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: FileId,
    geometry: Geometry,
    /// Empty for a file of at most one chunk: there the root is the chunk's digest.
    layer: Vec<Digest>,
}

/// Why a layer does not belong to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The layer has another length than the file's chunk count.
    #[error("layer of {got} digests, expected {expected}")]
    Count {
        /// Digests in the layer.
        got: usize,
        /// Digests that the geometry asks for.
        expected: usize,
    },
    /// The tree above the layer has another root.
    #[error("layer does not match the root")]
    Mismatch,
}

impl Manifest {
    /// Checks `layer` against the root. For a file of at most one chunk the layer is empty.
    ///
    /// # Errors
    /// [`ManifestError`] says whether the count or the root differs; the sender of the layer lies
    /// or is broken.
    pub fn new(id: FileId, layer: Vec<Digest>) -> Result<Self, ManifestError> {
        let geometry = Geometry::new(id.len);
        let expected = if geometry.needs_layer() { geometry.chunk_count() as usize } else { 0 };
        if layer.len() != expected {
            return Err(ManifestError::Count { got: layer.len(), expected });
        }
        if geometry.needs_layer() && merkle::root_of_layer(&layer, geometry.chunk_height()) != id.root.0 {
            return Err(ManifestError::Mismatch);
        }
        Ok(Manifest { id, geometry, layer })
    }

    /// The file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The file's chunks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The digests of all chunks; empty for a file of at most one chunk.
    pub fn layer(&self) -> &[Digest] {
        &self.layer
    }

    /// The chunks that hold nothing but zeros, as their digests say.
    pub fn zero_chunks(&self) -> Bitfield {
        let (geometry, height) = (self.geometry, self.geometry.chunk_height());
        let mut zero_chunks = Bitfield::empty(geometry.chunk_count());
        if !geometry.needs_layer() {
            let is_zeros = self.id.is_zeros();
            zero_chunks.extend(geometry.chunks().filter(|_| is_zeros));
            return zero_chunks;
        }
        let whole = merkle::zero_chunk_digest(height);
        for (chunk, digest) in geometry.chunks().zip(&self.layer) {
            let len = u64::from(geometry.span(chunk).len);
            if *digest == if len == geometry.chunk_len() { whole } else { zeros::chunk_of_zeros(len, height) } {
                zero_chunks.insert(chunk);
            }
        }
        zero_chunks
    }

    /// Whether `bytes` are the content of chunk `index`.
    pub fn verify(&self, index: ChunkIndex, bytes: &[u8]) -> bool {
        if bytes.len() != self.geometry.span(index).len as usize {
            return false;
        }
        match self.layer.get(index.as_usize()) {
            Some(digest) => merkle::chunk_digest(bytes, self.geometry.chunk_height()) == *digest,
            None => merkle::root_of_bytes(bytes) == self.id.root.0,
        }
    }
}
