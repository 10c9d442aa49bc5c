//! What the node lends a client.

use crate::identity::NodeId;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::Tls;
use crate::proto::PeerHint;
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Shutdown, Throttle, Watched};
use crate::store::Shelf;
use crate::swarm::PeerTable;

/// Takes in what a peer told of others; see [`ClientContext::introduce`].
pub(super) type Introduce = Arc<dyn Fn(&[PeerHint], IpAddr) -> Vec<NodeId> + Send + Sync>;

/// What the node lends a client: who it is, whom it knows, and what it may use.
#[derive(Clone)]
pub struct ClientContext {
    /// TLS identity.
    pub tls: Tls,
    /// Whom to dial at all.
    pub trust: Arc<Trust>,
    /// Name of the network.
    pub network: String,
    /// The node's instance.
    pub instance: u64,
    /// Makes the sealed announce that `Hello` carries; empty if the node does not announce itself.
    pub announce: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Takes in what the peer at that address told of others, and returns whom that was good for.
    pub introduce: Introduce,
    /// Who is there. Its waiters are woken when a download has something to tell itself.
    pub peers: Arc<Watched<PeerTable>>,
    /// Where chunks are put for the own server to give; `None` shares nothing.
    pub shelf: Option<Arc<Shelf>>,
    /// Limit of what is received.
    pub throttle: Arc<Throttle>,
    /// Where facts are told.
    pub events: Events,
    /// Ends everything.
    pub shutdown: Shutdown,
    /// A download fails after so long without a byte.
    pub timeout: Duration,
    /// Program and version, for the logs of others.
    pub agent: String,
}
