//! The thread that watches over a download: whom to dial and when, how many connections each peer gets, when to end.

use crate::identity::NodeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::sync::WaitGroup;
use log::{info, warn};

use crate::chain::Chain;
use crate::client::download::end_disk;
use crate::client::error::weigh_refusal;
use crate::client::fetcher::{End, Fetcher};
use crate::client::limits::{GROWTH_LOOK, IDLE_LOOK};
use crate::client::shared::{Lane, Shared};
use crate::client::{FetchError, Report};
use crate::peers::AskError;
use crate::runtime::BlockingPool;
use crate::swarm::{Advice, ConnectionEnd, Dial, Mesh, PeerHandle, PeerRecord};

mod outcome;

/// Watches over the connections that [`Mesh`] decides about; they do the work by themselves.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    crew: Arc<BlockingPool>,
    peers: HashMap<PeerHandle, Known>,
    mesh: Mesh,
    ends: (Sender<Ended>, Receiver<Ended>),
    opened: u64,
    /// Of the trusted set, as of which the sessions were looked at.
    trust_generation: u64,
    /// Why a peer refused this node.
    refusal: String,
}

/// A peer of the download.
struct Known {
    record: PeerRecord,
    last: Last,
    lane: Arc<Lane>,
    /// The connection that was opened last.
    newest: u64,
}

/// How the last attempt with a peer went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Untried,
    Answered,
    Refused,
    Unreachable,
}

struct Ended {
    dial: Dial,
    end: End,
    useful: bool,
    /// Whether there was a session at all.
    connected: bool,
    reused: bool,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, crew: Arc<BlockingPool>) -> Self {
        let trust_generation = shared.ctx.trust.generation();
        Driver {
            shared,
            crew,
            peers: HashMap::new(),
            mesh: Mesh::new(rand::random(), Instant::now()),
            ends: unbounded(),
            opened: 0,
            trust_generation,
            refusal: String::new(),
        }
    }

    /// Runs until the download has ended, and cleans up; `disk` is waited for when nothing more comes.
    pub(crate) fn run(&mut self, disk: WaitGroup) -> Result<Report, FetchError> {
        let result = self.drive();
        self.shared.stop();
        // Those that are still being dialed are not waited for: they begin nothing any more.
        self.shared.wait_sessions();
        end_disk(&self.shared);
        disk.wait();
        let open = self.shared.state().close_all();
        for file in open {
            let id = file.manifest().id();
            if let Err(e) = file.checkpoint() {
                warn!("not journaled id={id} error=\"{}\"", Chain(&e));
            }
            // Nobody else may hold it open, or the next download of it would find it in use.
            if let Some(fetched) = &self.shared.ctx.fetched {
                fetched.remove(&id);
            }
        }
        let failure = self.shared.take_failure();
        match (result, failure) {
            (Ok(()), None) => Ok(self.report()),
            (_, Some(failure)) => Err(failure),
            (Err(e), None) => Err(e),
        }
    }

    fn drive(&mut self) -> Result<(), FetchError> {
        let mut seen = None;
        loop {
            let changes = self.shared.ctx.peers.changes();
            let now = Instant::now();
            if self.shared.state().unfinished() == 0 {
                return Ok(());
            }
            if self.shared.is_stopped() || self.shared.ctx.shutdown.has_begun() {
                return Err(FetchError::Interrupted);
            }
            while let Ok(ended) = self.ends.1.try_recv() {
                self.ended(ended, now);
            }
            let trust_generation = self.shared.ctx.trust.generation();
            let revoked = trust_generation != std::mem::replace(&mut self.trust_generation, trust_generation);
            if revoked {
                self.shared.cut(|peer| !self.shared.ctx.trust.allows(peer));
                self.shared.pool.drop_untrusted();
            }
            if revoked || seen != Some(changes) {
                self.meet(now);
                seen = Some(changes);
            }
            self.connect(now);
            if self.shared.disk_is_busy() {
                self.shared.tally.heard();
            }
            let silence = self.shared.tally.silence();
            if silence >= self.shared.ctx.timeout {
                return Err(self.verdict());
            }
            let wait = self.next_look(now).min(self.shared.ctx.timeout - silence);
            self.shared.ctx.peers.wait_beyond(changes, wait.max(Duration::from_millis(1)));
        }
    }

    /// Takes in who is there.
    fn meet(&mut self, now: Instant) {
        let records = self.shared.ctx.peers.read(|t| t.peers());
        let liars = self.shared.liars();
        let mut state = self.shared.state();
        let mut here = std::collections::HashSet::with_capacity(records.len());
        for record in records {
            if !self.shared.ctx.trust.allows(&record.peer) {
                continue;
            }
            let Some(handle) = state.peer(NodeId::new(record.peer, record.instance)) else { continue };
            here.insert(handle);
            // Those that are known to hold something were asked already.
            self.mesh.meet(handle, record.revision, state.useful(handle) > 0, now);
            let known = self.peers.entry(handle).or_insert_with(|| Known {
                record: record.clone(),
                last: Last::Untried,
                lane: Arc::default(),
                newest: 0,
            });
            known.record = record;
            // Others may name it as a holder again.
            let is_liar = liars.contains(&known.record.peer);
            if is_liar && (self.mesh.ban(handle) || state.useful(handle) > 0) {
                state.forget(handle);
            }
            if known.record.revision == 0 {
                state.grows(handle, now);
            }
        }
        let trust = &self.shared.ctx.trust;
        let peers = &self.peers;
        let is_trusted = |h| peers.get(&h).is_some_and(|known| trust.allows(&known.record.peer));
        self.mesh.retain(|h| here.contains(&h), is_trusted);
        self.peers.retain(|handle, _| self.mesh.knows(*handle));
        // Nobody can be asked for what only those who left hold.
        for handle in state.holders() {
            if !here.contains(&handle) && !self.peers.contains_key(&handle) {
                state.forget(handle);
            }
        }
    }

    /// Opens connections where they are wanted, and lets go of those that are not.
    fn connect(&mut self, now: Instant) {
        let (dials, all_have_one) = {
            let state = self.shared.state();
            let holds = |handle| state.useful(handle) > 0;
            (self.mesh.dial(holds, now), self.mesh.all_have_one(holds, now))
        };
        for dial in dials {
            self.open(dial);
        }
        let peers = &self.peers;
        let read = |h| peers.get(&h).map_or(0, |known| known.lane.read.load(Ordering::Relaxed));
        let (grown, poor) = {
            let state = self.shared.state();
            // A further connection would only take from those who share the same uplink.
            let grown = match all_have_one && !state.is_shared() {
                true => self.mesh.grow(read, |h| state.backlog(h), now),
                false => Vec::new(),
            };
            (grown, self.mesh.rotate(read, |h| state.backlog(h), |h| state.useful(h) > 0, now))
        };
        for (dial, advice) in grown {
            match advice {
                Advice::Keep => {}
                Advice::Add => self.open(dial),
                Advice::Drop => self.let_go(dial.peer),
            }
        }
        poor.into_iter().for_each(|peer| self.let_go(peer));
    }

    /// Ends the connection to a peer that was opened last.
    fn let_go(&self, handle: PeerHandle) {
        if let Some(known) = self.peers.get(&handle) {
            known.lane.surplus.store(known.newest, Ordering::Relaxed);
        }
    }

    fn open(&mut self, dial: Dial) {
        let handle = dial.peer;
        let Some(known) = self.peers.get_mut(&handle) else { return };
        if dial.failures > 0 {
            self.shared.tally.retries.fetch_add(1, Ordering::Relaxed);
            info!("retry peer={} failures={}", known.record.peer, dial.failures);
        }
        self.opened += 1;
        let (record, lane, tell, number) = (known.record.clone(), known.lane.clone(), self.ends.0.clone(), self.opened);
        known.newest = number;
        // A download that ends while this is still dialing must not live on because of it.
        let (shared, pool) = (Arc::downgrade(&self.shared), self.shared.pool.clone());
        let peers = self.shared.ctx.peers.clone();
        let spawned = self.crew.spawn(move || {
            let mut ended = Ended { dial, end: End::Stopped, useful: false, connected: false, reused: false };
            if shared.upgrade().is_some_and(|shared| !shared.is_stopped()) {
                match pool.checkout(&record) {
                    Ok(session) => match shared.upgrade() {
                        Some(shared) => {
                            ended.connected = true;
                            ended.reused = session.reused;
                            (ended.end, ended.useful) =
                                Fetcher::new(&shared, session, (handle, &lane), number, dial.locate).run();
                        }
                        None => pool.checkin(session),
                    },
                    Err(e) => ended.end = End::Failed(e),
                }
            }
            let _ = tell.send(ended);
            peers.wake();
        });
        if let Err(e) = spawned {
            self.shared.fail(FetchError::Threads(e));
        }
    }

    fn ended(&mut self, Ended { dial, end, useful, connected, reused }: Ended, now: Instant) {
        let ending = match &end {
            End::Idle => ConnectionEnd::Idle { lost: false },
            End::Lost => ConnectionEnd::Idle { lost: true },
            End::Stopped => ConnectionEnd::Stopped,
            End::Lied => ConnectionEnd::Lied,
            End::Failed(AskError::Busy(wait)) => ConnectionEnd::Busy(*wait),
            // The peer closed it while it lay in the pool.
            End::Failed(e) if reused && !matches!(e, AskError::Refused(_) | AskError::Untrusted(_)) => {
                ConnectionEnd::Stale
            }
            End::Failed(_) => ConnectionEnd::Failed,
        };
        let holds = self.shared.state().useful(dial.peer) > 0;
        let retry_at = self.mesh.ended(dial, ending, (useful, holds), now, rand::random());
        let Some(known) = self.peers.get_mut(&dial.peer) else { return };
        known.last = match &end {
            End::Stopped => return,
            End::Failed(AskError::Refused(reason)) => {
                weigh_refusal(&mut self.refusal, reason.clone());
                Last::Refused
            }
            End::Failed(AskError::Untrusted(_)) => Last::Refused,
            End::Failed(AskError::Busy(_)) | End::Idle | End::Lost | End::Lied => Last::Answered,
            End::Failed(e) => {
                let Some(at) = retry_at else { return };
                let peer = known.record.peer;
                info!("connection failed peer={peer} error={e} retry_ms={}", (at - now).as_millis());
                if connected { Last::Answered } else { Last::Unreachable }
            }
        };
    }

    /// How long nothing needs a look, unless something wakes this thread.
    fn next_look(&self, now: Instant) -> Duration {
        let often = if self.mesh.connections() > 0 { GROWTH_LOOK } else { IDLE_LOOK };
        self.mesh.next_due(now).map_or(often, |at| often.min(at - now))
    }
}
