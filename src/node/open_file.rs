//! A file of the group that is read while it is fetched.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{Canceller, DownloadOptions, FetchError, FoundFile, Overwrite, Selection};
use crate::node::fetch::Fetch;
use crate::node::fetch_job::Place;
use crate::node::fetch_starter::{FetchOrder, FetchStarter};
use crate::node::open_reader::OpenReader;

/// A file of the group, open for reading while it is fetched: [`Node::open`](crate::Node::open).
///
/// Every byte is verified before [`read`](Read::read) hands it out. What comes next is fetched ahead:
/// a little after a seek, up to 32 MiB while reads are sequential. What no reader comes near is not
/// fetched. A read blocks until its first byte is there, and at most for the node's
/// [`timeout`](crate::Config::timeout) without progress; a seek does not block.
///
/// Several readers may have one content open, each with a place of its own
/// ([`try_clone`](Self::try_clone), or another `open`): it is fetched once. A node that shares gives
/// others the chunks that it has, meanwhile.
///
/// What came lies in `.gpb` of the node's directory, and a later fetch resumes from it. It is removed a
/// minute after the last reader, unless [`keep`](Self::keep) or another fetch made it a file. A node
/// without a directory keeps it in memory: at most 256 MiB of all files that are open together.
///
/// # Errors of a read
///
/// An [`io::Error`] whose [`get_ref`](io::Error::get_ref) is the [`Failed`](crate::error::Failed) of the fetch, of the kind
/// `TimedOut` if nothing came for too long. What is there can still be read, and the next read of what
/// is not tries again.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("film.mkv", &[7; 700_000])])?;
/// # let node = lan.node()?;
/// let mut film = node.open("film.mkv")?;
/// let mut head = [0; 16];
/// film.read_exact(&mut head)?;
/// film.seek(SeekFrom::End(-4))?;
/// let mut tail = Vec::new();
/// film.read_to_end(&mut tail)?;
/// assert_eq!((head, tail.len(), film.len()), ([7; 16], 4, 700_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OpenFile {
    reader: OpenReader,
    starter: Arc<FetchStarter>,
}

impl OpenFile {
    pub(super) fn new(reader: OpenReader, starter: Arc<FetchStarter>) -> Self {
        OpenFile { reader, starter }
    }

    /// What it is: its name, its content, and the nodes that had it when it was found.
    pub fn found(&self) -> &FoundFile {
        self.reader.found()
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.found().id.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A further reader of the same content, at the same place, with a canceller of its own.
    ///
    /// # Errors
    /// [`FetchError::TooManyReaders`] beyond 64 readers of one content; [`FetchError::Stopped`] when the
    /// node ends.
    pub fn try_clone(&self) -> Result<OpenFile, FetchError> {
        Ok(OpenFile { reader: self.reader.fork()?, starter: self.starter.clone() })
    }

    /// What ends the reads of this reader from another thread: they fail with
    /// [`FetchError::Cancelled`].
    pub fn canceller(&self) -> Canceller {
        self.reader.canceller().clone()
    }

    /// Makes it a file at `path`: all of it is fetched now, and readers may continue meanwhile. Directly
    /// below the node's directory its part gets the name, elsewhere it is copied. A different file
    /// there is refused; [`Node::get`](crate::Node::get) of [`found`](Self::found) has that choice, and
    /// takes the bytes over as this does.
    ///
    /// # Errors
    /// As of [`Get::start`](crate::Get::start), whose fetch this returns.
    pub fn keep(&self, path: impl Into<PathBuf>) -> Result<Fetch, FetchError> {
        let options = DownloadOptions { overwrite: Overwrite::default(), ..self.reader.options().clone() };
        let (want, place) = (self.found().clone().into(), Place::File(path.into()));
        self.starter.start(FetchOrder { want, place, selection: Selection::default(), options, writer: None })
    }
}

impl Read for OpenFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.reader.position();
        f.debug_struct("OpenFile").field("found", self.found()).field("position", &position).finish_non_exhaustive()
    }
}
