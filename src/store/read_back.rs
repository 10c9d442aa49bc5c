//! Reading back what a nearly full disk took.
//!
//! A file system may give blocks to what was written only when it writes it out, find none then, and drop it
//! without an error that a later sync gives: so does ext4 in files without extents ("Delayed block allocation
//! failed ... This should not happen!! Data will be lost"). What was written while room was scarce, and not
//! reserved before, therefore gets no final name before it was read from the disk.

use std::io;

use crate::store::limits::{COPY_BUFFER_LEN, SCARCE_ROOM};
use crate::store::storage::{Storage, Volume};

/// Whether the disk may lose what it takes without a reservation. One that does not say is not suspected.
pub(super) fn is_room_scarce(volume: &dyn Volume) -> bool {
    !volume.loses_nothing() && volume.free_bytes().is_ok_and(|free| free < SCARCE_ROOM)
}

/// The error for what was lost.
pub(super) fn lost() -> io::Error {
    io::Error::other("the disk lost what it had taken")
}

/// Reads the synced own file `name`, which has to hold exactly `bytes`.
pub(super) fn check_bytes(volume: &dyn Volume, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = volume.look_own(name)?.ok_or_else(lost)?;
    compare(&*file, bytes.len() as u64, |offset, read| {
        Ok(bytes.get(offset as usize..offset as usize + read.len()) == Some(read))
    })
}

/// Reads the synced file `copy`, which has to begin with the first `len` bytes of `of`.
pub(super) fn check_copy(of: &dyn Storage, copy: &dyn Storage, len: u64) -> io::Result<()> {
    let mut wanted = vec![0; COPY_BUFFER_LEN];
    compare(copy, len, |offset, read| {
        let wanted = &mut wanted[..read.len()];
        of.read_at(offset, wanted)?;
        Ok(wanted == read)
    })
}

/// Reads the first `len` bytes of a file; `is_right` says of each run whether it is as it was written.
fn compare(file: &dyn Storage, len: u64, mut is_right: impl FnMut(u64, &[u8]) -> io::Result<bool>) -> io::Result<()> {
    file.forget_cached();
    let (mut buffer, mut done) = (vec![0; len.min(COPY_BUFFER_LEN as u64) as usize], 0);
    while done < len {
        let run = &mut buffer[..(len - done).min(COPY_BUFFER_LEN as u64) as usize];
        file.read_at(done, run)?;
        if !is_right(done, run)? {
            return Err(lost());
        }
        done += run.len() as u64;
    }
    Ok(())
}
