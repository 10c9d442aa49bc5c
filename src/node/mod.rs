//! The front door: a node that shares, finds and fetches. Tier 7.
//!
//! `parts` opens what may not be had (files, keys, sockets), `run` starts the services over it. The
//! services (`share`, `discovery`, `server`, `client`) meet only through what the node lends them.
//! Dropping the node ends and joins all of their threads. Its own thread is `gpb-trust`.

mod builder;
mod config;
mod doctor;
mod error;
mod events;
mod fetch;
mod known_peer;
pub mod limits;
mod parts;
mod run;
mod running;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Client, FetchError, FoundFile, FoundPeer};
use crate::content::Catalogue;
use crate::discovery::{Discovery, DiscoveryStats};
use crate::identity::PeerId;
use crate::limits::WAIT_MAX;
use crate::node::fetch::Destination;
use crate::node::limits::LINKS_FRESH;
use crate::node::parts::NodeParts;
use crate::peers::Directory;
use crate::runtime::{Shutdown, Subscription, Throttle, Watch, Workers};
use crate::server::Server;
use crate::share::Sharer;
use crate::store::OwnFiles;
use crate::swarm::PeerTable;

pub use builder::NodeBuilder;
pub use config::{Config, KeySource, Share};
pub use doctor::{DiscoveryProblem, Finding};
pub use error::{ConfigError, StartError};
pub use events::{Events, EventsError};
pub use fetch::Fetch;
pub use known_peer::KnownPeer;

/// A member of the group: shares a directory, finds other nodes, and fetches from them.
///
/// A node runs on threads of its own and needs no async runtime; it works inside programs that have
/// one. It is `Send + Sync`: an `Arc<Node>` serves any number of threads. Each call that blocks
/// says for how long at most.
///
/// Dropping a node says goodbye to its peers, ends its fetches with everything kept, and joins its
/// threads, which takes some 10 ms. Without the drop, its peers wait half a minute for it.
///
/// ```no_run
/// use std::time::Duration;
/// use gpb::{Node, Share};
///
/// let node = Node::builder().dir("/data").share(Share::Fetched).start()?;
/// for file in node.list(&["models/**"], Duration::from_secs(2))? {
///     println!("{} {} bytes, {} holders", file.path, file.id.len, file.holders.len());
/// }
/// let report = node.fetch(&["models/weights.bin"])?.wait()?;
/// println!("{} bytes from {} peers", report.bytes, report.peers.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Node {
    id: PeerId,
    config: Config,
    addrs: Vec<SocketAddr>,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    peers: Arc<Directory>,
    events: Events,
    shutdown: Shutdown,
    client: Client,
    own_files: Arc<OwnFiles>,
    services: Services,
}

/// The services that run, in the order in which they are dropped.
struct Services {
    /// Ends the sessions with keys that lose trust.
    _revoking: Subscription,
    discovery: Discovery,
    sharer: Option<Arc<Sharer>>,
    upload: Arc<Throttle>,
    _server: Option<Server>,
    _workers: Workers,
}

impl Node {
    /// A node with the default [`Config`], which the builder changes before it starts.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Starts a node. Blocks while files are opened and sockets bound, some milliseconds; the
    /// shared directory is hashed in the background.
    ///
    /// # Errors
    /// [`StartError`]: the setting, file or port that cannot be used, and why.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Node::run(NodeParts::open(config, None)?)
    }

    /// The node's key.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The settings that the node was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The addresses where the node serves; none with [`Share::Nothing`].
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What the node offers now: with [`Share::Directory`] its directory, with [`Share::Fetched`]
    /// what it has fetched since it started. Does not block.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        match (&self.services.sharer, &self.client.ctx.fetched) {
            (None, Some(fetched)) => fetched.catalogue(),
            _ => self.catalogue.get(),
        }
    }

    /// Waits until the files that were there at the start are hashed, at most for `timeout`.
    /// Returns their number and their bytes; `None` when the time is over, when the node ends, and
    /// without [`Share::Directory`].
    ///
    /// Files that were written less than half a second ago count as unfinished and are waited for.
    /// A file is offered as soon as it is hashed, without a call of this.
    pub fn wait_ready(&self, timeout: Duration) -> Option<(u64, u64)> {
        self.services.sharer.as_ref()?.wait_ready(timeout.min(WAIT_MAX))
    }

    /// The peers that are known now, whether they were asked or not. Does not block.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        self.peers.read(PeerTable::peers).into_iter().map(KnownPeer::from).collect()
    }

    /// Asks all peers how much they offer. Returns 300 ms after the last new peer appeared, and
    /// blocks at most for `wait`.
    ///
    /// # Errors
    /// - [`FetchError::NoPeer`]: no peer answered
    /// - [`FetchError::Refused`]: each peer refused this node
    /// - [`FetchError::Interrupted`]: the node ends
    pub fn peers(&self, wait: Duration) -> Result<Vec<FoundPeer>, FetchError> {
        self.client.peers(wait.min(WAIT_MAX))
    }

    /// Asks all peers for the files that one of `patterns` means, each a
    /// [`Pattern`](crate::Pattern) as text; for all files without any. Sorted by path; blocks as
    /// [`peers`](Self::peers) does.
    ///
    /// # Errors
    /// As [`peers`](Self::peers), and [`FetchError::Pattern`] for a text that is none.
    pub fn list<P: AsRef<str>>(&self, patterns: &[P], wait: Duration) -> Result<Vec<FoundFile>, FetchError> {
        self.client.list(&strings(patterns), wait.min(WAIT_MAX))
    }

    /// Finds what `patterns` mean (each a name, a directory, a glob, or a root with or without the
    /// length) and starts to fetch it into [`Config::dir`], from all holders at once.
    ///
    /// Blocks until it is found: at once for a whole root, else until 50 ms after the last answer,
    /// and at most for [`Config::timeout`]. A file of the same name in the directory is replaced,
    /// unless it has the content already.
    ///
    /// # Errors
    /// [`FetchError`]: no peer, no such file, several contents under one name, or the disk.
    pub fn fetch<P: AsRef<str>>(&self, patterns: &[P]) -> Result<Fetch, FetchError> {
        self.fetch_to(patterns, None)
    }

    /// As [`fetch`](Self::fetch), but to `out`: the name of the file if there is exactly one and
    /// `out` is no directory, else a directory. Missing directories are made.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), and [`FetchError::Out`] for a path that cannot be the name of a
    /// file.
    pub fn fetch_to<P: AsRef<str>>(&self, patterns: &[P], out: Option<&Path>) -> Result<Fetch, FetchError> {
        let found = self.client.resolve(&strings(patterns))?;
        let place = Destination::of(&self.config.dir, self.config.create_dir, out, found.len())?;
        Fetch::start(&self.client, found, place, &self.own_files)
    }

    /// The events of the node since it started, as far as they are not read; see [`Events`]. Does
    /// not block.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Numbers of announces that were received and dropped since the start. Does not block.
    pub fn discovery_stats(&self) -> DiscoveryStats {
        self.services.discovery.stats()
    }

    /// Looks at what discovery can and cannot do here: which interfaces send and receive, which
    /// peers answer, and what is wrong. Blocks as [`peers`](Self::peers) does, and a second more.
    ///
    /// # Errors
    /// [`FetchError::Interrupted`] when the node ends.
    pub fn diagnose(&self, wait: Duration) -> Result<Vec<Finding>, FetchError> {
        let answers = self.peers(wait);
        if let Err(FetchError::Interrupted) = answers {
            return Err(FetchError::Interrupted);
        }
        // The counters of the links are up to a second old.
        if self.shutdown.wait(LINKS_FRESH) {
            return Err(FetchError::Interrupted);
        }
        let discovery = &self.services.discovery;
        Ok(doctor::findings(&self.config, &discovery.links(), &discovery.stats(), answers))
    }

    /// A handle that ends the node from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shutdown.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The drops of the fields join the threads.
        self.shutdown.begin();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

/// Ends a [`Node`] from another thread, such as one that waits for signals.
///
/// ```no_run
/// use std::time::Duration;
///
/// # let node = gpb::Node::builder().start()?;
/// let stopper = node.stopper();
/// std::thread::spawn(move || {
///     std::thread::sleep(Duration::from_secs(60));
///     stopper.stop();
/// });
/// // Returns `FetchError::Interrupted` if it takes more than a minute.
/// let report = node.fetch(&["big.bin"])?.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stopper(Shutdown);

impl Stopper {
    /// Begins the end: calls that block return within milliseconds, with
    /// [`FetchError::Interrupted`], and the peers get a goodbye. The threads are joined when the
    /// node is dropped. Does not block.
    pub fn stop(&self) {
        self.0.begin();
    }

    /// Waits until the end has begun, at most for `time`; true if it has.
    pub fn wait(&self, time: Duration) -> bool {
        self.0.wait(time)
    }
}

fn strings<P: AsRef<str>>(patterns: &[P]) -> Vec<String> {
    patterns.iter().map(|p| p.as_ref().to_string()).collect()
}
