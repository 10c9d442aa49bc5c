//! A directory whose copies expire: what they are, when they were used, and their end.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::{FileId, RelPath};
use crate::store::disk_folder::DiskFolder;
use crate::store::placed::{ExpiringFile, ExpiringFiles, Keeping, PlacedFile, PlacedLog, PlacedState};
use crate::store::storage::Folder;
use crate::store::{Disk, SharedInodes, StoreError};

/// Follows the records of a directory, and removes what has expired.
#[derive(Debug)]
pub(crate) struct ExpiringDir {
    root: PathBuf,
    /// The file system of the directory.
    device: u64,
    files: ExpiringFiles,
    log: PlacedLog,
}

/// What came of copies that were to be removed. Files in neither list are the user's by now.
#[derive(Debug, Default)]
pub(crate) struct RemovedCopies {
    pub(crate) gone: Vec<(RelPath, FileId)>,
    /// Copies that are still there, and why.
    pub(crate) failed: Vec<(RelPath, StoreError)>,
}

impl ExpiringDir {
    /// For the directory `dir`, with the records in the directory `state`.
    ///
    /// # Errors
    /// The system's error: the directory is not there.
    pub(crate) fn open(state: &Path, dir: &Path) -> io::Result<Self> {
        let root = std::fs::canonicalize(dir)?;
        let device = root.metadata()?.dev();
        let folder: Arc<dyn Folder> = Arc::new(DiskFolder::new(state));
        let (files, log) = (ExpiringFiles::new(folder.clone(), &root), PlacedLog::new(folder, root.clone()));
        Ok(ExpiringDir { root, device, files, log })
    }

    /// Takes over what other fetches recorded.
    pub(crate) fn refresh(&mut self) {
        if let Err(e) = self.files.refresh() {
            log::debug!("record of fetched files not read dir={} error=\"{e}\"", self.root.display());
        }
    }

    /// What may expire.
    pub(crate) fn files(&self) -> &ExpiringFiles {
        &self.files
    }

    /// The files whose names have these hashes were used at `now_s`, in seconds since 1970.
    pub(crate) fn used(&mut self, names: &HashSet<u64>, now_s: u64) {
        self.files.used(names, now_s);
    }

    /// Takes the clock's leap of `by_s` seconds to `now_s` out of the times before it: what was used
    /// stays as old as it is.
    pub(crate) fn leap(&mut self, by_s: u64, now_s: u64) {
        self.files.leap(by_s, now_s);
    }

    /// A copy that was used later than `now_s` was so by a clock that was wrong: it counts as used then.
    pub(crate) fn clamp(&mut self, now_s: u64) {
        self.files.clamp(now_s);
    }

    /// Looks at each file: one that is gone or in another state is no longer a copy, and one that
    /// was read on this machine was used then, where the file system tells. A file that cannot be
    /// looked at is still a copy, and a time later than `now_s` says nothing. Returns the names at which
    /// nothing lies now.
    pub(crate) fn look(&mut self, now_s: u64) -> Vec<RelPath> {
        if !self.is_mounted() {
            return Vec::new();
        }
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        let mut read = Vec::new();
        for (path, file) in self.files.iter() {
            match self.root.join(path.as_str()).symlink_metadata() {
                Ok(meta) if is_in_state(&meta, file) => {
                    let read_s = u64::try_from(meta.atime()).unwrap_or(0);
                    if read_s > file.used_s && read_s <= now_s {
                        read.push((path.clone(), read_s));
                    }
                }
                Ok(_) => changed.push(path.clone()),
                Err(e) if is_nothing(&e) => {
                    // What is mounted below the directory may only be away.
                    let list = if file.state.device == self.device { &mut gone } else { &mut changed };
                    list.push(path.clone());
                }
                Err(e) => log::debug!("copy not looked at path={path} error=\"{e}\""),
            }
        }
        gone.iter().chain(&changed).for_each(|path| self.files.forget(path));
        read.iter().for_each(|(path, read_s)| self.files.used_at(path, *read_s));
        gone
    }

    /// While the file system of the directory is not mounted, no name is found.
    fn is_mounted(&self) -> bool {
        self.root.metadata().is_ok_and(|meta| meta.dev() == self.device)
    }

    /// Whether it is mounted, and no copy lies on what may be mounted below it.
    pub(crate) fn is_all_here(&self) -> bool {
        self.is_mounted() && self.files.iter().all(|(_, file)| file.state.device == self.device)
    }

    /// Whether nothing lies at `path`.
    pub(crate) fn is_free(&self, path: &RelPath) -> bool {
        self.root.join(path.as_str()).symlink_metadata().is_err_and(|e| is_nothing(&e))
    }

    /// Records when files were used, of those whose record is older by `step_s` seconds.
    pub(crate) fn record_use(&mut self, step_s: u64) {
        for (path, file) in self.files.take_unrecorded(step_s) {
            self.log.note(path.as_str(), record(&file));
        }
        self.log.flush();
    }

    /// Removes these files if they are still in the state in which they were put in place, and records
    /// that they have expired.
    pub(crate) fn remove(&mut self, disk: &Disk, paths: &[RelPath]) -> RemovedCopies {
        let known: Vec<(RelPath, ExpiringFile)> =
            paths.iter().filter_map(|path| Some((path.clone(), *self.files.get(path)?))).collect();
        let wanted: Vec<_> = known.iter().map(|(path, file)| (path, file.state)).collect();
        let results = disk.remove_placed(&wanted, &SharedInodes::default());
        let mut removed = RemovedCopies::default();
        let mut unlinked = HashSet::new();
        for ((path, file), result) in known.into_iter().zip(results) {
            match result {
                Ok(true) => {
                    let expired = PlacedFile { id: file.id, state: None, keeping: Keeping::Expired };
                    self.log.note(path.as_str(), expired);
                    self.files.expire(&path);
                    unlinked.insert((file.state.device, file.state.inode));
                    removed.gone.push((path, file.id));
                }
                // It is the user's by now, or gone.
                Ok(false) => self.files.forget(&path),
                Err(e) => removed.failed.push((path, e)),
            }
        }
        self.restate(&unlinked);
        self.log.flush();
        removed
    }

    /// Notes the new times of files of which names were removed, by device and inode: the names that are
    /// left are copies as before.
    fn restate(&mut self, unlinked: &HashSet<(u64, u64)>) {
        let of_these = |file: &ExpiringFile| unlinked.contains(&(file.state.device, file.state.inode));
        let left = self.files.iter().filter(|(_, file)| of_these(file));
        let left: Vec<(RelPath, ExpiringFile)> = left.map(|(path, file)| (path.clone(), *file)).collect();
        for (path, file) in left {
            let Ok(meta) = self.root.join(path.as_str()).symlink_metadata() else { continue };
            let state = PlacedState { ctime_ns: crate::store::stamp_of(&meta).ctime_ns, ..file.state };
            if is_state(&meta, &state) {
                self.log.note(path.as_str(), record(&ExpiringFile { state, ..file }));
                self.files.restate(&path, state);
            }
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_in_state(meta: &std::fs::Metadata, file: &ExpiringFile) -> bool {
    is_state(meta, &file.state)
}

fn is_state(meta: &std::fs::Metadata, state: &PlacedState) -> bool {
    let stamp = crate::store::stamp_of(meta);
    meta.is_file() && meta.len() == state.len && meta.dev() == state.device && stamp == state.stamp()
}

/// What is recorded of a file in use.
fn record(file: &ExpiringFile) -> PlacedFile {
    let used_s = file.used_s;
    let keeping = if file.is_mirrored { Keeping::Mirrored { used_s } } else { Keeping::Temporary { used_s } };
    PlacedFile { id: file.id, state: Some(file.state), keeping }
}

/// Records that `path`, as it is now, was put in place with this content and `life`, and used last at
/// `used_s`. For tests, which wait for no week.
#[cfg(test)]
pub(crate) fn placed_at(state: &Path, dir: &Path, path: &RelPath, id: FileId, life: crate::store::Life, used_s: u64) {
    let root = std::fs::canonicalize(dir).unwrap();
    let meta = root.join(path.as_str()).symlink_metadata().unwrap();
    let stamp = crate::store::stamp_of(&meta);
    let placed = PlacedState {
        device: meta.dev(),
        inode: stamp.inode,
        len: meta.len(),
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
    };
    let log = PlacedLog::new(Arc::new(DiskFolder::new(state)), root);
    log.note(path.as_str(), PlacedFile { id, state: Some(placed), keeping: Keeping::new(life, used_s) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::{Life, Overwrite};

    fn name(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn id(n: u8, len: usize) -> FileId {
        FileId { root: Root(Digest([n; 32])), len: len as u64 }
    }

    /// A directory with files that fetches of each life put there.
    struct Data {
        dir: tempfile::TempDir,
        state: tempfile::TempDir,
    }

    impl Data {
        fn new() -> Self {
            Data { dir: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
        }

        fn disk(&self, life: Life) -> Arc<Disk> {
            Disk::open_for(self.dir.path(), false, Overwrite::Refuse, Some(self.state.path()), life).unwrap()
        }

        fn fetch(&self, path: &str, bytes: &[u8], n: u8, life: Life) {
            let disk = self.disk(life);
            let written = disk.batch_write(&[(name(path), id(n, bytes.len()), bytes)]);
            written.into_iter().for_each(|result| result.unwrap());
            disk.finish_record();
        }

        fn open(&self) -> ExpiringDir {
            let mut dir = ExpiringDir::open(self.state.path(), self.dir.path()).unwrap();
            dir.refresh();
            dir
        }

        fn names(&self) -> Vec<String> {
            let all = walkdir::WalkDir::new(self.dir.path()).sort_by_file_name().into_iter().flatten();
            let files = all.filter(|entry| entry.file_type().is_file());
            files.map(|e| e.path().strip_prefix(self.dir.path()).unwrap().display().to_string()).collect()
        }
    }

    fn listed(dir: &ExpiringDir) -> Vec<String> {
        dir.files().iter().map(|(path, _)| path.to_string()).collect()
    }

    /// Cause: a name of an inode that expired changed the state of its other names. Effect: they counted as the user's,
    /// and never expired.
    #[test]
    fn names_of_one_file_expire_one_by_one_and_together() {
        let data = Data::new();
        let disk = data.disk(Life::Mirrored);
        disk.batch_write(&[(name("a"), id(1, 4), b"file")]).remove(0).unwrap();
        let others: Vec<_> = ["b", "c", "d"].map(|other| (name(other), name("a"), id(1, 4))).into();
        assert!(disk.make_names(&others, &|| false).iter().all(Result::is_ok));
        disk.finish_record();
        let mut dir = data.open();
        for (gone, left) in [(&["b"][..], &["a", "c", "d"][..]), (&["a", "d"], &["c"])] {
            let gone: Vec<RelPath> = gone.iter().map(|path| name(path)).collect();
            assert_eq!(dir.remove(&data.disk(Life::Kept), &gone).gone.len(), gone.len());
            assert!(dir.look(1).is_empty(), "what expired is no loss");
            assert_eq!(listed(&dir), left);
            assert_eq!((listed(&data.open()), data.names()), (listed(&dir), listed(&dir)), "and after a restart");
        }
    }

    #[test]
    fn only_what_a_fetch_brought_for_a_while_and_nothing_touched_expires() {
        let data = Data::new();
        std::fs::write(data.dir.path().join("users"), b"mine").unwrap();
        data.fetch("kept", b"kept", 1, Life::Kept);
        for path in ["d/mirrored", "edited", "replaced", "again"] {
            data.fetch(path, path.as_bytes(), 2, Life::Mirrored);
        }
        data.fetch("temporary", b"temporary", 3, Life::Temporary);
        let mut dir = data.open();
        assert_eq!(listed(&dir), ["again", "d/mirrored", "edited", "replaced", "temporary"]);
        std::fs::write(data.dir.path().join("edited"), b"edited").unwrap();
        std::fs::write(data.dir.path().join("new"), b"replaced").unwrap();
        std::fs::rename(data.dir.path().join("new"), data.dir.path().join("replaced")).unwrap();
        let all = ["again", "d/mirrored", "edited", "kept", "replaced", "temporary", "users"].map(name);
        let removed = dir.remove(&data.disk(Life::Kept), &all);
        let mut removed: Vec<_> = removed.gone.iter().map(|(path, _)| path.to_string()).collect();
        removed.sort();
        assert_eq!(removed, ["again", "d/mirrored", "temporary"]);
        assert_eq!(data.names(), ["edited", "kept", "replaced", "users"]);
        assert!(dir.files().has_expired(&name("again"), &id(2, 5)) && listed(&dir).is_empty());
        assert_eq!(dir.files().bytes(), 0);
        // Known after a restart, until it is fetched again.
        let dir = data.open();
        assert!(
            dir.files().has_expired(&name("again"), &id(2, 5)) && !dir.files().has_expired(&name("kept"), &id(1, 4))
        );
        data.fetch("again", b"again", 2, Life::Mirrored);
        let dir = data.open();
        assert!(!dir.files().has_expired(&name("again"), &id(2, 5)) && dir.files().bytes() >= 5);
    }

    #[test]
    fn a_fetch_that_is_to_keep_what_is_here_keeps_it() {
        let data = Data::new();
        let root = Root(crate::content::merkle::root_of_bytes(b"content"));
        let whole = FileId { root, len: 7 };
        let disk = data.disk(Life::Mirrored);
        disk.batch_write(&[(name("a"), whole, b"content".as_slice())]).remove(0).unwrap();
        disk.finish_record();
        let mut dir = data.open();
        assert_eq!(listed(&dir), ["a"]);
        // One for a while only uses it.
        for life in [Life::Temporary, Life::Kept] {
            let disk = data.disk(life);
            assert!(matches!(disk.holds(&[name("a")], &whole, &|| false)[..], [Ok(true)]));
            disk.finish_record();
            dir.refresh();
            assert_eq!(listed(&dir).len(), usize::from(life == Life::Temporary), "{life:?}");
        }
        // And what replaces its content is kept, too.
        data.fetch("a", b"newer", 5, Life::Mirrored);
        let disk = data.disk(Life::Mirrored);
        disk.holds(&[name("a")], &id(6, 4), &|| false).remove(0).unwrap();
        disk.batch_write(&[(name("a"), id(6, 4), b"more".as_slice())]).remove(0).unwrap();
        disk.finish_record();
        assert!(listed(&data.open()).is_empty());
    }

    /// A fetch into a directory of the shared one, and one into the directory above it.
    #[test]
    fn a_fetch_with_another_root_that_is_to_keep_what_is_here_keeps_it() {
        let data = Data::new();
        let root = Root(crate::content::merkle::root_of_bytes(b"content"));
        let whole = FileId { root, len: 7 };
        let shared = data.dir.path().join("m");
        std::fs::create_dir(&shared).unwrap();
        let disk_at =
            |dir: &Path, life| Disk::open_for(dir, false, Overwrite::Refuse, Some(data.state.path()), life).unwrap();
        let disk = disk_at(&shared, Life::Mirrored);
        for path in ["x/a", "x/b", "c"] {
            disk.batch_write(&[(name(path), whole, b"content".as_slice())]).remove(0).unwrap();
        }
        disk.finish_record();
        let mut dir = ExpiringDir::open(data.state.path(), &shared).unwrap();
        for (at, path, life, left) in [
            (shared.join("x"), "a", Life::Temporary, &["c", "x/a", "x/b"][..]),
            (shared.join("x"), "a", Life::Kept, &["c", "x/b"][..]),
            (data.dir.path().to_owned(), "m/c", Life::Kept, &["x/b"][..]),
        ] {
            let disk = disk_at(&at, life);
            assert!(matches!(disk.holds(&[name(path)], &whole, &|| false)[..], [Ok(true)]));
            disk.finish_record();
            dir.refresh();
            assert_eq!(listed(&dir), left, "{path} {life:?}");
        }
    }

    #[test]
    fn use_is_recorded_now_and_then_and_known_after_a_restart() {
        let data = Data::new();
        data.fetch("a", b"a", 1, Life::Mirrored);
        data.fetch("b", b"b", 2, Life::Temporary);
        let mut dir = data.open();
        let used = |dir: &ExpiringDir, path: &str| dir.files().get(&name(path)).unwrap().used_s;
        let (began, names) = (used(&dir, "a"), crate::store::UsedNames::default());
        names.note("a");
        names.note("none");
        dir.used(&names.take(), began + 50);
        dir.record_use(100);
        assert_eq!((used(&dir, "a"), used(&data.open(), "a")), (began + 50, began));
        dir.used(&names.take(), began + 70);
        assert_eq!(used(&dir, "a"), began + 50, "it was not used again");
        names.note("a");
        dir.used(&names.take(), began + 100);
        dir.record_use(100);
        let after = data.open();
        assert_eq!((used(&after, "a"), used(&after, "b") <= began + 1), (began + 100, true));
        assert!(
            after.files().get(&name("a")).unwrap().is_mirrored && !after.files().get(&name("b")).unwrap().is_mirrored
        );
        dir.leap(1000, began + 1150);
        assert_eq!(used(&dir, "a"), began + 1100);
        // A machine without a clock: what was recorded before is right, and no time is in the future.
        dir.leap(began, began + 1200);
        assert_eq!((used(&dir, "a"), used(&dir, "b") <= began + 1001), (began + 1100, true));
        dir.leap(1, 50);
        assert_eq!(used(&dir, "a"), 50);
        dir.clamp(50);
        assert_eq!((used(&dir, "a"), used(&dir, "b")), (50, 50));
        dir.clamp(49);
        assert_eq!((used(&dir, "a"), used(&dir, "b")), (49, 49), "the clock was set back");
    }

    #[test]
    fn a_copy_that_cannot_be_looked_at_is_still_one() {
        let data = Data::new();
        for path in ["d/a", "c"] {
            data.fetch(path, b"bytes", 1, Life::Mirrored);
        }
        let mut dir = data.open();
        let used_s = dir.files().get(&name("c")).unwrap().used_s;
        std::fs::remove_file(data.dir.path().join("c")).unwrap();
        // A link to itself stands for any error but that there is no such name.
        std::fs::rename(data.dir.path().join("d"), data.dir.path().join("e")).unwrap();
        std::os::unix::fs::symlink("d", data.dir.path().join("d")).unwrap();
        dir.look(used_s + 1);
        assert_eq!((listed(&dir), dir.files().bytes()), (vec!["d/a".to_owned()], 5));
        dir.device += 1;
        std::fs::remove_file(data.dir.path().join("d")).unwrap();
        dir.look(used_s + 1);
        assert_eq!(listed(&dir), ["d/a"], "not mounted");
        dir.device -= 1;
        dir.look(used_s + 1);
        assert!(listed(&dir).is_empty());
    }

    /// Cause: a copy that was deleted was forgotten. Effect: it was missing until the mirror started again.
    #[test]
    fn what_something_else_removed_is_told_and_what_was_changed_is_not() {
        let data = Data::new();
        ["gone", "edited", "d/there", "d/gone"].iter().for_each(|path| data.fetch(path, b"copy", 1, Life::Mirrored));
        std::fs::remove_file(data.dir.path().join("gone")).unwrap();
        std::fs::remove_file(data.dir.path().join("d/gone")).unwrap();
        std::fs::write(data.dir.path().join("edited"), b"mine").unwrap();
        let mut dir = data.open();
        let told: Vec<String> = dir.look(1).iter().map(RelPath::to_string).collect();
        assert_eq!((told, listed(&dir)), (vec!["d/gone".into(), "gone".into()], vec!["d/there".into()]));
        assert!(dir.look(1).is_empty(), "told once");
    }
}
