//! What partial files and journals need of the disk, and no more, so that tests can run them on a
//! disk that loses power at any point.
//!
//! A [`Volume`] has two kinds of names. *Own* names lie flat in the node's own directory and hold
//! unfinished files. *Final* names are the ones that users see. They get their content only by
//! [`Volume::place`], whole.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::content::{RelPath, Stamp};
use crate::store::StoreError;
use crate::store::holes;
use crate::store::limits::{COPY_BUFFER_LEN, COPY_LEN_MAX};

/// One open file. Any thread may call any method.
pub(crate) trait Storage: Debug + Send + Sync {
    /// Writes the beginning of `bytes`, perhaps all, and says how much. Like the system's call, it
    /// may be interrupted.
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Reads into the beginning of `into` and says how much; 0 at the end of the file. Like the
    /// system's call, it may be interrupted.
    fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`. Not durable before [`sync`](Storage::sync).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_some(offset + done as u64, &bytes[done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Fills `into`. It is an error if the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_some(offset + done as u64, &mut into[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes everything durable that was written before the call. After an error it is unknown
    /// which writes since the last success are on the disk, even if a later call succeeds.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long and reserves room for the bytes in `ranges`, where the file
    /// system can: true if it has all of it, so that no write there meets a full disk.
    fn reserve(&self, len: u64, ranges: &[Range<u64>]) -> io::Result<bool>;

    /// Lets go of what the system remembers of a synced file, which is then read from the disk. Best effort.
    fn forget_cached(&self) {}

    /// The first bytes from `offset` on that may not lie in a hole; `None` if the rest is a hole. All
    /// of the rest where the file system does not say.
    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        Some(offset..u64::MAX)
    }

    /// Makes these bytes zeros, and frees their room where the file system can.
    fn make_hole(&self, range: Range<u64>) -> io::Result<()> {
        self.write_zeros(range)
    }

    /// Writes zeros.
    fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        let (mut at, zeros) = (range.start, vec![0; (range.end - range.start).min(COPY_BUFFER_LEN as u64) as usize]);
        while at < range.end {
            let len = (range.end - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }

    /// Makes this file a copy of `other` that shares its blocks. False, with nothing done, where the
    /// file system does not share blocks.
    fn become_clone_of(&self, _other: &dyn Storage) -> bool {
        false
    }

    /// Length, used room, identity and times.
    fn stat(&self) -> io::Result<Stat>;

    /// Gives the file its attributes. Durable with the next [`sync`](Storage::sync). A file system that
    /// has no such attribute leaves it out.
    fn dress(&self, _dress: FileDress) -> io::Result<()> {
        Ok(())
    }

    /// Takes the lock of the file, unless another process or handle has it. It ends with the
    /// process at the latest.
    fn try_lock(&self) -> io::Result<FileLock>;

    /// Releases the lock.
    fn unlock(&self);

    /// The descriptor, if the kernel can copy from and to this file.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The attributes of a file that is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FileDress {
    /// Modification time, ns since the Unix epoch.
    pub(crate) mtime_ns: i64,
    /// Mode bits that let the file be run; 0 for one that is no program.
    pub(crate) execute_bits: u32,
}

/// An own name that is no file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnBare<'a> {
    /// An empty directory with this modification time.
    Dir { mtime_ns: i64 },
    /// A symbolic link with this one.
    Link { target: &'a str, mtime_ns: i64 },
    /// Another name of the file at a final name, if that is still the one with this length and stamp,
    /// whatever other names it got.
    Name { of: &'a RelPath, known: Option<(u64, Stamp)> },
}

/// What came of taking the lock of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileLock {
    /// The caller has it.
    Taken,
    /// Another process or handle has it.
    Held,
    /// The file system has no locks, as some network ones: nothing says whether the file is in use.
    Unknown,
}

/// What the system says of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length in bytes.
    pub(crate) len: u64,
    /// Bytes that it uses on the disk.
    pub(crate) allocated: u64,
    /// Number of its names.
    pub(crate) links: u64,
    /// Identity, and the times of the last change.
    pub(crate) stamp: Stamp,
}

/// A flat directory of the node's own files, such as the state directory: only the user may enter
/// it. It is created when it is first used.
pub(crate) trait Folder: Debug + Send + Sync {
    /// Opens the file `name`; `None` if there is none.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// Creates the file `name`; `None` if it exists.
    fn create(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// Gives a file another name, and replaces what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; false if it did not exist.
    fn remove(&self, name: &str) -> io::Result<bool>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;

    /// The path of a name, for messages.
    fn path_of(&self, name: &str) -> PathBuf;
}

/// A directory tree with the node's own directory in it.
pub(crate) trait Volume: Debug + Send + Sync {
    /// Creates the own directory if it is missing, and gives the best error for it. The other
    /// methods create it again if another process removes it.
    fn make_own(&self) -> Result<(), StoreError>;

    /// Opens the own file `name`; `None` if there is none.
    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// As [`open_own`](Volume::open_own), for a look: it is not written to.
    fn look_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.open_own(name)
    }

    /// Creates the own file `name`; `None` if it exists.
    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// The names in the own directory, which is not made for it.
    fn own_names(&self) -> io::Result<Vec<String>>;

    /// Inode number behind the own name `name`, if it exists.
    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>>;

    /// Removes an own name; false if it did not exist.
    fn remove_own(&self, name: &str) -> io::Result<bool>;

    /// Gives an own file another own name, which nothing removes. Returns it.
    fn set_aside_own(&self, _name: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the set of own names durable.
    fn sync_own(&self) -> io::Result<()>;

    /// Makes everything durable that was written to any file.
    fn sync_files(&self) -> io::Result<()>;

    /// Gives own files, whose content is durable, their final names, replaces older files there,
    /// and makes the names durable. Missing parent directories are created. Returns one result for
    /// each file. After an error the own name is still there, or the final name is in place but may
    /// not be durable.
    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>>;

    /// As [`place`](Self::place), while the own files are still open, as `files`. That saves looking
    /// at names for what came to be there.
    fn place_open(&self, moves: &[(String, &RelPath)], files: &[Arc<dyn Storage>]) -> Vec<Result<(), StoreError>> {
        let _ = files;
        self.place(moves)
    }

    /// Makes the own name `name` something else than a file of its own.
    fn create_own_bare(&self, _name: &str, _what: &OwnBare<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether something lies at a final name.
    fn is_taken(&self, _path: &RelPath) -> bool {
        false
    }

    /// What the file at a final name gets besides its content, if anything.
    fn dress_of(&self, _path: &RelPath) -> Option<FileDress> {
        None
    }

    /// Free bytes.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Whether what it took stays there however little room is left, as in memory.
    fn loses_nothing(&self) -> bool {
        false
    }

    /// Number of files that can be made, where the file system sets one.
    fn free_files(&self) -> io::Result<Option<u64>>;

    /// Removes the own directory if it is empty.
    fn tidy(&self);

    /// What tells its directory from all others of this host; none for one that is in memory.
    fn root_id(&self) -> Option<(u64, u64)> {
        None
    }

    /// The path of an own name, for messages.
    fn path_of_own(&self, name: &str) -> PathBuf;

    /// The path of a final name, for messages.
    fn path_of(&self, path: &RelPath) -> PathBuf;
}

/// Adds to an error that says only that there is no space what is short: inodes, or bytes, of which
/// `needed` are still to be allocated.
pub(crate) fn explain_full(volume: &dyn Volume, e: StoreError, needed: u64) -> StoreError {
    match e {
        StoreError::NoSpace { path, needed: 0, .. } => {
            // Where no bound is told, nothing is known of what is short.
            let free = volume.free_bytes().ok().filter(|free| *free < u64::MAX).unwrap_or(0);
            match volume.free_files() {
                Ok(Some(0)) if free > needed => StoreError::NoInodes { path },
                _ => StoreError::NoSpace { path, needed, free },
            }
        }
        other => other,
    }
}

/// Creates an own file under a name that no other process and no earlier run of this one uses.
pub(crate) fn create_temp(volume: &dyn Volume) -> io::Result<(String, Arc<dyn Storage>)> {
    let name = temp_name();
    let file = volume.create_own(&name)?.ok_or(io::ErrorKind::AlreadyExists)?;
    Ok((name, file))
}

/// A name that no other process and no earlier run of this one uses.
pub(crate) fn temp_name() -> String {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{}{TEMP_SUFFIX}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Copies the first `len` bytes of `from` to the empty file `to`. The kernel shares blocks where the
/// file system does, and copies if it can. Holes stay holes.
pub(crate) fn copy(from: &dyn Storage, to: &dyn Storage, len: u64) -> io::Result<()> {
    if to.become_clone_of(from) {
        return match to.stat()?.len {
            cloned if cloned < len => Err(io::ErrorKind::UnexpectedEof.into()),
            cloned if cloned > len => to.set_len(len),
            _ => Ok(()),
        };
    }
    let mut done = 0;
    while let Some(data) = from.next_data(done).filter(|data| data.start < len) {
        done = data.end.min(len);
        copy_range(from, to, data.start..done, CopyOnto::Hole)?;
        if done == len {
            break;
        }
    }
    // What ends in a hole was not written to its end.
    match (from.stat()?.len, to.stat()?.len) {
        (there, _) if there < len => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, copied) if copied < len => to.set_len(len),
        _ => Ok(()),
    }
}

/// What lies where bytes are copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyOnto {
    /// A hole, in which zeros need not be written.
    Hole,
    /// Any bytes.
    Bytes,
}

/// Copies these bytes to the same place.
pub(crate) fn copy_range(from: &dyn Storage, to: &dyn Storage, range: Range<u64>, onto: CopyOnto) -> io::Result<()> {
    let (mut done, len) = (range.start, range.end);
    if let (Some(from), Some(to)) = (from.fd(), to.fd()) {
        while done < len {
            let (mut read_at, mut write_at) = (done, done);
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(COPY_LEN_MAX);
            match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n as u64,
                Err(rustix::io::Errno::INTR) => (),
                // The kernel refuses, for example across file systems: the rest goes through
                // memory.
                Err(_) => break,
            }
        }
    }
    let mut buffer = vec![0; if done < len { COPY_BUFFER_LEN } else { 0 }];
    while done < len {
        let part = &mut buffer[..(len - done).min(COPY_BUFFER_LEN as u64) as usize];
        from.read_at(done, part)?;
        if onto == CopyOnto::Bytes || !holes::is_zeros(part) {
            to.write_at(done, part)?;
        }
        done += part.len() as u64;
    }
    Ok(())
}

/// Gives a file that is about to get the name `path` what belongs to it, before it is synced.
pub(crate) fn dress(volume: &dyn Volume, file: &dyn Storage, path: &RelPath) -> io::Result<()> {
    volume.dress_of(path).map_or(Ok(()), |dress| file.dress(dress))
}

/// Suffix of temporary names.
pub(crate) const TEMP_SUFFIX: &str = ".tmp";

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::store::memory::Memory;

    #[test]
    fn what_is_short_is_told() {
        let volume = Memory::new();
        let full = |needed| explain_full(&volume, StoreError::at("x", Errno::NOSPC), needed);
        volume.set_free(1000);
        assert!(matches!(full(0), StoreError::NoSpace { needed: 0, free: 1000, .. }));
        volume.set_free_files(0);
        assert!(matches!(full(10), StoreError::NoInodes { .. }));
        assert!(matches!(full(2000), StoreError::NoSpace { needed: 2000, free: 1000, .. }), "bytes are short, too");
        volume.set_free_files(3);
        assert!(matches!(full(10), StoreError::NoSpace { needed: 10, .. }));
        let other = explain_full(&volume, StoreError::at("x", Errno::IO), 10);
        assert!(matches!(other, StoreError::Io { .. }));
    }
}
