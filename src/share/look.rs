//! What is at a path now, and whether it can be shared.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::{RelPath, RelPathError, Stamp};
use crate::limits::FILE_LEN_MAX;
use crate::share::limits::QUIET;
use crate::store::stamp_of;

/// The length and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) len: u64,
    pub(super) stamp: Stamp,
}

/// What was found at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A file to share; `link`: through a symlink that stays inside the directory.
    File { state: State, link: bool },
    /// A directory.
    Dir,
    /// Nothing, or no longer anything.
    Nothing,
    /// What is not shared, and why.
    Skip(String),
}

/// Looks at paths of the directory `root`, which is absolute and free of links.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    root: PathBuf,
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
    pub(super) fn new(root: PathBuf) -> Self {
        Looker { root }
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
        if meta.is_symlink() {
            return self.follow(path);
        }
        of_file(meta, false)
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
        match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => Look::Skip("links to directories are not followed".into()),
            Ok(meta) if meta.is_symlink() => Look::Skip("link changes while it is followed".into()),
            Ok(meta) => of_file(&meta, true),
            Err(e) => failed(&e),
        }
    }
}

fn of_file(meta: &Metadata, link: bool) -> Look {
    if meta.is_dir() {
        Look::Dir
    } else if !meta.is_file() {
        Look::Skip("not a regular file".into())
    } else if meta.len() > FILE_LEN_MAX {
        Look::Skip(format!("longer than {FILE_LEN_MAX} bytes"))
    } else {
        Look::File { state: State { len: meta.len(), stamp: stamp_of(meta) }, link }
    }
}

fn failed(e: &io::Error) -> Look {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Look::Nothing,
        _ => Look::Skip(e.to_string()),
    }
}
