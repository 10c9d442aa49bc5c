//! One file on a real disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{self, FallocateFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};

use crate::store::inspect::stamp_of;
use crate::store::storage::{FileLock, Stat, Storage};

/// An open file on a real disk.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    /// Whether it lives in memory, where reserving room costs as much as writing.
    in_memory: bool,
}

impl DiskFile {
    pub(crate) fn new(file: OwnedFd, in_memory: bool) -> Self {
        DiskFile { file: file.into(), in_memory }
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
        Ok(retry_on_intr(|| fs::fdatasync(&self.file))?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        // In memory, reserving takes and zeroes every page, which the writes then touch again: a
        // tenth slower than writing into a hole. Room was checked; should others take it, the write
        // says so.
        if self.in_memory || len == 0 {
            return self.file.set_len(len);
        }
        match retry_on_intr(|| fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len),
            other => Ok(other?),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let meta = self.file.metadata()?;
        Ok(Stat { len: meta.len(), allocated: meta.blocks() * 512, stamp: stamp_of(&meta) })
    }

    fn try_lock(&self) -> io::Result<FileLock> {
        match retry_on_intr(|| fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive)) {
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
