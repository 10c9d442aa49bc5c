//! What chunks are checked against: a file's identity with its list of chunk digests.

use crate::content::{ChunkIndex, Digest, FileId, Geometry, merkle};

/// A file's list of chunk digests, proved to belong to its root: every chunk can be checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: FileId,
    geometry: Geometry,
    /// Empty for a file of at most one chunk: there the root is the chunk's digest.
    layer: Vec<Digest>,
}

/// Why a list of digests does not belong to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The list has another length than the file's chunk count.
    #[error("list of {got} digests, expected {expected}")]
    Count {
        /// Digests in the list.
        got: usize,
        /// Digests that the geometry asks for.
        expected: usize,
    },
    /// The tree above the list has another root.
    #[error("list does not match the root")]
    Mismatch,
}

impl Manifest {
    /// Checks `layer` against the root. For a file of at most one chunk the list is empty.
    ///
    /// # Errors
    /// [`ManifestError`] says whether the count or the root differs; whoever sent the list lied or is broken.
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
