//! Bounds and intervals of what is on disk.

use std::time::Duration;

use crate::limits::{CHUNKS_MAX, MIB};

/// Written bytes after which the journal is brought up to date.
pub const JOURNAL_BATCH_LEN: u64 = 32 * MIB as u64;
/// Longest time for which a written chunk is not journaled: what a kill costs when little comes.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(5);
/// Chunk bytes after which the journal itself is made durable; what a power loss may cost beyond a batch.
pub const JOURNAL_SYNC_LEN: u64 = 256 * MIB as u64;
/// Longest journal in bytes; a longer one is not ours.
pub const JOURNAL_LEN_MAX: u64 = 16 * MIB as u64;
/// Longer than a tick of the clock by which any kernel stamps files.
pub const TICK_MAX: Duration = Duration::from_millis(20);
/// How often the state of a partial file is looked at until it has settled.
pub const SETTLE_TRIES: u32 = 4;
/// How often a partial file is opened again when others take it away between open and lock.
pub const PART_OPEN_TRIES: u32 = 8;
/// From so many small files on, one sync of the file system is cheaper than a sync of each.
pub const SYNCFS_FILES_MIN: usize = 4;
/// Directories that are held open while files are renamed into place.
pub const DIRS_OPEN_MAX: usize = 128;
/// A temporary file that nobody has written to for so long was left behind by a process that died.
pub const TEMP_STALE: Duration = Duration::from_secs(3600);
/// Most fetched files that a node serves; a whole file beyond it is not taken.
pub const FETCHED_SERVED_MAX: usize = 65_536;
/// Cache of the index database in bytes.
pub const INDEX_CACHE_LEN: usize = 8 * MIB;
/// Files that a reader keeps open between two chunks.
pub const OPEN_FILES_MAX: usize = 64;
/// Length in bytes of an existing file from which on several threads check whether it is the wanted one.
pub const CHECK_HELP_LEN: u64 = 16 * MIB as u64;
/// Most threads that check one existing file.
pub const CHECK_THREADS_MAX: usize = 16;
/// Chunk digests in one record of the index: with its key it fills a page of 32 KiB.
pub const INDEX_RECORD_DIGESTS: u32 = 1000;
/// Keys that are looked at between two writes while pruning.
pub const PRUNE_STEP: usize = 8192;
/// Bytes that the system is asked to copy from one file to another at once.
pub const COPY_LEN_MAX: usize = 1 << 30;
/// Bytes that are copied at once where the system does not copy by itself.
pub const COPY_BUFFER_LEN: usize = MIB;
/// Times that a path is resolved again because the tree changed meanwhile, before it is walked step by step.
pub const OPENAT2_TRIES: u32 = 64;
/// Tries to have the own directory `.gpb` while others remove and make it.
pub const OWN_TRIES: u32 = 8;

const _: () = {
    // The worst journal has one chunk a record (4 bytes of count, 4 of number, 16 of checksum) and a bit of each chunk
    // in its seal.
    assert!(CHUNKS_MAX * 24 + CHUNKS_MAX / 8 + 1024 <= JOURNAL_LEN_MAX);
};
