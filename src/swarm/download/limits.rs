//! Bounds and intervals of a download.

use std::time::Duration;

use crate::limits::{CHUNKS_MAX, MIB};

/// Connections that only ask a peer what it holds, at most, once there is a peer to fetch from.
pub const LOCATES_AT_ONCE: usize = 4;
/// How often a full set of connections
/// ([`DOWNLOAD_CONNECTIONS_MAX`](crate::limits::DOWNLOAD_CONNECTIONS_MAX)) drops at least one for a
/// peer that was not tried.
pub const MESH_ROTATE: Duration = Duration::from_secs(2);
/// Most connections that one rotation drops; see [`MESH_ROTATE`].
pub const ROTATE_MAX: usize = 4;
/// A dropped peer is dialed after all other peers for this time.
pub const DROPPED_REST: Duration = Duration::from_secs(30);
/// Connections for which known holders come first.
pub const HOLDERS_FIRST: usize = 8;
/// Dials that may pass at once, before the pace of [`DIAL_EVERY`].
pub const DIALS_AT_ONCE: u32 = 16;
/// Time between two dials beyond [`DIALS_AT_ONCE`].
pub const DIAL_EVERY: Duration = Duration::from_millis(25);
/// Longest back-off after a connection that failed.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// Most files of several chunks that are fetched at once.
pub const ACTIVE_FILES_MAX: usize = 256;
/// Most chunks of all files that are fetched at once; a single file may have more. Bounds the
/// memory of layers and pickers.
pub const ACTIVE_CHUNKS_MAX: u64 = CHUNKS_MAX;

/// A second peer is asked for a layer that did not come for this time; of `n` peers, the next one
/// is asked this time divided by `n - 1` after the last one.
pub const LAYER_PATIENCE: Duration = Duration::from_millis(500);
/// Peers that may be asked for a layer at once, however long it is.
pub const LAYER_ASKED_MIN: usize = 16;
/// Bytes of a layer that several peers may be asked for at once, all together.
pub const LAYERS_LEN_MAX: usize = 16 * MIB;
/// Time for part of a layer, besides its length at [`LAYER_RATE_MIN`].
pub const LAYER_TIME: Duration = Duration::from_secs(2);
/// Least rate of a layer in bytes a second.
pub const LAYER_RATE_MIN: u64 = 1_000_000;
/// A surplus connection is cut after this time, if its last answers are not there.
pub const SURPLUS_GRACE: Duration = Duration::from_secs(2);
/// Least rate of a chunk in bytes a second, if another peer could give it.
pub const CHUNK_RATE_MIN: u64 = 16 << 10;
/// Time over which the rate of a chunk is measured.
pub const CHUNK_RATE_SPAN: Duration = Duration::from_secs(10);
/// The same while peers wait for a connection of a full set: less than the usual timeout of a
/// download.
pub const CHUNK_RATE_SPAN_FULL: Duration = Duration::from_secs(3);
/// A connection on which a chunk was deferred asks nothing for this time.
pub const DEFERRED_REST: Duration = Duration::from_millis(20);
/// Longest time until a peer that is too busy for a layer is asked again.
pub const LAYER_BUSY_MAX: Duration = Duration::from_secs(5);
/// First interval at which a holder is asked for the other peers that fetch a file; it doubles each
/// time. Holders are asked while fewer than [`HOLDERS_ENOUGH`] are known.
pub const PEERS_POLL_MIN: Duration = Duration::from_millis(250);
/// Longest interval between two such questions.
pub const PEERS_POLL_MAX: Duration = Duration::from_secs(8);
/// While a holder is too busy for a layer, it is asked for other peers as often as for the layer,
/// until the interval between two such questions would exceed this.
pub const PEERS_POLL_SOON_MAX: Duration = Duration::from_secs(2);
/// Holders of a file that are enough: see [`PEERS_POLL_MIN`].
pub const HOLDERS_ENOUGH: usize = 64;
/// Shortest interval at which a partial holder without a wanted chunk is asked what it has.
pub const HAVE_POLL_MIN: Duration = Duration::from_millis(50);
/// Longest interval between two such questions.
pub const HAVE_POLL_MAX: Duration = Duration::from_secs(1);
/// First interval at which a peer that held nothing is asked again; it doubles each time.
pub const LOCATE_POLL_MIN: Duration = Duration::from_millis(100);
/// Longest interval between two such questions.
pub const LOCATE_POLL_MAX: Duration = Duration::from_secs(3);
/// Requests of [`LOCATE_FILES_MAX`](crate::limits::LOCATE_FILES_MAX) files that a connection queues
/// at once.
pub const LOCATE_AHEAD: usize = 16;

/// Chunks that the picker looks at before it tries another way to find one.
pub const PROBES_MAX: usize = 48;
/// Chunks that a peer may be asked for as the second one in the end game, at most.
pub const END_GAME_AT_ONCE: usize = 4;
/// Unanswered requests of a connection below which it takes part in the end game.
pub const END_GAME_PENDING_MAX: usize = 2;

/// Chunks right ahead of a reader that are asked for in their order, and of a second peer as soon as
/// they are late.
pub const READ_URGENT_CHUNKS: u32 = 4;
/// Bytes that are fetched ahead of a reader after it went to another place; twice as many with each
/// chunk that it then reads, up to [`READ_AHEAD_LEN_MAX`].
pub const READ_AHEAD_LEN_MIN: u64 = MIB as u64;
/// Most bytes that are fetched ahead of a reader.
pub const READ_AHEAD_LEN_MAX: u64 = 32 * MIB as u64;
/// Fewest chunks ahead of a reader, however long they are.
pub const READ_AHEAD_CHUNKS_MIN: u32 = 4;
/// Least time between two offers of a node to answer of which each has it asked at once.
pub const OFFER_HONOURED_EVERY: Duration = Duration::from_secs(2);
