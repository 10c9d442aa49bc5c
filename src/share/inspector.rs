//! What is at a path now, and whether it can be shared.

use std::collections::HashSet;
use std::fs::Metadata;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::content::{Bare, EntryRef, LinkTo, Marks, RelPath, RelPathError, Stamp};
use crate::limits::FILE_LEN_MAX;
use crate::share::limits::{OWN_REFRESH, QUIET};
use crate::share::link_look::link_inside;
use crate::share::skip_log::SkipLog;
use crate::share::unnamed_paths::UnnamedPaths;
use crate::store::{OwnFiles, ReadRoot, is_one_of, stamp_of};

/// Inspects paths of the shared directory and logs once for each why it is not shared.
///
/// The state of a path is always read from the file system, never derived from what was reported of
/// it.
pub(super) struct Inspector {
    /// The directory, absolute and free of links.
    root: PathBuf,
    /// Opens files for a look at their content.
    reads: Arc<ReadRoot>,
    own_files: Arc<OwnFiles>,
    /// Where own files lie below the root.
    own_names: Arc<[String]>,
    own_refresh_at: Instant,
    skips: SkipLog,
    /// Makes numbers of groups of device and inode.
    groups: RandomState,
    unnamed: UnnamedPaths,
}

/// What was found at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inspection {
    /// A file to share.
    File {
        state: FileState,
        /// Whether it is reached through a symlink that stays inside the directory.
        is_linked: bool,
        /// That symlink, if it can be made again elsewhere.
        link: Option<LinkTo<Box<str>>>,
        /// Whether only its owner has any permission.
        owner_only: bool,
    },
    /// A directory.
    Dir,
    /// A symlink to a directory inside the directory, which can be made again elsewhere.
    DirLink(LinkTo<Box<str>>),
    /// Nothing.
    Nothing,
    /// A file or directory of this node itself, at a place that is known to be one.
    Own,
    /// What is not shared, and why.
    Skip(String),
}

/// The length and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) len: u64,
    pub(super) stamp: Stamp,
    pub(super) marks: Marks,
}

impl Inspector {
    /// Inspects below `root`, which is absolute and free of links. Names in the log, once, the own
    /// files that lie there.
    pub(super) fn new(root: PathBuf, reads: Arc<ReadRoot>, own_files: Arc<OwnFiles>, now: Instant) -> Self {
        let own_names = own_files.names_below(&root).into();
        // The index is new perhaps. Nothing is hashed so far that could turn out to be an own file.
        own_files.refresh();
        let skips = SkipLog::default();
        let (groups, unnamed) = (RandomState::new(), UnnamedPaths::default());
        let own_refresh_at = now;
        let inspector = Inspector { root, reads, own_files, own_names, own_refresh_at, skips, groups, unnamed };
        inspector.name_own_files();
        inspector
    }

    /// Another directory has taken the place of the root.
    pub(super) fn set_root(&mut self, root: PathBuf) {
        self.own_names = self.own_files.names_below(&root).into();
        self.root = root;
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of the file `name`.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where own files lie below the root, whether they exist or not.
    pub(super) fn own_names(&self) -> &Arc<[String]> {
        &self.own_names
    }

    /// Inspects `path`, which lies below the root.
    pub(super) fn inspect(&self, path: &Path) -> Inspection {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => self.inspect_known(path, &meta),
            Err(e) => not_found_or_skip(&e),
        }
    }

    /// As [`inspect`](Inspector::inspect), where the metadata of `path` is known. For a symlink it
    /// is that of the link.
    pub(super) fn inspect_known(&self, path: &Path, meta: &Metadata) -> Inspection {
        if self.is_own_place(path) {
            Inspection::Own
        } else if meta.is_symlink() {
            self.follow(path, meta)
        } else {
            self.of(meta, false, None)
        }
    }

    /// The name of `path` below the root, empty for the root itself. `None` for what lies elsewhere
    /// or has a name that is not UTF-8.
    pub(super) fn name(&mut self, path: &Path) -> Option<String> {
        let name = path.strip_prefix(&self.root).ok()?.to_str().map(ToOwned::to_owned);
        if name.is_none() {
            self.skips.warn_once(path, "name is not UTF-8");
            self.unnamed.found(path);
        }
        name
    }

    /// `name`, which is that of `path`, if files can be offered under it.
    pub(super) fn valid(&mut self, name: &str, path: &Path) -> Option<RelPath> {
        match RelPath::new(name) {
            Ok(name) => return Some(name),
            Err(RelPathError::Own) => self.skips.debug_once(path),
            Err(e) => {
                self.skips.warn_once(path, &e.to_string());
                self.unnamed.found(path);
            }
        }
        None
    }

    /// Number of paths whose names cannot be shared.
    pub(super) fn unnamed_count(&self) -> u64 {
        self.unnamed.count()
    }

    /// The paths whose names cannot be shared.
    pub(super) fn unnamed(&mut self) -> &mut UnnamedPaths {
        &mut self.unnamed
    }

    /// Whether a walk enters the directory `path`.
    pub(super) fn may_enter(&mut self, path: &Path) -> bool {
        let Some(name) = self.name(path) else { return false };
        if name.is_empty() {
            return true;
        }
        if self.valid(&name, path).is_none() {
            return false;
        }
        let found = self.inspect(path);
        self.log_if_skipped(path, &found);
        found == Inspection::Dir
    }

    /// Logs that `path` is left out if `found` there is not shared.
    pub(super) fn log_if_skipped(&mut self, path: &Path, found: &Inspection) {
        match found {
            Inspection::Own => self.skips.debug_once(path),
            Inspection::Skip(cause) => self.skips.warn_once(path, cause),
            Inspection::File { .. } | Inspection::Dir | Inspection::DirLink(_) | Inspection::Nothing => {}
        }
    }

    /// Logs that `path` is left out, and why.
    pub(super) fn skip(&mut self, path: &Path, cause: &str) {
        self.skips.warn_once(path, cause);
    }

    /// Logs that the catalogue has no room for further files.
    pub(super) fn skip_rest(&mut self) {
        self.skips.warn_once(&self.root, "too many files, the rest is left out");
    }

    /// Opens the file to see whether that is possible.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn try_open(&self, name: &RelPath) -> io::Result<()> {
        self.reads.open_file(name.as_str()).map(drop)
    }

    /// Whether the file begins as a private key in PEM. This finds key files of other programs and
    /// copies of the own one; logs them.
    pub(super) fn is_private_key(&mut self, name: &RelPath) -> bool {
        let mut first = [0; PEM_FIRST_LEN];
        let read = self.reads.open_file(name.as_str()).and_then(|(file, _)| file.read_at(&mut first, 0));
        let is_key = read.is_ok_and(|len| begins_private_key(&first[..len]));
        if is_key {
            let path = self.path_of(name.as_str());
            self.skips.warn_once(&path, "a private key that only its owner may read");
        }
        is_key
    }

    /// Looks at what the own files are now, at most once in [`OWN_REFRESH`]. Returns inode numbers
    /// of new ones.
    pub(super) fn refresh_own_files(&mut self, now: Instant) -> HashSet<u64> {
        if now < self.own_refresh_at {
            return HashSet::new();
        }
        self.own_refresh_at = now + OWN_REFRESH;
        self.own_files.refresh()
    }

    /// Warns of own files below the root.
    fn name_own_files(&self) {
        let exist = self.own_names.iter().filter(|name| std::fs::symlink_metadata(self.path_of(name)).is_ok());
        let names: Vec<&str> = exist.map(String::as_str).collect();
        if !names.is_empty() {
            log::warn!(
                "shared directory holds files of this node itself, which are never offered path={} left_out=\"{}\"",
                self.root.display(),
                names.join(", ")
            );
        }
    }

    fn is_own_place(&self, path: &Path) -> bool {
        let name = || path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        !self.own_names.is_empty() && name().is_some_and(|name| is_one_of(name, &self.own_names))
    }

    /// What `path` is as an empty directory, if it is one. A name that cannot be shared makes it as
    /// little empty as any other.
    pub(super) fn empty_dir(&self, path: &Path) -> Option<Bare> {
        let meta = std::fs::symlink_metadata(path).ok().filter(Metadata::is_dir)?;
        let is_empty = std::fs::read_dir(path).ok()?.next().is_none();
        (is_empty && self.inspect_known(path, &meta) == Inspection::Dir)
            .then(|| Bare::EmptyDir { mtime_ns: stamp_of(&meta).mtime_ns, copy: false })
    }

    fn follow(&self, path: &Path, link: &Metadata) -> Inspection {
        let target = match std::fs::canonicalize(path) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Inspection::Skip("link leads nowhere".into()),
            Err(e) => return Inspection::Skip(format!("link cannot be followed: {e}")),
        };
        let Ok(inside) = target.strip_prefix(&self.root) else {
            return Inspection::Skip("link leads out of the directory".into());
        };
        if inside.to_str().is_some_and(|p| RelPath::new(p) == Err(RelPathError::Own)) {
            return Inspection::Skip("link leads into `.gpb`".into());
        }
        if self.is_own_place(&target) {
            return Inspection::Skip("link leads to a file of this node itself".into());
        }
        let to = link_inside(&self.root, path, inside);
        let to = to.map(|target| LinkTo { target, mtime_ns: stamp_of(link).mtime_ns });
        match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => match to {
                Some(link) => Inspection::DirLink(link),
                None => Inspection::Skip("links to directories are not followed".into()),
            },
            Ok(meta) if meta.is_symlink() => Inspection::Skip("link changes while it is followed".into()),
            Ok(meta) => self.of(&meta, true, to),
            Err(e) => not_found_or_skip(&e),
        }
    }

    fn of(&self, meta: &Metadata, is_linked: bool, link: Option<LinkTo<Box<str>>>) -> Inspection {
        if self.own_files.contains(meta) {
            Inspection::Skip("a file of this node itself under another name".into())
        } else if meta.is_dir() {
            Inspection::Dir
        } else if !meta.is_file() {
            Inspection::Skip("not a regular file".into())
        } else if meta.len() > FILE_LEN_MAX {
            Inspection::Skip(format!("longer than {FILE_LEN_MAX} bytes"))
        } else {
            let state = FileState { len: meta.len(), stamp: stamp_of(meta), marks: self.marks_of(meta, is_linked) };
            Inspection::File { state, is_linked, link, owner_only: meta.mode() & 0o077 == 0 }
        }
    }

    /// A symlink is no name of the inode that it leads to.
    fn marks_of(&self, meta: &Metadata, is_linked: bool) -> Marks {
        let has_names = meta.nlink() > 1 && !is_linked;
        let link_group = if has_names { self.groups.hash_one((meta.dev(), meta.ino())).max(1) } else { 0 };
        Marks { executable: meta.mode() & 0o111 != 0, copy: false, temporary: false, link_group }
    }
}

impl FileState {
    /// Whether the file has not changed for [`QUIET`], by the clock of the file system. It is the
    /// time of the last change of the inode, which no program can set back. False for a time in the
    /// future.
    pub(super) fn is_quiet(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        now - i128::from(self.stamp.ctime_ns) >= QUIET.as_nanos() as i128
    }

    /// Whether `entry` was hashed in this state.
    pub(super) fn is_of(&self, entry: EntryRef<'_>) -> bool {
        entry.id.len == self.len && entry.stamp == self.stamp
    }
}

fn not_found_or_skip(e: &io::Error) -> Inspection {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Inspection::Nothing,
        _ => Inspection::Skip(e.to_string()),
    }
}

/// Whether these first bytes of a file begin a private key in PEM (RFC 7468), of any algorithm.
fn begins_private_key(first: &[u8]) -> bool {
    let line = first.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----")
}

/// Bytes in which the first line of a PEM file ends.
const PEM_FIRST_LEN: usize = 64;
