//! Bounds and intervals of membership.

use std::time::Duration;

use crate::limits::{ANNOUNCE_INTERVAL, PEERS_MAX, TTL_INTERVALS, TTL_MAX};

/// Times after start, in ms, of the queries of the first burst.
pub const BURST_MS: [u64; 4] = [0, 100, 500, 2000];
/// Least time between two announces of a changed revision.
pub const REVISION_ANNOUNCE_MIN: Duration = Duration::from_secs(1);
/// Least time between two unicast answers to one node.
pub const UNICAST_ANSWER_MIN: Duration = Duration::from_secs(1);
/// Packets per second that the whole group stays below.
pub const GROUP_PACKETS_PER_S: u32 = 50;
/// While queries flood the group, about this number of the nodes that offer files answer: each with
/// probability `min(1, ANSWERERS_BUSY / nodes that offer files)`.
pub const ANSWERERS_BUSY: u32 = 8;
/// A query is also broadcast if none was answered for this time.
pub const BROADCAST_AFTER: Duration = Duration::from_millis(500);
/// A clock that differs by more is logged once.
pub const CLOCK_SKEW_LOGGED: Duration = Duration::from_secs(60);
/// Regular announces per second of the whole group. Each is up to two packets (IPv4 and IPv6); the
/// rest of [`GROUP_PACKETS_PER_S`] is for queries, answers and new revisions.
pub const GROUP_ANNOUNCES_PER_S: u32 = 14;
/// Answers per second to the group that one query may cause.
pub const GROUP_ANSWERS_PER_S: u32 = 20;
/// Least time between two answers of one node to the group.
pub const GROUP_ANSWER_MIN: Duration = Duration::from_secs(1);
/// The same announce at another interface within this time is an echo, after it a replay.
pub const ECHO_WITHIN: Duration = Duration::from_secs(2);
/// An address that failed comes after all others for this time, whatever announces say.
pub const FAILED_ADDR_REST: Duration = Duration::from_secs(10);
/// Most entries that a full table evicts at once.
pub const EVICTIONS_AT_ONCE: usize = 64;
/// A full table that found no entry to evict does not search again for this time.
pub const EVICTION_RETRY: Duration = Duration::from_secs(1);
/// Peers that are remembered from one start to the next, at most; the ones that were proved last.
pub const REMEMBERED_MAX: usize = 256;
/// Seconds after the last proof for which a peer is remembered: 30 days.
pub const REMEMBERED_AGE_MAX_S: u64 = 30 * 24 * 3600;
/// A proof before this time, in seconds since 1970, is of a clock that was not set, and tells no age: the beginning of 2020.
pub const CLOCK_SET_MIN_S: u64 = 1_577_836_800;
/// Seconds after which a further proof of a peer at the same addresses is written down, and for which
/// a full list takes no further peer.
pub const REMEMBERED_STEP_S: u64 = 3600;
/// Remembered peers of one host, at most: keys cost nothing there.
pub const REMEMBERED_PER_HOST_MAX: usize = 16;

/// Time for which a peer that had no place for this node counts as full.
pub const FULL_REMEMBERED: Duration = Duration::from_secs(10);
/// A node is a member if a datagram of it comes this time after its first one or later: the
/// shortest time between two regular announces, as the burst at start passes sooner.
pub const MEMBER_AFTER: Duration = Duration::from_millis(ANNOUNCE_INTERVAL.as_millis() as u64 * 3 / 4);
/// Time after which peers on a link are thought to be unable to dial this node, if none of them ever did. Each that keeps
/// state dials one of the others each interval, so that of a thousand nodes two or three are not dialed in this time.
pub const UNDIALED_AFTER: Duration = Duration::from_secs(60);
/// Most nodes of one source address that count for the size of the group.
pub const NODES_PER_SOURCE_MAX: usize = 64;
/// A query that no node was seen to answer for this time is answered by nodes that offer files.
pub const UNANSWERED_AFTER: Duration = Duration::from_millis(300);
/// The time over which these answers spread.
pub const UNANSWERED_SPREAD: Duration = Duration::from_secs(1);
/// Announces a second of one source address that count for how busy the group is.
pub const SOURCE_COUNTED_PER_S: f64 = 1.0;
/// Announces of one source address that count at once: the burst of a start, of a few nodes.
pub const SOURCE_COUNTED_BURST: f64 = 8.0;
/// Time after which one source address may hold an answer of this node back again.
pub const SILENCES_AGAIN_AFTER: Duration = Duration::from_secs(20);
/// Times that an answer waits while the group is busy, before it goes out.
pub const POSTPONED_MAX: u8 = 3;
/// The group is busy while it sent this number of announces within a second: regular ones and
/// answers wait. The rest of [`GROUP_PACKETS_PER_S`] is for first queries, which do not.
pub const BUSY_FROM_PER_S: usize = 18;
/// Longest time after which what waits for a busy group looks again.
pub const BUSY_GROUP_RETRY: Duration = Duration::from_secs(1);
/// Longest time that a regular announce waits while the group is busy, as a part of its interval.
pub const POSTPONED_INTERVALS: f64 = 0.4;
/// Nodes that set the interval of announces although none of them has proved itself: a newcomer to
/// a large group sees few do so before two of its intervals are over. Made-up nodes alone make the
/// interval no longer than for this number.
pub const UNPROVED_COUNTED_MAX: usize = 800;
/// The group is crowded from this number of announces a second on: regular ones of a group that
/// knows its size stay below it.
pub const CROWDED_FROM_PER_S: u32 = 17;

/// Keys that are looked up in a DHT at once.
pub const DHT_LOOKUPS_AT_ONCE: usize = 8;
/// Time after which a key that was not found there, or not seen since, is looked up again; it doubles up to [`DHT_LOOKUP_RETRY_MAX`].
pub const DHT_LOOKUP_RETRY: Duration = Duration::from_secs(15);
/// Longest such time.
pub const DHT_LOOKUP_RETRY_MAX: Duration = Duration::from_secs(1800);
/// Time after which a key that is seen anyway is due again.
pub const DHT_LOOKUP_AFTER: Duration = Duration::from_secs(600);
/// Time after which an item is put into the DHT again: its nodes forget it after 2 h (BEP 44).
pub const DHT_PUBLISH_EVERY: Duration = Duration::from_secs(3600);
/// Time after which a change of the addresses is put there.
pub const DHT_CHANGED_AFTER: Duration = Duration::from_secs(300);
/// Time after which an item that could not be put there is tried again; it doubles up to [`DHT_CHANGED_AFTER`].
pub const DHT_PUBLISH_RETRY: Duration = Duration::from_secs(15);
/// Time for which nodes of the DHT keep an item.
pub const DHT_ITEM_LIFE: Duration = Duration::from_secs(2 * 3600);

const _: () = {
    assert!(DHT_PUBLISH_EVERY.as_secs() + DHT_CHANGED_AFTER.as_secs() < DHT_ITEM_LIFE.as_secs());
    // Nodes of the largest group announce themselves before they expire.
    assert!(PEERS_MAX as u64 / GROUP_ANNOUNCES_PER_S as u64 * (TTL_INTERVALS as u64) <= TTL_MAX.as_secs());
    assert!(BUSY_FROM_PER_S * 2 < GROUP_PACKETS_PER_S as usize && BUSY_FROM_PER_S > GROUP_ANNOUNCES_PER_S as usize);
    assert!(GROUP_ANNOUNCES_PER_S * 2 < GROUP_PACKETS_PER_S && GROUP_ANSWERS_PER_S * 2 < GROUP_PACKETS_PER_S);
};
