//! What a fetch would do, without doing it: what is there already, and how much room it needs.

use rustix::fs::FileType;

use crate::content::{FileId, Manifest, RelPath};
use crate::store::StoreError;
use crate::store::bare_id::{empty_dir_id, link_id};
use crate::store::disk::Disk;
use crate::store::holes;
use crate::store::verify_existing::VerifiedFile;

/// What a fetch would do at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forecast {
    /// Nothing is there.
    New,
    /// The content is there already.
    Here,
    /// Another content is there, which would be replaced.
    Changed,
}

impl Disk {
    /// What a fetch of `id` would do at `path`. A file of the same length is read and hashed.
    ///
    /// # Errors
    /// [`StoreError`]: what would keep the file from being put there.
    pub fn forecast(&self, path: &RelPath, id: &FileId) -> Result<Forecast, StoreError> {
        if self.lacks_parent(path)? {
            return Ok(Forecast::New);
        }
        let go = || false;
        match self.volume.look(path)? {
            None => Ok(Forecast::New),
            Some(FileType::Directory) if self.is_made_dir(path) => Ok(Forecast::Changed),
            Some(FileType::RegularFile) if self.is_placed(path, id) => Ok(Forecast::Here),
            Some(FileType::Directory) => {
                Err(StoreError::NameTaken { path: self.volume.path_of_place(path), by: "a directory" })
            }
            Some(FileType::RegularFile)
                if self.volume.open_file(path).is_ok_and(|file| VerifiedFile::check(file, id, &go).is_some()) =>
            {
                Ok(Forecast::Here)
            }
            Some(_) => self.check_replaceable(path, id, &go).map(|()| Forecast::Changed),
        }
    }

    /// What a fetch would do that makes an empty directory at `path`, or a symbolic link with the text
    /// `target`.
    ///
    /// # Errors
    /// [`StoreError`]: what would keep it from being made there.
    pub fn forecast_bare(&self, path: &RelPath, target: Option<&str>) -> Result<Forecast, StoreError> {
        if self.lacks_parent(path)? {
            return Ok(Forecast::New);
        }
        let id = target.map_or_else(empty_dir_id, link_id);
        match (self.volume.look(path)?, target) {
            (None, _) => Ok(Forecast::New),
            (Some(FileType::Directory), None) => Ok(Forecast::Here),
            (Some(FileType::Directory), Some(_)) if self.is_made_dir(path) => Ok(Forecast::Changed),
            (Some(FileType::Directory), Some(_)) => {
                Err(StoreError::NameTaken { path: self.volume.path_of_place(path), by: "a directory" })
            }
            (Some(FileType::Symlink), Some(text)) if self.has_link(path, text) => Ok(Forecast::Here),
            (Some(_), _) => self.check_replaceable(path, &id, &|| false).map(|()| Forecast::Changed),
        }
    }

    /// Bytes that these contents still need, each at all of its places, without reading a file: one
    /// of the right length counts as there.
    pub fn needed_bytes<'f>(&self, files: impl IntoIterator<Item = (&'f FileId, &'f [RelPath])>) -> u64 {
        let needs = |(id, places): (&FileId, &[RelPath])| {
            let is_missing = |path: &&RelPath| {
                self.volume
                    .state_of(path)
                    .is_none_or(|(kind, state)| kind != FileType::RegularFile || state.len != id.len)
            };
            self.needed_for(id, places.iter().filter(is_missing).count())
        };
        files.into_iter().map(needs).fold(0, u64::saturating_add)
    }

    /// Whether `manifest` fits at so many places besides `others` bytes, chunks of zeros left out.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] with the number of missing bytes.
    pub fn check_room(&self, manifest: &Manifest, places: usize, others: u64) -> Result<(), StoreError> {
        let (id, free) = (manifest.id(), self.free_bytes()?.saturating_sub(others));
        if id.len.saturating_mul(places as u64) <= free {
            return Ok(());
        }
        let written = id.len - holes::len_of(&manifest.geometry(), &manifest.zero_chunks());
        let reserved = self.volume.reserved_for(&id).min(written);
        let needed = written.saturating_mul(places as u64).saturating_sub(reserved);
        if needed <= free {
            return Ok(());
        }
        Err(StoreError::NoSpace { path: self.path().to_path_buf(), needed, free })
    }

    /// Bytes that a content still needs where it is missing at so many places. What its partial file
    /// takes already is reserved for one of them.
    pub fn needed_for(&self, id: &FileId, missing: usize) -> u64 {
        let reserved = if missing > 0 { self.volume.reserved_for(id).min(id.len) } else { 0 };
        id.len.saturating_mul(missing as u64).saturating_sub(reserved)
    }
}
