//! The thread that watches over a download: whom to dial and when, how many connections each peer gets, when to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::sync::WaitGroup;
use log::{info, warn};

use crate::client::crew::Crew;
use crate::client::download::end_disk;
use crate::client::error::weigh_refusal;
use crate::client::fetcher::{End, Fetcher};
use crate::client::session::AskError;
use crate::client::shared::{Lane, Shared};
use crate::client::{FetchError, Report};
use crate::limits::{DOWNLOAD_CONNECTIONS_MAX, LOCATE_POLL_MAX, LOCATE_POLL_MIN};
use crate::swarm::{Advice, Growth, PeerHandle, PeerRecord, Reputation};

mod outcome;

/// Decides about connections; they do the work by themselves.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    peers: HashMap<PeerHandle, Known>,
    ends: (Sender<Ended>, Receiver<Ended>),
    connections: usize,
    opened: u64,
    /// Of the trusted set, as of which the sessions were looked at.
    trust_generation: u64,
    /// Why a peer refused this node.
    refusal: String,
}

/// A peer of the download.
struct Known {
    record: PeerRecord,
    reputation: Reputation,
    connections: usize,
    /// When it is to be asked which files it holds; `None`: that is known, for its present revision.
    locate_at: Option<Instant>,
    /// How long it is left alone when it held nothing.
    locate_wait: Duration,
    located_revision: u64,
    last: Last,
    lane: Arc<Lane>,
    /// The connection that was opened last.
    newest: u64,
    growth: Growth,
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
    handle: PeerHandle,
    end: End,
    useful: bool,
    /// Whether there was a session at all.
    connected: bool,
    reused: bool,
    located: bool,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, crew: Arc<Crew>) -> Self {
        let trust_generation = shared.ctx.trust.generation();
        Driver {
            shared,
            crew,
            peers: HashMap::new(),
            ends: unbounded(),
            connections: 0,
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
                warn!("not journaled id={id} error=\"{e}\"");
            }
            // Nobody else may hold it open, or the next download of it would find it in use.
            if let Some(shelf) = &self.shared.ctx.shelf {
                shelf.remove(&id);
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
            let Some(handle) = state.peer((record.peer, record.instance)) else { continue };
            here.insert(handle);
            let known = self.peers.entry(handle).or_insert_with(|| Known {
                // Those that are known to hold something were asked already.
                locate_at: (state.useful(handle) == 0).then_some(now),
                locate_wait: LOCATE_POLL_MIN,
                located_revision: record.revision,
                record: record.clone(),
                reputation: Reputation::default(),
                connections: 0,
                last: Last::Untried,
                lane: Arc::default(),
                newest: 0,
                growth: Growth::new(now),
            });
            if record.revision != known.located_revision {
                known.located_revision = record.revision;
                known.locate_at.get_or_insert(now);
            }
            known.record = record;
            if liars.contains(&known.record.peer) && !known.reputation.is_banned() {
                known.reputation.strike();
                state.forget(handle);
            }
            if known.record.revision == 0 {
                state.grows(handle, now);
            }
        }
        let trust = &self.shared.ctx.trust;
        self.peers
            .retain(|handle, known| here.contains(handle) || known.connections > 0 && trust.allows(&known.record.peer));
        // Nobody can be asked for what only those who left hold.
        for handle in state.holders() {
            if !here.contains(&handle) && !self.peers.contains_key(&handle) {
                state.forget(handle);
            }
        }
    }

    /// Opens connections where they are wanted: every holder gets one before any gets a second.
    fn connect(&mut self, now: Instant) {
        let mut first = Vec::new();
        let mut ask = Vec::new();
        {
            let state = self.shared.state();
            for (&handle, known) in &self.peers {
                if known.connections > 0 || !known.reputation.may_try(now) {
                    continue;
                }
                if state.useful(handle) > 0 {
                    first.push(handle);
                } else if known.locate_at.is_some_and(|at| at <= now) {
                    ask.push(handle);
                }
            }
        }
        let all_have_one = first.len() + ask.len() + self.connections <= DOWNLOAD_CONNECTIONS_MAX;
        for handle in first.into_iter().chain(ask) {
            self.open(handle, now);
        }
        if all_have_one {
            self.grow(now);
        }
    }

    /// Adds connections to peers that are busy, as long as each makes the peer quicker.
    fn grow(&mut self, now: Instant) {
        let mut chosen = Vec::new();
        {
            let state = self.shared.state();
            // A further connection would only take from those who share the same uplink.
            if state.is_shared() {
                return;
            }
            let enough = GROWTH_BACKLOG * self.connections as u64;
            for (&handle, known) in &mut self.peers {
                let read = known.lane.read.load(Ordering::Relaxed);
                match known.growth.look(known.connections, read, || state.backlog(handle) >= enough, now) {
                    Advice::Keep => {}
                    Advice::Add => chosen.push(handle),
                    Advice::LetGo => known.lane.surplus.store(known.newest, Ordering::Relaxed),
                }
            }
        }
        for handle in chosen {
            self.open(handle, now);
        }
    }

    fn open(&mut self, handle: PeerHandle, now: Instant) {
        if self.connections >= DOWNLOAD_CONNECTIONS_MAX {
            return;
        }
        let Some(known) = self.peers.get_mut(&handle) else { return };
        let locate = known.locate_at.take_if(|at| *at <= now).is_some();
        if known.reputation.failures() > 0 {
            self.shared.tally.retries.fetch_add(1, Ordering::Relaxed);
            info!("retry peer={} failures={}", known.record.peer, known.reputation.failures());
        }
        self.opened += 1;
        let (record, lane, tell, number) = (known.record.clone(), known.lane.clone(), self.ends.0.clone(), self.opened);
        known.newest = number;
        // A download that ends while this is still dialing must not live on because of it.
        let (shared, pool) = (Arc::downgrade(&self.shared), self.shared.pool.clone());
        let peers = self.shared.ctx.peers.clone();
        let spawned = self.crew.spawn(move || {
            let mut ended =
                Ended { handle, end: End::Stopped, useful: false, connected: false, reused: false, located: locate };
            if shared.upgrade().is_some_and(|shared| !shared.is_stopped()) {
                match pool.checkout(&record) {
                    Ok(session) => match shared.upgrade() {
                        Some(shared) => {
                            ended.connected = true;
                            ended.reused = session.reused;
                            (ended.end, ended.useful) =
                                Fetcher::new(&shared, session, (handle, &lane), locate).run(number);
                        }
                        None => pool.checkin(session),
                    },
                    Err(e) => ended.end = End::Failed(e),
                }
            }
            let _ = tell.send(ended);
            peers.wake();
        });
        match spawned {
            Ok(()) => {
                known.connections += 1;
                self.connections += 1;
            }
            Err(e) => self.shared.fail(FetchError::Threads(e.to_string())),
        }
    }

    fn ended(&mut self, ended: Ended, now: Instant) {
        self.connections -= 1;
        let useful = self.shared.state().useful(ended.handle);
        let Some(known) = self.peers.get_mut(&ended.handle) else { return };
        // A peer that was forgotten meanwhile and is back has other connections.
        known.connections = known.connections.saturating_sub(1);
        let peer = known.record.peer;
        if ended.useful {
            known.reputation.succeeded();
        }
        match ended.end {
            End::Idle | End::Lost => {
                known.last = Last::Answered;
                known.reputation.succeeded();
                if useful == 0 {
                    // What it says to hold after that may be as short-lived.
                    let lost = matches!(ended.end, End::Lost);
                    if lost {
                        known.locate_wait = LOCATE_POLL_MAX;
                    }
                    known.locate_at.get_or_insert(if ended.located || lost { now + known.locate_wait } else { now });
                    known.locate_wait = (known.locate_wait * 2).min(LOCATE_POLL_MAX);
                } else {
                    known.locate_wait = LOCATE_POLL_MIN;
                }
            }
            End::Stopped => {}
            End::Lied => {
                known.last = Last::Answered;
                known.reputation.strike();
            }
            End::Failed(AskError::Busy(wait)) => {
                known.last = Last::Answered;
                known.reputation.busy(now, wait);
            }
            End::Failed(e @ (AskError::Refused(_) | AskError::Untrusted)) => {
                known.last = Last::Refused;
                known.reputation.failed(now, rand::random());
                if let AskError::Refused(reason) = e {
                    weigh_refusal(&mut self.refusal, reason);
                }
            }
            // The peer closed it while it lay in the pool.
            End::Failed(_) if ended.reused && !ended.useful && known.reputation.failures() == 0 => {
                known.reputation.failed(now - STALE_GRACE, 0.0);
            }
            End::Failed(e) => {
                known.last = if ended.connected { Last::Answered } else { Last::Unreachable };
                let at = known.reputation.failed(now, rand::random());
                info!("connection failed peer={peer} error={e} retry_ms={}", (at - now).as_millis());
                // What was not located yet is to be asked again.
                if ended.located {
                    known.locate_at = Some(at);
                }
            }
        }
    }

    /// How long nothing needs a look, unless something wakes this thread.
    fn next_look(&self, now: Instant) -> Duration {
        let mut next = if self.connections > 0 { GROWTH_LOOK } else { IDLE_LOOK };
        for known in self.peers.values().filter(|k| k.connections == 0 && !k.reputation.is_banned()) {
            for at in known.reputation.retry_at().into_iter().chain(known.locate_at) {
                if at > now {
                    next = next.min(at - now);
                }
            }
        }
        next
    }
}

/// How often connections are looked at while there are any.
const GROWTH_LOOK: Duration = Duration::from_millis(50);
/// With less than this left for each connection, a further one is not worth its handshake.
const GROWTH_BACKLOG: u64 = 16 << 20;
/// Looks around at least so often.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// A stale session is not held against the peer: it may be dialed at once.
const STALE_GRACE: Duration = Duration::from_secs(1);
