//! Why local storage failed.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::mem::Discriminant;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::store::OWN;

use crate::sync::lock;

/// Why local storage failed. Each message names the path and the cause on one line.
///
/// Whatever failed, the chunks that were verified and written stay, and a later fetch continues
/// from them.
///
/// ```no_run
/// use gpb::error::StoreError;
/// use gpb::{FetchError, Node};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().dir("/data").start()?;
/// if let Err(failed) = node.fetch("backup.tar")?.wait() {
///     match &*failed.error {
///         FetchError::Storage(StoreError::NoSpace { path, needed, free }) => {
///             println!("{} needs {} bytes more", path.display(), needed.saturating_sub(*free));
///         }
///         error => println!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system has not enough room.
    #[error("no space for {}: {}", .path.display(), MissingSpace(*.needed, *.free))]
    NoSpace {
        /// What was to be written.
        path: PathBuf,
        /// Bytes still to be allocated; 0 if unknown.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The file system holds as many files as it can, whatever their lengths.
    #[error("no inodes left for {}: the disk takes no more files", .path.display())]
    NoInodes {
        /// What was to be made.
        path: PathBuf,
    },
    /// Another user fetches, or has not finished fetching, into the directory.
    #[error("unfinished downloads of user {owner} lie in {}", .path.display())]
    OtherUser {
        /// The directory of unfinished files.
        path: PathBuf,
        /// The number of that user.
        owner: u32,
    },
    /// The user's or project's quota is used up.
    #[error("disk quota used up at {}", .path.display())]
    Quota {
        /// What was to be written.
        path: PathBuf,
    },
    /// The file would be larger than the process, or the file system, may make one.
    #[error("{} would be larger than a file may be here", .path.display())]
    FileTooLarge {
        /// What was to be written.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("{} is on a read-only file system", .path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// The user may not write, or read, there.
    #[error("no permission for {}", .path.display())]
    Permission {
        /// What was refused.
        path: PathBuf,
    },
    /// The directory does not exist.
    #[error("directory {} does not exist", .path.display())]
    MissingDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Something that is no directory has its name.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// What lies there.
        path: PathBuf,
    },
    /// Another download, in this process or another, writes the same partial file.
    #[error("another download writes {}", .path.display())]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// Something of another kind has the name: a directory where a file goes, or a file or symlink
    /// where a directory is needed.
    #[error("{by} is in the way at {}", .path.display())]
    NameTaken {
        /// The name.
        path: PathBuf,
        /// What lies there, such as `a directory`.
        by: &'static str,
    },
    /// The file belongs to this node itself: its key, trusted keys, index, log or configuration.
    #[error("{} is a file of this node itself and never overwritten", .path.display())]
    OwnFile {
        /// The file.
        path: PathBuf,
    },
    /// A file lies there that no fetch put there, or that was changed since.
    #[error("{} is here already, and was not fetched or was changed since", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another file of the same fetch was put at the same place: the file system takes both names
    /// for one.
    #[error("{} and {} are one name on this file system", .path.display(), .other.display())]
    SameName {
        /// The name that failed.
        path: PathBuf,
        /// The name that is there.
        other: PathBuf,
    },
    /// Something that is no regular file has the name of a file: only regular files and symlinks
    /// are replaced.
    #[error("{} is {kind}, not a regular file", .path.display())]
    NotRegular {
        /// The name.
        path: PathBuf,
        /// What lies there, such as `a character device`.
        kind: &'static str,
    },
    /// The place of a file lies on another mount than the directory, so that no finished file can
    /// be renamed into it.
    #[error("{} is another mount than the directory of the download", .path.display())]
    OtherMount {
        /// The place.
        path: PathBuf,
    },
    /// The file system has no links of this kind, or the file has as many names as it can.
    #[error("no {kind} can be made at {}", .path.display())]
    NoLinks {
        /// The name.
        path: PathBuf,
        /// What cannot be made there, such as `symbolic link`.
        kind: &'static str,
    },
    /// The file was to be put in place with chunks missing.
    #[error("{} is not whole: {missing} chunks missing", .path.display())]
    NotWhole {
        /// The partial file.
        path: PathBuf,
        /// Chunks that it lacks.
        missing: u32,
    },
    /// Anything else that the system says.
    #[error("cannot use {}", .path.display())]
    Io {
        /// What was used.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// The error for `source`, which the system gave for `path`.
    pub(crate) fn at(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.as_ref().to_path_buf(), source.into());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC) => StoreError::NoSpace { path, needed: 0, free: 0 },
            Some(Errno::DQUOT) => StoreError::Quota { path },
            Some(Errno::FBIG) => StoreError::FileTooLarge { path },
            Some(Errno::ROFS) => StoreError::ReadOnly { path },
            Some(Errno::ACCESS | Errno::PERM) => StoreError::Permission { path },
            Some(Errno::ISDIR) => StoreError::NameTaken { path, by: "a directory" },
            Some(Errno::NOTDIR) => StoreError::NameTaken { path, by: "a file" },
            Some(Errno::LOOP) => StoreError::NameTaken { path, by: "a symlink" },
            // What the system says of a socket or FIFO that is opened as a file.
            Some(Errno::NXIO) => StoreError::NameTaken { path, by: "a special file" },
            Some(Errno::XDEV) => StoreError::OtherMount { path },
            _ => StoreError::Io { path, source },
        }
    }

    /// Whether the process, or the system, may open no further file.
    pub(crate) fn is_of_descriptors(&self) -> bool {
        let StoreError::Io { source, .. } = self else { return false };
        let errno = source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE))
    }

    /// Whether nothing else can be written below `dir` either: the disk is full, read-only or
    /// broken, or the system gives this process no more. Other errors concern one place.
    pub(crate) fn is_of_whole_disk(&self, dir: &Path) -> bool {
        let own = || dir.join(OWN);
        match self {
            StoreError::OtherUser { .. } | StoreError::MissingDirectory { .. } | StoreError::NotADirectory { .. } => {
                true
            }
            // Without the own directory there is no place for unfinished files.
            StoreError::Permission { path } | StoreError::NameTaken { path, .. } | StoreError::OtherMount { path } => {
                *path == own()
            }
            _ => self.is_of_disk(),
        }
    }

    /// Whether the cause is the disk, or what the system gives this process, whatever the name.
    fn is_of_disk(&self) -> bool {
        match self {
            StoreError::NoSpace { .. }
            | StoreError::NoInodes { .. }
            | StoreError::Quota { .. }
            | StoreError::ReadOnly { .. } => true,
            StoreError::Io { source, .. } => {
                let errno = source.raw_os_error().map(Errno::from_raw_os_error);
                errno.is_some_and(|errno| !OF_ONE_NAME.contains(&errno))
            }
            StoreError::OtherUser { .. }
            | StoreError::MissingDirectory { .. }
            | StoreError::NotADirectory { .. }
            | StoreError::Permission { .. }
            | StoreError::NameTaken { .. }
            | StoreError::OtherMount { .. }
            | StoreError::Busy { .. }
            | StoreError::OwnFile { .. }
            | StoreError::Exists { .. }
            | StoreError::SameName { .. }
            | StoreError::NotRegular { .. }
            | StoreError::NoLinks { .. }
            | StoreError::FileTooLarge { .. }
            | StoreError::NotWhole { .. } => false,
        }
    }
}

/// What the system says of a name that it does not take, or of what lies there: every other name
/// may still be fine.
const OF_ONE_NAME: [Errno; 10] = [
    Errno::NAMETOOLONG,
    Errno::INVAL,
    Errno::ILSEQ,
    Errno::MLINK,
    Errno::NOENT,
    Errno::EXIST,
    Errno::NOTEMPTY,
    Errno::BUSY,
    Errno::TXTBSY,
    Errno::OPNOTSUPP,
];

/// What the system says when a device was unplugged, or when the program or the host behind a mount
/// ended: of calls that were under way then, and of later ones.
const OF_A_DISK_THAT_IS_GONE: [Errno; 8] = [
    Errno::IO,
    Errno::NODEV,
    Errno::NXIO,
    Errno::NOTCONN,
    Errno::CONNABORTED,
    Errno::SHUTDOWN,
    Errno::HOSTDOWN,
    Errno::STALE,
];

/// A copy of an error: what failed in the background is reported by each later call.
pub(crate) fn again(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error)
}

/// The kinds of errors that the users of one disk know, so that an error which stops many files is
/// not logged for each of them.
#[derive(Debug, Default)]
pub(crate) struct ToldErrors {
    kinds: Mutex<HashSet<(Discriminant<StoreError>, Option<i32>)>>,
    /// One was of the disk, rather than of a name on it.
    of_disk: AtomicBool,
}

impl ToldErrors {
    /// Whether one was of the disk, which may have lost what it took earlier.
    pub(crate) fn is_any_of_disk(&self) -> bool {
        self.of_disk.load(Ordering::Acquire)
    }

    /// Notes an error that a caller gets. True for the first one of its kind.
    pub(crate) fn tell(&self, e: &StoreError) -> bool {
        let errno = match e {
            StoreError::Io { source, .. } => source.raw_os_error(),
            _ => None,
        };
        if e.is_of_disk() {
            self.of_disk.store(true, Ordering::Release);
        }
        // Calls that meet the loss of a disk at different moments give different errors.
        let is_gone = |errno: &i32| OF_A_DISK_THAT_IS_GONE.contains(&Errno::from_raw_os_error(*errno));
        let errno = errno.map(|errno| if is_gone(&errno) { Errno::IO.raw_os_error() } else { errno });
        lock(&self.kinds).insert((std::mem::discriminant(e), errno))
    }
}

/// Bytes that are needed and that are free; shows what is missing.
struct MissingSpace(u64, u64);

impl fmt::Display for MissingSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MissingSpace(needed, free) = *self;
        match needed.saturating_sub(free) {
            0 => f.write_str("the disk is full"),
            missing => write!(f, "{needed} bytes needed, {free} free, {missing} missing ({})", Human(missing)),
        }
    }
}

/// Bytes in the largest binary unit of which there is at least one.
struct Human(u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
            if value < 1024.0 {
                break;
            }
            (value, unit) = (value / 1024.0, next);
        }
        write!(f, "{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_told_from_the_whole_disk() {
        let dir = Path::new("/d");
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::MFILE, Errno::NOMEM] {
            assert!(of(errno).is_of_whole_disk(dir), "{errno:?}");
        }
        for errno in [Errno::ACCESS, Errno::ISDIR, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::FBIG, Errno::ILSEQ] {
            assert!(!of(errno).is_of_whole_disk(dir), "{errno:?}");
        }
        let own = |errno| StoreError::at("/d/.gpb", errno).is_of_whole_disk(dir);
        assert!(own(Errno::ACCESS) && own(Errno::NOTDIR) && own(Errno::LOOP));
        assert!(!StoreError::at("/d/x/.gpb", Errno::NOTDIR).is_of_whole_disk(dir));
        assert!(!StoreError::at("/d/x", io::Error::other("changed")).is_of_whole_disk(Path::new("/e")));
    }

    fn of(errno: Errno) -> StoreError {
        StoreError::at("/d/x", errno)
    }

    #[test]
    fn what_the_system_says_gets_its_own_error() {
        assert!(matches!(of(Errno::NOSPC), StoreError::NoSpace { .. }));
        assert!(matches!(of(Errno::DQUOT), StoreError::Quota { .. }));
        assert!(matches!(of(Errno::ROFS), StoreError::ReadOnly { .. }));
        assert!(matches!(of(Errno::ACCESS), StoreError::Permission { .. }));
        assert!(matches!(of(Errno::ISDIR), StoreError::NameTaken { by: "a directory", .. }));
        assert!(matches!(of(Errno::LOOP), StoreError::NameTaken { by: "a symlink", .. }));
        assert!(matches!(of(Errno::XDEV), StoreError::OtherMount { .. }));
        assert!(matches!(of(Errno::IO), StoreError::Io { .. }));
    }

    #[test]
    fn messages_are_one_line_with_thing_and_cause() {
        let full = StoreError::NoSpace { path: "/d/x".into(), needed: 3 << 30, free: 1 << 30 }.to_string();
        assert_eq!(full, "no space for /d/x: 3221225472 bytes needed, 1073741824 free, 2147483648 missing (2.0 GiB)");
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::IO, Errno::ISDIR] {
            let text = of(errno).to_string();
            assert!(text.contains("/d/x") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn each_kind_of_error_is_news_once() {
        let told = ToldErrors::default();
        let kinds = [Errno::NOSPC, Errno::IO, Errno::MFILE, Errno::ROFS];
        assert!(kinds.iter().all(|e| told.tell(&of(*e))));
        assert!(!kinds.iter().any(|e| told.tell(&StoreError::at("/another", *e))));
    }

    /// Cause: a write that was under way when the program behind a FUSE mount died failed with one
    /// error, the sync after it with another. Effect: one loss was reported twice. Mend: both are one
    /// kind.
    #[test]
    fn a_disk_that_is_gone_is_news_once_whatever_each_call_says() {
        let told = ToldErrors::default();
        assert!(told.tell(&of(Errno::CONNABORTED)));
        assert!(![Errno::NOTCONN, Errno::IO, Errno::NODEV].iter().any(|e| told.tell(&of(*e))));
        assert!(told.tell(&of(Errno::MFILE)));
    }

    #[test]
    fn an_error_told_again_is_the_same() {
        assert_eq!(again(&io::Error::from(Errno::IO)).raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert_eq!(again(&io::Error::from(io::ErrorKind::UnexpectedEof)).kind(), io::ErrorKind::UnexpectedEof);
    }
}
