//! The node's view of its peers, and sessions with them: shared by all services. Tier 5.
//!
//! [`Directory`] is the only way into the peer table: announces from datagrams, from `Hello`, from
//! `Welcome` and from the hints of other peers take the same checks there. [`Dialer`] opens
//! sessions, and [`PeerPool`] keeps idle ones. No thread of its own runs here.

mod directory;
#[cfg(test)]
pub(crate) mod fake;
mod handover;
pub mod limits;
mod opening;
mod own_announce;
mod pool;
mod session;
mod source_limit;
mod traffic;
mod turned;

pub use directory::{Directory, Hindrance, Presence};
pub use handover::{Handover, HandoverOffer, HandoverTaker};
pub use opening::Opening;
#[cfg(feature = "dht")]
pub(crate) use own_announce::unix_ms;
pub use own_announce::{NodeTag, OwnAnnounce, OwnIdentity};
pub use pool::PeerPool;
pub use session::{Ahead, AskError, Call, Dialer, Session, TurnAnswer};
pub use traffic::{Traffic, TrafficStats};
pub use turned::{
    AnswerTicket, Answered, Answering, Lease, OfferedSession, SessionGuards, TurnedSessions, TurnedStats,
};
