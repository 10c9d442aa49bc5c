//! Bounds and intervals of discovery.

use std::time::Duration;

use crate::limits::ANSWERERS;

/// Peers that are contacted at the same time for exchange.
pub const CONTACTS_AT_ONCE: usize = 8;
/// From this number of nodes on, known peers are asked for exchange, as not every node answers a
/// query. Half of [`ANSWERERS`], so that chance does not make a large
/// group look small.
pub const EXCHANGE_FROM_NODES: usize = ANSWERERS as usize / 2;
/// When known peers are first asked for exchange: the answers to the first query have arrived by
/// then.
pub const EXCHANGE_AFTER: Duration = Duration::from_millis(150);
/// Number of peers that are asked first; later it is one per interval.
pub const EXCHANGE_FIRST: usize = 3;
/// A contact ends after this number of pages without a new peer.
pub const EXCHANGE_PAGES_IN_VAIN: usize = 2;
/// Longest time of one contact in all.
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two log lines about dropped announces.
pub const DROPS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// First back-off of a peer that the user named and that did not answer. It doubles up to
/// [`ANNOUNCE_INTERVAL`](crate::limits::ANNOUNCE_INTERVAL).
pub const CONTACT_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Number of goodbyes that are sent, as datagrams get lost.
pub const GOODBYES: usize = 2;
