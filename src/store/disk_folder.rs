//! A directory of the node's own files on a real disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::store::disk_file::DiskFile;
use crate::store::make_dirs::make_dirs;
use crate::store::storage::{Folder, Storage};

/// A directory that only the user may enter, with files that only the user may read.
#[derive(Debug)]
pub(crate) struct DiskFolder {
    path: PathBuf,
}

impl DiskFolder {
    /// The directory `path`. Nothing is made before the first file is.
    pub(crate) fn new(path: &Path) -> Self {
        DiskFolder { path: path.to_path_buf() }
    }

    fn at(&self, name: &str, options: &mut OpenOptions) -> io::Result<Arc<dyn Storage>> {
        // Opening a FIFO must not wait for its other end.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = options.read(true).write(true).mode(0o600).custom_flags(flags).open(self.path_of(name))?;
        Ok(Arc::new(DiskFile::new(file.into(), false)))
    }
}

impl Folder for DiskFolder {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        match self.at(name, &mut OpenOptions::new()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn create(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        make_dirs(&self.path, 0o700)?;
        match self.at(name, OpenOptions::new().create_new(true)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            created => created.map(Some),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path_of(from), self.path_of(to))
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        match std::fs::remove_file(self.path_of(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_the_users_alone_and_names_are_as_asked() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("deep/state");
        let folder = DiskFolder::new(&path);
        assert!(folder.open("a").unwrap().is_none() && !folder.remove("a").unwrap() && !path.exists());
        let file = folder.create("a").unwrap().unwrap();
        file.write_at(3, b"xy").unwrap();
        assert!(folder.create("a").unwrap().is_none());
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("a"))), (0o700, 0o600));
        folder.rename("a", "b").unwrap();
        folder.sync().unwrap();
        let mut bytes = [9; 5];
        folder.open("b").unwrap().unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0xy");
        assert!(file.read_at(1, &mut bytes).is_err(), "it ends before");
        assert!(folder.open("a").unwrap().is_none() && folder.remove("b").unwrap());
        assert!(folder.rename("b", "c").is_err());
    }
}
