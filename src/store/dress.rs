//! The attributes of files that are put in place: modification time, and whether they may be run.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{self, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{Errno, retry_on_intr};

use crate::content::{Attributes, RelPath};
use crate::store::inspect::stamp_of;
use crate::store::storage::FileDress;

/// What the files of a fetch get besides their contents.
#[derive(Debug, Default)]
pub(crate) struct Dresses {
    /// Sorted by place.
    all: OnceLock<Vec<(RelPath, Attributes)>>,
    /// The place that is likely to be asked for next: they are asked for in order, mostly.
    next: AtomicUsize,
    /// The bits that a new program gets, once one was asked for.
    execute_bits: OnceLock<u32>,
}

impl Dresses {
    /// Sets what belongs to each place, once.
    pub(crate) fn set(&self, mut all: Vec<(RelPath, Attributes)>) {
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let _ = self.all.set(all);
    }

    pub(crate) fn get(&self, path: &RelPath) -> Option<&Attributes> {
        let all = self.all.get()?;
        let next = self.next.load(Ordering::Relaxed);
        let at = match all.get(next).is_some_and(|(place, _)| place == path) {
            true => next,
            false => all.binary_search_by(|(place, _)| place.cmp(path)).ok()?,
        };
        self.next.store(at + 1, Ordering::Relaxed);
        Some(&all[at].1)
    }

    /// The attributes of a new file at `path`. `probe` gives the mode of a file that is created with
    /// mode 0777.
    pub(crate) fn of_new(&self, path: &RelPath, probe: impl FnOnce() -> io::Result<u32>) -> Option<FileDress> {
        let attributes = self.get(path)?;
        let execute_bits = match attributes.executable {
            true => *self.execute_bits.get_or_init(|| probe().map_or(OWNER_EXECUTES, |mode| mode & EXECUTE)),
            false => 0,
        };
        Some(FileDress { mtime_ns: attributes.mtime_ns, execute_bits })
    }
}

/// Whether a file of that mode may be run by anybody.
pub(crate) fn may_run(mode: u32) -> bool {
    mode & EXECUTE != 0
}

/// Brings the attributes of a file that is there in line with `wanted`. A file that is to be run may be
/// run by every user that may read it. `kept` tells which time a file has here for one that it was given.
/// True if something was changed.
pub(crate) fn bring_in_line(file: &File, wanted: &Attributes, kept: &dyn Fn(i64) -> i64) -> io::Result<bool> {
    let meta = file.metadata()?;
    let mode = match wanted.executable {
        // A file that any user may run keeps its mode.
        true if meta.mode() & EXECUTE != 0 => meta.mode(),
        true => meta.mode() | (meta.mode() & READ) >> 2,
        false => meta.mode() & !EXECUTE,
    };
    let has_mode = meta.mode() == mode || !set_if_known(fs::fchmod(file, Mode::from_raw_mode(mode & PERMISSIONS)))?;
    let mtime_ns = stamp_of(&meta).mtime_ns;
    if has_mode && (mtime_ns == wanted.mtime_ns || mtime_ns == kept(wanted.mtime_ns)) {
        return Ok(false);
    }
    // The last of all: on some file systems another change sets the time.
    set_if_known(retry_on_intr(|| fs::futimens(file, &times(wanted.mtime_ns))))?;
    Ok(true)
}

/// Gives a new file the bits for running that it lacks, and its time. No other bits are ever set, and
/// of most files, which are no programs, the mode is not asked for.
pub(crate) fn put_on(file: &File, dress: FileDress) -> io::Result<()> {
    if dress.execute_bits != 0 {
        let before = file.metadata()?.mode();
        let after = before | dress.execute_bits;
        if after != before {
            unless_unknown(fs::fchmod(file, Mode::from_raw_mode(after & PERMISSIONS)))?;
        }
    }
    // The last of all: on some file systems another change sets the time.
    unless_unknown(retry_on_intr(|| fs::futimens(file, &times(dress.mtime_ns))))
}

/// That modification time, and the time of the last access as it is.
pub(crate) fn times(mtime_ns: i64) -> Timestamps {
    let (tv_sec, tv_nsec) = (mtime_ns.div_euclid(NS_PER_S), mtime_ns.rem_euclid(NS_PER_S) as _);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec },
    }
}

/// A file system without modes or times, one that cannot hold this one, or one where they belong to
/// another user, is no reason to fail: the content is what counts.
pub(crate) fn unless_unknown(done: rustix::io::Result<()>) -> io::Result<()> {
    set_if_known(done).map(drop)
}

/// As [`unless_unknown`]; whether it was set.
fn set_if_known(done: rustix::io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if is_unknown(e) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether an attribute was not set because the file system, or this user, cannot.
pub(crate) fn is_unknown(e: Errno) -> bool {
    matches!(e, Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::RANGE | Errno::OVERFLOW)
}

const NS_PER_S: i64 = 1_000_000_000;
/// Mode bits for reading, for running, for running by the owner, and all that are ever set.
const READ: u32 = 0o444;
const EXECUTE: u32 = 0o111;
const OWNER_EXECUTES: u32 = 0o100;
const PERMISSIONS: u32 = 0o777;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn times_before_and_far_behind_the_epoch_are_set_to_the_nanosecond() {
        let tmp = tempfile::tempdir().unwrap();
        let file = File::create(tmp.path().join("f")).unwrap();
        for mtime_ns in [0, 1, -1, -5_000_000_007, 8_900_000_000_123_456_789, 1_795_000_000_000_000_000] {
            let wanted = Attributes { mtime_ns, ..Attributes::default() };
            assert!(bring_in_line(&file, &wanted, &|ns| ns).unwrap());
            assert_eq!(stamp_of(&file.metadata().unwrap()).mtime_ns, mtime_ns);
            assert!(!bring_in_line(&file, &wanted, &|ns| ns).unwrap());
        }
    }

    #[test]
    fn what_may_be_read_may_be_run_and_no_other_bit_is_set() {
        let tmp = tempfile::tempdir().unwrap();
        let file = File::create(tmp.path().join("f")).unwrap();
        for (mode, executable, after) in [
            (0o644, true, 0o755),
            (0o640, true, 0o750),
            (0o700, true, 0o700),
            (0o755, false, 0o644),
            (0o4755, false, 0o644),
            (0o444, true, 0o555),
        ] {
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            bring_in_line(&file, &Attributes { executable, ..Attributes::default() }, &|ns| ns).unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, after, "{mode:o} {executable}");
        }
    }
}
