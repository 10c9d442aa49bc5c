//! The thread of a download that decides about its connections: which peers to dial and when, how
//! many connections each gets, and when the download ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use log::info;

use crate::chain::Chain;
use crate::client::fetcher::{EarlyRequests, Fetcher, PeerConnections};
use crate::client::limits::{COORDINATE_EVERY, IDLE_LOOK, REFUSED_GRACE};
use crate::client::shared::DownloadShared;
use crate::client::{DownloadEnd, FetchError};
use crate::content::{FileId, Geometry};
use crate::identity::{NodeId, PeerId};
use crate::net::StreamError;
use crate::peers::AskError;
use crate::runtime::BlockingPool;
use crate::swarm::{ConnectionEnd, Dial, Mesh, PeerHandle, PeerRecord, RefusalCause, ScalerAdvice};

mod outcome;
mod telling;

use telling::LastNews;

/// Opens and ends the connections that [`Mesh`] decides about; each connection works on a thread of
/// its own.
///
/// The coordinator waits on the bell of its download. The bell is rung by a connection that ends or
/// has news for the mesh, by the disk threads, and by changes of the peer table.
pub(crate) struct Coordinator {
    shared: Arc<DownloadShared>,
    threads: Arc<BlockingPool>,
    peers: HashMap<PeerHandle, DownloadPeer>,
    mesh: Mesh,
    ends: (Sender<EndedConnection>, Receiver<EndedConnection>),
    /// Number of the connection that was opened last.
    opened: u64,
    /// The generation of the trusted set that all sessions were checked against.
    trust_generation: u64,
    /// The peers that refused this node, and why.
    refusals: BTreeMap<PeerId, RefusalCause>,
    /// Since when every peer that could give something refuses.
    refused_since: Option<Instant>,
    /// Bytes of the longest layer or chunk: what is verified as a whole.
    unit_len: u64,
    told: LastNews,
}

/// A peer of the download.
struct DownloadPeer {
    record: PeerRecord,
    /// How its last connection ended; `None` before the first one.
    last: Option<ConnectionEnd>,
    connections: Arc<PeerConnections>,
    /// The connection that was opened last.
    newest: u64,
    /// The number of the system's error that ended its last connection for want of descriptors or memory here.
    exhausted: Option<i32>,
}

/// A connection that has ended.
struct EndedConnection {
    dial: Dial,
    result: Result<ConnectionEnd, AskError>,
    useful: bool,
    /// There was a session.
    connected: bool,
    /// The session came from the pool.
    reused: bool,
}

impl EndedConnection {
    fn end(&self) -> ConnectionEnd {
        match &self.result {
            Ok(end) => *end,
            Err(AskError::Busy(wait)) => ConnectionEnd::Busy(*wait),
            Err(AskError::Refused(_) | AskError::Untrusted(_)) => ConnectionEnd::Refused,
            Err(AskError::Slow) => ConnectionEnd::Slow,
            // The peer closed it while it lay in the pool.
            Err(_) if self.reused => ConnectionEnd::Stale,
            Err(_) if self.connected => ConnectionEnd::Failed,
            Err(_) => ConnectionEnd::Unreachable,
        }
    }
}

impl Coordinator {
    pub(crate) fn new(shared: Arc<DownloadShared>, threads: Arc<BlockingPool>) -> Self {
        let trust_generation = shared.ctx.trust.generation();
        let unit_len = shared.files.iter().map(|file| unit_len(&file.id)).max().unwrap_or(0);
        Coordinator {
            shared,
            threads,
            peers: HashMap::new(),
            mesh: Mesh::new(rand::random(), Instant::now()),
            ends: unbounded(),
            opened: 0,
            trust_generation,
            refusals: BTreeMap::new(),
            refused_since: None,
            unit_len,
            told: LastNews::default(),
        }
    }

    /// Runs until the download has ended, and cleans up.
    pub(crate) fn run(&mut self) -> DownloadEnd {
        let result = self.drive();
        self.shared.stop();
        // Connections that are still being dialed are not waited for: they begin no session after
        // the stop.
        self.shared.sessions.wait();
        self.shared.queues.end();
        self.shared.disk.finish_record();
        let (open, pending) = {
            let mut state = self.shared.state();
            let pending = state.pending().map(|(file, ..)| file).collect();
            (state.close_all(), pending)
        };
        for file in open {
            let id = file.manifest().id();
            self.suspend(&file);
            // `FetchedFiles` must not hold the file open, or the next download of it finds it in
            // use.
            if let Some(fetched) = &self.shared.ctx.fetched {
                fetched.remove(&id);
            }
        }
        self.shared.terms.joins.end(&*self.shared);
        let failure = self.shared.take_failure();
        self.end(pending, failure.map_or(result.map_err(Arc::new), Err))
    }

    fn drive(&mut self) -> Result<(), FetchError> {
        let shared = self.shared.clone();
        let bell = shared.bell.clone();
        let _subscription = shared.ctx.peers.subscribe(move || bell.ring());
        let mut seen = None;
        loop {
            let changes = shared.ctx.peers.changes();
            let now = Instant::now();
            if shared.state().unfinished() == 0 {
                return Ok(());
            }
            if shared.ctx.shutdown.has_begun() {
                return Err(FetchError::Stopped);
            }
            if shared.is_stopped() {
                return Err(FetchError::Cancelled);
            }
            self.read_lent();
            self.tell_progress(now);
            while let Ok(ended) = self.ends.1.try_recv() {
                self.take_end(ended, now);
            }
            let trust_generation = shared.ctx.trust.generation();
            let revoked = trust_generation != std::mem::replace(&mut self.trust_generation, trust_generation);
            if revoked {
                shared.sessions.cut(|peer| !shared.ctx.trust.allows(peer));
                shared.pool.drop_untrusted();
            }
            if revoked || seen.replace(changes) != Some(changes) {
                self.read_peers(now);
            }
            self.shun_liars();
            self.connect(now);
            // Each connection may have a chunk on its way and one that waits to be verified.
            shared.stats.await_verification((self.mesh.connections() as u64 + 1) * 2 * self.unit_len);
            if shared.disk_is_busy() || shared.state().is_resting() {
                shared.stats.progressed();
            }
            let silence = shared.stats.silence();
            if silence >= shared.ctx.timeout || self.has_been_refused(now) {
                self.give_up();
                return Ok(());
            }
            let wait = self.next_look(now).min(shared.ctx.timeout - silence);
            shared.bell.wait(wait.max(Duration::from_millis(1)));
        }
    }

    /// Whether every peer that could give something has refused this node for [`REFUSED_GRACE`], in
    /// which others could have appeared: to wait for the timeout would change nothing.
    fn has_been_refused(&mut self, now: Instant) -> bool {
        let shared = &self.shared;
        let is_idle = !shared.disk_is_busy() && shared.sessions.peers().is_empty();
        let refuses = is_idle && !self.refusals.is_empty() && {
            let state = shared.state();
            let is_useless = |handle: &PeerHandle, known: &DownloadPeer| match known.last {
                Some(ConnectionEnd::Refused) => true,
                Some(ConnectionEnd::Idle { .. }) => state.useful(*handle) == 0,
                _ => false,
            };
            let mut refused = self.peers.values().filter(|known| known.last == Some(ConnectionEnd::Refused));
            refused.next().is_some() && self.peers.iter().all(|(handle, known)| is_useless(handle, known))
        };
        let since = refuses.then(|| self.refused_since.unwrap_or(now));
        self.refused_since = since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= REFUSED_GRACE)
    }

    /// Takes in the peers that are there.
    fn read_peers(&mut self, now: Instant) {
        let records = self.shared.ctx.peers.read(|t| t.peers());
        let mut state = self.shared.state();
        let mut here = HashSet::with_capacity(records.len());
        for record in records {
            let is_source = self.shared.terms.sources.as_ref().is_none_or(|nodes| nodes.contains(&record.node()));
            if !is_source || !self.shared.ctx.trust.allows(&record.peer) {
                continue;
            }
            let Some(handle) = state.peer(NodeId::new(record.peer, record.instance)) else { continue };
            here.insert(handle);
            // Peers that are known to hold something were asked already.
            self.mesh.meet(handle, record.revision, state.useful(handle) > 0, now);
            self.mesh.set_host(handle, record.addrs.first().map(|addr| addr.ip().to_canonical()));
            self.mesh.set_offers(handle, record.offers, now);
            if record.revision == 0 {
                state.grows(handle, now);
            }
            match self.peers.get_mut(&handle) {
                Some(known) => known.record = record,
                None => {
                    let peer =
                        DownloadPeer { record, last: None, connections: Arc::default(), newest: 0, exhausted: None };
                    self.peers.insert(handle, peer);
                }
            }
        }
        let trust = &self.shared.ctx.trust;
        let peers = &self.peers;
        let is_trusted = |h| peers.get(&h).is_some_and(|known| trust.allows(&known.record.peer));
        self.mesh.retain(|h| here.contains(&h), is_trusted);
        self.peers.retain(|handle, _| self.mesh.knows(*handle));
        // What only peers that left hold cannot be asked for.
        for handle in state.holders() {
            if !here.contains(&handle) && !self.peers.contains_key(&handle) {
                state.forget(handle);
            }
        }
    }

    /// Keeps peers that lied from being dialed or asked, on all instances, and even if others name
    /// them as holders again.
    fn shun_liars(&mut self) {
        let liars = self.shared.liars();
        if liars.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        for (&handle, _) in self.peers.iter().filter(|(_, known)| liars.contains(&known.record.peer)) {
            if self.mesh.ban(handle) || state.useful(handle) > 0 {
                state.forget(handle);
            }
        }
    }

    /// Opens the connections that are wanted, and ends the surplus ones.
    fn connect(&mut self, now: Instant) {
        let (dials, all_have_one, others_wait) = {
            let state = self.shared.state();
            let holds = |handle| state.useful(handle) > 0;
            (self.mesh.dial(holds, now), self.mesh.all_have_one(holds, now), self.mesh.others_wait(holds, now))
        };
        self.shared.sessions.others_wait.store(others_wait, Ordering::Relaxed);
        dials.into_iter().for_each(|dial| self.open(dial));
        let peers = &self.peers;
        let read = |h| peers.get(&h).map_or(0, |known| known.connections.read.load(Ordering::Relaxed));
        let (grown, dropped) = {
            let state = self.shared.state();
            // Where other nodes fetch, too, a further connection would only take bandwidth from them.
            let grown = match all_have_one && !state.is_shared() {
                true => self.mesh.grow(read, |h| state.backlog(h), |h| state.round_trip(h), now),
                false => Vec::new(),
            };
            (grown, self.mesh.rotate(read, |h| state.backlog(h), |h| state.useful(h) > 0, now))
        };
        for (dial, advice) in grown {
            match advice {
                ScalerAdvice::Keep => {}
                ScalerAdvice::Add => self.open(dial),
                ScalerAdvice::Drop => self.drop_newest(dial.peer),
            }
        }
        dropped.into_iter().for_each(|peer| self.drop_newest(peer));
    }

    /// Ends the connection to a peer that was opened last.
    fn drop_newest(&self, handle: PeerHandle) {
        if let Some(known) = self.peers.get(&handle) {
            known.connections.surplus.store(known.newest, Ordering::Relaxed);
        }
    }

    /// Opens a connection on a thread of its own.
    fn open(&mut self, dial: Dial) {
        let Some(known) = self.peers.get_mut(&dial.peer) else { return };
        if dial.failures > 0 {
            self.shared.stats.retries.fetch_add(1, Ordering::Relaxed);
            let tag = self.shared.ctx.peers.own().tag();
            info!("retry peer={} failures={}{tag}", known.record.peer, dial.failures);
        }
        self.opened += 1;
        known.newest = self.opened;
        let (record, connections, number) = (known.record.clone(), known.connections.clone(), self.opened);
        let (tell, bell) = (self.ends.0.clone(), self.shared.bell.clone());
        // A download that ends while this thread is dialing must not live on because of it.
        let (shared, pool) = (Arc::downgrade(&self.shared), self.shared.pool.clone());
        let spawned = self.threads.spawn(move || {
            let result = Ok(ConnectionEnd::Stopped);
            let mut ended = EndedConnection { dial, result, useful: false, connected: false, reused: false };
            if shared.upgrade().is_some_and(|shared| !shared.is_stopped()) {
                let mut early = EarlyRequests::new(shared.clone(), dial);
                match pool.checkout_ahead(&record, &mut |_, round_trip, out| early.ask(round_trip, out)) {
                    Ok(session) => match shared.upgrade() {
                        Some(shared) => {
                            ended.connected = true;
                            ended.reused = session.reused;
                            (ended.result, ended.useful) =
                                Fetcher::new(&shared, session, &connections, number, dial, &mut early).run();
                        }
                        // Of what it may have been asked early nobody reads the answers.
                        None => session.close(),
                    },
                    Err(e) => ended.result = Err(e),
                }
            }
            let _ = tell.send(ended);
            bell.ring();
        });
        if let Err(e) = spawned {
            self.shared.fail(FetchError::Threads(e));
        }
    }

    fn take_end(&mut self, ended: EndedConnection, now: Instant) {
        let (dial, end) = (ended.dial, ended.end());
        let holds = self.shared.state().useful(dial.peer) > 0;
        let retry_at = self.mesh.ended(dial, end, (ended.useful, holds), now, rand::random());
        if let Err(AskError::Stream(e)) = &ended.result
            && e.exhausted().is_some()
        {
            self.shared.ctx.peers.dialed(Some(e));
        }
        let Some(known) = self.peers.get_mut(&dial.peer) else { return };
        known.exhausted = match &ended.result {
            Err(AskError::Stream(e)) => e.exhausted(),
            _ => None,
        };
        match (end, &ended.result) {
            (ConnectionEnd::Stopped, _) => return,
            (ConnectionEnd::Refused, Err(e)) => {
                let cause = match e {
                    AskError::Refused(reason) => RefusalCause::of_reason(reason),
                    _ => RefusalCause::NotTrustedHere,
                };
                self.refusals.insert(known.record.peer, cause);
            }
            (
                ConnectionEnd::Stale | ConnectionEnd::Slow | ConnectionEnd::Failed | ConnectionEnd::Unreachable,
                Err(e),
            ) => {
                let Some(at) = retry_at else { return };
                let (peer, retry_ms) = (known.record.peer, (at - now).as_millis());
                let tag = self.shared.ctx.peers.own().tag();
                info!("connection failed peer={peer} retry_ms={retry_ms} error=\"{}\"{tag}", Chain(e));
            }
            _ => {}
        }
        // A peer that answered, and takes further connections without a word, is silent and has not left.
        let is_silent = matches!(ended.result, Err(AskError::Stream(StreamError::TimedOut)));
        if end != ConnectionEnd::Unreachable || !is_silent || !known.has_answered() {
            known.last = Some(end);
        }
    }

    /// Time after which connections are looked at again, unless the bell rings before.
    fn next_look(&self, now: Instant) -> Duration {
        let looks_often = self.mesh.connections() > 0
            || self.told.is_old
            || self.refused_since.is_some()
            || self.shared.terms.has_joined.load(Ordering::Relaxed);
        let often = if looks_often { COORDINATE_EVERY } else { IDLE_LOOK };
        self.mesh.next_due(now).map_or(often, |at| often.min(at - now))
    }
}

/// Bytes of the layer of a file or of one of its chunks, whichever is longer.
fn unit_len(id: &FileId) -> u64 {
    let geometry = Geometry::new(id.len);
    geometry.chunk_len().max(u64::from(geometry.chunk_count()) * 32)
}
