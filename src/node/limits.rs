//! Bounds and intervals of the node.

use std::time::Duration;

use crate::limits::{KIB, LINKS_ON_WAY_MAX, MIB};

/// Time between two looks at the trusted file.
pub const TRUST_POLL: Duration = Duration::from_millis(500);
/// Files that the updates of a fetch take over at once.
pub const UPDATE_FILES: usize = 256;
/// How often a mirror looks whether the shared directory is hashed, at the start.
pub const MIRROR_READY_LOOK: Duration = Duration::from_millis(100);
/// Wait before a mirrored file is considered again for which there was no room.
pub const MIRROR_ROOM_RETRY: Duration = Duration::from_secs(60);
/// Fetches that a mirror gives up at once since what was to go for them could not be removed.
pub const MIRROR_ROOM_TRIES: u32 = 16;
/// Lines that a mirror logs in ten seconds about what peers cause.
pub const MIRROR_LINES_MAX: u32 = 20;
/// A mirror leaves 1 / [`FREE_SHARE`] of the file system free.
pub const FREE_SHARE: u64 = 10;
/// Longest time between two looks for what has expired.
pub const EXPIRY_LOOK: Duration = Duration::from_secs(60);
/// Time from when names left the catalogue until the copies are looked at.
pub const LOST_LOOK: Duration = Duration::from_secs(2);
/// Least time between that and the last look that found copies removed: what removes them again and again is not
/// fed without a pause.
pub const LOST_PAUSE: Duration = Duration::from_secs(10);
/// Least time between two looks while copies take more than their quota.
pub const QUOTA_LOOK: Duration = Duration::from_secs(1);
/// Age of the recorded time of use of a copy from which a later use is recorded.
pub const USE_RECORD_STEP: Duration = Duration::from_secs(3600);
/// The same as a share of the time that copies stay, if that is less.
pub const USE_RECORDS_PER_RETAIN: u32 = 20;
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
/// Contents that a node has open for readers, at most.
pub const READ_FILES_MAX: usize = 64;
/// Readers of one content, at most.
pub const READERS_MAX: usize = 64;
/// What was read, and is no file, stays for this time after its last reader.
pub const READ_LINGER: Duration = Duration::from_secs(60);
/// Longest wait for contents without readers to be let go, before another one is opened.
pub const READ_CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes that are passed to a writer at once.
pub const TO_WRITER_LEN: usize = 256 * KIB;
/// Shortest time between two times that the watchers of a fetch to a writer learn that it is further.
pub const TO_WRITER_TELL_EVERY: Duration = Duration::from_millis(50);
/// Times that a fetch takes another name of an inode as the one that it writes, since something else has
/// the name that it chose.
pub const FIRST_NAME_TRIES: u32 = 16;
/// Rounds in which a fetch makes links, each over links of the rounds before and in directories that came
/// to be with them.
pub const LINK_ROUNDS_MAX: u32 = 2 * LINKS_ON_WAY_MAX;
/// Peers that were not reached and of which a diagnosis tells, at most.
pub const UNREACHED_SHOWN_MAX: usize = 8;
