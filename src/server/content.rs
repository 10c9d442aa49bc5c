//! The sources of what is served: the shared directories, what the program offers, and the downloads
//! of this node.

use std::io;
use std::sync::Arc;

use crate::content::{Bitfield, Catalogue, ChunkIndex, ChunkSpan, Digest, Entry, FileId, Geometry, Manifest};
use crate::proto::Delta;
use crate::runtime::Watch;
use crate::server::limits::COPIES_TRIED_MAX;
use crate::store::{
    ChunkReader, FetchedFile, FetchedFiles, OfferedChunk, OfferedFiles, PartialFile, Reader, SharedRoots, is_passing,
};

/// What the handler serves from. The tests keep files in memory instead.
pub(crate) trait Content: Send + Sync {
    /// What is offered by name, now.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// How much of a file there is.
    fn held(&self, id: &FileId) -> Held;

    /// What has come since the state `since` of a file; `None` when nothing is held or new.
    fn delta(&self, id: &FileId, since: u64) -> Option<Delta>;

    /// The same in short: at most `max` new chunks, and `None` for a state that is not known.
    fn news(&self, id: &FileId, since: u64, max: usize) -> Option<Delta>;

    /// Chunk digests of a file that is held, if all of that range are known.
    fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>>;

    /// Begins to read a chunk.
    fn open(&self, id: &FileId, index: ChunkIndex) -> Result<Box<dyn ChunkBody>, Absent>;

    /// Reads a chunk, compares it with its digest and withdraws the file if the disk falsified it.
    /// True if it did.
    fn audit(&self, id: &FileId, index: ChunkIndex) -> bool;
}

/// The bytes of one chunk.
pub(crate) trait ChunkBody: Send {
    /// Fills `into` with the next bytes of the chunk and returns their number; 0 at its end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// After the last byte: whether all of them are from the state that was hashed.
    fn unchanged(&mut self) -> bool;
}

/// What a request found wrong with a file that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileDoubt {
    /// Its size and times are the hashed ones, its bytes are not.
    Falsified,
    /// It is gone, or not in the state that was hashed.
    Changed,
}

/// Takes a file that is in doubt, and why. It must not wait.
pub type DoubtReport = Arc<dyn Fn(&Entry, FileDoubt) + Send + Sync>;

/// How much of a file is held.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Whole,
    Partly(Bitfield),
}

/// Why there is no chunk to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is not offered.
    NotFound,
    /// It is offered, but the disk no longer has it.
    Gone,
    /// It is offered, but cannot be read now.
    Unreadable,
}

/// The shared directories, what is offered besides, and the downloads.
pub(crate) struct Sources {
    pub(crate) catalogue: Arc<Watch<Arc<Catalogue>>>,
    pub(crate) roots: SharedRoots,
    pub(crate) offered: Arc<OfferedFiles>,
    pub(crate) fetched: Arc<FetchedFiles>,
    pub(crate) report: DoubtReport,
}

impl Content for Sources {
    fn catalogue(&self) -> Arc<Catalogue> {
        // Without a directory to share, what was fetched is listed, too.
        let named = self.catalogue.get();
        if self.roots.is_empty() { self.fetched.catalogue_with(&named) } else { named }
    }

    fn held(&self, id: &FileId) -> Held {
        if self.catalogue.get().find(id).next().is_some() {
            return Held::Whole;
        }
        match self.fetched.get(id) {
            Some(FetchedFile::Whole(..)) => Held::Whole,
            Some(FetchedFile::Partial(file)) => match file.have() {
                // What is only read has no other place than its part.
                have if have.is_full() => Held::Whole,
                have => Held::Partly(have),
            },
            None => Held::Nothing,
        }
    }

    fn delta(&self, id: &FileId, since: u64) -> Option<Delta> {
        self.tell(id, |file| file.delta(since))
    }

    fn news(&self, id: &FileId, since: u64, max: usize) -> Option<Delta> {
        self.tell(id, |file| file.news(since, max))
    }

    fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>> {
        let from_manifest = |m: &Manifest| {
            let first = first as usize;
            m.layer().get(first..first.checked_add(count as usize)?).map(<[_]>::to_vec)
        };
        let catalogue = self.catalogue.get();
        let known = catalogue.find(id).next().and_then(|entry| match self.offered.get(&entry.to_entry().path) {
            Some(file) if file.manifest().id() == *id => from_manifest(file.manifest()),
            _ => self.roots.layer(id, first, count),
        });
        known.or_else(|| match self.fetched.get(id)? {
            FetchedFile::Whole(_, manifest, _) => from_manifest(&manifest),
            FetchedFile::Partial(file) => from_manifest(file.manifest()),
        })
    }

    fn open(&self, id: &FileId, index: ChunkIndex) -> Result<Box<dyn ChunkBody>, Absent> {
        let span = Geometry::new(id.len).span(index);
        let mut absent = Absent::NotFound;
        for entry in self.catalogue.get().find(id).take(COPIES_TRIED_MAX) {
            let entry = entry.to_entry();
            match self.open_named(&entry, index, span) {
                Ok(chunk) => return Ok(chunk),
                Err(why) => {
                    if why == Absent::Gone {
                        (self.report)(&entry, FileDoubt::Changed);
                    }
                    // What may be there later is not gone.
                    if absent != Absent::Unreadable {
                        absent = why;
                    }
                }
            }
        }
        match self.fetched.get(id) {
            Some(FetchedFile::Whole(entry, _, reader)) => {
                let opened = open_entry(&reader, &entry, span).map(|chunk| Box::new(chunk) as Box<dyn ChunkBody>);
                opened.inspect_err(|why| {
                    if *why == Absent::Gone {
                        self.fetched.remove(id);
                    }
                })
            }
            Some(FetchedFile::Partial(file)) if file.has(index) => {
                Ok(Box::new(PartialBody { file, offset: span.offset, left: span.len as usize }))
            }
            _ => Err(absent),
        }
    }

    fn audit(&self, id: &FileId, index: ChunkIndex) -> bool {
        let mut withdrawn = false;
        for entry in self.catalogue.get().find(id).take(COPIES_TRIED_MAX) {
            let entry = entry.to_entry();
            if self.is_falsified(&entry, index) {
                (self.report)(&entry, FileDoubt::Falsified);
                withdrawn = true;
            }
        }
        match self.fetched.get(id) {
            Some(FetchedFile::Whole(entry, manifest, reader))
                if is_falsified(&reader, &entry, index, manifest.layer().get(index.as_usize())) =>
            {
                self.fetched.remove(id);
                (self.report)(&entry, FileDoubt::Falsified);
                true
            }
            Some(FetchedFile::Partial(file)) if is_partial_falsified(&file, index) => {
                self.fetched.remove(id);
                log::warn!("not serving a download whose bytes on disk changed file={id} chunk={}", index.get());
                true
            }
            _ => withdrawn,
        }
    }
}

impl Sources {
    /// Begins to read a chunk of a file that is offered by name.
    fn open_named(&self, entry: &Entry, index: ChunkIndex, span: ChunkSpan) -> Result<Box<dyn ChunkBody>, Absent> {
        let report = self.report.clone();
        match self.offered.get(&entry.path).filter(|file| file.manifest().id() == entry.id) {
            Some(file) => {
                let opened = file.chunk(index).map_err(|e| absence(entry, &e))?;
                let chunk = opened.ok_or(Absent::Gone)?;
                Ok(Box::new(NamedBody { chunk, entry: entry.clone(), report }))
            }
            None => {
                let (root, local) = self.roots.find(entry).ok_or(Absent::Gone)?;
                let chunk = open_entry(&root.reader, &local, span)?;
                Ok(Box::new(NamedBody { chunk, entry: entry.clone(), report }))
            }
        }
    }

    /// Whether the source of an offered file gives other bytes than were hashed although it looks the
    /// same.
    fn is_falsified(&self, entry: &Entry, index: ChunkIndex) -> bool {
        if let Some(file) = self.offered.get(&entry.path).filter(|file| file.manifest().id() == entry.id) {
            return file.is_falsified(index);
        }
        let Some((root, local)) = self.roots.find(entry) else { return false };
        let digest = root.index.layer(&entry.id, index.get(), 1).and_then(|layer| layer.first().copied());
        is_falsified(&root.reader, &local, index, digest.as_ref())
    }

    /// What is there of a file: all of it, or what `of_partial` says.
    fn tell(&self, id: &FileId, of_partial: impl FnOnce(&PartialFile) -> Option<Delta>) -> Option<Delta> {
        if self.catalogue.get().find(id).next().is_some() {
            return Some(Delta::Whole);
        }
        match self.fetched.get(id)? {
            FetchedFile::Whole(..) => Some(Delta::Whole),
            FetchedFile::Partial(file) if file.is_whole() => Some(Delta::Whole),
            FetchedFile::Partial(file) => of_partial(&file),
        }
    }
}

/// Opens a chunk of a file, unless the file is gone, changed or unreadable.
fn open_entry(reader: &Reader, entry: &Entry, span: ChunkSpan) -> Result<ChunkReader, Absent> {
    match reader.chunk(entry, span) {
        Ok(chunk) => chunk.ok_or(Absent::Gone),
        Err(e) => Err(absence(entry, &e)),
    }
}

fn absence(entry: &Entry, e: &io::Error) -> Absent {
    log::debug!("cannot read path={} error=\"{e}\"", entry.path);
    if is_passing(e) { Absent::Unreadable } else { Absent::Gone }
}

/// Whether the disk gives other bytes than were hashed although the file looks the same.
fn is_falsified(reader: &Reader, entry: &Entry, index: ChunkIndex, digest: Option<&Digest>) -> bool {
    match reader.verify_chunk(entry, index, digest) {
        // Without the digest nothing can be compared, unless the file is one chunk.
        Ok(Some(same)) => !same && (digest.is_some() || !Geometry::new(entry.id.len).needs_layer()),
        Ok(None) => false,
        Err(e) => {
            log::warn!("cannot check path={} chunk={} error=\"{e}\"", entry.path, index.get());
            false
        }
    }
}

fn is_partial_falsified(file: &PartialFile, index: ChunkIndex) -> bool {
    let manifest = file.manifest();
    let span = manifest.geometry().span(index);
    let mut bytes = vec![0; span.len as usize];
    file.has(index) && file.read_at(span.offset, &mut bytes).is_ok() && !manifest.verify(index, &bytes)
}

impl ChunkBody for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        ChunkReader::read(self, into)
    }

    fn unchanged(&mut self) -> bool {
        ChunkReader::unchanged(self)
    }
}

impl ChunkBody for OfferedChunk {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        OfferedChunk::read(self, into)
    }

    fn unchanged(&mut self) -> bool {
        OfferedChunk::unchanged(self)
    }
}

/// A chunk of what is offered by name. It reports its file if that changes while it is read.
struct NamedBody<C> {
    chunk: C,
    entry: Entry,
    report: DoubtReport,
}

impl<C: ChunkBody> ChunkBody for NamedBody<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.chunk.read(into)
    }

    fn unchanged(&mut self) -> bool {
        let is_unchanged = self.chunk.unchanged();
        if !is_unchanged {
            (self.report)(&self.entry, FileDoubt::Changed);
        }
        is_unchanged
    }
}

/// A verified chunk of a download that is under way. No other program writes to that file.
struct PartialBody {
    file: Arc<PartialFile>,
    offset: u64,
    left: usize,
}

impl ChunkBody for PartialBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.left);
        self.file.read_at(self.offset, &mut into[..n]).map_err(io::Error::other)?;
        self.offset += n as u64;
        self.left -= n;
        Ok(n)
    }

    fn unchanged(&mut self) -> bool {
        true
    }
}
