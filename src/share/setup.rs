//! What the service and its thread hand to each other.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::content::{Catalogue, Entry, FileId, RelPath};
use crate::runtime::{EventSender, Shutdown, Watch};
use crate::share::publish_error::PublishError;
use crate::store::{Index, OwnFiles, Reader};

/// What a [`Sharer`](crate::share::Sharer) needs.
#[derive(Debug, Clone)]
pub struct ShareSetup {
    /// The shared directory, which must exist.
    pub dir: PathBuf,
    /// What was hashed in earlier runs, and where the chunk layers go.
    pub index: Arc<Index>,
    /// Where fetches record what they put in place, which tells copies from files of the user's; none
    /// where nothing is recorded.
    pub records: Option<PathBuf>,
    /// The reader that serves the directory. It closes removed and changed files when a snapshot is
    /// published.
    pub reader: Arc<Reader>,
    /// What is never offered.
    pub own_files: Arc<OwnFiles>,
    /// Where snapshots are published.
    pub catalogue: Arc<Watch<Arc<Catalogue>>>,
    /// Where changes of the catalogue and withdrawn files are reported.
    pub events: EventSender,
    /// Ends the service.
    pub shutdown: Shutdown,
}

/// The number of files of the first complete catalogue and their bytes, once there is one.
pub(super) type FirstComplete = Option<(u64, u64)>;

/// Where the outcome of a publication goes.
pub(super) type PublishAnswer = Sender<Result<FileId, PublishError>>;

/// A request to the indexing thread.
#[derive(Debug)]
pub(super) enum IndexerCommand {
    /// Withdraw this entry: the disk holds other bytes than the hashed ones.
    Withdraw(Entry),
    /// Look at the file of this entry: a request found it in another state.
    Recheck(Entry),
    /// Look at these files, which were put in place or removed just now.
    Look(Vec<RelPath>),
    /// Offer this file as it is now.
    Publish(RelPath, PublishAnswer),
    /// Offer this file no longer.
    Forget(RelPath, Sender<bool>),
    /// Look at the shutdown signal.
    Wake,
}
