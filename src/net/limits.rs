//! Bounds of sockets and links.

use std::time::Duration;

use crate::limits::KIB;

/// How often the network interfaces are looked at again.
pub const INTERFACE_POLL: Duration = Duration::from_secs(3);
/// How often multicast memberships are renewed (IGMP snooping forgets after about 260 s).
pub const MEMBERSHIP_RENEW: Duration = Duration::from_secs(120);
/// Datagrams that wait for a node of the in-memory LAN.
pub const HUB_QUEUE_MAX: usize = 16_384;
/// Most network interfaces (each per address family) that discovery uses.
pub const LINKS_MAX: usize = 64;
/// Sockets of discovery that are told to be readable at once.
pub const SOCKET_EVENTS_AT_ONCE: usize = 64;
/// Most troubles that are remembered as told.
pub const LINKS_TOLD_MAX: usize = 256;
/// Ciphertext that a dialed session takes from the socket at once, in bytes.
pub const RECEIVE_BUFFER_LEN: usize = 256 * KIB;
