//! Bounds of the command line.

use crate::limits::MIB;

/// Longest configuration file in bytes.
pub const CONFIG_FILE_LEN_MAX: u64 = MIB as u64;
/// Most `--interface` entries.
pub const INTERFACES_MAX: usize = 64;
/// Longest time in seconds that an option takes (about 31 years): sums with an `Instant` stay in
/// range.
pub const SECONDS_MAX: f64 = 1e9;
