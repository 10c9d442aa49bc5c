//! Bounds and intervals of threads, throttles and key files.

use std::time::Duration;

use crate::limits::{KIB, MIB};

/// What a rate limit lets pass at once after a pause: what flows in this time.
pub const THROTTLE_BURST: Duration = Duration::from_millis(50);
/// The same for low rates, up to 64 KiB.
pub const THROTTLE_BURST_SMALL: Duration = Duration::from_millis(100);
/// A rate limit waits until it can grant so many bytes, if so many are to be sent, but not for more than a quarter of what
/// passes at once: each grant costs a timer and a turn.
pub const THROTTLE_GRANT_MAX: usize = 128 * KIB;
/// Longest key file in bytes; the usual one has 119.
pub const KEY_FILE_LEN_MAX: u64 = 16 * KIB as u64;
/// Longest trusted file in bytes.
pub const TRUSTED_FILE_LEN_MAX: u64 = 4 * MIB as u64;
/// Most keys in a trusted file.
pub const TRUSTED_KEYS_MAX: usize = 16_384;
/// Joins and leaves of peers that are logged in a second; further ones are counted, and their number is logged.
pub const JOINS_LOGGED_PER_S: u32 = 20;
/// The window in which a [`LimitedLog`](crate::runtime::LimitedLog) counts lines.
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Events that wait for a reader; the newest are dropped and counted beyond it.
pub const EVENTS_MAX: usize = 1024;
