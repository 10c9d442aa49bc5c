//! What partial files and journals need of the disk, and no more: so that tests can put a disk below them that loses
//! power at any point.
//!
//! A [`Volume`] has two kinds of names. *Own* names lie flat in GPB's directory and hold what is unfinished; *final*
//! names are those that users see, and get their content only by [`Volume::place`], whole.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::content::{RelPath, Stamp};
use crate::store::StoreError;
use crate::store::limits::{COPY_BUFFER_LEN, COPY_LEN_MAX};

/// One open file. All methods may be called from any thread.
pub(crate) trait Storage: Debug + Send + Sync {
    /// Writes all of `bytes`. Not durable before [`sync`](Storage::sync).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `into`; an error if the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Makes durable what was written before the call. After an error nobody knows which of the writes since the
    /// last success are on the disk, and a later success does not tell either.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long, with room for all of them on the disk where the file system can promise that.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// Length, room taken and identity.
    fn stat(&self) -> io::Result<Stat>;

    /// Takes the lock of the file; false if somebody else has it. The lock ends with the process, at the latest.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives the lock back.
    fn unlock(&self);

    /// The descriptor, if the kernel can copy from and to this file.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// What is known of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length in bytes.
    pub(crate) len: u64,
    /// Bytes that it takes up on the disk.
    pub(crate) allocated: u64,
    /// Identity, and when it was changed last.
    pub(crate) stamp: Stamp,
}

/// A directory tree with GPB's own directory in it.
pub(crate) trait Volume: Debug + Send + Sync {
    /// Makes the own directory where there is none; says best what is wrong with it. The other methods make it again
    /// should another process remove it.
    fn make_own(&self) -> Result<(), StoreError>;

    /// Opens the own file `name`; `None` if there is none.
    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// Makes the own file `name`; `None` if there is one.
    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>>;

    /// Inode number behind the own name, if there is one.
    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>>;

    /// Removes an own name; whether there was one.
    fn remove_own(&self, name: &str) -> io::Result<bool>;

    /// Makes durable which own names exist.
    fn sync_own(&self) -> io::Result<()>;

    /// Makes durable everything that was written to any file.
    fn sync_files(&self) -> io::Result<()>;

    /// Gives own files, whose content is durable, their final names, replacing what has them, and makes the names
    /// durable. Parent directories are made. One result each; after an error the own name is still there, or the
    /// final name is in place but not known to be durable.
    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>>;

    /// Bytes free.
    fn free_bytes(&self) -> io::Result<u64>;

    /// The own directory is removed if it is empty.
    fn tidy(&self);

    /// A name for messages.
    fn path_of_own(&self, name: &str) -> PathBuf;

    /// A name for messages.
    fn path_of(&self, path: &RelPath) -> PathBuf;
}

/// Makes an own file with a name that no other process and no earlier run of this one uses.
pub(crate) fn create_temp(volume: &dyn Volume) -> Result<(String, Arc<dyn Storage>), StoreError> {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{:016x}-{}{TEMP_SUFFIX}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed));
    match volume.create_own(&name).and_then(|file| file.ok_or(io::ErrorKind::AlreadyExists.into())) {
        Ok(file) => Ok((name, file)),
        Err(e) => Err(StoreError::at(volume.path_of_own(&name), e)),
    }
}

/// Copies the first `len` bytes, in the kernel (sharing blocks where the file system can) if possible.
pub(crate) fn copy(from: &dyn Storage, to: &dyn Storage, len: u64) -> io::Result<()> {
    let mut done = 0;
    if let (Some(from), Some(to)) = (from.fd(), to.fd()) {
        while done < len {
            let (mut read_at, mut write_at) = (done, done);
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(COPY_LEN_MAX);
            match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n as u64,
                Err(rustix::io::Errno::INTR) => (),
                // What the kernel refuses here (two file systems, an old kernel) goes through memory instead.
                Err(_) => break,
            }
        }
    }
    let mut buffer = vec![0; if done < len { COPY_BUFFER_LEN } else { 0 }];
    while done < len {
        let part = &mut buffer[..(len - done).min(COPY_BUFFER_LEN as u64) as usize];
        from.read_at(done, part)?;
        to.write_at(done, part)?;
        done += part.len() as u64;
    }
    Ok(())
}

/// Makes `path` a durable copy of the first `len` bytes of `from`, if those are still as wanted when all is copied.
pub(crate) fn place_copy(
    volume: &dyn Volume,
    from: &dyn Storage,
    len: u64,
    path: &RelPath,
    unchanged: impl FnOnce() -> io::Result<()>,
) -> Result<(), StoreError> {
    let (name, file) = create_temp(volume)?;
    let copied = copy(from, &*file, len).and_then(|()| file.sync()).and_then(|()| unchanged());
    let placed = copied
        .map_err(|e| StoreError::at(volume.path_of(path), e))
        .and_then(|()| volume.place(&[(name.clone(), path)]).pop().unwrap_or(Ok(())));
    if placed.is_err() {
        let _ = volume.remove_own(&name);
    }
    placed
}

/// How names of temporary files end.
pub(crate) const TEMP_SUFFIX: &str = ".tmp";
