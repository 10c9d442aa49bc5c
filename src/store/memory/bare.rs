//! Names of a volume in memory that are no plain files, and the attributes of files.

use std::io;

use crate::store::memory::world::{CallKind, FileContent, NameChange};
use crate::store::memory::{Memory, own_name};
use crate::store::storage::{FileDress, OwnBare};

impl Memory {
    /// The attributes of what lies under a name, as a process sees them.
    pub(crate) fn dress(&self, name: &str) -> Option<FileDress> {
        let world = self.lock();
        world.names.get(name).map(|inode| world.files[inode].dress)
    }

    pub(super) fn create_bare(&self, name: &str, what: &OwnBare<'_>) -> io::Result<()> {
        let mut world = self.lock();
        world.attempt(CallKind::Grow)?;
        world.step()?;
        let (bytes, mtime_ns) = match what {
            OwnBare::Name { of, .. } => {
                let inode = *world.names.get(of.as_str()).ok_or(io::ErrorKind::NotFound)?;
                return world.change(NameChange::Link(own_name(name), inode));
            }
            OwnBare::Dir { mtime_ns } => (EMPTY_DIR.to_vec(), *mtime_ns),
            OwnBare::Link { target, mtime_ns } => (target.as_bytes().to_vec(), *mtime_ns),
        };
        // The file system keeps what it is together with its name.
        let (inode, dress) = (world.new_inode(), FileDress { mtime_ns, execute_bits: 0 });
        let durable = bytes.clone();
        let content = FileContent { bytes, durable, dress, durable_dress: dress, ..FileContent::default() };
        world.files.insert(inode, content);
        world.change(NameChange::Link(own_name(name), inode))
    }
}

/// What an empty directory has in the place of bytes.
pub(crate) const EMPTY_DIR: &[u8] = b"/";

/// What belongs to each final name: something else for each.
pub(crate) fn dress_for(name: &str) -> FileDress {
    FileDress { mtime_ns: name.len() as i64 - 5, execute_bits: if name.len().is_multiple_of(2) { 0o111 } else { 0 } }
}
