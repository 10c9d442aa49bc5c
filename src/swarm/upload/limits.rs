//! Bounds and intervals of uploads.

use std::time::Duration;

use crate::limits::{CHUNK_PATIENCE, KIB, TURN_LEN_MAX};

/// Time that a worker spends on a session before it hands back.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(50);
/// Bytes that a turn costs besides the bytes that it sends.
pub const TURN_COST: u64 = 16 * KIB as u64;
/// Bytes that one key may be served more than another that is being sent to as well.
pub const SERVED_LEAD_MAX: u64 = 2 * TURN_LEN_MAX as u64;
/// Files whose sent chunks are counted, for `AnyOf`.
pub const SENT_FILES_MAX: usize = 16;
/// For this time after a chunk was sent to a node, an `AnyOf` on another session of the node does not bring it.
pub const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// Files whose fetchers are remembered, for `Peers`.
pub const FETCHED_FILES_MAX: usize = 1024;
/// Most peers that are remembered as fetchers of one file.
pub const FETCHERS_PER_FILE_MAX: usize = 256;
/// Chunks that a server sends at the same time, at least.
pub const UPLOADS_MIN: usize = 4;
/// Layers that a server sends at the same time on the account of one key.
pub const LAYERS_PER_KEY_MAX: usize = 4;
/// An `AnyOf` that waited for this time is deferred: by now its sender lacks other chunks.
pub const ANY_OF_PATIENCE: Duration = Duration::from_millis(500);

const _: () = assert!(ANY_OF_PATIENCE.as_millis() <= CHUNK_PATIENCE.as_millis());
