//! Downloads on real file systems.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::fs::FileType;
use tempfile::TempDir;

use super::*;
use crate::content::{ChunkIndex, Digest, Geometry, Root, merkle};
use crate::store::limits::{JOURNAL_BATCH_LEN, LAYER_KEPT_MIN, LET_GO_PART_STALE, PART_STALE};
use crate::store::{CheckedChunk, KnownCopy, LocalName};

fn id(byte: u8, len: u64) -> FileId {
    FileId { root: Root(Digest([byte; 32])), len }
}

const GO: fn() -> bool = || false;

fn all_hold(disk: &Disk, paths: &[RelPath], id: &FileId) -> bool {
    disk.holds(paths, id, &GO).into_iter().all(|held| held.unwrap())
}

fn name(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn chunk(geometry: &Geometry, index: ChunkIndex) -> Vec<u8> {
    vec![(index.get() % 255) as u8 + 1; geometry.span(index).len as usize]
}

fn whole(len: u64) -> Vec<u8> {
    let geometry = Geometry::new(len);
    geometry.chunks().flat_map(|c| chunk(&geometry, c)).collect()
}

/// What [`whole`] is checked against.
fn real(len: u64) -> Arc<Manifest> {
    let geometry = Geometry::new(len);
    if !geometry.needs_layer() {
        let root = Root(merkle::root_of_bytes(&whole(len)));
        return Arc::new(Manifest::new(FileId { root, len }, Vec::new()).unwrap());
    }
    of_layer(len, geometry.chunks().map(|c| merkle::chunk_digest(&chunk(&geometry, c), geometry.chunk_height())))
}

/// Another file of the same length, which nothing is checked against.
fn fake(byte: u8, len: u64) -> Arc<Manifest> {
    of_layer(len, Geometry::new(len).chunks().map(|_| Digest([byte; 32])))
}

fn of_layer(len: u64, layer: impl Iterator<Item = Digest>) -> Arc<Manifest> {
    let layer: Vec<Digest> = layer.collect();
    let root = Root(merkle::root_of_layer(&layer, Geometry::new(len).chunk_height()));
    Arc::new(Manifest::new(FileId { root, len }, layer).unwrap())
}

fn partial(disk: &Disk, manifest: &Arc<Manifest>) -> Result<PartialFile, StoreError> {
    PartialFile::open(disk.volume.clone(), disk.flusher()?, manifest.clone())
}

/// Checks what is unchecked; which chunks were right and which were not.
fn recheck(file: &PartialFile) -> (Vec<u32>, Vec<u32>) {
    let turns = std::iter::from_fn(|| Some(file.recheck(1)).filter(|turn| !turn.is_empty()));
    let (right, wrong): (Vec<_>, Vec<_>) = turns.flatten().partition(|chunk| chunk.right);
    let numbers = |chunks: Vec<CheckedChunk>| chunks.into_iter().map(|c| c.index.get()).collect();
    (numbers(right), numbers(wrong))
}

fn write_all(file: &PartialFile, len: u64) -> Result<(), StoreError> {
    let geometry = Geometry::new(len);
    geometry.chunks().try_for_each(|c| file.write(c, &chunk(&geometry, c)))
}

fn tempdir() -> (TempDir, Arc<Disk>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), false).unwrap();
    (dir, disk)
}

const LEN: u64 = 3 * (256 << 10) + 5;

#[test]
fn a_download_ends_under_its_names_and_leaves_nothing_else() {
    let (dir, disk) = tempdir();
    std::fs::write(dir.path().join("old"), b"old").unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    write_all(&file, LEN).unwrap();
    assert!(file.have().is_full());
    assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"old", "it stays until the new one is whole");
    file.finish(&[name("old"), name("a/b/c"), name("a/d")]).unwrap();
    for path in ["old", "a/b/c", "a/d"] {
        assert!(std::fs::read(dir.path().join(path)).unwrap() == whole(LEN), "{path}");
        let mode = std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o644, 0, "{path}");
        assert_eq!(mode & 0o600, 0o600, "{path}");
    }
    assert!(!dir.path().join(".gpb").exists());
    let mut served = [0; 10];
    file.read_at(LEN - 10, &mut served).unwrap();
    assert_eq!(served, whole(LEN)[LEN as usize - 10..]);
}

#[test]
fn the_empty_file_and_one_of_one_chunk_need_no_journal() {
    let (dir, disk) = tempdir();
    for len in [0, 1, 1000] {
        let file = disk.partial(Arc::new(Manifest::new(id(2, len), Vec::new()).unwrap())).unwrap();
        assert_eq!(file.manifest().id().len, len);
        write_all(&file, len).unwrap();
        assert!(!dir.path().join(format!(".gpb/{}-{len}.journal", file.manifest().id().root)).exists());
        file.finish(&[name("f")]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), whole(len));
    }
}

#[test]
fn a_killed_download_goes_on_from_its_journal() {
    let (dir, disk) = tempdir();
    let (manifest, id) = (real(LEN), real(LEN).id());
    let geometry = Geometry::new(LEN);
    let [a, b, c] = [0, 2, 3].map(|i| geometry.chunk(i).unwrap());
    let file = partial(&disk, &manifest).unwrap();
    file.write(a, &chunk(&geometry, a)).unwrap();
    file.write(b, &chunk(&geometry, b)).unwrap();
    file.checkpoint().unwrap();
    file.write(c, &chunk(&geometry, c)).unwrap();
    file.kill();

    // A torn record at the end of the journal.
    let journal = dir.path().join(format!(".gpb/{}-{LEN}.journal", id.root));
    let torn = [std::fs::read(&journal).unwrap(), vec![1, 0, 0, 0, 1, 0, 0]].concat();
    std::fs::write(&journal, torn).unwrap();
    let file = partial(&disk, &manifest).unwrap();
    assert_eq!((file.resumed(), file.have_count()), (2, 0));
    assert_eq!(recheck(&file), (vec![0, 2], vec![]));
    assert!(file.has(a) && file.has(b) && !file.has(c));
    drop(file);

    // Dropping, unlike killing, keeps what was written.
    let file = partial(&disk, &manifest).unwrap();
    file.write(c, &chunk(&geometry, c)).unwrap();
    drop(file);
    let file = partial(&disk, &manifest).unwrap();
    assert_eq!((file.resumed(), file.have_count()), (3, 3));
    write_all(&file, LEN).unwrap();
    file.finish(&[name("f")]).unwrap();
    assert!(std::fs::read(dir.path().join("f")).unwrap() == whole(LEN));
}

/// After a power loss it may be a file that is kept for the user; what is written to it would change that one.
#[test]
fn a_part_with_another_name_is_not_written_to() {
    let (dir, disk) = tempdir();
    let (manifest, id) = (real(LEN), real(LEN).id());
    let (part, other) = (dir.path().join(format!(".gpb/{}-{LEN}.part", id.root)), dir.path().join("f~"));
    std::fs::create_dir(dir.path().join(".gpb")).unwrap();
    std::fs::write(&part, b"mine").unwrap();
    std::fs::hard_link(&part, &other).unwrap();
    let file = partial(&disk, &manifest).unwrap();
    assert_eq!((file.resumed(), file.have_count()), (0, 0));
    write_all(&file, LEN).unwrap();
    file.finish(&[name("f")]).unwrap();
    assert!(std::fs::read(dir.path().join("f")).unwrap() == whole(LEN));
    assert_eq!(std::fs::read(other).unwrap(), b"mine");
}

#[test]
fn a_part_that_was_touched_is_checked_and_one_that_was_not_is_believed() {
    type Touch = fn(&Path);
    fn flip(part: &Path) {
        let file = File::options().read(true).write(true).open(part).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 300_000).unwrap();
        file.write_all_at(&[!byte[0]], 300_000).unwrap();
    }
    let flip_and_keep_mtime: Touch = |part| {
        let mtime = std::fs::metadata(part).unwrap().modified().unwrap();
        flip(part);
        File::options().write(true).open(part).unwrap().set_modified(mtime).unwrap();
    };
    // What is done to the part, which chunks are right afterwards, and which are wrong.
    type Case = (&'static str, Option<Touch>, &'static [u32], &'static [u32]);
    let cases: [Case; 3] = [
        ("untouched", None, &[], &[]),
        ("flipped", Some(flip), &[0, 2, 3], &[1]),
        ("flipped, with the old mtime", Some(flip_and_keep_mtime), &[0, 2, 3], &[1]),
    ];
    for (what, touch, right, wrong) in cases {
        let (dir, disk) = tempdir();
        let (manifest, id) = (real(LEN), real(LEN).id());
        let file = partial(&disk, &manifest).unwrap();
        write_all(&file, LEN).unwrap();
        drop(file);
        if let Some(touch) = touch {
            touch(&dir.path().join(format!(".gpb/{}-{LEN}.part", id.root)));
        }
        let file = partial(&disk, &manifest).unwrap();
        assert_eq!((file.resumed(), file.have().is_full()), (4, touch.is_none()), "{what}");
        assert_eq!(file.unchecked().count() as usize, right.len() + wrong.len(), "{what}");
        assert_eq!(recheck(&file), (right.to_vec(), wrong.to_vec()), "{what}");
        write_all(&file, LEN).unwrap();
        file.finish(&[name("f")]).unwrap();
        assert!(std::fs::read(dir.path().join("f")).unwrap() == whole(LEN), "{what}");
    }
}

#[test]
fn a_chunk_that_cannot_be_read_is_wrong() {
    let (dir, disk) = tempdir();
    let (manifest, id) = (real(LEN), real(LEN).id());
    let file = partial(&disk, &manifest).unwrap();
    write_all(&file, LEN).unwrap();
    file.checkpoint().unwrap();
    file.kill();
    let part = dir.path().join(format!(".gpb/{}-{LEN}.part", id.root));
    File::options().write(true).open(&part).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let file = partial(&disk, &manifest).unwrap();
    File::options().write(true).open(&part).unwrap().set_len(300_000).unwrap();
    assert_eq!(recheck(&file), (vec![0], vec![1, 2, 3]));
}

#[test]
fn a_journal_of_garbage_is_discarded_and_one_of_another_inode_proves_nothing() {
    let (dir, disk) = tempdir();
    let (manifest, id) = (real(LEN), real(LEN).id());
    let own = dir.path().join(".gpb");
    let (part, journal) = (own.join(format!("{}-{LEN}.part", id.root)), own.join(format!("{}-{LEN}.journal", id.root)));
    let start = || {
        let file = partial(&disk, &manifest).unwrap();
        write_all(&file, LEN).unwrap();
        drop(file);
        assert!(journal.exists());
    };
    start();
    std::fs::copy(&part, own.join("copy")).unwrap();
    std::fs::rename(own.join("copy"), &part).unwrap();
    let copied = partial(&disk, &manifest).unwrap();
    assert_eq!((copied.resumed(), copied.have_count()), (4, 0), "another inode");
    assert_eq!(recheck(&copied), (vec![0, 1, 2, 3], vec![]));
    drop(copied);
    std::fs::write(&journal, b"garbage").unwrap();
    assert_eq!(partial(&disk, &manifest).unwrap().resumed(), 0, "garbage");
    assert!(!journal.exists());
    start();
    File::options().write(true).open(&part).unwrap().set_len(LEN - 1).unwrap();
    assert_eq!(partial(&disk, &manifest).unwrap().resumed(), 0, "cut");
    start();
    std::fs::remove_file(&part).unwrap();
    assert_eq!(partial(&disk, &manifest).unwrap().resumed(), 0, "removed");
}

#[test]
fn a_part_that_vanishes_or_is_cut_is_an_error() {
    let (dir, disk) = tempdir();
    let (manifest, id) = (real(LEN), real(LEN).id());
    let part = dir.path().join(format!(".gpb/{}-{LEN}.part", id.root));
    let file = partial(&disk, &manifest).unwrap();
    write_all(&file, LEN).unwrap();
    File::options().write(true).open(&part).unwrap().set_len(10).unwrap();
    assert!(matches!(file.read_at(100, &mut [0; 8]), Err(StoreError::Io { .. })));
    assert!(matches!(file.finish(&[name("f")]), Err(StoreError::Io { .. })));
    std::fs::remove_dir_all(dir.path().join(".gpb")).unwrap();
    assert!(matches!(file.finish(&[name("f")]), Err(StoreError::Io { .. })));
    assert!(!dir.path().join("f").exists());
}

#[test]
fn two_downloads_of_one_file_do_not_share_its_part() {
    let (dir, disk) = tempdir();
    let file = partial(&disk, &real(LEN)).unwrap();
    let again = Disk::open(dir.path(), false).unwrap();
    let refused = partial(&again, &real(LEN)).unwrap_err();
    assert!(matches!(&refused, StoreError::Busy { path } if path.to_string_lossy().ends_with(".part")), "{refused}");
    partial(&again, &fake(7, LEN)).unwrap();
    drop(file);
    partial(&again, &real(LEN)).unwrap();
}

#[test]
fn what_nobody_resumes_is_swept_and_the_rest_is_counted() {
    let (dir, disk) = tempdir();
    assert_eq!(disk.sweep(&[]), Leftovers::default());
    assert!(!dir.path().join(".gpb").exists(), "looking makes nothing");
    let (stale, kept) = (real(LEN), fake(7, LEN));
    for manifest in [&stale, &kept] {
        let file = partial(&disk, manifest).unwrap();
        let first = manifest.geometry().chunk(0).unwrap();
        file.write(first, &chunk(&manifest.geometry(), first)).unwrap();
    }
    let stem = dir.path().join(format!(".gpb/{}-{LEN}", stale.id().root));
    let old = SystemTime::now() - PART_STALE - Duration::from_secs(60);
    for suffix in ["part", "journal"] {
        File::options().write(true).open(stem.with_extension(suffix)).unwrap().set_modified(old).unwrap();
    }
    let used = partial(&disk, &stale).unwrap();
    assert_eq!(disk.sweep(&[]).files, 1, "one is in use, which is told by its lock alone");
    used.kill();
    for suffix in ["part", "journal"] {
        File::options().write(true).open(stem.with_extension(suffix)).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(disk.sweep(&[stale.id()]).files, 1, "one is wanted");
    assert!(stem.with_extension("part").exists());
    let left = disk.sweep(&[]);
    assert!(left.files == 1 && left.bytes >= 1 << 18, "{left:?}");
    assert!(!stem.with_extension("part").exists() && !stem.with_extension("journal").exists());
    assert_eq!(partial(&disk, &kept).unwrap().resumed(), 1);
}

/// Cause: a part was of use for its own content alone. Effect: a file that changed at its source while it was fetched
/// cost all its chunks again.
#[test]
fn what_was_fetched_of_a_version_that_changed_meanwhile_is_of_use_for_the_next() {
    let (dir, disk) = tempdir();
    let (old, geometry) = (real(LEN), Geometry::new(LEN));
    let mut layer = old.layer().to_vec();
    *layer.last_mut().unwrap() = Digest([9; 32]);
    let new = of_layer(LEN, layer.into_iter());
    let first = geometry.chunk(0).unwrap();
    let left = |is_gone: bool| {
        let file = partial(&disk, &old).unwrap();
        let _ = file.write(first, &chunk(&geometry, first));
        file.suspend();
        if is_gone {
            file.let_go();
        }
    };
    left(false);
    assert_eq!(disk.reuse_sources(&[], &new).len(), 0, "somebody may go on with it");
    left(true);
    let used = partial(&disk, &old).unwrap();
    used.let_go();
    assert_eq!(disk.reuse_sources(&[], &new).len(), 0, "somebody uses it");
    drop(used);
    left(true);
    // Hours later it is still there for a content of that length, and for no other.
    let stem = dir.path().join(format!(".gpb/{}-{LEN}", old.id().root));
    let age = |age: Duration| {
        for suffix in ["part", "journal"] {
            let file = File::options().write(true).open(stem.with_extension(suffix)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
    };
    age(LET_GO_PART_STALE / 2);
    assert_eq!(disk.sweep(&[new.id()]).files, 1);
    let file = partial(&disk, &new).unwrap();
    let sources = disk.reuse_sources(&[], &new);
    assert!(sources.len() == 1 && file.reuse(sources).contains(first));
    assert!(recheck(&file).0.contains(&0) && file.has(first), "it has the first chunk, hashed");
    drop(file);
    for is_room_scarce in [false, true] {
        left(true);
        age(LET_GO_PART_STALE / 2);
        if is_room_scarce {
            disk.sweep_for_room(&[new.id()])
        } else {
            disk.sweep(&[id(3, LEN + 1)])
        };
        assert!(!stem.with_extension("part").exists(), "{is_room_scarce}");
    }
}

#[test]
fn symlinks_are_not_followed_out_of_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let (dir, disk) = tempdir();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    write_all(&file, LEN).unwrap();
    for path in ["out/f", "out/new/f"] {
        let refused = file.finish(&[name(path)]).unwrap_err();
        assert!(
            matches!(&refused, StoreError::NameTaken { path, by: "a symlink" } if path.ends_with("out")),
            "{refused}"
        );
        assert!(disk.batch_write(&[(name(path), id(1, 1), vec![1])])[0].is_err());
    }
    assert!(!all_hold(&disk, &[name("out/f")], &id(1, 1)));
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    // A symlink under the final name itself is replaced, not written through.
    std::fs::write(outside.path().join("target"), b"mine").unwrap();
    symlink(outside.path().join("target"), dir.path().join("link")).unwrap();
    file.finish(&[name("link")]).unwrap();
    assert_eq!(std::fs::read(outside.path().join("target")).unwrap(), b"mine");
    assert!(std::fs::read(dir.path().join("link")).unwrap() == whole(LEN));

    symlink(outside.path(), dir.path().join(".gpb")).unwrap();
    let refused = partial(&disk, &real(LEN)).unwrap_err();
    assert!(matches!(&refused, StoreError::NameTaken { path, by: "a symlink" } if path.ends_with(".gpb")), "{refused}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn only_a_regular_file_or_a_symlink_is_replaced() {
    let (dir, disk) = tempdir();
    let at = |n: &str| dir.path().join(n);
    let make = |n: &str, kind, device| rustix::fs::mknodat(rustix::fs::CWD, at(n), kind, 0o600.into(), device);
    make("fifo", FileType::Fifo, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink("fifo", at("link")).unwrap();
    symlink("/proc/self/fd/1", at("stdout")).unwrap();
    let mut cases = vec![
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("link", "a symlink to a FIFO"),
        ("stdout", "a symlink to an open file"),
    ];
    // The null device and the first loop device; a container may not be allowed to make them.
    if make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_ok() {
        cases.push(("null", "a character device"));
    }
    if make("loop", FileType::BlockDevice, rustix::fs::makedev(7, 0)).is_ok() {
        cases.push(("loop", "a block device"));
    }
    assert!(cases.len() == 6 || !rustix::process::geteuid().is_root());
    std::fs::write(at("whole"), whole(LEN)).unwrap();
    let (manifest, id) = (real(LEN), real(LEN).id());
    for (path, what) in cases {
        let before = std::fs::symlink_metadata(at(path)).unwrap();
        let is_refused = |result: Result<(), StoreError>| {
            let e = result.unwrap_err();
            assert!(matches!(&e, StoreError::NotRegular { path: p, kind } if *p == at(path) && *kind == what), "{e}");
        };
        is_refused(disk.holds(&[name(path)], &id, &GO).remove(0).map(drop));
        let mut held = disk.holds(&[name("whole"), name(path)], &id, &GO);
        is_refused(held.remove(1).map(drop));
        assert!(held.remove(0).unwrap());
        // It came there after the first look.
        let file = partial(&disk, &manifest).unwrap();
        write_all(&file, LEN).unwrap();
        is_refused(file.finish(&[name(path)]));
        is_refused(file.finish(&[name("other"), name(path)]));
        is_refused(disk.batch_write(&[(name(path), super::tests::id(1, 1), vec![1])]).remove(0));
        let after = std::fs::symlink_metadata(at(path)).unwrap();
        assert_eq!((after.file_type(), after.modified().unwrap()), (before.file_type(), before.modified().unwrap()));
        file.finish(&[name("other")]).unwrap();
        assert!(std::fs::read(at("other")).unwrap() == whole(LEN), "{path}");
        std::fs::remove_file(at("other")).unwrap();
    }
}

/// The disk was blamed, although moving it away is all that helps.
#[test]
fn what_lies_in_the_place_of_a_part_or_journal_is_named() {
    let (dir, disk) = tempdir();
    let file = partial(&disk, &real(LEN)).unwrap();
    write_all(&file, LEN).unwrap();
    file.checkpoint().unwrap();
    file.kill();
    for name in std::fs::read_dir(dir.path().join(".gpb")).unwrap().map(|entry| entry.unwrap().path()) {
        let kept = std::fs::read(&name).unwrap();
        let node = |kind| rustix::fs::mknodat(rustix::fs::CWD, &name, kind, 0o600.into(), 0).unwrap();
        let kinds: [(&str, &dyn Fn()); 4] = [
            ("a special file", &|| node(FileType::Fifo)),
            ("a special file", &|| node(FileType::Socket)),
            ("a directory", &|| std::fs::create_dir(&name).unwrap()),
            ("a symlink", &|| symlink("elsewhere", &name).unwrap()),
        ];
        for (kind, make) in kinds {
            std::fs::remove_file(&name).unwrap();
            make();
            let refused = partial(&disk, &real(LEN)).unwrap_err();
            assert!(
                matches!(&refused, StoreError::NameTaken { by, path } if *by == kind && *path == name),
                "{refused:?}"
            );
            if kind == "a directory" { std::fs::remove_dir(&name) } else { std::fs::remove_file(&name) }.unwrap();
            std::fs::write(&name, &kept).unwrap();
        }
    }
}

#[test]
fn a_name_that_is_taken_leaves_the_part_for_another_name() {
    let (dir, disk) = tempdir();
    std::fs::create_dir_all(dir.path().join("dir/x")).unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    write_all(&file, LEN).unwrap();
    for (path, kind) in [("dir", "a directory"), ("file/below", "a file")] {
        for paths in [vec![name(path)], vec![name("ok"), name(path)]] {
            let refused = file.finish(&paths).unwrap_err();
            assert!(matches!(&refused, StoreError::NameTaken { by, .. } if *by == kind), "{refused}");
        }
        let refused = disk.batch_write(&[(name(path), id(1, 1), vec![1])]).remove(0).unwrap_err();
        assert!(matches!(&refused, StoreError::NameTaken { by, .. } if *by == kind), "{refused}");
    }
    file.kill();
    let file = partial(&disk, &real(LEN)).unwrap();
    assert_eq!(file.resumed(), 4, "all is journaled when only the name failed");
    assert_eq!(recheck(&file), (vec![0, 1, 2, 3], vec![]));
    file.finish(&[name("ok")]).unwrap();
    assert!(!dir.path().join(".gpb").exists());
}

#[test]
fn a_blocked_place_keeps_no_other_from_its_file() {
    let taken = |result: &Result<(), StoreError>| matches!(result, Err(StoreError::NameTaken { .. }));
    for (paths, expected) in [
        (["dir", "a", "b/c"], [false, true, true]),
        (["a", "dir", "b/c"], [true, false, true]),
        (["dir"; 3], [false; 3]),
    ] {
        let (dir, disk) = tempdir();
        std::fs::create_dir_all(dir.path().join("dir/x")).unwrap();
        let file = partial(&disk, &real(LEN)).unwrap();
        write_all(&file, LEN).unwrap();
        let results = file.finish_each(&*disk.volume, &paths.map(name)).unwrap();
        for ((path, result), placed) in paths.iter().zip(&results).zip(expected) {
            assert_eq!((result.is_ok(), taken(result)), (placed, !placed), "{path}: {result:?}");
            assert!(!placed || std::fs::read(dir.path().join(path)).unwrap() == whole(LEN), "{path}");
        }
        drop(file);
        let is_kept = dir.path().join(".gpb").exists();
        assert_eq!(is_kept, !expected.contains(&true), "kept for the next run as long as it is at no place");
    }
}

#[test]
fn many_threads_write_and_a_kill_costs_at_most_a_batch() {
    const CHUNKS: u64 = 400;
    let (_dir, disk) = tempdir();
    let manifest = real(CHUNKS << 18);
    let geometry = manifest.geometry();
    let file = partial(&disk, &manifest).unwrap();
    let chunks: Vec<ChunkIndex> = geometry.chunks().collect();
    std::thread::scope(|scope| {
        for mine in chunks.chunks(100) {
            let file = &file;
            scope.spawn(move || mine.iter().for_each(|c| file.write(*c, &chunk(&geometry, *c)).unwrap()));
        }
    });
    assert!(file.have().is_full());
    file.kill();
    let file = partial(&disk, &manifest).unwrap();
    assert!(recheck(&file).1.is_empty());
    let lost = (CHUNKS - u64::from(file.have_count())) << 18;
    assert!(lost <= JOURNAL_BATCH_LEN, "{lost} bytes lost");
    let mut bytes = vec![0; 1 << 18];
    for index in chunks.into_iter().filter(|c| file.has(*c)) {
        file.read_at(geometry.span(index).offset, &mut bytes).unwrap();
        assert!(bytes == chunk(&geometry, index));
    }
}

#[test]
fn many_small_files_arrive_whole_and_replace_older_ones() {
    let (dir, disk) = tempdir();
    std::fs::create_dir(dir.path().join("d0")).unwrap();
    std::fs::write(dir.path().join("d0/f0"), b"older and longer than the new one").unwrap();
    let files: Vec<_> = (0..500u64)
        .map(|i| (name(&format!("d{}/e{}/f{i}", i % 7, i % 300)), id(0, i), vec![i as u8; i as usize]))
        .chain([(name("d0/f0"), id(0, 3), b"new".to_vec())])
        .collect();
    for result in disk.batch_write(&files) {
        result.unwrap();
    }
    for (path, _, bytes) in &files {
        assert!(std::fs::read(dir.path().join(path.as_str())).unwrap() == *bytes, "{path}");
    }
    disk.tidy();
    assert!(!dir.path().join(".gpb").exists());
    assert_eq!(std::fs::metadata(dir.path().join("d0/f0")).unwrap().permissions().mode() & 0o777 & !0o644, 0);
}

#[test]
fn a_directory_is_missing_only_when_it_is() {
    let (dir, disk) = tempdir();
    std::fs::create_dir(dir.path().join("here")).unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    for (path, lacks) in [("gone/x", true), ("here/gone/x", true), ("x", false), ("here/x", false)] {
        assert_eq!(disk.lacks_parent(&name(path)).unwrap(), lacks, "{path}");
    }
    symlink("here", dir.path().join("link")).unwrap();
    for (path, kind, at) in
        [("file/x", "a file", "file"), ("file/y/x", "a file", "file"), ("link/x", "a symlink", "link")]
    {
        let refused = disk.lacks_parent(&name(path)).unwrap_err();
        assert!(
            matches!(&refused, StoreError::NameTaken { path, by } if *by == kind && path.ends_with(at)),
            "{refused}"
        );
    }
    let Some(mount) = Mount::new("4m") else { return };
    let outside = Disk::open(mount.path().parent().unwrap(), false).unwrap();
    let below = format!("{}/x", mount.path().file_name().unwrap().to_str().unwrap());
    for path in [name(&below), name(&format!("{below}/y/z"))] {
        let refused = outside.lacks_parent(&path).unwrap_err();
        assert!(matches!(refused, StoreError::OtherMount { .. }), "{refused}");
    }
    let refused = outside.batch_write(&[(name(&below), id(0, 1), vec![1])]).remove(0).unwrap_err();
    outside.tidy();
    assert!(matches!(refused, StoreError::OtherMount { .. }), "{refused}");
}

#[test]
fn one_bad_name_does_not_spoil_a_batch() {
    let (dir, disk) = tempdir();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let files: Vec<_> = ["a", "file/x", "b", "c/d", "e"].iter().map(|p| (name(p), id(0, 1), vec![7])).collect();
    let results = disk.batch_write(&files);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true, true]);
    disk.tidy();
    assert!(!dir.path().join(".gpb").exists(), "what could not be placed is removed");
}

/// A small tmpfs, unmounted at the end.
struct Mount(TempDir);

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        if !rustix::process::geteuid().is_root()
            || !run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "gpb-test"]).arg(dir.path()))
        {
            eprintln!("skipped: mounting a tmpfs needs root");
            return None;
        }
        Some(Mount(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }

    fn remount(&self, options: &str) {
        assert!(run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path())));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|s| s.success())
}

#[test]
fn a_file_that_cannot_fit_is_refused_with_the_missing_bytes() {
    let Some(mount) = Mount::new("4m") else { return };
    let disk = Disk::open(&mount.path(), false).unwrap();
    let len = 1 << 40;
    match partial(&disk, &fake(11, len)).unwrap_err() {
        StoreError::NoSpace { needed, free, .. } => assert!(needed == len && free <= 4 << 20, "{needed} {free}"),
        other => panic!("{other}"),
    }
    assert!(std::fs::read_dir(mount.path()).unwrap().next().is_none(), "nothing was written");
}

#[test]
fn a_disk_that_fills_up_is_told_and_the_download_resumes() {
    let Some(mount) = Mount::new("4m") else { return };
    let disk = Disk::open(&mount.path(), false).unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    let geometry = Geometry::new(LEN);
    let first = geometry.chunk(0).unwrap();
    file.write(first, &chunk(&geometry, first)).unwrap();
    file.checkpoint().unwrap();
    let full = std::fs::write(mount.path().join("filler"), vec![1; 8 << 20]);
    assert!(full.is_err(), "the file system is full now");
    let refused = write_all(&file, LEN).unwrap_err();
    assert!(matches!(refused, StoreError::NoSpace { needed, .. } if needed > 0), "{refused}");
    let small: Vec<_> = (0..5).map(|i| (name(&format!("f{i}")), id(0, 9000), vec![1; 9000])).collect();
    for result in disk.batch_write(&small) {
        assert!(matches!(result, Err(StoreError::NoSpace { .. })), "{result:?}");
    }
    assert!(!mount.path().join("f0").exists());
    drop(file);
    std::fs::remove_file(mount.path().join("filler")).unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    assert_eq!(file.resumed(), 1);
    write_all(&file, LEN).unwrap();
    file.finish(&[name("f")]).unwrap();
}

#[test]
fn a_read_only_file_system_is_told() {
    let Some(mount) = Mount::new("4m") else { return };
    let disk = Disk::open(&mount.path(), false).unwrap();
    let file = partial(&disk, &real(LEN)).unwrap();
    write_all(&file, LEN).unwrap();
    file.kill();
    mount.remount("ro");
    for refused in [
        partial(&disk, &real(LEN)).map(drop).unwrap_err(),
        partial(&disk, &fake(14, LEN)).map(drop).unwrap_err(),
        disk.batch_write(&[(name("f"), id(0, 1), vec![1])]).remove(0).unwrap_err(),
        Disk::open(&mount.path().join("new"), true).map(drop).unwrap_err(),
    ] {
        assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
    }
    mount.remount("rw");
    partial(&disk, &real(LEN)).unwrap();
}

#[test]
fn the_wrong_length_is_seen_without_reading() {
    let (dir, disk) = tempdir();
    std::fs::write(dir.path().join("f"), b"12345").unwrap();
    // Hashing a file of holes of this length would take hours.
    File::create(dir.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    assert!(!all_hold(&disk, &[name("huge")], &id(0, 5)));
    assert!(!all_hold(&disk, &[name("f")], &id(0, 6)));
    assert!(!all_hold(&disk, &[name("missing")], &id(0, 5)));
    assert!(disk.free_bytes().unwrap() > 0);
}

#[test]
fn what_is_there_already_is_known_by_its_bytes() {
    let (dir, disk) = tempdir();
    for len in [0, 1, 16_384, 262_144, 262_145, LEN, (20 << 20) + 3] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251 + i / 70_000) as u8).collect();
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let id = FileId { root: Root(merkle::root_of_bytes(&bytes)), len };
        assert!(all_hold(&disk, &[name("f")], &id), "{len}");
        if len > 0 {
            let file = File::options().write(true).open(dir.path().join("f")).unwrap();
            file.write_all_at(&[!bytes[len as usize - 1]], len - 1).unwrap();
            assert!(!all_hold(&disk, &[name("f")], &id), "{len}");
        }
    }
}

#[test]
fn a_check_ends_when_it_is_told_to() {
    let (dir, disk) = tempdir();
    // Hashing a file of holes of this length would take hours.
    File::create(dir.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 20;
    let id = FileId { root: Root(merkle::zero_chunk_digest(26)), len: 1 << 40 };
    assert!(!disk.holds(&[name("huge")], &id, &stop).remove(0).unwrap());
}

#[test]
fn one_whole_file_is_copied_to_the_other_names() {
    let (dir, disk) = tempdir();
    let bytes = whole(LEN);
    let id = FileId { root: Root(merkle::root_of_bytes(&bytes)), len: LEN };
    std::fs::write(dir.path().join("b"), &bytes).unwrap();
    std::fs::write(dir.path().join("a"), &bytes[1..]).unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    let mut held = disk.holds(&[name("b"), name("dir"), name("c")], &id, &GO);
    assert!(held.remove(2).unwrap() && dir.path().join("c").exists(), "whatever is in the way elsewhere");
    assert!(matches!(held.remove(1), Err(StoreError::NameTaken { by: "a directory", .. })));
    assert!(all_hold(&disk, &[name("a"), name("b"), name("new/c")], &id));
    for path in ["a", "b", "new/c"] {
        assert!(std::fs::read(dir.path().join(path)).unwrap() == bytes, "{path}");
    }
    assert!(!dir.path().join(".gpb").exists());
    assert!(
        !all_hold(&disk, &[name("a"), name("d")], &FileId { len: LEN - 1, ..id }) && !dir.path().join("d").exists()
    );
}

/// The copy to another place failed, so the file is fetched for both.
#[test]
fn a_place_that_has_the_content_stays_as_it_is() {
    for overwrite in [Overwrite::Refuse, Overwrite::Backup] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open_guarded(dir.path(), false, overwrite, None).unwrap();
        let (bytes, manifest) = (whole(100), real(100));
        std::fs::write(dir.path().join("a"), &bytes).unwrap();
        let before = disk.volume.state_of(&name("a"));
        assert!(all_hold(&disk, &[name("a")], &manifest.id()));
        let written = disk.batch_write(&[(name("a"), manifest.id(), &bytes), (name("b"), manifest.id(), &bytes)]);
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        assert_eq!(disk.volume.state_of(&name("a")), before);
        disk.tidy();
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"], "no backup, and nothing left");
        // Saved since, it is another file.
        std::fs::write(dir.path().join("a"), b"mine").unwrap();
        let written = disk.batch_write(&[(name("a"), manifest.id(), &bytes)]).remove(0);
        assert_eq!(written.is_ok(), overwrite == Overwrite::Backup, "{written:?}");
        let kept = if overwrite == Overwrite::Backup { "a~" } else { "a" };
        assert_eq!(std::fs::read(dir.path().join(kept)).unwrap(), b"mine");
    }
}

/// A fetch that failed, or was killed before or after the rename, and then another one that failed.
#[test]
fn a_fetch_that_comes_to_nothing_leaves_files_known_as_fetched() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Disk::open_guarded(dir.path(), false, Overwrite::Refuse, Some(state.path())).unwrap();
    let paths = [name("kept"), name("placed")];
    let (old, next) = (real(100), real(200));
    let old_files = paths.clone().map(|path| (path, old.id(), whole(100)));
    assert!(open().batch_write(&old_files).iter().all(Result::is_ok));
    let fail = |id: FileId| {
        let disk = open();
        disk.volume.guard().unwrap().begin(paths.iter().map(|path| (path, id)));
    };
    fail(next.id());
    std::fs::write(dir.path().join("placed"), whole(200)).unwrap();
    for round in 3..6 {
        let disk = open();
        for held in disk.holds(&paths, &id(round, 300), &GO) {
            assert!(!held.unwrap(), "round {round}");
        }
        drop(disk);
        fail(id(round, 300));
    }
    std::fs::write(dir.path().join("placed"), b"mine").unwrap();
    let held = open().holds(&paths, &id(9, 300), &GO);
    assert!(held[0].is_ok() && matches!(held[1], Err(StoreError::Exists { .. })), "{held:?}");
}

/// Bytes that a file takes on the disk.
fn room_of(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn a_tebibyte_of_zeros_is_there_in_moments_and_its_copy_takes_no_room() {
    let (dir, disk) = tempdir();
    let geometry = Geometry::new(1 << 40);
    let mut layer = vec![merkle::zero_chunk_digest(geometry.chunk_height()); geometry.chunk_count() as usize];
    let (bytes, at) = (vec![7; geometry.chunk_len() as usize], geometry.chunk(300_000).unwrap());
    layer[at.as_usize()] = merkle::chunk_digest(&bytes, geometry.chunk_height());
    let root = Root(merkle::root_of_layer(&layer, geometry.chunk_height()));
    let manifest = Arc::new(Manifest::new(FileId { root, len: 1 << 40 }, layer).unwrap());
    let begun = std::time::Instant::now();
    // Killed, so that all zeros have to be looked for again.
    partial(&disk, &manifest).unwrap().kill();
    let file = partial(&disk, &manifest).unwrap();
    assert!(recheck(&file).1.is_empty());
    assert_eq!(file.have_count(), geometry.chunk_count() - 1);
    file.write(at, &bytes).unwrap();
    file.finish(&[name("huge"), name("copy")]).unwrap();
    assert!(all_hold(&disk, &[name("huge"), name("copy")], &manifest.id()));
    println!("{:?}", begun.elapsed());
    for path in ["huge", "copy"].map(|path| dir.path().join(path)) {
        assert!(room_of(&path) < 3 * geometry.chunk_len(), "{} takes {} bytes", path.display(), room_of(&path));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 40);
    }
}

#[test]
fn a_small_file_of_zeros_is_a_hole() {
    let (dir, disk) = tempdir();
    let bytes = vec![0; 200_000];
    let id = FileId { root: Root(merkle::root_of_bytes(&bytes)), len: 200_000 };
    assert!(id.is_zeros());
    disk.batch_write(&[(name("f"), id, &bytes)]).remove(0).unwrap();
    assert!(std::fs::read(dir.path().join("f")).unwrap() == bytes && room_of(&dir.path().join("f")) == 0);
}

#[test]
fn only_regular_files_that_can_be_read_are_older_versions() {
    let (dir, disk) = tempdir();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), b"secret").unwrap();
    std::fs::write(dir.path().join("f"), b"old").unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    symlink("f", dir.path().join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    let manifest = real(LEN);
    let found = |path: &str| disk.reuse_sources(&[name(path)], &manifest).len();
    assert_eq!(["f", "empty", "d/f", "link", "fifo", "d", "none"].map(found), [1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_was_fetched_is_known_without_being_read_until_it_is_touched_or_repaired() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Disk::open_guarded(dir.path(), false, Overwrite::Refuse, Some(state.path())).unwrap();
    let (bytes, manifest) = (whole(100), real(100));
    // Bytes that are not what the name says: only what is not read passes for it.
    let wrong = vec![9; 100];
    for path in ["a", "b", "c"] {
        assert!(open().batch_write(&[(name(path), manifest.id(), &wrong)]).remove(0).is_ok());
    }
    let disk = open();
    assert!(all_hold(&disk, &[name("a")], &manifest.id()));
    assert_eq!(disk.forecast(&name("a"), &manifest.id()).unwrap(), Forecast::Here);
    File::options()
        .write(true)
        .open(dir.path().join("c"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    drop(disk);
    let disk = open();
    disk.repair(&[disk.local_name(&name("b")).unwrap()]);
    assert_eq!(disk.holds(&[name("b")], &manifest.id(), &GO).remove(0).ok(), Some(false), "and it may be replaced");
    assert!(matches!(disk.holds(&[name("c")], &manifest.id(), &GO).remove(0), Err(StoreError::Exists { .. })));
    assert!(disk.batch_write(&[(name("b"), manifest.id(), &bytes)]).remove(0).is_ok());
}

#[test]
fn an_older_version_is_known_as_such_without_being_read_until_it_is_touched() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Disk::open_guarded(dir.path(), false, Overwrite::Refuse, Some(state.path())).unwrap();
    let (bytes, id) = (whole(100), real(100).id());
    let older = FileId { root: Root(Digest([3; 32])), len: 100 };
    // The bytes are those of the new version: only what is not read passes for the older one.
    assert!(open().batch_write(&[(name("a"), older, &bytes)]).remove(0).is_ok());
    assert_eq!(open().holds(&[name("a")], &id, &GO).remove(0).ok(), Some(false), "and it may be replaced");
    let file = File::options().write(true).open(dir.path().join("a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(all_hold(&open(), &[name("a")], &id));
    let repaired = open();
    assert!(repaired.batch_write(&[(name("b"), older, &bytes)]).remove(0).is_ok());
    repaired.repair(&[repaired.local_name(&name("b")).unwrap()]);
    assert!(all_hold(&repaired, &[name("b")], &id), "a repair believes no record");
}

#[test]
fn a_repair_replaces_what_was_hashed_believes_no_record_and_makes_nothing_a_fetched_file() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open_at = |dir: &Path| Disk::open_guarded(dir, true, Overwrite::Refuse, Some(state.path())).unwrap();
    let open = || open_at(dir.path());
    let (bytes, wrong, id) = (whole(100), vec![9; 100], real(100).id());
    assert!(
        open().batch_write(&[(name("fetched"), id, &wrong), (name("saved"), id, &wrong)]).iter().all(Result::is_ok)
    );
    assert!(open_at(&dir.path().join("sub")).batch_write(&[(name("part"), id, &wrong)]).remove(0).is_ok());
    std::fs::write(dir.path().join("own"), &wrong).unwrap();
    let disk = open();
    let all = ["fetched", "saved", "sub/part", "own"].map(name);
    let looked: Vec<LocalName> = all.iter().map(|path| disk.local_name(path).unwrap()).collect();
    std::fs::remove_file(dir.path().join("saved")).unwrap();
    std::fs::write(dir.path().join("saved"), vec![7; 100]).unwrap();
    assert!(disk.copy_of(&id).is_some_and(|copy| copy.verified.is_some()), "without a repair the record counts");

    // Of some only: the others have the same bad bytes.
    let some = open();
    some.repair(&looked[3..]);
    assert!(some.copy_of(&id).is_some_and(|copy| copy.verified.is_none()));
    let repaired = open();
    repaired.repair(&looked);
    assert_eq!(repaired.copy_of(&id), None);
    let held = all.each_ref().map(|path| repaired.holds(std::slice::from_ref(path), &id, &GO).remove(0));
    assert!(matches!(held, [Ok(false), Err(StoreError::Exists { .. }), Ok(false), Ok(false)]), "{held:?}");
    let put = all.each_ref().map(|path| repaired.batch_write(&[(path.clone(), id, &bytes)]).remove(0));
    assert!(matches!(put, [Ok(()), Err(StoreError::Exists { .. }), Ok(()), Ok(())]), "{put:?}");
    assert_eq!(std::fs::read(dir.path().join("saved")).unwrap(), vec![7; 100]);
    repaired.finish_record();

    let disk = open();
    let fetched = all.each_ref().map(|path| disk.fetched_as(&disk.local_name(path).unwrap(), &GO));
    assert_eq!(fetched, [Some(id), None, Some(id), None], "the user's own stays the user's");
}

#[test]
fn a_content_is_taken_from_where_a_fetch_put_it_or_where_it_was_moved_since() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Disk::open_guarded(dir.path(), false, Overwrite::Refuse, Some(state.path())).unwrap();
    let (bytes, manifest) = (whole(LEN), real(LEN));
    let id = manifest.id();
    std::fs::write(dir.path().join("source"), &bytes).unwrap();
    let first = open();
    assert!(first.copy_of(&id).is_none(), "nothing is recorded of it");
    let known = KnownCopy { path: name("source"), verified: None };
    first.reuse(&[name("d/old")], &id, &known, &GO).unwrap().remove(0).unwrap();
    std::fs::remove_file(dir.path().join("source")).unwrap();
    drop(first);

    let found = open().copy_of(&id).unwrap();
    assert!(found.path == name("d/old") && found.verified.is_some(), "{found:?}");
    open().reuse(&[name("e/new"), name("f")], &id, &found, &GO).unwrap().into_iter().for_each(Result::unwrap);
    assert!(
        std::fs::read(dir.path().join("e/new")).unwrap() == bytes && open().read_copy(&id, &found).unwrap() == bytes
    );
    for gone in ["e", "f", "d"] {
        let path = dir.path().join(gone);
        match gone {
            "f" => std::fs::remove_file(path).unwrap(),
            "d" => std::fs::rename(path.join("old"), dir.path().join("moved")).unwrap(),
            _ => std::fs::remove_dir_all(path).unwrap(),
        }
    }
    let moved = open().copy_of(&id).unwrap();
    assert_eq!(moved, KnownCopy { path: name("moved"), verified: None });
    open().reuse(&[name("again")], &id, &moved, &GO).unwrap().remove(0).unwrap();

    // It changes: nothing of it gets a name.
    for path in ["moved", "again"] {
        let file = File::options().write(true).open(dir.path().join(path)).unwrap();
        file.write_all_at(b"changed", 5).unwrap();
    }
    assert!(open().copy_of(&id).is_none_or(|copy| copy.verified.is_none()));
    assert!(open().reuse(&[name("x")], &id, &moved, &GO).is_err() && open().read_copy(&id, &moved).is_err());
    assert!(!dir.path().join("x").exists() && !dir.path().join(".gpb").exists());
    // Another program put a whole copy somewhere: it is found by its length, and by some of its chunks.
    std::fs::write(dir.path().join("copied"), &bytes).unwrap();
    let sources = |manifest: &Manifest| open().reuse_sources(&[], manifest).len();
    assert_eq!((sources(&manifest), sources(&fake(3, LEN))), (1, 0));
}

#[test]
fn the_layer_of_what_was_fetched_is_kept_until_the_file_is_touched_or_repaired() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || Disk::open_guarded(dir.path(), false, Overwrite::Refuse, Some(state.path())).unwrap();
    let len = u64::from(LAYER_KEPT_MIN) * (256 << 10);
    let (old, new) = (real(len), real(len + 1));
    let file = partial(&open(), &old).unwrap();
    write_all(&file, len).unwrap();
    open().put_in_place(&file, &[name("d/f")]).unwrap().remove(0).unwrap();
    drop(file);
    let known = |disk: &Disk| {
        let sources = disk.reuse_sources(&[name("d/f")], &new);
        let chunk = |index| new.geometry().chunk(index).unwrap();
        [0, LAYER_KEPT_MIN - 1, LAYER_KEPT_MIN].map(|index| sources[0].knows(&new, chunk(index)))
    };
    assert_eq!(known(&open()), [Some(true), Some(true), Some(false)]);
    let disk = open();
    disk.repair(&[]);
    assert_eq!(known(&disk), [None; 3], "what is recorded is not believed");
    let touched = File::options().write(true).open(dir.path().join("d/f")).unwrap();
    touched.write_all_at(b"x", 5).unwrap();
    assert_eq!(known(&open()), [None; 3]);
}

#[test]
fn a_partial_file_without_a_chunk_does_not_stay() {
    let (dir, disk) = tempdir();
    let own = dir.path().join(".gpb");
    let file = partial(&disk, &real(LEN)).unwrap();
    assert!(own.exists());
    drop(file);
    assert!(!own.exists(), "its room would be kept for nothing");
    let file = partial(&disk, &real(LEN)).unwrap();
    let first = Geometry::new(LEN).chunk(0).unwrap();
    file.write(first, &chunk(&Geometry::new(LEN), first)).unwrap();
    drop(file);
    let file = partial(&disk, &real(LEN)).unwrap();
    assert_eq!((file.resumed(), file.has(first)), (1, true));
}

#[test]
fn room_is_asked_for_what_is_written_alone() {
    let (_dir, disk) = tempdir();
    let free = disk.free_bytes().unwrap();
    let len = (2 * free).min(1 << 45).next_multiple_of(64 << 20);
    let geometry = Geometry::new(len);
    let zeros = || geometry.chunks().map(|_| merkle::zero_chunk_digest(geometry.chunk_height()));
    disk.check_room(&of_layer(len, zeros()), 3, 0).unwrap();
    match disk.check_room(&fake(1, len), 1, 0).unwrap_err() {
        StoreError::NoSpace { needed, .. } => assert_eq!(needed, len),
        other => panic!("{other}"),
    }
}
