//! Bounds and intervals of the node.

use std::time::Duration;

/// Time between two looks at the trusted file.
pub const TRUST_POLL: Duration = Duration::from_millis(500);
/// Age of the counters of the links, at most.
pub const LINKS_FRESH: Duration = Duration::from_millis(1100);
