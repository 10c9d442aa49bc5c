//! Contents that a program offers: bytes, files elsewhere, readers.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use log::warn;

use crate::chain::Chain;
use crate::content::{Entry, FileId, RelPath, RelPathError};
use crate::limits::WAIT_MAX;
use crate::node::board::{CatalogueBoard, NameClash};
use crate::node::limits::{OFFER_AT_ONCE_LEN, OFFER_THREADS};
use crate::node::{Node, Share};
use crate::runtime::{BlockingPool, EventSender, OnBegin, Shutdown, Watch, deadline};
use crate::store::{OfferedFile, OfferedFiles, OwnFiles, Source, SourceError};
use crate::swarm::Event;
use crate::sync::lock;

/// Why a content is not offered.
///
/// ```
/// use gpb::error::OfferError;
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("a.txt", b"hello")])?;
/// assert!(matches!(node.offer("a.txt", b"other"), Err(OfferError::Taken(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The node serves nothing: it was started with [`Share::Nothing`].
    #[error("the node shares nothing, so nothing can be offered")]
    NotSharing,
    /// The text cannot be the name of a file.
    #[error("`{}` cannot be the name of a file", .text.escape_debug())]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// The program offers something else under this name.
    #[error("{0} is offered already")]
    Offered(RelPath),
    /// A file of a shared directory has this name.
    #[error("{0} is the name of a shared file")]
    Taken(RelPath),
    /// Other names lie below it, or it lies below the name of a file.
    #[error("{0} would be both a file and a directory")]
    Directory(RelPath),
    /// More contents than a node takes.
    #[error("{0} is not offered: too many files are")]
    Full(RelPath),
    /// The file is one of the node itself, such as its key.
    #[error("{0} is not offered: it is a file of the node itself")]
    OwnFile(RelPath),
    /// The source cannot be read.
    #[error("{name} is not offered: it cannot be read")]
    Source {
        /// Its name.
        name: RelPath,
        /// Why.
        source: Arc<SourceError>,
    },
    /// The source is not, or did not stay, what was hashed. It is offered no longer.
    #[error("{0} is offered no longer: its source changed")]
    Changed(RelPath),
    /// The system gave no thread to hash it.
    #[error("no thread to hash {name}")]
    Thread {
        /// Its name.
        name: RelPath,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The node ends.
    #[error("the node ends")]
    Stopped,
}

/// A content that a [`Node`] offers under a name, until this is dropped, the node ends, or the
/// source changes or cannot be read.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let (node, other) = (lan.node()?, lan.node()?);
/// let offered = node.offer("notes/today.txt", b"hello")?;
/// let id = offered.wait()?;
/// assert_eq!(other.list("notes")?[0].id, id);
/// drop(offered);
/// assert!(other.list("notes")?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "what is offered is withdrawn when this is dropped"]
pub struct Offered {
    name: RelPath,
    number: u64,
    state: Arc<OfferState>,
    offers: Weak<Offers>,
    shutdown: Shutdown,
    _stop: OnBegin,
}

/// How far an offer is.
struct OfferState {
    outcome: Watch<Option<Result<FileId, OfferError>>>,
    /// It is let go, or the node ends: hashing stops.
    stop: Shutdown,
}

/// What a node offers besides its directories, and what keeps it true.
pub(super) struct Offers {
    pub(super) files: Arc<OfferedFiles>,
    pub(super) board: Arc<CatalogueBoard>,
    events: EventSender,
    /// By the numbers of the offers.
    states: Mutex<HashMap<u64, Weak<OfferState>>>,
}

impl Node {
    /// Offers the content of `source` as the file `name`, beside the files of the directory, until the
    /// handle is dropped. No directory is needed. Returns at once: up to a MiB in memory is hashed
    /// by then, all else in the background, and [`Offered::wait`] waits for it.
    ///
    /// No copy is made, and nothing is kept but 32 bytes for each chunk. A file that changes, and a
    /// reader that gives other bytes or fails, is withdrawn at the next request; bytes of two states
    /// are never given for one content. A chunk that was asked for before the handle is dropped may
    /// still be sent afterwards. At most 65,536 contents are offered at the same time.
    ///
    /// # Errors
    /// [`OfferError`]: the name cannot be had, or the node shares nothing; what is found out while it
    /// is hashed is an error of [`Offered::wait`]
    ///
    /// ```
    /// use std::fs::File;
    /// use std::path::Path;
    ///
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let (node, other) = (lan.node()?, lan.node()?);
    /// # let place = node.config().dir.clone().unwrap_or_default().join("x");
    /// # std::fs::create_dir_all(place.parent().ok_or("no directory")?)?;
    /// # std::fs::write(&place, "elsewhere")?;
    /// let bytes = node.offer("table.bin", vec![7; 100_000])?;
    /// let file = node.offer("data/part-0", place.as_path())?;
    /// # let opened = node.offer("data/part-1", File::open(&place)?)?;
    /// # file.wait()?;
    /// # opened.wait()?;
    /// let report = other.fetch(bytes.wait()?)?.wait()?;
    /// assert_eq!(report.fetched[0].path.as_str(), "table.bin");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn offer(&self, name: impl AsRef<str>, source: impl Into<Source>) -> Result<Offered, OfferError> {
        let (text, source) = (name.as_ref(), source.into());
        let name = RelPath::new(text).map_err(|source| OfferError::Name { text: text.into(), source })?;
        if self.config.share == Share::Nothing {
            return Err(OfferError::NotSharing);
        }
        if self.shutdown.has_begun() {
            return Err(OfferError::Stopped);
        }
        let offers = &self.services.offers;
        let number = offers.board.reserve(&name).map_err(|clash| OfferError::of(clash, &name))?;
        let offered = Offered::new(name, number, offers, &self.shutdown);
        let job = OfferJob {
            name: offered.name.clone(),
            number,
            source,
            state: offered.state.clone(),
            offers: Arc::downgrade(offers),
            own_files: self.own_files.clone(),
        };
        if job.source.bytes().is_some_and(|bytes| bytes.len() as u64 <= OFFER_AT_ONCE_LEN) {
            job.run();
        } else if let Err(e) = self.services.offering.spawn(move || job.run()) {
            return Err(OfferError::Thread { name: offered.name.clone(), source: Arc::new(e) });
        }
        Ok(offered)
    }
}

impl Offered {
    fn new(name: RelPath, number: u64, offers: &Arc<Offers>, shutdown: &Shutdown) -> Self {
        let state = Arc::new(OfferState { outcome: Watch::new(None), stop: Shutdown::new() });
        let mut states = lock(&offers.states);
        states.insert(number, Arc::downgrade(&state));
        drop(states);
        let ending = Arc::downgrade(&state);
        let _stop = shutdown.while_held(move || {
            if let Some(state) = ending.upgrade() {
                state.stop.begin();
                state.outcome.wake();
            }
        });
        Offered { name, number, state, offers: Arc::downgrade(offers), shutdown: shutdown.clone(), _stop }
    }

    /// The name under which it is offered.
    pub fn name(&self) -> &RelPath {
        &self.name
    }

    /// The identity of the content, once it is hashed and as long as it is offered. Does not block.
    pub fn id(&self) -> Option<FileId> {
        self.state.outcome.read(|outcome| outcome.as_ref()?.as_ref().ok().copied())
    }

    /// Waits until other nodes find it, however long it takes to read the source, and returns its
    /// identity. Once it was withdrawn because its source changed, this returns why.
    ///
    /// # Errors
    /// [`OfferError`]: why it is not offered, or no longer
    pub fn wait(&self) -> Result<FileId, OfferError> {
        loop {
            if let Some(outcome) = self.wait_for(WAIT_MAX) {
                return outcome;
            }
        }
    }

    /// As [`wait`](Self::wait), at most for `time`; `None` when it is not hashed by then.
    pub fn wait_for(&self, time: Duration) -> Option<Result<FileId, OfferError>> {
        let (end, watch) = (deadline(time), &self.state.outcome);
        loop {
            let seen = watch.changes();
            if let Some(outcome) = watch.read(Option::clone) {
                return Some(outcome);
            }
            if self.shutdown.has_begun() {
                return Some(Err(OfferError::Stopped));
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            watch.wait_beyond(seen, left);
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.state.stop.begin();
        if let Some(offers) = self.offers.upgrade() {
            offers.withdraw(&self.name, self.number);
        }
    }
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("name", &self.name).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Offers {
    pub(super) fn new(board: Arc<CatalogueBoard>, events: EventSender) -> Arc<Self> {
        Arc::new(Offers { files: Arc::default(), board, events, states: Mutex::default() })
    }

    /// The threads that hash what is offered; none runs yet. A panic of one begins `shutdown`.
    pub(super) fn threads(shutdown: &Shutdown) -> BlockingPool {
        BlockingPool::new("gpb-offer", OFFER_THREADS, OFFER_THREADS).ending(shutdown)
    }

    /// Takes `entry` out because a request found that its source is not what was hashed. False if no
    /// program offers it.
    pub(super) fn doubt(&self, entry: &Entry) -> bool {
        let Some(file) = self.files.get(&entry.path).filter(|file| file.entry().id == entry.id) else { return false };
        let state = lock(&self.states).get(&file.number()).and_then(Weak::upgrade);
        let name = entry.path.clone();
        let error = match file.take_trouble() {
            Some(e) => OfferError::Source { name, source: Arc::new(SourceError::Io(e)) },
            None => OfferError::Changed(name),
        };
        self.withdraw(&entry.path, file.number());
        warn!("no longer offered path={} file={} error=\"{}\"", entry.path, entry.id, Chain(&error));
        if let Some(state) = state {
            state.outcome.update(|outcome| *outcome = Some(Err(error)));
        }
        self.events.emit(Event::FileWithdrawn { path: entry.path.clone(), id: entry.id });
        true
    }

    fn withdraw(&self, name: &RelPath, number: u64) {
        let was_offered = self.board.withdraw(name, number);
        drop(self.files.remove(name, number));
        lock(&self.states).remove(&number);
        if was_offered {
            self.tell();
        }
    }

    fn tell(&self) {
        let (revision, files, bytes) = self.board.size();
        self.events.emit(Event::CatalogueChanged { revision, files, bytes, complete: self.board.is_complete() });
    }
}

/// Hashes a source and offers it.
struct OfferJob {
    name: RelPath,
    number: u64,
    source: Source,
    state: Arc<OfferState>,
    offers: Weak<Offers>,
    own_files: Arc<OwnFiles>,
}

impl OfferJob {
    fn run(self) {
        let state = self.state.clone();
        let outcome = self.offer();
        state.outcome.update(|told| _ = told.get_or_insert(outcome));
    }

    fn offer(self) -> Result<FileId, OfferError> {
        let OfferJob { name, number, source, state, offers, own_files } = self;
        if source.metadata().is_some_and(|meta| own_files.contains_now(&meta)) {
            return Err(OfferError::OwnFile(name));
        }
        let hashed = source.hash(&|| state.stop.has_begun()).map_err(|e| match e {
            SourceError::Stopped => OfferError::Stopped,
            e => OfferError::Source { name: name.clone(), source: Arc::new(e) },
        })?;
        let offers = offers.upgrade().ok_or(OfferError::Stopped)?;
        let file = OfferedFile::new(number, name.clone(), source, hashed);
        let entry = file.entry();
        let id = entry.id;
        offers.board.offer(number, entry, || offers.files.put(file)).map_err(|clash| OfferError::of(clash, &name))?;
        offers.tell();
        Ok(id)
    }
}

impl OfferError {
    fn of(clash: NameClash, name: &RelPath) -> Self {
        let name = name.clone();
        match clash {
            NameClash::Offered => OfferError::Offered(name),
            NameClash::File => OfferError::Taken(name),
            NameClash::Directory => OfferError::Directory(name),
            NameClash::Full => OfferError::Full(name),
            NameClash::Withdrawn => OfferError::Stopped,
        }
    }
}
