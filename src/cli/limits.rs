//! Bounds of the command line.

use std::time::Duration;

use crate::limits::MIB;

/// Longest configuration file in bytes.
pub const CONFIG_FILE_LEN_MAX: u64 = MIB as u64;
/// Longest wait for what a pipe brings that is named as a configuration.
pub const PIPE_WAIT: Duration = Duration::from_secs(30);
/// Length in bytes at which the log file is renamed and a new one is begun.
pub const LOG_FILE_LEN_MAX: u64 = 64 * MIB as u64;
/// Most `--interface` entries.
pub const INTERFACES_MAX: usize = 64;
/// Longest time in seconds that an option takes (about 31 years): sums with an `Instant` stay in
/// range.
pub const SECONDS_MAX: f64 = 1e9;
/// Causes of names that were not fetched that are shown to people.
pub const FAILED_SHOWN_MAX: usize = 20;
/// Contents of one name that are shown to people.
pub const SHOWN_CANDIDATES_MAX: usize = 20;
/// Patterns of names to leave out, at most.
pub const EXCLUDE_MAX: usize = 256;
/// Patterns of what is mirrored, at most.
pub const MIRROR_PATTERNS_MAX: usize = 256;
/// Peers whose names are mirrored, at most.
pub const MIRROR_FROM_MAX: usize = 256;
/// Log lines about panics in a window of [`LOG_WINDOW`](crate::runtime::limits::LOG_WINDOW); further
/// ones are counted.
pub const PANIC_LINES_MAX: u32 = 5;
/// Bytes of what a panic says that are logged.
pub const PANIC_TEXT_LEN_MAX: usize = 200;
