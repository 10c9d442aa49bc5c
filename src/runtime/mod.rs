//! Threads and what they share; key files. Floor 4.

pub mod keystore;
mod latest;
mod shutdown;
mod throttle;
mod workers;

pub use latest::Latest;
pub use shutdown::Shutdown;
pub use throttle::Throttle;
pub use workers::Workers;
