//! GPB spreads files over a local network, without a server and without setup.
//!
//! Each [`Node`] may share a directory. Nodes find each other by signed multicast; a fetch takes a
//! file from all of its holders at once and verifies every chunk before it is written. Sessions are
//! TLS 1.3 between Ed25519 keys. Every call is blocking: there is no async runtime, and none is
//! needed.
//!
//! # Share a directory
//!
//! ```no_run
//! use std::time::Duration;
//! use gpb::{Node, Share};
//!
//! let node = Node::builder().dir("/data").share(Share::Directory).start()?;
//! // Files are offered as they are hashed, and as they change.
//! if let Some((files, bytes)) = node.wait_ready(Duration::from_secs(60)) {
//!     println!("{files} files, {bytes} bytes");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Find and fetch files
//!
//! ```
//! use std::time::Duration;
//!
//! # let lan = gpb::testing::Lan::new()?;
//! # let _server = lan.sharing(&[("models/a.bin", b"a"), ("models/b.bin", b"b")])?;
//! # let node = lan.node()?;
//! // let node = Node::builder().dir("/data").share(Share::Fetched).start()?;
//! let files = node.list("models/**")?;
//! for file in &files {
//!     println!("{} {} bytes, {} holders", file.path, file.id.len, file.holders.len());
//! }
//! // What was listed, or what a person typed: `node.fetch("models")`.
//! let fetch = node.fetch(&files)?;
//! fetch.on_update(|at| println!("{} of {} bytes from {} peers", at.bytes_done, at.bytes, at.peers));
//! let report = fetch.wait()?;
//! assert_eq!(report.files, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read while it is fetched
//!
//! An [`OpenFile`] reads and seeks; what comes next is fetched ahead, and verified before it is handed
//! out. A node without a directory reads in memory.
//!
//! ```
//! use std::io::{Read, Seek, SeekFrom};
//!
//! # let lan = gpb::testing::Lan::new()?;
//! # let _server = lan.sharing(&[("film.mkv", &[7; 700_000])])?;
//! # let node = lan.node()?;
//! let mut film = node.open("film.mkv")?;
//! film.seek(SeekFrom::Start(500_000))?;
//! let mut some = [0; 4096];
//! film.read_exact(&mut some)?;
//! // Or all of it, into anything that takes bytes.
//! let fetch = node.get("film.mkv").to_writer(std::io::sink()).start()?;
//! assert_eq!(fetch.wait()?.failed.len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Offer what is no file of a directory
//!
//! ```
//! # let lan = gpb::testing::Lan::new()?;
//! # let (node, other) = (lan.node()?, lan.node()?);
//! // Bytes, a file elsewhere, or a reader of the program; no directory is needed.
//! let offered = node.offer("tables/today.bin", vec![7; 100_000])?;
//! let report = other.fetch(offered.wait()?)?.wait()?;
//! assert_eq!(report.fetched[0].path.as_str(), "tables/today.bin");
//! // Withdrawn.
//! drop(offered);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Watch peers come and go
//!
//! ```
//! use std::time::Duration;
//! use gpb::Event;
//!
//! # let lan = gpb::testing::Lan::new()?;
//! # let node = lan.node()?;
//! # let other = lan.node()?;
//! // The peers that are there come first.
//! let mut events = node.events();
//! let mut here = 0;
//! while here == 0 {
//!     match events.recv_timeout(Duration::from_secs(10))? {
//!         Event::Known(peers) => here = peers.len(),
//!         Event::PeerJoined { node, addr } => {
//!             println!("{} at {addr}", node.peer);
//!             here += 1;
//!         }
//!         Event::PeerLeft { node } => println!("{} left", node.peer),
//!         // Later versions add events.
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A closed group
//!
//! A [`Trust`] makes a group of known keys: no other key is found, answered or asked. The program
//! changes it while its nodes run, or leaves it to a file ([`Trust::file`]).
//!
//! ```
//! use gpb::{Keypair, Trust};
//!
//! # let lan = gpb::testing::Lan::new()?;
//! let (ana, bo) = (Keypair::generate(), Keypair::generate());
//! let trust = Trust::keys([ana.peer_id(), bo.peer_id()])?;
//! // let node = Node::builder().key(ana).trust(trust.clone()).start()?;
//! # let other = lan.start(lan.builder().key(bo.clone()).trust(trust.clone()))?;
//! # let node = lan.start(lan.builder().key(ana).trust(trust.clone()))?;
//! # let stranger = lan.node()?;
//! # assert_eq!(node.peers(std::time::Duration::from_secs(5))?.len(), 1);
//! // Later: bo is cut off at once.
//! trust.remove(&bo.peer_id())?;
//! # assert!(node.known_peers().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What blocks, and for how long
//!
//! | call | blocks |
//! |---|---|
//! | [`Node::start`] | while files are opened and ports bound: milliseconds |
//! | [`Node::peers`], [`Node::list`], [`Node::list_within`] | until 300 ms after the last new peer, at most for the given time, for `list` 2 s |
//! | [`Node::find`] | until it is found: 50 ms after the last answer, at most for the given time |
//! | [`Offered::wait`], [`Offered::wait_for`] | until the source is hashed, for `wait_for` at most for the given time |
//! | [`Node::publish`], [`Node::forget`] | until the file is hashed and the catalogue has it, or has it no longer |
//! | [`Node::open`], [`Get::open`] | as `find`, at most for [`Config::timeout`]; not at all for a file that was listed |
//! | reading an [`OpenFile`] | until the next byte is there, at most for [`Config::timeout`] without progress |
//! | [`Fetch::wait`] | until the files are in place: at most [`Config::timeout`] for the search, then at most that without a byte |
//! | [`Node::wait_ready`], [`Fetch::wait_for`], [`Updates::recv_timeout`], [`Events::recv_timeout`], [`Stopper::wait`] | at most for the given time |
//! | [`Node::diagnose`] | as `peers`, and a second more |
//! | iterating [`Events`], [`Updates`] | until the next one, or until the node is dropped or the fetch has ended |
//! | dropping a [`Node`], or the last handle of a [`Fetch`] | until its threads are joined: milliseconds, at most seconds while a peer is dialed |
//! | all others | not at all |
//!
//! A [`Stopper`] ends every one of them from another thread, and with them the node; a [`Canceller`]
//! ends one fetch, or one call that looks for peers or files. No time is too long: `Duration::MAX`
//! is taken.
//!
//! # Threads
//!
//! All threads are named, and joined when what they belong to is dropped; only `gpb-resolve`, which
//! looks up host names, may outlive its node.
//!
//! | of | threads |
//! |---|---|
//! | a node | `gpb-listen`, `gpb-static`, `gpb-contact-N`; `gpb-resolve` with named peers, `gpb-peer-file` with a peer file, `gpb-trust` with a trusted file |
//! | a node that shares | `gpb-accept`, `gpb-serve-N`: two for each processor, at least 4 |
//! | a node that offers contents of its program | `gpb-offer-N`: two, with the first one over a MiB or not in memory |
//! | each directory that a node shares | `gpb-share`, `gpb-watch`, `gpb-hash-N`: one for each processor; `gpb-mirror` if it keeps copies |
//! | calls that ask peers | `gpb-ask-N`, started as needed and kept |
//! | a [`Fetch`] | `gpb-conn-N`, started as needed and kept; `gpb-fetch`, `gpb-download`, `gpb-check`, `gpb-disk-N`, `gpb-small-N`, `gpb-check-N`, `gpb-journal` |
//! | what is open for reading | `gpb-open`, one a node; for each content as a fetch, without `gpb-fetch` |
//!
//! A node that shares a directory has some 15 threads on two processors; a fetch adds 3, up to 4 that
//! wait for the disk, one that journals while files are unfinished, and one for each connection.
//!
//! # What it does to its process
//!
//! Nothing but threads, sockets and open files, all of which end with the node. It sets no signal
//! handler, no environment variable, no umask, no working directory and no global logger. It reads
//! `HOME` and `XDG_STATE_HOME`, if the state is that of the user. The limit of open files changes
//! only if [`Config::raise_file_limit`] asks for it.
//!
//! # What it leaves on disk
//!
//! | where | what | until |
//! |---|---|---|
//! | the place of a file | the whole, verified file; a different one there before is replaced only as [`Overwrite`] permits | it is removed |
//! | `.gpb` in the directory that is fetched into, or beside the path of [`Get::to_file`] | chunks of unfinished files, with a journal | the file is whole; the next fetch of it resumes from there, else remove `.gpb` while no fetch runs |
//! | the same, with a mark | chunks of an [`OpenFile`] that is not kept | a minute after its last reader, or the next fetch into the directory after that |
//! | the state directory | the key, the index of hashes | it is removed; [`State::Memory`] has none |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | yes | the programs `gpb-keygen`, `gpb-server` and `gpb-client`, and what only they need |
//! | `testing` | no | the module `testing`: a LAN in memory and peers that misbehave |
//! | `portable-watch` | no | on Linux, the directory watch of other systems |
//! | `serde` | no | `Serialize` for what a node reports: [`Progress`], [`Report`], [`Failed`], [`Event`], [`Update`], [`NodeStats`], what was found; errors are their texts. Keys, roots, identities and names have their text forms in readable formats without it |
//!
//! # Errors, panics, logs
//!
//! Each operation has an error type of its own, see [`error`]. Nothing panics but
//! [`Keypair::generate`], on a system without random numbers. The library logs through `log` and
//! prints nothing. Starts, ends and troubles are INFO and above; a line for each file is DEBUG. The
//! target of a line begins with its part of the node, so that `gpb::server=debug` filters by it:
//!
//! | target | what it tells |
//! |---|---|
//! | `gpb::net`, `gpb::discovery`, `gpb::peers` | links, announces, sessions with peers |
//! | `gpb::client`, `gpb::store` | fetches, and files on disk |
//! | `gpb::server`, `gpb::share` | what is served, and what is offered |
//! | `gpb::node`, `gpb::runtime` | keys, trust, peers that come and go |
//!
//! While a process has several nodes, lines about peers end with the one that logs them:
//! `node=`, its key and instance.
//!
//! # Stability
//!
//! Stable, as SemVer has it: the items on this page, in [`error`] and in `testing`; the wire
//! protocol; the command line; the targets of the log. Not stable: the texts of errors and logs, and everything that is
//! hidden from these docs. Enums that may grow are `#[non_exhaustive]`.
#![cfg_attr(
    test,
    allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

mod chain;
#[cfg(feature = "cli")]
mod cli;
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

pub use client::{Canceller, Candidate, Everything, Failed, FailedFile, FetchError, FileReport, FoundFile, FoundPeer};
pub use client::{FoundBare, KeptFile, KeptReason, MaxDelete, SyncHindrance, SyncPlan};
pub use client::{LocalBytes, Overwrite, Phase, Progress, Report, Selection, Wait, Want};
pub use content::{
    Attributes, Bare, BareNames, Catalogue, CatalogueNotes, Digest, Entry, EntryRef, FileId, LinkTo, Marks, Pattern,
    RelPath, Root, Stamp,
};
pub use discovery::{DhtStats, DiscoveryStats};
pub use identity::{KeyPrefix, Keypair, NodeId, PeerId};
pub use net::{BindAddr, Interface, PeerAddr};
pub use node::{CheckedFile, FileVerdict, Repair, Verified, Verify};
pub use node::{
    Config, DhtOptions, DiscoveryProblem, Fetch, Finding, Get, KeySource, Node, NodeBuilder, OpenFile, Share,
};
pub use node::{FetchStats, MirrorStats, NodeStats, Offered, OpenStats, ShareStats, StartError, State, Stopper};
pub use node::{PlannedSync, RunningSync, SyncDir, SyncReport};
pub use node::{Update, Updates};
pub use peers::{TrafficStats, TurnedStats};
pub use proto::DhtSecret;
pub use runtime::Events;
pub use runtime::keystore::{KeyError, Trust};
pub use store::Life;
pub use store::{ReadAt, Source};
pub use swarm::{Dropped, Event, KnownPeer, PeerCounts, RefusalCause};

pub mod error {
    //! The errors of the crate: one enum an operation.
    //!
    //! A message names the thing and the cause on one line. It leaves out the
    //! [`source`](std::error::Error::source), which is what another library or the system said, so
    //! that a printer of chains repeats nothing. Next steps are left to the program that uses the
    //! library.
    //!
    //! | operation | error |
    //! |---|---|
    //! | [`Node::start`](crate::Node::start) | [`StartError`]: a [`ConfigError`], [`KeyError`] or [`ServerError`], or its own |
    //! | peers, list, fetch of a [`Node`](crate::Node) | [`FetchError`]: a [`StoreError`], or its own |
    //! | [`Fetch::wait`](crate::Fetch::wait) | [`Failed`]: a [`FetchError`] and what was reached |
    //! | reading a [`Pattern`](crate::Pattern) | [`PatternError`] |
    //! | reading a [`RelPath`](crate::RelPath) | [`RelPathError`] |
    //! | reading a [`Digest`](crate::Digest), [`Root`](crate::Root), [`FileId`](crate::FileId), [`PeerId`](crate::PeerId) | [`ParseDigestError`], [`ParseFileIdError`], [`ParsePeerIdError`] |
    //! | offering a content by a [`Node`](crate::Node) | [`OfferError`]: a [`SourceError`], or its own |
    //! | publishing and forgetting a file of a [`Node`](crate::Node) | [`PublishError`] |
    //! | changing a [`Trust`](crate::Trust) | [`TrustError`]; reading its file: [`KeyError`] |
    //! | making or reading a [`Keypair`](crate::Keypair) | [`KeypairError`] |
    //! | reading a [`KeyPrefix`](crate::KeyPrefix) | [`ParseKeyPrefixError`] |

    pub use crate::client::{Failed, FetchError};
    pub use crate::content::{ParseDigestError, ParseFileIdError, PatternError, RelPathError};
    pub use crate::identity::{KeypairError, ParseKeyPrefixError, ParsePeerIdError};
    pub use crate::net::{ParseBindAddrError, ParseInterfaceError, ParsePeerAddrError};
    pub use crate::node::{ConfigError, OfferError, StartError};
    pub use crate::proto::DhtSecretError;
    pub use crate::runtime::EventsError;
    pub use crate::runtime::keystore::{KeyError, TrustError};
    pub use crate::server::ServerError;
    pub use crate::share::PublishError;
    pub use crate::store::{SourceError, StoreError};
}

/// What the tests, benches, examples and programs of this package use besides the front of the
/// crate.
///
/// No part of the public interface: anything in it changes without notice.
#[doc(hidden)]
pub mod internals {
    /// See `src/cli`.
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::*;
    }
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
