//! One file on a real disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, FallocateFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};

use crate::store::dress::put_on;
use crate::store::holes;
use crate::store::inspect::stamp_of;
use crate::store::storage::{FileDress, FileLock, Stat, Storage};

/// An open file on a real disk.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    /// Whether it lives in memory, where reserving room costs as much as writing.
    in_memory: bool,
    /// Whether attributes were set, which a sync of the data alone leaves out.
    is_dressed: AtomicBool,
}

impl DiskFile {
    pub(crate) fn new(file: OwnedFd, in_memory: bool) -> Self {
        DiskFile { file: file.into(), in_memory, is_dressed: AtomicBool::new(false) }
    }
}

impl Storage for DiskFile {
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn sync(&self) -> io::Result<()> {
        match self.is_dressed.load(Ordering::Relaxed) {
            true => Ok(retry_on_intr(|| fs::fsync(&self.file))?),
            false => Ok(retry_on_intr(|| fs::fdatasync(&self.file))?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64, ranges: &[Range<u64>]) -> io::Result<bool> {
        // In memory, reserving takes and zeroes every page, which the writes then touch again: a
        // tenth slower than writing into a hole. Room was checked; should others take it, the write
        // says so, and what it took stays.
        let (ranges, mut end) = (if self.in_memory { &[] } else { ranges }, 0);
        let mut is_reserved = true;
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let (at, len) = (range.start, range.end - range.start);
            match retry_on_intr(|| fs::fallocate(&self.file, FallocateFlags::empty(), at, len)) {
                Ok(()) => end = range.end,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    is_reserved = false;
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
        if end != len || end == 0 {
            self.file.set_len(len)?;
        }
        Ok(is_reserved)
    }

    fn forget_cached(&self) {
        let _ = fs::fadvise(&self.file, 0, None, fs::Advice::DontNeed);
    }

    fn make_hole(&self, range: Range<u64>) -> io::Result<()> {
        let (flags, len) = (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.end - range.start);
        match retry_on_intr(|| fs::fallocate(&self.file, flags, range.start, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_zeros(range),
            done => Ok(done?),
        }
    }

    fn become_clone_of(&self, other: &dyn Storage) -> bool {
        other.fd().is_some_and(|other| fs::ioctl_ficlone(&self.file, other).is_ok())
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        holes::next_data(&self.file, offset)
    }

    fn stat(&self) -> io::Result<Stat> {
        let meta = self.file.metadata()?;
        Ok(Stat { len: meta.len(), allocated: meta.blocks() * 512, links: meta.nlink(), stamp: stamp_of(&meta) })
    }

    fn dress(&self, dress: FileDress) -> io::Result<()> {
        self.is_dressed.store(true, Ordering::Relaxed);
        put_on(&self.file, dress)
    }

    fn try_lock(&self) -> io::Result<FileLock> {
        let try_one = |kind| retry_on_intr(|| fs::flock(&self.file, kind));
        match try_one(FlockOperation::NonBlockingLockExclusive).or_else(|e| match e {
            // NFS, where the file is open for a look only: a shared one tells as well whether it is in use.
            Errno::BADF => try_one(FlockOperation::NonBlockingLockShared),
            e => Err(e),
        }) {
            Ok(()) => Ok(FileLock::Taken),
            Err(Errno::WOULDBLOCK) => Ok(FileLock::Held),
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(FileLock::Unknown),
            Err(e) => Err(e.into()),
        }
    }

    fn unlock(&self) {
        let _ = fs::flock(&self.file, FlockOperation::Unlock);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
