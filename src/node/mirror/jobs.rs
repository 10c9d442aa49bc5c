//! The fetches of a mirror.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::chain::Chain;
use crate::client::{Client, Doorbell, DownloadOptions, FailedFile, FetchError, Selection, Want};
use crate::content::{Catalogue, FileId, RelPath};
use crate::node::fetch::Fetch;
use crate::node::fetch_job::{FetchJob, Place};
use crate::node::fetch_state::FetchState;
use crate::node::mirror::links::{MirrorWant, OfferedLinks};
use crate::node::mirror::{MirrorLoans, MirrorTerms};
use crate::node::updates::{Update, Updates};
use crate::runtime::LimitedLog;
use crate::store::{Life, OwnFiles, StoreError};
use crate::swarm::{MirrorBatch, MirrorPlan, Setback};

/// Runs fetches, and says what came of them.
pub(super) struct MirrorJobs {
    client: Client,
    own_files: Arc<OwnFiles>,
    dir: PathBuf,
    state: PathBuf,
    bell: Doorbell,
    running: Vec<MirrorJob>,
    /// Fetches for which there was no thread.
    failed_to_start: Vec<(u64, HashMap<RelPath, FileId>)>,
    /// Files that are in place and not offered yet.
    placed: HashMap<RelPath, FileId>,
    /// What the links lead to that are being made.
    held: HashSet<RelPath>,
}

struct MirrorJob {
    number: u64,
    fetch: Fetch,
    updates: Updates,
    /// What is not in place yet.
    left: HashMap<RelPath, FileId>,
    /// The files that links of it lead to.
    targets: HashSet<RelPath>,
    /// When it began.
    begun: Instant,
}

impl MirrorJobs {
    pub(super) fn new(terms: &MirrorTerms, loans: &MirrorLoans, bell: Doorbell) -> Self {
        MirrorJobs {
            client: loans.client.clone(),
            own_files: loans.own_files.clone(),
            dir: terms.dir.clone(),
            state: terms.state.clone(),
            bell,
            running: Vec::new(),
            failed_to_start: Vec::new(),
            placed: HashMap::new(),
            held: HashSet::new(),
        }
    }

    /// Begins to fetch `batch`; without a thread for it, it fails. The files that its links lead to are
    /// fetched with them, if they are not here: else each link would be a copy.
    pub(super) fn start(&mut self, batch: MirrorBatch, links: &OfferedLinks<'_>) {
        let MirrorBatch { job: number, files } = batch;
        let left: HashMap<RelPath, FileId> = files.iter().map(|(file, _)| (file.path.clone(), file.id)).collect();
        let mut want = MirrorWant::new(links);
        for (file, _) in &files {
            want.take_target(file, |_| true);
            want.take(file);
        }
        let targets = want.files().filter(|path| !left.contains_key(path)).cloned().collect();
        let want = want.finish().map_or(Want::default(), |(want, _)| want);
        match self.fetch(want) {
            Ok(fetch) => {
                let updates = fetch.updates();
                self.running.push(MirrorJob { number, fetch, updates, left, targets, begun: Instant::now() });
            }
            Err(e) => {
                log::warn!("mirrored files not fetched error=\"{e}\"");
                self.failed_to_start.push((number, left));
            }
        }
    }

    /// Begins to fetch `want` into the directory, which rings the bell of the mirror.
    ///
    /// # Errors
    /// [`FetchError::Threads`]
    pub(super) fn fetch(&self, want: Want) -> Result<Fetch, FetchError> {
        let state = Arc::new(FetchState::new(want.shown(), self.dir.clone()));
        let job = FetchJob {
            client: self.client.clone(),
            want,
            place: Place::Dir { dir: self.dir.clone(), create: false },
            selection: Selection::default(),
            options: DownloadOptions { life: Life::Mirrored, ..DownloadOptions::default() },
            writer: None,
            own_files: self.own_files.clone(),
            state_dir: Some(self.state.clone()),
            state,
        };
        let fetch = Fetch::start(job).map_err(FetchError::Threads)?;
        let bell = self.bell.clone();
        fetch.on_update(move |_| bell.ring());
        Ok(fetch)
    }

    /// Tells `plan` what came of the fetches. Returns the names that are in place since the last call.
    pub(super) fn take_news(&mut self, plan: &mut MirrorPlan, log: &LimitedLog, now: Instant) -> Vec<RelPath> {
        let mut placed = Vec::new();
        for (number, left) in std::mem::take(&mut self.failed_to_start) {
            left.keys().for_each(|path| plan.failed(path, Setback::Later, now));
            plan.ended(number);
        }
        let mut ended = Vec::new();
        for (at, job) in self.running.iter_mut().enumerate() {
            // Asked before the news are read: none comes after the end.
            let has_ended = job.fetch.wait_for(std::time::Duration::ZERO);
            while let Some(update) = job.updates.try_recv() {
                match update {
                    Update::File(file) => {
                        job.left.remove(&file.path);
                        plan.fetched(&file.path, &file.id);
                        self.placed.insert(file.path.clone(), file.id);
                        placed.push(file.path);
                    }
                    Update::Ended => break,
                    Update::Progress(_) => {}
                }
            }
            if has_ended {
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            let job = self.running.swap_remove(at);
            job.end(plan, log, now);
        }
        placed
    }

    /// Ends the fetches of which nothing is still wanted.
    pub(super) fn end_outdated(&self, plan: &MirrorPlan) {
        self.running.iter().filter(|job| plan.is_outdated(job.number)).for_each(|job| job.fetch.cancel());
    }

    /// The content that was put at `path` and is not offered yet.
    pub(super) fn placed(&self, path: &RelPath) -> Option<FileId> {
        self.placed.get(path).copied()
    }

    /// Forgets what `catalogue` has.
    pub(super) fn forget_offered(&mut self, catalogue: &Catalogue) {
        self.placed.retain(|path, id| catalogue.get(path.as_str()).is_none_or(|entry| entry.id != *id));
    }

    /// Nothing lies at `path` any more.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.placed.remove(path);
    }

    /// The number of running fetches.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Links are being made that lead to these files, which replace the files of the last call.
    pub(super) fn hold(&mut self, files: HashSet<RelPath>) {
        self.held = files;
    }

    /// Whether `path` is being fetched, or a link to it: that would bring back what is removed meanwhile.
    pub(super) fn is_fetching(&self, path: &RelPath) -> bool {
        let is_of = |job: &MirrorJob| job.left.contains_key(path) || job.targets.contains(path);
        self.held.contains(path) || self.running.iter().any(is_of)
    }

    /// Bytes that are still to be put in place.
    pub(super) fn bytes_left(&self) -> u64 {
        self.running.iter().flat_map(|job| job.left.values()).map(|id| id.len).fold(0, u64::saturating_add)
    }
}

impl MirrorJob {
    /// The fetch is over.
    fn end(self, plan: &mut MirrorPlan, log: &LimitedLog, now: Instant) {
        let (report, error) = match self.fetch.wait() {
            Ok(report) => (report, None),
            Err(failed) => (failed.report, Some(failed.error)),
        };
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64();
        let (files, bytes) = (report.fetched.len(), report.bytes);
        if files > 0 {
            log::info!("mirrored files={files} bytes={bytes} seconds={seconds:.3}");
        }
        let mut failed: HashMap<&str, &FailedFile> = report.failed.iter().map(|f| (f.path.as_str(), f)).collect();
        // A name that has a cause of its own tells more than one that the end of the fetch left.
        let (mut first_own, mut first) = (None, None);
        for path in self.left.keys() {
            let own = failed.remove(path.as_str()).map(|failed| &failed.error);
            let cause = own.or(error.as_ref());
            let setback = cause.map_or(Setback::Later, |error| setback(error));
            first_own = first_own.or(own.map(|cause| (path, cause)));
            first = first.or(cause.map(|cause| (path, cause)));
            plan.failed(path, setback, now);
        }
        let first = first_own.or(first);
        if let Some((path, cause)) = first.filter(|(_, cause)| !is_end(cause)) {
            let others = self.left.len() - 1;
            log.log(log::Level::Warn, now, format_args!("{}", line_of(path, others, cause)));
        }
        plan.ended(self.number);
    }
}

/// What a failure means for the file.
pub(super) fn setback(error: &FetchError) -> Setback {
    match error {
        FetchError::Storage(
            StoreError::Exists { .. }
            | StoreError::NameTaken { .. }
            | StoreError::NotRegular { .. }
            | StoreError::OwnFile { .. }
            | StoreError::SameName { .. },
        ) => Setback::Users,
        _ => Setback::Later,
    }
}

/// What the log says of a name that did not come.
fn line_of(path: &RelPath, others: usize, cause: &FetchError) -> String {
    format!("not mirrored for now path={path} others={others} error=\"{}\"", Chain(cause))
}

/// Whether the mirror or the node ended the fetch.
pub(super) fn is_end(error: &FetchError) -> bool {
    matches!(error, FetchError::Cancelled | FetchError::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: the log showed an error without what caused it. Effect: "cannot use m/a:b", and no word on why. Mend: all
    /// causes are said.
    #[test]
    fn a_name_that_did_not_come_is_told_with_its_cause() {
        let cause = StoreError::Io { path: "m/a:b".into(), source: std::io::Error::other("invalid name") };
        let line = line_of(&RelPath::new("a:b").unwrap(), 2, &cause.into());
        assert_eq!(line, "not mirrored for now path=a:b others=2 error=\"cannot use m/a:b: invalid name\"");
    }
}
