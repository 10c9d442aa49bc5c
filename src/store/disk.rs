//! The directory that a node reads and writes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::chain::Chain;
use crate::content::{FileId, Manifest, RelPath};
use crate::store::batch_write::batch_write;
use crate::store::disk_volume::DiskVolume;
use crate::store::flusher::Flusher;
use crate::store::storage::{Volume, place_copy};
use crate::store::verify_existing::VerifiedFile;
use crate::store::{PartialFile, StoreError};
use crate::sync::lock;

/// An open directory; nothing outside of it is ever touched.
///
/// What is unfinished lies in `.gpb` below it, which exists only while there is something in it.
#[derive(Debug)]
pub struct Disk {
    volume: Arc<DiskVolume>,
    /// The thread that journals, from the first partial file on.
    flusher: Mutex<Option<Arc<Flusher>>>,
}

impl Disk {
    /// Opens the directory `dir`, which must exist unless `create`: then it is made with its parents.
    ///
    /// # Errors
    /// [`StoreError::MissingDirectory`], [`StoreError::NotADirectory`], [`StoreError::Permission`] ...
    pub fn open(dir: &Path, create: bool) -> Result<Arc<Self>, StoreError> {
        let volume = Arc::new(DiskVolume::open(dir, create)?);
        Ok(Arc::new(Disk { volume, flusher: Mutex::new(None) }))
    }

    /// The directory, as it was given to [`open`](Disk::open).
    pub fn path(&self) -> &Path {
        self.volume.path()
    }

    /// Opens or resumes the partial file of `manifest`, reserves its space, and makes it whole through
    /// [`PartialFile::write`] and [`PartialFile::finish`]. For files of several chunks, and any that is worth a journal.
    ///
    /// # Errors
    /// [`StoreError`]: no space (says how much is missing, and nothing was written), in use by another download, not
    /// writable ...
    pub fn partial(self: &Arc<Self>, manifest: Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
        Ok(Arc::new(PartialFile::open(self.volume.clone(), self.flusher()?, manifest)?))
    }

    /// Whether all of `paths` hold exactly `id`, after those that do not were made copies of one that does. Another
    /// length is told by a look at the directory; otherwise the file is read and hashed, on several threads if it is
    /// large, all of which have ended when this returns. False soon after `stop` says true.
    ///
    /// # Errors
    /// [`StoreError::NotRegular`]: at one of `paths` lies what must not be replaced, such as a device.
    pub fn holds(&self, paths: &[RelPath], id: &FileId, stop: &(dyn Fn() -> bool + Sync)) -> Result<bool, StoreError> {
        let (mut whole, mut missing) = (None, Vec::new());
        for path in paths {
            let is_file = self.volume.look(path)? == Some(FileType::RegularFile);
            let file = if is_file { self.volume.open_file(path).ok() } else { None };
            let found = file.and_then(|file| VerifiedFile::check(file, id, stop));
            if found.is_none() {
                missing.push(path);
            }
            whole = whole.or(found);
        }
        let Some(whole) = whole.filter(|_| !stop()) else { return Ok(false) };
        Ok(missing.into_iter().all(|path| self.copy(&whole, id, path)))
    }

    /// What cannot be copied is fetched, which says best what is wrong.
    fn copy(&self, whole: &VerifiedFile, id: &FileId, path: &RelPath) -> bool {
        let copied = whole.file().map_err(|e| StoreError::at(self.volume.path_of(path), e)).and_then(|file| {
            self.volume.make_own()?;
            place_copy(&*self.volume, &*self.volume.storage(file.into()), id.len, path, || whole.check_unchanged())
        });
        self.volume.tidy();
        copied
            .inspect_err(|e| log::info!("not copied from a file that is there path={path} error=\"{}\"", Chain(e)))
            .is_ok()
    }

    /// Writes many whole, verified files of at most one chunk, each under a temporary name, makes them durable with as
    /// few syncs as possible, then renames each to its final name. One result per file; a file either has its whole
    /// new content under its name, or what was there before. Works best on batches of hundreds.
    pub fn batch_write<B: AsRef<[u8]>>(&self, files: &[(RelPath, FileId, B)]) -> Vec<Result<(), StoreError>> {
        batch_write(&*self.volume, files)
    }

    /// Whether the directory in which `path` is to lie does not exist, so that nothing of what is to lie there does.
    ///
    /// # Errors
    /// [`StoreError::OtherMount`]: nothing can be put there.
    pub fn lacks_parent(&self, path: &RelPath) -> Result<bool, StoreError> {
        let Some((parent, _)) = path.as_str().rsplit_once('/') else { return Ok(false) };
        match self.volume.is_same_mount(parent) {
            Ok(false) => Err(StoreError::OtherMount { path: self.path().join(parent) }),
            // What else is wrong with it is told when a file is put there.
            result => Ok(result == Err(Errno::NOENT)),
        }
    }

    /// Whether what is written can be made durable, which takes time; false where files live in memory.
    pub fn is_durable(&self) -> bool {
        !self.volume.is_in_memory()
    }

    /// Removes GPB's own directory if nothing is in it any more. For the end of a download: each partial file does it
    /// by itself, small files do not.
    pub fn tidy(&self) {
        self.volume.tidy();
    }

    /// Bytes free for this process where the directory lies.
    ///
    /// # Errors
    /// [`StoreError`], when the system does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.volume.free_bytes().map_err(|e| StoreError::at(self.path(), e))
    }

    fn flusher(&self) -> Result<Arc<Flusher>, StoreError> {
        let mut flusher = lock(&self.flusher);
        if let Some(running) = &*flusher {
            return Ok(running.clone());
        }
        let started = Arc::new(Flusher::start().map_err(|e| StoreError::at(self.path(), e))?);
        *flusher = Some(started.clone());
        Ok(started)
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
