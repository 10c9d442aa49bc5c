//! Which times the files of a disk can have: some hold fewer of them, or coarser ones.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{self, Mode, OFlags};

use super::DiskVolume;
use crate::store::dress::times;
use crate::store::inspect::state_of_open;
use crate::store::storage::{Volume, temp_name};
use crate::sync::lock;

/// A file without a name, which is given times to see what becomes of them.
#[derive(Debug)]
pub(super) struct TimeProbe {
    file: Mutex<OwnedFd>,
    /// Times between 1980 and 2038 are held to the nanosecond.
    is_exact: bool,
}

impl DiskVolume {
    /// The modification time of a file that was set to `mtime_ns`, in ns since the Unix epoch: the nearest
    /// one that the disk can hold.
    pub(crate) fn kept_time(&self, mtime_ns: i64) -> i64 {
        let Some(probe) = self.times.get_or_init(|| self.probe_times()) else { return mtime_ns };
        let is_usual = (YEAR_1980_NS..YEAR_2038_NS).contains(&mtime_ns);
        if probe.is_exact && is_usual { mtime_ns } else { probe.kept(mtime_ns).unwrap_or(mtime_ns) }
    }

    fn probe_times(&self) -> Option<TimeProbe> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let unnamed = || fs::openat(self.root(), ".", flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR).ok();
        let named = || {
            let name = temp_name();
            self.make_own().ok()?;
            let create = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = self.own.with(|own| fs::openat(own, &*name, create, Mode::RUSR | Mode::WUSR));
            let _ = self.remove_own(&name);
            self.tidy();
            file.ok()
        };
        let mut probe = TimeProbe { file: Mutex::new(unnamed().or_else(named)?), is_exact: false };
        probe.is_exact = probe.kept(YEAR_1980_NS + 1) == Some(YEAR_1980_NS + 1);
        Some(probe)
    }
}

impl TimeProbe {
    fn kept(&self, mtime_ns: i64) -> Option<i64> {
        let file = lock(&self.file);
        fs::futimens(&*file, &times(mtime_ns)).ok()?;
        Some(state_of_open(&*file)?.mtime_ns)
    }
}

/// Begin of the first year that FAT knows, and of the last one that a file system with 32 bits does.
const YEAR_1980_NS: i64 = 315_532_800_000_000_000;
const YEAR_2038_NS: i64 = 2_145_916_800_000_000_000;
