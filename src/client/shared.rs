//! What the threads of one download share.

use std::collections::{HashMap, HashSet};
use std::net::{Shutdown as Close, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::client::buffers::Buffers;
use crate::client::limits::PUT_OFF_MAX;
use crate::client::storing::{Job, SmallJob};
use crate::client::{ClientContext, FetchError, FileReport};
use crate::content::{FileId, RelPath};
use crate::identity::PeerId;
use crate::limits::{SILENCE_MAX, SILENCE_MIN};
use crate::peers::PeerPool;
use crate::store::{Disk, PartialFile};
use crate::swarm::DownloadState;
use crate::swarm::{Event, PeerHandle};

/// What the threads of one download share. Locks are held for moments only, never over I/O.
pub(crate) struct Shared {
    pub(crate) ctx: Arc<ClientContext>,
    pub(crate) pool: Arc<PeerPool>,
    pub(crate) disk: Arc<Disk>,
    /// The files, each once: where its content comes from in name, and all places where it goes.
    pub(crate) files: Vec<Wanted>,
    pub(crate) state: Mutex<DownloadState<Arc<PartialFile>>>,
    /// Something came up that a connection without work may do.
    pub(crate) work: Condvar,
    pub(crate) buffers: Buffers,
    pub(crate) jobs: Sender<Job>,
    pub(crate) small: Sender<SmallJob>,
    /// Held by the thread that gathers and writes small files, where only one at a time should.
    pub(crate) small_turn: Mutex<()>,
    pub(crate) tally: Tally,
    /// Sessions at work, which a stop must cut off and wait for.
    closers: Mutex<HashMap<u64, (PeerId, TcpStream)>>,
    /// One of them has ended.
    closed: Condvar,
    /// Connections that write to the disk right now.
    writing: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<FetchError>>,
    liars: Mutex<Vec<PeerId>>,
}

/// What the connections to one peer share.
#[derive(Default)]
pub(crate) struct Lane {
    /// Bytes of chunks that came on them, good or not.
    pub(crate) read: AtomicU64,
    /// The number of a connection that is not needed any more.
    pub(crate) surplus: AtomicU64,
}

/// A file to fetch.
pub(crate) struct Wanted {
    pub(crate) id: FileId,
    /// The name under which it is shared.
    pub(crate) path: RelPath,
    /// Where it goes, at least one place.
    pub(crate) outs: Vec<RelPath>,
}

/// Counters.
pub(crate) struct Tally {
    pub(crate) begun: Instant,
    /// Bytes that were there before.
    pub(crate) there: AtomicU64,
    /// Verified bytes that were wanted.
    pub(crate) bytes: AtomicU64,
    pub(crate) wasted: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) redirects: AtomicU64,
    pub(crate) rehashed: AtomicU64,
    /// When something last showed that it goes on, in ms since `begun`; and when it was not an answer that puts off.
    heard_ms: AtomicU64,
    came_ms: AtomicU64,
    pub(crate) of_peers: Mutex<HashMap<PeerHandle, (PeerId, u64)>>,
    pub(crate) reports: Mutex<Vec<FileReport>>,
}

impl Tally {
    fn new() -> Self {
        Tally {
            begun: Instant::now(),
            there: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            redirects: AtomicU64::new(0),
            rehashed: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            came_ms: AtomicU64::new(0),
            of_peers: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// Bytes came, or something else shows that it goes on.
    pub(crate) fn heard(&self) {
        let now_ms = self.begun.elapsed().as_millis() as u64;
        self.heard_ms.store(now_ms, Ordering::Relaxed);
        self.came_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A peer said that it is not its turn yet: it is there, and its line moves. But not for ever.
    pub(crate) fn put_off(&self) {
        let now = self.begun.elapsed();
        if now.saturating_sub(Duration::from_millis(self.came_ms.load(Ordering::Relaxed))) < PUT_OFF_MAX {
            self.heard_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// How long nothing came.
    pub(crate) fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Verified, wanted bytes came from a peer.
    pub(crate) fn credit(&self, handle: PeerHandle, peer: PeerId, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut of_peers = self.of_peers.lock().unwrap_or_else(PoisonError::into_inner);
        of_peers.entry(handle).or_insert((peer, 0)).1 += bytes;
    }
}

impl Shared {
    pub(crate) fn new(
        ctx: Arc<ClientContext>,
        pool: Arc<PeerPool>,
        disk: Arc<Disk>,
        files: Vec<Wanted>,
        seed: u64,
        (jobs, small): (Sender<Job>, Sender<SmallJob>),
    ) -> Self {
        let ids: Vec<FileId> = files.iter().map(|f| f.id).collect();
        Shared {
            ctx,
            pool,
            disk,
            files,
            state: Mutex::new(DownloadState::new(&ids, seed)),
            work: Condvar::new(),
            buffers: Buffers::default(),
            jobs,
            small,
            small_turn: Mutex::default(),
            tally: Tally::new(),
            closers: Mutex::default(),
            closed: Condvar::new(),
            writing: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            failure: Mutex::default(),
            liars: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, DownloadState<Arc<PartialFile>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came up: for connections without work, and with `driver` for the thread that watches over all.
    pub(crate) fn wake(&self, driver: bool) {
        self.work.notify_all();
        if driver {
            self.ctx.peers.wake();
        }
    }

    /// Ends the download because of `error`; the first one counts.
    pub(crate) fn fail(&self, error: FetchError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop();
    }

    pub(crate) fn take_failure(&self) -> Option<FetchError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// `peer` sent wrong bytes of `id`: it is not asked again.
    pub(crate) fn strike(&self, handle: PeerHandle, peer: PeerId, id: FileId) {
        self.ctx.events.emit(Event::PeerLied { peer, id });
        self.state().forget(handle);
        let mut liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
        if !liars.contains(&peer) {
            liars.push(peer);
        }
        drop(liars);
        self.wake(true);
    }

    /// Who sent wrong bytes.
    pub(crate) fn liars(&self) -> Vec<PeerId> {
        self.liars.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts off every session; threads end as soon as they notice.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.cut(|_| true);
        self.buffers.close();
        self.wake(true);
    }

    /// Cuts off the sessions with the peers that `which` names.
    pub(crate) fn cut(&self, which: impl Fn(&PeerId) -> bool) {
        let closers = self.closers.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, socket) in closers.values().filter(|(peer, _)| which(peer)) {
            let _ = socket.shutdown(Close::Both);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Registers a session to be cut off by [`stop`](Self::stop); false when that was before, so that the session must
    /// not begin to work.
    pub(crate) fn register(&self, connection: u64, peer: PeerId, socket: TcpStream) -> bool {
        let mut closers = self.closers.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = !self.is_stopped();
        if begun {
            closers.insert(connection, (peer, socket));
        }
        begun
    }

    pub(crate) fn unregister(&self, connection: u64) {
        self.closers.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
        self.closed.notify_all();
    }

    /// Waits until no session is at work any more. After a stop none begins.
    pub(crate) fn wait_sessions(&self) {
        let mut closers = self.closers.lock().unwrap_or_else(PoisonError::into_inner);
        while !closers.is_empty() {
            closers = self.closed.wait(closers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Peers with a session at work.
    pub(crate) fn connected(&self) -> HashSet<PeerId> {
        self.closers.lock().unwrap_or_else(PoisonError::into_inner).values().map(|c| c.0).collect()
    }

    /// Runs what writes to the disk, and meanwhile counts as busy however long it takes.
    pub(crate) fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.writing.fetch_add(1, Ordering::Relaxed);
        let result = write();
        self.tally.heard();
        self.writing.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Whether the own disk is what the download waits for, or may be.
    pub(crate) fn disk_is_busy(&self) -> bool {
        self.writing.load(Ordering::Relaxed) > 0 || self.state().disk_is_busy()
    }

    /// The longest wait for a byte on one connection: well below the timeout of the whole, so that others take over.
    pub(crate) fn idle(&self) -> Duration {
        (self.ctx.timeout / 3).clamp(SILENCE_MIN, SILENCE_MAX)
    }
}
