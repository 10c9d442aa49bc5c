//! Finds peers and files, and fetches files from many peers at once. Tier 6.
//!
//! `survey` asks all peers, `resolve` turns what a person typed into files, `download` fetches
//! them. The decisions of a download are pure: [`DownloadState`](crate::swarm::DownloadState) knows
//! the files, [`Mesh`](crate::swarm::Mesh) the connections, and each connection is the conversation
//! of a [`Requester`](crate::swarm::Requester). Their I/O lies in `coordinator` (one thread),
//! `fetcher` (one connection each) and `disk_workers` (the threads that wait for the disk). A chunk
//! is verified in `fetcher/chunks`.

mod active_sessions;
mod asking;
mod buffers;
mod canceller;
mod context;
mod coordinator;
mod disk_queues;
mod disk_workers;
mod doorbell;
mod download;
mod error;
mod failed;
mod failures;
mod fetcher;
mod found_bare;
mod found_peer;
mod joins;
pub mod limits;
mod listing;
mod max_delete;
mod peer_listing;
mod reach;
mod read_source;
mod readings;
mod report;
mod resolve;
mod search_results;
mod selection;
mod shared;
mod stats;
mod survey;
mod sync_plan;
mod targets;
mod tree;
mod want;
mod whole_listing;

pub use crate::store::Overwrite;
pub use canceller::{AskScope, Canceller, Wait};
pub use context::{Client, ClientContext, SharedContents};
pub(crate) use doorbell::Doorbell;
pub use download::{Download, DownloadOptions, DownloadPlan};
pub use error::{Candidate, FetchError};
pub use failed::FailedFile;
pub use found_bare::FoundBare;
pub use found_peer::FoundPeer;
pub use max_delete::{MaxDelete, ParseMaxDeleteError};
pub(crate) use peer_listing::PeerNames;
pub use reach::SeenBy;
pub(crate) use read_source::{ReadSource, VerifiedChunk};
pub(crate) use readings::{EnteredReader, ReadStep, Reading};
pub use report::{DownloadEnd, Failed, FileReport, LocalBytes, Phase, Progress, Report};
pub use resolve::Resolved;
pub use search_results::FoundFile;
pub use selection::Selection;
pub(crate) use stats::Stats;
pub use survey::ListedNames;
pub use sync_plan::{KeptFile, KeptReason, SyncHindrance, SyncPlan};
pub(crate) use sync_plan::{LocalSide, SyncLimits};
pub use targets::Target;
pub use tree::{LiesThere, OtherName, Tree, TreeLink};
pub use want::{Everything, Want};
pub(crate) use want::{exact, join_found};
pub use whole_listing::WholeListing;
