//! Reading what is shared, with proof that it did not change meanwhile.

use std::io;
use std::path::Path;

use crate::content::{ChunkSpan, Entry};

/// Reads files of a shared directory by their catalogue entry. Opens them beneath the directory, never through a
/// symlink that leaves it. Keeps a bounded number of files open.
#[derive(Debug)]
pub struct Reader;

/// One chunk being read: opened, stat'ed before the first byte and after the last one.
#[derive(Debug)]
pub struct ChunkReader;

impl Reader {
    /// Opens the shared directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        todo!("{dir:?}")
    }

    /// Begins to read `span` of `entry`. `Ok(None)`: the file is gone or no longer in the state of `entry.stamp`.
    ///
    /// # Errors
    /// What the system says.
    pub fn chunk(&self, entry: &Entry, span: ChunkSpan) -> io::Result<Option<ChunkReader>> {
        todo!("{entry:?} {span:?}")
    }
}

impl ChunkReader {
    /// Fills `into` as far as the chunk goes on, from where the last call ended; 0 at its end.
    ///
    /// # Errors
    /// What the system says; also when the file ends early.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        todo!("{}", into.len())
    }

    /// After the last byte: whether the file is still in the state in which it was hashed.
    pub fn unchanged(&self) -> bool {
        todo!()
    }
}
