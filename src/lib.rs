//! GPB spreads files over a local network.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(unreachable_pub, rust_2018_idioms)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod content;
pub mod discovery;
pub mod identity;
pub mod limits;
pub mod net;
pub mod node;
pub mod proto;
pub mod runtime;
pub mod server;
pub mod share;
pub mod store;
pub mod swarm;
