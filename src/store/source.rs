//! Contents that a program has elsewhere than in a shared directory: bytes in memory, files, readers.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::{ChunkIndex, Digest, FileId, Geometry, Manifest, Root, Stamp, merkle};
use crate::limits::{BLOCK_LEN, FILE_LEN_MAX, READ_LEN};
use crate::store::inspect::stamp_of;

/// A content that is read at offsets, such as a part of an archive or a table of a database. A
/// program implements it for what it offers by [`Node::offer`](crate::Node::offer).
///
/// Several threads read at the same time. They are threads that serve other nodes, so a call should
/// take no longer than a disk does. A call that panics counts as an error.
///
/// ```
/// use std::io;
/// use gpb::{ReadAt, Source};
///
/// /// The same byte over and over.
/// struct Filled(u64, u8);
///
/// impl ReadAt for Filled {
///     fn size(&self) -> io::Result<u64> {
///         Ok(self.0)
///     }
///
///     fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
///         let len = into.len().min(self.0.saturating_sub(offset) as usize);
///         into[..len].fill(self.1);
///         Ok(len)
///     }
/// }
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let (node, other) = (lan.node()?, lan.node()?);
/// let offered = node.offer("sevens.bin", Source::reader(Filled(1 << 20, 7)))?;
/// let report = other.fetch(offered.wait()?)?.wait()?;
/// assert_eq!(report.bytes, 1 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ReadAt: Send + Sync {
    /// Length of the content in bytes, at most 32 TiB.
    ///
    /// # Errors
    /// It cannot be had: the content is offered no longer.
    fn size(&self) -> io::Result<u64>;

    /// Fills `into` with bytes from `offset` on and returns their number, which may be less than fit;
    /// 0 only at the end.
    ///
    /// # Errors
    /// The bytes cannot be had: the content is offered no longer.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// What [`Node::offer`](crate::Node::offer) offers. Made of bytes (`Vec<u8>`, `Arc<[u8]>`,
/// `&[u8]`, which is copied), of a path (`PathBuf`, `&Path`), of an open [`File`], or by
/// [`reader`](Self::reader).
///
/// Bytes stay in memory as long as they are offered, and are not copied. A file is opened for each chunk
/// that is read from it, unless it was given open; links are followed.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use gpb::Source;
///
/// let bytes: Arc<[u8]> = b"hello".as_slice().into();
/// let sources = [Source::from(bytes), Source::from(Path::new("/etc/hostname"))];
/// # drop(sources);
/// ```
#[derive(Clone)]
pub struct Source(Origin);

/// Where the bytes are.
#[derive(Clone)]
enum Origin {
    Bytes(Arc<[u8]>),
    Path(Arc<PathBuf>),
    File(Arc<File>),
    Reader(Arc<dyn ReadAt>),
}

/// A source that is being read.
pub(super) enum OpenSource {
    Bytes(Arc<[u8]>),
    File(Arc<File>),
    Reader(Arc<dyn ReadAt>),
}

/// Why a source was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It changed meanwhile.
    #[error("it changed while it was hashed")]
    Changed,
    /// It is longer than any file.
    #[error("it has {0} bytes, and at most {FILE_LEN_MAX} are possible")]
    TooLong(u64),
    /// It is a directory, a device or the like.
    #[error("it is no regular file")]
    NotRegular,
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The work was ended.
    #[error("it was not hashed to its end")]
    Stopped,
}

impl Source {
    /// What `reader` reads.
    pub fn reader(reader: impl ReadAt + 'static) -> Self {
        Source(Origin::Reader(Arc::new(reader)))
    }

    /// What the system says of the file, if it is one.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        match &self.0 {
            Origin::Path(path) => std::fs::metadata(&**path).ok(),
            Origin::File(file) => file.metadata().ok(),
            Origin::Bytes(_) | Origin::Reader(_) => None,
        }
    }

    /// The bytes, if they are in memory.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Origin::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Reads and hashes it. Ends soon after `stop` returns true; it is called before every
    /// [`READ_LEN`] bytes, of which so many are in memory. Also returns the state in which it was.
    ///
    /// # Errors
    /// [`SourceError`]
    pub(crate) fn hash(&self, stop: &dyn Fn() -> bool) -> Result<(Manifest, Stamp), SourceError> {
        let open = self.open()?;
        let state = open.state()?;
        if state.0 > FILE_LEN_MAX {
            return Err(SourceError::TooLong(state.0));
        }
        let geometry = Geometry::new(state.0);
        let (mut layer, mut root) = (Vec::new(), Digest::ZERO);
        let (mut blocks, mut buffer) = (merkle::Blocks::new(), vec![0; READ_LEN]);
        for index in geometry.chunks() {
            let span = geometry.span(index);
            let (mut at, end) = (span.offset, span.offset + u64::from(span.len));
            while at < end {
                if stop() {
                    return Err(SourceError::Stopped);
                }
                let len = buffer.len().min((end - at) as usize);
                open.read_exact(&mut buffer[..len], at)?;
                blocks.push(&buffer[..len]);
                at += len as u64;
            }
            match geometry.needs_layer() {
                true => layer.push(blocks.finish_chunk(geometry.chunk_height())),
                false => root = blocks.finish_root(),
            }
        }
        if open.state()? != state {
            return Err(SourceError::Changed);
        }
        if geometry.needs_layer() {
            root = merkle::root_of_layer(&layer, geometry.chunk_height());
        }
        let id = FileId { root: Root(root), len: state.0 };
        let manifest = Manifest::new(id, layer).map_err(|e| SourceError::Io(io::Error::other(e)))?;
        Ok((manifest, state.1))
    }

    pub(super) fn open(&self) -> Result<OpenSource, SourceError> {
        let of_file = |file: Arc<File>| match file.metadata()?.is_file() {
            true => Ok(OpenSource::File(file)),
            false => Err(SourceError::NotRegular),
        };
        match &self.0 {
            Origin::Bytes(bytes) => Ok(OpenSource::Bytes(bytes.clone())),
            // Opening a FIFO waits for its other end.
            Origin::Path(path) if !std::fs::metadata(&**path)?.is_file() => Err(SourceError::NotRegular),
            Origin::Path(path) => of_file(Arc::new(File::open(&**path)?)),
            Origin::File(file) => of_file(file.clone()),
            Origin::Reader(reader) => Ok(OpenSource::Reader(reader.clone())),
        }
    }
}

impl OpenSource {
    /// Length and state. Of a reader nothing but the length is known.
    pub(super) fn state(&self) -> io::Result<(u64, Stamp)> {
        match self {
            OpenSource::Bytes(bytes) => Ok((bytes.len() as u64, Stamp::default())),
            OpenSource::File(file) => file.metadata().map(|meta| (meta.len(), stamp_of(&meta))),
            OpenSource::Reader(reader) => Ok((guarded(|| reader.size())?, Stamp::default())),
        }
    }

    /// Whether nothing but the bytes themselves tells that they are the hashed ones.
    pub(super) fn is_reader(&self) -> bool {
        matches!(self, OpenSource::Reader(_))
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// The source's, also when it ends early (`UnexpectedEof`).
    pub(super) fn read_exact(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            OpenSource::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let range = from..from.saturating_add(into.len());
                into.copy_from_slice(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            OpenSource::File(file) => file.read_exact_at(into, offset),
            OpenSource::Reader(reader) => {
                let mut filled = 0;
                while filled < into.len() {
                    let rest = &mut into[filled..];
                    let n = match guarded(|| reader.read_at(rest, offset + filled as u64)) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(n) if n > into.len() - filled => {
                            return Err(io::Error::other("more was read than asked for"));
                        }
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                        read => read?,
                    };
                    filled += n;
                }
                Ok(())
            }
        }
    }
}

/// Calls what a program wrote; a panic is an error.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))
}

/// The digest of a chunk whose bytes come in pieces of any length.
pub(super) struct ChunkHash {
    blocks: merkle::Blocks,
    /// The beginning of a block.
    rest: Vec<u8>,
}

impl ChunkHash {
    pub(super) fn new() -> Self {
        ChunkHash { blocks: merkle::Blocks::new(), rest: Vec::with_capacity(BLOCK_LEN) }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_LEN - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() == BLOCK_LEN {
                self.blocks.push(&self.rest);
                self.rest.clear();
            }
        }
        let (whole, tail) = bytes.split_at(bytes.len() / BLOCK_LEN * BLOCK_LEN);
        self.blocks.push(whole);
        self.rest.extend_from_slice(tail);
    }

    /// Whether chunk `index` of `manifest` is what was pushed.
    pub(super) fn is(&mut self, manifest: &Manifest, index: ChunkIndex) -> bool {
        self.blocks.push(&std::mem::take(&mut self.rest));
        let geometry = manifest.geometry();
        match geometry.needs_layer() {
            true => manifest.layer().get(index.as_usize()) == Some(&self.blocks.finish_chunk(geometry.chunk_height())),
            false => manifest.id().root.0 == self.blocks.finish_root(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Origin::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Origin::File(file) => f.debug_tuple("File").field(file).finish(),
            Origin::Reader(_) => f.write_str("Reader"),
        }
    }
}

impl From<Arc<[u8]>> for Source {
    fn from(bytes: Arc<[u8]>) -> Self {
        Source(Origin::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Source(Origin::Bytes(bytes.into()))
    }
}

impl From<Box<[u8]>> for Source {
    fn from(bytes: Box<[u8]>) -> Self {
        Source(Origin::Bytes(bytes.into()))
    }
}

impl From<&Vec<u8>> for Source {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&Arc<[u8]>> for Source {
    fn from(bytes: &Arc<[u8]>) -> Self {
        bytes.clone().into()
    }
}

impl From<&[u8]> for Source {
    fn from(bytes: &[u8]) -> Self {
        Source(Origin::Bytes(bytes.into()))
    }
}

impl<const N: usize> From<&[u8; N]> for Source {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        // The working directory may be another one later.
        Source(Origin::Path(Arc::new(std::path::absolute(&path).unwrap_or(path))))
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        path.to_path_buf().into()
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Self {
        path.clone().into()
    }
}

impl From<File> for Source {
    fn from(file: File) -> Self {
        Source(Origin::File(Arc::new(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads short, and is interrupted now and then.
    struct Hesitant(Vec<u8>);

    impl ReadAt for Hesitant {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            if offset % 7 == 3 && into.len() > 1 {
                into[0] = self.0[offset as usize];
                return Ok(1);
            }
            let n = into.len().min(1000);
            into[..n].copy_from_slice(&self.0[offset as usize..][..n]);
            Ok(n)
        }
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn all_sources_of_one_content_have_its_root() {
        let tmp = tempfile::tempdir().unwrap();
        for len in [0, 1, BLOCK_LEN, 300_000, 1_500_000] {
            let bytes = content(len);
            let path = tmp.path().join("x");
            std::fs::write(&path, &bytes).unwrap();
            let sources: [Source; 4] = [
                bytes.clone().into(),
                path.as_path().into(),
                File::open(&path).unwrap().into(),
                Source::reader(Hesitant(bytes.clone())),
            ];
            for source in sources {
                let (manifest, stamp) = source.hash(&|| false).unwrap();
                assert_eq!(manifest.id().len, len as u64, "{source:?}");
                assert_eq!(manifest.id().root.0, merkle::root_of_bytes(&bytes), "{source:?}");
                assert_eq!(stamp != Stamp::default(), matches!(source.0, Origin::Path(_) | Origin::File(_)));
                assert_eq!(len > 0, matches!(source.hash(&|| true), Err(SourceError::Stopped)));
            }
        }
    }

    #[test]
    fn pieces_of_any_length_make_the_digest_of_their_chunk() {
        let bytes = content(700_000);
        let (manifest, _) = Source::from(bytes.clone()).hash(&|| false).unwrap();
        for step in [1000, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 100_000] {
            for index in manifest.geometry().chunks() {
                let span = manifest.geometry().span(index);
                let chunk = &bytes[span.offset as usize..][..span.len as usize];
                let mut hash = ChunkHash::new();
                chunk.chunks(step).for_each(|piece| hash.push(piece));
                assert!(hash.is(&manifest, index), "{step}");
                let mut other = chunk.to_vec();
                other[BLOCK_LEN] ^= 1;
                other.chunks(step).for_each(|piece| hash.push(piece));
                assert!(!hash.is(&manifest, index), "{step}");
            }
        }
    }

    #[test]
    fn what_is_no_content_is_an_error() {
        struct Broken(u64, usize);
        impl ReadAt for Broken {
            fn size(&self) -> io::Result<u64> {
                assert!(self.0 > 0, "it panics for the test");
                Ok(self.0)
            }

            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Ok(self.1)
            }
        }
        let hash = |source: Source| source.hash(&|| false).map(drop).unwrap_err();
        assert!(matches!(hash(Source::reader(Broken(FILE_LEN_MAX + 1, 1))), SourceError::TooLong(_)));
        for (size, read) in [(10, 0), (10, 11), (0, 0)] {
            let error = hash(Source::reader(Broken(size, read)));
            assert!(matches!(error, SourceError::Io(_)), "{size} {read}: {error}");
        }
        let tmp = tempfile::tempdir().unwrap();
        assert!(matches!(hash(tmp.path().into()), SourceError::NotRegular));
        assert!(matches!(hash(tmp.path().join("none").into()), SourceError::Io(_)));
    }
}
