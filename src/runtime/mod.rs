//! Threads and what they share; key files. Tier 4.

use std::time::{Duration, Instant};

use crate::limits::WAIT_MAX;

mod blocking_pool;
mod events;
pub mod keystore;
mod limited_log;
pub mod limits;
mod shutdown;
mod throttle;
mod watch;
mod workers;

pub use blocking_pool::BlockingPool;
pub use events::{EventSender, Events, EventsError};
pub use limited_log::LimitedLog;
pub use shutdown::{OnBegin, Shutdown};
pub use throttle::Throttle;
pub use watch::{Subscription, Watch};
pub use workers::Workers;
pub(crate) use workers::no_thread;

/// When a wait of `time` that begins now is over. A wait of more than [`WAIT_MAX`] is one of that.
pub(crate) fn deadline(time: Duration) -> Instant {
    Instant::now() + time.min(WAIT_MAX)
}
