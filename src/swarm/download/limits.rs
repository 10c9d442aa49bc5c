//! Bounds and intervals of a download.

use std::time::Duration;

use crate::limits::CHUNKS_MAX;

/// Connections of a download that are opened at once to ask peers what they hold, once there is somebody to fetch from.
pub const LOCATES_AT_ONCE: usize = 4;
/// How often a download with [`DOWNLOAD_CONNECTIONS_MAX`](crate::limits::DOWNLOAD_CONNECTIONS_MAX) connections lets go of at least one, so that others get a chance.
pub const MESH_REVIEW: Duration = Duration::from_secs(2);
/// Whoever was let go for others is not dialed before others for so long.
pub const LET_GO_REST: Duration = Duration::from_secs(30);
/// Most files of a download that are fetched at once.
pub const ACTIVE_FILES_MAX: usize = 256;
/// Longest delay before a failed connection is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// Chunks of all files that are fetched at once; more than one file's worth only while it stays below. It bounds the
/// memory of digest lists and pickers.
pub const ACTIVE_CHUNKS_MAX: u64 = CHUNKS_MAX;
/// A second peer is asked for a list of digests that has been awaited for so long.
pub const LAYER_PATIENCE: Duration = Duration::from_millis(500);
/// Whoever is too busy to send a list of digests is asked again after so long at most.
pub const LIST_BUSY_MAX: Duration = Duration::from_secs(5);
/// A holder is asked who else fetches a file after so long, then after twice as long each time, as long as fewer than
/// [`HOLDERS_ENOUGH`] are known that have something of it.
pub const PEERS_POLL_MIN: Duration = Duration::from_millis(250);
/// Longest time between two such questions.
pub const PEERS_POLL_MAX: Duration = Duration::from_secs(8);
/// See [`PEERS_POLL_MIN`].
pub const HOLDERS_ENOUGH: usize = 64;
/// A peer that is still fetching a file, and has no chunk of it that is lacked, is asked what it has by now after so
/// long, then after twice as long each time that there is nothing new.
pub const HAVE_POLL_MIN: Duration = Duration::from_millis(50);
/// Longest time between two such questions.
pub const HAVE_POLL_MAX: Duration = Duration::from_secs(1);
/// A peer that held nothing is asked again after so long, then after twice as long each time that it still does not.
pub const LOCATE_POLL_MIN: Duration = Duration::from_millis(100);
/// Longest time between two such questions.
pub const LOCATE_POLL_MAX: Duration = Duration::from_secs(3);
/// Connections of a download for which those come first who are known to hold something.
pub const HOLDERS_FIRST: usize = 8;
/// Dials of a download at once, before the pace of [`DIAL_EVERY`].
pub const DIALS_AT_ONCE: u32 = 16;
/// Time between dials beyond [`DIALS_AT_ONCE`].
pub const DIAL_EVERY: Duration = Duration::from_millis(25);
/// Most connections that a review of the mesh lets go of; see [`MESH_REVIEW`].
pub const LET_GO_MAX: usize = 4;
/// Chunks that the picker looks at before it tries another way to find one.
pub const PROBES_MAX: usize = 48;
/// Chunks that a peer may be asked for while another was asked for them, too.
pub const LATE_AT_ONCE: usize = 4;
/// Who is too busy for a list is asked whom else it knows as often as for the list, until it would be asked as seldom.
pub const PEERS_POLL_SOON_MAX: Duration = Duration::from_secs(2);
/// Requests on a connection below which it is asked for what others were asked for and do not send.
pub const LATE_MAX: usize = 2;
/// Requests of [`LOCATE_FILES_MAX`](crate::limits::LOCATE_FILES_MAX) files that are made at once.
pub const LOCATE_AHEAD: usize = 16;
