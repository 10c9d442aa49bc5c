//! Bounds and intervals of the node.

use std::time::Duration;

use crate::limits::MIB;

/// Time between two looks at the trusted file.
pub const TRUST_POLL: Duration = Duration::from_millis(500);
/// Files that the updates of a fetch take over at once.
pub const UPDATE_FILES: usize = 256;
/// Age of the counters of the links, at most.
pub const LINKS_FRESH: Duration = Duration::from_millis(1100);
/// Contents that a program offers at the same time, at most.
pub const OFFERS_MAX: usize = 65_536;
/// Contents in memory up to this many bytes are hashed by the caller of an offer: it takes less than a
/// millisecond, and starting a thread not much less.
pub const OFFER_AT_ONCE_LEN: u64 = MIB as u64;
/// Threads that hash what is offered, at most.
pub const OFFER_THREADS: usize = 2;
/// Directories with a name of their own, at most.
pub const DIRS_MAX: usize = 64;
