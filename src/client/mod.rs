//! Finds and fetches files: who is there, what they hold, and all of it at once. Tier 6.
//!
//! `survey` asks everyone, `resolve` turns what a person typed into files, `download` fetches them. What a download
//! decides is pure and lies in [`DownloadState`](crate::swarm::DownloadState) and [`Mesh`](crate::swarm::Mesh); its I/O lies in
//! `fetcher` (one connection), `storing` (the disk) and `driver` (connections). A chunk is verified in `fetcher`.

mod buffers;
mod context;
mod download;
mod driver;
mod error;
mod fetcher;
pub mod limits;
mod listing;
mod report;
mod resolve;
mod search_results;
mod shared;
mod storing;
mod survey;

pub use context::{Client, ClientContext};
pub use download::{Download, DownloadHandle, DownloadPlan, Target};
pub use error::{Candidate, FetchError};
pub(crate) use error::{OTHER_NETWORK, UNKNOWN_VERSION};
pub use report::{FileReport, Progress, Report};
pub use search_results::FoundFile;
pub use survey::FoundPeer;
