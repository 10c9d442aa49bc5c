//! Bounds and intervals of mirrors.

use std::time::Duration;

use crate::limits::{CATALOGUE_ENTRIES_MAX, MIB};

/// Peers whose listings a mirror reads at the same time.
pub const MIRROR_ASKS_MAX: usize = 4;
/// Wait before a listing is read again that could not be read; it doubles with each failure.
pub const MIRROR_ASK_RETRY: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const MIRROR_ASK_RETRY_MAX: Duration = Duration::from_secs(60);
/// A listing that took `t` to read is read again after at least this many times `t`: at most a tenth
/// of the time goes into reading it.
pub const MIRROR_ASK_TIME_SHARE: u32 = 9;
/// Entries of all listings together that a mirror keeps. A listing beyond that is left out.
pub const MIRROR_OFFERS_MAX: usize = CATALOGUE_ENTRIES_MAX;
/// Memory of links and empty directories of all peers together, in bytes. What is beyond is not made.
pub const MIRROR_BARE_LEN_MAX: usize = 128 * MIB;
/// Files below the target of a link, of each peer, among which one is looked for that is here.
pub const MIRROR_ANCHORS_MAX: usize = 64;
/// Wait before links and empty directories are tried again that could not be made.
pub const MIRROR_TREE_RETRY: Duration = Duration::from_secs(60);
/// Fetches of a mirror at the same time.
pub const MIRROR_JOBS_MAX: usize = 4;
/// Files of one such fetch.
pub const MIRROR_BATCH_FILES: usize = 2048;
/// Bytes of one such fetch of several files. A longer file has a fetch of its own, and one fetch is
/// always left for others.
pub const MIRROR_BATCH_LEN: u64 = 64 * MIB as u64;
/// Wait before a file is tried again that could not be fetched; it doubles with each failure.
pub const MIRROR_RETRY: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const MIRROR_RETRY_MAX: Duration = Duration::from_secs(300);
/// Advance or step of the clock after which copies whose times decided nothing are compared again.
pub const COPY_TIME_STEP: Duration = Duration::from_secs(3600);
/// Time after its last use, in seconds, for which a copy counts as being used and does not expire.
pub const IN_USE_S: u64 = 60;

const _: () = assert!(MIRROR_JOBS_MAX >= 2);
