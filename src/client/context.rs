//! What a client works with.

use std::sync::Arc;
use std::time::Duration;

use crate::client::failures::FailureCounts;
use crate::client::joins::Joins;
use crate::client::limits::{ASK_THREADS_MAX, CONNECTION_THREADS_MAX, CONNECTION_THREADS_STEP};
use crate::client::readings::Readings;
use crate::peers::{Dialer, Directory, PeerPool};
use crate::runtime::keystore::TrustView;
use crate::runtime::{BlockingPool, EventSender, Shutdown, Throttle};
use crate::store::FetchedFiles;

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
    /// Limit of the received bytes.
    pub throttle: Arc<Throttle>,
    /// Where events go.
    pub events: EventSender,
    /// Ends everything.
    pub shutdown: Shutdown,
    /// A download fails after this time without a byte.
    pub timeout: Duration,
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
