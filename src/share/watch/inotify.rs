//! The watch on Linux: inotify(7), directory by directory as they are walked.
//!
//! The crate `notify` does not serve here: it walks the whole tree before it reports anything, and
//! always asks for events of opened files, which hashing and serving cause all the time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

use crate::runtime::Workers;
use crate::share::watch::{ChangeSink, PathChanges};
use crate::sync::lock;

/// A watch of the directories that were added, until it is dropped.
#[derive(Debug)]
pub(in crate::share) struct InotifyWatch {
    queue: Arc<InotifyQueue>,
    /// Joined on drop, after the signal to end.
    _threads: Workers,
}

#[derive(Debug)]
struct InotifyQueue {
    inotify: OwnedFd,
    /// Readable when the thread is to end.
    end: OwnedFd,
    /// Watched directories by the number that the kernel gave them. A directory that was renamed
    /// keeps its number, so its new name replaces the old one when the new one is walked.
    dirs: Mutex<HashMap<i32, PathBuf>>,
    sink: ChangeSink,
}

impl InotifyWatch {
    /// Begins to watch what is added below `dir`, which is absolute and free of links, but for the
    /// names `own` there.
    pub(in crate::share) fn begin(dir: &Path, changes: &PathChanges, own: &Arc<[String]>) -> io::Result<Self> {
        let queue = Arc::new(InotifyQueue {
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(no_instance)?,
            end: end_event()?,
            dirs: Mutex::default(),
            sink: changes.sink(dir, own),
        });
        let reading = queue.clone();
        let mut threads = Workers::ending(&changes.shutdown);
        threads.spawn("gpb-watch", move || reading.run())?;
        Ok(InotifyWatch { queue, _threads: threads })
    }

    /// Watches the directory `dir` as well. Called before its entries are read, so that no change
    /// is missed. Does no harm to a directory that is watched already; a directory that is gone is
    /// no error.
    pub(in crate::share) fn add(&self, dir: &Path) -> io::Result<()> {
        // An event waits for the lock until its directory has a name here.
        let mut dirs = lock(&self.queue.dirs);
        match add_watch(&self.queue.inotify, dir, EVENTS | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW) {
            Ok(number) => {
                if dirs.get(&number).is_none_or(|known| known != dir) {
                    dirs.insert(number, dir.to_path_buf());
                }
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(()),
            Err(Errno::NOSPC) => Err(io::Error::other("the limit fs.inotify.max_user_watches is reached")),
            Err(e) => Err(e.into()),
        }
    }
}

fn end_event() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// The kernel says the same for two limits. Where the process may open another file, its own limit
/// is not the one that is reached.
fn no_instance(error: Errno) -> io::Error {
    match (error, end_event()) {
        (Errno::MFILE, Ok(_)) => io::Error::other("the limit fs.inotify.max_user_instances is reached"),
        _ => error.into(),
    }
}

impl Drop for InotifyWatch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.queue.end, &1u64.to_ne_bytes());
    }
}

impl InotifyQueue {
    /// Reports events until the end.
    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_LEN];
        loop {
            let (end, inotify) = (PollFd::new(&self.end, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN));
            let mut both = [end, inotify];
            match poll(&mut both, None) {
                Ok(_) | Err(Errno::INTR) if both[0].revents().is_empty() => {}
                _ => return,
            }
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = reader.next() {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                self.report(event.wd(), event.events(), name);
            }
        }
    }

    fn report(&self, number: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.sink.lose();
            return;
        }
        let mut dirs = lock(&self.dirs);
        if events.contains(ReadFlags::IGNORED) {
            dirs.remove(&number);
            return;
        }
        if events.contains(ReadFlags::UNMOUNT) {
            // What the mount hid is there now; the kernel ends the watch.
            if let Some(dir) = dirs.get(&number).cloned() {
                drop(dirs);
                self.sink.send(dir, true);
            }
            return;
        }
        let (Some(dir), Some(name)) = (dirs.get(&number), name) else { return };
        let (path, tree) = (dir.join(name), events.contains(ReadFlags::ISDIR));
        if self.sink.ignores(&path) {
            return;
        }
        if tree && events.contains(ReadFlags::MOVED_FROM) {
            // If its new place is below the root, a walk finds the directory there and adds it
            // again.
            dirs.retain(|&number, dir| {
                let stays = !dir.starts_with(&path);
                if !stays {
                    let _ = remove_watch(&self.inotify, number);
                }
                stays
            });
        }
        drop(dirs);
        self.sink.send(path, tree);
    }
}

/// Events that may change what is shared. Opening and reading a file do not; the node does both all
/// the time.
const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);
/// Bytes of events that are read at once.
const BUFFER_LEN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::runtime::Shutdown;

    /// Waits until all of `expected` was reported; returns what was reported besides.
    fn heard(changes: &PathChanges, expected: &[(PathBuf, bool)]) -> Vec<(PathBuf, bool)> {
        let mut left: BTreeSet<_> = expected.iter().cloned().collect();
        let (mut others, end) = (Vec::new(), Instant::now() + Duration::from_secs(30));
        while !left.is_empty() {
            let change = changes.receiver().recv_deadline(end).unwrap_or_else(|_| panic!("not heard of: {left:?}"));
            let change = (change.path, change.tree);
            if !left.remove(&change) {
                others.push(change);
            }
        }
        others
    }

    #[test]
    fn what_changes_is_heard_and_what_is_read_is_not() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), PathChanges::new(&Shutdown::new()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/old"), "x").unwrap();
        let watch = InotifyWatch::begin(&dir, &changes, &Arc::default()).unwrap();
        for below in ["", "a", "a/b", "none"] {
            watch.add(&dir.join(below)).unwrap();
        }
        fs::read(dir.join("a/b/old")).unwrap();
        fs::create_dir(dir.join(".gpb")).unwrap();
        fs::write(dir.join("a/b/new"), "x").unwrap();
        fs::create_dir(dir.join("a/c")).unwrap();
        fs::remove_file(dir.join("a/b/old")).unwrap();
        let expected = [("a/b/new", false), ("a/c", true), ("a/b/old", false)].map(|(p, tree)| (dir.join(p), tree));
        let others = heard(&changes, &expected);
        // What is read comes before what is removed: two changes of that file would be one too
        // many.
        assert!(others.iter().all(|(path, tree)| path == &dir.join("a/b/new") && !tree), "{others:?}");
    }

    #[test]
    fn a_renamed_directory_is_known_by_its_new_name() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), PathChanges::new(&Shutdown::new()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        let watch = InotifyWatch::begin(&dir, &changes, &Arc::default()).unwrap();
        for below in ["", "a", "a/b"] {
            watch.add(&dir.join(below)).unwrap();
        }
        fs::rename(dir.join("a"), dir.join("c")).unwrap();
        heard(&changes, &[(dir.join("a"), true), (dir.join("c"), true)]);
        fs::write(dir.join("c/b/unheard"), "x").unwrap();
        for below in ["c", "c/b"] {
            watch.add(&dir.join(below)).unwrap();
        }
        fs::write(dir.join("c/b/f"), "x").unwrap();
        let others = heard(&changes, &[(dir.join("c/b/f"), false)]);
        assert!(others.iter().all(|(path, _)| path == &dir.join("c/b/f")), "{others:?}");
        assert_eq!(watch.queue.dirs.lock().unwrap().len(), 3);
    }

    #[test]
    fn own_files_are_not_heard_of() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), PathChanges::new(&Shutdown::new()));
        fs::create_dir(dir.join("a")).unwrap();
        let names = ["a/log".to_string(), "state".to_string()].into();
        let watch = InotifyWatch::begin(&dir, &changes, &names).unwrap();
        watch.add(&dir).unwrap();
        watch.add(&dir.join("a")).unwrap();
        fs::write(dir.join("a/log"), "line").unwrap();
        fs::create_dir(dir.join("state")).unwrap();
        fs::create_dir(dir.join(".gpb")).unwrap();
        fs::write(dir.join("a/logs"), "x").unwrap();
        let others = heard(&changes, &[(dir.join("a/logs"), false)]);
        assert!(others.iter().all(|(path, _)| path == &dir.join("a/logs")), "{others:?}");
    }

    /// Cause: a panic ended the thread alone. Effect: changes were seen by the next scan only, in
    /// silence. Mend: it ends the node.
    #[test]
    fn a_panic_of_its_thread_ends_the_node() {
        let (tmp, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let mut watch = InotifyWatch::begin(tmp.path(), &PathChanges::new(&shutdown), &Arc::default()).unwrap();
        watch._threads.spawn("gpb-ill", || panic!("for the test")).unwrap();
        drop(watch);
        assert_eq!(shutdown.defect().as_deref(), Some("gpb-ill"));
    }

    #[test]
    fn directories_that_are_gone_are_forgotten() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), PathChanges::new(&Shutdown::new()));
        let watch = InotifyWatch::begin(&dir, &changes, &Arc::default()).unwrap();
        watch.add(&dir).unwrap();
        for i in 0..100 {
            let below = dir.join(i.to_string());
            fs::create_dir(&below).unwrap();
            watch.add(&below).unwrap();
            fs::remove_dir(&below).unwrap();
        }
        fs::write(dir.join("end"), "x").unwrap();
        heard(&changes, &[(dir.join("end"), false)]);
        assert_eq!(watch.queue.dirs.lock().unwrap().len(), 1);
    }
}
