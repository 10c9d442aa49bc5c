//! The service that shares a directory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};

use crate::content::{Catalogue, Entry};
use crate::runtime::{Events, Shutdown, Watch, Workers};
use crate::share::keeper::Keeper;
use crate::share::limits::COMMANDS_MAX;
use crate::store::{Index, OwnFiles, Reader};

/// What a [`Sharer`] needs.
#[derive(Debug, Clone)]
pub struct ShareSetup {
    /// The shared directory, which must exist.
    pub dir: PathBuf,
    /// What was hashed in earlier runs; also where the chunk layers go.
    pub index: Arc<Index>,
    /// What reads the directory for others; told to let go of files that were removed or changed.
    pub reader: Arc<Reader>,
    /// What is never offered.
    pub own_files: Arc<OwnFiles>,
    /// Where snapshots are published.
    pub catalogue: Arc<Watch<Arc<Catalogue>>>,
    /// Who is told.
    pub events: Events,
    /// Ends the service.
    pub shutdown: Shutdown,
}

/// Keeps the catalogue of a directory true until it is dropped or the shutdown begins.
///
/// What the index knows in its present state is offered at once, the rest once it is hashed. A changed, renamed or
/// removed file is offered no longer as soon as the change is seen; a new one after it was quiet for
/// [`QUIET`](crate::share::limits::QUIET) and hashed. Files that cannot be shared are logged once each.
#[derive(Debug)]
pub struct Sharer {
    // Declared before the thread, which ends when this is gone.
    commands: Arc<Sender<Command>>,
    ready: Arc<Watch<Ready>>,
    hashed_bytes: Arc<AtomicU64>,
    shutdown: Shutdown,
    _workers: Workers,
}

/// The files and bytes of the first complete catalogue, once there is one.
pub(super) type Ready = Option<(u64, u64)>;

/// What others want of the thread that decides.
#[derive(Debug)]
pub(super) enum Command {
    /// The disk holds other bytes than those that were hashed.
    Withdraw(Entry),
    /// The shutdown has begun.
    Wake,
}

impl Sharer {
    /// Begins to share.
    ///
    /// # Errors
    /// The directory cannot be opened, or the system has no thread to give.
    pub fn start(setup: ShareSetup) -> io::Result<Self> {
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let ready = Arc::new(Watch::new(None));
        let hashed_bytes = Arc::new(AtomicU64::new(0));
        let shutdown = setup.shutdown.clone();
        let keeper = Keeper::new(setup, receiver, ready.clone(), hashed_bytes.clone())?;
        let mut workers = Workers::default();
        workers.spawn("gpb-share", move || keeper.run())?;
        let commands = Arc::new(commands);
        // A weak hold: the signal may live longer than this service, whose thread ends with the last sender.
        let (wake, woken) = (Arc::downgrade(&commands), ready.clone());
        shutdown.on_begin(move || {
            woken.wake();
            if let Some(commands) = wake.upgrade() {
                // When no place is left the thread is at work, and looks at the signal by itself.
                let _ = commands.try_send(Command::Wake);
            }
        });
        Ok(Sharer { commands, ready, hashed_bytes, shutdown, _workers: workers })
    }

    /// Waits until all that was found is hashed for the first time, at most for `timeout`: the number of files offered
    /// then, and their bytes. `None` when the time is over or the shutdown begins first.
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

    /// Takes `entry` out of the catalogue because the disk no longer holds what was hashed although size and times say
    /// so. It is offered again once somebody has written to it, which size or times show. Does nothing if the file is not offered in that state any more. Does not wait.
    pub fn withdraw(&self, entry: &Entry) {
        if self.commands.try_send(Command::Withdraw(entry.clone())).is_err() {
            log::warn!("file not withdrawn, too much to do path={}", entry.path);
        }
    }

    /// Bytes of files hashed since the start, holes included. 0 after a start over a directory that the index knows.
    pub fn hashed_bytes(&self) -> u64 {
        self.hashed_bytes.load(Ordering::Relaxed)
    }
}
