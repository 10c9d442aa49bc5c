//! What a client works with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::client::failures::FailureCounts;
use crate::client::joins::Joins;
use crate::client::limits::{ASK_THREADS_MAX, CONNECTION_THREADS_MAX, CONNECTION_THREADS_STEP, SHARED_COPIES_MAX};
use crate::client::readings::Readings;
use crate::content::{Catalogue, EntryRef, FileId, RelPath, Stamp};
use crate::peers::{Dialer, Directory, PeerPool};
use crate::runtime::keystore::TrustView;
use crate::runtime::{BlockingPool, EventSender, Shutdown, Throttle, Watch};
use crate::store::{FetchedFiles, SharedRoots};

/// Asks peers, and downloads from them. Clones share all of it.
#[derive(Clone)]
pub struct Client {
    /// What the node lends.
    pub ctx: Arc<ClientContext>,
    /// Idle sessions.
    pub pool: Arc<PeerPool>,
    /// The threads that block on the connections of downloads, `gpb-conn-N`.
    pub threads: Arc<BlockingPool>,
    /// The threads that block on peers that are only asked, `gpb-ask-N`: these must not wait for a
    /// download, nor a download for them.
    pub askers: Arc<BlockingPool>,
    /// What the downloads of the node have in common.
    pub(crate) joins: Arc<Joins>,
    /// What is read while it is fetched.
    pub(crate) readings: Arc<Readings>,
    /// How fetches failed.
    pub(crate) failures: Arc<FailureCounts>,
}

/// What the node lends a client: the peers that it knows, and what it may use.
#[derive(Clone)]
pub struct ClientContext {
    /// The peers that are there.
    pub peers: Arc<Directory>,
    /// Whether announces are received, so that peers appear that were not named.
    pub hears: bool,
    /// The keys that may be dialed.
    pub trust: Arc<TrustView>,
    /// Where chunks are put for the own server to give; `None` shares nothing.
    pub fetched: Option<Arc<FetchedFiles>>,
    /// What the node shares: a content that lies there already is not fetched.
    pub shared: SharedContents,
    /// Limit of the received bytes.
    pub throttle: Arc<Throttle>,
    /// Where events go.
    pub events: EventSender,
    /// Ends everything.
    pub shutdown: Shutdown,
    /// A download fails after this time without a byte.
    pub timeout: Duration,
}

/// What the shared directories of a node hold, as their indexes know it.
#[derive(Clone)]
pub struct SharedContents {
    /// What is offered by name.
    pub catalogue: Arc<Watch<Arc<Catalogue>>>,
    /// Where these names lie.
    pub roots: SharedRoots,
}

impl SharedContents {
    /// The first of the files with the content `id` that `take` takes. It is asked with each name below `dir`, and the
    /// state in which the file was hashed.
    pub(crate) fn find<T>(&self, dir: &Path, id: &FileId, take: impl Fn(RelPath, &Stamp) -> Option<T>) -> Option<T> {
        let place = |entry: EntryRef<'_>| {
            let (root, local) = self.roots.find(&entry.to_entry())?;
            let path = root.reader.path().join(local.path.as_str());
            let name = RelPath::new(path.strip_prefix(dir).ok()?.to_str()?).ok()?;
            take(name, &local.stamp)
        };
        self.catalogue.get().find(id).take(SHARED_COPIES_MAX).find_map(place)
    }
}

impl Client {
    /// A client that opens its sessions with `dialer`. No thread runs yet.
    pub fn new(ctx: ClientContext, dialer: Dialer) -> Self {
        let threads =
            BlockingPool::new("gpb-conn", CONNECTION_THREADS_STEP, CONNECTION_THREADS_MAX).ending(&ctx.shutdown);
        let askers = BlockingPool::new("gpb-ask", CONNECTION_THREADS_STEP, ASK_THREADS_MAX).ending(&ctx.shutdown);
        let (threads, askers) = (Arc::new(threads), Arc::new(askers));
        let (pool, joins, readings) = (Arc::new(PeerPool::new(dialer)), Arc::default(), Arc::default());
        Client { ctx: Arc::new(ctx), pool, threads, askers, failures: Arc::default(), joins, readings }
    }
}
