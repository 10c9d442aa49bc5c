//! Decisions of a mirror: which peer's listing to read again, which files to fetch next, and which
//! copies expire.
//!
//! What a peer shares of its own has a name; a copy that a fetch put there only lends its content. So
//! one sharer decides what is mirrored under a name, copies stand in for a sharer that is gone, and
//! several sharers that differ decide nothing.

mod asking;
mod bare;
mod expiry;
pub mod limits;
mod offers;
mod plan;

pub use asking::AskSchedule;
pub use bare::BareOffers;
pub use expiry::{ExpiryCandidate, ExpiryRoom, Retention};
pub use offers::{MirrorOffer, MirrorOffers, MirrorVerdict};
pub use plan::{MirrorBatch, MirrorCounts, MirrorNews, MirrorPlan, OwnFile, Setback};
