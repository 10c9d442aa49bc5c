//! What a download has to give while it runs and after it.

use std::sync::Arc;

use crate::content::{Entry, FileId, Manifest};
use crate::store::PartialFile;

/// Files of downloads of this node, by identity; what the server may give of them.
#[derive(Debug, Default)]
pub struct Shelf;

/// One of them.
#[derive(Debug, Clone)]
pub enum Shelved {
    /// Still being downloaded: only chunks in [`PartialFile::have`].
    Partial(Arc<PartialFile>),
    /// Whole, under its final name.
    Whole(Entry, Arc<Manifest>),
}

impl Shelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, or replaces its state.
    pub fn put(&self, id: FileId, what: Shelved) {
        todo!("{id} {what:?}")
    }

    /// Takes a file away.
    pub fn remove(&self, id: &FileId) {
        todo!("{id}")
    }

    /// The file of that identity.
    pub fn get(&self, id: &FileId) -> Option<Shelved> {
        todo!("{id}")
    }
}
