//! Whether the directory of a fetch still lies where it was opened.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::store::storage::Volume;
use crate::store::{Disk, StoreError};

impl Disk {
    /// Whether the directory still lies where it was opened: what is put into one that was moved away,
    /// or mounted over, is not found under its path. A relative path may be followed from where it began, or from
    /// the working directory of now, whichever leads there.
    ///
    /// # Errors
    /// [`StoreError::MissingDirectory`] and [`StoreError::NameTaken`]
    pub(crate) fn check_place(&self) -> Result<(), StoreError> {
        let Some(root) = self.volume.root_id() else { return Ok(()) };
        let is_root = |there: &Metadata| (there.dev(), there.ino()) == root;
        if self.absolute.as_ref().is_some_and(|path| fs::metadata(path).is_ok_and(|there| is_root(&there))) {
            return Ok(());
        }
        let path = self.path().to_path_buf();
        match fs::metadata(&path) {
            Ok(there) if !is_root(&there) => {
                let by = if there.is_dir() { "another directory" } else { "a file" };
                Err(StoreError::NameTaken { path, by })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::MissingDirectory { path }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: a relative path was followed from the working directory of the end. Effect: a program that had changed it
    /// meanwhile was told that its directory is missing. Mend: it is followed from where it was opened, too.
    #[test]
    fn a_directory_that_one_of_two_ways_leads_to_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let [there, away] = ["there", "away"].map(|name| dir.path().join(name));
        fs::create_dir(&there).unwrap();
        let mut disk = Disk::on(crate::store::disk_volume::DiskVolume::open(&there, false).unwrap());
        disk.check_place().unwrap();
        let began = Some(away.clone());
        std::sync::Arc::get_mut(&mut disk).unwrap().absolute.clone_from(&began);
        disk.check_place().unwrap();
        fs::rename(&there, &away).unwrap();
        disk.check_place().unwrap();
        fs::rename(&away, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(disk.check_place(), Err(StoreError::MissingDirectory { .. })));
        fs::create_dir(&there).unwrap();
        assert!(matches!(disk.check_place(), Err(StoreError::NameTaken { .. })));
    }
}
