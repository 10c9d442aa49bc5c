//! A file in memory.

use std::sync::Arc;

use crate::content::{FileId, Geometry, RelPath, RelPathError, Root, merkle};

/// A file in memory with its name and identity, for a [`FaultyPeer`](crate::testing::FaultyPeer) to
/// serve.
///
/// ```
/// use gpb::testing::TestFile;
///
/// let file = TestFile::new("docs/a.txt", b"hello".to_vec())?;
/// assert_eq!((file.path.as_str(), file.id.len), ("docs/a.txt", 5));
/// assert_eq!(TestFile::random("b.bin", 1 << 20, 7), TestFile::random("b.bin", 1 << 20, 7));
/// # Ok::<(), gpb::error::RelPathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFile {
    /// Its name.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Its bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The digests of its chunks, one after the other; empty for a file of one chunk.
    pub layer: Arc<Vec<u8>>,
}

impl TestFile {
    /// A file of these bytes. Hashes them.
    ///
    /// # Errors
    /// [`RelPathError`]: `path` cannot be the name of a file.
    pub fn new(path: &str, bytes: Vec<u8>) -> Result<Self, RelPathError> {
        Ok(Self::with_path(RelPath::new(path)?, bytes))
    }

    /// A file of `len` bytes that follow from `seed` and look random.
    ///
    /// # Errors
    /// [`RelPathError`]: `path` cannot be the name of a file.
    pub fn random(path: &str, len: usize, seed: u64) -> Result<Self, RelPathError> {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = vec![0; len.next_multiple_of(8)];
        for word in bytes.chunks_exact_mut(8) {
            // Xorshift64 (Marsaglia 2003).
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes());
        }
        bytes.truncate(len);
        Self::new(path, bytes)
    }

    fn with_path(path: RelPath, bytes: Vec<u8>) -> Self {
        let geometry = Geometry::new(bytes.len() as u64);
        let height = geometry.chunk_height();
        let digest = |chunk| merkle::chunk_digest(chunk, height);
        let layer: Vec<_> = match geometry.needs_layer() {
            true => bytes.chunks(geometry.chunk_len() as usize).map(digest).collect(),
            false => Vec::new(),
        };
        let root = if layer.is_empty() { merkle::root_of_bytes(&bytes) } else { merkle::root_of_layer(&layer, height) };
        let id = FileId { root: Root(root), len: bytes.len() as u64 };
        let layer = layer.iter().flat_map(|d| d.0).collect();
        TestFile { path, id, bytes: Arc::new(bytes), layer: Arc::new(layer) }
    }
}
