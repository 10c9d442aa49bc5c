//! Bounds of sockets and links.

use std::time::Duration;

use crate::limits::KIB;

/// Time between two looks at the network interfaces.
pub const INTERFACE_POLL: Duration = Duration::from_secs(3);
/// Time between two renewals of the multicast memberships (IGMP snooping forgets after about 260
/// s).
pub const MEMBERSHIP_RENEW: Duration = Duration::from_secs(120);
/// Most datagrams that wait for one node of the in-memory LAN.
pub const HUB_QUEUE_MAX: usize = 16_384;
/// Most network interfaces (each per address family) that discovery uses.
pub const LINKS_MAX: usize = 64;
/// Most events that one wait for the sockets of discovery returns.
pub const SOCKET_EVENTS_AT_ONCE: usize = 64;
/// Most troubles of links and interfaces that are remembered as logged.
pub const LINK_TROUBLES_MAX: usize = 256;
/// A turned session without traffic shows the way that it lives after this time (TCP keepalive): shorter than NATs
/// remember a connection.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
/// Time between two tries of that while nothing answers.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Tries without an answer after which the system ends the connection.
pub const KEEPALIVE_TRIES: u32 = 3;
/// Most bytes of requests in one record of TLS. A record is read when all of it has come, so that a longer one would make
/// the first request wait for packets of the next round trip; this one and what TLS adds fit into one packet.
pub const REQUEST_RECORD_LEN: usize = 1280;
/// Most ciphertext that a dialed session reads from its socket at once, in bytes.
pub const RECEIVE_BUFFER_LEN: usize = 256 * KIB;

const _: () = {
    // RFC 5382 allows a NAT to forget an idle connection after two hours, and many do within minutes, some sooner.
    assert!(KEEPALIVE_AFTER.as_secs() < 30);
};
