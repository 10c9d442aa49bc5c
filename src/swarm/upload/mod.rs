//! Decisions of a holder: which session is served next, which may send a chunk, which chunk that
//! is, and what the holder says of itself and of other fetchers.

mod arrivals;
mod demand;
mod fair_queue;
mod gate;
pub mod limits;
mod turn_price;
mod upload_slots;

pub use arrivals::Arrivals;
pub use demand::{AnyOfChoice, Fetchers, Sent, SentTo};
pub use fair_queue::{FairQueue, QueuePosition};
pub use gate::{Admission, UploadGate, UploadKind, UploadSlot};
pub use turn_price::{TurnCost, TurnPrice};
pub use upload_slots::UploadSlots;
