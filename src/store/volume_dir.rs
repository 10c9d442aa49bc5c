//! The directory on a real disk. Nothing outside of it is ever opened: names are resolved from its descriptor, and a
//! symlink below it is never followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use log::debug;
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::content::RelPath;
use crate::store::StoreError;
use crate::store::beneath::stamp_of;
use crate::store::landing::Landing;
use crate::store::limits::{OWN_TRIES, TEMP_STALE};
use crate::store::storage::{Stat, Storage, TEMP_SUFFIX, Volume};

/// An open directory and GPB's own one in it.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    path: PathBuf,
    /// Whether the files live in memory: there is nothing to make durable, and reserving costs as much as writing.
    in_memory: bool,
    own: Mutex<Option<Arc<OwnedFd>>>,
}

/// A file on a real disk.
#[derive(Debug)]
struct DiskFile {
    file: File,
    in_memory: bool,
}

impl Beneath {
    /// Opens the directory `path`, which is made with its parents if `create`.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let open = || fs::open(path, DIRECTORY, Mode::empty());
        let root = match open() {
            Err(Errno::NOENT) if create => {
                std::fs::create_dir_all(path).map_err(|e| StoreError::at(path, e))?;
                // The new name should outlive a power loss as what is put below it does; where it cannot be asked for,
                // only that is lost.
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let _ = fs::open(parent, DIRECTORY, Mode::empty()).and_then(fs::fsync);
                open()
            }
            other => other,
        };
        let path = path.to_path_buf();
        match root {
            Ok(root) => {
                let in_memory = fs::fstatfs(&root).is_ok_and(|s| IN_MEMORY.contains(&(s.f_type as u64)));
                Ok(Beneath { root, path, in_memory, own: Mutex::new(None) })
            }
            Err(Errno::NOENT) => Err(StoreError::MissingDirectory { path }),
            Err(Errno::NOTDIR) => Err(StoreError::NotADirectory { path }),
            Err(e) => Err(StoreError::at(path, e)),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory of the name `dir` (components separated by `/`), which exists.
    pub(crate) fn open_dir(&self, dir: &str) -> rustix::io::Result<OwnedFd> {
        fs::openat2(&self.root, dir, DIRECTORY, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    /// Whether files can be renamed from the own directory into `dir`, which exists: not into another mount, and not
    /// into another file system (a subvolume is one without being a mount).
    pub(crate) fn is_same_mount(&self, dir: &str) -> rustix::io::Result<bool> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let dir = match fs::openat2(&self.root, dir, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::XDEV) => return Ok(false),
            // Without the call only the file systems are compared.
            Err(e) if no_openat2(e) => fs::openat(&self.root, dir, DIRECTORY, Mode::empty())?,
            other => other?,
        };
        Ok(fs::fstat(&dir)?.st_dev == fs::fstat(&self.root)?.st_dev)
    }

    /// Whether files live in memory, so that there is nothing to make durable.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
        if self.in_memory { Ok(()) } else { fs::fsync(dir) }
    }

    /// Opens a file for reading, if it is a regular one that is reached without symlinks.
    pub(crate) fn open_file(&self, path: &RelPath) -> io::Result<File> {
        // Opening a FIFO must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match fs::openat2(&self.root, path.as_str(), flags, Mode::empty(), resolve) {
            Err(e) if no_openat2(e) => self.open_walking(path, flags),
            other => other,
        }?;
        let file = File::from(file);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::ISDIR.into()) }
    }

    /// Opens a file as `openat2` would, one component after the other.
    fn open_walking(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let (parents, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let mut dir = None;
        for parent in parents.split_terminator('/') {
            let at = dir.as_ref().map_or(self.root(), AsFd::as_fd);
            dir = Some(fs::openat(at, parent, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
        }
        fs::openat(dir.as_ref().map_or(self.root(), AsFd::as_fd), name, flags, Mode::empty())
    }

    /// What lies at `path`, unless nothing does; an error if that is never to be replaced. Nothing is opened: opening a
    /// device may do something.
    pub(crate) fn look(&self, path: &RelPath) -> Result<Option<FileType>, StoreError> {
        replaceable(self.root(), path.as_str())
            .map_err(|kind| StoreError::NotRegular { path: self.path_of(path), kind })
    }

    /// Runs `act` on the own directory, which is made again if another process removed it meanwhile.
    pub(crate) fn with_own<R>(&self, act: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<R>) -> io::Result<R> {
        for _ in 0..OWN_TRIES {
            let own = self.own()?;
            match act(own.as_fd()) {
                // A directory that was removed takes no new names.
                Err(Errno::NOENT) if fs::fstat(&*own).is_ok_and(|s| s.st_nlink == 0) => self.forget_own(&own),
                other => return other.map_err(Into::into),
            }
        }
        Err(Errno::NOENT.into())
    }

    fn own(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*own {
            return Ok(dir.clone());
        }
        for _ in 0..OWN_TRIES {
            let found = match fs::mkdirat(&self.root, OWN, Mode::RWXU) {
                Ok(()) => false,
                Err(Errno::EXIST) => true,
                Err(e) => return Err(e),
            };
            match fs::openat(&self.root, OWN, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(dir) => {
                    let dir = Arc::new(dir);
                    if found {
                        sweep(&dir);
                    }
                    *own = Some(dir.clone());
                    return Ok(dir);
                }
                Err(Errno::NOENT) => (),
                Err(e) => {
                    return Err(if kind_at(&self.root, OWN) == Some(FileType::Symlink) { Errno::LOOP } else { e });
                }
            }
        }
        Err(Errno::NOENT)
    }

    fn forget_own(&self, which: &Arc<OwnedFd>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref().is_some_and(|o| Arc::ptr_eq(o, which)) {
            *own = None;
        }
    }

    /// An open file as one of this volume.
    pub(crate) fn storage(&self, file: OwnedFd) -> Arc<dyn Storage> {
        Arc::new(DiskFile { file: file.into(), in_memory: self.in_memory })
    }
}

impl Volume for Beneath {
    fn make_own(&self) -> Result<(), StoreError> {
        self.own().map(|_| ()).map_err(|e| StoreError::at(self.path.join(OWN), e))
    }

    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match self.with_own(|own| match fs::openat(own, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        })? {
            None => return Ok(None),
            Some(file) => file,
        };
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Some(self.storage(file)))
    }

    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.with_own(|own| fs::openat(own, name, flags, FILE_MODE)) {
            Ok(file) => Ok(Some(self.storage(file))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>> {
        self.with_own(|own| match fs::statat(own, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn remove_own(&self, name: &str) -> io::Result<bool> {
        self.with_own(|own| match fs::unlinkat(own, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        })
    }

    fn sync_own(&self) -> io::Result<()> {
        self.with_own(|own| fs::fsync(own))?;
        // The own directory's name as well: it may be new.
        Ok(fs::fsync(&self.root)?)
    }

    fn sync_files(&self) -> io::Result<()> {
        if self.in_memory {
            return Ok(());
        }
        Ok(fs::syncfs(&self.root)?)
    }

    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        Landing::new(self).place(moves)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn tidy(&self) {
        // Fails while anybody has a file there, which is right. The descriptor that is still held is found dead by its
        // next user.
        if fs::unlinkat(&self.root, OWN, AtFlags::REMOVEDIR).is_ok() {
            *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn path_of_own(&self, name: &str) -> PathBuf {
        self.path.join(OWN).join(name)
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_str())
    }
}

impl Storage for DiskFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.file)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        // In memory, reserving takes and zeroes every page, which the writes then touch again: a tenth slower than
        // writing into a hole. Room was checked; should others take it, the write says so.
        if self.in_memory || len == 0 {
            return self.file.set_len(len);
        }
        match rustix::io::retry_on_intr(|| fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len),
            other => Ok(other?),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let meta = self.file.metadata()?;
        Ok(Stat { len: meta.len(), allocated: meta.blocks() * 512, stamp: stamp_of(&meta) })
    }

    fn try_lock(&self) -> io::Result<bool> {
        match fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            // A file system without locks (some network ones) is no reason not to write there.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    fn unlock(&self) {
        let _ = fs::flock(&self.file, FlockOperation::Unlock);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// What lies at a name, the symlink itself if it is one.
pub(crate) fn kind_at(dir: impl AsFd, name: &str) -> Option<FileType> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|s| FileType::from_raw_mode(s.st_mode))
}

/// What lies at a name, the symlink itself if it is one; as an error what must not be replaced by a file, because it
/// stands for something else than bytes on a disk. Of a symlink only its name is replaced, but one that leads to such
/// a thing is most likely meant for it, as `/dev/stdout` is.
pub(crate) fn replaceable(dir: impl AsFd, name: &str) -> Result<Option<FileType>, &'static str> {
    let Some(kind) = kind_at(&dir, name) else { return Ok(None) };
    match kind {
        FileType::CharacterDevice => Err("a character device"),
        FileType::BlockDevice => Err("a block device"),
        FileType::Fifo => Err("a FIFO"),
        FileType::Socket => Err("a socket"),
        FileType::Symlink => {
            let text = fs::readlinkat(&dir, name, Vec::new()).unwrap_or_default();
            if text.as_bytes().starts_with(b"/proc/") {
                return Err("a symlink to an open file");
            }
            match fs::statat(&dir, name, AtFlags::empty()).map(|s| FileType::from_raw_mode(s.st_mode)) {
                Ok(FileType::CharacterDevice) => Err("a symlink to a character device"),
                Ok(FileType::BlockDevice) => Err("a symlink to a block device"),
                Ok(FileType::Fifo) => Err("a symlink to a FIFO"),
                Ok(FileType::Socket) => Err("a symlink to a socket"),
                _ => Ok(Some(kind)),
            }
        }
        _ => Ok(Some(kind)),
    }
}

/// Whether `openat2` itself is missing or forbidden, so that the names are to be walked one by one.
fn no_openat2(e: Errno) -> bool {
    matches!(e, Errno::NOSYS | Errno::PERM | Errno::TOOBIG | Errno::INVAL | Errno::AGAIN)
}

/// Removes temporary files that a killed process left behind.
fn sweep(own: &OwnedFd) {
    let Ok(dir) = fs::Dir::read_from(own) else { return };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    for entry in dir.flatten() {
        let name = entry.file_name();
        let is_temp = name.to_bytes().ends_with(TEMP_SUFFIX.as_bytes());
        if is_temp && let Ok(stat) = fs::statat(own, name, AtFlags::SYMLINK_NOFOLLOW) {
            let written = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            if now.saturating_sub(written) > TEMP_STALE && fs::unlinkat(own, name, AtFlags::empty()).is_ok() {
                debug!("left-over temporary file removed name={name:?}");
            }
        }
    }
}

/// How directories are opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

const OWN: &str = ".gpb";
/// 0644, of which the umask may take more.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);
/// tmpfs, ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn with_and_without_openat2_only_regular_files_below_are_opened() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), b"x").unwrap();
        std::fs::write(outside.path().join("f"), b"x").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink("a", dir.path().join("in")).unwrap();
        symlink("a/b/f", dir.path().join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), Mode::RWXU).unwrap();
        let disk = Beneath::open(dir.path(), false).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (path, opens) in [
            ("a/b/f", true),
            ("out/f", false),
            ("in/b/f", false),
            ("link", false),
            ("a/b/g", false),
            ("a/b/f/g", false),
        ] {
            assert_eq!(disk.open_file(&name(path)).is_ok(), opens, "{path}");
            assert_eq!(disk.open_walking(&name(path), flags).is_ok(), opens, "{path} step by step");
        }
        assert!(disk.open_file(&name("fifo")).is_err(), "and it does not wait for a writer");
        assert!(disk.open_file(&name("a")).is_err());
    }

    #[test]
    fn the_own_directory_is_made_again_when_somebody_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Beneath::open(dir.path(), false).unwrap();
        disk.create_own("a").unwrap().unwrap();
        assert!(disk.create_own("a").unwrap().is_none());
        disk.tidy();
        assert_eq!(
            disk.inode_of_own("a").unwrap(),
            Some(disk.open_own("a").unwrap().unwrap().stat().unwrap().stamp.inode)
        );
        std::fs::remove_dir_all(dir.path().join(OWN)).unwrap();
        assert!(disk.open_own("a").unwrap().is_none());
        disk.create_own("a").unwrap().unwrap();
        assert!(dir.path().join(OWN).join("a").exists());
        assert!(disk.remove_own("a").unwrap() && !disk.remove_own("a").unwrap());
        disk.tidy();
        assert!(!dir.path().join(OWN).exists());
    }

    #[test]
    fn old_temporary_files_are_swept_and_new_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(OWN);
        std::fs::create_dir(&own).unwrap();
        for file in ["old.tmp", "new.tmp", "old.part"] {
            std::fs::write(own.join(file), b"x").unwrap();
        }
        for file in ["old.tmp", "old.part"] {
            let when = SystemTime::now() - 2 * TEMP_STALE;
            File::options().write(true).open(own.join(file)).unwrap().set_modified(when).unwrap();
        }
        let disk = Beneath::open(dir.path(), false).unwrap();
        disk.make_own().unwrap();
        let left = |file: &str| own.join(file).exists();
        assert!(!left("old.tmp") && left("new.tmp") && left("old.part"));
    }

    #[test]
    fn what_is_wrong_with_the_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, file) = (dir.path().join("x/y"), dir.path().join("file"));
        std::fs::write(&file, b"").unwrap();
        assert!(
            matches!(Beneath::open(&missing, false), Err(StoreError::MissingDirectory { path }) if path == missing)
        );
        assert!(matches!(Beneath::open(&file, true), Err(StoreError::NotADirectory { .. })));
        Beneath::open(&missing, true).unwrap();
        assert!(missing.is_dir());
    }
}
