//! Bounds and intervals of the node.

use std::time::Duration;

/// Time between two looks at the trusted file.
pub const TRUST_POLL: Duration = Duration::from_millis(500);
/// Files that the updates of a fetch take over at once.
pub const UPDATE_FILES: usize = 256;
/// Age of the counters of the links, at most.
pub const LINKS_FRESH: Duration = Duration::from_millis(1100);
