//! Bounds and intervals of the indexing of the shared directory.

use std::time::Duration;

use crate::limits::MIB;

/// Time without a change after which a file is hashed and offered.
pub const QUIET: Duration = Duration::from_millis(500);
/// Least time between two scans of the directory, which find what no hint reported.
pub const RESCAN: Duration = Duration::from_secs(60);
/// Longest time between two tries to watch a directory that the system could not watch.
pub const WATCH_RETRY_MAX: Duration = Duration::from_secs(3600);
/// A scan that took `t` is repeated after at least this many times `t`, so that scanning takes at
/// most 5 % of the time.
pub const WALK_TIME_SHARE: u32 = 20;
/// Bytes of the read buffers of all hashing threads together.
pub const HASH_BUFFERS_LEN: usize = 8 * MIB;
/// Bytes of a file that a hashing thread takes in a turn. Turns of other files come in between.
pub const HASH_TURN_LEN: u64 = 16 * MIB as u64;
/// Files that a hashing thread takes in a turn.
pub const HASH_TURN_FILES: usize = 64;
/// Files that wait to be hashed, of up to [`HASH_TURN_LEN`] bytes and of more, while a scan pauses.
pub const HASH_QUEUE_FILES: usize = 16_384;
/// Hashed files that are written to the index at once.
pub const HASH_BATCH_FILES: usize = 1024;
/// Interval at which the shared directory itself is looked for: it may be removed, replaced or
/// mounted over.
pub const ROOT_POLL: Duration = Duration::from_secs(1);
/// Age at which the knowledge of the own files is renewed before a file is inspected. It is far
/// less than [`QUIET`], so a new name of a new own file is not hashed before it is known as one.
pub const OWN_REFRESH: Duration = Duration::from_millis(50);
/// Longest time until what was hashed is durable in the index.
pub const INDEX_SYNC: Duration = Duration::from_secs(5);
/// Interval at which the index forgets files that are gone.
pub const INDEX_PRUNE: Duration = Duration::from_secs(3600);
/// Time from the start to the first pruning of the index. By then the files are offered.
pub const PRUNE_LATER: Duration = Duration::from_secs(10);
/// Hints of changes that wait for an inspection. More of them cause a scan instead.
pub const WATCH_EVENTS_MAX: usize = 16_384;
/// Time for which hints, and hashed files, are collected before they are processed together.
pub const WATCH_DEBOUNCE: Duration = Duration::from_millis(100);
/// Names of what could not be offered that are remembered. With more of them the catalogue counts as
/// incomplete until the whole directory was walked.
pub const HIDDEN_NAMES_MAX: usize = 4096;
/// Mounts below the shared directory that are remembered.
pub const MOUNTS_MAX: usize = 1024;
/// Files that wait until they are quiet. Further ones are found by the next scan.
pub const DEBOUNCED_MAX: usize = 65_536;
/// Symlinks inside the directory that are inspected with each change. The others are inspected by
/// the next scan.
pub const LINKS_FOLLOWED_MAX: usize = 1024;
/// Withdrawn files that are remembered. Further ones are offered again, with the content that they
/// have then.
pub const WITHDRAWN_MAX: usize = 4096;
/// Skipped paths that are remembered, so that each is logged once.
pub const SKIPS_LOGGED_MAX: usize = 10_000;
/// Pending changes that force a new snapshot. For a large catalogue it is 1 / [`PUBLISH_SHARE_MAX`]
/// of its entries.
pub const PUBLISH_CHANGES_MAX: usize = 32_768;
/// See [`PUBLISH_CHANGES_MAX`].
pub const PUBLISH_SHARE_MAX: usize = 32;
/// Least time between two snapshots of a catalogue that grows.
pub const PUBLISH_MIN: Duration = Duration::from_millis(300);
/// A snapshot that took `t` is followed by the next one after at least this many times `t`: 20 % of
/// the time at most.
pub const PUBLISH_TIME_SHARE: u32 = 4;
/// The same while files are hashed and none is to be removed: 5 % of the time at most, the rest is
/// for hashing.
pub const PUBLISH_TIME_SHARE_BUSY: u32 = 20;
/// Longest time that a walk takes before other work gets its turn. Threads that hash have work for
/// longer than that.
pub const SCAN_TURN: Duration = Duration::from_millis(1);
/// Changed directories that wait to be walked one by one. More of them cause a scan of the whole
/// directory.
pub const TREES_MAX: usize = 256;
/// Least time after which requests that find a file changed let it be hashed again. In between they
/// only withdraw it.
pub const RECHECK_MIN: Duration = Duration::from_secs(10);
/// Files and directories whose last look because of a request is remembered.
pub const RECHECKS_MAX: usize = 4096;
/// How often a thread that waits for the indexing thread looks whether the service has ended.
pub const ANSWER_LOOK: Duration = Duration::from_millis(100);
/// How often a file that the program publishes is hashed again because it was found in another state
/// than before.
pub const PUBLISH_RETRIES_MAX: u32 = 2;
/// Commands that wait for the indexing thread. Further withdrawals are logged and dropped.
pub const COMMANDS_MAX: usize = 256;

const _: () = assert!(OWN_REFRESH.as_millis() * 4 <= QUIET.as_millis());
/// Paths with names that cannot be shared that are counted; further ones are not.
pub const UNNAMED_COUNTED_MAX: usize = 65_536;
