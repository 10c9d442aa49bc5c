//! Reading shared files, with proof that they did not change meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use crate::content::{ChunkIndex, ChunkSpan, Digest, Entry, Geometry, merkle};
use crate::limits::READ_LEN;
use crate::store::inspect::stamp_of;
use crate::store::limits::OPEN_FILES_MAX;
use crate::store::read_root::ReadRoot;
use crate::store::used_names::UsedNames;
use crate::sync::lock;

/// Reads files of a shared directory by their catalogue entry. It opens them beneath the directory,
/// never through a symlink that leaves it. Between two chunks it keeps at most [`OPEN_FILES_MAX`]
/// files of several chunks open.
#[derive(Debug)]
pub struct Reader {
    dir: ReadRoot,
    path: PathBuf,
    /// The open files, the one read last at the front.
    open: Mutex<VecDeque<(Entry, Arc<File>)>>,
    /// Takes note of what is read; none where that does not matter.
    used: OnceLock<Arc<UsedNames>>,
}

/// One chunk that is being read. Its file is checked before the first byte and after the last one.
#[derive(Debug)]
pub struct ChunkReader {
    file: Arc<File>,
    entry: Entry,
    offset: u64,
    left: u64,
}

impl Reader {
    /// Opens the shared directory.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (open, used) = (Mutex::default(), OnceLock::new());
        Ok(Reader { dir: ReadRoot::open(dir)?, path: dir.to_path_buf(), open, used })
    }

    /// Notes in `used` what is read from now on. Only the first call counts.
    pub fn note_use(&self, used: Arc<UsedNames>) {
        let _ = self.used.set(used);
    }

    /// The directory, as it was given to [`open`](Reader::open).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts to read `span` of `entry`. Returns `Ok(None)` if the file is gone or no longer in the
    /// state `entry.stamp`.
    ///
    /// # Errors
    /// The system's error.
    pub fn chunk(&self, entry: &Entry, span: ChunkSpan) -> io::Result<Option<ChunkReader>> {
        if let Some(used) = self.used.get() {
            used.note(entry.path.as_str());
        }
        // A file of one chunk has no next chunk: looking for it costs more than opening it.
        let is_kept = Geometry::new(entry.id.len).needs_layer();
        if let Some(file) = is_kept.then(|| self.opened(entry)).flatten() {
            if is_unchanged(&file, entry) {
                return Ok(Some(ChunkReader::new(file, entry, span)));
            }
            // The file changed, or another one has its name by now.
            self.forget(entry);
        }
        let mut found = self.fresh(entry)?;
        // The directory itself may have been replaced.
        if found.is_none() && self.dir.refresh().unwrap_or(false) {
            found = self.fresh(entry)?;
        }
        let Some(file) = found else { return Ok(None) };
        if is_kept {
            self.keep(entry, &file);
        }
        Ok(Some(ChunkReader::new(file, entry, span)))
    }

    /// Reads chunk `index` of `entry` and compares it with `digest`, its digest in the layer. A
    /// file of one chunk is compared with its root. Returns `Ok(None)` if the file is gone or
    /// changed, and `Ok(Some(false))` if the disk returns other bytes than the ones that were
    /// hashed, although size and times are the same. Needs [`READ_LEN`] bytes of memory.
    ///
    /// # Errors
    /// The system's error.
    pub fn verify_chunk(&self, entry: &Entry, index: ChunkIndex, digest: Option<&Digest>) -> io::Result<Option<bool>> {
        let geometry = Geometry::new(entry.id.len);
        let Some(mut chunk) = self.chunk(entry, geometry.span(index))? else { return Ok(None) };
        let mut blocks = merkle::Blocks::new();
        let mut buffer = vec![0; READ_LEN];
        loop {
            match chunk.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => blocks.push(&buffer[..len]),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        if !chunk.unchanged() {
            return Ok(None);
        }
        Ok(Some(match digest {
            Some(digest) if geometry.needs_layer() => blocks.finish_chunk(geometry.chunk_height()) == *digest,
            _ => !geometry.needs_layer() && blocks.finish_root() == entry.id.root.0,
        }))
    }

    /// Closes files that were removed or changed after they were read, so that their space can be
    /// freed. Worth a call when the catalogue has changed.
    pub fn close_stale(&self) {
        let kept = std::mem::take(&mut *lock(&self.open));
        let mut fresh: VecDeque<_> = kept.into_iter().filter(|(e, f)| is_unchanged(f, e)).collect();
        let mut open = lock(&self.open);
        // The files that were opened meanwhile are the newest ones.
        open.append(&mut fresh);
        let kept = OPEN_FILES_MAX.min(open.len());
        let beyond = open.split_off(kept);
        drop(open);
        drop(beyond);
    }

    fn fresh(&self, entry: &Entry) -> io::Result<Option<Arc<File>>> {
        match self.dir.open_file(entry.path.as_str()) {
            Ok((file, meta)) if meta.len() == entry.id.len && stamp_of(&meta) == entry.stamp => {
                Ok(Some(Arc::new(file)))
            }
            Ok(_) => Ok(None),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn opened(&self, entry: &Entry) -> Option<Arc<File>> {
        let mut open = lock(&self.open);
        let at = open.iter().position(|(e, _)| e == entry)?;
        let found = open.remove(at)?;
        let file = found.1.clone();
        open.push_front(found);
        Some(file)
    }

    fn keep(&self, entry: &Entry, file: &Arc<File>) {
        let mut open = lock(&self.open);
        open.push_front((entry.clone(), file.clone()));
        let oldest = if open.len() > OPEN_FILES_MAX { open.pop_back() } else { None };
        drop(open);
        // Closing a file may do I/O, so it happens outside of the lock.
        drop(oldest);
    }

    fn forget(&self, entry: &Entry) {
        let mut open = lock(&self.open);
        let at = open.iter().position(|(e, _)| e == entry);
        let stale = at.and_then(|at| open.remove(at));
        drop(open);
        drop(stale);
    }
}

impl ChunkReader {
    fn new(file: Arc<File>, entry: &Entry, span: ChunkSpan) -> Self {
        ChunkReader { file, entry: entry.clone(), offset: span.offset, left: span.len as u64 }
    }

    /// Fills `into` from where the last call ended, up to the end of the chunk, and returns the
    /// number of bytes; 0 at the end.
    ///
    /// # Errors
    /// The system's error, also when the file ends early (`UnexpectedEof`).
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.left.min(into.len() as u64) as usize;
        self.file.read_exact_at(&mut into[..len], self.offset)?;
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(len)
    }

    /// The file that it is read from.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the file is still in the state in which it was hashed. To be called after the last
    /// byte.
    pub fn unchanged(&self) -> bool {
        is_unchanged(&self.file, &self.entry)
    }
}

/// Removing or replacing a file changes the link count of the open inode, and so its ctime.
/// Checking the open file is therefore enough.
fn is_unchanged(file: &File, entry: &Entry) -> bool {
    file.metadata().is_ok_and(|m| m.len() == entry.id.len && stamp_of(&m) == entry.stamp)
}

fn is_gone(e: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(e.kind(), NotFound | NotADirectory | IsADirectory | InvalidInput | PermissionDenied)
}

/// Whether an error says nothing about the file itself: too many are open, or the disk has trouble.
pub fn is_passing(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO | Errno::INTR | Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::content::{FileId, Marks, RelPath, Root};

    #[test]
    fn a_lack_of_descriptors_does_not_mean_that_a_file_is_gone() {
        let of = |errno: Errno| is_passing(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(of(Errno::MFILE) && of(Errno::NFILE) && of(Errno::IO));
        assert!(!of(Errno::NOENT) && !of(Errno::ACCESS) && !is_passing(&io::Error::other("x")));
    }

    fn shared(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Reader, Vec<Entry>) {
        let tmp = tempfile::tempdir().unwrap();
        let entries = files
            .iter()
            .map(|(name, bytes)| {
                fs::write(tmp.path().join(name), bytes).unwrap();
                entry(tmp.path(), name, bytes)
            })
            .collect();
        let reader = Reader::open(tmp.path()).unwrap();
        (tmp, reader, entries)
    }

    fn entry(dir: &Path, name: &str, bytes: &[u8]) -> Entry {
        let stamp = stamp_of(&fs::metadata(dir.join(name)).unwrap());
        let id = FileId { root: Root(merkle::root_of_bytes(bytes)), len: bytes.len() as u64 };
        Entry { path: RelPath::new(name).unwrap(), id, stamp, marks: Marks::default() }
    }

    fn span(entry: &Entry, index: u32) -> ChunkSpan {
        let g = Geometry::new(entry.id.len);
        g.span(g.chunk(index).unwrap())
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn chunks_come_as_they_are_in_the_file() {
        let bytes = content(600_000);
        let (_tmp, reader, entries) = shared(&[("f", &bytes)]);
        for index in [2, 0, 1] {
            let s = span(&entries[0], index);
            let mut chunk = reader.chunk(&entries[0], s).unwrap().unwrap();
            let (mut got, mut buffer) = (Vec::new(), [0; 5000]);
            while let n @ 1.. = chunk.read(&mut buffer).unwrap() {
                got.extend_from_slice(&buffer[..n]);
            }
            assert!(got == bytes[s.offset as usize..][..s.len as usize] && chunk.unchanged());
        }
        assert_eq!(reader.open.lock().unwrap().len(), 1, "the file stays open");
    }

    #[test]
    fn a_changed_replaced_or_removed_file_is_gone() {
        let bytes = content(1000);
        let (tmp, reader, entries) = shared(&[("a", &bytes), ("b", &bytes), ("c", &bytes), ("d", &bytes)]);
        let begun: Vec<_> = entries.iter().map(|e| reader.chunk(e, span(e, 0)).unwrap().unwrap()).collect();
        assert!(begun.iter().all(ChunkReader::unchanged));
        let written = fs::File::options().write(true).open(tmp.path().join("a")).unwrap();
        written.write_all_at(b"x", 1).unwrap();
        written.set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::remove_file(tmp.path().join("b")).unwrap();
        fs::write(tmp.path().join("new"), &bytes).unwrap();
        fs::rename(tmp.path().join("new"), tmp.path().join("c")).unwrap();
        fs::File::options().write(true).open(tmp.path().join("d")).unwrap().set_len(10).unwrap();
        for (mut chunk, e) in begun.into_iter().zip(&entries) {
            let _ = chunk.read(&mut [0; 2000]);
            assert!(!chunk.unchanged(), "{}", e.path);
            assert!(reader.chunk(e, span(e, 0)).unwrap().is_none(), "{}", e.path);
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error_not_padding() {
        let (tmp, reader, entries) = shared(&[("f", &content(1000))]);
        let mut chunk = reader.chunk(&entries[0], span(&entries[0], 0)).unwrap().unwrap();
        fs::File::options().write(true).open(tmp.path().join("f")).unwrap().set_len(10).unwrap();
        assert_eq!(chunk.read(&mut [0; 1000]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn open_files_are_bounded() {
        let (names, bytes): (Vec<String>, _) =
            ((0..OPEN_FILES_MAX + 5).map(|i| i.to_string()).collect(), content(300_000));
        let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), bytes.as_slice())).collect();
        let (tmp, reader, entries) = shared(&files);
        for e in &entries {
            assert!(reader.chunk(e, span(e, 0)).unwrap().is_some());
        }
        assert_eq!(reader.open.lock().unwrap().len(), OPEN_FILES_MAX);
        for e in &entries[10..] {
            fs::remove_file(tmp.path().join(e.path.as_str())).unwrap();
        }
        reader.close_stale();
        assert_eq!(reader.open.lock().unwrap().len(), 5, "what is gone does not stay open");
        let (_tmp, reader, entries) = shared(&[("one chunk", b"x")]);
        assert!(reader.chunk(&entries[0], span(&entries[0], 0)).unwrap().is_some());
        assert!(reader.open.lock().unwrap().is_empty(), "it is whole");
    }

    #[test]
    fn a_disk_that_lies_is_found_out() {
        let (tmp, reader, entries) = shared(&[("one", &content(1000)), ("two", &content(300_000))]);
        let g = Geometry::new(300_000);
        let (first, last) = (g.chunk(0).unwrap(), g.chunk(1).unwrap());
        let digests: Vec<Digest> =
            content(300_000).chunks(262_144).map(|c| merkle::chunk_digest(c, g.chunk_height())).collect();
        assert_eq!(reader.verify_chunk(&entries[0], first, None).unwrap(), Some(true));
        assert_eq!(reader.verify_chunk(&entries[1], last, Some(&digests[1])).unwrap(), Some(true));
        assert_eq!(reader.verify_chunk(&entries[1], first, Some(&digests[1])).unwrap(), Some(false));
        let mut lied = entries[0].clone();
        lied.id.root = Root(Digest([9; 32]));
        assert_eq!(reader.verify_chunk(&lied, first, None).unwrap(), Some(false));
        fs::remove_file(tmp.path().join("one")).unwrap();
        assert_eq!(reader.verify_chunk(&entries[0], first, None).unwrap(), None);
    }
}
