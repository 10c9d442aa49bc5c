//! Bounds and intervals of sessions that this node opens.

use std::time::Duration;

use crate::limits::{KIB, MIB};

/// Longest time for connecting to one address and the TLS handshake there.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for each of several addresses of a peer in the first round.
pub const DIAL_QUICK: Duration = Duration::from_millis(400);
/// The same in a second round, for a peer that may offer to answer on a session of its own: after each address it is seen
/// whether it did.
pub const DIAL_BETWEEN_OFFERS: Duration = Duration::from_millis(1500);
/// Addresses of a peer that are tried in a hurry.
pub const HURRIED_ADDRS: usize = 2;
/// Most idle sessions in a pool.
pub const IDLE_SESSIONS_MAX: usize = 64;
/// Most sessions that contacts leave for a survey.
pub const HANDOVERS_MAX: usize = 8;
/// Longest wait for a session that a contact is about to leave: its last answer comes right behind `Welcome`, or a round
/// trip later if it shares a record of TLS with what does not fit into the first packets.
pub const HANDOVER_PATIENCE: Duration = Duration::from_secs(1);
/// Most sessions of one node on which it offers to answer.
pub const TURNED_PER_NODE_MAX: usize = 2;
/// Most sessions of all nodes of one key on which they offer to answer.
pub const TURNED_PER_KEY_MAX: usize = 8;
/// Most sessions from one source address on which others offer to answer: many hosts may be behind one NAT.
pub const TURNED_PER_ADDR_MAX: usize = 64;
/// Most sessions on which others offer to answer.
pub const TURNED_MAX: usize = 1024;
/// Bytes of an unwanted body that are read at once.
pub const SKIP_STEP: usize = 64 * KIB;
/// Bytes of a body that are allocated at once.
pub const BODY_STEP: usize = MIB;
/// Most keys whose bytes are counted each for itself, in each direction.
pub const TRAFFIC_PEERS_MAX: usize = 4096;

const _: () = {
    assert!(TURNED_PER_NODE_MAX <= TURNED_PER_KEY_MAX && TURNED_PER_KEY_MAX <= TURNED_PER_ADDR_MAX);
    assert!(TURNED_PER_ADDR_MAX < TURNED_MAX);
};
