//! Reads the listing of one peer, for a caller that knows which peer to ask when.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::client::asking::{Asking, Inquiry};
use crate::client::listing::lister;
use crate::client::search_results::{FoundFile, SearchResults};
use crate::client::survey::ask_once;
use crate::client::{Client, FetchError};
use crate::content::{Bare, RelPath};
use crate::peers::AskError;
use crate::swarm::PeerRecord;

/// What one peer lists, sorted by path.
#[derive(Debug)]
pub(crate) struct PeerNames {
    pub(crate) files: Vec<FoundFile>,
    /// Empty directories, and links without a content.
    pub(crate) bare: Vec<(RelPath, Bare)>,
    /// The names of the files that are copies and expire when unused for long.
    pub(crate) temporary: HashSet<RelPath>,
}

impl Client {
    /// Asks the peer of `record` for what one of `patterns` means, on a thread of the client,
    /// which hands the answer to `done`. A peer that sends nothing for `timeout` fails. Setting `over`
    /// ends it at the next page, with what came.
    ///
    /// # Errors
    /// [`FetchError::Threads`]
    pub(crate) fn read_listing(
        &self,
        record: PeerRecord,
        patterns: &[String],
        timeout: Duration,
        over: Arc<AtomicBool>,
        done: impl FnOnce(Result<PeerNames, AskError>) + Send + 'static,
    ) -> Result<(), FetchError> {
        let (pool, Inquiry { opening, ask }) = (self.pool.clone(), lister(patterns, timeout, None));
        let asking = Asking::new(over, false);
        let task = move || {
            let listed = pool.checkout_to_ask(&record, &opening, false).and_then(|session| {
                let listing = ask_once(&pool, session, (&record, &opening, false), |session| ask(session, &asking))?;
                let mut results = SearchResults::default();
                let temporary = listing.temporary();
                drop(listing.merge(record.node(), &mut results));
                let bare = results.bare().map(|(path, offered)| (path.clone(), offered.bare.clone())).collect();
                Ok(PeerNames { bare, temporary, files: results.into_files() })
            });
            done(listed);
        };
        self.askers.spawn(task).map_err(FetchError::Threads)
    }
}
