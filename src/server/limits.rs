//! Bounds and intervals of the server.

use std::time::Duration;

use crate::limits::{KIB, MIB, TURN_LEN_MAX};

/// Entries that are compared with a pattern before the clock is looked at again.
pub const LIST_CHECK_ENTRIES: usize = 128;
/// Time for which a page of a listing is made before a worker looks whether another session needs it.
pub const LIST_SLICE: Duration = Duration::from_millis(5);
/// Connections that are accepted before the open ones get their turn again.
pub const ACCEPTS_AT_ONCE: usize = 128;
/// Open files that a server leaves to everything but its connections.
pub const DESCRIPTORS_RESERVED: usize = 128;
/// Plaintext that a worker gathers before it encrypts and writes, in bytes.
pub const REPLY_LEN: usize = 128 * KIB;
/// Plaintext that a worker sends first after a peer's socket was full, in bytes.
pub const REPLY_FIRST_LEN: usize = 16 * KIB;
/// Bytes that an account may always have parked before it is to produce little.
pub const PARKED_SHARE_MIN: usize = 4 * REPLY_LEN;
/// Log lines about rejected connections in a window of
/// [`LOG_WINDOW`](crate::runtime::limits::LOG_WINDOW); further ones are counted.
pub const REJECTED_LINES_MAX: u32 = 20;
/// The same for lines about connections that come and go, and what they report.
pub const SESSION_LINES_MAX: u32 = 200;
/// Connections that wait in the listener for the accepting thread.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Requests that a worker answers for a session before it hands back.
pub const TURN_REQUESTS_MAX: u32 = 64;
/// Bytes of an answer from which on it counts as the upload of a chunk.
pub const UPLOAD_LEN_MIN: usize = 64 * KIB;
/// Bytes that may wait in a socket of the server before they are on the wire: what is queued there
/// can be neither reordered nor shared fairly.
pub const UNSENT_LEN_MAX: usize = 64 * KIB;
/// Most bytes that may wait there on a path whose round trip is [`UNSENT_FAR`] or more, where as many may as
/// the peer takes in one round trip.
pub const UNSENT_FAR_LEN_MAX: usize = 2 * MIB;
/// The most bytes that may wait in all sessions together beyond [`UNSENT_LEN_MAX`] each.
pub const UNSENT_FAR_SUM_MAX: usize = 64 * MIB;
/// Parts of what stays free of [`UNSENT_FAR_SUM_MAX`], of which an account may have one.
pub const UNSENT_FAR_PARTS: usize = 3;
/// The round trip from which on more than [`UNSENT_LEN_MAX`] may wait.
pub const UNSENT_FAR: Duration = Duration::from_millis(20);
/// Time over which is measured what a far peer takes; no round trip counts as longer.
pub const UNSENT_SPAN: Duration = Duration::from_millis(500);
/// As [`UNSENT_LEN_MAX`], in bytes, until a peer has taken answers of [`REPLY_LEN`] at once.
pub const UNSENT_FIRST_LEN: usize = 16 * KIB;
/// How long a worker waits for a peer's socket before it parks the session.
pub const PARK_AFTER: Duration = Duration::from_millis(2);
/// How often a worker that waits for a peer's socket looks whether another session needs it.
pub const LINGER_STEP: Duration = Duration::from_micros(500);
/// How often the server looks whether a session that lets others catch up has let them.
pub const HELD_BACK_LOOK: Duration = Duration::from_millis(1);
/// Mean wait of a peer that asks for a layer while others are being sent theirs, as `Busy` says it;
/// each wait is 0.5 to 1.5 times as long.
pub const LAYER_RETRY: Duration = Duration::from_millis(60);
/// Wait of a peer that gets `Busy` for another reason.
pub const ANSWER_RETRY: Duration = Duration::from_millis(500);
/// Sessions that wait for an upload are not looked at more often than this without a reason.
pub const UPLOAD_LOOK_MIN: Duration = Duration::from_millis(3);
/// Copies of one content that are tried for a chunk.
pub const COPIES_TRIED_MAX: usize = 4;
/// Accounts whose reports of bad chunks are counted. While so many report, no other one may.
pub const REPORTERS_MAX: usize = 1024;
/// Accounts of one IPv4 network (/24) whose reports are counted apart.
pub const REPORTERS_PER_NET_MAX: usize = 64;
/// Time without a request after which a connection gives its slot to a newcomer that has as many.
pub const GIVES_WAY_AFTER: Duration = Duration::from_secs(2);
/// Connections of a server where the limit of open files is tiny: a few peers are served even
/// there.
pub const CONNECTIONS_MIN: usize = 16;
/// Reads in one turn while a session closes.
pub const DRAIN_READS_MAX: usize = 16;
/// Capacity in bytes that the request buffer of a session keeps between turns, unless it is empty.
pub const REQUESTS_KEPT_LEN: usize = 512;
/// Longest time for which an asker is dialed.
pub const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Accounts whose last dial is remembered. While so many had one in a minute, no other one has.
pub const DIAL_BACKS_MAX: usize = 1024;
/// Askers that wait to be dialed, at most.
pub const DIAL_BACKS_WAITING_MAX: usize = 16;
/// Ciphertext that a worker reads at once: a record that is not whole yet, and more.
pub const INCOMING_LEN: usize = 64 * KIB;

const _: () = {
    assert!(REPLY_FIRST_LEN <= REPLY_LEN && REPLY_LEN <= TURN_LEN_MAX);
    assert!(UNSENT_LEN_MAX.is_power_of_two() && UNSENT_FAR_LEN_MAX.is_power_of_two());
    assert!(UNSENT_FIRST_LEN < UNSENT_LEN_MAX && UNSENT_LEN_MAX <= UNSENT_FAR_LEN_MAX);
};
