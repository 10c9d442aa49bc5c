//! The files below the directory that is fetched into, as a walk finds them: where a content lies that
//! was moved there, or was put there by another program.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType, Mode, ResolveFlags};

use crate::content::{Geometry, RelPath};
use crate::store::OWN;
use crate::store::limits::{NEARBY_ENTRIES_MAX, REUSE_SOURCES_MAX};
use crate::store::open_beneath::{BeneathOpener, DIRECTORY};
use crate::store::placed::PlacedState;

/// Regular files below a directory, found by what a name cannot tell. Nothing is believed of them: their
/// bytes are verified.
#[derive(Debug, Default)]
pub(crate) struct Nearby {
    by_inode: HashMap<(u64, u64), RelPath>,
    /// Files of several chunks. Of shorter ones too many have one length by chance.
    by_len: HashMap<u64, Vec<RelPath>>,
}

impl Nearby {
    /// Walks through the directory `root`, breadth first, without following links or leaving the file
    /// system. Ends after [`NEARBY_ENTRIES_MAX`] names: it saves time, and must not take it.
    pub(crate) fn walk(root: impl AsFd, opener: &BeneathOpener) -> Self {
        let mut nearby = Nearby::default();
        let Ok(device) = fs::fstat(&root).map(|stat| stat.st_dev) else { return nearby };
        let (mut dirs, mut at, mut entries) = (vec![String::from(".")], 0, 0);
        while let Some(dir) = dirs.get(at).cloned() {
            at += 1;
            let opened = match &*dir {
                "." => fs::openat(&root, ".", DIRECTORY, Mode::empty()),
                dir => opener.open(&root, dir, DIRECTORY, ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV),
            };
            let Ok(fd) = opened else { continue };
            let Ok(names) = fs::Dir::read_from(&fd) else { continue };
            for name in names.flatten() {
                let Ok(name) = name.file_name().to_str() else { continue };
                if matches!(name, "." | ".." | OWN) {
                    continue;
                }
                entries += 1;
                if entries > NEARBY_ENTRIES_MAX {
                    return nearby;
                }
                let path = if dir == "." { name.to_owned() } else { format!("{dir}/{name}") };
                let Ok(stat) = fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory if stat.st_dev == device => dirs.push(path),
                    FileType::RegularFile => {
                        let Ok(path) = RelPath::new(&path) else { continue };
                        nearby.add(path, (stat.st_dev, stat.st_ino), stat.st_size as u64);
                    }
                    _ => {}
                }
            }
        }
        nearby
    }

    fn add(&mut self, path: RelPath, inode: (u64, u64), len: u64) {
        if Geometry::new(len).needs_layer() {
            let same = self.by_len.entry(len).or_default();
            if same.len() < REUSE_SOURCES_MAX {
                same.push(path.clone());
            }
        }
        self.by_inode.insert(inode, path);
    }

    /// The name of the file that was left in this state, perhaps under another one.
    pub(crate) fn moved(&self, state: &PlacedState) -> Option<&RelPath> {
        self.by_inode.get(&(state.device, state.inode))
    }

    /// Some files of this length, if it is that of several chunks.
    pub(crate) fn of_len(&self, len: u64) -> &[RelPath] {
        self.by_len.get(&len).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn files_are_found_by_inode_and_length_and_links_are_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let long = vec![1; 300_000];
        for (dir, name) in [(&dir, "a/b/long"), (&dir, ".gpb/long"), (&outside, "long")] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &long).unwrap();
        }
        std::fs::write(dir.path().join("short"), b"x").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink("a/b/long", dir.path().join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let nearby = Nearby::walk(&root, &BeneathOpener::new());
        assert_eq!(nearby.of_len(300_000), [RelPath::new("a/b/long").unwrap()]);
        assert!(nearby.of_len(1).is_empty() && nearby.by_inode.len() == 2, "{nearby:?}");
        let meta = std::fs::metadata(dir.path().join("short")).unwrap();
        let state = PlacedState { device: meta.dev(), inode: meta.ino(), len: 1, mtime_ns: 0, ctime_ns: 0 };
        assert_eq!(nearby.moved(&state), Some(&RelPath::new("short").unwrap()));
    }
}
