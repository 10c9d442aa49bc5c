//! The watch on Linux: inotify, directory by directory as they are walked.
//!
//! Not through `notify`, which walks the whole tree by itself first, and always asks to hear of files that are opened, as
//! hashing and serving do all the time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Sender, TrySendError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

use crate::share::watch::{Change, Changes, OwnWrites};

/// A watch of those directories that were added, until it is dropped.
#[derive(Debug)]
pub(in crate::share) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    /// Readable when the thread is to end.
    end: OwnedFd,
    own: OwnWrites,
    /// Watched directories by the number that the kernel gave them. It knows a directory that was renamed as the same
    /// one, so its new name takes the place of the old one when it is walked under that.
    dirs: Mutex<HashMap<i32, PathBuf>>,
    sender: Sender<Change>,
    lost: Arc<AtomicBool>,
}

impl Watch {
    /// Begins to listen for what happens in `dir`, which is absolute and free of links, and below it: in every directory
    /// from when it is added.
    pub(in crate::share) fn begin(dir: &Path, changes: &Changes, own_names: &Arc<[String]>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            end: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            own: OwnWrites { root: dir.to_path_buf(), names: own_names.clone() },
            dirs: Mutex::default(),
            sender: changes.sender.clone(),
            lost: changes.lost.clone(),
        });
        let listening = shared.clone();
        let thread = Builder::new().name("gpb-watch".into()).spawn(move || listening.listen())?;
        Ok(Watch { shared, thread: Some(thread) })
    }

    /// Watches the directory `dir` as well; to be called before its entries are read, so that none is missed. Does no
    /// harm to one that is watched already. One that is not there any more is no error.
    pub(in crate::share) fn add(&self, dir: &Path) -> io::Result<()> {
        // The thread waits for the lock with what it hears, so it finds the name.
        let mut dirs = self.shared.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        match add_watch(&self.shared.inotify, dir, EVENTS | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW) {
            Ok(number) => {
                if dirs.get(&number).is_none_or(|known| known != dir) {
                    dirs.insert(number, dir.to_path_buf());
                }
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(()),
            Err(Errno::NOSPC) => Err(io::Error::other("too many directories")),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.end, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Tells of what happens until the end.
    fn listen(&self) {
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
                self.hear(event.wd(), event.events(), name);
            }
        }
    }

    fn hear(&self, number: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.lost.store(true, Ordering::Relaxed);
            return;
        }
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if events.contains(ReadFlags::IGNORED) {
            dirs.remove(&number);
            return;
        }
        let (Some(dir), Some(name)) = (dirs.get(&number), name) else { return };
        let (path, tree) = (dir.join(name), events.contains(ReadFlags::ISDIR));
        if self.own.contains(&path) {
            return;
        }
        if tree && events.contains(ReadFlags::MOVED_FROM) {
            // Where it is now, it is found and added again, if that is below the root.
            dirs.retain(|&number, dir| {
                let stays = !dir.starts_with(&path);
                if !stays {
                    let _ = remove_watch(&self.inotify, number);
                }
                stays
            });
        }
        drop(dirs);
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Change { path, tree }) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

/// What may change what is shared. Not that a file is opened or read: GPB does that all the time.
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

    /// Waits until all of `expected` was heard of; returns what was beside it.
    fn heard(changes: &Changes, expected: &[(PathBuf, bool)]) -> Vec<(PathBuf, bool)> {
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
        let (dir, changes) = (tmp.path().to_path_buf(), Changes::new());
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/old"), "x").unwrap();
        let watch = Watch::begin(&dir, &changes, &Arc::default()).unwrap();
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
        // What is read comes before what is removed: two changes of that file would be one too many.
        assert!(others.iter().all(|(path, tree)| path == &dir.join("a/b/new") && !tree), "{others:?}");
    }

    #[test]
    fn a_renamed_directory_is_known_by_its_new_name() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), Changes::new());
        fs::create_dir_all(dir.join("a/b")).unwrap();
        let watch = Watch::begin(&dir, &changes, &Arc::default()).unwrap();
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
        assert_eq!(watch.shared.dirs.lock().unwrap().len(), 3);
    }

    #[test]
    fn own_files_are_not_heard_of() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), Changes::new());
        fs::create_dir(dir.join("a")).unwrap();
        let names = ["a/log".to_string(), "state".to_string()].into();
        let watch = Watch::begin(&dir, &changes, &names).unwrap();
        watch.add(&dir).unwrap();
        watch.add(&dir.join("a")).unwrap();
        fs::write(dir.join("a/log"), "line").unwrap();
        fs::create_dir(dir.join("state")).unwrap();
        fs::create_dir(dir.join(".gpb")).unwrap();
        fs::write(dir.join("a/logs"), "x").unwrap();
        let others = heard(&changes, &[(dir.join("a/logs"), false)]);
        assert!(others.iter().all(|(path, _)| path == &dir.join("a/logs")), "{others:?}");
    }

    #[test]
    fn directories_that_are_gone_are_forgotten() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, changes) = (tmp.path().to_path_buf(), Changes::new());
        let watch = Watch::begin(&dir, &changes, &Arc::default()).unwrap();
        watch.add(&dir).unwrap();
        for i in 0..100 {
            let below = dir.join(i.to_string());
            fs::create_dir(&below).unwrap();
            watch.add(&below).unwrap();
            fs::remove_dir(&below).unwrap();
        }
        fs::write(dir.join("end"), "x").unwrap();
        heard(&changes, &[(dir.join("end"), false)]);
        assert_eq!(watch.shared.dirs.lock().unwrap().len(), 1);
    }
}
