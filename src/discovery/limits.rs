//! Bounds and intervals of discovery.

use std::time::Duration;

use crate::limits::{ANSWERERS, DHT_ADDRS_MAX, PEERS_PER_ANSWER_MAX, STATIC_PEERS_MAX};

/// Time after the start before a node offers to answer: most short fetches are over.
pub const OFFER_AFTER: Duration = Duration::from_secs(1);
/// Offers that are made at once.
pub const OFFERS_AT_ONCE: usize = 2;
/// Addresses that are dialed for one offer, at most.
pub const OFFER_ADDRS_MAX: usize = 3;
/// Least time between two looks for peers that are due: at most 8 offers a second, and the table is read seldom.
pub const OFFER_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time after which one more offer is made to a node that only others named: a stranger may make up any number of
/// them, and name addresses that belong to third parties.
pub const OFFER_HINTED_EVERY: Duration = Duration::from_secs(1);
/// Offers to such nodes that are made without that wait, after a rest: a small group is reached at once.
pub const OFFER_HINTED_FIRST: u32 = 8;
/// Most peers that a node answers on sessions of its own.
pub const OFFERED_PEERS_MAX: usize = 64;
/// Time after which a session on which nothing was asked gives way, when [`OFFERED_PEERS_MAX`] have one and others wait.
pub const OFFER_UNUSED_MAX: Duration = Duration::from_secs(30);
/// Least time between an offer that was taken and the next one to that peer.
pub const OFFER_AGAIN: Duration = Duration::from_secs(10);
/// The same while the peer uses all of them.
pub const OFFER_FURTHER: Duration = Duration::from_secs(1);
/// Longest time for connecting to one address to make an offer there, and the TLS handshake.
pub const OFFER_DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// First wait before an offer that failed is made again; it doubles up to [`OFFER_RETRY_MAX`].
pub const OFFER_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait before an offer that failed, or was not needed, is made again.
pub const OFFER_RETRY_MAX: Duration = Duration::from_secs(60);
/// Time between two contacts with a named peer while this node answers it on a session of its own: peers that want its
/// files must be found to be offered one. In a group of more than [`OFFERED_CONTACT_NODES`] it is longer in proportion.
pub const OFFERED_CONTACT_INTERVAL: Duration = Duration::from_secs(2);
/// Nodes up to which that interval holds.
pub const OFFERED_CONTACT_NODES: usize = 32;
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
/// Seconds after which a named peer that answered is contacted again, at first, in a group of at most
/// [`SOON_AGAIN_NODES`] nodes; then it is [`ANNOUNCE_INTERVAL`](crate::limits::ANNOUNCE_INTERVAL).
pub const CONTACT_AGAIN_S: [u64; 3] = [1, 2, 4];
/// Time between two contacts of a name that is this node itself.
pub const SELF_CONTACT_EVERY: Duration = Duration::from_secs(60);
/// Nodes up to which a named peer is soon contacted again: all of them fit one answer.
pub const SOON_AGAIN_NODES: usize = PEERS_PER_ANSWER_MAX;
/// Addresses of one name that are contacted, at most: each may be another host. Of further ones
/// exchange tells.
pub const ADDRS_PER_NAME_MAX: usize = 64;
/// Threads that look up names: one that waits for a name server that is gone holds up few others.
pub const RESOLVERS: usize = 4;
/// Contacts that wait for a thread, at most.
pub const CONTACTS_QUEUED_MAX: usize = 1024;
/// Remembered peers that are dialed at the same time.
pub const RECALL_AT_ONCE: usize = 5;
/// Remembered peers that are dialed without a wait at the start: the last proved ones.
pub const RECALL_FIRST: usize = 16;
/// Time after which each further one is dialed.
pub const RECALL_NEXT_AFTER: Duration = Duration::from_secs(1);
/// Longest wait before failed peers are dialed again, while the group is empty.
pub const RECALL_RETRY_MAX: Duration = Duration::from_secs(60);
/// When the peers that are proved are first written down; at the end of a node they are, too.
pub const REMEMBER_FIRST_AFTER: Duration = Duration::from_secs(5);
/// Time between two such looks.
pub const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at the peer file.
pub const PEER_FILE_EVERY: Duration = Duration::from_millis(500);
/// Bad lines of a peer file that are logged each for itself.
pub const BAD_LINES_LOGGED: usize = 8;
/// Places that strangers named and that are dialed at the same time.
pub const HINTED_AT_ONCE: usize = 2;
/// Addresses of a key that are dialed because strangers named them, at most.
pub const HINT_ADDRS_MAX: usize = 4;
/// Longest time for connecting to such an address of the site and the TLS handshake there; elsewhere it is
/// [`CONTACT_TIMEOUT`].
pub const HINT_DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Rest of a thread after each such dial: with [`HINTED_AT_ONCE`] threads there are at most 4 a second.
pub const HINT_DIAL_EVERY: Duration = Duration::from_millis(500);
/// Most places that strangers named and that wait to be dialed.
pub const HINTS_WAITING_MAX: usize = 64;
/// Most such places whose last dial is remembered.
pub const HINTS_REMEMBERED_MAX: usize = 1024;
/// Most such places of one key that are dialed in an interval.
pub const HINTS_PER_KEY_MAX: usize = 4;
/// Most services of DNS-SD that are offered for dialing again at each interval.
pub const DNS_SD_SERVICES_MAX: usize = 256;
/// Most records that multicast DNS may keep for this node.
pub const DNS_SD_RECORDS_MAX: usize = 8192;
/// Time between two looks at their number.
pub const DNS_SD_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long DNS-SD rests before it restarts, after a failure or with too many records.
pub const DNS_SD_RESTART: Duration = Duration::from_secs(30);
/// Longest wait for an answer of the thread of multicast DNS, at its end for its goodbye.
pub const DNS_SD_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Time between two looks at what is due in the DHT.
pub const DHT_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two lookups of an open group there.
pub const DHT_GROUP_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks while no node of the DHT has answered yet.
pub const DHT_JOIN_EVERY: Duration = Duration::from_millis(250);
/// Most addresses that the DHT begins with.
pub const DHT_FIRST_NODES_MAX: usize = 32;
/// Time after which a call that has not ended is given up: a host that names ever closer nodes could keep it going.
pub const DHT_CALL_MAX: Duration = Duration::from_secs(60);
/// Calls that are given up and have not ended, at most; then the next one is waited for.
pub const DHT_GIVEN_UP_MAX: usize = 2;
/// Most addresses of an open group that are read in one lookup.
pub const DHT_FOUND_ADDRS_MAX: usize = 1024;
/// Most of them that are read in the answer of one node.
pub const DHT_ANSWER_ADDRS_MAX: usize = 16;
/// Most of them that are dialed after it: exchange tells of the others.
pub const DHT_GROUP_DIALED_MAX: usize = 16;
/// Most items of one key that are read in one lookup; each node of the DHT has one at most.
pub const DHT_ITEMS_READ_MAX: usize = 256;
/// How long the DHT rests before it restarts, after a failure or without a node that answers; it doubles up to
/// [`DHT_RESTART_MAX`].
pub const DHT_RESTART: Duration = Duration::from_secs(30);
/// Longest such time.
pub const DHT_RESTART_MAX: Duration = Duration::from_secs(600);
/// Most items of others that a node that can be reached keeps for the DHT, of each of its two kinds.
pub const DHT_KEPT_ITEMS_MAX: usize = 512;
/// Most groups of others of which it keeps addresses.
pub const DHT_KEPT_GROUPS_MAX: usize = 256;
/// Most addresses of each.
pub const DHT_KEPT_PEERS_MAX: usize = 64;
/// Number of goodbyes that are sent, as datagrams get lost.
pub const GOODBYES: usize = 2;

const _: () = {
    // Each named peer has a place for one address.
    assert!(CONTACTS_QUEUED_MAX >= 2 * STATIC_PEERS_MAX + CONTACTS_AT_ONCE + RECALL_AT_ONCE);
    // Named peers find a thread, however many remembered ones are gone and however slow offers are; without
    // remembered ones there may be no more than these threads.
    assert!(RECALL_AT_ONCE + OFFERS_AT_ONCE < CONTACTS_AT_ONCE && RECALL_AT_ONCE <= RECALL_FIRST);
    assert!(OFFERS_AT_ONCE < EXCHANGE_FIRST);
    // All of an item are dialed.
    assert!(DHT_ADDRS_MAX <= HINT_ADDRS_MAX);
};
