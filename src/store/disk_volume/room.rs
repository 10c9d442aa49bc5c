//! How much room a directory has.

use std::io;

use rustix::fs;

use crate::store::disk_volume::DiskVolume;

impl DiskVolume {
    /// Free bytes, and the size of the file system.
    pub(crate) fn room(&self) -> io::Result<(u64, u64)> {
        let stat = fs::fstatvfs(self.root())?;
        let free = free_of(stat.f_bavail, stat.f_blocks, stat.f_frsize);
        Ok((free, stat.f_blocks.saturating_mul(stat.f_frsize)))
    }
}

/// Bytes of the `free` ones of all `blocks`. A file system that has none tells no bound: ramfs, tmpfs
/// of `size=0`, and FUSE programs that do not answer `statfs`.
fn free_of(free: u64, blocks: u64, block_len: u64) -> u64 {
    if blocks == 0 { u64::MAX } else { free.saturating_mul(block_len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: a file system that tells no size, such as ramfs, counted as full. Effect: a fetch into it ended with "no
    /// space" before the first byte. Mend: what tells no size tells no bound.
    #[test]
    fn a_file_system_that_tells_no_size_has_no_bound() {
        assert_eq!(free_of(0, 0, 4096), u64::MAX);
        assert_eq!((free_of(0, 9, 4096), free_of(3, 9, 4096)), (0, 3 * 4096));
    }
}
