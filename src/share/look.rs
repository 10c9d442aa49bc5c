//! What is at a path now, and whether it can be shared.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::{RelPath, RelPathError, Stamp};
use crate::limits::FILE_LEN_MAX;
use crate::share::limits::QUIET;
use crate::store::{OwnFiles, is_one_of, stamp_of};

/// The length and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) len: u64,
    pub(super) stamp: Stamp,
}

/// What was found at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A file to share. `link`: it is reached through a symlink that stays inside the directory. `owner_only`: no user
    /// but its owner may do anything with it.
    File { state: State, link: bool, owner_only: bool },
    /// A directory.
    Dir,
    /// Nothing, or no longer anything.
    Nothing,
    /// A file or directory of this node itself, at a place that is known to be one.
    Own,
    /// What is not shared, and why.
    Skip(String),
}

/// Looks at paths of the directory `root`, which is absolute and free of links.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    root: PathBuf,
    own: Arc<OwnFiles>,
    /// Where own files lie below the root.
    own_names: Arc<[String]>,
}

impl State {
    /// Whether nothing has touched the file for [`QUIET`], by the clock of the file system. False for a time in the
    /// future: only watching tells then. No program can set this time back.
    pub(super) fn is_quiet(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        now - self.stamp.ctime_ns as i128 >= QUIET.as_nanos() as i128
    }
}

impl Looker {
    pub(super) fn new(root: PathBuf, own: Arc<OwnFiles>) -> Self {
        Looker { own_names: own.names_below(&root).into(), root, own }
    }

    /// The names of own files and directories below the root, whether they exist or not.
    pub(super) fn own_names(&self) -> &Arc<[String]> {
        &self.own_names
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The name of `path` below the directory; an empty one for the directory itself.
    ///
    /// # Errors
    /// Why the name cannot be shared; `None` for what is left out without a word.
    pub(super) fn name<'p>(&self, path: &'p Path) -> Result<&'p str, Option<String>> {
        let rel = path.strip_prefix(&self.root).map_err(|_| None)?;
        rel.to_str().ok_or_else(|| Some("name is not UTF-8".into()))
    }

    /// Looks at `path`, a path below the directory.
    pub(super) fn look(&self, path: &Path) -> Look {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => self.judge(path, &meta),
            Err(e) => failed(&e),
        }
    }

    /// The same where `meta` of `path` is known already (of a link itself, not of what it leads to).
    pub(super) fn judge(&self, path: &Path, meta: &Metadata) -> Look {
        if self.is_own_place(path) {
            return Look::Own;
        }
        if meta.is_symlink() {
            return self.follow(path);
        }
        self.of_file(meta, false)
    }

    fn follow(&self, path: &Path) -> Look {
        let target = match std::fs::canonicalize(path) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Look::Skip("link leads nowhere".into()),
            Err(e) => return Look::Skip(format!("link cannot be followed: {e}")),
        };
        let Ok(inside) = target.strip_prefix(&self.root) else {
            return Look::Skip("link leads out of the directory".into());
        };
        if inside.to_str().is_some_and(|p| RelPath::new(p) == Err(RelPathError::Own)) {
            return Look::Skip("link leads into `.gpb`".into());
        }
        if self.is_own_place(&target) {
            return Look::Skip("link leads to a file of this node itself".into());
        }
        match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => Look::Skip("links to directories are not followed".into()),
            Ok(meta) if meta.is_symlink() => Look::Skip("link changes while it is followed".into()),
            Ok(meta) => self.of_file(&meta, true),
            Err(e) => failed(&e),
        }
    }

    fn is_own_place(&self, path: &Path) -> bool {
        let name = || path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        !self.own_names.is_empty() && name().is_some_and(|name| is_one_of(name, &self.own_names))
    }

    fn of_file(&self, meta: &Metadata, link: bool) -> Look {
        if self.own.contains(meta) {
            Look::Skip("a file of this node itself under another name".into())
        } else if meta.is_dir() {
            Look::Dir
        } else if !meta.is_file() {
            Look::Skip("not a regular file".into())
        } else if meta.len() > FILE_LEN_MAX {
            Look::Skip(format!("longer than {FILE_LEN_MAX} bytes"))
        } else {
            let state = State { len: meta.len(), stamp: stamp_of(meta) };
            Look::File { state, link, owner_only: meta.mode() & 0o077 == 0 }
        }
    }
}

fn failed(e: &io::Error) -> Look {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Look::Nothing,
        _ => Look::Skip(e.to_string()),
    }
}
