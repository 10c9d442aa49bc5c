//! The bounds that the wire fixes, that hostile input meets, or that several modules share.
//!
//! A name ends in its unit. Relations between bounds are asserted at compile time at the end of the
//! file. None is configurable at run time; what a user may change lives in `Config` and takes its
//! default from here. A bound that tunes one module lives in the file `limits.rs` of that module.
//! The test `house::bounds` prints all of them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// One kibibyte in bytes.
pub const KIB: usize = 1024;
/// One mebibyte in bytes.
pub const MIB: usize = 1024 * KIB;

// ---- content ----

/// Length in bytes of a merkle leaf (BEP 52).
pub const BLOCK_LEN: usize = 16 * KIB;
/// Smallest chunk length in bytes.
pub const CHUNK_LEN_MIN: u64 = 256 * KIB as u64;
/// Longest chunk in bytes of a file with fewer than [`CHUNKS_MAX`] chunks.
pub const CHUNK_LEN_SOFT_MAX: u64 = 2 * MIB as u64;
/// Chunk count that decides the chunk length while that lies between its soft bounds.
pub const CHUNKS_TARGET: u64 = 4096;
/// Most chunks that a file has, whatever its length.
pub const CHUNKS_MAX: u64 = 1 << 19;
/// Longest file in bytes: larger chunks than 64 MiB would not fit the receive budget.
pub const FILE_LEN_MAX: u64 = CHUNKS_MAX * 64 * MIB as u64;
/// Longest relative path in bytes, `/` separators included.
pub const PATH_LEN_MAX: usize = 1024;
/// Longest component of a relative path in bytes (the common limit of file systems).
pub const PATH_COMPONENT_LEN_MAX: usize = 255;
/// Longest pattern that `List` accepts, in bytes.
pub const PATTERN_LEN_MAX: usize = 1024;
/// Longest target of a symbolic link in bytes (`PATH_MAX` of Linux).
pub const LINK_TARGET_LEN_MAX: usize = 4095;
/// Most symbolic links on the way of one, as many as Linux follows.
pub const LINKS_ON_WAY_MAX: u32 = 40;
/// Most names on the way of one symbolic link.
pub const LINK_PARTS_MAX: u32 = 1024;
/// Most entries in a catalogue; what a scan finds beyond it is left out and logged.
pub const CATALOGUE_ENTRIES_MAX: usize = 4_000_000;

// ---- discovery ----

/// UDP port of discovery, and the server's default TCP port.
pub const PORT: u16 = 27420;
/// Ports below this one belong to system services (RFC 6335): an address there that strangers name is not dialed.
pub const LOW_PORTS: u16 = 1024;
/// IPv4 multicast group; the scope of 239.255.0.0/16 is local (RFC 2365).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 71, 80);
/// IPv6 multicast group, link-local scope.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x4750, 0x4231);
/// The same group with site-local scope (RFC 4291, 2.7), for announces that cross routers.
pub const GROUP_V6_SITE: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x4750, 0x4231);
/// Most hops of an announce: a routed campus has few, and a loop of routers ends soon.
pub const HOPS_MAX: u8 = 32;
/// Longest sealed announce in bytes.
pub const ANNOUNCE_LEN_MAX: usize = 512;
/// Longest network name in bytes.
pub const NETWORK_LEN_MAX: usize = 64;
/// Usual interval between announces.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);
/// Announce intervals without a sign of life after which a peer expires.
pub const TTL_INTERVALS: u32 = 3;
/// Nodes that answer one query: each does with probability `min(1, ANSWERERS / peers known)`, or
/// less during a flood.
pub const ANSWERERS: u32 = 32;
/// Largest difference of clocks; an announce beyond it is dropped.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most peers (key, instance) in the table.
pub const PEERS_MAX: usize = 16_384;
/// Most live instances of one key.
pub const INSTANCES_PER_KEY_MAX: usize = 8;
/// Most addresses kept for one instance.
pub const ADDRS_PER_PEER_MAX: usize = 8;
/// Datagrams a second that are read from one source address; the rest is dropped before parsing.
pub const DATAGRAMS_PER_SOURCE_PER_S: u32 = 20;
/// Most source addresses whose rate is tracked.
pub const SOURCES_TRACKED_MAX: usize = 4096;
/// Most records in one `Peers` answer.
pub const PEERS_PER_ANSWER_MAX: usize = 256;
/// Most `--peer` entries.
pub const STATIC_PEERS_MAX: usize = 256;
/// Datagrams that one source may send at once, beyond [`DATAGRAMS_PER_SOURCE_PER_S`].
pub const DATAGRAMS_PER_SOURCE_BURST: u32 = 80;
/// Most sources of queries whose last unicast answer is remembered.
pub const UNICAST_ANSWERS_TRACKED_MAX: usize = 1024;
/// Shortest time to live of an announce; a shorter one counts as this.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time to live of an announce; a longer one counts as this.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Most ended nodes whose last announce is remembered (tombstones), so that replays do not bring
/// them back.
pub const TOMBSTONES_MAX: usize = 16_384;
/// Most peers whose refusal of this node is remembered.
pub const REFUSALS_MAX: usize = 1024;
/// Longest body of a `Peers` answer in bytes.
pub const PEERS_ANSWER_LEN_MAX: usize = PEERS_PER_ANSWER_MAX * KIB;
/// Most `Peers` requests of one contact: enough for the fullest table.
pub const EXCHANGE_PAGES_MAX: usize = PEERS_MAX / PEERS_PER_ANSWER_MAX;
/// Most characters of a peer's reason that are logged.
pub const REASON_SHOWN_MAX: usize = 100;
/// Longest DNS name in bytes.
pub const HOST_LEN_MAX: usize = 253;
/// Longest value of an item in a DHT, in bytes; BEP 44 has 1,000, with what bencode adds.
pub const DHT_VALUE_LEN_MAX: usize = 900;
/// Most addresses in such an item.
pub const DHT_ADDRS_MAX: usize = 4;
/// Shortest secret of a group in a DHT, in bytes: a shorter one is guessed.
pub const DHT_SECRET_LEN_MIN: usize = 16;
/// Longest such secret, in bytes.
pub const DHT_SECRET_LEN_MAX: usize = 256;
/// Most nodes of a DHT that the user names to begin with.
pub const DHT_BOOTSTRAP_MAX: usize = 16;
/// Default time for which a list waits for peers that a DHT has to find.
pub const DHT_WAIT: Duration = Duration::from_secs(10);

// ---- sessions ----

/// Version of the wire protocol.
pub const WIRE_VERSION: u16 = 2;
/// ALPN protocol id.
pub const ALPN: &[u8] = b"gpb/2";
/// Longest postcard header of a frame in bytes.
pub const FRAME_HEADER_LEN_MAX: usize = 16 * KIB;
/// Longest body of a request in bytes.
pub const REQUEST_BODY_LEN_MAX: usize = 32 * KIB;
/// Longest body of a response that is not a chunk, in bytes.
pub const RESPONSE_BODY_LEN_MAX: usize = 16 * MIB;
/// Most bytes of unanswered requests on a connection.
pub const UNANSWERED_LEN_MAX: usize = 64 * KIB;
/// Most chunk digests in one `Layer` answer.
pub const LAYER_DIGESTS_PER_ANSWER_MAX: u32 = 8192;
/// Most files in one `Locate` request.
pub const LOCATE_FILES_MAX: usize = 512;
/// Bytes after which a `List` page ends.
pub const LIST_PAGE_LEN: usize = 256 * KIB;
/// Most chunks that an `AnyOf` offers for choice.
pub const ANY_OF_CHUNKS_MAX: usize = 64;
/// Most new haves in the header of a chunk; further ones come with the next chunk.
pub const NEW_HAVES_MAX: usize = 256;
/// Longest free text in a frame (a reason, an agent name), in bytes.
pub const TEXT_LEN_MAX: usize = 256;
/// Longest time for the TLS handshake and `Hello`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a closing side reads and drops what the peer still sends.
pub const CLOSE_DRAIN: Duration = Duration::from_secs(1);
/// Most `Bad` reports a minute of one key (open group: of one source address).
pub const BAD_REPORTS_PER_MIN: u32 = 30;

// ---- server ----

/// Most connections of a server.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Most connections of one key (open group: of one source address).
pub const CONNECTIONS_PER_KEY_MAX: usize = 64;
/// Most connections before their `Hello`. Beyond it, a new one replaces the oldest of the address
/// that has the most.
pub const HANDSHAKES_MAX: usize = 1024;
/// Most connections before their `Hello` from one source address. Beyond it, a new one replaces the
/// oldest.
pub const HANDSHAKES_PER_ADDR_MAX: usize = 64;
/// Chunks that a connection may report with `Bad`: the last ones that were sent on it.
pub const SERVED_REMEMBERED: usize = 1024;
/// Most peers in the answer to a `Peers` request that names a file.
pub const FETCHERS_PER_ANSWER_MAX: usize = 16;
/// Time between two checks of deadlines, trust and parked output.
pub const SERVER_TICK: Duration = Duration::from_millis(250);
/// Most bytes that a worker sends in one turn of a session.
pub const TURN_LEN_MAX: usize = 4 * MIB;
/// Most upload slots of a server; chunks to slow peers are not counted.
pub const UPLOADS_MAX: usize = 64;
/// Longest wait of a `Chunk` request for its turn. Then `NotModified` answers it: that shows that
/// the server is alive, and lets the asker take the chunk from another peer.
pub const CHUNK_PATIENCE: Duration = Duration::from_millis(700);
/// Most bytes of requests, answers and output that are parked in all sessions together.
pub const PARKED_OUTPUT_MAX: usize = 16 * MIB;
/// A connection without a whole request for this long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

// ---- client ----

/// Most connections of a download.
pub const DOWNLOAD_CONNECTIONS_MAX: usize = 64;
/// Most connections to one peer in a download. On a long path each is bounded by the socket buffers
/// of the system: 4 MiB on most, 20 MB/s at 200 ms.
pub const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Most requests in flight on one connection: one-chunk files of a few KiB need many on a long
/// path.
pub const WINDOW_MAX: u32 = 1024;
/// First delay before a failed connection is tried again.
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// Default time that `peers` and `list` wait for answers.
pub const LIST_WAIT: Duration = Duration::from_secs(2);
/// Most bytes of one-chunk files in flight or waiting to be written.
pub const SMALL_FILES_LEN_MAX: u64 = 8 * MIB as u64;
/// Default time without a byte after which a download fails.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection of a download fails after a third of the timeout without a byte, but not earlier
/// than this.
pub const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Longest time without a byte after which a connection of a download fails.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Fewest bytes that a window allows in flight on one connection.
pub const WINDOW_LEN_MIN: u64 = 32 * KIB as u64;
/// Most bytes that a window allows in flight on one connection; the last request may exceed it.
/// Twice 1 Gbit/s for 200 ms, and a little. They are in the network and in the socket, not in
/// memory of the client.
pub const WINDOW_LEN_MAX: u64 = 64 * MIB as u64;

// ---- storage ----

/// Bytes that are read and hashed in one step: 32 blocks, a full pass of the widest SIMD lanes.
pub const READ_LEN: usize = 32 * BLOCK_LEN;

// ---- node ----

/// A copy whose time lies further than this in the future does not count as the newest one.
pub const COPY_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest wait (about 31 years), so that sums with an `Instant` stay in range; a longer one counts
/// as this.
pub const WAIT_MAX: Duration = Duration::from_secs(1_000_000_000);

const _: () = {
    assert!(CHUNK_LEN_MIN.is_multiple_of(BLOCK_LEN as u64));
    assert!(CHUNK_LEN_MIN.is_power_of_two() && CHUNK_LEN_SOFT_MAX.is_power_of_two());
    // A whole layer fits one answer body.
    assert!(CHUNKS_MAX * 32 <= RESPONSE_BODY_LEN_MAX as u64);
    assert!(LAYER_DIGESTS_PER_ANSWER_MAX as usize * 32 <= RESPONSE_BODY_LEN_MAX);
    // Numbers take five bytes at most.
    assert!(NEW_HAVES_MAX * 5 + 256 <= FRAME_HEADER_LEN_MAX);
    // A request always fits the unanswered budget, so a dialer can always make progress.
    assert!(8 + FRAME_HEADER_LEN_MAX + REQUEST_BODY_LEN_MAX <= UNANSWERED_LEN_MAX);
    // 44 bytes are the longest postcard form of a `FileId`.
    assert!(LOCATE_FILES_MAX * 44 + 16 <= REQUEST_BODY_LEN_MAX);
    assert!(PATH_LEN_MAX + 64 < LIST_PAGE_LEN);
    // Every chunk in flight can still be reported as bad.
    assert!(WINDOW_MAX as usize <= SERVED_REMEMBERED);
    assert!(TTL_INTERVALS >= 2);
    assert!(SILENCE_MIN.as_millis() > CHUNK_PATIENCE.as_millis() + SERVER_TICK.as_millis());
    assert!(SILENCE_MIN.as_millis() <= SILENCE_MAX.as_millis() && WINDOW_LEN_MIN <= WINDOW_LEN_MAX);
    // A sealed announce and its addresses fit their share of a `Peers` answer.
    assert!(PEERS_ANSWER_LEN_MAX / PEERS_PER_ANSWER_MAX >= ANNOUNCE_LEN_MAX + 8 + ADDRS_PER_PEER_MAX * 24);
    assert!(PEERS_ANSWER_LEN_MAX <= RESPONSE_BODY_LEN_MAX);
    assert!(FRAME_HEADER_LEN_MAX <= u16::MAX as usize);
};
