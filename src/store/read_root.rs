//! Opening files beneath a directory for reading.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::store::open_beneath::{BeneathOpener, READ};
use crate::sync::lock;

/// An open directory, below which files are opened for reading.
///
/// No path leads out of the directory, not even through symlinks that change meanwhile. Symlinks
/// that stay inside are followed. If the directory is removed or replaced, the one that has its
/// path then is opened.
#[derive(Debug)]
pub struct ReadRoot {
    path: PathBuf,
    root: Mutex<Arc<OwnedFd>>,
    opener: BeneathOpener,
}

impl ReadRoot {
    /// Opens the directory `dir`.
    ///
    /// # Errors
    /// The system's error, also when `dir` is not a directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = std::path::absolute(dir)?;
        let root = Mutex::new(Arc::new(open_dir(&path)?));
        Ok(ReadRoot { path, root, opener: BeneathOpener::new() })
    }

    /// The absolute path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the regular file `rel`, a relative path without `..`, for reading, and returns its
    /// current metadata. The call never blocks on a FIFO.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` if it is not a regular file; `PermissionDenied` if a
    /// symlink leaves the directory.
    pub fn open_file(&self, rel: &str) -> io::Result<(File, Metadata)> {
        let root = lock(&self.root).clone();
        let opened = match self.open_at(&root, rel) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.refresh()? => {
                let root = lock(&self.root).clone();
                self.open_at(&root, rel)
            }
            opened => opened,
        };
        let file = File::from(opened?);
        leave_access_time(&file);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((file, meta))
    }

    /// Checks whether another directory has the path by now, created or mounted there, and opens
    /// files beneath that one from then on. Returns true if it was replaced.
    ///
    /// # Errors
    /// The system's error, for example when the directory is missing.
    pub fn refresh(&self) -> io::Result<bool> {
        let found = open_dir(&self.path)?;
        let mut root = lock(&self.root);
        let (old, new) = (rustix::fs::fstat(&**root)?, rustix::fs::fstat(&found)?);
        let replaced = (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino);
        if replaced {
            *root = Arc::new(found);
        }
        Ok(replaced)
    }

    fn open_at(&self, root: &OwnedFd, rel: &str) -> io::Result<OwnedFd> {
        match self.opener.open(root, rel, READ, ResolveFlags::empty()) {
            // The path has a symlink that `openat2` does not follow: one that leaves the directory,
            // or an absolute one, which may still lead inside. The path that it resolves to is
            // opened without following any symlink.
            Err(Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => {
                let outside = || io::Error::new(io::ErrorKind::PermissionDenied, "link leads out of the directory");
                let resolved = std::fs::canonicalize(self.path.join(rel))?;
                let base = std::fs::canonicalize(&self.path)?;
                let inside = resolved.strip_prefix(&base).ok().and_then(Path::to_str).ok_or_else(outside)?;
                Ok(self.opener.open(root, inside, READ, ResolveFlags::NO_SYMLINKS)?)
            }
            opened => Ok(opened?),
        }
    }
}

/// Lets reading leave the time of the last access as it is, where the system permits that: it then
/// tells when other programs read the file, which decides how long a copy stays.
fn leave_access_time(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fcntl_setfl(file, OFlags::NONBLOCK | OFlags::NOATIME);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(b: &ReadRoot, rel: &str) -> io::Result<String> {
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
            let b = ReadRoot::open(&dir).unwrap();
            if !openat2 {
                b.opener.forget_openat2();
            }
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
        let b = ReadRoot::open(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(read(&b, "new").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("new"), "again").unwrap();
        assert_eq!(read(&b, "new").unwrap(), "again");
    }
}
