//! The front door: a node that shares, finds and fetches. Tier 7.
//!
//! A node lends its parts to the services (`share`, `discovery`, `server`, `client`), which meet only through them, and
//! joins all their threads when it is dropped.

mod builder;
mod config;
mod doctor;
mod error;
mod fetch;
pub mod limits;

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;

use crate::client::{Client, ClientContext, FetchError, FoundFile, FoundPeer};
use crate::content::{Catalogue, Entry};
use crate::discovery::{Discovery, DiscoverySetup, StaticPeer};
use crate::identity::PeerId;
use crate::limits::{STATIC_PEERS_MAX, WAIT_MAX};
use crate::net::{Beacon, LinkOptions, Multicast, Tls};
use crate::node::fetch::Place;
use crate::node::limits::{LINKS_FRESH, TRUST_POLL};
use crate::peers::{Dialer, Directory, OwnAnnounce, OwnIdentity};
use crate::proto::Announce;
use crate::runtime::keystore::{Trust, load_or_create_key};
use crate::runtime::{Events, Shutdown, Throttle, Watch, Workers, no_thread};
use crate::server::{Server, ServerBounds, ServerConfig, listen};
use crate::share::{ShareSetup, Sharer};
use crate::store::{FetchedFiles, Index, OwnFiles, Reader};
use crate::swarm::{Event, PeerRecord, PeerTable};

pub use builder::NodeBuilder;
pub use config::{Config, KeySource, Share};
pub use doctor::{Finding, Problem};
pub use error::{ConfigError, StartError};
pub use fetch::Fetch;

/// A member of the group: shares a directory, finds others, and fetches from them.
///
/// It runs threads of its own and no async runtime, so it can be used anywhere, inside programs with one too. Every call
/// blocks for a bounded time, which its documentation states. Dropping it says goodbye, ends running fetches with
/// everything kept, and joins its threads.
pub struct Node {
    id: PeerId,
    config: Config,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    peers: Arc<Directory>,
    events: Events,
    watch: Receiver<Event>,
    shutdown: Shutdown,
    client: Client,
    addrs: Vec<SocketAddr>,
    discovery: Discovery,
    sharer: Option<Arc<Sharer>>,
    own_files: Arc<OwnFiles>,
    _server: Option<Server>,
    _workers: Workers,
}

/// Ends a node from another thread, such as one that waits for signals.
#[derive(Debug, Clone)]
pub struct Stopper(Shutdown);

impl Stopper {
    /// Begins the end: running calls return soon, fetches with [`FetchError::Interrupted`].
    pub fn stop(&self) {
        self.0.begin();
    }

    /// Waits until the end has begun, at most for `time`; true if it has.
    pub fn wait(&self, time: Duration) -> bool {
        self.0.wait(time)
    }
}

impl Node {
    /// A node with the default [`Config`], to be changed before it starts.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Starts a node. Blocks for as long as files are opened and sockets bound; hashing goes on in the background.
    ///
    /// # Errors
    /// [`StartError`]: what cannot be used, why, and what to do.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Node::start_with(config, None)
    }

    /// Starts a node whose announces are carried by `beacon`; without one by multicast, if the configuration wants it.
    fn start_with(config: Config, beacon: Option<Box<dyn Beacon>>) -> Result<Self, StartError> {
        check(&config)?;
        let peers_named = config.peers.iter().map(|p| p.parse::<StaticPeer>());
        let peers_named = peers_named.collect::<Result<_, _>>().map_err(|e| ConfigError::Peer(e.to_string()))?;
        let shares_dir = config.share == Share::Directory;
        if shares_dir || config.dir.exists() {
            check_dir(&config)?;
        }
        let keypair = match &config.key {
            KeySource::Key(keypair) => keypair.clone(),
            KeySource::State => read_key(&config.state.join("key.pem"))?,
            KeySource::File(file) => read_key(file)?,
        };
        let id = keypair.peer_id();
        let trust = Arc::new(match &config.trusted {
            Some(file) => Trust::closed(file, id)?,
            None => Trust::open(),
        });
        let tls = Tls::new(&keypair).map_err(|e| StartError::Tls(e.into()))?;
        let listener = match config.share {
            Share::Nothing => None,
            _ => Some(listen(config.bind, config.port)?),
        };
        let addrs = listener.iter().map(|l| l.local_addr()).collect::<Result<Vec<_>, _>>()?;
        let beacon: Option<Box<dyn Beacon>> = match beacon {
            None if config.multicast => {
                // What cannot be reached there is not announced: the listener may have IPv4 only.
                let bind = addrs.first().map(SocketAddr::ip).or(config.bind).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
                let options = LinkOptions { interfaces: config.interfaces.clone(), bind };
                Some(Box::new(Multicast::open(options).map_err(StartError::Multicast)?))
            }
            beacon => beacon,
        };

        let (events, watch) = Events::channel();
        let shutdown = Shutdown::new();
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let identity = OwnIdentity {
            keypair: Arc::new(keypair),
            instance: rand::random(),
            network: config.network.clone(),
            agent: concat!("gpb/", env!("CARGO_PKG_VERSION")).to_string(),
            port: addrs.first().map_or(0, SocketAddr::port),
        };
        let own = OwnAnnounce::new(identity, catalogue.clone());
        let peers = Directory::new(own, trust.clone(), events.clone());
        // Who waits for peers looks at the signal only when woken.
        shutdown.on_begin({
            let peers = peers.clone();
            move || peers.wake()
        });
        let fetched = Arc::new(FetchedFiles::new());

        let own_files = Arc::new(own_files(&config));
        let reader = open_reader(&config)?;
        let (index, sharer) = if let Some(reader) = reader.clone().filter(|_| shares_dir) {
            let state_error = |source| StartError::State { path: config.state.clone(), source };
            let index = Arc::new(Index::open(&config.state, &config.dir).map_err(state_error)?);
            let setup = ShareSetup {
                dir: config.dir.clone(),
                index: index.clone(),
                reader,
                own_files: own_files.clone(),
                catalogue: catalogue.clone(),
                events: events.clone(),
                shutdown: shutdown.clone(),
            };
            let sharer = Sharer::start(setup).map_err(|e| no_share(&config, e))?;
            (Some(index), Some(Arc::new(sharer)))
        } else {
            (None, None)
        };

        let dialer = Dialer::new(peers.clone(), tls.clone(), shutdown.clone());
        let discovery = Discovery::start(DiscoverySetup { dialer: dialer.clone(), beacon, peers: peers_named })?;

        let server = match listener {
            None => None,
            Some(listener) => {
                let sharer = sharer.clone();
                let report = move |entry: &Entry| {
                    if let Some(sharer) = &sharer {
                        sharer.withdraw(entry);
                    }
                };
                Some(Server::start(ServerConfig {
                    listeners: vec![listener],
                    tls,
                    directory: peers.clone(),
                    catalogue: catalogue.clone(),
                    reader,
                    index,
                    fetched: fetched.clone(),
                    report: Arc::new(report),
                    upload: Arc::new(Throttle::new(config.upload_limit)),
                    events: events.clone(),
                    shutdown: shutdown.clone(),
                    bounds: ServerBounds::default(),
                })?)
            }
        };

        let mut workers = Workers::default();
        if !trust.is_open() {
            let (peers, shutdown) = (peers.clone(), shutdown.clone());
            workers.spawn("gpb-trust", move || watch_trust(&peers, &shutdown))?;
        }
        let ctx = ClientContext {
            peers: peers.clone(),
            trust,
            fetched: (config.share != Share::Nothing).then_some(fetched),
            throttle: Arc::new(Throttle::new(config.download_limit)),
            events: events.clone(),
            shutdown: shutdown.clone(),
            timeout: config.timeout.min(WAIT_MAX),
        };
        let client = Client::new(ctx, dialer);
        Ok(Node {
            id,
            config,
            catalogue,
            peers,
            events,
            watch,
            shutdown,
            client,
            addrs,
            discovery,
            sharer,
            own_files,
            _server: server,
            _workers: workers,
        })
    }

    /// The node's key.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it listens; nowhere with [`Share::Nothing`].
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What it offers now: its directory with [`Share::Directory`], with [`Share::Fetched`] what it has fetched. Does not
    /// block.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        match (&self.sharer, &self.client.ctx.fetched) {
            (None, Some(fetched)) => fetched.catalogue(),
            _ => self.catalogue.get(),
        }
    }

    /// Waits until all files found at the start are hashed, at most for `timeout`: how many there are, and their bytes.
    /// `None` when the time is over, the node ends, or it shares no directory.
    pub fn wait_ready(&self, timeout: Duration) -> Option<(u64, u64)> {
        self.sharer.as_ref()?.wait_ready(timeout.min(WAIT_MAX))
    }

    /// The peers that are known now, asked or not. Does not block.
    pub fn known_peers(&self) -> Vec<PeerRecord> {
        self.peers.read(PeerTable::peers)
    }

    /// Asks everyone who is there: complete 300 ms after the last new peer, or when `wait` is over.
    ///
    /// # Errors
    /// [`FetchError::NoPeer`], [`FetchError::Refused`] or [`FetchError::Interrupted`].
    pub fn peers(&self, wait: Duration) -> Result<Vec<FoundPeer>, FetchError> {
        self.client.peers(wait.min(WAIT_MAX))
    }

    /// Asks everyone what there is that one of `patterns` means (everything without any). Complete as
    /// [`peers`](Self::peers); sorted by path.
    ///
    /// # Errors
    /// As [`peers`](Self::peers), and [`FetchError::Pattern`].
    pub fn list<P: AsRef<str>>(&self, patterns: &[P], wait: Duration) -> Result<Vec<FoundFile>, FetchError> {
        self.client.list(&strings(patterns), wait.min(WAIT_MAX))
    }

    /// Finds what `patterns` mean (a name, a directory, a glob, a root) and starts to fetch it into the directory of the
    /// configuration, from everyone who holds it. Blocks until it is found: about 50 ms after the last answer, at most
    /// [`Config::timeout`].
    ///
    /// # Errors
    /// [`FetchError`]: nobody there, not found, several contents under one name, or the disk.
    pub fn fetch<P: AsRef<str>>(&self, patterns: &[P]) -> Result<Fetch, FetchError> {
        self.fetch_to(patterns, None)
    }

    /// As [`fetch`](Self::fetch), but to `out`: the name of the file if there is exactly one, else a directory.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn fetch_to<P: AsRef<str>>(&self, patterns: &[P], out: Option<&Path>) -> Result<Fetch, FetchError> {
        let found = self.client.resolve(&strings(patterns))?;
        let create = self.config.dir == Config::default().dir;
        let place = Place::of(&self.config.dir, create, out, found.len())?;
        Fetch::start(&self.client, found, place, &self.own_files)
    }

    /// What happens in the node from now on, and what happened before it was first asked for: at most
    /// [`EVENTS_MAX`](crate::runtime::limits::EVENTS_MAX) wait, beyond which the newest are dropped. Receivers share the events:
    /// each goes to one of them.
    pub fn events(&self) -> Receiver<Event> {
        self.watch.clone()
    }

    /// How many events were dropped because nobody took them.
    pub fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// The discovery service, for its counters.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Looks at what discovery can and cannot do here: which interfaces send and hear, who answers, what to change.
    /// Blocks as [`peers`](Self::peers).
    ///
    /// # Errors
    /// [`FetchError::Interrupted`] when the node ends.
    pub fn diagnose(&self, wait: Duration) -> Result<Vec<Finding>, FetchError> {
        let answers = self.peers(wait);
        if let Err(FetchError::Interrupted) = answers {
            return Err(FetchError::Interrupted);
        }
        // The links tell what they did a second late.
        if self.shutdown.wait(LINKS_FRESH) {
            return Err(FetchError::Interrupted);
        }
        Ok(doctor::findings(&self.config, &self.discovery.links(), &self.discovery.stats(), answers))
    }

    /// Something to end the node with from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shutdown.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The fields' own drops join the threads.
        self.shutdown.begin();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

/// Refuses settings that no part of the node would refuse.
fn check(config: &Config) -> Result<(), ConfigError> {
    if !Announce::is_network_name(&config.network) {
        return Err(ConfigError::Network(config.network.clone()));
    }
    if config.timeout.is_zero() {
        return Err(ConfigError::Timeout(config.timeout));
    }
    if config.peers.len() > STATIC_PEERS_MAX {
        return Err(ConfigError::TooManyPeers(config.peers.len()));
    }
    Ok(())
}

/// Why the directory is not shared: itself, or that there is no thread for it.
fn no_share(config: &Config, source: io::Error) -> StartError {
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::WouldBlock, Some(_)) => StartError::System(no_thread("gpb-hash", source)),
        (io::ErrorKind::WouldBlock, None) => StartError::System(source),
        _ => StartError::Dir { path: config.dir.clone(), source },
    }
}

/// A directory that is there, or a clear error.
fn check_dir(config: &Config) -> Result<(), StartError> {
    let error = |source| StartError::Dir { path: config.dir.clone(), source };
    let meta = std::fs::metadata(&config.dir).map_err(error)?;
    if !meta.is_dir() {
        return Err(error(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    Ok(())
}

fn read_key(file: &Path) -> Result<crate::identity::Keypair, StartError> {
    let (keypair, made) = load_or_create_key(file)?;
    if made {
        log::info!("key made peer={} file={}", keypair.peer_id(), file.display());
    }
    Ok(keypair)
}

/// What is never offered and never overwritten.
fn own_files(config: &Config) -> OwnFiles {
    let key = match &config.key {
        KeySource::File(file) => Some(file),
        KeySource::State | KeySource::Key(_) => None,
    };
    let others = key.into_iter().chain(&config.trusted).chain(&config.never_share);
    OwnFiles::new(&config.state, others.cloned(), &config.dir)
}

/// Reads what is served. A client without a directory yet has nothing to read there.
fn open_reader(config: &Config) -> Result<Option<Arc<Reader>>, StartError> {
    if config.share != Share::Directory && !config.dir.exists() {
        return Ok(None);
    }
    let error = |source| StartError::Dir { path: config.dir.clone(), source };
    Reader::open(&config.dir).map(|r| Some(Arc::new(r))).map_err(error)
}

/// Looks at the trusted file again and again; what is trusted no more is forgotten at once.
fn watch_trust(peers: &Directory, shutdown: &Shutdown) {
    while !shutdown.wait(TRUST_POLL) {
        if peers.trust().reload() {
            peers.forget_untrusted();
        }
    }
}

fn strings<P: AsRef<str>>(patterns: &[P]) -> Vec<String> {
    patterns.iter().map(|p| p.as_ref().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thread_is_not_the_directorys_fault() {
        let config = Config::default();
        let again = no_share(&config, no_thread("gpb-share", io::ErrorKind::WouldBlock.into()));
        assert!(matches!(again, StartError::System(_)), "{again}");
        let denied = no_share(&config, io::ErrorKind::PermissionDenied.into());
        assert!(matches!(denied, StartError::Dir { .. }), "{denied}");
    }
}
