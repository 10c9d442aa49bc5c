//! Hashing again what is here, and fetching what the disk has damaged.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::client::{AskScope, FetchError, FoundFile, Report, Wait, exact};
use crate::content::{FileId, RelPath};
use crate::node::{Fetch, Node};
use crate::store::{Disk, Index, KnownContent, LocalKind, LocalName, Lookup, Overwrite};
use crate::sync::lock;

impl Node {
    /// Compares files with what is known of them: with what fetches and a server recorded in the state
    /// directory, and with what other keys of the group offer now. `paths` are names of files or directories below
    /// [`Config::dir`](crate::Config::dir); all of it without any.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gpb::FileVerdict;
    ///
    /// # let lan = gpb::testing::Lan::new()?;
    /// # let server = lan.sharing(&[("a.bin", b"a")])?;
    /// # let node = lan.node()?;
    /// node.fetch("a.bin")?.wait()?;
    /// let verified = node.verify::<&str>(&[]).look(Duration::from_secs(2))?;
    /// assert_eq!(verified.files()[0].verdict, FileVerdict::Good);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify<P: AsRef<str>>(&self, paths: &[P]) -> Verify<'_> {
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Verify { node: self, place: self.config.dir.clone(), paths }
    }
}

/// A check that is about to start: [`Node::verify`](crate::Node::verify) begins it,
/// [`look`](Self::look) does it.
#[derive(Debug)]
#[must_use = "it begins with `look`"]
pub struct Verify<'n> {
    node: &'n Node,
    place: Option<PathBuf>,
    paths: Vec<String>,
}

/// What a check made of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileVerdict {
    /// It has the content that was recorded, or that the group offers.
    Good,
    /// It has other bytes than were recorded, in the state that was recorded: the disk has changed
    /// them.
    Damaged,
    /// It was changed since it was recorded, and the group does not offer what it has now.
    Edited,
    /// Nothing is recorded of it, and the group offers another content under its name.
    Differs,
    /// Nothing is known of it.
    Unknown,
    /// A fetch put it there, the group offers something under its name, and no file has the name any more.
    Gone,
    /// It cannot be read, or changes while it is read.
    Unreadable,
    /// Nothing has that name.
    Missing,
}

/// A file that was checked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckedFile {
    /// Its name below the directory.
    pub path: String,
    /// Its length, in bytes.
    pub len: u64,
    /// Its content; none if it cannot be read.
    pub id: Option<FileId>,
    /// Whether that is what was recorded; none if nothing was.
    pub in_index: Option<bool>,
    /// Whether the group offers that; none if it offers nothing under that name either.
    pub in_group: Option<bool>,
    /// What to make of it.
    pub verdict: FileVerdict,
    /// The content that it should have, where another one is known.
    pub expected: Option<FileId>,
    name: Option<LocalName>,
}

/// What a check found. Nothing was changed so far.
#[derive(Debug)]
pub struct Verified<'n> {
    node: &'n Node,
    place: PathBuf,
    files: Vec<CheckedFile>,
    offered: Vec<FoundFile>,
    is_index_in_use: bool,
    group_error: Option<FetchError>,
}

impl<'n> Verify<'n> {
    /// Checks below this directory. Default [`Config::dir`](crate::Config::dir).
    pub fn below(mut self, dir: impl Into<PathBuf>) -> Self {
        self.place = Some(dir.into());
        self
    }

    /// Hashes the files on all cores, and asks the group, for at most `wait`. It goes as well where no
    /// peer answers. Blocks until all is hashed.
    ///
    /// # Errors
    /// - [`FetchError::NoDirectory`], [`FetchError::Name`], [`FetchError::Storage`]: the directory, or a
    ///   name that is none
    /// - [`FetchError::Stopped`], [`FetchError::Cancelled`]
    pub fn look(self, wait: impl Into<Wait>) -> Result<Verified<'n>, FetchError> {
        let (wait, node) = (wait.into(), self.node);
        let place = self.place.ok_or(FetchError::NoDirectory)?;
        let parse = |text: &String| {
            let name = Path::new(text).strip_prefix(&place).map_or(text.as_str(), |rest| rest.to_str().unwrap_or(text));
            // As a shell completes it.
            match name.strip_prefix("./").unwrap_or(name).trim_end_matches('/') {
                "" | "." => Ok(None),
                name => RelPath::new(name).map(Some).map_err(|source| FetchError::Name { path: text.into(), source }),
            }
        };
        let mut asked: Vec<Option<RelPath>> = self.paths.iter().map(parse).collect::<Result<_, _>>()?;
        if asked.is_empty() || asked.contains(&None) {
            asked = vec![None];
        }
        let state_dir = node.config.state.path().ok().flatten();
        let disk = Disk::open_guarded(&place, false, Overwrite::Refuse, state_dir.as_deref())?;
        let scope = AskScope { nodes: None, canceller: wait.canceller };
        let stop = || node.client.ctx.shutdown.has_begun() || scope.canceller.is_cancelled();
        let (mut names, mut missing) = (Vec::new(), Vec::new());
        for path in &asked {
            let below = disk.tree(path.as_ref().map_or("", RelPath::as_str), &stop)?;
            let own = path.as_ref().and_then(|path| disk.local_name(path));
            if let Some(path) =
                path.as_ref().filter(|_| own.is_none() && below.names.is_empty() && below.dirs.is_empty())
                && !place.join(path.as_str()).is_dir()
            {
                missing.push(path.to_string());
            }
            names.extend(own.into_iter().chain(below.names));
        }
        names.retain(|name| name.kind == LocalKind::File);
        names.sort_by(|a, b| a.path.cmp(&b.path));
        names.dedup_by(|a, b| a.path == b.path);
        let found = Mutex::new(vec![None; names.len()]);
        disk.identify_each(&names, &stop, &|at, id| lock(&found)[at] = id);
        let texts: Vec<String> = asked.iter().flatten().map(exact).collect();
        let (offered, group_error) = match node.client.list(&texts, &scope, wait.time) {
            // A server of the same key offers what lies here, whatever that is.
            Ok(mut offered) => {
                offered.retain(|file| file.holders.iter().any(|holder| holder.peer != node.id()));
                (offered, None)
            }
            Err(error) => (Vec::new(), Some(error)),
        };
        if stop() {
            let is_stopped = node.client.ctx.shutdown.has_begun();
            return Err(if is_stopped { FetchError::Stopped } else { FetchError::Cancelled });
        }
        let index = state_dir.as_ref().map_or(Ok(None), |state| Index::open_existing(state, &place));
        let is_index_in_use = index.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        let index = index.unwrap_or_else(|e| {
            log::info!("index not read, only what fetches recorded is compared error=\"{}\"", crate::chain::Chain(&e));
            None
        });
        let mut lookup = index.as_ref().and_then(Index::lookup);
        let group = OfferedNames::new(&offered);
        let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let gone = gone(&disk, &names, &found, &group);
        let mut files: Vec<CheckedFile> = Vec::with_capacity(names.len() + missing.len());
        for (name, id) in names.into_iter().zip(found) {
            let known = known(&disk, &name, lookup.as_mut());
            files.push(judge(name, id, &known, &group));
        }
        files.extend(gone);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.extend(missing.into_iter().map(CheckedFile::missing));
        Ok(Verified { node, place, files, offered, is_index_in_use, group_error })
    }
}

impl Verified<'_> {
    /// The files, sorted by name, and the names that nothing has.
    pub fn files(&self) -> &[CheckedFile] {
        &self.files
    }

    /// The directory that all names lie below.
    pub fn dir(&self) -> &Path {
        &self.place
    }

    /// Whether a node that runs uses the index, so that only what fetches recorded was compared.
    pub fn is_index_in_use(&self) -> bool {
        self.is_index_in_use
    }

    /// Why the group was not asked; none if it was.
    pub fn group_error(&self) -> Option<&FetchError> {
        self.group_error.as_ref()
    }

    /// Fetches again what the disk has damaged: of each file the chunks that are wrong. With `force`
    /// also what was changed or is gone, and what has another content than the group offers. Returns none where
    /// nothing is to be fetched, or nothing can be; such files keep their verdict. Without `force` a file
    /// is replaced only in the state in which it was hashed: what was saved there since stays.
    ///
    /// # Errors
    /// [`FetchError::Threads`]
    pub fn repair(&self, force: bool) -> Result<Option<Repair>, FetchError> {
        let by_id: HashMap<FileId, &FoundFile> = self.offered.iter().map(|file| (file.id, file)).collect();
        let is_meant = |verdict| {
            let is_changed = matches!(verdict, FileVerdict::Edited | FileVerdict::Differs | FileVerdict::Gone);
            verdict == FileVerdict::Damaged || force && is_changed
        };
        let mut wanted = Vec::new();
        let mut damaged = Vec::new();
        for file in self.files.iter().filter(|file| is_meant(file.verdict)) {
            let (Ok(path), Some(expected)) = (RelPath::new(&file.path), file.expected) else { continue };
            let Some(found) = by_id.get(&expected) else { continue };
            wanted.push(FoundFile { path, ..FoundFile::clone(found) });
            if file.verdict == FileVerdict::Damaged {
                damaged.extend(file.name.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let overwrite = if force { Overwrite::Replace } else { Overwrite::Refuse };
        let get = self.node.get(&wanted).overwrite(overwrite).into_dir(&self.place);
        Ok(Some(Repair { fetch: get.repairing(damaged).start()? }))
    }
}

/// A repair that runs.
#[derive(Debug)]
#[must_use = "it ends with `wait`"]
pub struct Repair {
    fetch: Fetch,
}

impl Repair {
    /// The fetch, to show and to cancel.
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// Waits until it is over. What could not be fetched is part of the report, and stays recorded as
    /// it was.
    pub fn wait(self) -> Report {
        match self.fetch.wait() {
            Ok(report) => Report::clone(&report),
            Err(failed) => Report::clone(&failed.report),
        }
    }
}

/// What the group offers, by name and by content.
struct OfferedNames<'f> {
    by_name: HashMap<&'f str, Vec<FileId>>,
    /// The names that are links for a peer.
    links: HashSet<&'f str>,
    contents: HashMap<FileId, ()>,
}

impl<'f> OfferedNames<'f> {
    fn new(offered: &'f [FoundFile]) -> Self {
        let mut by_name: HashMap<&str, Vec<FileId>> = HashMap::new();
        for file in offered {
            by_name.entry(file.path.as_str()).or_default().push(file.id);
        }
        let links = offered.iter().filter(|file| file.link.is_some()).map(|file| file.path.as_str()).collect();
        OfferedNames { by_name, links, contents: offered.iter().map(|file| (file.id, ())).collect() }
    }

    /// The content under this name, if it is one.
    fn only_named(&self, path: &str) -> Option<FileId> {
        self.by_name.get(path).filter(|ids| ids.len() == 1).and_then(|ids| ids.first().copied())
    }
}

/// What is known of a file from fetches and from the index of a server.
fn known(disk: &Disk, name: &LocalName, lookup: Option<&mut Lookup>) -> Vec<KnownContent> {
    let mut known = disk.known(name);
    if let Some(indexed) = lookup.and_then(|lookup| lookup.recorded(name.path.as_str())) {
        known.push(KnownContent { id: indexed.id, is_unchanged: name.is_in(indexed.id.len, &indexed.stamp) });
    }
    known
}

/// Names that the group offers and fetches have put files at, where no file lies any more. What no peer offers now may be
/// gone because of that, and what is `found` under a name where the group does not have it was moved there.
fn gone(disk: &Disk, names: &[LocalName], found: &[Option<FileId>], group: &OfferedNames<'_>) -> Vec<CheckedFile> {
    let is_own =
        |name: &LocalName, id: &FileId| group.by_name.get(name.path.as_str()).is_some_and(|ids| ids.contains(id));
    let here: HashSet<FileId> =
        names.iter().zip(found).filter_map(|(name, id)| id.filter(|id| !is_own(name, id))).collect();
    let is_there = |path: &RelPath| names.binary_search_by(|name| name.path.cmp(path)).is_ok();
    let offered = group.by_name.keys().filter_map(|path| RelPath::new(path).ok());
    // What is a link for a peer may be one here.
    let is_away = |path: &RelPath| !is_there(path) && (disk.is_free(path) || !group.links.contains(path.as_str()));
    let away = offered.filter(|path| is_away(path) && disk.was_fetched(path));
    let gone = |path: RelPath| {
        let expected = group.only_named(path.as_str());
        let is_moved = expected.is_some_and(|id| here.contains(&id));
        let missing = CheckedFile::missing(path.to_string());
        (!is_moved).then_some(CheckedFile { verdict: FileVerdict::Gone, expected, ..missing })
    };
    away.filter_map(gone).collect()
}

fn judge(name: LocalName, id: Option<FileId>, known: &[KnownContent], group: &OfferedNames<'_>) -> CheckedFile {
    let (path, len) = (name.path.to_string(), name.len);
    let named = group.by_name.get(path.as_str());
    let is_known = |id: &FileId| known.iter().any(|known| known.id == *id);
    let in_index = id.as_ref().filter(|_| !known.is_empty()).map(is_known);
    let is_offered = id.is_some_and(|id| group.contents.contains_key(&id));
    let in_group = (is_offered || named.is_some()).then_some(is_offered).filter(|_| id.is_some());
    let unchanged = known.iter().find(|known| known.is_unchanged);
    let verdict = match (id, in_index, in_group) {
        (None, ..) => FileVerdict::Unreadable,
        (_, Some(true), _) | (_, _, Some(true)) => FileVerdict::Good,
        (_, Some(false), _) if unchanged.is_some() => FileVerdict::Damaged,
        (_, Some(false), _) => FileVerdict::Edited,
        (_, None, Some(false)) => FileVerdict::Differs,
        (_, None, None) => FileVerdict::Unknown,
    };
    let expected = match verdict {
        FileVerdict::Damaged => unchanged.map(|known| known.id),
        FileVerdict::Edited | FileVerdict::Differs => group.only_named(&path),
        _ => None,
    };
    CheckedFile { path, len, id, in_index, in_group, verdict, expected, name: Some(name) }
}

impl CheckedFile {
    fn missing(path: String) -> Self {
        let verdict = FileVerdict::Missing;
        CheckedFile { path, len: 0, id: None, in_index: None, in_group: None, verdict, expected: None, name: None }
    }
}
