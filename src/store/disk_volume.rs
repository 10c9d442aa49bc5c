//! The directory that a node writes to, on a real disk. Names are resolved from its descriptor, and
//! no symlink below it is followed.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::content::{FileId, RelPath};
use crate::store::OWN;
use crate::store::disk_file::DiskFile;
use crate::store::disk_folder::DiskFolder;
use crate::store::disk_names::set_aside;
use crate::store::dress::Dresses;
use crate::store::inspect::{LookedAt, has_other_case, is_mount_point, is_spelled_so, kind_at, look_at, state_at};
use crate::store::make_dirs::make_dirs;
use crate::store::nearby::Nearby;
use crate::store::open_beneath::{BeneathOpener, DIRECTORY, READ};
use crate::store::own_dir::{OwnDir, remove_name};
use crate::store::place_guard::{PlaceGuard, SpellingAsk};
use crate::store::placed::{PlacedLog, PlacedState};
use crate::store::publish::{Publish, PublishTarget};
use crate::store::storage::{FileDress, OwnBare, Storage, Volume, explain_full, temp_name};
use crate::store::{Life, Overwrite, StoreError};

mod room;
mod times;
mod tree;

use times::TimeProbe;
pub use tree::{LocalKind, LocalName, LocalTree};

/// An open directory, and the node's own one in it.
#[derive(Debug)]
pub(crate) struct DiskVolume {
    own: OwnDir,
    opener: BeneathOpener,
    path: PathBuf,
    /// Whether the files live in memory: nothing has to be made durable, and reserving room costs
    /// as much as writing.
    in_memory: bool,
    /// Decides about files that are there already; without it each is replaced.
    guard: Option<PlaceGuard>,
    /// What the files get besides their contents.
    dresses: Dresses,
    /// Tells which times files can have, once that was asked for.
    times: OnceLock<Option<TimeProbe>>,
    /// The file system of a test has no links.
    #[cfg(test)]
    pub(crate) lacks_links: std::sync::atomic::AtomicBool,
}

impl DiskVolume {
    /// Opens the directory `path`. With `create`, it is created with its parents if it is missing.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let open = || fs::open(path, DIRECTORY, Mode::empty());
        let root = match open() {
            Err(Errno::NOENT) if create => {
                // The new names should outlive a power loss, like the files below them.
                make_dirs(path, 0o777).map_err(|e| match dangling(path) {
                    Some(link) => StoreError::NameTaken { path: link, by: "a symlink that leads nowhere" },
                    None => StoreError::at(path, e),
                })?;
                open()
            }
            other => other,
        };
        let path = path.to_path_buf();
        match root {
            Ok(root) => {
                let in_memory = fs::fstatfs(&root).is_ok_and(|s| IN_MEMORY.contains(&(s.f_type as u64)));
                let (own, opener) = (OwnDir::new(root), BeneathOpener::new());
                let dresses = Dresses::default();
                Ok(DiskVolume {
                    own,
                    opener,
                    path,
                    in_memory,
                    guard: None,
                    dresses,
                    times: OnceLock::new(),
                    #[cfg(test)]
                    lacks_links: false.into(),
                })
            }
            Err(Errno::NOENT) => Err(StoreError::MissingDirectory { path }),
            Err(Errno::NOTDIR) => Err(StoreError::NotADirectory { path }),
            Err(e) => Err(StoreError::at(path, e)),
        }
    }

    /// Lets `overwrite` decide about files that are there already. What is put in place is recorded in
    /// the directory `state`, if there is one, with its `life`.
    pub(crate) fn guarded(self, overwrite: Overwrite, state: Option<&Path>, life: Life) -> Self {
        let root = std::fs::canonicalize(&self.path);
        let log = state.zip(root.ok()).map(|(state, root)| PlacedLog::new(Arc::new(DiskFolder::new(state)), root));
        let guard = Some(PlaceGuard::new(overwrite, &self.path, log).with_life(life));
        DiskVolume { guard, ..self }
    }

    /// What decides about files that are there already.
    pub(crate) fn guard(&self) -> Option<&PlaceGuard> {
        self.guard.as_ref()
    }

    /// What the files get besides their contents.
    pub(crate) fn dresses(&self) -> &Dresses {
        &self.dresses
    }

    /// The mode of a file that is created with mode 0777: the umask is not asked for otherwise.
    fn mode_of_program(&self) -> io::Result<u32> {
        let name = temp_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = self.own.with(|own| Ok(fs::fstat(fs::openat(own, &*name, flags, PROGRAM_MODE)?)?.st_mode));
        self.remove_own(&name)?;
        mode
    }

    /// Kind and state of what lies at `path`.
    pub(crate) fn state_of(&self, path: &RelPath) -> Option<(FileType, PlacedState)> {
        state_at(self.root(), path.as_str())
    }

    /// Bytes that the partial file of `id` takes already.
    pub(crate) fn reserved_for(&self, id: &FileId) -> u64 {
        // By its path: opening the own directory would make it.
        let part = format!("{OWN}/{}-{}.part", id.root, id.len);
        fs::statat(self.root(), &*part, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_blocks as u64 * 512)
    }

    /// The path of a final name, for messages.
    pub(crate) fn path_of_place(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_str())
    }

    /// Whether `path` exists with exactly these letters.
    pub(crate) fn spelling(&self, path: &RelPath, ask: SpellingAsk) -> bool {
        match ask {
            SpellingAsk::IsExact => is_spelled_so(self.root(), path),
            SpellingAsk::HasOtherCase => has_other_case(self.root(), path),
        }
    }

    /// Looks for all regular files below the directory.
    pub(crate) fn walk(&self) -> Nearby {
        Nearby::walk(self.root(), &self.opener)
    }

    /// The path that the directory was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn check_writable(&self) -> io::Result<()> {
        Ok(fs::accessat(self.root(), ".", fs::Access::WRITE_OK, fs::AtFlags::empty())?)
    }

    /// Whether the files live in memory, so that nothing has to be made durable.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Whether files can be renamed from the own directory into the existing directory `dir`. That
    /// fails across mounts, and across file systems, such as a subvolume that is not a mount.
    pub(crate) fn is_same_mount(&self, dir: &str) -> rustix::io::Result<bool> {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match self.opener.open(self.root(), dir, DIRECTORY, resolve) {
            Err(Errno::XDEV) => Ok(false),
            dir => Ok(fs::fstat(dir?)?.st_dev == fs::fstat(self.root())?.st_dev),
        }
    }

    /// Opens a regular file for reading, if no symlink leads to it.
    pub(crate) fn open_file(&self, path: &RelPath) -> io::Result<File> {
        let file = File::from(self.opener.open(self.root(), path.as_str(), READ, ResolveFlags::NO_SYMLINKS)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::ISDIR.into()) }
    }

    /// The kind of what lies at `path`, `None` if nothing does. The call opens nothing: opening a
    /// device may have an effect.
    pub(crate) fn look(&self, path: &RelPath) -> Result<Option<FileType>, StoreError> {
        Ok(self.look_at(path)?.map(|found| found.kind))
    }

    /// As [`look`](Self::look), with all that the same call tells.
    pub(crate) fn look_at(&self, path: &RelPath) -> Result<Option<LookedAt>, StoreError> {
        look_at(self.root(), path.as_str()).map_err(|kind| StoreError::NotRegular { path: self.path_of(path), kind })
    }

    /// Whether nothing can be renamed over `path`.
    pub(crate) fn is_mount_point(&self, path: &RelPath) -> bool {
        is_mount_point(self.root(), path.as_str())
    }

    /// The first part of `dir` that exists and is no directory, as a path for messages.
    pub(crate) fn no_directory(&self, dir: &str) -> PathBuf {
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        let blocking = |end: &usize| kind_at(self.root(), &dir[..*end]).is_some_and(|kind| kind != FileType::Directory);
        self.path.join(ends.into_iter().find(blocking).map_or(dir, |end| &dir[..end]))
    }

    /// Turns an open file into one of this volume.
    pub(crate) fn storage(&self, file: OwnedFd) -> Arc<dyn Storage> {
        Arc::new(DiskFile::new(file, self.in_memory))
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.own.root()
    }

    fn target(&self) -> PublishTarget<'_> {
        PublishTarget {
            own: &self.own,
            opener: &self.opener,
            path: &self.path,
            durable: !self.in_memory,
            guard: self.guard.as_ref(),
        }
    }

    pub(super) fn opener(&self) -> &BeneathOpener {
        &self.opener
    }

    /// Runs `act` on the own directory, which is made where there is none.
    pub(super) fn with_own<R>(&self, act: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<R>) -> io::Result<R> {
        self.own.with(act)
    }

    fn open_own_for(&self, access: OFlags, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match self.own.with(|own| match fs::openat(own, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        })? {
            None => return Ok(None),
            Some(file) => file,
        };
        let stat = fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NXIO.into());
        }
        // What a crash left under an own name may be a file that was kept for the user.
        if stat.st_nlink > 1 {
            self.remove_own(name)?;
            return Ok(None);
        }
        Ok(Some(self.storage(file)))
    }
}

impl Volume for DiskVolume {
    fn make_own(&self) -> Result<(), StoreError> {
        self.own.open().map(drop).map_err(|e| {
            let path = self.path.join(OWN);
            let owner = || fs::statat(self.root(), OWN, AtFlags::SYMLINK_NOFOLLOW).map(|s| s.st_uid);
            match (e, owner()) {
                (Errno::ACCESS | Errno::PERM, Ok(owner)) if owner != rustix::process::geteuid().as_raw() => {
                    StoreError::OtherUser { path, owner }
                }
                _ => explain_full(self, StoreError::at(path, e), 0),
            }
        })
    }

    fn open_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.open_own_for(OFlags::RDWR, name)
    }

    fn look_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        self.open_own_for(OFlags::RDONLY, name)
    }

    fn create_own(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.own.with(|own| fs::openat(own, name, flags, FILE_MODE)) {
            Ok(file) => Ok(Some(self.storage(file))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn own_names(&self) -> io::Result<Vec<String>> {
        let own = match retry_on_intr(|| fs::openat(self.root(), OWN, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            own => own?,
        };
        let entries = fs::Dir::read_from(&own)?.flatten();
        Ok(entries.filter_map(|entry| entry.file_name().to_str().ok().map(Into::into)).collect())
    }

    fn inode_of_own(&self, name: &str) -> io::Result<Option<u64>> {
        self.own.with(|own| match fs::statat(own, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn remove_own(&self, name: &str) -> io::Result<bool> {
        self.own.with(|own| match remove_name(own, name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        })
    }

    fn set_aside_own(&self, name: &str) -> io::Result<String> {
        set_aside(&self.own, name)
    }

    fn sync_own(&self) -> io::Result<()> {
        self.own.with(|own| fs::fsync(own))?;
        // The name of the own directory may be new too.
        Ok(retry_on_intr(|| fs::fsync(self.root()))?)
    }

    fn sync_files(&self) -> io::Result<()> {
        if self.in_memory {
            return Ok(());
        }
        Ok(retry_on_intr(|| fs::syncfs(self.root()))?)
    }

    fn place(&self, moves: &[(String, &RelPath)]) -> Vec<Result<(), StoreError>> {
        Publish::new(self.target(), &[]).place(moves)
    }

    fn place_open(&self, moves: &[(String, &RelPath)], files: &[Arc<dyn Storage>]) -> Vec<Result<(), StoreError>> {
        Publish::new(self.target(), files).place(moves)
    }

    fn create_own_bare(&self, name: &str, what: &OwnBare<'_>) -> io::Result<()> {
        self.create_bare(name, what)
    }

    fn is_taken(&self, path: &RelPath) -> bool {
        self.state_of(path).is_some()
    }

    fn dress_of(&self, path: &RelPath) -> Option<FileDress> {
        self.dresses.of_new(path, || self.mode_of_program())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.room().map(|(free, _)| free)
    }

    fn loses_nothing(&self) -> bool {
        self.in_memory
    }

    fn free_files(&self) -> io::Result<Option<u64>> {
        let stat = fs::fstatvfs(self.root())?;
        Ok((stat.f_files > 0).then_some(stat.f_favail))
    }

    fn tidy(&self) {
        self.own.tidy();
    }

    fn root_id(&self) -> Option<(u64, u64)> {
        fs::fstat(self.root()).ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    fn path_of_own(&self, name: &str) -> PathBuf {
        self.path.join(OWN).join(name)
    }

    fn path_of(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_str())
    }
}

/// Mode 0666, of which the umask takes bits away, as for every new file of the system.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// Mode 0777, likewise for programs.
const PROGRAM_MODE: Mode = Mode::from_raw_mode(0o777);
/// File system types of tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The first part of `path` that is a symlink to something that is not there.
fn dangling(path: &Path) -> Option<PathBuf> {
    let leads_nowhere = |part: &&Path| part.is_symlink() && !part.exists();
    path.ancestors().filter(leads_nowhere).last().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use std::time::SystemTime;

    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::limits::TEMP_STALE;
    use crate::store::placed::{Keeping, PlacedFile};
    use crate::store::storage::{Folder, create_temp};

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    /// The state directory; the user saves the file while its records are read.
    #[derive(Debug)]
    struct SlowState(DiskFolder, PathBuf);

    impl Folder for SlowState {
        fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
            std::fs::write(&self.1, b"saved just now")?;
            self.0.open(name)
        }
        fn create(&self, name: &str) -> io::Result<Option<Arc<dyn Storage>>> {
            self.0.create(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<bool> {
            self.0.remove(name)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn path_of(&self, name: &str) -> PathBuf {
            self.0.path_of(name)
        }
    }

    #[test]
    fn what_is_saved_while_a_file_is_judged_is_kept() {
        for overwrite in [Overwrite::Refuse, Overwrite::Backup] {
            let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (root, file) = (std::fs::canonicalize(dir.path()).unwrap(), dir.path().join("f"));
            std::fs::write(&file, b"fetched").unwrap();
            let mut volume = DiskVolume::open(dir.path(), false).unwrap();
            let id = FileId { root: Root(Digest([1; 32])), len: 7 };
            let log = PlacedLog::new(Arc::new(DiskFolder::new(state.path())), root.clone());
            let (_, placed) = volume.state_of(&name("f")).unwrap();
            log.note("f", PlacedFile { id, state: Some(placed), keeping: Keeping::Kept });
            drop(log);
            let log = PlacedLog::new(Arc::new(SlowState(DiskFolder::new(state.path()), file.clone())), root);
            volume.guard = Some(PlaceGuard::new(overwrite, dir.path(), Some(log)));
            volume.make_own().unwrap();
            let (own, _) = create_temp(&volume).unwrap();
            let result = volume.place(&[(own, &name("f"))]).remove(0);
            let kept = if overwrite == Overwrite::Backup { dir.path().join("f~") } else { file };
            assert_eq!(std::fs::read(kept).unwrap(), b"saved just now", "{result:?}");
            assert_eq!(result.is_ok(), overwrite == Overwrite::Backup, "{result:?}");
        }
    }

    /// Cause: of two processes that fetched the same into one directory, the slower one took the file
    /// of the other for one of the user's. Effect: it failed, although all was there. Mend: bytes that
    /// are equal are no conflict.
    #[test]
    fn what_another_process_brought_meanwhile_is_no_conflict() {
        for overwrite in [Overwrite::Refuse, Overwrite::Backup] {
            let dir = tempfile::tempdir().unwrap();
            let mut volume = DiskVolume::open(dir.path(), false).unwrap();
            volume.guard = Some(PlaceGuard::new(overwrite, dir.path(), None));
            volume.make_own().unwrap();
            let long = vec![7; 300_000];
            let mut other = long.clone();
            other[299_999] = 8;
            for (there, same) in [(&long[..], true), (&other, false), (&long[1..], false)] {
                std::fs::write(dir.path().join("f"), there).unwrap();
                let (own, file) = create_temp(&volume).unwrap();
                file.write_at(0, &long).unwrap();
                let result = volume.place(&[(own, &name("f"))]).remove(0);
                assert_eq!(result.is_ok(), same || overwrite == Overwrite::Backup, "{result:?}");
                let has_backup = std::fs::remove_file(dir.path().join("f~")).is_ok();
                assert_eq!(has_backup, !same && overwrite == Overwrite::Backup);
            }
        }
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
        for walking in [false, true] {
            let disk = DiskVolume::open(dir.path(), false).unwrap();
            if walking {
                disk.opener.forget_openat2();
            }
            for (path, opens) in [
                ("a/b/f", true),
                ("out/f", false),
                ("in/b/f", false),
                ("link", false),
                ("a/b/g", false),
                ("a/b/f/g", false),
                ("a", false),
            ] {
                assert_eq!(disk.open_file(&name(path)).is_ok(), opens, "{path}, walking: {walking}");
            }
            assert!(disk.open_file(&name("fifo")).is_err(), "and it does not wait for a writer");
            assert!(disk.is_same_mount("a/b").unwrap() && disk.is_same_mount("out").is_err());
            assert_eq!(disk.is_same_mount("a/none").unwrap_err(), Errno::NOENT);
        }
    }

    #[test]
    fn the_own_directory_is_made_again_when_somebody_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskVolume::open(dir.path(), false).unwrap();
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
    fn a_temporary_file_with_an_old_time_of_its_content_is_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(OWN);
        std::fs::create_dir(&own).unwrap();
        for file in ["old.tmp", "older.tmp"] {
            std::fs::write(own.join(file), b"x").unwrap();
        }
        // Files get the times of what they are made from before they get their final names.
        let before_1970 = SystemTime::UNIX_EPOCH - TEMP_STALE;
        for (file, when) in [("old.tmp", SystemTime::now() - 2 * TEMP_STALE), ("older.tmp", before_1970)] {
            File::options().write(true).open(own.join(file)).unwrap().set_modified(when).unwrap();
        }
        let disk = DiskVolume::open(dir.path(), false).unwrap();
        disk.make_own().unwrap();
        let left = |file: &str| own.join(file).exists();
        assert!(left("old.tmp") && left("older.tmp"));
    }

    #[test]
    fn what_is_wrong_with_the_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, file) = (dir.path().join("x/y"), dir.path().join("file"));
        std::fs::write(&file, b"").unwrap();
        assert!(
            matches!(DiskVolume::open(&missing, false), Err(StoreError::MissingDirectory { path }) if path == missing)
        );
        assert!(matches!(DiskVolume::open(&file, true), Err(StoreError::NotADirectory { .. })));
        DiskVolume::open(&missing, true).unwrap();
        assert!(missing.is_dir());
        // It was "File exists", with the advice to check the disk.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for below in [link.clone(), link.join("a/b")] {
            let refused = DiskVolume::open(&below, true).unwrap_err();
            let is_told =
                matches!(&refused, StoreError::NameTaken { path, by } if *path == link && by.contains("nowhere"));
            assert!(is_told, "{refused}");
        }
    }
}
