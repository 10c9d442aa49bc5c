//! Bounds and intervals of the files on disk.

use std::time::Duration;

use crate::limits::{CATALOGUE_ENTRIES_MAX, CHUNKS_MAX, KIB, MIB};

/// Bytes that may be written ahead of the journal; half of them start a flush.
pub const JOURNAL_BATCH_LEN: u64 = 32 * MIB as u64;
/// Bytes copied from older versions that may be ahead of the journal; half of them start a flush. After a
/// kill they are copied again, so fewer and longer flushes cost nothing but time.
pub const COPIED_BATCH_LEN: u64 = 64 * MIB as u64;
/// Longest run of chunks that is copied from an older version at once, in bytes.
pub const COPY_RUN_LEN: u64 = 8 * MIB as u64;
/// Longest time until a written chunk is journaled: what a kill costs when little arrives.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(5);
/// Chunk bytes after which the journal itself is synced: what a power loss may cost beyond a batch.
pub const JOURNAL_SYNC_LEN: u64 = 256 * MIB as u64;
/// Longest journal in bytes. A longer file is not a journal.
pub const JOURNAL_LEN_MAX: u64 = 16 * MIB as u64;
/// Longest tick of the clock by which kernels stamp files, with a margin.
pub const TICK_MAX: Duration = Duration::from_millis(20);
/// Times that the state of a partial file is read until it has settled.
pub const SETTLE_TRIES: u32 = 4;
/// Times that a partial file is opened again when another process replaces it between open and
/// lock.
pub const PART_OPEN_TRIES: u32 = 8;
/// Free bytes below which a disk may lose what it took, unless room was reserved: twice what is written ahead of a sync.
pub const SCARCE_ROOM: u64 = 2 * JOURNAL_BATCH_LEN;
/// Number of small files from which one sync of the file system is cheaper than one for each.
pub const SYNCFS_FILES_MIN: usize = 4;
/// Files of a batch up to which all of them stay open until they have their names.
pub const BATCH_OPEN_MAX: usize = 64;
/// Directories that stay open while a batch of files is renamed into place.
pub const DIRS_OPEN_MAX: usize = 128;
/// Age after the last write from which a partial file goes with the next fetch into its directory.
pub const PART_STALE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Pause before a partial file that another process has locked is opened again: that one may only
/// have looked at it.
pub const PART_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Age after the last write from which a temporary file counts as left behind by a dead process.
pub const TEMP_STALE: Duration = Duration::from_secs(3600);
/// Most fetched files that a node serves. A whole file beyond them is not added.
pub const FETCHED_SERVED_MAX: usize = 65_536;
/// Longest time after which a system has written the bytes of a changed file to its disk; 35 s is
/// usual.
pub const WRITEBACK_MAX: Duration = Duration::from_secs(600);
/// Cache of the index database, in bytes.
pub const INDEX_CACHE_LEN: usize = 8 * MIB;
/// Age after the last write from which a partial file goes that was only read.
pub const READ_PART_STALE: Duration = Duration::from_secs(60);
/// The same for the newest one of its length whose source has another content by now, while something of that length
/// is fetched.
pub const LET_GO_PART_STALE: Duration = Duration::from_secs(24 * 3600);
/// Most bytes in memory of what a node without a directory reads while it is fetched.
pub const READ_MEMORY_MAX: u64 = 256 * MIB as u64;
/// Files of several chunks that a reader keeps open between two chunks.
pub const OPEN_FILES_MAX: usize = 64;
/// Length in bytes from which several threads check an existing file.
pub const CHECK_HELP_LEN: u64 = 16 * MIB as u64;
/// Most threads that check one existing file.
pub const CHECK_THREADS_MAX: usize = 16;
/// Chunk digests in one record of the index. A record with its key fits a page of 32 KiB.
pub const INDEX_RECORD_DIGESTS: u32 = 1000;
/// Keys that are compared between two writes while pruning.
pub const PRUNE_STEP: usize = 8192;
/// Names that are looked at in search of files that were moved.
pub const NEARBY_ENTRIES_MAX: usize = 100_000;
/// Replaced files that stay open while their contents are wanted elsewhere.
pub const HELD_FILES_MAX: usize = 128;
/// Times that a copy is made again since the file lost its name meanwhile.
pub const COPY_TRIES: u32 = 3;
/// Files from which the chunks of one file are taken, at most.
pub const REUSE_SOURCES_MAX: usize = 4;
/// Runs of chunks for which room is reserved, at most: with more of them, between chunks of zeros,
/// none is, and the writes find out.
pub const RESERVE_RANGES_MAX: usize = 1 << 16;
/// Bytes that the kernel is asked to copy from one file to another in one call.
pub const COPY_LEN_MAX: usize = 1 << 30;
/// Bytes of the buffer for copies that the kernel refuses.
pub const COPY_BUFFER_LEN: usize = MIB;
/// Times that a path is resolved again because the tree changed meanwhile, before it is opened step
/// by step.
pub const OPENAT2_TRIES: u32 = 64;
/// Directories that other users can change of which a process warns.
pub const DIR_RISKS_TOLD_MAX: usize = 64;
/// Tries to open the own directory `.gpb` while other processes remove and create it.
pub const OWN_TRIES: u32 = 8;
/// Looks at a file that is to be replaced while it keeps changing.
pub const REPLACE_TRIES: u32 = 8;
/// Bytes of records of placed files that are gathered before they are written.
pub const PLACED_BUFFER_LEN: usize = 64 * KIB;
/// Longest frame of such records, in bytes.
pub const PLACED_FRAME_LEN_MAX: usize = MIB;
/// Longest file of such records, in bytes; nothing is recorded beyond it.
pub const PLACED_LEN_MAX: u64 = 1 << 30;
/// Bytes by which such a file may grow over twice its length before what was replaced is dropped.
pub const PLACED_COMPACT_LEN: u64 = 4 * MIB as u64;
/// Names of one directory that are known from records.
pub const PLACED_NAMES_MAX: usize = 2 * CATALOGUE_ENTRIES_MAX;
/// Tries to lock such a file, 5 ms apart.
pub const PLACED_LOCK_TRIES: u32 = 400;
/// Such tries at the end of a fetch, after which what is not written is lost.
pub const PLACED_LAST_LOCK_TRIES: u32 = 10 * PLACED_LOCK_TRIES;
/// Bytes of such records that wait for the lock; they are written as one frame.
pub const PLACED_KEPT_LEN_MAX: usize = PLACED_FRAME_LEN_MAX / 2;
/// Chunks of a file from which its layer is kept beside such records.
pub const LAYER_KEPT_MIN: u32 = 64;
/// Chunks of a file up to which its layer is kept: 1 MiB of digests.
pub const LAYER_KEPT_MAX: u32 = 32_768;
/// Layers that are kept at most. A power of two.
pub const LAYER_SLOTS: u8 = 128;
/// Age at which such records are read again to tell copies from files of the user's. It is less than
/// the time for which hints of changes are collected, so the intent of a file that was put in place is
/// read before the file is offered.
pub const COPY_RECORDS_FRESH: Duration = Duration::from_millis(50);
/// Directories whose records are followed for that.
pub const COPY_DIRS_MAX: usize = 16_384;
/// Files of one directory that may expire; further ones stay. As many names are known to have
/// expired.
pub const EXPIRING_MAX: usize = 1_000_000;
/// Names that are noted as used between two looks at them.
pub const USED_NAMES_MAX: usize = 1_000_000;
/// Directories, links and further names that are put in place together, at most, so that each can stop
/// soon.
pub const BARE_AT_ONCE_MAX: usize = 1024;
/// Names under which a replaced file can be kept, at most.
pub const BACKUPS_MAX: u32 = 1000;
/// Longest name in bytes on file systems that encrypt names (eCryptfs).
pub const ENCRYPTED_NAME_LEN_MAX: usize = 143;
/// Tries to lock a private file that is about to be replaced.
pub const PRIVATE_LOCK_TRIES: u32 = 40;
/// Wait between two such tries.
pub const PRIVATE_LOCK_RETRY: Duration = Duration::from_millis(5);

const _: () = {
    // The longest journal has one chunk in each record (4 bytes of count, 4 of number, 16 of
    // checksum) and a seal with one bit for each chunk.
    assert!(CHUNKS_MAX * 24 + CHUNKS_MAX / 8 + 1024 <= JOURNAL_LEN_MAX);
};
