//! The name of one running node.

use std::fmt;

use crate::identity::PeerId;

/// One running node: its key, and the instance of it.
///
/// A user's server and client have one key in common, so the key alone does not tell them apart.
/// Each start of a node draws an instance at random.
///
/// ```
/// use gpb::{Keypair, NodeId};
///
/// let key = Keypair::generate().peer_id();
/// let (server, client) = (NodeId::new(key, 1), NodeId::new(key, 2));
/// assert!(server != client && server.peer == client.peer);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeId {
    /// The node's key.
    pub peer: PeerId,
    /// Which of the nodes with this key.
    pub instance: u64,
}

impl NodeId {
    /// The instance `instance` of `peer`.
    pub const fn new(peer: PeerId, instance: u64) -> Self {
        NodeId { peer, instance }
    }
}

impl fmt::Display for NodeId {
    /// The key, `/`, and the instance as 16 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.peer, self.instance)
    }
}
