//! What a download has to give while it runs and after it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::content::{Entry, FileId, Manifest};
use crate::limits::SHELF_FILES_MAX;
use crate::store::{PartialFile, Reader};

/// Files of downloads of this node, by identity; what the server may give of them.
#[derive(Debug, Default)]
pub struct Shelf {
    files: RwLock<HashMap<FileId, Shelved>>,
    /// One for each directory that whole files lie in, while there are any: it keeps files open.
    readers: Mutex<HashMap<PathBuf, Weak<Reader>>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub enum Shelved {
    /// Still being downloaded: only chunks in [`PartialFile::have`].
    Partial(Arc<PartialFile>),
    /// Whole, under its final name in the directory of the reader.
    Whole(Entry, Arc<Manifest>, Arc<Reader>),
}

impl Shelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, or replaces its state. A shelf of [`SHELF_FILES_MAX`] takes no further whole file: it holds
    /// many already, and those that matter most, the large ones, came as partial ones.
    pub fn put(&self, id: FileId, what: Shelved) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let full = files.len() >= SHELF_FILES_MAX && matches!(what, Shelved::Whole(..));
        if !full || files.contains_key(&id) {
            let old = files.insert(id, what);
            drop(files);
            // The last owner of a partial file journals it, which is I/O.
            drop(old);
        }
    }

    /// Reads what downloads put into the directory `dir`; the same reader for as long as a file of it is here.
    ///
    /// # Errors
    /// What the system says when the directory cannot be opened.
    pub fn reader(&self, dir: &Path) -> io::Result<Arc<Reader>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(dir).and_then(Weak::upgrade) {
            return Ok(reader);
        }
        let reader = Arc::new(Reader::open(dir)?);
        readers.retain(|_, r| r.strong_count() > 0);
        readers.insert(dir.to_path_buf(), Arc::downgrade(&reader));
        Ok(reader)
    }

    /// Takes a file away.
    pub fn remove(&self, id: &FileId) {
        let old = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        drop(old);
    }

    /// The file of that identity.
    pub fn get(&self, id: &FileId) -> Option<Shelved> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, RelPath, Root, Stamp};

    fn whole(n: usize, reader: &Arc<Reader>) -> (FileId, Shelved) {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        let id = FileId { root: Root(Digest(digest)), len: 9 };
        let entry = Entry { path: RelPath::new(&format!("f{n}")).unwrap(), id, stamp: Stamp::default() };
        (id, Shelved::Whole(entry, Arc::new(Manifest::new(id, Vec::new()).unwrap()), reader.clone()))
    }

    fn reader() -> Arc<Reader> {
        Arc::new(Reader::open(&std::env::temp_dir()).unwrap())
    }

    #[test]
    fn a_directory_has_one_reader_while_it_is_in_use() {
        let (tmp, shelf) = (tempfile::tempdir().unwrap(), Shelf::new());
        let first = shelf.reader(tmp.path()).unwrap();
        assert!(Arc::ptr_eq(&first, &shelf.reader(tmp.path()).unwrap()));
        assert!(shelf.reader(&tmp.path().join("none")).is_err());
        drop(first);
        shelf.reader(&std::env::temp_dir()).unwrap();
        assert_eq!(shelf.readers.lock().unwrap().len(), 1, "the one that nobody uses is forgotten");
    }

    #[test]
    fn what_is_put_is_found_until_it_is_removed() {
        let (shelf, reader) = (Shelf::new(), reader());
        let (id, what) = whole(1, &reader);
        assert!(shelf.get(&id).is_none() && shelf.is_empty());
        shelf.put(id, what);
        assert!(matches!(shelf.get(&id), Some(Shelved::Whole(e, ..)) if e.id == id));
        assert!(shelf.get(&FileId { len: 10, ..id }).is_none(), "the length belongs to the identity");
        shelf.remove(&id);
        assert!(shelf.get(&id).is_none());
    }

    #[test]
    fn it_is_bounded() {
        let (shelf, reader) = (Shelf::new(), reader());
        for n in 0..SHELF_FILES_MAX + 3 {
            let (id, what) = whole(n, &reader);
            shelf.put(id, what);
        }
        assert_eq!(shelf.len(), SHELF_FILES_MAX);
        let (id, what) = whole(0, &reader);
        shelf.put(id, what);
        assert!(shelf.get(&id).is_some());
        let (id, _) = whole(SHELF_FILES_MAX + 1, &reader);
        assert!(shelf.get(&id).is_none());
    }
}
