//! The front door: a node that shares, finds and fetches. Tier 7.
//!
//! `parts` opens what may not be had (files, keys, sockets), `run` starts the services over it. The
//! services (`share`, `discovery`, `server`, `client`) meet only through what the node lends them.
//! Dropping the node ends and joins all of their threads. Its own thread is `gpb-trust`.

mod board;
mod builder;
mod callbacks;
mod config;
mod doctor;
mod error;
mod events;
mod fetch;
mod fetch_job;
mod fetch_starter;
mod fetch_state;
mod fetch_tree;
mod get;
pub mod limits;
mod mirror;
mod offer;
mod open_file;
mod open_files;
mod open_reader;
mod parts;
mod run;
mod running;
mod sharers;
mod stats;
mod stopper;
mod sync;
mod to_writer;
mod updates;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::client::{
    AskScope, Client, FailedFile, FetchError, FoundFile, FoundPeer, Resolved, Selection, Wait, Want, join_found,
};
use crate::content::Catalogue;
use crate::discovery::{Discovery, DiscoveryStats};
use crate::identity::{NodeId, PeerId};
use crate::limits::{LIST_WAIT, WAIT_MAX};
use crate::node::fetch_starter::FetchStarter;
use crate::node::limits::LINKS_FRESH;
use crate::node::mirror::MirrorService;
use crate::node::offer::Offers;
use crate::node::parts::NodeParts;
use crate::node::sharers::Sharers;
use crate::peers::Directory;
use crate::runtime::{BlockingPool, Shutdown, Subscription, Throttle, Watch, Workers};
use crate::server::Server;
use crate::store::{OwnFiles, StoreError};
use crate::swarm::{KnownPeer, PeerTable};

pub use builder::NodeBuilder;
pub use config::{Config, DhtOptions, KeySource, Share, State};
pub use doctor::{DiscoveryProblem, Finding};
pub use error::{ConfigError, StartError};
pub use fetch::Fetch;
pub use get::Get;
pub use mirror::MirrorStats;
pub use offer::{OfferError, Offered};
pub use open_file::OpenFile;
pub use stats::{FetchStats, NodeStats, OpenStats, ShareStats};
pub use stopper::Stopper;
pub use sync::{PlannedSync, RunningSync, SyncDir, SyncReport};
pub use updates::{Update, Updates};
pub use verify::{CheckedFile, FileVerdict, Repair, Verified, Verify};

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
/// for file in node.list("models/**")? {
///     println!("{} {} bytes, {} holders", file.path, file.id.len, file.holders.len());
/// }
/// let report = node.fetch("models/weights.bin")?.wait()?;
/// println!("{} bytes from {} peers", report.bytes, report.peers.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a node ends when it is dropped"]
pub struct Node {
    id: PeerId,
    config: Config,
    addrs: Vec<SocketAddr>,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    peers: Arc<Directory>,
    shutdown: Shutdown,
    client: Client,
    fetches: Arc<FetchStarter>,
    own_files: Arc<OwnFiles>,
    services: Services,
}

/// The services that run, in the order in which they are dropped.
struct Services {
    mirror: Option<MirrorService>,
    /// Ends the sessions with keys that lose trust.
    _revoking: Subscription,
    discovery: Discovery,
    sharers: Arc<Sharers>,
    /// What the program offers besides, and the threads that hash it.
    offers: Arc<Offers>,
    offering: BlockingPool,
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

    /// What the node offers now: with [`Share::Directory`] its directories, with [`Share::Fetched`]
    /// what it has fetched since it started, and in either case what the program
    /// [`offer`](Self::offer)s. Does not block.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        let named = self.catalogue.get();
        match &self.client.ctx.fetched {
            Some(fetched) if self.services.sharers.roots.is_empty() => fetched.catalogue_with(&named),
            _ => named,
        }
    }

    /// Waits until the files that were there at the start are hashed, at most for `timeout`.
    /// Returns their number and their bytes; `None` when the time is over, when the node ends, and
    /// without [`Share::Directory`].
    ///
    /// Files that were written less than half a second ago count as unfinished and are waited for.
    /// A file is offered as soon as it is hashed, without a call of this.
    pub fn wait_ready(&self, timeout: Duration) -> Option<(u64, u64)> {
        self.services.sharers.wait_ready(timeout.min(WAIT_MAX))
    }

    /// The peers that are known now, whether they were asked or not. Does not block.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        self.peers.read(PeerTable::peers).into_iter().map(KnownPeer::from).collect()
    }

    /// Asks all peers how much they offer. Returns 300 ms after the last new peer appeared, and
    /// blocks at most for `wait`. No peer at all is an empty list.
    ///
    /// # Errors
    /// - [`FetchError::Refused`]: each peer refused this node
    /// - [`FetchError::Silent`]: peers were reached, and none of them answered
    /// - [`FetchError::ClocksDiffer`]: the clock of this host or of all peers is wrong
    /// - [`FetchError::Cancelled`], [`FetchError::Stopped`]: the call or the node ends
    pub fn peers(&self, wait: impl Into<Wait>) -> Result<Vec<FoundPeer>, FetchError> {
        let (scope, time) = scope(wait.into(), None);
        empty_if_alone(self.client.peers(&scope, time))
    }

    /// Asks all peers for the files that are meant by `want`: [`Everything`](crate::Everything), a
    /// text such as `"models/**"`, or what else [`Want`] takes. Sorted by path. Blocks as
    /// [`peers`](Self::peers) does, and at most for two seconds;
    /// [`list_within`](Self::list_within) names another time. What no peer offers, or no peer at all,
    /// is an empty list. As in a [`fetch`](Self::fetch), a wildcard takes no leading dot of a name.
    ///
    /// # Errors
    /// As [`peers`](Self::peers), and [`FetchError::NothingAsked`] and [`FetchError::Pattern`] for
    /// what cannot be looked for.
    pub fn list(&self, want: impl Into<Want>) -> Result<Vec<FoundFile>, FetchError> {
        self.list_within(want, LIST_WAIT)
    }

    /// As [`list`](Self::list), and blocks at most for `wait`, which a
    /// [`Canceller`](crate::Canceller) may end.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_within(&self, want: impl Into<Want>, wait: impl Into<Wait>) -> Result<Vec<FoundFile>, FetchError> {
        let want = want.into();
        want.check()?;
        let (scope, time) = scope(wait.into(), None);
        let selection = Selection { hidden: want.everything, ..Selection::default() };
        let patterns = want.into_patterns()?;
        let found = empty_if_alone(self.client.list(&patterns, &scope, time))?;
        Ok(selection.shown(&patterns, found).0)
    }

    /// Asks one node for all of its files, as [`list`](Self::list) asks all.
    ///
    /// # Errors
    /// As [`peers`](Self::peers).
    pub fn peer_files(&self, node: NodeId, wait: impl Into<Wait>) -> Result<Vec<FoundFile>, FetchError> {
        let (scope, time) = scope(wait.into(), Some(node));
        empty_if_alone(self.client.list(&[], &scope, time))
    }

    /// Finds what `want` means, as a [`fetch`](Self::fetch) does before it begins: each name once,
    /// with all holders of its content. Blocks until it is found, as a fetch searches, and at most
    /// for `wait`.
    ///
    /// # Errors
    /// The errors with which a fetch ends that does not find what it is to fetch.
    pub fn find(&self, want: impl Into<Want>, wait: impl Into<Wait>) -> Result<Vec<FoundFile>, FetchError> {
        let want = want.into();
        want.check()?;
        let (scope, time) = scope(wait.into(), None);
        let selection = Selection { hidden: want.everything, ..Selection::default() };
        self.find_all(want, &selection, (&scope, time))
    }

    /// Finds what `want` means, of the nodes and in the time that are given.
    fn find_all(
        &self,
        want: Want,
        selection: &Selection,
        (scope, time): (&AskScope, Duration),
    ) -> Result<Vec<FoundFile>, FetchError> {
        let found = match want.texts.is_empty() {
            true => Resolved::default(),
            false => self.client.resolve(&want.texts, selection, scope, time)?,
        };
        match FailedFile::gravest(&found.failed).cloned() {
            None => join_found(found.files, want.files),
            Some(error) => {
                drop(found.failed);
                Err(Arc::into_inner(error).unwrap_or(FetchError::Cancelled))
            }
        }
    }

    /// Fetches what `want` means into [`Config::dir`], from all holders at once: what was listed, a
    /// [`FileId`](crate::FileId), a text that a person typed, several of them; see [`Want`].
    ///
    /// Returns at once. The fetch first searches: not at all for files that were listed, until the
    /// first holder answers for a whole root, else until 50 ms after the last answer, and for at
    /// most [`Config::timeout`]. A different file that lies in the place of one is not replaced;
    /// [`get`](Self::get) has that choice, and others.
    ///
    /// # Errors
    /// [`FetchError::NothingAsked`], [`FetchError::Pattern`] and [`FetchError::Threads`] at once;
    /// all others by [`Fetch::wait`].
    pub fn fetch(&self, want: impl Into<Want>) -> Result<Fetch, FetchError> {
        self.get(want).start()
    }

    /// Fetches the one file that `want` means, and puts it at `path`, whose directory is made if it is
    /// missing. In short for [`get`](Self::get), [`Get::to_file`] and [`Get::start`].
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch); several files are [`FetchError::SeveralFiles`] by [`Fetch::wait`].
    pub fn fetch_to(&self, want: impl Into<Want>, path: impl Into<PathBuf>) -> Result<Fetch, FetchError> {
        self.get(want).to_file(path).start()
    }

    /// As [`fetch`](Self::fetch), with choices to make before it starts: another place, what to do
    /// with files that are there, from which nodes, how fast.
    pub fn get(&self, want: impl Into<Want>) -> Get<'_> {
        Get::new(self, want.into())
    }

    /// Opens the one file that `want` means, to read it while it is fetched; see [`OpenFile`].
    /// [`get`](Self::get) has choices to make before.
    ///
    /// Blocks until it is found, and not at all for a file that was listed; its first byte is waited
    /// for by the first read.
    ///
    /// # Errors
    /// As [`Get::open`].
    pub fn open(&self, want: impl Into<Want>) -> Result<OpenFile, FetchError> {
        self.get(want).open()
    }

    /// The fetches that run, paused ones included, the oldest first. Does not block.
    pub fn fetches(&self) -> Vec<Fetch> {
        self.fetches.running.all()
    }

    /// Finds what `texts` mean among what `selection` leaves, for the programs of this package:
    /// with what is not clear or not there.
    ///
    /// # Errors
    /// What keeps the question from being answered at all.
    #[doc(hidden)]
    pub fn resolve(&self, texts: &[String], selection: &Selection) -> Result<Resolved, FetchError> {
        self.client.resolve(texts, selection, &AskScope::default(), self.config.timeout)
    }

    /// The `names` below `dir` that are files of this node, each with its position, for the programs of
    /// this package.
    #[doc(hidden)]
    pub fn refused<'n>(&self, dir: &Path, names: impl IntoIterator<Item = &'n str>) -> Vec<(usize, StoreError)> {
        self.own_files.refused(dir, names)
    }

    /// What this node finds and fetches with, for the programs of this package.
    #[doc(hidden)]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Numbers of announces that were received and dropped since the start. Does not block.
    pub fn discovery_stats(&self) -> DiscoveryStats {
        self.services.discovery.stats()
    }

    /// Looks at what discovery can and cannot do here: which interfaces send and receive, how far, which
    /// peers answer and how they were found, which address a few of them see of this node, whether they
    /// can dial it, and what is wrong. Only a node that listens ([`Config::share`]) can be dialed, and a
    /// peer tries that once a minute. Blocks as [`peers`](Self::peers) does, and about 5 s more.
    ///
    /// # Errors
    /// [`FetchError::Stopped`] and [`FetchError::Cancelled`] when the node or the call ends.
    pub fn diagnose(&self, wait: impl Into<Wait>) -> Result<Vec<Finding>, FetchError> {
        let (scope, time) = scope(wait.into(), None);
        let answers = self.client.peers(&scope, time);
        if let Err(end @ (FetchError::Stopped | FetchError::Cancelled)) = answers {
            return Err(end);
        }
        let (end, [node, call]) = (Shutdown::new(), [&self.shutdown, scope.canceller.signal()]);
        let _ends = [node, call].map(|either| {
            let end = end.clone();
            either.while_held(move || end.begin())
        });
        // The counters of the links are up to a second old.
        if end.wait(LINKS_FRESH) {
            return Err(if node.has_begun() { FetchError::Stopped } else { FetchError::Cancelled });
        }
        let seen_by = self.client.seen_by(answers.as_deref().unwrap_or_default(), &end);
        let (config, discovery, port) = (&self.config, &self.services.discovery, self.peers.own().port());
        let (links, stats, hindrance) = (discovery.links(), discovery.stats(), self.peers.hindrance());
        let (counts, unreached) = self.peers.read(|table| (table.counts(), table.unreached()));
        let before = doctor::known_before(config, discovery.known_before(), &counts);
        let looked = doctor::Looked { config, links, stats, hindrance, unreached, counts, answers, seen_by, port };
        let mut findings = doctor::findings(&looked);
        findings.extend(doctor::beyond(&self.peers.turned().stats(), (&discovery.dns_sd(), &discovery.dht()), config));
        findings.extend(before);
        Ok(findings)
    }

    /// A handle that ends the node from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper::new(self.shutdown.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The drops of the fields join the threads, of open files with the downloads of these.
        self.shutdown.begin();
        self.fetches.open_files.join();
    }
}

/// Which peers a call asks, and for how long at most.
fn scope(wait: Wait, node: Option<NodeId>) -> (AskScope, Duration) {
    (AskScope { nodes: node.map(|node| [node].into()), canceller: wait.canceller }, wait.time)
}

/// No peer at all is an answer, too.
fn empty_if_alone<T>(found: Result<Vec<T>, FetchError>) -> Result<Vec<T>, FetchError> {
    match found {
        Err(FetchError::NoPeer(_)) => Ok(Vec::new()),
        found => found,
    }
}
