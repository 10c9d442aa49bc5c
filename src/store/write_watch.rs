//! Notices other programs that write to unfinished files.
//!
//! A chunk is verified before it is written, and not looked at again before the file gets its name. The kernel
//! tells when a file is closed that was open for writing (inotify(7)); the file itself stays open until then, so it was
//! another program's. One that still has it open is not noticed, and none is where there is no inotify, or no room for
//! a further watch.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use crate::store::storage::Storage;
use crate::sync::lock;

/// Watches of the unfinished files of one disk, over one descriptor.
#[derive(Debug, Default)]
pub(crate) struct WriteWatch {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    inotify: Option<OwnedFd>,
    /// Files that were written to, by the numbers of their watches.
    written: HashSet<i32>,
    /// Events were lost: any may have been.
    is_flooded: bool,
}

impl WriteWatch {
    /// Begins to watch a file; the number of the watch.
    pub(super) fn add(&self, file: &dyn Storage) -> Option<i32> {
        let path = format!("/proc/self/fd/{}", file.fd()?.as_raw_fd());
        lock(&self.seen).add(&path)
    }

    /// Whether another program has written to the file since.
    pub(super) fn is_written(&self, watch: i32) -> bool {
        let mut seen = lock(&self.seen);
        seen.read();
        seen.is_flooded || seen.written.contains(&watch)
    }

    /// Ends a watch.
    pub(super) fn remove(&self, watch: i32) {
        let mut seen = lock(&self.seen);
        seen.read();
        seen.written.remove(&watch);
        seen.remove(watch);
    }
}

#[cfg(target_os = "linux")]
impl Seen {
    fn add(&mut self, path: &str) -> Option<i32> {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        if self.inotify.is_none() {
            self.inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        }
        add_watch(self.inotify.as_ref()?, path, WatchFlags::CLOSE_WRITE).ok()
    }

    fn read(&mut self) {
        use rustix::fs::inotify::{ReadFlags, Reader};
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 1024];
        let mut reader = Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            self.is_flooded |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if event.events().contains(ReadFlags::CLOSE_WRITE) {
                self.written.insert(event.wd());
            }
        }
    }

    fn remove(&self, watch: i32) {
        if let Some(inotify) = &self.inotify {
            let _ = rustix::fs::inotify::remove_watch(inotify, watch);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Seen {
    fn add(&mut self, _path: &str) -> Option<i32> {
        None
    }

    fn read(&mut self) {}

    fn remove(&self, _watch: i32) {}
}
