//! Starts the fetches of a node, and knows the running ones.

use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{Client, DownloadOptions, FetchError, Selection, Want};
use crate::node::fetch::{Fetch, RunningFetches};
use crate::node::fetch_job::{FetchJob, FetchWriter, Place};
use crate::node::fetch_state::FetchState;
use crate::node::open_files::OpenFiles;
use crate::store::OwnFiles;

/// What a node starts its fetches with.
pub(super) struct FetchStarter {
    pub(super) client: Client,
    pub(super) own_files: Arc<OwnFiles>,
    /// Where is recorded what was put in place; nowhere without a state directory.
    pub(super) state_dir: Option<PathBuf>,
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) running: RunningFetches,
}

/// What is to be fetched, and how.
#[derive(Debug)]
pub(super) struct FetchOrder {
    pub(super) want: Want,
    pub(super) place: Place,
    pub(super) selection: Selection,
    pub(super) options: DownloadOptions,
    /// What takes the bytes; then the place is [`Place::Writer`].
    pub(super) writer: Option<FetchWriter>,
}

impl FetchStarter {
    /// Starts a fetch.
    pub(super) fn start(&self, order: FetchOrder) -> Result<Fetch, FetchError> {
        let FetchOrder { want, place, selection, options, writer } = order;
        let state = Arc::new(FetchState::new(want.shown(), place.dir().to_path_buf()));
        let (client, own_files, state_dir) = (self.client.clone(), self.own_files.clone(), self.state_dir.clone());
        let writer = writer.map(|writer| (writer, self.open_files.clone()));
        let job = FetchJob { client, want, place, selection, options, writer, own_files, state_dir, state };
        let fetch = Fetch::start(job).map_err(FetchError::Threads)?;
        self.running.add(&fetch);
        Ok(fetch)
    }
}
