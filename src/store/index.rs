//! The index cache: what was hashed once is not hashed again.

use std::path::Path;

use crate::content::{Digest, FileId, Stamp};

/// Maps (directory, path, size, stamp) to identity, and identities to chunk digests; a redb database in the state directory.
#[derive(Debug)]
pub struct Index;

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Its content.
    pub id: FileId,
    /// The state in which it was hashed.
    pub stamp: Stamp,
}

impl Index {
    /// Opens `<state>/index.redb` for the directory `dir`; where that is locked or damaged, a temporary one that is
    /// removed at the end, with a log line. Never fails for that reason.
    pub fn open(state: &Path, dir: &Path) -> std::io::Result<Self> {
        todo!("{state:?} {dir:?}")
    }

    /// Digests `first .. first + count` of a file's chunk layer, if it is known whole.
    pub fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>> {
        todo!("{id} {first} {count}")
    }
}
