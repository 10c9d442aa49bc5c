//! What happens in a node, as queues that programs read.

use crate::node::Node;
use crate::runtime::Events;

impl Node {
    /// A queue of the events from now on, which begins with the peers that are there; see
    /// [`Events`]. Each call makes one of its own. Does not block.
    pub fn events(&self) -> Events {
        self.peers.watch()
    }
}
