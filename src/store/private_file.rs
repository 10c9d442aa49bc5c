//! A small file of the state directory that several processes replace, each time as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock, fsync};
use rustix::io::{Errno, retry_on_intr};

use crate::store::limits::{PRIVATE_LOCK_RETRY, PRIVATE_LOCK_TRIES};

/// Replaces `path` by what `content` returns, with mode 0600: a crash leaves the old file or the new
/// one. One process at a time does this, so `content` may read the file and add to it.
///
/// The new content lies in `path` with [`NEW_SUFFIX`] until it takes its name; what a killed process
/// left there is written over.
///
/// # Errors
/// The file cannot be written, or another process has been replacing it for long
/// ([`io::ErrorKind::WouldBlock`]).
pub(crate) fn replace_private(path: &Path, content: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
    let new = new_name(path);
    let mut file = lock_new(&new)?;
    file.set_len(0)?;
    file.write_all(&content())?;
    retry_on_intr(|| fsync(&file))?;
    std::fs::rename(&new, path)
}

/// The name of the file that is about to replace `path`.
pub(crate) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(NEW_SUFFIX);
    name.into()
}

/// Makes or opens the new file, and locks it.
fn lock_new(new: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    for attempt in 0..PRIVATE_LOCK_TRIES {
        if attempt > 0 {
            std::thread::sleep(PRIVATE_LOCK_RETRY);
        }
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(new)?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::AGAIN) => continue,
            locked => locked?,
        }
        // Its last owner may have given it its name meanwhile.
        let here = file.metadata()?;
        if std::fs::symlink_metadata(new).is_ok_and(|at| (at.dev(), at.ino()) == (here.dev(), here.ino())) {
            return if here.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Of a file that is about to replace another one.
const NEW_SUFFIX: &str = ".new";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        // What a killed process left.
        fs::write(new_name(&path), "x".repeat(1000)).unwrap();
        replace_private(&path, || b"one".to_vec()).unwrap();
        replace_private(&path, || [&fs::read(&path).unwrap()[..], b", two"].concat()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one, two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        replace_private(&dir.path().join("other"), Vec::new).unwrap();
        let mode = fs::metadata(dir.path().join("other")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn one_process_at_a_time_writes_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        let held = lock_new(&new_name(&path)).unwrap();
        let refused = replace_private(&path, || panic!("not the turn of this one")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        fs::remove_file(new_name(&path)).unwrap();
        fs::write(dir.path().join("victim"), "v").unwrap();
        std::os::unix::fs::symlink("victim", new_name(&path)).unwrap();
        assert!(replace_private(&path, || b"x".to_vec()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "v");
    }

    #[test]
    fn many_threads_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        std::thread::scope(|scope| {
            for n in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    let add = || [fs::read(path).unwrap_or_default(), vec![n]].concat();
                    while replace_private(path, add).is_err() {}
                });
            }
        });
        let mut all = fs::read(&path).unwrap();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }
}
