//! Which nodes there are, and when this one announces itself.

mod addresses;
mod admit;
mod announce_schedule;
mod dht_places;
mod dht_schedule;
mod group_size;
pub mod limits;
mod peer_table;
mod received;
mod refusal;
mod remembered;
mod tombstones;

pub use addresses::{crosses, is_far, is_usable};
pub use admit::{Dropped, open_announce, parse_announce};
pub use announce_schedule::{AnnounceSchedule, Outgoing, Question, Way};
pub use dht_places::{DhtReach, open_dht_item};
pub use dht_schedule::{DhtLookups, DhtPublishing};
pub use group_size::GroupSize;
pub use peer_table::{DistantPeer, PeerCounts, PeerRecord, PeerTable, UnreachedPeer};
pub use received::{ContactSource, Received, TableChange, Via};
pub use refusal::RefusalCause;
pub(crate) use remembered::REMEMBERED_TEXT_LEN_MAX;
pub use remembered::{RememberedError, RememberedPeer, RememberedPeers};

#[cfg(test)]
mod joining_tests;
#[cfg(test)]
mod made_up_tests;
