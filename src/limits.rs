//! The bounds, ports, groups and intervals of GPB, in one place.
//!
//! A name ends in its unit. Relations that other modules rely on are asserted at the end of the file, at
//! compile time. Nothing here is configurable at run time; what a user may change lives in
//! `Config` and takes its default from here. Weights of estimators, and lengths that a format fixes, stand beside
//! what they belong to.

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
/// Chunk length in bytes that is not exceeded before the chunk count reaches [`CHUNKS_MAX`].
pub const CHUNK_LEN_SOFT_MAX: u64 = 2 * MIB as u64;
/// Chunk count that the chunk length aims at while it lies between its soft bounds.
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
/// Fewest hex digits that are taken as the prefix of a root.
pub const ROOT_PREFIX_MIN: usize = 8;
/// Most entries in a catalogue; what a scan finds beyond it is left out and logged.
pub const CATALOGUE_ENTRIES_MAX: usize = 4_000_000;
/// Most entries of a catalogue that are kept together: a change of one of them copies all of these.
pub const CATALOGUE_BLOCK_ENTRIES: usize = 1024;

// ---- discovery ----

/// UDP port of discovery, and the server's default TCP port.
pub const PORT: u16 = 27420;
/// IPv4 multicast group.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 71, 80);
/// IPv6 multicast group, link-local scope.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x4750, 0x4231);
/// Longest sealed announce in bytes.
pub const ANNOUNCE_LEN_MAX: usize = 512;
/// Longest network name in bytes.
pub const NETWORK_LEN_MAX: usize = 64;
/// Usual interval between announces.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);
/// Times after start at which the first announces go out.
pub const BURST_MS: [u64; 4] = [0, 100, 500, 2000];
/// A peer expires after so many of its intervals without a sign of life.
pub const TTL_INTERVALS: u32 = 3;
/// Least time between two announces of a changed revision.
pub const REVISION_ANNOUNCE_MIN: Duration = Duration::from_secs(1);
/// Least time between two unicast answers to one peer.
pub const UNICAST_ANSWER_MIN: Duration = Duration::from_secs(1);
/// Packets a second that the whole group stays under.
pub const GROUP_PACKETS_PER_S: u32 = 50;
/// A query is answered with probability `min(1, ANSWERERS / peers known)`; by less while many start at the same time.
pub const ANSWERERS: u32 = 32;
/// While questions flood the group only those that offer files answer, with probability `min(1, ANSWERERS_BUSY / peers that offer some)`.
pub const ANSWERERS_BUSY: u32 = 8;
/// After so long without any answer, a query is broadcast as well.
pub const BROADCAST_AFTER: Duration = Duration::from_millis(500);
/// How often the network interfaces are looked at again.
pub const INTERFACE_POLL: Duration = Duration::from_secs(3);
/// How often multicast memberships are renewed (IGMP snooping forgets after about 260 s).
pub const MEMBERSHIP_RENEW: Duration = Duration::from_secs(120);
/// An announce whose clock differs by more is dropped.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(24 * 3600);
/// A clock that differs by more is logged once.
pub const CLOCK_SKEW_LOGGED: Duration = Duration::from_secs(60);
/// Most peers (key, instance) in the table.
pub const PEERS_MAX: usize = 16_384;
/// Most live instances of one key.
pub const INSTANCES_PER_KEY_MAX: usize = 8;
/// Most addresses kept for one instance.
pub const ADDRS_PER_PEER_MAX: usize = 8;
/// Datagrams a second taken from one source address; the rest is dropped before any parsing.
pub const DATAGRAMS_PER_SOURCE_PER_S: u32 = 20;
/// Most source addresses whose rate is tracked.
pub const SOURCES_TRACKED_MAX: usize = 4096;
/// Most records in one `Peers` answer.
pub const PEERS_PER_ANSWER_MAX: usize = 256;
/// Most `--peer` entries.
pub const STATIC_PEERS_MAX: usize = 256;
/// Datagrams that a source may send at once before [`DATAGRAMS_PER_SOURCE_PER_S`] holds it back.
pub const DATAGRAMS_PER_SOURCE_BURST: u32 = 80;
/// Announces a second that the whole group sends by itself. Each is up to two packets (IPv4 and IPv6), and what is
/// left of [`GROUP_PACKETS_PER_S`] is for queries, answers and news.
pub const GROUP_ANNOUNCES_PER_S: u32 = 14;
/// Answers a second to the group that one query may cause.
pub const GROUP_ANSWERS_PER_S: u32 = 20;
/// Least time between two answers of one node to the group.
pub const GROUP_ANSWER_MIN: Duration = Duration::from_secs(1);
/// Sources of queries whose last unicast answer is remembered.
pub const UNICAST_ANSWERS_TRACKED_MAX: usize = 1024;
/// The same announce at another interface counts as an echo, not as a replay, for so long.
pub const ECHO_WITHIN: Duration = Duration::from_secs(2);
/// An address that failed is not tried before others for so long, whatever is heard of it.
pub const FAILED_ADDR_REST: Duration = Duration::from_secs(10);
/// Shortest time to live that is taken from an announce.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time to live that is taken from an announce.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Most ended (key, instance) whose last announce is remembered, so that replays do not bring them back.
pub const DEPARTED_MAX: usize = 16_384;
/// Most peers that are remembered to have refused this node.
pub const REFUSALS_MAX: usize = 1024;
/// Most peers that make room at once when the table is full.
pub const ROOM_AT_ONCE: usize = 64;
/// A full table that found nobody to give way does not look again for so long.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);
/// Datagrams that wait for a node of the in-memory LAN.
pub const HUB_QUEUE_MAX: usize = 16_384;
/// Most network interfaces (each per address family) that discovery uses.
pub const LINKS_MAX: usize = 64;
/// Longest body of a `Peers` answer in bytes.
pub const PEERS_ANSWER_LEN_MAX: usize = PEERS_PER_ANSWER_MAX * KIB;
/// Peers that are contacted at the same time to exchange who is known.
pub const CONTACTS_AT_ONCE: usize = 8;
/// From so many nodes on, multicast may not tell of all, as not everyone answers; then known peers are asked, too. Half
/// of [`ANSWERERS`], so that chance does not make a large group look small.
pub const EXCHANGE_FROM_NODES: usize = ANSWERERS as usize / 2;
/// When known peers are first asked whom they know: the answers to the first query have come by then.
pub const EXCHANGE_AFTER: Duration = Duration::from_millis(150);
/// How many are asked at first; then it is one an interval.
pub const EXCHANGE_FIRST: usize = 3;
/// Most `Peers` requests of one contact: enough for the fullest table.
pub const EXCHANGE_PAGES_MAX: usize = PEERS_MAX / PEERS_PER_ANSWER_MAX;
/// A contact ends after so many pages that brought nobody new.
pub const EXCHANGE_PAGES_IN_VAIN: usize = 2;
/// A contact for exchange is given up after so long in all.
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often drops are logged, if there are any.
pub const DROPS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Sockets of discovery that are told to be readable at once.
pub const SOCKET_EVENTS_AT_ONCE: usize = 64;
/// Most troubles that are remembered as told.
pub const LINKS_TOLD_MAX: usize = 256;
/// A peer that the user named and that did not answer is contacted again after so long, then after twice as long each
/// time, up to [`ANNOUNCE_INTERVAL`].
pub const CONTACT_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Most characters of a peer's reason that are logged.
pub const REASON_SHOWN_MAX: usize = 100;
/// How often a goodbye is sent, as datagrams get lost.
pub const GOODBYES: usize = 2;
/// Longest DNS name in bytes.
pub const HOST_LEN_MAX: usize = 253;

// ---- sessions ----

/// Version of the wire protocol.
pub const WIRE_VERSION: u16 = 1;
/// ALPN protocol id.
pub const ALPN: &[u8] = b"gpb/1";
/// Longest postcard header of a frame in bytes.
pub const FRAME_HEADER_LEN_MAX: usize = 16 * KIB;
/// Longest body of a request in bytes.
pub const REQUEST_BODY_LEN_MAX: usize = 32 * KIB;
/// Longest body of a response that is not a chunk, in bytes.
pub const RESPONSE_BODY_LEN_MAX: usize = 16 * MIB;
/// Request bytes that may be unanswered on a connection.
pub const UNANSWERED_LEN_MAX: usize = 64 * KIB;
/// Most chunk digests in one `Layer` answer.
pub const LAYER_DIGESTS_PER_ANSWER_MAX: u32 = 8192;
/// Most files in one `Locate` request.
pub const LOCATE_FILES_MAX: usize = 512;
/// Entries that are compared with a pattern before the clock is looked at again.
pub const LIST_CHECK_ENTRIES: usize = 128;
/// Bytes after which a `List` page ends.
pub const LIST_PAGE_LEN: usize = 256 * KIB;
/// Most chunks that an `Any` names.
pub const ANY_CHUNKS_MAX: usize = 64;
/// Most new chunks that the head of a chunk tells of; further ones come with the next.
pub const NEWS_MAX: usize = 256;
/// Longest free text in a frame (a reason, an agent name), in bytes.
pub const TEXT_LEN_MAX: usize = 256;
/// TCP connect is given up after so long.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// TLS handshake and `Hello` are given up after so long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a closing side drains what the other still sends.
pub const CLOSE_DRAIN: Duration = Duration::from_secs(1);
/// Ciphertext that a dialed session takes from the socket at once, in bytes.
pub const RECEIVE_BUFFER_LEN: usize = 256 * KIB;
/// Most `Bad` reports a minute that a connection may send.
pub const BAD_REPORTS_PER_MIN: u32 = 30;

// ---- server ----

/// Most connections of a server.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Most connections of one key (open group: of one source address).
pub const CONNECTIONS_PER_KEY_MAX: usize = 64;
/// Connections without `Hello` so far; for a newcomer, the oldest of the address that has the most gives way.
pub const HANDSHAKES_MAX: usize = 1024;
/// Connections without `Hello` so far from one source address; for a newcomer, its oldest one gives way.
pub const HANDSHAKES_PER_ADDR_MAX: usize = 64;
/// Connections that are accepted before those that are open get their turn again.
pub const ACCEPTS_AT_ONCE: usize = 128;
/// Open files that a server leaves to everything but its connections.
pub const DESCRIPTORS_RESERVED: usize = 128;
/// Plaintext that a worker gathers before it encrypts and writes, in bytes.
pub const REPLY_LEN: usize = 128 * KIB;
/// Plaintext that a worker sends first after a peer's socket was full, in bytes.
pub const REPLY_FIRST_LEN: usize = 16 * KIB;
/// Bytes that one key may be served more than another that waits as well.
pub const SERVED_LEAD_MAX: u64 = 2 * TURN_LEN_MAX as u64;
/// What a turn counts in that comparison besides the bytes that it sends.
pub const TURN_COST: u64 = 16 * KIB as u64;
/// Chunks that a connection may report as bad: the last ones that it was sent.
pub const SERVED_REMEMBERED: usize = 128;
/// Files whose sent chunks are counted, for `Any`.
pub const SENT_FILES_MAX: usize = 16;
/// Files of which is known who fetched them lately, for `Peers`.
pub const FETCHED_FILES_MAX: usize = 1024;
/// Most peers that are remembered as fetchers of one file.
pub const FETCHERS_PER_FILE_MAX: usize = 256;
/// Fetchers of a file that one answer to `Peers` tells of.
pub const FETCHERS_TOLD_MAX: usize = 16;
/// How often deadlines, trust and parked output are looked at.
pub const SERVER_TICK: Duration = Duration::from_millis(250);
/// Log lines about rejected connections in [`NOISE_WINDOW`]; further ones are counted.
pub const NOISE_LINES_MAX: u32 = 20;
/// The same for lines about connections that come and go, and what they report.
pub const SESSION_LINES_MAX: u32 = 200;
/// See [`NOISE_LINES_MAX`].
pub const NOISE_WINDOW: Duration = Duration::from_secs(10);
/// Connections that wait in the listener for the accepting thread.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Bytes that a worker sends for a session before it hands back.
pub const TURN_LEN_MAX: usize = 4 * MIB;
/// Requests that a worker answers for a session before it hands back.
pub const TURN_REQUESTS_MAX: u32 = 64;
/// Time that a worker spends on a session before it hands back.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(50);
/// Chunks that a server sends at the same time, at least.
pub const UPLOADS_MIN: usize = 4;
/// Chunks that a server sends at the same time, at most; those of slow peers are not counted.
pub const UPLOADS_MAX: usize = 64;
/// Lists of digests that a server sends at the same time on the account of one key.
pub const LISTS_PER_KEY_MAX: usize = 4;
/// Bytes of an answer from which on it counts as the upload of a chunk.
pub const UPLOAD_LEN_MIN: usize = 64 * KIB;
/// Bytes that may wait in a socket of the server before they are on the wire: what is queued there can be neither
/// reordered nor shared fairly.
pub const UNSENT_LEN_MAX: usize = 64 * KIB;
/// An `Any` that waited so long for its turn is answered with `NotModified`: by now its sender lacks other chunks.
pub const ANY_FRESH: Duration = Duration::from_millis(500);
/// A `Chunk` that waited so long is answered with `NotModified`, too: its sender hears that the server is there, and may
/// ask another for it.
pub const CHUNK_PATIENCE: Duration = Duration::from_millis(700);
/// How long a worker waits for a peer's socket before it parks the session.
pub const PARK_AFTER: Duration = Duration::from_millis(2);
/// What is parked of requests, answers and output in all sessions together, in bytes.
pub const PARKED_OUTPUT_MAX: usize = 16 * MIB;
/// A connection without a whole request for so long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// What `Busy` tells a peer to wait that wants a list of digests while many others are being sent it.
pub const LIST_RETRY: Duration = Duration::from_millis(60);
/// What `Busy` tells a peer to wait.
pub const BUSY_RETRY: Duration = Duration::from_millis(500);

/// What a rate limit lets pass at once after a pause: what flows in this time.
pub const THROTTLE_BURST: Duration = Duration::from_millis(50);
/// The same for low rates, up to 64 KiB.
pub const THROTTLE_BURST_SMALL: Duration = Duration::from_millis(100);
/// A rate limit waits until it can grant so many bytes, if so many are to be sent, but not for more than a quarter of what
/// passes at once: each grant costs a timer and a turn.
pub const THROTTLE_GRANT_MAX: usize = 128 * KIB;
/// Sessions that wait for an upload are not looked at more often than this without a reason.
pub const UPLOAD_LOOK_MIN: Duration = Duration::from_millis(3);
/// Copies of one content that are tried for a chunk.
pub const COPIES_TRIED_MAX: usize = 4;
/// Connections of a server where the limit of open files is tiny: it is tried to serve somebody even there.
pub const CONNECTIONS_MIN: usize = 16;
/// Reads in one turn while a session closes.
pub const DRAIN_READS_MAX: usize = 16;
/// Capacity that the request buffer of a session keeps between turns.
pub const REQUESTS_KEPT_LEN: usize = 512;
/// Ciphertext that a worker reads at once: a record that is not whole yet, and more.
pub const INCOMING_LEN: usize = 64 * KIB;

// ---- client ----

/// Most connections of a download.
pub const DOWNLOAD_CONNECTIONS_MAX: usize = 64;
/// Connections of a download that are opened at once to ask peers what they hold, once there is somebody to fetch from.
pub const LOCATES_AT_ONCE: usize = 4;
/// How often a download with [`DOWNLOAD_CONNECTIONS_MAX`] connections lets go of at least one, so that others get a chance.
pub const MESH_REVIEW: Duration = Duration::from_secs(2);
/// Whoever was let go for others is not dialed before others for so long.
pub const LET_GO_REST: Duration = Duration::from_secs(30);
/// Most connections to one peer in a download.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Received chunk bytes that are held in memory at once.
pub const RECEIVE_BUDGET: usize = 32 * MIB;
/// Requests in flight on one connection.
pub const WINDOW_MAX: u32 = 64;
/// Most files of a download that are fetched at once.
pub const ACTIVE_FILES_MAX: usize = 256;
/// First delay before a failed connection is tried again.
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest delay before a failed connection is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// A name is resolved so long after the last new answer.
pub const RESOLVE_QUIET: Duration = Duration::from_millis(50);
/// A name is resolved at most so long after the first answer.
pub const RESOLVE_MAX: Duration = Duration::from_secs(1);
/// What nobody has who answered is sought so long after the first answer while others are still being asked.
pub const RESOLVE_ALL_MAX: Duration = Duration::from_secs(5);
/// A listing is complete so long after the last new peer.
pub const LIST_QUIET: Duration = Duration::from_millis(300);
/// Default time that `peers` and `list` wait for answers.
pub const LIST_WAIT: Duration = Duration::from_secs(2);
/// Threads that a client starts together for sessions.
pub const CREW_BLOCK: usize = 8;
/// Most threads of a client for sessions: those of a download, and some for peers that are only asked.
pub const CREW_MAX: usize = DOWNLOAD_CONNECTIONS_MAX + 4 * CREW_BLOCK;
/// Most idle sessions that a client keeps open.
pub const IDLE_SESSIONS_MAX: usize = 64;
/// Bytes of one-chunk files that are asked for or wait to be written.
pub const SMALL_FILES_LEN_MAX: u64 = 8 * MIB as u64;
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
/// A download fails after so long without a byte.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// Threads of a download that open and finish partial files.
pub const DISK_THREADS: usize = 2;
/// Threads of a download that write small files.
pub const SMALL_THREADS: usize = 2;
/// How often a download looks at its connections while there are any.
pub const GROWTH_LOOK: Duration = Duration::from_millis(50);
/// A download looks around at least so often.
pub const IDLE_LOOK: Duration = Duration::from_secs(1);
/// Items of a list that an error message shows.
pub const SHOWN_MAX: usize = 32;
/// One-chunk files that a connection verifies together, at most.
pub const VERIFY_FILES_MAX: usize = 128;
/// Bytes of one-chunk files that a connection verifies together, at most.
pub const VERIFY_LEN_MAX: usize = 512 * KIB;
/// Requests on a connection below which it is asked for what others were asked for and do not send.
pub const LATE_MAX: usize = 2;
/// Requests of [`LOCATE_FILES_MAX`] files that are made at once.
pub const LOCATE_AHEAD: usize = 16;
/// How long a connection without work waits before it looks again by itself.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time for each of several addresses of a peer at first.
pub const DIAL_QUICK: Duration = Duration::from_millis(400);
/// Bytes of an unwanted body that are read at once.
pub const SKIP_STEP: usize = 64 * KIB;
/// Bytes of a body that are allocated at once.
pub const BODY_STEP: usize = MIB;
/// A connection of a download fails after a third of the timeout without a byte, but not earlier than this.
pub const SILENCE_MIN: Duration = Duration::from_secs(1);
/// So long after the last chunk or list, an answer that puts off is no sign any more that a download goes on.
pub const PUT_OFF_MAX: Duration = Duration::from_secs(300);
/// Longest time without a byte after which a connection of a download fails.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Files that are looked for on the disk before the thread that drives the download is woken.
pub const CHECK_STRIDE: u32 = 256;
/// Patterns of a listing whose first pages are asked for together.
pub const PATTERNS_AT_ONCE: usize = 32;
/// Bytes of a chunk between two looks whether to ask for more, at least.
pub const ASK_STEP: usize = 16 * KIB;
/// Longest sleep for the rate limit before a stop is looked for.
pub const THROTTLE_NAP: Duration = Duration::from_millis(50);
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
/// Least bytes in flight on a connection that is to be kept busy.
pub const WINDOW_LEN_MIN: u64 = 32 * KIB as u64;
/// Most bytes in flight on one connection, but for the unit that goes beyond it.
pub const WINDOW_LEN_MAX: u64 = 16 * MIB as u64;
/// Who is too busy for a list is asked whom else it knows as often as for the list, until it would be asked as seldom.
pub const PEERS_POLL_SOON_MAX: Duration = Duration::from_secs(2);

// ---- storage ----

/// Written bytes after which the journal is brought up to date.
pub const JOURNAL_BATCH_LEN: u64 = 32 * MIB as u64;
/// Longest time for which a written chunk is not journaled: what a kill costs when little comes.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(5);
/// Chunk bytes after which the journal itself is made durable; what a power loss may cost beyond a batch.
pub const JOURNAL_SYNC_LEN: u64 = 256 * MIB as u64;
/// Longest journal in bytes; a longer one is not ours.
pub const JOURNAL_LEN_MAX: u64 = 16 * MIB as u64;
/// How often a partial file is opened again when others take it away between open and lock.
pub const PART_OPEN_TRIES: u32 = 8;
/// From so many small files on, one sync of the file system is cheaper than a sync of each.
pub const SYNCFS_FILES_MIN: usize = 4;
/// Directories that are held open while files are renamed into place.
pub const DIRS_OPEN_MAX: usize = 128;
/// A temporary file that nobody has written to for so long was left behind by a process that died.
pub const TEMP_STALE: Duration = Duration::from_secs(3600);
/// Most files that a shelf lends out; whole one-chunk files beyond it are not taken.
pub const SHELF_FILES_MAX: usize = 65_536;
/// Cache of the index database in bytes.
pub const INDEX_CACHE_LEN: usize = 8 * MIB;
/// A file is offered once it has not changed for so long.
pub const QUIET: Duration = Duration::from_millis(500);
/// How often the directory is scanned for what the watch missed.
pub const RESCAN: Duration = Duration::from_secs(60);
/// Files that a reader keeps open between two chunks.
pub const OPEN_FILES_MAX: usize = 64;
/// Bytes that are read and hashed at once: 32 blocks, a full pass of the widest SIMD lanes.
pub const READ_LEN: usize = 32 * BLOCK_LEN;
/// Read buffers of all hashing threads together, in bytes.
pub const HASH_BUFFERS_LEN: usize = 8 * MIB;
/// Bytes of a file that a hashing thread takes in a turn; other files get theirs in between.
pub const HASH_TURN_LEN: u64 = 16 * MIB as u64;
/// Length in bytes of an existing file from which on several threads check whether it is the wanted one.
pub const CHECK_HELP_LEN: u64 = 16 * MIB as u64;
/// Most threads that check one existing file.
pub const CHECK_THREADS_MAX: usize = 16;
/// Files that a hashing thread takes in a turn.
pub const HASH_TURN_FILES: usize = 64;
/// Files that wait to be hashed, of up to [`HASH_TURN_LEN`] bytes and of more, before a scan goes on to find more.
pub const HASH_QUEUE_FILES: usize = 16_384;
/// Hashed files that are written to the index at once.
pub const HASH_BATCH_FILES: usize = 1024;
/// How often the shared directory itself is looked for: it may be removed, replaced or mounted over.
pub const ROOT_POLL: Duration = Duration::from_secs(1);
/// Chunk digests in one record of the index: with its key it fills a page of 32 KiB.
pub const INDEX_RECORD_DIGESTS: u32 = 1000;
/// How often what was hashed is made durable in the index.
pub const INDEX_SYNC: Duration = Duration::from_secs(5);
/// How often the index forgets files that are gone.
pub const INDEX_PRUNE: Duration = Duration::from_secs(3600);
/// Changes of the directory that wait to be looked at; more of them are a reason to scan it whole.
pub const WATCH_EVENTS_MAX: usize = 16_384;
/// Changes are collected for so long before they are looked at.
pub const WATCH_DEBOUNCE: Duration = Duration::from_millis(100);
/// Files that are watched until they are quiet; the rest is found by the next scan.
pub const UNSETTLED_MAX: usize = 65_536;
/// Links inside the directory whose targets are followed as they change; the others are seen by the next scan.
pub const LINKS_FOLLOWED_MAX: usize = 1024;
/// Withdrawn files that are remembered; further ones are offered again, as what they are then, after the next scan.
pub const WITHDRAWN_MAX: usize = 4096;
/// Skipped files that are remembered, so that each is logged once.
pub const SKIPS_LOGGED_MAX: usize = 10_000;
/// Changes of the catalogue after which a snapshot is made whenever the last one was, unless the catalogue has more than
/// [`PUBLISH_SHARE_MAX`] times as many entries.
pub const PUBLISH_CHANGES_MAX: usize = 32_768;
/// See [`PUBLISH_CHANGES_MAX`].
pub const PUBLISH_SHARE_MAX: usize = 32;
/// Least time between two snapshots of a catalogue that grows.
pub const PUBLISH_MIN: Duration = Duration::from_millis(300);
/// Time that a walk takes before other work gets its turn: less than the threads that hash need for what they have.
pub const SCAN_TURN: Duration = Duration::from_millis(1);
/// The index is first pruned so long after the start, when those who wait for the files are being served.
pub const PRUNE_LATER: Duration = Duration::from_secs(10);
/// Changed directories that wait to be walked one by one; more of them are walked together.
pub const TREES_MAX: usize = 256;
/// Commands that wait for the thread that keeps the catalogue. Who asks for more is told by the log, and may ask again.
pub const COMMANDS_MAX: usize = 256;
/// Keys that are looked at between two writes while pruning.
pub const PRUNE_STEP: usize = 8192;
/// Bytes that the system is asked to copy from one file to another at once.
pub const COPY_LEN_MAX: usize = 1 << 30;
/// Bytes that are copied at once where the system does not copy by itself.
pub const COPY_BUFFER_LEN: usize = MIB;
/// Tries to have the own directory `.gpb` while others remove and make it.
pub const OWN_TRIES: u32 = 8;

// ---- keys ----

/// Longest key file in bytes; the usual one has 119.
pub const KEY_FILE_LEN_MAX: u64 = 16 * KIB as u64;
/// Longest trusted file in bytes.
pub const TRUSTED_FILE_LEN_MAX: u64 = 4 * MIB as u64;
/// Most keys in a trusted file.
pub const TRUSTED_KEYS_MAX: usize = 16_384;

// ---- command line ----

/// Longest configuration file in bytes.
pub const CONFIG_FILE_LEN_MAX: u64 = MIB as u64;
/// Most `--interface` entries.
pub const INTERFACES_MAX: usize = 64;
/// Longest time in seconds that an option takes (about 31 years): sums with an `Instant` stay in range.
pub const SECONDS_MAX: f64 = 1e9;

// ---- node ----

/// Longest wait; whoever asks for a longer one waits so long (about 31 years): sums with an `Instant` stay in range.
pub const WAIT_MAX: Duration = Duration::from_secs(1_000_000_000);
/// Joins and leaves of peers that are logged in a second; further ones are counted, and their number is logged.
pub const JOINS_LOGGED_PER_S: u32 = 20;
/// How often the file of trusted keys is looked at.
pub const TRUST_POLL: Duration = Duration::from_millis(500);

/// Events that wait for a reader; the newest are dropped and counted beyond it.
pub const EVENTS_MAX: usize = 1024;
/// After so long the counters of the links include what was done before.
pub const LINKS_FRESH: Duration = Duration::from_millis(1100);

const _: () = {
    assert!(CHUNK_LEN_MIN.is_multiple_of(BLOCK_LEN as u64));
    assert!(CHUNK_LEN_MIN.is_power_of_two() && CHUNK_LEN_SOFT_MAX.is_power_of_two());
    // The whole list of chunk digests fits one budgeted answer body.
    assert!(CHUNKS_MAX * 32 <= RESPONSE_BODY_LEN_MAX as u64);
    assert!(LAYER_DIGESTS_PER_ANSWER_MAX as usize * 32 <= RESPONSE_BODY_LEN_MAX);
    // Numbers take five bytes at most.
    assert!(NEWS_MAX * 5 + 256 <= FRAME_HEADER_LEN_MAX);
    // A request always fits the unanswered budget, so a dialer can always make progress.
    assert!(8 + FRAME_HEADER_LEN_MAX + REQUEST_BODY_LEN_MAX <= UNANSWERED_LEN_MAX);
    // 44 bytes are the longest postcard form of a `FileId`.
    assert!(LOCATE_FILES_MAX * 44 + 16 <= REQUEST_BODY_LEN_MAX);
    assert!(PATH_LEN_MAX + 64 < LIST_PAGE_LEN);
    assert!(REPLY_FIRST_LEN <= REPLY_LEN && REPLY_LEN <= TURN_LEN_MAX);
    // An asker may have as many chunks on the way as it can report.
    assert!(WINDOW_MAX as usize <= SERVED_REMEMBERED);
    assert!(TTL_INTERVALS >= 2);
    // Whoever waits in a server's line hears of it in time.
    assert!(ANY_FRESH.as_millis() <= CHUNK_PATIENCE.as_millis());
    assert!(SILENCE_MIN.as_millis() > CHUNK_PATIENCE.as_millis() + SERVER_TICK.as_millis());
    assert!(SILENCE_MIN.as_millis() <= SILENCE_MAX.as_millis() && WINDOW_LEN_MIN <= WINDOW_LEN_MAX);
    assert!(PATTERNS_AT_ONCE * (PATTERN_LEN_MAX + 64) <= UNANSWERED_LEN_MAX);
    // Even the fullest table's members announce themselves before they expire.
    assert!(PEERS_MAX as u64 / GROUP_ANNOUNCES_PER_S as u64 * (TTL_INTERVALS as u64) <= TTL_MAX.as_secs());
    assert!(GROUP_ANNOUNCES_PER_S * 2 < GROUP_PACKETS_PER_S && GROUP_ANSWERS_PER_S * 2 < GROUP_PACKETS_PER_S);
    // A sealed announce and its addresses fit their share of a `Peers` answer.
    assert!(PEERS_ANSWER_LEN_MAX / PEERS_PER_ANSWER_MAX >= ANNOUNCE_LEN_MAX + 8 + ADDRS_PER_PEER_MAX * 24);
    assert!(PEERS_ANSWER_LEN_MAX <= RESPONSE_BODY_LEN_MAX);
    // The worst journal has one chunk a record: 4 bytes of count, 4 of number, 16 of checksum.
    assert!(CHUNKS_MAX * 24 + 1024 <= JOURNAL_LEN_MAX);
    assert!(FRAME_HEADER_LEN_MAX <= u16::MAX as usize);
};
