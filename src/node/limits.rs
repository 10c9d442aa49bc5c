//! Bounds and intervals of the node.

use std::time::Duration;

/// How often the file of trusted keys is looked at.
pub const TRUST_POLL: Duration = Duration::from_millis(500);
/// After so long the counters of the links include what was done before.
pub const LINKS_FRESH: Duration = Duration::from_millis(1100);
