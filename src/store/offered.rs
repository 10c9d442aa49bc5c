//! The contents that a program offers beside the files of its directories.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use crate::content::{ChunkIndex, ChunkSpan, Entry, Manifest, Marks, RelPath, Stamp};
use crate::store::source::{ChunkHash, OpenSource, Source, SourceError};
use crate::sync::{lock, read_lock, write_lock};

/// What is offered under which name. The server serves it.
#[derive(Debug, Default)]
pub struct OfferedFiles(RwLock<HashMap<RelPath, Arc<OfferedFile>>>);

/// A content that was hashed, and where its bytes are.
pub struct OfferedFile {
    /// Distinguishes it from all others that ever had the name.
    number: u64,
    name: RelPath,
    manifest: Arc<Manifest>,
    stamp: Stamp,
    /// When it was offered, ns since the Unix epoch: the time of a content that has none.
    offered_ns: i64,
    source: Source,
    /// Why it could not be read, once it could not.
    trouble: Mutex<Option<io::Error>>,
}

/// One chunk that is being read.
pub struct OfferedChunk {
    file: Arc<OfferedFile>,
    open: OpenSource,
    index: ChunkIndex,
    offset: u64,
    left: u64,
    /// The digest of what was read, where nothing else tells that it is what was hashed.
    hash: Option<ChunkHash>,
}

impl OfferedFiles {
    /// Adds a file in the place of one with its name.
    pub fn put(&self, file: OfferedFile) {
        let old = write_lock(&self.0).insert(file.name.clone(), Arc::new(file));
        // Closing a file may do I/O, so it happens outside of the lock.
        drop(old);
    }

    /// The file that is offered as `name`.
    pub fn get(&self, name: &RelPath) -> Option<Arc<OfferedFile>> {
        read_lock(&self.0).get(name).cloned()
    }

    /// Removes the file `name`, if it still is the one of that `number`.
    pub fn remove(&self, name: &RelPath, number: u64) -> Option<Arc<OfferedFile>> {
        let mut files = write_lock(&self.0);
        files.get(name).is_some_and(|file| file.number == number).then(|| files.remove(name))?
    }
}

impl OfferedFile {
    /// The content of `source`, which was hashed in the state `stamp`, under a name.
    pub fn new(number: u64, name: RelPath, source: Source, (manifest, stamp): (Manifest, Stamp)) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let offered_ns = i64::try_from(now).unwrap_or(i64::MAX);
        OfferedFile { number, name, manifest: Arc::new(manifest), stamp, offered_ns, source, trouble: Mutex::default() }
    }

    /// The number that it was made with.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What a catalogue says of it.
    pub fn entry(&self) -> Entry {
        let stamp = match self.stamp == Stamp::default() {
            true => Stamp { mtime_ns: self.offered_ns, ..Stamp::default() },
            false => self.stamp,
        };
        Entry { path: self.name.clone(), id: self.manifest.id(), stamp, marks: Marks::default() }
    }

    /// What its chunks are checked against.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Why it could not be read, once.
    pub fn take_trouble(&self) -> Option<io::Error> {
        lock(&self.trouble).take()
    }

    /// Starts to read chunk `index`. `Ok(None)` if the source is no longer in the state that was
    /// hashed, or cannot be read; then it never is again.
    ///
    /// # Errors
    /// The system's error, which may pass.
    pub fn chunk(self: &Arc<Self>, index: ChunkIndex) -> io::Result<Option<OfferedChunk>> {
        let ChunkSpan { offset, len } = self.manifest.geometry().span(index);
        let open = match self.source.open() {
            Ok(open) => open,
            Err(SourceError::Io(e)) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => return Ok(None),
        };
        if !self.is_unchanged(&open) {
            return Ok(None);
        }
        let hash = open.is_reader().then(ChunkHash::new);
        Ok(Some(OfferedChunk { file: self.clone(), open, index, offset, left: len.into(), hash }))
    }

    /// Whether the source gives other bytes for chunk `index` than were hashed, although it looks the
    /// same. Needs the memory of a read.
    pub fn is_falsified(self: &Arc<Self>, index: ChunkIndex) -> bool {
        let Ok(Some(mut chunk)) = self.chunk(index) else { return false };
        chunk.hash.get_or_insert_with(ChunkHash::new);
        let mut buffer = vec![0; crate::limits::READ_LEN];
        loop {
            match chunk.read(&mut buffer) {
                Ok(0) => return chunk.is_whole_state() && !chunk.is_hashed(),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    fn is_unchanged(&self, open: &OpenSource) -> bool {
        match open.state() {
            Ok(state) => state == (self.manifest.id().len, self.stamp),
            Err(e) => {
                *lock(&self.trouble) = Some(e);
                false
            }
        }
    }
}

impl OfferedChunk {
    /// Fills `into` from where the last call ended, up to the end of the chunk, and returns the
    /// number of bytes; 0 at the end.
    ///
    /// # Errors
    /// The source's, also when it ends early (`UnexpectedEof`).
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.left.min(into.len() as u64) as usize;
        let into = &mut into[..len];
        if let Err(e) = self.open.read_exact(into, self.offset) {
            let told = io::Error::new(e.kind(), e.to_string());
            *lock(&self.file.trouble) = Some(e);
            return Err(told);
        }
        if let Some(hash) = &mut self.hash {
            hash.push(into);
        }
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(len)
    }

    /// The file that it is read from.
    pub fn file(&self) -> &OfferedFile {
        &self.file
    }

    /// Whether all bytes of the chunk were read, and are what was hashed. To be called once, after the
    /// last byte.
    pub fn unchanged(&mut self) -> bool {
        self.left == 0 && self.is_whole_state() && self.is_hashed()
    }

    fn is_whole_state(&self) -> bool {
        self.file.is_unchanged(&self.open)
    }

    fn is_hashed(&mut self) -> bool {
        let (manifest, index) = (&self.file.manifest, self.index);
        self.hash.as_mut().is_none_or(|hash| hash.is(manifest, index))
    }
}

impl fmt::Debug for OfferedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.manifest.id();
        f.debug_struct("OfferedFile").field("name", &self.name).field("id", &id).field("source", &self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::store::ReadAt;

    /// Begins with a byte that may change.
    struct Fickle(Arc<AtomicU8>);

    impl ReadAt for Fickle {
        fn size(&self) -> io::Result<u64> {
            Ok(600_000)
        }

        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            into.fill(1);
            match self.0.load(Ordering::SeqCst) {
                9 => return Err(io::Error::other("gone")),
                first if offset == 0 => into[0] = first,
                _ => {}
            }
            Ok(into.len())
        }
    }

    fn offered(name: &str, source: Source) -> Arc<OfferedFile> {
        let hashed = source.hash(&|| false).unwrap();
        Arc::new(OfferedFile::new(7, RelPath::new(name).unwrap(), source, hashed))
    }

    fn read_all(chunk: &mut OfferedChunk) -> io::Result<usize> {
        let (mut buffer, mut sum) = (vec![0; 10_000], 0);
        loop {
            match chunk.read(&mut buffer)? {
                0 => return Ok(sum),
                n => sum += n,
            }
        }
    }

    #[test]
    fn a_reader_that_gives_other_bytes_is_found_out_before_its_chunk_counts() {
        let first = Arc::new(AtomicU8::new(1));
        let file = offered("x", Source::reader(Fickle(first.clone())));
        let geometry = file.manifest().geometry();
        let chunks: Vec<_> = geometry.chunks().collect();
        for (value, good) in [(1, true), (2, false), (1, true)] {
            first.store(value, Ordering::SeqCst);
            let mut chunk = file.chunk(chunks[0]).unwrap().unwrap();
            assert_eq!(read_all(&mut chunk).unwrap(), geometry.chunk_len() as usize);
            assert_eq!(chunk.unchanged(), good, "{value}");
            assert_eq!(file.is_falsified(chunks[0]), !good);
            let mut other = file.chunk(chunks[1]).unwrap().unwrap();
            assert!(!file.is_falsified(chunks[1]) && read_all(&mut other).is_ok() && other.unchanged());
        }
        first.store(9, Ordering::SeqCst);
        let mut chunk = file.chunk(chunks[0]).unwrap().unwrap();
        assert!(read_all(&mut chunk).is_err() && !chunk.unchanged());
        assert_eq!(file.take_trouble().unwrap().to_string(), "gone");
        assert!(file.take_trouble().is_none());
    }

    #[test]
    fn a_file_elsewhere_counts_in_the_state_that_was_hashed() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x");
        std::fs::write(&path, vec![5; 400_000]).unwrap();
        let file = offered("x", path.as_path().into());
        let index = file.manifest().geometry().chunk(1).unwrap();
        let mut begun = file.chunk(index).unwrap().unwrap();
        assert!(read_all(&mut begun).is_ok() && begun.unchanged());
        std::fs::write(&path, vec![6; 400_000]).unwrap();
        let written = std::fs::File::options().write(true).open(&path).unwrap();
        written.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!begun.unchanged() && file.chunk(index).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(file.chunk(index).unwrap().is_none());
    }

    #[test]
    fn a_name_is_removed_by_its_own_offer_alone() {
        let (files, name) = (OfferedFiles::default(), RelPath::new("x").unwrap());
        let file = |number| {
            let source = Source::from(vec![number as u8]);
            let hashed = source.hash(&|| false).unwrap();
            OfferedFile::new(number, name.clone(), source, hashed)
        };
        files.put(file(1));
        files.put(file(2));
        assert!(files.remove(&name, 1).is_none() && files.get(&name).unwrap().number() == 2);
        assert!(files.remove(&name, 2).is_some() && files.get(&name).is_none());
    }
}
