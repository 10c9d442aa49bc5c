//! Threads and what they share; key files. Tier 4.

use std::time::{Duration, Instant};

use crate::limits::WAIT_MAX;

mod events;
pub mod keystore;
mod latest;
pub mod limits;
mod shutdown;
mod throttle;
mod watched;
mod workers;

pub use events::Events;
pub use latest::Latest;
pub use shutdown::{OnBegin, Shutdown};
pub use throttle::Throttle;
pub use watched::Watched;
pub use workers::Workers;
pub(crate) use workers::no_thread;

/// When a wait of `time` that begins now is over. A wait of more than [`WAIT_MAX`] is one of that.
pub(crate) fn deadline(time: Duration) -> Instant {
    Instant::now() + time.min(WAIT_MAX)
}
