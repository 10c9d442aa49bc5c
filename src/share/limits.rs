//! Bounds and intervals of the indexing of the shared directory.

use std::time::Duration;

use crate::limits::MIB;

/// A file is offered once it has not changed for so long.
pub const QUIET: Duration = Duration::from_millis(500);
/// How often the directory is scanned for what the watch missed.
pub const RESCAN: Duration = Duration::from_secs(60);
/// Read buffers of all hashing threads together, in bytes.
pub const HASH_BUFFERS_LEN: usize = 8 * MIB;
/// Bytes of a file that a hashing thread takes in a turn; other files get theirs in between.
pub const HASH_TURN_LEN: u64 = 16 * MIB as u64;
/// Files that a hashing thread takes in a turn.
pub const HASH_TURN_FILES: usize = 64;
/// Files that wait to be hashed, of up to [`HASH_TURN_LEN`] bytes and of more, before a scan goes on to find more.
pub const HASH_QUEUE_FILES: usize = 16_384;
/// Hashed files that are written to the index at once.
pub const HASH_BATCH_FILES: usize = 1024;
/// How often the shared directory itself is looked for: it may be removed, replaced or mounted over.
pub const ROOT_POLL: Duration = Duration::from_secs(1);
/// How often what was hashed is made durable in the index.
pub const INDEX_SYNC: Duration = Duration::from_secs(5);
/// How often the index forgets files that are gone.
pub const INDEX_PRUNE: Duration = Duration::from_secs(3600);
/// Changes of the directory that wait to be looked at; more of them are a reason to scan it whole.
pub const WATCH_EVENTS_MAX: usize = 16_384;
/// Changes are collected for so long before they are looked at.
pub const WATCH_DEBOUNCE: Duration = Duration::from_millis(100);
/// Files that are watched until they are quiet; the rest is found by the next scan.
pub const UNSETTLED_MAX: usize = 65_536;
/// Links inside the directory whose targets are followed as they change; the others are seen by the next scan.
pub const LINKS_FOLLOWED_MAX: usize = 1024;
/// Withdrawn files that are remembered; further ones are offered again, as what they are then, after the next scan.
pub const WITHDRAWN_MAX: usize = 4096;
/// Skipped files that are remembered, so that each is logged once.
pub const SKIPS_LOGGED_MAX: usize = 10_000;
/// Changes of the catalogue after which a snapshot is made whenever the last one was, unless the catalogue has more than
/// [`PUBLISH_SHARE_MAX`] times as many entries.
pub const PUBLISH_CHANGES_MAX: usize = 32_768;
/// See [`PUBLISH_CHANGES_MAX`].
pub const PUBLISH_SHARE_MAX: usize = 32;
/// Least time between two snapshots of a catalogue that grows.
pub const PUBLISH_MIN: Duration = Duration::from_millis(300);
/// Time that a walk takes before other work gets its turn: less than the threads that hash need for what they have.
pub const SCAN_TURN: Duration = Duration::from_millis(1);
/// The index is first pruned so long after the start, when those who wait for the files are being served.
pub const PRUNE_LATER: Duration = Duration::from_secs(10);
/// Changed directories that wait to be walked one by one; more of them are walked together.
pub const TREES_MAX: usize = 256;
/// Commands that wait for the thread that keeps the catalogue. Who asks for more is told by the log, and may ask again.
pub const COMMANDS_MAX: usize = 256;
