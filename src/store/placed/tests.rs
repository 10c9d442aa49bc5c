use super::*;
use crate::content::{Digest, FileId, Root};
use crate::limits::PATH_LEN_MAX;
use crate::store::disk_folder::DiskFolder;
use crate::store::memory::{Memory, MemoryFolder, Rng};

fn id(n: u64) -> FileId {
    FileId { root: Root(Digest([n as u8; 32])), len: n }
}

fn state(n: u64) -> PlacedState {
    PlacedState { device: 1, inode: n, len: n, mtime_ns: n as i64, ctime_ns: -(n as i64) }
}

fn on_disk(state_dir: &Path, root: &Path) -> PlacedLog {
    PlacedLog::new(Arc::new(DiskFolder::new(state_dir)), root.to_path_buf())
}

/// The only thing that is recorded of a name.
fn only(log: &PlacedLog, name: &str) -> Option<PlacedFile> {
    let found = log.find(name);
    assert!(found.len() <= 1, "{name} {found:?}");
    found.first().copied()
}

fn intent(n: u64) -> PlacedFile {
    PlacedFile { id: id(n), state: None, keeping: Keeping::Kept }
}

fn placed(n: u64) -> PlacedFile {
    PlacedFile { id: id(n), state: Some(state(n)), keeping: Keeping::Kept }
}

#[test]
fn what_one_process_records_another_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new("/data/set");
    let (one, two) = (on_disk(dir.path(), root), on_disk(dir.path(), root));
    one.note("a", intent(1));
    one.note("sub/b", placed(2));
    assert_eq!(only(&one, "a"), Some(intent(1)), "its own, too");
    two.note("c", placed(3));
    two.note("a", placed(4));
    two.flush();
    drop((one, two));
    let after = on_disk(dir.path(), root);
    assert_eq!(only(&after, "a"), Some(placed(4)), "the last record counts");
    assert_eq!((only(&after, "sub/b"), only(&after, "c"), only(&after, "d")), (Some(placed(2)), Some(placed(3)), None));
    // The same files by another directory.
    assert_eq!(only(&on_disk(dir.path(), Path::new("/data/set/sub")), "b"), Some(placed(2)));
    assert_eq!(only(&on_disk(dir.path(), Path::new("/data")), "set/sub/b"), Some(placed(2)));
    assert_eq!(only(&on_disk(dir.path(), Path::new("/data/other")), "a"), None);
}

/// A replacement that fails, or that a crash cuts off, leaves what was there.
#[test]
fn an_intent_does_not_hide_the_state_before_it() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(data.path().join("a"), b"").unwrap();
    let log = on_disk(dir.path(), data.path());
    log.note("a", placed(1));
    (2..4).for_each(|n| log.note("a", intent(n)));
    assert_eq!(log.find("a"), [placed(1), intent(3)]);
    // It is dropped with those that came before, not with what it leaves open.
    for n in 0..PLACED_COMPACT_LEN / 40 {
        log.note("gone", placed(n));
    }
    log.finish(true);
    assert_eq!(log.find("a"), [placed(1), intent(3)]);
    assert!(log.find("gone").is_empty(), "compacted");
    log.note("a", placed(3));
    drop(log);
    assert_eq!(on_disk(dir.path(), data.path()).find("a"), [placed(3)]);
    // By the directory above, in a record of its own.
    let (above, name) = (data.path().parent().unwrap(), data.path().file_name().unwrap().to_str().unwrap());
    let log = on_disk(dir.path(), above);
    log.note(&format!("{name}/a"), placed(5));
    drop(log);
    assert_eq!(on_disk(dir.path(), data.path()).find("a"), [placed(3), placed(5)]);
}

/// Another process has the file for longer than a flush waits.
#[test]
fn records_wait_for_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new("/d");
    let log = on_disk(dir.path(), root);
    log.note("a", placed(1));
    log.flush();
    let held = DiskFolder::new(dir.path()).open(&file_name(root)).unwrap().unwrap();
    assert!(held.try_lock().unwrap() != FileLock::Held);
    log.note("b", placed(2));
    log.flush_trying(2);
    log.note("c", placed(3));
    log.flush();
    let too_long = "x".repeat(PATH_LEN_MAX);
    for _ in 0..2 * PLACED_KEPT_LEN_MAX / PATH_LEN_MAX {
        log.note(&too_long, placed(4));
    }
    assert!(lock(&log.pending).bytes.len() <= PLACED_KEPT_LEN_MAX + PLACED_BUFFER_LEN);
    held.unlock();
    log.note("e", placed(5));
    log.flush();
    drop(log);
    let after = on_disk(dir.path(), root);
    let found = ["a", "b", "c", "e"].map(|name| only(&after, name));
    assert_eq!(found, [1, 2, 3, 5].map(|n| Some(placed(n))));
}

#[test]
fn a_damaged_record_is_no_record_and_is_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new("/d");
    let file = dir.path().join(file_name(root));
    let write = |name: &str, n: u64| {
        let log = on_disk(dir.path(), root);
        log.note(name, placed(n));
        log.flush();
    };
    write("a", 1);
    let one = std::fs::read(&file).unwrap();
    write("b", 2);
    let two = std::fs::read(&file).unwrap();
    for len in 0..two.len() {
        std::fs::write(&file, &two[..len]).unwrap();
        let log = on_disk(dir.path(), root);
        assert_eq!(only(&log, "b"), None, "cut at {len}");
        assert_eq!(only(&log, "a"), (len >= one.len()).then_some(placed(1)), "cut at {len}");
        write("c", 3);
        let log = on_disk(dir.path(), root);
        assert_eq!((only(&log, "c"), only(&log, "b")), (Some(placed(3)), None), "cut at {len}");
    }
    for at in 0..two.len() {
        let mut bytes = two.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&file, &bytes).unwrap();
        for (name, n) in [("a", 1), ("b", 2)] {
            let found = only(&on_disk(dir.path(), root), name);
            assert!(found.is_none() || found == Some(placed(n)), "byte {at}: {found:?}");
        }
    }
    std::fs::write(&file, vec![0xff; 5000]).unwrap();
    write("c", 3);
    assert_eq!(only(&on_disk(dir.path(), root), "c"), Some(placed(3)));
}

#[test]
fn what_later_records_replace_is_dropped() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(data.path().join("stays"), b"").unwrap();
    let log = on_disk(dir.path(), data.path());
    let rounds = PLACED_COMPACT_LEN / 40;
    for n in 0..rounds {
        log.note(if n % 2 == 0 { "stays" } else { "gone" }, placed(n));
    }
    log.flush();
    let file = dir.path().join(file_name(data.path()));
    let before = std::fs::metadata(&file).unwrap().len();
    log.finish(true);
    let after = std::fs::metadata(&file).unwrap().len();
    assert!(before > PLACED_COMPACT_LEN && after < 1000, "{before} {after}");
    assert_eq!((only(&log, "stays"), only(&log, "gone")), (Some(placed((rounds - 1) / 2 * 2)), None));
    log.note("stays", placed(1));
    assert_eq!(only(&on_disk(dir.path(), data.path()), "gone"), None);
    drop(log);
    assert_eq!(only(&on_disk(dir.path(), data.path()), "stays"), Some(placed(1)), "it is appended to the new file");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Another process tidies the record twice: the second file may get the inode number of the first.
#[test]
fn an_append_after_two_compactions_cuts_nothing_off() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = |n: u64| format!("{}{n}", "x".repeat(200));
    for n in 0..40 {
        std::fs::write(data.path().join(long(n)), b"").unwrap();
    }
    let (one, other) = (on_disk(dir.path(), data.path()), on_disk(dir.path(), data.path()));
    one.note("gone", placed(1));
    one.flush();
    for _ in 0..2 {
        for n in 0..PLACED_COMPACT_LEN / 40 {
            other.note("gone", placed(n));
        }
        (0..40).for_each(|n| other.note(&long(n), placed(n)));
        other.finish(true);
    }
    one.note("gone", placed(2));
    drop((one, other));
    let after = on_disk(dir.path(), data.path());
    for n in 0..40 {
        assert_eq!(only(&after, &long(n)), Some(placed(n)), "{n}");
    }
    assert_eq!(only(&after, "gone"), Some(placed(2)));
}

#[test]
fn many_processes_append_to_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new("/d");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let log = on_disk(dir.path(), root);
            scope.spawn(move || {
                for n in 0..50 {
                    log.note(&format!("{thread}/{n}"), placed(n));
                    log.flush();
                }
            });
        }
    });
    let log = on_disk(dir.path(), root);
    for name in (0..4).flat_map(|thread| (0..50_u64).map(move |n| (format!("{thread}/{n}"), n))) {
        assert_eq!(only(&log, &name.0), Some(placed(name.1)), "{}", name.0);
    }
}

/// Whatever a crash leaves, no name is said to have got what it was not to get.
#[test]
fn a_crash_at_any_point_leaves_no_false_record() {
    let root = Path::new("/d");
    for seed in 0..400 {
        let mut rng = Rng(seed);
        let volume = Memory::new();
        volume.cut_after(1 + rng.below(40));
        let log = PlacedLog::new(Arc::new(MemoryFolder(volume.clone())), root.to_path_buf());
        for n in 0..12 {
            log.note(&format!("{}", n % 5), placed(n));
            if rng.below(2) == 0 {
                log.flush();
            }
            if rng.below(6) == 0 {
                log.finish(true);
            }
        }
        let after = volume.after_power_loss(&mut rng);
        let found = PlacedLog::new(Arc::new(MemoryFolder(after)), root.to_path_buf());
        for name in 0..5 {
            let n = only(&found, &name.to_string());
            assert!(n.is_none_or(|f| f.id.len % 5 == name && f == placed(f.id.len)), "seed {seed}: {name} {n:?}");
        }
    }
}

#[test]
fn a_content_is_found_by_its_state_and_where_it_was_put() {
    let (state_dir, root) = (tempfile::tempdir().unwrap(), Path::new("/data/in"));
    let log = on_disk(state_dir.path(), root);
    for (name, n) in [("a", 1), ("d/b", 2), ("again", 1)] {
        log.note(name, PlacedFile { id: id(n), state: None, keeping: Keeping::Kept });
        log.note(name, PlacedFile { id: id(n), state: Some(state(n)), keeping: Keeping::Kept });
    }
    log.note("d/b", PlacedFile { id: id(9), state: None, keeping: Keeping::Kept });
    drop(log);
    let above = on_disk(state_dir.path(), Path::new("/data"));
    above.note("in/c", PlacedFile { id: id(3), state: Some(state(3)), keeping: Keeping::Kept });
    above.note("out", PlacedFile { id: id(3), state: Some(state(4)), keeping: Keeping::Kept });
    drop(above);
    let log = on_disk(state_dir.path(), root);
    for (name, n, is_placed) in [("a", 1, true), ("d/b", 2, true), ("c", 3, true), ("a", 2, false), ("x", 1, false)] {
        assert_eq!(log.is_placed(name, &id(n), &state(n)), is_placed, "{name}");
        let touched = PlacedState { ctime_ns: 77, ..state(n) };
        assert!(touched.is_renamed(&state(n)) && !PlacedState { mtime_ns: 77, ..touched }.is_renamed(&state(n)));
        assert!(!log.is_placed(name, &id(n), &touched) && !log.is_placed(name, &id(n + 1), &state(n)), "{name}");
    }
    let places = |n| {
        let mut found = log.places_of(&id(n), 9);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    assert_eq!(places(1), [("a".into(), state(1)), ("again".into(), state(1))]);
    assert_eq!(places(2), [("d/b".into(), state(2))], "what was only intended is not there");
    assert_eq!(places(3), [("c".into(), state(3))], "what lies outside is of no use");
    assert_eq!((places(9), log.places_of(&id(1), 1).len()), (vec![], 1));
}

#[test]
fn what_has_expired_does_not_count_as_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let log = on_disk(dir.path(), Path::new("/d"));
    log.note("intended", intent(1));
    for (name, more) in [("kept", None), ("expired", Some(Keeping::Expired)), ("again", Some(Keeping::Expired))] {
        log.note(name, placed(2));
        more.into_iter().for_each(|keeping| log.note(name, PlacedFile { keeping, ..intent(2) }));
    }
    log.note("again", placed(3));
    let names = ["intended", "kept", "expired", "again", "none"];
    assert_eq!(names.map(|name| log.was_fetched(name)), [false, true, false, true, false]);
}
