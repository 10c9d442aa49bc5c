//! Making a directory equal to that of one peer.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::client::{
    AskScope, FailedFile, FetchError, FoundFile, KeptFile, KeptReason, LocalSide, MaxDelete, Report, Selection,
    SyncHindrance, SyncLimits, SyncPlan, Wait, Want, WholeListing, exact,
};
use crate::content::{Pattern, RelPath};
use crate::identity::{KeyPrefix, NodeId};
use crate::node::{Fetch, Node};
use crate::store::{Disk, FetchedFiles, LocalName, LocalTree, Overwrite, SharedInodes, StoreError};

mod exclude;

use exclude::SyncExclude;

impl Node {
    /// Makes a local directory equal to that of the peer whose key begins with `from`: what the peer
    /// has is fetched, from all that have it, and what it does not have is removed. `dir` is the name
    /// of the directory there and below [`Config::dir`](crate::Config::dir) here; `.` is all of it.
    ///
    /// Removed is only what an earlier fetch put in place, unless
    /// [`overwrite`](SyncDir::overwrite) says otherwise, and only by a list that the peer says is
    /// complete; see [`SyncPlan`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use gpb::KeyPrefix;
    ///
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let server = lan.sharing(&[("models/a.bin", b"a"), ("models/b.bin", b"b")])?;
    /// # server.wait_ready(Duration::from_secs(10));
    /// # let node = lan.node()?;
    /// let from = KeyPrefix::from(server.id());
    /// let planned = node.sync("models", from).look(Duration::from_secs(2))?;
    /// println!("{} files would be removed", planned.plan().remove.len());
    /// let report = planned.start()?.wait()?;
    /// assert_eq!((report.fetched.files, report.removed.len()), (2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync(&self, dir: impl AsRef<str>, from: impl Into<KeyPrefix>) -> SyncDir<'_> {
        SyncDir {
            node: self,
            dir: dir.as_ref().into(),
            from: from.into(),
            place: self.config.dir.clone(),
            exclude: Vec::new(),
            overwrite: Overwrite::default(),
            max_delete: MaxDelete::default(),
        }
    }
}

/// A sync that is about to be planned: [`Node::sync`](crate::Node::sync) begins it,
/// [`look`](Self::look) asks the peer.
#[derive(Debug)]
#[must_use = "it begins with `look`"]
pub struct SyncDir<'n> {
    node: &'n Node,
    dir: String,
    from: KeyPrefix,
    place: Option<PathBuf>,
    exclude: Vec<Pattern>,
    overwrite: Overwrite,
    max_delete: MaxDelete,
}

impl<'n> SyncDir<'n> {
    /// Makes the directory of that name below this one equal. Default
    /// [`Config::dir`](crate::Config::dir).
    pub fn into_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.place = Some(dir.into());
        self
    }

    /// What one of these means is neither fetched nor removed, by its name on both sides, or by its
    /// content wherever that lies: a file here that has it stays, whatever the peer has under its name.
    /// Default: none.
    pub fn exclude(mut self, patterns: impl Into<Vec<Pattern>>) -> Self {
        self.exclude = patterns.into();
        self
    }

    /// What to do with files that no fetch put there, or that were changed since. With
    /// [`Overwrite::Replace`] they are replaced or removed like all others, in any number; else they
    /// stay. Default [`Overwrite::Refuse`].
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Removes nothing if more than this would go: files, links, and empty directories that a fetch made. A
    /// file whose content the peer has under another name does not count. Default: half of what is there.
    pub fn max_delete(mut self, max: MaxDelete) -> Self {
        self.max_delete = max;
        self
    }

    /// Asks the peer, and looks at what is here. Nothing is changed. Blocks until the peer has
    /// listed all, at most for `wait` without an answer; files that changed since they were fetched
    /// are hashed.
    ///
    /// # Errors
    /// - [`FetchError::NoDirectory`], [`FetchError::Name`]: no place, or no name of a directory
    /// - [`FetchError::Prefix`]: no peer with that key answered, or several
    /// - [`FetchError::NotFound`]: the peer has nothing of that name
    /// - [`FetchError::Storage`]: the local directory cannot be read
    /// - the errors of a question that no peer answers
    pub fn look(self, wait: impl Into<Wait>) -> Result<PlannedSync<'n>, FetchError> {
        let wait = wait.into();
        let place = self.place.clone().ok_or(FetchError::NoDirectory)?;
        // As a shell completes it.
        let dir = match self.dir.strip_prefix("./").unwrap_or(&self.dir).trim_end_matches('/') {
            "" | "." => None,
            dir => Some(RelPath::new(dir).map_err(|source| FetchError::Name { path: dir.into(), source })?),
        };
        let scope = AskScope { nodes: None, canceller: wait.canceller };
        let client = &self.node.client;
        let mut listing = client.whole_listing(&self.from, dir.as_ref(), &scope, wait.time)?;
        if let Some(dir) = dir.as_ref().filter(|_| is_empty(&listing)) {
            return Err(FetchError::NotFound { what: dir.to_string(), answered: 1 });
        }
        let selection = Selection { exclude: self.exclude.clone(), hidden: true, prefer: Some(self.from.clone()) };
        let mut exclude = SyncExclude::take_out(&selection, &mut listing);
        let state_dir = self.node.config.state.path().ok().flatten();
        let disk = match place.is_dir() {
            true => Some(Disk::open_guarded(&place, false, self.overwrite, state_dir.as_deref())?),
            false => None,
        };
        let stop = || client.ctx.shutdown.has_begun() || scope.canceller.is_cancelled();
        let tree = match &disk {
            Some(disk) => disk.tree(dir.as_ref().map_or("", RelPath::as_str), &stop)?,
            None => LocalTree::default(),
        };
        if let Some(disk) = &disk {
            exclude.look_at(&mut listing, (disk, &tree), &stop);
        }
        let names = tree.names.iter().map(|name| name.path.as_str());
        let own: BTreeSet<usize> = self.node.own_files.refused(&place, names).into_iter().map(|(at, _)| at).collect();
        let own: BTreeSet<RelPath> = own.into_iter().map(|at| tree.names[at].path.clone()).collect();
        let local = LocalSide {
            tree,
            fetched_as: &|name| disk.as_ref()?.fetched_as(name, &stop),
            is_made_dir: &|dir| disk.as_ref().is_some_and(|disk| disk.is_made_dir(dir)),
            is_left_out: &|path| own.contains(path) || exclude.has(path),
            is_same: &|name, twin| disk.as_ref().is_some_and(|disk| disk.has(name, twin)),
        };
        let limits = SyncLimits { force: self.overwrite == Overwrite::Replace, max_delete: self.max_delete };
        let mut plan = SyncPlan::new(listing, local, limits);
        if stop() {
            return Err(if client.ctx.shutdown.has_begun() { FetchError::Stopped } else { FetchError::Cancelled });
        }
        let texts = [dir.as_ref().map_or_else(|| "**".into(), exact)];
        // Others that have the same are as good as the peer itself; without them it goes as well.
        if let Ok(found) = client.resolve(&texts, &selection, &scope, wait.time) {
            let holders: HashMap<_, _> = found.files.into_iter().map(|file| (file.id, file.holders)).collect();
            for file in &mut plan.files {
                if let Some(more) = holders.get(&file.id) {
                    file.holders = joined(&file.holders, more);
                }
            }
        }
        Ok(PlannedSync { node: self.node, place, overwrite: self.overwrite, plan })
    }
}

/// A sync that was planned and changed nothing so far.
#[derive(Debug)]
#[must_use = "it begins with `start`"]
pub struct PlannedSync<'n> {
    node: &'n Node,
    place: PathBuf,
    overwrite: Overwrite,
    plan: SyncPlan,
}

impl PlannedSync<'_> {
    /// What it will do.
    pub fn plan(&self) -> &SyncPlan {
        &self.plan
    }

    /// The directory that all names lie below.
    pub fn dir(&self) -> &Path {
        &self.place
    }

    /// Removes what lies where other files go, and starts the fetch.
    ///
    /// # Errors
    /// [`FetchError::Storage`], [`FetchError::Threads`]
    pub fn start(self) -> Result<RunningSync, FetchError> {
        let PlannedSync { node, place, overwrite, plan } = self;
        let state_dir = node.config.state.path().ok().flatten();
        let disk = Disk::open_guarded(&place, true, overwrite, state_dir.as_deref())?;
        let (fetched, report, shared) = (node.client.ctx.fetched.clone(), SyncReport::default(), Default::default());
        let mut removal = Removal { disk, fetched, shared, report };
        removal.report.kept.clone_from(&plan.kept);
        removal.report.hindrance = plan.hindrance;
        if plan.hindrance.is_none() {
            // A name may be taken of a file of which another one is removed afterwards.
            let taken = plan.files.iter().map(|file| &file.path).chain(plan.bare.iter().map(|bare| &bare.path));
            let taken = taken.chain(plan.in_the_way.iter().map(|name| &name.path));
            removal.shared = removal.disk.shared_with(&plan.later, taken);
            removal.remove(&plan.in_the_way);
            removal.remove_dirs(&plan.dirs_in_the_way, &plan.made);
        }
        let fetch = match plan.files.is_empty() && plan.bare.is_empty() {
            true => None,
            false => {
                let want = Want::found(&plan.files, &plan.bare);
                Some(node.get(want).overwrite(overwrite).into_dir(place).start()?)
            }
        };
        Ok(RunningSync { fetch, plan, removal })
    }
}

/// A sync that fetches. What is no longer wanted goes when that has ended, by
/// [`wait`](Self::wait).
#[derive(Debug)]
#[must_use = "it ends with `wait`"]
pub struct RunningSync {
    fetch: Option<Fetch>,
    plan: SyncPlan,
    removal: Removal,
}

impl RunningSync {
    /// The fetch, to show and to cancel; none where the peer has no files.
    pub fn fetch(&self) -> Option<&Fetch> {
        self.fetch.as_ref()
    }

    /// Waits for the fetch, and removes what the peer does not have. Blocks as
    /// [`Fetch::wait`](crate::Fetch::wait).
    ///
    /// A name that could not be fetched is part of the report; nothing more is removed then, unless
    /// it is only because of what lies in its place.
    ///
    /// # Errors
    /// [`FetchError::Cancelled`], [`FetchError::Stopped`], and any that fails the fetch as a whole.
    pub fn wait(self) -> Result<SyncReport, FetchError> {
        let RunningSync { fetch, plan, mut removal } = self;
        let mut is_only_blocked = true;
        if let Some(fetch) = fetch {
            let ended = fetch.wait();
            is_only_blocked = ended.as_ref().err().is_none_or(|failed| is_blocked(&failed.error));
            removal.report.fetched = match ended {
                Ok(report) => Report::clone(&report),
                Err(failed) => match &*failed.error {
                    FetchError::Cancelled => return Err(FetchError::Cancelled),
                    FetchError::Stopped => return Err(FetchError::Stopped),
                    _ if failed.report.failed.is_empty() => {
                        let fail = |f: &FoundFile| FailedFile::new(f.path.as_str(), failed.error.clone());
                        let mut report = Report::clone(&failed.report);
                        report.failed = plan.files.iter().map(fail).collect();
                        report
                    }
                    _ => Report::clone(&failed.report),
                },
            };
        }
        // A fetch may also fail before it reports what it did not get to.
        is_only_blocked &= removal.report.fetched.failed.iter().all(|failed| is_blocked(&failed.error));
        if !is_only_blocked && !plan.remove.is_empty() {
            removal.report.hindrance.get_or_insert(SyncHindrance::NotFetched);
        }
        if removal.report.hindrance.is_none() && !plan.remove.is_empty() {
            removal.remove(&plan.later);
            removal.remove_dirs(&plan.dirs, &plan.made);
        }
        Ok(removal.report)
    }
}

/// What came of a sync.
///
/// ```no_run
/// # let node = gpb::Node::builder().dir("/data").start()?;
/// # let from: gpb::KeyPrefix = "AAAAC3NzaC1l".parse()?;
/// let report = node.sync("models", from).look(std::time::Duration::from_secs(10))?.start()?.wait()?;
/// for kept in &report.kept {
///     println!("{} stays: {}", kept.path, kept.reason);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SyncReport {
    /// What was fetched, what was there, and what could not be fetched.
    pub fetched: Report,
    /// What was removed.
    pub removed: Vec<RelPath>,
    /// The bytes of that.
    pub removed_bytes: u64,
    /// What the peer does not have, and stays.
    pub kept: Vec<KeptFile>,
    /// Why nothing was removed, or nothing more.
    pub hindrance: Option<SyncHindrance>,
}

/// The part of a sync that removes.
#[derive(Debug)]
struct Removal {
    disk: Arc<Disk>,
    fetched: Option<Arc<FetchedFiles>>,
    /// Files of which the fetch may take a name.
    shared: SharedInodes,
    report: SyncReport,
}

impl Removal {
    fn remove(&mut self, names: &[LocalName]) {
        // What is removed is no longer offered.
        if let Some(fetched) = &self.fetched {
            for name in names {
                fetched.remove_at(self.disk.path(), &name.path);
            }
        }
        for (name, removed) in names.iter().zip(self.disk.remove_besides(names, &self.shared)) {
            let reason = match removed {
                Ok(true) => {
                    self.report.removed.push(name.path.clone());
                    self.report.removed_bytes += name.len;
                    continue;
                }
                Ok(false) => KeptReason::Changed,
                Err(error) => {
                    log::warn!("not removed path={} error=\"{}\"", name.path, crate::chain::Chain(&error));
                    KeptReason::Failed
                }
            };
            self.report.kept.push(KeptFile::new(name.path.clone(), reason));
        }
    }

    /// Removes the empty directories of `dirs`, and reports those that fetches `made`.
    fn remove_dirs(&mut self, dirs: &[RelPath], made: &BTreeSet<RelPath>) {
        for dir in dirs {
            if self.disk.remove_dir(dir) && made.contains(dir) {
                self.report.removed.push(dir.clone());
            }
        }
    }
}

fn is_empty(listing: &WholeListing) -> bool {
    listing.files.is_empty() && listing.bare.is_empty()
}

/// Whether a name failed because of what lies in its place.
fn is_blocked(error: &FetchError) -> bool {
    use StoreError::{Exists, NameTaken, NotRegular, OwnFile, SameName};
    let FetchError::Storage(error) = error else { return false };
    matches!(error, Exists { .. } | NameTaken { .. } | NotRegular { .. } | OwnFile { .. } | SameName { .. })
}

fn joined(one: &[NodeId], other: &[NodeId]) -> Arc<[NodeId]> {
    let all: BTreeSet<NodeId> = one.iter().chain(other).copied().collect();
    all.into_iter().collect()
}
