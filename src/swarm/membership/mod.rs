//! Which nodes there are, and when this one announces itself.

mod addresses;
mod admit;
mod departed;
pub mod limits;
mod pace;
mod peer_table;

pub use addresses::crosses;
pub use admit::{Dropped, open_announce, parse_announce};
pub use pace::{Outgoing, Pace, Way};
pub use peer_table::{Heard, PeerRecord, PeerTable, Via};
