//! Bounds and intervals of discovery.

use std::time::Duration;

use crate::limits::ANSWERERS;

/// Peers that are contacted at the same time to exchange who is known.
pub const CONTACTS_AT_ONCE: usize = 8;
/// From so many nodes on, multicast may not tell of all, as not everyone answers; then known peers are asked, too. Half
/// of [`ANSWERERS`](crate::limits::ANSWERERS), so that chance does not make a large group look small.
pub const EXCHANGE_FROM_NODES: usize = ANSWERERS as usize / 2;
/// When known peers are first asked whom they know: the answers to the first query have come by then.
pub const EXCHANGE_AFTER: Duration = Duration::from_millis(150);
/// How many are asked at first; then it is one an interval.
pub const EXCHANGE_FIRST: usize = 3;
/// A contact ends after so many pages that brought nobody new.
pub const EXCHANGE_PAGES_IN_VAIN: usize = 2;
/// A contact for exchange is given up after so long in all.
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often drops are logged, if there are any.
pub const DROPS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// A peer that the user named and that did not answer is contacted again after so long, then after twice as long each
/// time, up to [`ANNOUNCE_INTERVAL`](crate::limits::ANNOUNCE_INTERVAL).
pub const CONTACT_RETRY_FIRST: Duration = Duration::from_secs(1);
/// How often a goodbye is sent, as datagrams get lost.
pub const GOODBYES: usize = 2;
