//! Threads and what they share; key files. Floor 4.

mod events;
pub mod keystore;
mod latest;
mod shutdown;
mod throttle;
mod watched;
mod workers;

pub use events::Events;
pub use latest::Latest;
pub use shutdown::Shutdown;
pub use throttle::Throttle;
pub use watched::Watched;
pub use workers::Workers;
