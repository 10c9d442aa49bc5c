//! The directory that a node reads and writes.

use std::path::Path;
use std::sync::Arc;

use crate::content::{FileId, Manifest, RelPath};
use crate::store::PartialFile;

/// Why local storage failed. Each message names the path, the cause and the next step. All of them leave a state that
/// a later download continues from.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// To be split up: no space, read-only, permission, missing directory, in use by another download, I/O.
    #[error("{0}")]
    Other(String),
}

/// An open directory; nothing outside of it is ever touched.
#[derive(Debug)]
pub struct Disk;

impl Disk {
    /// Opens the directory `dir`, which must exist unless `create`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(dir: &Path, create: bool) -> Result<Arc<Self>, StoreError> {
        todo!("{dir:?} {create}")
    }

    /// Opens or resumes the partial file of `manifest`, reserves its space, and makes it whole through
    /// [`PartialFile::write`] and [`PartialFile::finish`]. For files of several chunks, and any that is worth a journal.
    ///
    /// # Errors
    /// [`StoreError`]: no space (says how much is missing), in use by another process, not writable ...
    pub fn partial(self: &Arc<Self>, manifest: Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
        todo!("{:?}", manifest.id())
    }

    /// Whether `path` already holds exactly `id` (hashes it if length fits and nothing cached says so).
    pub fn holds(&self, path: &RelPath, id: &FileId) -> bool {
        todo!("{path} {id}")
    }

    /// Writes many whole, verified files of at most one chunk, each under a temporary name, makes them durable with as
    /// few syncs as possible, then renames each to its final name. One result per file.
    pub fn write_small(&self, files: &[(RelPath, FileId, Vec<u8>)]) -> Vec<Result<(), StoreError>> {
        todo!("{}", files.len())
    }

    /// Bytes free for this process where the directory lies.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        todo!()
    }
}
