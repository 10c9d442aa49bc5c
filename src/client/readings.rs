//! Contents that are read while they are fetched.
//!
//! The readers of one content share a [`Reading`]: where its bytes are that have come, and what each
//! reader needs next. It does not know which download brings them. Each download tells the
//! [`Readings`] of its node when it opens a part and when a chunk has come, so that a reader also gets
//! what another fetch of the same content brings.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Instant;

use crate::client::Failed;
use crate::client::read_source::ReadSource;
use crate::content::{ChunkIndex, FileId, Geometry, Manifest};
use crate::limits::WAIT_MAX;
use crate::runtime::deadline;
use crate::store::{PartialFile, ReadParts, StoreError};
use crate::swarm::{ReadAhead, ReadWindow};
use crate::sync::{lock, wait_timeout};

/// The contents of a node that are being read. It keeps none of them.
#[derive(Default)]
pub(crate) struct Readings(Mutex<HashMap<FileId, Weak<Reading>>>);

/// A content that is being read.
pub(crate) struct Reading {
    id: FileId,
    parts: Arc<ReadParts>,
    state: Mutex<ReadingState>,
    changed: Condvar,
}

#[derive(Default)]
struct ReadingState {
    /// Where the bytes are that have come.
    source: Option<ReadSource>,
    /// Where each reader is.
    readers: BTreeMap<u64, ReadAhead>,
    /// The number of the reader that came last.
    last: u64,
    has_lost: bool,
    /// A download brings what is missing.
    is_fetching: bool,
    /// How the last download failed, with the number of downloads that failed.
    failed: Option<Failed>,
    failures: u64,
}

/// A reader that has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnteredReader {
    pub(crate) number: u64,
    /// Number of downloads that had failed by then, which are none of its failures.
    pub(crate) failures: u64,
}

/// What a reader finds when it needs a chunk.
pub(crate) enum ReadStep {
    /// It is there.
    Here(ReadSource),
    /// It does not come: the download failed. The number tells failures apart.
    Failed(Failed, u64),
    /// No download brings it.
    Idle,
    /// The reader is to stop.
    Stopped,
}

impl Readings {
    /// Adds a content of which no other reading is there.
    pub(crate) fn add(&self, reading: &Arc<Reading>) {
        let mut all = lock(&self.0);
        all.retain(|_, reading| reading.strong_count() > 0);
        all.insert(reading.id, Arc::downgrade(reading));
    }

    /// The content is no longer read.
    pub(crate) fn remove(&self, reading: &Arc<Reading>) {
        let mut all = lock(&self.0);
        if all.get(&reading.id).is_some_and(|other| Weak::as_ptr(other) == Arc::as_ptr(reading)) {
            all.remove(&reading.id);
        }
    }

    /// The open part of a content that is read.
    pub(crate) fn part(&self, id: &FileId) -> Option<Arc<PartialFile>> {
        self.get(id)?.part()
    }

    /// A download has opened the part of a content.
    pub(crate) fn opened(&self, part: &Arc<PartialFile>) {
        if let Some(reading) = self.get(&part.manifest().id()) {
            reading.set_source(ReadSource::Part(part.clone()));
        }
    }

    /// Chunks of a content have come.
    pub(crate) fn came(&self, id: &FileId) {
        if let Some(reading) = self.get(id) {
            reading.wake();
        }
    }

    fn get(&self, id: &FileId) -> Option<Arc<Reading>> {
        lock(&self.0).get(id)?.upgrade()
    }
}

impl Reading {
    /// A content without readers, of which nothing is there.
    pub(crate) fn new(id: FileId, parts: Arc<ReadParts>) -> Self {
        Reading { id, parts, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The content.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Where its part lies.
    pub(crate) fn parts(&self) -> &Arc<ReadParts> {
        &self.parts
    }

    /// Opens its part for a download, or returns the one that is open.
    ///
    /// # Errors
    /// As [`ReadParts::open`].
    pub(crate) fn open_part(&self, manifest: &Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
        self.part().map_or_else(|| self.parts.open(manifest.clone()), Ok)
    }

    /// Its part, if that is open.
    pub(crate) fn part(&self) -> Option<Arc<PartialFile>> {
        match self.lock().source.clone()? {
            ReadSource::Part(part) => Some(part).filter(|part| part.is_open()),
            ReadSource::Placed(_) => None,
        }
    }

    /// The bytes come from there from now on.
    pub(crate) fn set_source(&self, source: ReadSource) {
        let old = self.lock().source.replace(source);
        self.wake();
        // Without the lock: closing a part is I/O.
        drop(old);
    }

    /// The content lies whole in `file`, where other programs may change it.
    pub(crate) fn set_placed(&self, file: File, manifest: Arc<Manifest>) {
        self.set_source(ReadSource::placed(file, manifest));
    }

    /// What was read from `source` is not what was verified: the content is fetched again. Of a part
    /// that is open a chunk may only be gone.
    pub(crate) fn lose(&self, source: &ReadSource) {
        let mut state = self.lock();
        let lost = state.source.take_if(|now| now.is(source) && !now.is_open());
        state.has_lost |= lost.is_some();
        drop(state);
        drop(lost);
    }

    /// Whether a whole file was not what it should be: no other one is believed.
    pub(crate) fn has_lost(&self) -> bool {
        self.lock().has_lost
    }

    /// It is no longer read: the part that it lets go of.
    pub(crate) fn close(&self) -> Option<Arc<PartialFile>> {
        match self.lock().source.take()? {
            ReadSource::Part(part) => Some(part),
            ReadSource::Placed(_) => None,
        }
    }

    /// One more reader, at the beginning.
    pub(crate) fn enter(&self) -> EnteredReader {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.readers.insert(number, ReadAhead::new(&Geometry::new(self.id.len)));
        EnteredReader { number, failures: state.failures }
    }

    /// A reader goes. True if it was the last one.
    pub(crate) fn leave(&self, reader: u64) -> bool {
        let mut state = self.lock();
        state.readers.remove(&reader);
        state.readers.is_empty()
    }

    /// Number of readers.
    pub(crate) fn readers(&self) -> usize {
        self.lock().readers.len()
    }

    /// A reader is at `chunk` now. True if that changes what is needed.
    pub(crate) fn go(&self, reader: u64, chunk: ChunkIndex) -> bool {
        self.lock().readers.get_mut(&reader).is_some_and(|ahead| ahead.go(chunk.get()))
    }

    /// What the readers need.
    pub(crate) fn windows(&self) -> Vec<ReadWindow> {
        self.lock().readers.values().map(ReadAhead::window).collect()
    }

    /// A download has begun to bring what is missing.
    pub(crate) fn begun(&self) {
        let mut state = self.lock();
        (state.is_fetching, state.failed) = (true, None);
    }

    /// The download has ended: `failed`, or with everything there.
    pub(crate) fn ended(&self, failed: Option<Failed>) {
        let mut state = self.lock();
        state.is_fetching = false;
        state.failures += u64::from(failed.is_some());
        state.failed = failed;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until `chunk` is there, or does not come. A failure that the reader knows, `known`, is
    /// none. The download that brings the chunk bounds the wait.
    pub(crate) fn wait(&self, chunk: ChunkIndex, known: u64, is_stopped: &dyn Fn() -> bool) -> ReadStep {
        let mut state = self.lock();
        loop {
            if let Some(source) = state.source.as_ref().filter(|source| source.has(chunk)) {
                return ReadStep::Here(source.clone());
            }
            if is_stopped() {
                return ReadStep::Stopped;
            }
            if !state.is_fetching {
                let news = state.failed.clone().filter(|_| state.failures > known);
                return news.map_or(ReadStep::Idle, |failed| ReadStep::Failed(failed, state.failures));
            }
            let left = deadline(WAIT_MAX).saturating_duration_since(Instant::now());
            state = wait_timeout(&self.changed, state, left);
        }
    }

    /// All readers look again.
    pub(crate) fn wake(&self) {
        // A reader that has just looked holds the lock until it waits.
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ReadingState> {
        lock(&self.state)
    }
}
