//! The size of the group, as one node knows it.

use std::time::Duration;

use crate::limits::ANNOUNCE_INTERVAL;
use crate::swarm::membership::limits::GROUP_ANNOUNCES_PER_S;

/// Numbers of nodes, this one included.
///
/// One host can announce any number of nodes with keys that it made up. So two numbers are kept:
/// the nodes that are known in any way, and the ones that have proved themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSize {
    /// Nodes in the table.
    pub known: usize,
    /// Members: nodes whose key TLS proved, or that announced themselves for an interval. At most
    /// [`NODES_PER_SOURCE_MAX`](super::limits::NODES_PER_SOURCE_MAX) of one source address count.
    pub proved: usize,
}

impl From<usize> for GroupSize {
    /// A group of which all nodes are members.
    fn from(nodes: usize) -> Self {
        GroupSize { known: nodes, proved: nodes }
    }
}

/// The time between two announces of one node in a group of `nodes`.
pub(super) fn announce_interval(nodes: usize) -> Duration {
    ANNOUNCE_INTERVAL.max(Duration::from_secs_f64(nodes as f64 / f64::from(GROUP_ANNOUNCES_PER_S)))
}
