//! A peer that the node knows, asked or not.

use std::net::SocketAddr;
use std::time::Instant;

use crate::identity::NodeId;

/// A peer that a [`Node`](crate::Node) knows from its announces.
///
/// ```no_run
/// # let node = gpb::Node::builder().start()?;
/// for known in node.known_peers() {
///     println!("{} at {:?}, {:?} ago", known.node.peer, known.addrs, known.last_seen.elapsed());
/// }
/// # Ok::<(), gpb::StartError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct KnownPeer {
    /// Its key and instance: one key may run several nodes.
    pub node: NodeId,
    /// Revision of its catalogue, as last announced.
    pub revision: u64,
    /// Where it serves, best first: addresses that TLS proved, then the freshest hints.
    pub addrs: Vec<SocketAddr>,
    /// Time of its last announce. Means nothing in another process, so it is not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub last_seen: Instant,
}
