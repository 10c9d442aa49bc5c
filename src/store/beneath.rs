//! Opening files for reading beneath a directory, and nowhere else.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::content::Stamp;

/// An open directory below which files are opened for reading.
///
/// A name never leads out of it, not even through symlinks that change meanwhile; symlinks that stay inside are
/// followed. When the directory was removed or replaced, the one that has its path now is opened.
#[derive(Debug)]
pub struct Beneath {
    path: PathBuf,
    root: Mutex<Arc<OwnedFd>>,
    /// Whether the system has `openat2`; without it names are walked component by component.
    openat2: AtomicBool,
}

impl Beneath {
    /// Opens `dir`.
    ///
    /// # Errors
    /// What the system says; also when `dir` is no directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = std::path::absolute(dir)?;
        let root = Mutex::new(Arc::new(open_dir(&path)?));
        Ok(Beneath { path, root, openat2: AtomicBool::new(true) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the regular file `rel`, a relative path without `..`, for reading, and says what it is now. Never blocks
    /// on a FIFO.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` for what is no regular file; a symlink that leaves the directory is
    /// `PermissionDenied`.
    pub fn open_file(&self, rel: &str) -> io::Result<(File, Metadata)> {
        let root = self.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = match self.open_at(&root, rel) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.refresh()? => {
                let root = self.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.open_at(&root, rel)
            }
            opened => opened,
        };
        let file = File::from(opened?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((file, meta))
    }

    /// Looks whether another directory has the path now (made anew, or mounted there), and if so opens files beneath
    /// that one; true if it was replaced.
    ///
    /// # Errors
    /// What the system says; the directory is missing, for example.
    pub fn refresh(&self) -> io::Result<bool> {
        let found = open_dir(&self.path)?;
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (rustix::fs::fstat(&**root)?, rustix::fs::fstat(&found)?);
        let replaced = (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino);
        if replaced {
            *root = Arc::new(found);
        }
        Ok(replaced)
    }

    fn open_at(&self, root: &OwnedFd, rel: &str) -> io::Result<OwnedFd> {
        match self.open_strictly(root, rel, true) {
            // A link was met that the system does not follow beneath the directory: one that leaves it, or an
            // absolute one, which may still lead inside. What it resolves to is opened without any link.
            Err(Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => {
                let outside = || io::Error::new(io::ErrorKind::PermissionDenied, "link leads out of the directory");
                let resolved = std::fs::canonicalize(self.path.join(rel))?;
                let base = std::fs::canonicalize(&self.path)?;
                let inside = resolved.strip_prefix(&base).ok().and_then(Path::to_str).ok_or_else(outside)?;
                Ok(self.open_strictly(root, inside, false)?)
            }
            opened => Ok(opened?),
        }
    }

    fn open_strictly(&self, root: &OwnedFd, rel: &str, links: bool) -> Result<OwnedFd, Errno> {
        if self.openat2.load(Ordering::Relaxed) {
            let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            if !links {
                resolve |= ResolveFlags::NO_SYMLINKS;
            }
            loop {
                match rustix::fs::openat2(root, rel, READ, Mode::empty(), resolve) {
                    // The tree was changed by somebody at that moment.
                    Err(Errno::AGAIN | Errno::INTR) => continue,
                    // A sandbox that does not know the call answers with `PERM`.
                    Err(Errno::NOSYS | Errno::PERM) => {
                        self.openat2.store(false, Ordering::Relaxed);
                        break;
                    }
                    opened => return opened,
                }
            }
        }
        open_by_component(root, rel)
    }
}

/// The state that a file is in, by what the system says of it.
pub fn stamp_of(meta: &Metadata) -> Stamp {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Stamp {
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
    }
}

/// Opens `rel` without following any link.
fn open_by_component(root: &OwnedFd, rel: &str) -> Result<OwnedFd, Errno> {
    let mut parts = rel.split('/').peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if matches!(part, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        let flags = if parts.peek().is_some() { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC } else { READ };
        dir = Some(rustix::fs::openat(dir.as_ref().unwrap_or(root), part, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    dir.ok_or(Errno::NOENT)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(b: &Beneath, rel: &str) -> io::Result<String> {
        let mut text = String::new();
        b.open_file(rel)?.0.read_to_string(&mut text)?;
        Ok(text)
    }

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("shared");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "inside").unwrap();
        fs::write(tmp.path().join("secret"), "outside").unwrap();
        symlink("b/f", dir.join("a/rel")).unwrap();
        symlink(dir.join("a/b/f"), dir.join("abs")).unwrap();
        symlink("../secret", dir.join("up")).unwrap();
        symlink(tmp.path().join("secret"), dir.join("out")).unwrap();
        symlink(tmp.path(), dir.join("outdir")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        (tmp, dir)
    }

    #[test]
    fn links_lead_inside_but_never_out() {
        for openat2 in [true, false] {
            let (_tmp, dir) = tree();
            let b = Beneath::open(&dir).unwrap();
            b.openat2.store(openat2, Ordering::Relaxed);
            for inside in ["a/b/f", "a/rel", "abs"] {
                assert_eq!(read(&b, inside).unwrap(), "inside", "{inside}");
            }
            for outside in ["up", "out", "outdir/secret", "loop", "../secret", "a/../../secret", "fifo", "a", "none"] {
                assert!(read(&b, outside).is_err(), "{outside}");
            }
        }
    }

    #[test]
    fn a_directory_made_anew_is_found() {
        let (_tmp, dir) = tree();
        let b = Beneath::open(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(read(&b, "new").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("new"), "again").unwrap();
        assert_eq!(read(&b, "new").unwrap(), "again");
    }
}
