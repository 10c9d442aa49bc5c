//! Partial files in memory, for a node without a directory.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use rustix::io::Errno;

use crate::content::{RelPath, Stamp};
use crate::store::StoreError;
use crate::store::limits::READ_MEMORY_MAX;
use crate::store::storage::{FileLock, Stat, Storage, Volume};
use crate::sync::{lock, read_lock, write_lock};

/// A volume that has own names only, all of them in memory: what is whole is copied from it. All of its
/// files together take at most [`READ_MEMORY_MAX`]; a write beyond fails as on a full disk.
#[derive(Debug, Default)]
pub(crate) struct InMemory {
    names: Mutex<BTreeMap<String, Arc<MemoryPart>>>,
    used: Arc<AtomicU64>,
    files: AtomicU64,
}

/// A file in blocks, each of which is there once it was written to.
#[derive(Debug)]
struct MemoryPart {
    inode: u64,
    blocks: RwLock<MemoryBlocks>,
    changed_ns: AtomicI64,
    is_locked: AtomicBool,
    /// Bytes of all files of the volume.
    used: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct MemoryBlocks {
    len: u64,
    blocks: HashMap<u64, Box<[u8]>>,
}

impl InMemory {
    fn get(&self, name: &str) -> Option<Arc<MemoryPart>> {
        lock(&self.names).get(name).cloned()
    }
}

impl MemoryPart {
    fn touch(&self) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.changed_ns.store(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Counts one more block.
    fn take_block(&self) -> io::Result<()> {
        let fits = |used: u64| used.checked_add(BLOCK_LEN).filter(|&used| used <= READ_MEMORY_MAX);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| Errno::NOSPC.into())
    }

    fn give_back(&self, blocks: usize) {
        self.used.fetch_sub(blocks as u64 * BLOCK_LEN, Ordering::Relaxed);
    }
}

impl Storage for MemoryPart {
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let (at, within) = (offset / BLOCK_LEN, (offset % BLOCK_LEN) as usize);
        let n = bytes.len().min(BLOCK_LEN as usize - within);
        if n == 0 {
            return Ok(0);
        }
        let is_new = !read_lock(&self.blocks).blocks.contains_key(&at);
        if is_new {
            self.take_block()?;
        }
        let mut blocks = write_lock(&self.blocks);
        let mut unused = usize::from(is_new);
        match blocks.blocks.get_mut(&at) {
            Some(block) => block[within..within + n].copy_from_slice(&bytes[..n]),
            // It was forgotten just now: the write begins again.
            None if !is_new => return Err(io::ErrorKind::Interrupted.into()),
            None => {
                let mut block = if n == BLOCK_LEN as usize { Vec::new() } else { vec![0; BLOCK_LEN as usize] };
                match block.get_mut(within..within + n) {
                    Some(part) => part.copy_from_slice(&bytes[..n]),
                    None => block.extend_from_slice(&bytes[..n]),
                }
                blocks.blocks.insert(at, block.into());
                unused = 0;
            }
        }
        blocks.len = blocks.len.max(offset + n as u64);
        drop(blocks);
        self.give_back(unused);
        self.touch();
        Ok(n)
    }

    fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let blocks = read_lock(&self.blocks);
        let (at, within) = (offset / BLOCK_LEN, (offset % BLOCK_LEN) as usize);
        let left = usize::try_from(blocks.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = into.len().min(BLOCK_LEN as usize - within).min(left);
        match blocks.blocks.get(&at) {
            Some(block) => into[..n].copy_from_slice(&block[within..within + n]),
            None => into[..n].fill(0),
        }
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut blocks = write_lock(&self.blocks);
        blocks.len = len;
        let before = blocks.blocks.len();
        blocks.blocks.retain(|at, _| at * BLOCK_LEN < len);
        if let Some(last) = blocks.blocks.get_mut(&(len / BLOCK_LEN)) {
            last[(len % BLOCK_LEN) as usize..].fill(0);
        }
        let gone = before - blocks.blocks.len();
        drop(blocks);
        self.give_back(gone);
        self.touch();
        Ok(())
    }

    fn reserve(&self, len: u64, _: &[Range<u64>]) -> io::Result<bool> {
        // What it took is there.
        self.set_len(len).map(|()| true)
    }

    fn stat(&self) -> io::Result<Stat> {
        let blocks = read_lock(&self.blocks);
        let (len, allocated) = (blocks.len, blocks.blocks.len() as u64 * BLOCK_LEN);
        let ns = self.changed_ns.load(Ordering::Relaxed);
        Ok(Stat { len, allocated, links: 1, stamp: Stamp { mtime_ns: ns, ctime_ns: ns, inode: self.inode } })
    }

    fn try_lock(&self) -> io::Result<FileLock> {
        let was_locked = self.is_locked.swap(true, Ordering::AcqRel);
        Ok(if was_locked { FileLock::Held } else { FileLock::Taken })
    }

    fn unlock(&self) {
        self.is_locked.store(false, Ordering::Release);
    }
}

impl Drop for MemoryPart {
    fn drop(&mut self) {
        self.give_back(read_lock(&self.blocks).blocks.len());
    }
}

impl Volume for InMemory {
    fn make_own(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(self.get(name).map(|file| file as Arc<dyn Storage>))
    }

    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let mut names = lock(&self.names);
        if names.contains_key(name) {
            return Ok(None);
        }
        let file = Arc::new(MemoryPart {
            inode: self.files.fetch_add(1, Ordering::Relaxed),
            blocks: RwLock::default(),
            changed_ns: AtomicI64::new(0),
            is_locked: AtomicBool::new(false),
            used: self.used.clone(),
        });
        names.insert(name.into(), file.clone());
        Ok(Some(file))
    }

    fn own_names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.names).keys().cloned().collect())
    }

    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.get(name).map(|file| file.inode))
    }

    fn remove_own(&self, name: &str) -> io::Result<bool> {
        let removed = lock(&self.names).remove(name);
        Ok(removed.is_some())
    }

    fn sync_own(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_files(&self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        let refuse = |path: &RelPath| StoreError::at(self.path_of(path), io::ErrorKind::Unsupported);
        moves.iter().map(|(_, path)| Err(refuse(path))).collect()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(READ_MEMORY_MAX.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn free_files(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn tidy(&self) {}

    fn path_of_own(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        PathBuf::from("memory").join(path.as_str())
    }
}

/// Bytes of a block: the shortest chunk of a file of several.
const BLOCK_LEN: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_where_they_were_written_and_zero_elsewhere() {
        let volume = InMemory::default();
        let file = volume.create_own("a").unwrap().unwrap();
        assert!(volume.create_own("a").unwrap().is_none());
        file.reserve(3 * BLOCK_LEN, &[]).unwrap();
        assert_eq!((file.stat().unwrap().len, volume.free_bytes().unwrap()), (3 * BLOCK_LEN, READ_MEMORY_MAX));
        file.write_at(BLOCK_LEN - 2, b"over").unwrap();
        let mut read = [1; 8];
        volume.open_own("a").unwrap().unwrap().read_at(BLOCK_LEN - 4, &mut read).unwrap();
        assert_eq!(&read, b"\0\0over\0\0");
        assert!(file.read_at(3 * BLOCK_LEN - 1, &mut [0; 2]).is_err(), "beyond the end");
        assert_eq!(file.stat().unwrap().allocated, 2 * BLOCK_LEN);
        file.set_len(BLOCK_LEN - 1).unwrap();
        assert_eq!(file.stat().unwrap().allocated, BLOCK_LEN);
        file.set_len(BLOCK_LEN + 9).unwrap();
        file.read_at(BLOCK_LEN - 2, &mut read[..4]).unwrap();
        assert_eq!(read[..4], [b'o', 0, 0, 0]);
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let volume = InMemory::default();
        let file = volume.create_own("a").unwrap().unwrap();
        file.reserve(u64::MAX / 2, &[]).unwrap();
        for block in 0..READ_MEMORY_MAX / BLOCK_LEN {
            file.write_at(block * BLOCK_LEN, b"x").unwrap();
        }
        let full = file.write_at(READ_MEMORY_MAX, b"x").unwrap_err();
        assert_eq!(full.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        file.write_at(5, b"y").unwrap();
        assert!(volume.remove_own("a").unwrap() && volume.free_bytes().unwrap() == 0, "it is open");
        drop(file);
        assert_eq!(volume.free_bytes().unwrap(), READ_MEMORY_MAX);
    }

    #[test]
    fn one_handle_has_the_lock() {
        let volume = InMemory::default();
        let file = volume.create_own("a").unwrap().unwrap();
        assert_eq!(file.try_lock().unwrap(), FileLock::Taken);
        let other = volume.open_own("a").unwrap().unwrap();
        assert_eq!(other.try_lock().unwrap(), FileLock::Held);
        file.unlock();
        assert_eq!(other.try_lock().unwrap(), FileLock::Taken);
    }
}
