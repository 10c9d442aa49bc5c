//! Serving what a node has: one thread accepts and waits, a fixed set of workers serves. Tier 6.
//!
//! A connection takes this way. The `acceptor` (thread `gpb-accept`, mio) takes it in and waits
//! until it can be read. It then waits in `queues` (`swarm::FairQueue`) until a `worker` (threads
//! `gpb-serve-N`) gives its `session` a bounded turn: `input` decrypts whole requests, `handler`
//! makes a `reply` of each from `content` and `peers::Directory`, and `output` sends it. A chunk or
//! layer must pass `swarm::UploadGate` first, and its session waits there for a slot. After the
//! turn the acceptor waits for the connection again. So idle, slow and hostile connections
//! cost memory only, and little of it.

mod acceptor;
mod bad_reports;
mod body;
mod connection_slots;
mod content;
mod context;
mod dial_back;
mod handler;
mod input;
pub mod limits;
mod listen;
mod listing;
mod output;
mod parked;
mod piped;
mod queues;
mod remote_peer;
mod reply;
mod session;
mod slots;
mod turn;
mod unsent;
mod worker;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crossbeam::channel::bounded;

use crate::content::Catalogue;
use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_KEY_MAX, HANDSHAKES_MAX};
use crate::net::Tls;
use crate::peers::{Dialer, Directory};
use crate::runtime::{EventSender, LimitedLog, Shutdown, Subscription, Throttle, Watch, Workers};
use crate::server::acceptor::{Acceptor, WAKE};
use crate::server::connection_slots::{ConnectionSlots, HandshakeSlots, connections_that_fit};
use crate::server::content::{Content, Sources};
use crate::server::context::Context;
use crate::server::dial_back::DialBacks;
use crate::server::handler::Handler;
use crate::server::limits::{REJECTED_LINES_MAX, SESSION_LINES_MAX};
use crate::server::worker::{WorkerChannels, work};
use crate::store::{FetchedFiles, OfferedFiles, SharedRoots};

pub use connection_slots::raise_file_limit;
pub use content::{DoubtReport, FileDoubt};
pub use listen::{ServerError, listen};
pub use piped::PipedSession;

/// What a server is made of; most of it is lent by the node.
pub struct ServerConfig {
    /// Where it accepts; see [`listen`](listen::listen).
    pub listeners: Vec<TcpListener>,
    /// This node's identity.
    pub tls: Tls,
    /// What this node says of itself, the keys that may connect, and the peers that are there.
    pub directory: Arc<Directory>,
    /// What is offered.
    pub catalogue: Arc<Watch<Arc<Catalogue>>>,
    /// The directories that are shared; without any only downloads and offers are served.
    pub roots: SharedRoots,
    /// What the program offers besides.
    pub offered: Arc<OfferedFiles>,
    /// Downloads of this node.
    pub fetched: Arc<FetchedFiles>,
    /// Called when a file turns out not to be what was hashed; the indexer looks at it.
    pub report: DoubtReport,
    /// Limits what is sent.
    pub upload: Arc<Throttle>,
    /// Hears of refusals and new peers.
    pub events: EventSender,
    /// Ends the server.
    pub shutdown: Shutdown,
    /// Bounds of what it takes on.
    pub bounds: ServerBounds,
}

/// Bounds of what a server takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerBounds {
    /// Threads that serve. Default: twice the processors, at least 4.
    pub workers: usize,
    /// Connections in all. Default: [`CONNECTIONS_MAX`]; fewer where the system does not allow so
    /// many open files.
    pub connections_max: usize,
    /// Connections of one key (closed group) or source address (open group). Default:
    /// [`CONNECTIONS_PER_KEY_MAX`].
    pub connections_per_key_max: usize,
    /// Connections before `Hello`, besides the others. Default: [`HANDSHAKES_MAX`].
    pub handshakes_max: usize,
}

/// A running server. Dropping it begins the shutdown that it was given and joins its threads.
pub struct Server {
    addrs: Vec<SocketAddr>,
    shutdown: Shutdown,
    /// Wakes the accepting thread when a key loses trust.
    _trust: Subscription,
    threads: Workers,
}

impl Server {
    /// Starts the threads; returns at once.
    ///
    /// # Errors
    /// [`ServerError::Start`]
    pub fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let content = sources(&config);
        Self::serving(config, Arc::new(content))
    }

    /// Where it listens.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    fn serving(config: ServerConfig, content: Arc<dyn Content>) -> Result<Self, ServerError> {
        let bounds = config.bounds.within(connections_that_fit());
        let addrs = config.listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
        let poll = mio::Poll::new().map_err(ServerError::Start)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE).map_err(ServerError::Start)?);
        let wake = waker.clone();
        // Made before the ends of the channels: when starting fails, the ends are dropped first,
        // and the threads end.
        let mut server = Server {
            addrs: addrs.map_err(ServerError::Start)?,
            shutdown: config.shutdown.clone(),
            _trust: config.directory.trust().subscribe(move || drop(wake.wake())),
            threads: Workers::ending(&config.shutdown),
        };
        // One job for every worker that is about to be free; more would be drawn before their turn.
        let (jobs, jobs_out) = bounded(bounds.workers);
        // Room for all sessions that workers can have at once, so that they never wait for the
        // accepting thread.
        let (done_in, done) = bounded(3 * bounds.workers);
        let (dial_backs, dialing) = DialBacks::new();
        let dialer = Dialer::new(config.directory.clone(), config.tls.clone(), config.shutdown.clone());
        let context = Arc::new(context(&config, content, bounds, dial_backs));
        let (channels, handshakes) = (WorkerChannels { jobs, done }, HandshakeSlots::new(bounds.handshakes_max));
        let acceptor = Acceptor::new(poll, config.listeners, config.tls, context.clone(), channels, handshakes);
        let acceptor = acceptor.map_err(ServerError::Start)?;
        let wake = waker.clone();
        config.directory.turned().serve_with(move || drop(wake.wake()));
        let wake = waker.clone();
        config.shutdown.on_begin(move || drop(wake.wake()));
        for n in 0..bounds.workers {
            let (context, jobs, done, waker) = (context.clone(), jobs_out.clone(), done_in.clone(), waker.clone());
            let run = move || work(&context, &jobs, &done, || drop(waker.wake()));
            server.threads.spawn(&format!("gpb-serve-{n}"), run).map_err(ServerError::Start)?;
        }
        server.threads.spawn("gpb-reach", move || dialing.run(&dialer)).map_err(ServerError::Start)?;
        server.threads.spawn("gpb-accept", move || acceptor.run()).map_err(ServerError::Start)?;
        Ok(server)
    }
}

/// What a server serves from.
fn sources(config: &ServerConfig) -> Sources {
    Sources {
        catalogue: config.catalogue.clone(),
        roots: config.roots.clone(),
        offered: config.offered.clone(),
        fetched: config.fetched.clone(),
        report: config.report.clone(),
    }
}

/// What the threads of a server share.
fn context(config: &ServerConfig, content: Arc<dyn Content>, bounds: ServerBounds, dial_backs: DialBacks) -> Context {
    Context {
        handler: Handler {
            content,
            directory: config.directory.clone(),
            trust: config.directory.trust().clone(),
            connections: ConnectionSlots::new(bounds.connections_max, bounds.connections_per_key_max),
            gate: Default::default(),
            sent: Default::default(),
            bad_reports: Default::default(),
            dial_backs,
            fetchers: Default::default(),
            log: LimitedLog::new(SESSION_LINES_MAX),
        },
        throttle: config.upload.clone(),
        events: config.events.clone(),
        shutdown: config.shutdown.clone(),
        log: LimitedLog::new(REJECTED_LINES_MAX),
        wanted: AtomicBool::new(false),
        handed_over: AtomicUsize::new(0),
        unsent: Default::default(),
        lingering: AtomicUsize::new(0),
        lingering_max: (bounds.workers / 2).max(1),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The threads are joined when the field is dropped.
        self.shutdown.begin();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addrs", &self.addrs).field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl ServerBounds {
    /// The same with at most `fit` connections in all, greeting or not, and at least one worker.
    fn within(self, fit: usize) -> Self {
        let handshakes_max = self.handshakes_max.min(fit / 4).max(1);
        let connections_max = self.connections_max.min(fit - fit.min(handshakes_max));
        ServerBounds { workers: self.workers.max(1), handshakes_max, connections_max, ..self }
    }
}

impl Default for ServerBounds {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        ServerBounds {
            workers: (2 * cores).max(4),
            connections_max: CONNECTIONS_MAX,
            connections_per_key_max: CONNECTIONS_PER_KEY_MAX,
            handshakes_max: HANDSHAKES_MAX,
        }
    }
}

#[cfg(test)]
mod tests;
