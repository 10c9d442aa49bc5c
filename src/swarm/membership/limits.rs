//! Bounds and intervals of membership.

use std::time::Duration;

use crate::limits::{PEERS_MAX, TTL_INTERVALS, TTL_MAX};

/// Times after start at which the first announces go out.
pub const BURST_MS: [u64; 4] = [0, 100, 500, 2000];
/// Least time between two announces of a changed revision.
pub const REVISION_ANNOUNCE_MIN: Duration = Duration::from_secs(1);
/// Least time between two unicast answers to one peer.
pub const UNICAST_ANSWER_MIN: Duration = Duration::from_secs(1);
/// Packets a second that the whole group stays under.
pub const GROUP_PACKETS_PER_S: u32 = 50;
/// While questions flood the group only those that offer files answer, with probability `min(1, ANSWERERS_BUSY / peers that offer some)`.
pub const ANSWERERS_BUSY: u32 = 8;
/// After so long without any answer, a query is broadcast as well.
pub const BROADCAST_AFTER: Duration = Duration::from_millis(500);
/// A clock that differs by more is logged once.
pub const CLOCK_SKEW_LOGGED: Duration = Duration::from_secs(60);
/// Announces a second that the whole group sends by itself. Each is up to two packets (IPv4 and IPv6), and what is
/// left of [`GROUP_PACKETS_PER_S`] is for queries, answers and news.
pub const GROUP_ANNOUNCES_PER_S: u32 = 14;
/// Answers a second to the group that one query may cause.
pub const GROUP_ANSWERS_PER_S: u32 = 20;
/// Least time between two answers of one node to the group.
pub const GROUP_ANSWER_MIN: Duration = Duration::from_secs(1);
/// The same announce at another interface counts as an echo, not as a replay, for so long.
pub const ECHO_WITHIN: Duration = Duration::from_secs(2);
/// An address that failed is not tried before others for so long, whatever is heard of it.
pub const FAILED_ADDR_REST: Duration = Duration::from_secs(10);
/// Most peers that make room at once when the table is full.
pub const ROOM_AT_ONCE: usize = 64;
/// A full table that found nobody to give way does not look again for so long.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);

const _: () = {
    // Even the fullest table's members announce themselves before they expire.
    assert!(PEERS_MAX as u64 / GROUP_ANNOUNCES_PER_S as u64 * (TTL_INTERVALS as u64) <= TTL_MAX.as_secs());
    assert!(GROUP_ANNOUNCES_PER_S * 2 < GROUP_PACKETS_PER_S && GROUP_ANSWERS_PER_S * 2 < GROUP_PACKETS_PER_S);
};
