//! Bounds and intervals of the client.

use std::time::Duration;

use crate::limits::{DOWNLOAD_CONNECTIONS_MAX, KIB, MIB, PATTERN_LEN_MAX, UNANSWERED_LEN_MAX};

/// Most bytes of received chunks in memory.
pub const RECEIVE_BUDGET: usize = 32 * MIB;
/// Buffers of small files that are kept for later ones.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// Length of the longest of them, in bytes.
pub const SPARE_LEN_MAX: usize = 16 * KIB;
/// A name is resolved this time after the last new answer.
pub const RESOLVE_QUIET: Duration = Duration::from_millis(50);
/// A name is resolved at most this time after the first answer.
pub const RESOLVE_MAX: Duration = Duration::from_secs(1);
/// Times that the whole list of a peer is read until it does not change meanwhile.
pub const WHOLE_LISTING_TRIES: u32 = 5;
/// A name that no answer holds is sought for this time after the first answer while other peers are
/// still being asked.
pub const RESOLVE_ALL_MAX: Duration = Duration::from_secs(5);
/// A peer elsewhere that was not reached may offer to answer on a session of its own: that is waited for until this time after
/// its first failure.
pub const UNREACHED_WAIT: Duration = Duration::from_secs(3);
/// A listing is complete this time after the last new peer.
pub const LIST_QUIET: Duration = Duration::from_millis(300);
/// Memory of the listing of one peer, in bytes: 600,000 files with names of 60 bytes take that.
pub const LISTING_LEN_MAX: usize = 176 * MIB;
/// Memory of all listings for one question, in bytes. What several peers list counts once when it
/// is merged.
pub const LISTINGS_LEN_MAX: usize = 208 * MIB;
/// As [`LISTING_LEN_MAX`] in bytes, for the peer that a question prefers: 3.8 million such files.
pub const LISTING_PREFERRED_LEN_MAX: usize = 1024 * MIB;
/// Bytes of each listing that do not count: long listings leave room for short ones.
pub const LISTING_FREE_LEN: usize = 64 * KIB;
/// A peer whose listing found no room is asked again after this time.
pub const LISTING_RETRY: Duration = Duration::from_secs(1);
/// Peers at one address that are asked at the same time: many keys on one host must not take the
/// threads from others.
pub const ASKED_PER_ADDR_MAX: usize = 16;
/// Peers that are asked at the same time at an address where earlier ones said nothing.
pub const ASKED_PER_SILENT_ADDR_MAX: usize = 4;
/// Time for all that a peer is asked in a short try, as many others wait.
pub const HURRIED_TIME: Duration = Duration::from_secs(2);
/// Threads that ask peers, at most.
pub const ASK_THREADS_MAX: usize = 64;
/// Threads for sessions that a client starts at once.
pub const CONNECTION_THREADS_STEP: usize = 8;
/// Most threads for the connections of downloads.
pub const CONNECTION_THREADS_MAX: usize = DOWNLOAD_CONNECTIONS_MAX + 4 * CONNECTION_THREADS_STEP;
/// Threads of a download that open and finish partial files.
pub const DISK_THREADS: usize = 2;
/// Bytes of an earlier run that a disk thread verifies before it looks for other jobs: some
/// milliseconds.
pub const RECHECK_TURN_LEN: u64 = 8 * MIB as u64;
/// Length in bytes from which a one-chunk file of zeros is not fetched: a block of most file systems,
/// the least that a hole saves.
pub const HOLE_LEN_MIN: u64 = 4 * KIB as u64;
/// Threads of a download that write small files.
pub const SMALL_THREADS: usize = 2;
/// Longest time between two decisions about the connections of a download, while there are any.
pub const COORDINATE_EVERY: Duration = Duration::from_millis(50);
/// Shortest time between two times that the caller of a download learns that it is further.
pub const TELL_EVERY: Duration = Duration::from_millis(50);
/// As [`COORDINATE_EVERY`], while there is no connection.
pub const IDLE_LOOK: Duration = Duration::from_secs(1);
/// A download ends this time after every peer that could give something has refused: others get a
/// moment to appear.
pub const REFUSED_GRACE: Duration = Duration::from_millis(400);
/// Items of a list that an error message shows.
pub const SHOWN_MAX: usize = 32;
/// One-chunk files that a connection verifies together, at most.
pub const VERIFY_FILES_MAX: usize = 128;
/// Bytes of one-chunk files that a connection verifies together, at most.
pub const VERIFY_LEN_MAX: usize = 512 * KIB;
/// Longest wait of a connection without work before it looks for work again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of layers and chunks that count as progress of a download before any of them is verified.
pub const PROGRESS_LEN: u64 = 64 * KIB as u64;
/// Longest time for which deferred requests alone keep a download from timing out; each chunk or
/// layer starts it again.
pub const DEFERRED_MAX: Duration = Duration::from_secs(300);
/// Files up to which a download looks for them before it starts its threads.
pub const CHECK_AT_ONCE_FILES: usize = 8;
/// Bytes of these files, at most: what is there may have to be read.
pub const CHECK_AT_ONCE_LEN: u64 = 256 * KIB as u64;
/// Files that are looked for on the disk between two rings of the coordinator's bell.
pub const CHECK_STRIDE: u32 = 256;
/// Unfinished files up to which another download waits for any of a download's files. In a longer
/// one it waits for the files that are being fetched: the others may come much later.
pub const JOIN_FILES_MAX: usize = 512;
/// Time between two attempts to open a partial file that another thread of this process lets go.
pub const BUSY_NAP: Duration = Duration::from_millis(10);
/// Attempts to open a partial file that is in use.
pub const BUSY_ATTEMPTS: u32 = 30;
/// Names of which a warning says that the newest of several copies was taken, and what it names of each.
pub const AGED_TOLD_MAX: usize = 5;
/// Peers of a survey of which a warning says that their answers cannot be read.
pub const UNREADABLE_TOLD_MAX: usize = 8;
/// Patterns of a listing whose first pages are asked for together.
pub const PATTERNS_AT_ONCE: usize = 32;
/// Most names that are looked up to find out where the links of a fetch lead; further links are not
/// made.
pub const LINK_STEPS_MAX: u32 = 8_000_000;
/// Least bytes of a chunk that are read between two looks whether to ask for more.
pub const ASK_STEP: usize = 16 * KIB;
/// Longest sleep for the rate limit between two checks for a stop.
pub const THROTTLE_NAP: Duration = Duration::from_millis(50);
/// Bytes of a file up to which it needs room for all of it, known before anything is fetched. Longer
/// ones are often sparse, and need room for what is not zeros.
pub const DENSE_LEN_MAX: u64 = 64 * MIB as u64;
/// Bytes of a block of the usual file systems: a file takes whole ones.
pub const DISK_BLOCK_LEN: u64 = 4 * KIB as u64;
/// Files of the shared directories that are looked at for one content which is to be copied.
pub const SHARED_COPIES_MAX: usize = 4;
/// Peers that are asked what they see of this node.
pub const REACH_PEERS_MAX: usize = 3;
/// Longest wait for their dials to end.
pub const REACH_WAIT: Duration = Duration::from_secs(3);
/// Time between two questions about them.
pub const REACH_AGAIN: Duration = Duration::from_millis(100);

const _: () = {
    assert!(PATTERNS_AT_ONCE * (PATTERN_LEN_MAX + 64) <= UNANSWERED_LEN_MAX);
    assert!(LISTING_LEN_MAX <= LISTINGS_LEN_MAX && LISTINGS_LEN_MAX <= LISTING_PREFERRED_LEN_MAX);
};
