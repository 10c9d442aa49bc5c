//! The thread of a fetch: finds what is meant, downloads it, rests while it is paused.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::client::{
    AskScope, Canceller, Client, Download, DownloadEnd, DownloadOptions, DownloadPlan, FailedFile, FetchError,
    FoundFile, Phase, Resolved, Selection, Target, Want, join_found,
};
use crate::content::{Attributes, RelPath, RelPathError};
use crate::limits::WAIT_MAX;
use crate::node::fetch_state::FetchState;
use crate::node::open_files::OpenFiles;
use crate::store::{Disk, OwnFiles, place_of, warn_of_risk};
use crate::sync::lock;

/// What the thread of a fetch has to do.
pub(super) struct FetchJob {
    pub(super) client: Client,
    pub(super) want: Want,
    pub(super) place: Place,
    pub(super) selection: Selection,
    pub(super) options: DownloadOptions,
    /// What takes the bytes, if they go to no file, and where they are read.
    pub(super) writer: Option<(FetchWriter, Arc<OpenFiles>)>,
    pub(super) own_files: Arc<OwnFiles>,
    /// Where is recorded what was put in place; nowhere without a state directory.
    pub(super) state_dir: Option<PathBuf>,
    pub(super) state: Arc<FetchState>,
}

/// Where the files of a fetch go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Below this directory, each under its own name.
    Dir { dir: PathBuf, create: bool },
    /// Below the one of these directories that their names begin with, under the rest of their names.
    NamedDirs { dirs: Vec<(Option<RelPath>, PathBuf)>, create: bool },
    /// There is one file, and this is its path.
    File(PathBuf),
    /// There is one file, and a writer takes it.
    Writer,
}

/// What takes the bytes of a fetch.
pub(super) struct FetchWriter(pub(super) Box<dyn Write + Send>);

/// A place with the files for it.
struct Placed {
    dir: PathBuf,
    create: bool,
    targets: Vec<Target>,
    /// What the files are besides their contents, by place; empty if that is not wanted.
    attributes: Vec<(RelPath, Attributes)>,
    /// What has no place, because it was not found.
    failed: Vec<FailedFile>,
}

impl FetchJob {
    /// Runs until the fetch has ended.
    pub(super) fn run(mut self) {
        let DownloadEnd { report, error } = self.fetch();
        if let Some(error) = &error {
            self.client.failures.count(error);
        }
        self.state.finish(report, error);
    }

    fn fetch(&mut self) -> DownloadEnd {
        let wake = self.waker();
        let _cancel = self.state.canceller.signal().while_held(wake.clone());
        let _stop = self.client.ctx.shutdown.while_held(wake);
        let found = self.find();
        if let Some(writer) = self.writer.take() {
            return match found {
                Ok(found) => self.pour(found, writer),
                Err(error) => self.failed(error, Vec::new()),
            };
        }
        let found = found.map(|mut found| (self.plan_tree(&mut found), found));
        let placed = found.and_then(|(tree, found)| Ok((self.place.of(&self.state.what, found)?, tree)));
        let (placed, mut tree) = match placed {
            Ok(placed) => placed,
            Err(error) => return self.failed(error, Vec::new()),
        };
        let Placed { dir, create, targets, mut attributes, mut failed } = self.without_own(placed);
        self.state.set_dir(&dir);
        if targets.is_empty() && tree.is_empty() {
            return self.all_failed(failed);
        }
        let DownloadOptions { overwrite, life, .. } = self.options;
        match Disk::open_for(&dir, create, overwrite, self.state_dir.as_deref(), life) {
            Ok(disk) => {
                warn_of_risk(&dir);
                if let Some(damaged) = &self.options.damaged {
                    disk.repair(damaged);
                }
                if !self.options.contents_only {
                    attributes.extend(tree.attributes());
                    disk.set_attributes(attributes);
                }
                self.state.found(targets.len() + tree.names_with_content(), contents_len(&targets));
                let end = match targets.is_empty() {
                    true => self.all_failed(failed),
                    false => self.download(&disk, targets, failed),
                };
                let end = self.write_other_firsts(&disk, &mut tree, end);
                let DownloadEnd { report, error } = self.place_tree(&disk, &tree, end);
                // Nobody finds what lies in a directory that was moved away.
                let away = || disk.check_place().err().map(|e| Arc::new(FetchError::from(e)));
                DownloadEnd { report, error: error.or_else(away) }
            }
            Err(error) => {
                let error = Arc::new(FetchError::from(error));
                failed.extend(targets.iter().map(|target| FailedFile::new(target.path.as_str(), error.clone())));
                self.all_failed(failed)
            }
        }
    }

    /// What is meant, and what of it cannot be found.
    fn find(&mut self) -> Result<Resolved, FetchError> {
        let Want { texts, files, bare, .. } = std::mem::take(&mut self.want);
        if texts.is_empty() {
            return Ok(Resolved { files: join_found(Vec::new(), files)?, bare, ..Resolved::default() });
        }
        let mut found = self.search(&texts)?;
        found.bare.extend(bare);
        found.bare.sort_by(|a, b| a.path.cmp(&b.path));
        found.bare.dedup_by(|a, b| a.path == b.path);
        Ok(Resolved { files: join_found(found.files, files)?, ..found })
    }

    /// Looks for `texts`. A pause ends the search, and a new one begins after it.
    fn search(&self, texts: &[String]) -> Result<Resolved, FetchError> {
        loop {
            if let Some(error) = self.rest() {
                return Err(error);
            }
            self.state.enter(Phase::Searching);
            self.state.tell();
            let canceller = Canceller::new();
            let _interrupts = self.state.interrupts(&canceller);
            let scope = AskScope { nodes: self.options.sources.clone(), canceller };
            match self.client.resolve(texts, &self.selection, &scope, self.client.ctx.timeout) {
                Err(FetchError::Cancelled) if !self.state.canceller.is_cancelled() => {}
                found => return found,
            }
        }
    }

    /// Takes the targets out that are files of this node itself: these fail.
    fn without_own(&self, mut placed: Placed) -> Placed {
        let names = placed.targets.iter().map(|target| target.out.as_str());
        let mut refused = self.own_files.refused(&placed.dir, names).into_iter().peekable();
        let mut at = 0;
        placed.targets.retain(|target| {
            let error = refused.next_if(|(refused, _)| *refused == at).map(|(_, error)| error);
            at += 1;
            let is_own = error.is_some();
            placed.failed.extend(error.map(|e| FailedFile::new(target.path.as_str(), FetchError::from(e))));
            !is_own
        });
        placed
    }

    /// Downloads `targets`, and reports `failed` with them. A pause ends the download; what comes
    /// after it is a new one of what is still missing.
    pub(super) fn download(&self, disk: &Arc<Disk>, mut targets: Vec<Target>, failed: Vec<FailedFile>) -> DownloadEnd {
        let mut failed_before = failed.clone();
        loop {
            if let Some(error) = self.rest() {
                return self.failed(error, failed_before);
            }
            self.state.enter(Phase::Fetching);
            let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(self.waker());
            let plan = DownloadPlan::new(targets.clone(), disk.clone(), self.options.clone());
            let plan = plan.with_failed(failed.clone());
            let (end, has_paused) = match Download::start(plan.watched(self.state.stats.clone(), notify), &self.client)
            {
                Ok(download) => self.watch(&download),
                Err(error) => (self.failed(error, failed_before), false),
            };
            let is_cancelled = matches!(end.error.as_deref(), Some(FetchError::Cancelled));
            if !is_cancelled || !has_paused || self.state.canceller.is_cancelled() {
                return end;
            }
            failed_before = end.report.failed;
            let done: HashSet<RelPath> = lock(&self.state.stats.reports).iter().map(|r| r.out.clone()).collect();
            let all = contents_len(&targets);
            targets.retain(|target| !done.contains(&target.out));
            self.state.stats.resume(all - contents_len(&targets));
        }
    }

    /// Waits for the end of `download`, which the end of the fetch and a pause cancel. Returns
    /// whether a pause did.
    fn watch(&self, download: &Download) -> (DownloadEnd, bool) {
        let mut has_paused = false;
        loop {
            let seen = self.state.changes();
            has_paused |= self.state.is_paused();
            if has_paused || self.state.canceller.is_cancelled() {
                download.cancel();
            }
            if let Some(end) = download.end() {
                return (end, has_paused);
            }
            self.state.tell();
            self.state.wait_beyond(seen, WAIT_MAX);
        }
    }

    /// Blocks while the fetch is paused. Returns why it does not resume.
    pub(super) fn rest(&self) -> Option<FetchError> {
        let mut told = false;
        loop {
            let seen = self.state.changes();
            if self.client.ctx.shutdown.has_begun() {
                return Some(FetchError::Stopped);
            }
            if self.state.canceller.is_cancelled() {
                return Some(FetchError::Cancelled);
            }
            if !self.state.is_paused() {
                // What comes now has its whole time.
                self.state.stats.progressed();
                return None;
            }
            if !std::mem::replace(&mut told, true) {
                self.state.enter(Phase::Paused);
                continue;
            }
            self.state.tell();
            self.state.wait_beyond(seen, Duration::MAX.min(WAIT_MAX));
        }
    }

    /// Wakes this thread, and all that wait for the fetch.
    fn waker(&self) -> impl Fn() + Send + Sync + Clone + use<> {
        let state = self.state.clone();
        move || state.wake()
    }

    /// An end while no download runs, with what was reached.
    pub(super) fn failed(&self, error: FetchError, failed: Vec<FailedFile>) -> DownloadEnd {
        DownloadEnd { report: self.state.report(failed), error: Some(Arc::new(error)) }
    }

    /// An end of which nothing is in place. Nothing to fetch is a good one, if it was left out.
    pub(super) fn all_failed(&self, failed: Vec<FailedFile>) -> DownloadEnd {
        let error = FailedFile::gravest(&failed).cloned();
        DownloadEnd { report: self.state.report(failed), error }
    }
}

impl fmt::Debug for FetchWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchWriter")
    }
}

impl Drop for FetchJob {
    /// A thread that panics ends its fetch all the same.
    fn drop(&mut self) {
        if !self.state.has_ended() {
            let report = self.state.report(Vec::new());
            self.state.finish(report, Some(Arc::new(FetchError::Cancelled)));
        }
    }
}

impl Place {
    /// The directory that the files go below.
    pub(super) fn dir(&self) -> &Path {
        match self {
            Place::Dir { dir, .. } => dir,
            // Known when the files are.
            Place::NamedDirs { dirs, .. } => dirs.first().map_or(Path::new("."), |(_, dir)| dir),
            Place::Writer => Path::new(""),
            Place::File(path) => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        }
    }

    /// The places of `found`, which is what was asked for as `what`.
    fn of(&self, what: &str, found: Resolved) -> Result<Placed, FetchError> {
        let Resolved { files, mut failed, .. } = found;
        let mut attributes = Vec::with_capacity(files.len());
        let mut target = |file: FoundFile, out: Option<RelPath>| {
            let out = out.unwrap_or_else(|| file.path.clone());
            attributes.push((out.clone(), file.attributes));
            Target { path: file.path, id: file.id, out, holders: file.holders }
        };
        match self {
            Place::Writer => Ok(Placed { dir: PathBuf::new(), create: false, targets: Vec::new(), attributes, failed }),
            Place::Dir { dir, create } => {
                let targets = files.into_iter().map(|file| target(file, None)).collect();
                Ok(Placed { dir: dir.clone(), create: *create, targets, attributes, failed })
            }
            Place::NamedDirs { dirs, create } => {
                let mut places = Vec::with_capacity(files.len());
                for file in files {
                    match place_of(dirs.iter().map(|(name, _)| name.as_ref()), &file.path) {
                        Some((number, local)) => places.push((number, target(file, Some(local)))),
                        None => failed.push(FailedFile::new(file.path.as_str(), FetchError::NoDirectory)),
                    }
                }
                let mut used: Vec<usize> = places.iter().map(|(number, _)| *number).collect();
                used.sort_unstable();
                used.dedup();
                let dirs_used: Vec<PathBuf> =
                    used.iter().filter_map(|&number| Some(dirs.get(number)?.1.clone())).collect();
                let [dir] = dirs_used.as_slice() else {
                    if dirs_used.is_empty() {
                        let (dir, targets) = (self.dir().into(), Vec::new());
                        return Ok(Placed { dir, create: *create, targets, attributes, failed });
                    }
                    return Err(FetchError::SeveralDirs { what: what.into(), dirs: dirs_used });
                };
                let targets = places.into_iter().map(|(_, target)| target).collect();
                Ok(Placed { dir: dir.clone(), create: *create, targets, attributes, failed })
            }
            Place::File(path) => {
                let (dir, name) = (self.dir().to_path_buf(), file_name(path)?);
                let targets: Vec<Target> = files.into_iter().map(|file| target(file, Some(name.clone()))).collect();
                match targets.len() + failed.len() {
                    0 | 1 => Ok(Placed { dir, create: true, targets, attributes, failed }),
                    files => Err(FetchError::SeveralFiles { what: what.into(), files, path: path.clone() }),
                }
            }
        }
    }
}

/// The name of a file in its directory.
fn file_name(path: &Path) -> Result<RelPath, FetchError> {
    // `file_name` would overlook the slash behind a directory.
    let is_dir = path.to_string_lossy().ends_with('/');
    let name = path.file_name().filter(|_| !is_dir).ok_or(RelPathError::Empty);
    let name = name.and_then(|name| name.to_str().ok_or(RelPathError::Character)).and_then(RelPath::new);
    name.map_err(|source| FetchError::Out { path: path.into(), source })
}

/// Bytes of all different contents.
fn contents_len(targets: &[Target]) -> u64 {
    let mut seen = HashSet::with_capacity(targets.len());
    targets.iter().filter(|target| seen.insert(target.id)).map(|target| target.id.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileId, Root};

    fn found(path: &str) -> FoundFile {
        let id = FileId { root: Root(Digest([1; 32])), len: 5 };
        FoundFile {
            path: RelPath::new(path).unwrap(),
            id,
            holders: [].into(),
            shared: true,
            attributes: Default::default(),
            link: None,
        }
    }

    #[test]
    fn a_place_is_a_file_or_a_directory_because_the_caller_said_so() {
        let outs = |place: &Place, files: &[&str]| {
            let files = files.iter().map(|path| found(path)).collect();
            let placed = place.of("x", Resolved { files, ..Resolved::default() })?;
            let outs: Vec<String> = placed.targets.iter().map(|t| t.out.to_string()).collect();
            Ok::<_, FetchError>((placed.dir, outs))
        };
        let file = |path: &str| Place::File(path.into());
        let dir = Place::Dir { dir: "/x".into(), create: true };
        assert_eq!(outs(&dir, &["d/a"]).unwrap(), ("/x".into(), vec!["d/a".to_string()]));
        assert_eq!(outs(&file("/x/y.bin"), &["d/a"]).unwrap(), ("/x".into(), vec!["y.bin".to_string()]));
        assert_eq!(outs(&file("y.bin"), &["d/a"]).unwrap(), (".".into(), vec!["y.bin".to_string()]));
        assert!(matches!(outs(&file("/x/y"), &["a", "b"]), Err(FetchError::SeveralFiles { files: 2, .. })));
        for path in ["/x/.gpb", "/", "/x/", ""] {
            assert!(matches!(outs(&file(path), &["a"]), Err(FetchError::Out { .. })), "{path}");
        }
    }
}
