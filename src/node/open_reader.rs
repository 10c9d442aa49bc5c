//! A reader of a content that is fetched meanwhile.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use crate::client::{Canceller, DownloadOptions, Failed, FetchError, FoundFile, ReadSource, ReadStep, VerifiedChunk};
use crate::content::{ChunkIndex, Geometry};
use crate::node::open_files::{Entered, OpenContent, OpenFiles};

/// A reader, and what it has to know between two reads.
pub(super) struct OpenReader {
    files: Arc<OpenFiles>,
    content: Arc<OpenContent>,
    /// Its number among the readers of the content.
    reader: u64,
    position: u64,
    /// The chunk that it read last, and where that is.
    here: Option<(ChunkIndex, ReadSource)>,
    last: VerifiedChunk,
    /// Number of failures that it has reported, or that came before it.
    told: u64,
    canceller: Canceller,
}

impl OpenReader {
    pub(super) fn new(files: Arc<OpenFiles>, (content, entered): Entered, canceller: Canceller) -> Self {
        let (reader, told, last) = (entered.number, entered.failures, VerifiedChunk::default());
        OpenReader { files, content, reader, position: 0, here: None, last, told, canceller }
    }

    /// What is read.
    pub(super) fn found(&self) -> &FoundFile {
        &self.content.found
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What ends its reads.
    pub(super) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// How the content is fetched.
    pub(super) fn options(&self) -> &DownloadOptions {
        &self.content.options
    }

    /// A further reader at the same place.
    pub(super) fn fork(&self) -> Result<Self, FetchError> {
        let entered = self.files.enter(&self.content)?;
        let mut other = OpenReader::new(self.files.clone(), entered, Canceller::new());
        other.position = self.position;
        Ok(other)
    }

    fn len(&self) -> u64 {
        self.content.found.id.len
    }

    /// Where `chunk` is, once it has come.
    fn find(&mut self, chunk: ChunkIndex) -> io::Result<ReadSource> {
        loop {
            if self.canceller.is_cancelled() {
                return Err(start_error(FetchError::Cancelled));
            }
            if let Some((_, source)) = self.here.as_ref().filter(|(at, _)| *at == chunk) {
                return Ok(source.clone());
            }
            self.content.go(self.reader, chunk);
            let reading = &self.content.reading;
            let woken = reading.clone();
            let _wakes = self.canceller.signal().while_held(move || woken.wake());
            match reading.wait(chunk, self.told, &|| self.canceller.is_cancelled()) {
                ReadStep::Here(source) => self.here = Some((chunk, source)),
                ReadStep::Failed(failed, told) => {
                    self.told = told;
                    return Err(read_error(failed));
                }
                ReadStep::Idle => self.files.fetch(&self.content).map_err(start_error)?,
                ReadStep::Stopped => return Err(start_error(FetchError::Cancelled)),
            }
        }
    }
}

impl Read for OpenReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // The place at the end lies in the last chunk, which may have to come from the group.
        if into.is_empty() || self.position >= self.len() {
            return Ok(0);
        }
        let geometry = Geometry::new(self.len());
        loop {
            let chunk = u32::try_from(self.position / geometry.chunk_len().max(1)).ok();
            let Some(chunk) = chunk.and_then(|chunk| geometry.chunk(chunk)) else {
                return Ok(0);
            };
            let source = self.find(chunk)?;
            let span = geometry.span(chunk);
            let left = (span.offset + u64::from(span.len)).saturating_sub(self.position);
            let len = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if source.read((chunk, self.position), &mut into[..len], &mut self.last)? {
                self.position += len as u64;
                return Ok(len);
            }
            self.here = None;
            self.content.reading.lose(&source);
        }
    }
}

impl Seek for OpenReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let before_the_start = || io::Error::new(io::ErrorKind::InvalidInput, "seek to before the start");
        self.position = target.ok_or_else(before_the_start)?;
        Ok(self.position)
    }
}

impl Drop for OpenReader {
    fn drop(&mut self) {
        self.files.leave(&self.content, self.reader);
    }
}

/// An error that no download has a report of.
fn start_error(error: FetchError) -> io::Error {
    read_error(Failed { error: Arc::new(error), report: Arc::default() })
}

/// The error of a read. Its kind is none that makes callers repeat the read for ever.
fn read_error(failed: Failed) -> io::Error {
    use io::ErrorKind::{ConnectionAborted, InvalidData, NotFound, Other, PermissionDenied, TimedOut};
    let kind = match &*failed.error {
        FetchError::Silent { .. } | FetchError::NoPeer(_) | FetchError::HolderLeft { .. } | FetchError::Full { .. } => {
            TimedOut
        }
        FetchError::NotFound { .. } | FetchError::Changed { .. } => NotFound,
        FetchError::OnlyLiars { .. } => InvalidData,
        FetchError::Refused { .. } => PermissionDenied,
        FetchError::Cancelled | FetchError::Stopped => ConnectionAborted,
        _ => Other,
    };
    io::Error::new(kind, failed)
}
