//! Opening names beneath a directory, and nothing outside of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::store::limits::OPENAT2_TRIES;

/// Opens names beneath a directory with `openat2`, or component by component where the system lacks
/// that call.
#[derive(Debug)]
pub(crate) struct BeneathOpener {
    has_openat2: AtomicBool,
}

impl BeneathOpener {
    pub(crate) fn new() -> Self {
        BeneathOpener { has_openat2: AtomicBool::new(true) }
    }

    /// Opens `rel`, a relative path without `..`, beneath `root`. The path never leads out of
    /// `root`, even when symlinks change meanwhile. `resolve` restricts it further; without
    /// `openat2` no symlink at all is followed.
    pub(crate) fn open(
        &self,
        root: impl AsFd,
        rel: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..OPENAT2_TRIES {
            if !self.has_openat2.load(Ordering::Relaxed) {
                break;
            }
            match fs::openat2(&root, rel, flags, Mode::empty(), resolve) {
                // Another process changed the tree at that moment.
                Err(Errno::AGAIN | Errno::INTR) => (),
                // A sandbox that does not know the call answers with `PERM`.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.store(false, Ordering::Relaxed),
                // The call is older than one of its flags.
                Err(Errno::TOOBIG | Errno::INVAL) => break,
                opened => return opened,
            }
        }
        walk(&root, rel, flags)
    }

    #[cfg(test)]
    pub(crate) fn forget_openat2(&self) {
        self.has_openat2.store(false, Ordering::Relaxed);
    }
}

/// Opens `rel` one component after the other, following no symlink.
fn walk(root: impl AsFd, rel: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut parts = rel.split('/').peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if matches!(part, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        let step = if parts.peek().is_some() { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC } else { flags };
        let at = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        dir = Some(retry_on_intr(|| fs::openat(at, part, step | OFlags::NOFOLLOW, Mode::empty()))?);
    }
    dir.ok_or(Errno::NOENT)
}

/// How files are opened for reading: opening a FIFO must not wait for its writer.
pub(crate) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// How directories are opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
