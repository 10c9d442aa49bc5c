//! The mark beside a part that is to go soon: it was only read, or its source has another content by now.

use std::io;

use crate::store::storage::{Volume, explain_full};
use crate::store::{PartialFile, StoreError};

impl PartialFile {
    /// A download takes the part over from its readers. From then on it goes only as any other: where it
    /// takes the place of a file, its own name may be that of the older one for a moment. Changes nothing
    /// the second time.
    pub(crate) fn unmark(&self) -> Result<(), StoreError> {
        let (volume, mark) = (&self.part.volume, &self.part.names.mark);
        let removed = if self.part.is_read { remove_mark(&**volume, mark) } else { Ok(()) };
        removed.map_err(|e| StoreError::at(volume.path_of_own(mark), e))
    }

    /// Its source has another content by now: unless a download opens it again, it goes with the next
    /// fetch after a minute, or after a day if it is the newest of a length that is fetched. A failure leaves it for longer.
    pub(crate) fn let_go(&self) {
        let _ = self.part.volume.create_own(&self.part.names.mark);
    }
}

/// Marks a new part for readers, and takes the mark of any other away. The part is locked meanwhile.
pub(super) fn mark(volume: &dyn Volume, name: &str, fresh: bool, is_read: bool) -> Result<(), StoreError> {
    let marked = match (fresh, is_read) {
        (true, true) => volume.create_own(name).map(drop),
        // A mark that comes back after a power loss would let the part go that a download left.
        (_, false) => remove_mark(volume, name),
        (false, true) => Ok(()),
    };
    marked.map_err(|e| explain_full(volume, StoreError::at(volume.path_of_own(name), e), 0))
}

/// Removes the mark of a part for good, if it has one.
fn remove_mark(volume: &dyn Volume, name: &str) -> io::Result<()> {
    if volume.inode_of_own(name)?.is_some() && volume.remove_own(name)? {
        volume.sync_own()?;
    }
    Ok(())
}
