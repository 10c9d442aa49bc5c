//! Bounds and intervals of threads, throttles and key files.

use std::time::Duration;

use crate::limits::{KIB, MIB};

/// A rate limit lets the bytes of this time pass at once after a pause.
pub const THROTTLE_BURST: Duration = Duration::from_millis(50);
/// The same for low rates, up to 64 KiB.
pub const THROTTLE_BURST_SMALL: Duration = Duration::from_millis(100);
/// Fewest bytes that a rate limit grants while more are to be sent, but at most a quarter of the
/// burst: each grant costs a timer and a turn.
pub const THROTTLE_GRANT_MAX: usize = 128 * KIB;
/// Longest key file in bytes; the usual one has 119.
pub const KEY_FILE_LEN_MAX: u64 = 16 * KIB as u64;
/// Longest file in bytes that a node follows: of trusted keys, or of peers.
pub const FOLLOWED_FILE_LEN_MAX: u64 = 4 * MIB as u64;
/// Most keys in a trusted file.
pub const TRUSTED_KEYS_MAX: usize = 16_384;
/// Most joins and leaves of peers that are logged in a second; of further ones only the number is
/// logged.
pub const JOINS_LOGGED_PER_S: u32 = 20;
/// Lines about peers that wait until the table of peers is unlocked. Further ones are left out.
pub const LINES_DUE_MAX: usize = 256;
/// The window in which a [`LimitedLog`](crate::runtime::LimitedLog) counts lines.
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Most events of files that wait in the queue of a reader, and most of refusals and lies; further
/// ones are dropped and counted.
pub const EVENTS_MAX: usize = 1024;
