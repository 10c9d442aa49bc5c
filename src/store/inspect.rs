//! What lies at a name, without opening it, and the state that a file is in.

use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};

use crate::content::{RelPath, Stamp};
use crate::store::open_beneath::DIRECTORY;
use crate::store::placed::PlacedState;

/// The state of a file, as the system describes it.
pub fn stamp_of(meta: &Metadata) -> Stamp {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Stamp {
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
    }
}

/// The kind of what lies at `name`, of a symlink itself; `None` if nothing does.
pub(crate) fn kind_at(dir: impl AsFd, name: &str) -> Option<FileType> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|s| FileType::from_raw_mode(s.st_mode))
}

/// Kind and state of what lies at `name`, of a symlink itself; `None` if nothing does.
pub(crate) fn state_at(dir: impl AsFd, name: &str) -> Option<(FileType, PlacedState)> {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((FileType::from_raw_mode(stat.st_mode), state_of(&stat)))
}

/// What the system says of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookedAt {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) state: PlacedState,
}

/// What lies at `name`, a symlink itself, in one call; `None` if nothing does. An error names what a
/// file must not replace, as [`replaceable`] does.
pub(crate) fn look_at(dir: impl AsFd, name: &str) -> Result<Option<LookedAt>, &'static str> {
    let Ok(stat) = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(None) };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        replaceable(dir, name)?;
    }
    Ok(Some(LookedAt { kind, mode: stat.st_mode, state: state_of(&stat) }))
}

/// Whether `name` is a mount point, such as a file that is bound into a container: nothing can be renamed
/// over it.
pub(crate) fn is_mount_point(dir: impl AsFd, name: &str) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{StatxAttributes, StatxFlags};
        let stat = fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
        stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (dir, name);
        false
    }
}

/// The state of an open file, whatever its name is by now.
pub(crate) fn state_of_open(file: impl AsFd) -> Option<PlacedState> {
    fs::fstat(file).ok().map(|stat| state_of(&stat))
}

#[allow(clippy::unnecessary_cast, reason = "other systems have other types")]
fn state_of(stat: &fs::Stat) -> PlacedState {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    PlacedState {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        len: stat.st_size as u64,
        mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

/// Whether `path` below `root` exists with exactly these letters: some file systems take names that
/// differ in case, or in how letters are composed, for one. Reads the directories on the way.
pub(crate) fn is_spelled_so(root: impl AsFd, path: &RelPath) -> bool {
    let has = |dir: OwnedFd, name: &str| {
        let entries = fs::Dir::new(dir).into_iter().flat_map(Iterator::flatten);
        entries.into_iter().any(|entry| entry.file_name().to_bytes() == name.as_bytes())
    };
    let mut parent = String::from(".");
    for name in path.components() {
        let dir = fs::openat(&root, &*parent, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        if !dir.is_ok_and(|dir| has(dir, name)) {
            return false;
        }
        parent = format!("{parent}/{name}");
    }
    true
}

/// Whether `path` below `root` exists in another case, too.
pub(crate) fn has_other_case(root: impl AsFd, path: &RelPath) -> bool {
    let (dir, name) = path.as_str().rsplit_once('/').unwrap_or((".", path.as_str()));
    let swapped = [name.to_lowercase(), name.to_uppercase()].into_iter().find(|swapped| swapped != name);
    swapped.is_some_and(|swapped| kind_at(root, &format!("{dir}/{swapped}")).is_some())
}

/// The kind of what lies at `name`, as [`kind_at`]. An error names what a file must not replace: it
/// stands for something else than bytes on a disk.
///
/// A fetch replaces a symlink itself and leaves its target alone. A symlink that leads to a device,
/// FIFO or socket is refused nevertheless: like `/dev/stdout`, it is most likely meant to be
/// written through.
pub(crate) fn replaceable(dir: impl AsFd, name: &str) -> Result<Option<FileType>, &'static str> {
    let Some(kind) = kind_at(&dir, name) else { return Ok(None) };
    match kind {
        FileType::CharacterDevice => Err("a character device"),
        FileType::BlockDevice => Err("a block device"),
        FileType::Fifo => Err("a FIFO"),
        FileType::Socket => Err("a socket"),
        FileType::Symlink => {
            let target = fs::readlinkat(&dir, name, Vec::new()).unwrap_or_default();
            if target.as_bytes().starts_with(b"/proc/") {
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Cause: a file that is bound into a container is a mount point, and nothing can be renamed over it. Effect: it was fetched
    /// whole, and then "Device or resource busy; check the disk". Mend: it is looked for before anything is fetched.
    #[test]
    fn mount_points_are_told_from_other_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        let at = |path: &std::path::Path| is_mount_point(fs::CWD, path.to_str().unwrap());
        assert!(at(std::path::Path::new("/proc")) && !at(&dir.path().join("f")) && !at(&dir.path().join("none")));
    }
}
