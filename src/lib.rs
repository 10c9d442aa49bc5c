//! GPB spreads files over a local network, with nobody to set up.
//!
//! Each peer shares a directory; peers find each other by signed multicast; a client fetches a file from all peers that
//! hold it at once and verifies every chunk. Sessions are TLS 1.3 between Ed25519 keys. Everything is blocking and runs
//! on threads: there is no async runtime, and none is needed.
//!
//! ```no_run
//! use std::time::Duration;
//! use gpb::{Node, Share};
//!
//! let node = Node::builder().dir("/data").share(Share::Nothing).start()?;
//! for file in node.list(&["models/**"], Duration::from_secs(2))? {
//!     println!("{} {} bytes, {} holders", file.path, file.id.len, file.holders.len());
//! }
//! let report = node.fetch(&["models/weights.bin"])?.wait()?;
//! println!("{} bytes from {} peers", report.bytes, report.peers.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Tiers
//!
//! A module imports only from lower tiers. Tiers 0 to 3 are pure: no I/O, no threads, no clock.
//!
//! | tier | modules | what for |
//! |---|---|---|
//! | 0 | `limits` | every bound, port and interval |
//! | 1 | `content`, `identity` | what is shared; who shares it |
//! | 2 | `proto` | bytes to values and back; the wire |
//! | 3 | `swarm` | whom to ask for what next |
//! | 4 | `store`, `net`, `runtime` | disks, sockets, threads and key files |
//! | 6 | `share`, `discovery`, `server`, `client` | the services; they meet only through lower tiers |
//! | 7 | `node` | the front door |
//! | 8 | `cli` | the programs' command line (feature `cli`) |
#![cfg_attr(
    test,
    allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

mod chain;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
mod content;
mod discovery;
mod identity;
mod limits;
mod net;
mod node;
mod peers;
mod proto;
mod runtime;
mod server;
mod share;
mod store;
mod swarm;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

pub use client::{Candidate, FetchError, FileReport, FoundFile, FoundPeer, Progress, Report};
pub use content::{Catalogue, Digest, Entry, EntryRef, FileId, Pattern, RelPath, Root, Stamp};
pub use discovery::DiscoveryStats;
pub use identity::{Keypair, NodeId, PeerId};
pub use net::{Interface, PeerAddr};
pub use node::{Config, DiscoveryProblem, Events, Fetch, Finding, KeySource, KnownPeer, Node, NodeBuilder, Share};
pub use node::{StartError, Stopper};
pub use swarm::{Dropped, Event};

pub mod error {
    //! The errors of the crate: one enum an operation.
    //!
    //! A message names the thing and the cause on one line. It leaves out the
    //! [`source`](std::error::Error::source), which is what another library or the system said, so that
    //! a printer of chains repeats nothing. Next steps are left to the program that uses the library.
    //!
    //! | operation | error |
    //! |---|---|
    //! | [`Node::start`](crate::Node::start) | [`StartError`]: a [`ConfigError`], [`KeyError`] or [`ServerError`], or its own |
    //! | peers, list, fetch of a [`Node`](crate::Node) | [`FetchError`]: a [`StoreError`], or its own |
    //! | reading a [`Pattern`](crate::Pattern) | [`PatternError`] |
    //! | reading a [`RelPath`](crate::RelPath) | [`RelPathError`] |
    //! | reading a [`Digest`](crate::Digest), [`Root`](crate::Root), [`PeerId`](crate::PeerId) | [`ParseDigestError`], [`ParsePeerIdError`] |
    //! | making or reading a [`Keypair`](crate::Keypair) | [`KeypairError`] |

    pub use crate::client::FetchError;
    pub use crate::content::{ParseDigestError, PatternError, RelPathError};
    pub use crate::identity::{KeypairError, ParsePeerIdError};
    pub use crate::net::{ParseInterfaceError, ParsePeerAddrError};
    pub use crate::node::{ConfigError, EventsError, StartError};
    pub use crate::runtime::keystore::KeyError;
    pub use crate::server::ServerError;
    pub use crate::store::StoreError;
}

/// What the tests, benches, examples and programs of this package use besides the front of the crate.
///
/// No part of the public interface: anything in it changes without notice.
#[doc(hidden)]
pub mod internals {
    /// See `src/client`.
    pub mod client {
        pub use crate::client::*;
    }
    /// See `src/content`.
    pub mod content {
        pub use crate::content::*;
    }
    /// See `src/discovery`.
    pub mod discovery {
        pub use crate::discovery::*;
    }
    /// See `src/identity`.
    pub mod identity {
        pub use crate::identity::*;
    }
    /// See `src/limits`.
    pub mod limits {
        pub use crate::limits::*;
    }
    /// See `src/net`.
    pub mod net {
        pub use crate::net::*;
    }
    /// See `src/node`.
    pub mod node {
        pub use crate::node::*;
    }
    /// See `src/peers`.
    pub mod peers {
        pub use crate::peers::*;
    }
    /// See `src/proto`.
    pub mod proto {
        pub use crate::proto::*;
    }
    /// See `src/runtime`.
    pub mod runtime {
        pub use crate::runtime::*;
    }
    /// See `src/server`.
    pub mod server {
        pub use crate::server::*;
    }
    /// See `src/share`.
    pub mod share {
        pub use crate::share::*;
    }
    /// See `src/store`.
    pub mod store {
        pub use crate::store::*;
    }
    /// See `src/swarm`.
    pub mod swarm {
        pub use crate::swarm::*;
    }
}
