//! A local network in memory, and peers that misbehave: for the tests of programs that use this
//! crate.
//!
//! [`Lan`] starts nodes that find each other without multicast. [`FaultyPeer`] serves files from
//! memory, with the [`Fault`]s that it is given. Both use TCP on `127.0.0.1`; nothing leaves the
//! host. Feature `testing`; tier 8.
//!
//! ```
//! use gpb::testing::Lan;
//!
//! let lan = Lan::new()?;
//! let alice = lan.sharing(&[("hello.txt", b"hello")])?;
//! let bob = lan.node()?;
//! let report = bob.fetch("hello.txt")?.wait()?;
//! assert_eq!(report.peers, [(alice.id(), 5)]);
//! assert_eq!(std::fs::read(bob.config().dir.clone().unwrap_or_default().join("hello.txt"))?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod announces;
mod answer;
mod delivery;
mod dice;
mod fault;
mod file;
mod lan;
mod listing;
mod peer;
mod wire;

pub use fault::Fault;
pub use file::TestFile;
pub use lan::Lan;
pub use peer::FaultyPeer;
