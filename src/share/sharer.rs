//! The service that shares a directory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::content::{Entry, FileId, RelPath};
use crate::runtime::{Shutdown, Watch, Workers};
use crate::share::callers::Callers;
use crate::share::indexer::Indexer;
use crate::share::limits::{ANSWER_LOOK, COMMANDS_MAX};
use crate::share::publish_error::PublishError;
use crate::share::setup::{FirstComplete, IndexerCommand, ShareSetup};

/// Keeps the catalogue of a directory equal to its content until it is dropped or the shutdown
/// begins.
///
/// A file that the index knows in its present state is offered at once, any other one when it is
/// hashed. A changed, renamed or removed file leaves the catalogue as soon as the change is seen. A
/// new or changed file joins it when it has not changed for [`QUIET`](crate::share::limits::QUIET)
/// and is hashed. Each file that cannot be shared is logged once.
#[derive(Debug)]
pub struct Sharer {
    // Declared before the thread, which ends when this is gone.
    commands: Arc<Sender<IndexerCommand>>,
    ready: Arc<Watch<FirstComplete>>,
    hashed_bytes: Arc<AtomicU64>,
    hashing_left: Arc<AtomicU64>,
    shutdown: Shutdown,
    _workers: Workers,
}

impl Sharer {
    /// Begins to share.
    ///
    /// # Errors
    /// The directory cannot be opened, or the system has no thread to give.
    pub fn start(setup: ShareSetup) -> io::Result<Self> {
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let ready = Arc::new(Watch::new(None));
        let (hashed_bytes, hashing_left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let callers = Callers::new(ready.clone(), hashing_left.clone());
        let shutdown = setup.shutdown.clone();
        let indexer = Indexer::new(setup, receiver, callers, hashed_bytes.clone())?;
        let mut workers = Workers::ending(&shutdown);
        workers.spawn("gpb-share", move || indexer.run())?;
        let commands = Arc::new(commands);
        // Weak, since the thread ends with the last sender and the signal may outlive this service.
        let (wake, waiting) = (Arc::downgrade(&commands), ready.clone());
        shutdown.on_begin(move || {
            waiting.wake();
            if let Some(commands) = wake.upgrade() {
                // A full queue means that the thread is awake: it reads the signal between two
                // commands.
                let _ = commands.try_send(IndexerCommand::Wake);
            }
        });
        Ok(Sharer { commands, ready, hashed_bytes, hashing_left, shutdown, _workers: workers })
    }

    /// Waits until all files found at the start are hashed, at most for `timeout`. Returns the
    /// number of files offered then, and their bytes; `None` when the time is over or the shutdown
    /// begins first.
    pub fn wait_ready(&self, timeout: Duration) -> Option<(u64, u64)> {
        let end = Instant::now() + timeout;
        let mut seen = self.ready.changes();
        loop {
            if let Some(ready) = self.ready.read(|r| *r) {
                return Some(ready);
            }
            let left = end.checked_duration_since(Instant::now())?;
            if self.shutdown.has_begun() {
                return None;
            }
            seen = self.ready.wait_beyond(seen, left);
        }
    }

    /// Takes `entry` out of the catalogue because the disk no longer holds the hashed bytes
    /// although size and times say so. The file is offered again after a write that its size or
    /// times show. Does nothing if the file is no longer offered in that state. Does not wait.
    pub fn withdraw(&self, entry: &Entry) {
        if self.commands.try_send(IndexerCommand::Withdraw(entry.clone())).is_err() {
            log::warn!("file not withdrawn, too many commands wait path={} file={}", entry.path, entry.id);
        }
    }

    /// Looks at the file of `entry` at once, since a request found it changed or gone. It is
    /// withdrawn and hashed again if that is so. Does not wait. While many commands wait, it does
    /// nothing: the next request asks again. Peers cause these, so they leave room for withdrawals.
    pub fn recheck(&self, entry: &Entry) {
        let has_room = self.commands.len() < COMMANDS_MAX / 2;
        if !has_room || self.commands.try_send(IndexerCommand::Recheck(entry.clone())).is_err() {
            log::debug!("file not looked at, too many commands wait path={}", entry.path);
        }
    }

    /// Has the files `names` looked at without a wait: a fetch of this node has just put them in place,
    /// or they have just been removed. Does not wait itself.
    pub fn look(&self, names: Vec<RelPath>) {
        if self.commands.try_send(IndexerCommand::Look(names)).is_err() {
            log::debug!("changed files are found by the watch, too many commands wait");
        }
    }

    /// Whether the files that were found at the start are hashed. Does not wait.
    pub fn is_ready(&self) -> bool {
        self.ready.read(|ready| ready.is_some())
    }

    /// Offers the file `path` as it is now, as soon as it is hashed, and returns its identity once a
    /// snapshot has it.
    ///
    /// # Errors
    /// [`PublishError`]
    pub fn publish(&self, path: RelPath) -> Result<FileId, PublishError> {
        let (answer, told) = bounded(1);
        self.ask(IndexerCommand::Publish(path, answer), &told).unwrap_or(Err(PublishError::Stopped))
    }

    /// Offers the file `path` no longer until it changes or is published. Returns whether it was
    /// offered, once no snapshot has it.
    ///
    /// # Errors
    /// [`PublishError::Stopped`]
    pub fn forget(&self, path: RelPath) -> Result<bool, PublishError> {
        let (answer, told) = bounded(1);
        self.ask(IndexerCommand::Forget(path, answer), &told).ok_or(PublishError::Stopped)
    }

    /// The answer to `command`; `None` when the service ends.
    fn ask<T>(&self, command: IndexerCommand, told: &Receiver<T>) -> Option<T> {
        self.commands.send(command).ok()?;
        loop {
            match told.recv_timeout(ANSWER_LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) if !self.shutdown.has_begun() => {}
                Err(_) => return None,
            }
        }
    }

    /// Bytes of files hashed since the start, holes included. 0 after a start over a directory that
    /// the index knows.
    pub fn hashed_bytes(&self) -> u64 {
        self.hashed_bytes.load(Ordering::Relaxed)
    }

    /// Files that are known and wait to be hashed, or are being hashed, the latter counted by turns.
    pub fn hashing_left(&self) -> u64 {
        self.hashing_left.load(Ordering::Relaxed)
    }
}
