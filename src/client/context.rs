//! What the node lends a client.

use std::sync::Arc;
use std::time::Duration;

use crate::peers::Directory;
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Shutdown, Throttle};
use crate::store::Shelf;

/// What the node lends a client: the peers that it knows, and what it may use.
#[derive(Clone)]
pub struct ClientContext {
    /// The peers that are there. Its waiters are woken when a download has something to tell itself.
    pub peers: Arc<Directory>,
    /// The keys that may be dialed.
    pub trust: Arc<Trust>,
    /// Where chunks are put for the own server to give; `None` shares nothing.
    pub shelf: Option<Arc<Shelf>>,
    /// Limit of the received bytes.
    pub throttle: Arc<Throttle>,
    /// Where facts are told.
    pub events: Events,
    /// Ends everything.
    pub shutdown: Shutdown,
    /// A download fails after this time without a byte.
    pub timeout: Duration,
}
