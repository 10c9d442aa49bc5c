//! Which peer is served next, and what it is given.

mod arrivals;
mod demand;
mod fair_queue;
pub mod limits;
mod turn_price;
mod uploads;

pub use arrivals::Arrivals;
pub use demand::{Fetchers, Sent};
pub use fair_queue::{FairQueue, Place};
pub use turn_price::{TurnCost, TurnPrice};
pub use uploads::{Upload, Uploads};
