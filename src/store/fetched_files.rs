//! What downloads of this node have to serve, while they run and after them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, Weak};

use crate::content::{Catalogue, Entry, EntryRef, FileId, Manifest, Marks, RelPath, Stamp};
use crate::limits::CATALOGUE_ENTRIES_MAX;
use crate::store::limits::FETCHED_SERVED_MAX;
use crate::store::{PartialFile, Reader};
use crate::sync::{lock, read_lock, write_lock};

/// Files that this node downloads or has downloaded, by identity. The server serves them.
#[derive(Debug, Default)]
pub struct FetchedFiles {
    files: RwLock<HashMap<FileId, FetchedFile>>,
    /// Changed only under the lock of `files`, so that both agree.
    listed: Mutex<ListedFiles>,
    /// One reader for each directory with whole files, while there are any: a reader keeps files
    /// open.
    readers: Mutex<HashMap<PathBuf, Weak<Reader>>>,
}

/// A file that is downloaded or has been.
#[derive(Debug, Clone)]
pub enum FetchedFile {
    /// The download is running. Only the chunks in [`PartialFile::have`] can be read.
    Partial(Arc<PartialFile>),
    /// The file is whole and has its final name in the directory of the reader.
    Whole(Entry, Arc<Manifest>, Arc<Reader>),
}

/// The names of whole files.
#[derive(Debug, Default)]
struct ListedFiles {
    snapshot: Arc<Catalogue>,
    /// Names that were added (`Some`) or removed since the snapshot. A new snapshot takes time in
    /// proportion to its length, so it is made on demand.
    changes: BTreeMap<RelPath, Option<Entry>>,
    /// What was joined last: this snapshot, with which other one, and what came of it.
    joined: Option<[Arc<Catalogue>; 3]>,
}

impl FetchedFiles {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file whose download is running.
    pub fn put_partial(&self, file: Arc<PartialFile>) {
        let id = file.manifest().id();
        self.replace(id, Some(FetchedFile::Partial(file)), &[]);
    }

    /// Adds a whole file, or replaces the entry of its identity, and lists it under `names`. Once
    /// there are [`FETCHED_SERVED_MAX`] files, a whole one is added only if its download was there
    /// before. Large files always are: only one-chunk files are left out.
    pub fn put_whole(&self, names: &[RelPath], entry: Entry, manifest: Arc<Manifest>, reader: Arc<Reader>) {
        self.replace(entry.id, Some(FetchedFile::Whole(entry, manifest, reader)), names);
    }

    /// The whole files, under the names by which other peers know them. The revision is always 0. A
    /// partial file has no name here.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        lock(&self.listed).fresh()
    }

    /// As [`catalogue`](Self::catalogue), together with what is `named`, which goes before a fetched
    /// file of the same name. Then the fetched files are marked as copies, and the revision is that of
    /// `named`.
    pub fn catalogue_with(&self, named: &Arc<Catalogue>) -> Arc<Catalogue> {
        let mut listed = lock(&self.listed);
        let fetched = listed.fresh();
        if named.revision() == 0 {
            return fetched;
        }
        let is_same = |[a, b, _]: &&[_; 3]| Arc::ptr_eq(a, &fetched) && Arc::ptr_eq(b, named);
        if let Some([.., joined]) = listed.joined.as_ref().filter(is_same) {
            return joined.clone();
        }
        let own = fetched.iter().filter(|entry| named.get(entry.path).is_none()).map(EntryRef::to_entry);
        let copies = own.map(|entry| {
            let marks = Marks { copy: true, ..entry.marks };
            (entry.path.clone(), Some(Entry { marks, ..entry }))
        });
        let joined = Arc::new(named.changed(named.revision(), &copies.collect()));
        listed.joined = Some([fetched, named.clone(), joined.clone()]);
        joined
    }

    /// The reader of the directory `dir`. All callers share one while it is in use.
    ///
    /// # Errors
    /// The system's error when the directory cannot be opened.
    pub fn reader(&self, dir: &Path) -> io::Result<Arc<Reader>> {
        let mut readers = lock(&self.readers);
        if let Some(reader) = readers.get(dir).and_then(Weak::upgrade) {
            return Ok(reader);
        }
        let reader = Arc::new(Reader::open(dir)?);
        readers.retain(|_, r| r.strong_count() > 0);
        readers.insert(dir.to_path_buf(), Arc::downgrade(&reader));
        Ok(reader)
    }

    /// Removes a file.
    pub fn remove(&self, id: &FileId) {
        self.replace(*id, None, &[]);
    }

    /// Removes each whole file that lies at `name` below `dir`, under whatever name other peers know
    /// it. True if there was one.
    pub fn remove_at(&self, dir: &Path, name: &RelPath) -> bool {
        let place_of = |dir: &Path, name: &RelPath| Some(dir.canonicalize().ok()?.join(name.as_str()));
        let Some(place) = place_of(dir, name) else { return false };
        let named_so = |(id, file): (&FileId, &FetchedFile)| match file {
            FetchedFile::Whole(entry, _, reader) if place.ends_with(entry.path.as_str()) => {
                Some((*id, entry.path.clone(), reader.clone()))
            }
            _ => None,
        };
        let mut maybe: Vec<_> = read_lock(&self.files).iter().filter_map(named_so).collect();
        maybe.retain(|(_, path, reader)| place_of(reader.path(), path).as_ref() == Some(&place));
        maybe.iter().for_each(|(id, ..)| self.remove(id));
        !maybe.is_empty()
    }

    /// The file at `path` below `dir` that is offered as `id` is in another state now, since it got
    /// another name.
    pub fn restamp(&self, id: &FileId, dir: &Path, path: &RelPath, stamp: Stamp) {
        let Some(FetchedFile::Whole(entry, manifest, reader)) = self.get(id) else { return };
        if entry.path == *path && reader.path() == dir {
            let names: Vec<RelPath> = self.catalogue().find(id).map(|listed| listed.to_entry().path).collect();
            self.put_whole(&names, Entry { stamp, ..entry }, manifest, reader);
        }
    }

    /// The file with this identity.
    pub fn get(&self, id: &FileId) -> Option<FetchedFile> {
        read_lock(&self.files).get(id).cloned()
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        read_lock(&self.files).len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn replace(&self, id: FileId, what: Option<FetchedFile>, names: &[RelPath]) {
        let mut files = write_lock(&self.files);
        let full = files.len() >= FETCHED_SERVED_MAX && matches!(what, Some(FetchedFile::Whole(..)));
        if full && !files.contains_key(&id) {
            return;
        }
        let mut listed = lock(&self.listed);
        if let Some(FetchedFile::Whole(..)) = files.get(&id) {
            listed.remove(&id);
        }
        if let Some(FetchedFile::Whole(entry, ..)) = &what {
            listed.add(names, entry);
        }
        drop(listed);
        let old = match what {
            Some(what) => files.insert(id, what),
            None => files.remove(&id),
        };
        drop(files);
        // Dropping the last handle of a partial file journals it, which is I/O.
        drop(old);
    }
}

impl ListedFiles {
    fn add(&mut self, names: &[RelPath], entry: &Entry) {
        // One content may have any number of names; the catalogue is bounded.
        let room = CATALOGUE_ENTRIES_MAX.saturating_sub(self.snapshot.len() + self.changes.len());
        for name in names.iter().take(room) {
            self.changes.insert(name.clone(), Some(Entry { path: name.clone(), ..entry.clone() }));
        }
    }

    fn remove(&mut self, id: &FileId) {
        for entry in self.fresh().find(id) {
            self.changes.insert(entry.to_entry().path, None);
        }
    }

    fn fresh(&mut self) -> Arc<Catalogue> {
        if !self.changes.is_empty() {
            self.snapshot = Arc::new(self.snapshot.changed(0, &std::mem::take(&mut self.changes)));
        }
        self.snapshot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Marks, Root};
    use crate::store::Disk;

    fn name(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn id(n: usize) -> FileId {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        FileId { root: Root(Digest(digest)), len: 9 }
    }

    /// Puts file `n` there, which lies in `f<n>`.
    fn put(fetched: &FetchedFiles, n: usize, names: &[&str], reader: &Arc<Reader>) {
        let entry = Entry { path: name(&format!("f{n}")), id: id(n), stamp: Stamp::default(), marks: Marks::default() };
        let names: Vec<RelPath> = names.iter().map(|n| name(n)).collect();
        fetched.put_whole(&names, entry, Arc::new(Manifest::new(id(n), Vec::new()).unwrap()), reader.clone());
    }

    fn listed(fetched: &FetchedFiles) -> Vec<(String, FileId)> {
        fetched.catalogue().iter().map(|e| (e.path.to_string(), e.id)).collect()
    }

    fn reader() -> Arc<Reader> {
        Arc::new(Reader::open(&std::env::temp_dir()).unwrap())
    }

    #[test]
    fn a_directory_has_one_reader_while_it_is_in_use() {
        let (tmp, fetched) = (tempfile::tempdir().unwrap(), FetchedFiles::new());
        let first = fetched.reader(tmp.path()).unwrap();
        assert!(Arc::ptr_eq(&first, &fetched.reader(tmp.path()).unwrap()));
        assert!(fetched.reader(&tmp.path().join("none")).is_err());
        drop(first);
        fetched.reader(&std::env::temp_dir()).unwrap();
        assert_eq!(fetched.readers.lock().unwrap().len(), 1, "the one that nobody uses is forgotten");
    }

    #[test]
    fn what_is_put_is_found_until_it_is_removed() {
        let (fetched, reader) = (FetchedFiles::new(), reader());
        assert!(fetched.get(&id(1)).is_none() && fetched.is_empty());
        put(&fetched, 1, &["x"], &reader);
        assert!(matches!(fetched.get(&id(1)), Some(FetchedFile::Whole(e, ..)) if e.path == name("f1")));
        assert!(fetched.get(&FileId { len: 10, ..id(1) }).is_none(), "the length belongs to the identity");
        fetched.remove(&id(1));
        assert!(fetched.get(&id(1)).is_none());
    }

    #[test]
    fn whole_files_are_listed_by_their_names() {
        let (fetched, reader) = (FetchedFiles::new(), reader());
        put(&fetched, 1, &["d/b", "a"], &reader);
        put(&fetched, 2, &["c"], &reader);
        let all = [("a".into(), id(1)), ("c".into(), id(2)), ("d/b".into(), id(1))];
        assert_eq!((listed(&fetched), fetched.catalogue().revision()), (all.to_vec(), 0));
        fetched.remove(&id(1));
        assert_eq!(listed(&fetched), [("c".into(), id(2))]);
        // Fetched once more under another name, and a name with another content.
        put(&fetched, 2, &["e"], &reader);
        put(&fetched, 3, &["e"], &reader);
        assert_eq!(listed(&fetched), [("e".into(), id(3))]);
        fetched.remove(&id(2));
        assert_eq!(listed(&fetched), [("e".into(), id(3))], "the name is not that of the removed file any more");
    }

    #[test]
    fn a_partial_file_is_held_but_not_listed() {
        let (tmp, fetched) = (tempfile::tempdir().unwrap(), FetchedFiles::new());
        let manifest = Arc::new(Manifest::new(id(1), Vec::new()).unwrap());
        let file = Disk::open(tmp.path(), false).unwrap().partial(manifest).unwrap();
        fetched.put_partial(file.clone());
        assert!(
            matches!(fetched.get(&file.manifest().id()), Some(FetchedFile::Partial(_))) && listed(&fetched).is_empty()
        );
        let entry =
            Entry { path: name("f"), id: file.manifest().id(), stamp: Stamp::default(), marks: Marks::default() };
        fetched.put_whole(&[name("x")], entry, file.manifest().clone(), reader());
        assert_eq!(listed(&fetched).len(), 1);
        fetched.put_partial(file);
        assert!(listed(&fetched).is_empty(), "it is fetched once more");
    }

    #[test]
    fn what_lies_at_a_place_is_removed_whatever_directory_it_was_fetched_to() {
        let (tmp, fetched) = (tempfile::tempdir().unwrap(), FetchedFiles::new());
        let sub = tmp.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let [outer, inner] = [tmp.path(), &sub].map(|dir| Arc::new(Reader::open(dir).unwrap()));
        put(&fetched, 1, &["x"], &outer);
        put(&fetched, 2, &["x"], &inner);
        assert!(!fetched.remove_at(&sub, &name("f1")) && !fetched.remove_at(tmp.path(), &name("f2")));
        assert!(!fetched.remove_at(tmp.path(), &name("x")) && fetched.len() == 2);
        assert!(fetched.remove_at(&tmp.path().join("sub/.."), &name("sub/f2")) && fetched.get(&id(2)).is_none());
        assert!(fetched.remove_at(tmp.path(), &name("f1")) && fetched.is_empty() && listed(&fetched).is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let (fetched, reader) = (FetchedFiles::new(), reader());
        for n in 0..FETCHED_SERVED_MAX + 3 {
            put(&fetched, n, &[&format!("f{n}")], &reader);
        }
        assert_eq!((fetched.len(), fetched.catalogue().len()), (FETCHED_SERVED_MAX, FETCHED_SERVED_MAX));
        put(&fetched, 0, &["f0"], &reader);
        assert!(fetched.get(&id(0)).is_some());
        assert!(fetched.get(&id(FETCHED_SERVED_MAX + 1)).is_none());
    }
}
