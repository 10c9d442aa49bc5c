use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::content::Attributes;
use crate::content::{Root, merkle};
use crate::store::Overwrite;

fn go() -> bool {
    false
}

fn name(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn id(bytes: &[u8]) -> FileId {
    FileId { root: Root(merkle::root_of_bytes(bytes)), len: bytes.len() as u64 }
}

/// A directory, and one for the records of it.
struct Place {
    dir: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    fn disk(&self, overwrite: Overwrite) -> Arc<Disk> {
        Disk::open_guarded(self.dir.path(), false, overwrite, Some(self.state.path())).unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.path(path)).unwrap().ino()
    }

    /// One fetch of a link group, whose first name is `a`: what came of the others.
    fn fetch(&self, overwrite: Overwrite, bytes: &[u8], others: &[&str]) -> Vec<Result<bool, StoreError>> {
        let (disk, first, id) = (self.disk(overwrite), name("a"), id(bytes));
        if !disk.holds(std::slice::from_ref(&first), &id, &go).remove(0).unwrap() {
            disk.batch_write(&[(first.clone(), id, bytes)]).remove(0).unwrap();
        }
        let names: Vec<_> = others.iter().map(|other| (name(other), first.clone(), id)).collect();
        let made = disk.make_names(&names, &go);
        disk.finish_record();
        made
    }

    /// Whether the next fetch reads none of these.
    fn are_known(&self, bytes: &[u8], names: &[&str]) -> bool {
        let disk = self.disk(Overwrite::Refuse);
        names.iter().all(|path| {
            let (guard, state) = (disk.volume.guard().unwrap(), disk.volume.state_of(&name(path)).unwrap().1);
            guard.is_placed(&name(path), &id(bytes), &state)
        })
    }
}

fn touch(path: &Path, mtime: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(mtime).unwrap();
}

/// Cause: the first name of a link group that got a new content changed the time of the inode that the others still
/// had. Effect: they counted as changed by the user, and kept the old content. Mend: that time says nothing of a file of
/// which the fetch itself took a name.
#[test]
fn all_names_of_a_group_get_its_new_content() {
    for overwrite in [Overwrite::Refuse, Overwrite::Backup] {
        let place = Place::new();
        for bytes in [&b"first"[..], b"other", b"of another length"] {
            let made = place.fetch(overwrite, bytes, &["b", "d/c"]);
            assert!(made.iter().all(|made| matches!(made, Ok(true))), "{made:?}");
            for other in ["b", "d/c"] {
                assert_eq!(place.inode(other), place.inode("a"), "{other}");
            }
            assert!(fs::read(place.path("d/c")).unwrap() == bytes && !place.path("b~").exists());
            assert!(place.are_known(bytes, &["a", "b", "d/c"]), "the next fetch need not read them");
            let made = place.fetch(overwrite, bytes, &["b", "d/c"]);
            assert!(made.iter().all(|made| matches!(made, Ok(false))), "{made:?}");
        }
    }
}

#[test]
fn a_name_of_a_group_that_the_user_changed_stays() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &["b", "c", "d"]);
    fs::remove_file(place.path("b")).unwrap();
    fs::write(place.path("b"), b"mine!").unwrap();
    fs::remove_file(place.path("c")).unwrap();
    fs::copy(place.path("a"), place.path("c")).unwrap();
    let made = place.fetch(Overwrite::Refuse, b"other", &["b", "c", "d"]);
    assert!(matches!(made[..], [Err(StoreError::Exists { .. }), Ok(true), Ok(true)]), "{made:?}");
    assert_eq!(fs::read(place.path("b")).unwrap(), b"mine!");
    assert_eq!(place.inode("d"), place.inode("a"));
    // One that has the content is not replaced by a link.
    fs::write(place.path("b"), b"more!").unwrap();
    let (mine, made) = (place.inode("b"), place.fetch(Overwrite::Refuse, b"more!", &["b", "c", "d"]));
    assert!(matches!(made[..], [Ok(false), Ok(true), Ok(true)]), "{made:?}");
    assert_eq!(place.inode("b"), mine);
}

#[test]
fn a_group_whose_inode_changed_is_still_known() {
    let place = Place::new();
    let (all, day) = (["a", "b", "c"], SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400));
    place.fetch(Overwrite::Refuse, b"first", &["b", "c"]);
    for change in 0..3 {
        match change {
            0 => touch(&place.path("c"), day),
            1 => fs::remove_file(place.path("b")).unwrap(),
            _ => fs::hard_link(place.path("a"), place.path("of the user")).unwrap(),
        }
        let made = place.fetch(Overwrite::Refuse, b"first", &["b", "c"]);
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        assert!(place.are_known(b"first", &all), "read once, and known then: {change}");
    }
    let made = place.fetch(Overwrite::Refuse, b"other", &["b", "c"]);
    assert!(made.iter().all(|made| matches!(made, Ok(true))), "{made:?}");
    assert_eq!(fs::read(place.path("of the user")).unwrap(), b"first");
}

#[test]
fn names_that_part_at_the_source_part_here() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &["b", "c"]);
    let disk = place.disk(Overwrite::Refuse);
    let (two, three) = ([name("a"), name("b")], id(b"other"));
    // Looked at before the first is replaced.
    assert!(disk.holds(&two, &three, &go).into_iter().all(|held| matches!(held, Ok(false))));
    let files: Vec<_> = two.iter().map(|path| (path.clone(), three, b"other")).collect();
    let placed = disk.batch_write(&files);
    assert!(placed.iter().all(Result::is_ok), "{placed:?}");
    assert!(place.inode("a") != place.inode("b") && fs::read(place.path("c")).unwrap() == b"first");
}

/// Cause: the attributes of each file with the wanted content were brought in line. Effect: a file of the user's got
/// another time and mode. Mend: only of what fetches put there.
#[test]
fn attributes_of_a_file_of_the_user_stay() {
    let (place, wanted) = (Place::new(), Attributes { mtime_ns: 5, executable: true, ..Attributes::default() });
    let file = name("mine");
    fs::write(place.path("mine"), b"equal").unwrap();
    let look = || fs::metadata(place.path("mine")).map(|m| (m.mode(), m.mtime(), m.ctime(), m.ctime_nsec())).unwrap();
    let before = look();
    for (overwrite, stays) in [(Overwrite::Refuse, true), (Overwrite::Backup, true), (Overwrite::Replace, false)] {
        let disk = place.disk(overwrite);
        disk.set_attributes(vec![(file.clone(), wanted)]);
        assert!(disk.holds(std::slice::from_ref(&file), &id(b"equal"), &go).remove(0).unwrap());
        disk.finish_record();
        assert_eq!(look() == before, stays, "{overwrite:?}");
    }
}

#[test]
fn what_is_made_behind_files_ends_when_it_is_to_stop() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &[]);
    let disk = place.disk(Overwrite::Refuse);
    let many = |n: usize| name(&format!("n{n:05}"));
    let names: Vec<_> = (0..3 * BARE_AT_ONCE_MAX).map(|n| (many(n), name("a"), id(b"first"))).collect();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > BARE_AT_ONCE_MAX + 5;
    let made = disk.make_names(&names, &stop);
    let there = names.iter().filter(|(path, ..)| place.path(path.as_str()).exists()).count();
    assert!(there < 2 * BARE_AT_ONCE_MAX, "{there}");
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(true))).count(), there);
    assert!(made.iter().skip(there).all(Result::is_err) && !place.path(".gpb").exists());
}

/// Cause: no link can be made, as on FAT. Effect: each name but the first failed. Mend: copies.
#[test]
fn where_no_links_can_be_made_names_are_copies() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &[]);
    let fetch = |bytes: &[u8]| {
        let (disk, all) = (place.disk(Overwrite::Refuse), ["a", "b", "d/c", "mine"]);
        disk.volume.lacks_links.store(true, std::sync::atomic::Ordering::Relaxed);
        let wanted = Attributes { mtime_ns: bytes.len() as i64, executable: true, ..Attributes::default() };
        disk.set_attributes(all.iter().map(|path| (name(path), wanted)).collect());
        if !disk.holds(&[name("a")], &id(bytes), &go).remove(0).unwrap() {
            disk.batch_write(&[(name("a"), id(bytes), bytes)]).remove(0).unwrap();
        }
        let names: Vec<_> = all[1..].iter().map(|other| (name(other), name("a"), id(bytes))).collect();
        let made = disk.make_names(&names, &go);
        let text = LinkText { path: name("link"), target: "a".into(), mtime_ns: 5 };
        let link = disk.make_links(&[text], &go).remove(0);
        assert!(matches!(link, Err(StoreError::NoLinks { .. })), "{link:?}");
        disk.finish_record();
        let is_it = |path: &str| {
            let meta = fs::metadata(place.path(path)).unwrap();
            let is_dressed = meta.mode() & 0o100 != 0 && meta.mtime_nsec() == wanted.mtime_ns;
            is_dressed && fs::read(place.path(path)).unwrap() == bytes
        };
        assert!(["a", "b", "d/c"].into_iter().all(is_it));
        made
    };
    fs::write(place.path("mine"), b"mine").unwrap();
    for bytes in [&b"first"[..], b"of another length"] {
        let made = fetch(bytes);
        assert!(matches!(made[..], [Ok(true), Ok(true), Err(StoreError::Exists { .. })]), "{made:?}");
        let before = (place.inode("b"), place.inode("d/c"));
        let made = fetch(bytes);
        assert!(matches!(made[..], [Ok(false), Ok(false), Err(StoreError::Exists { .. })]), "{made:?}");
        assert!((place.inode("b"), place.inode("d/c")) == before && !place.path(".gpb").exists());
    }
    assert_eq!(fs::read(place.path("mine")).unwrap(), b"mine");
    // Links again: what was copied becomes a link.
    let made = place.fetch(Overwrite::Refuse, b"of another length", &["b", "d/c"]);
    assert!(made.iter().all(|made| matches!(made, Ok(true))) && place.inode("b") == place.inode("a"), "{made:?}");
}

/// Cause: the disk cannot hold each time. Effect: such a file was touched by each fetch. Mend: what the disk makes of
/// the time is in line, too.
#[test]
fn a_time_that_the_disk_cannot_hold_is_set_once() {
    for mtime_ns in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
        let (place, all) = (Place::new(), ["a", "b", "link", "hollow"]);
        let fetch = |mtime_ns: i64| {
            let disk = place.disk(Overwrite::Refuse);
            disk.set_attributes(vec![(name("a"), Attributes { mtime_ns, ..Attributes::default() })]);
            if !disk.holds(&[name("a")], &id(b"a"), &go).remove(0).unwrap() {
                disk.batch_write(&[(name("a"), id(b"a"), b"a")]).remove(0).unwrap();
            }
            let names = disk.make_names(&[(name("b"), name("a"), id(b"a"))], &go);
            let text = LinkText { path: name("link"), target: "a".into(), mtime_ns };
            let (links, dirs) = (disk.make_links(&[text], &go), disk.make_dirs(&[(name("hollow"), mtime_ns)], &go));
            disk.finish_record();
            assert!(names.iter().chain(&links).chain(&dirs).all(Result::is_ok), "{names:?} {links:?} {dirs:?}");
            let look =
                |path| fs::symlink_metadata(place.path(path)).map(|m| (m.ino(), m.ctime(), m.ctime_nsec())).unwrap();
            all.map(look)
        };
        // From another time to this one.
        fetch(1_000_000_000);
        let before = fetch(mtime_ns);
        assert_eq!(fetch(mtime_ns), before, "{mtime_ns}: nothing is touched");
        assert!(place.are_known(b"a", &["a", "b"]) && !place.path(".gpb").exists());
    }
}

/// Cause: a further name was linked to a file of the user's. Effect: a later fetch set the time and mode of that file.
/// Mend: only what fetches put there gets further names.
#[test]
fn a_file_of_the_user_gets_no_other_name() {
    let place = Place::new();
    fs::write(place.path("a"), b"equal").unwrap();
    let look = || fs::metadata(place.path("a")).map(|m| (m.nlink(), m.mtime(), m.ctime(), m.ctime_nsec())).unwrap();
    let before = look();
    for is_new in [true, false] {
        let made = place.fetch(Overwrite::Refuse, b"equal", &["b", "c"]);
        assert!(made.iter().all(|made| matches!(made, Ok(new) if *new == is_new)), "{made:?}");
        assert!(look() == before && fs::read(place.path("c")).unwrap() == b"equal");
    }
}

/// Cause: removing one name changed the state of the others. Effect: those stayed.
#[test]
fn all_names_of_a_group_are_removed() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &["b", "c", "d"]);
    let disk = place.disk(Overwrite::Refuse);
    fs::remove_file(place.path("c")).unwrap();
    fs::write(place.path("c"), b"mine").unwrap();
    let tree = disk.tree("", &go).unwrap();
    fs::write(place.path("c"), b"mine!").unwrap();
    let removed = disk.remove(&tree.names);
    assert_eq!(removed.iter().filter(|removed| matches!(removed, Ok(true))).count(), 3, "{removed:?}");
    let left: Vec<_> = fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left, fs::read(place.path("c")).unwrap()), (vec!["c".into()], b"mine!".to_vec()));
}

#[test]
fn an_empty_directory_takes_the_place_of_a_file_when_told() {
    let place = Place::new();
    fs::write(place.path("file"), b"mine").unwrap();
    std::os::unix::fs::symlink("file", place.path("link")).unwrap();
    let dirs = ["file", "link"].map(|path| (name(path), 5));
    let made = place.disk(Overwrite::Refuse).make_dirs(&dirs, &go);
    assert!(made.iter().all(|made| matches!(made, Err(StoreError::Exists { .. }))), "{made:?}");
    let made = place.disk(Overwrite::Replace).make_dirs(&dirs, &go);
    assert!(made.iter().all(|made| matches!(made, Ok(true))), "{made:?}");
    assert!(dirs.iter().all(|(path, _)| fs::symlink_metadata(place.path(path.as_str())).unwrap().is_dir()));
    assert!(!place.path(".gpb").exists());
}

#[test]
fn copies_end_when_they_are_to_stop() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &[]);
    let made = place.disk(Overwrite::Refuse).make_copies(&[(name("b"), name("a"), id(b"first"))], "link", &|| true);
    assert!(made[0].is_err() && !place.path("b").exists());
}

/// Cause: two names of one inode that are two files at the source had their attributes set one after the other. Effect:
/// one was wrong, and each fetch changed both. Mend: the second becomes a file of its own.
#[test]
fn names_with_attributes_of_their_own_part() {
    let place = Place::new();
    place.fetch(Overwrite::Refuse, b"first", &["b"]);
    let fetch = || {
        let (disk, both) = (place.disk(Overwrite::Refuse), [name("a"), name("b")]);
        let wanted = |mtime_ns, executable| Attributes { mtime_ns, executable, ..Attributes::default() };
        disk.set_attributes(vec![(name("a"), wanted(5, true)), (name("b"), wanted(6, false))]);
        assert!(disk.holds(&both, &id(b"first"), &go).into_iter().all(|held| held.unwrap()));
        disk.finish_record();
        ["a", "b"].map(|path| {
            let meta = fs::metadata(place.path(path)).unwrap();
            (meta.mtime_nsec(), meta.mode() & 0o100 != 0, meta.ino(), meta.ctime(), meta.ctime_nsec())
        })
    };
    let before = fetch();
    assert_eq!(before.map(|(mtime, executes, ..)| (mtime, executes)), [(5, true), (6, false)]);
    assert!(before[0].2 != before[1].2 && place.are_known(b"first", &["a", "b"]));
    assert_eq!(fetch(), before, "nothing is touched");
}

#[test]
fn times_of_links_and_directories_of_the_user_stay() {
    let place = Place::new();
    fs::create_dir(place.path("hollow")).unwrap();
    std::os::unix::fs::symlink("a", place.path("link")).unwrap();
    let look = |path| fs::symlink_metadata(place.path(path)).map(|m| (m.mtime(), m.ctime(), m.ctime_nsec())).unwrap();
    let before = ["hollow", "link"].map(look);
    let disk = place.disk(Overwrite::Refuse);
    let link = LinkText { path: name("link"), target: "a".into(), mtime_ns: 5 };
    let (links, dirs) = (disk.make_links(&[link], &go), disk.make_dirs(&[(name("hollow"), 5)], &go));
    assert!(links.iter().chain(&dirs).all(|made| matches!(made, Ok(false))), "{links:?} {dirs:?}");
    assert_eq!(["hollow", "link"].map(look), before);
}

/// Cause: a file that a fetch had just put in place made way for a directory of the same fetch. Effect: of a list that
/// has a name as both, the file was reported and gone.
#[test]
fn what_a_fetch_brings_makes_way_for_nothing_else_of_it() {
    let place = Place::new();
    let write = |disk: &Disk, paths: &[&str]| {
        let files: Vec<_> = paths.iter().map(|path| (name(path), id(path.as_bytes()), path.as_bytes())).collect();
        let written = disk.batch_write(&files);
        disk.finish_record();
        written.into_iter().map(|written| written.is_ok()).collect::<Vec<_>>()
    };
    let disk = place.disk(Overwrite::Refuse);
    assert_eq!(write(&disk, &["a", "a/b"]), [true, false]);
    assert_eq!(write(&disk, &["a/c"]), [false]);
    assert_eq!(fs::read(place.path("a")).unwrap(), b"a");
    // The next fetch replaces what this one brought.
    assert_eq!(write(&place.disk(Overwrite::Refuse), &["a/b"]), [true]);
    assert_eq!(fs::read(place.path("a/b")).unwrap(), b"a/b");
}

/// Cause: the state that a file had after its names were made was recorded, whoever had changed it. Effect: what a user
/// saved in that moment counted as fetched, and the next fetch replaced it.
#[test]
fn what_is_saved_while_names_are_made_is_the_users() {
    for by_rename in [false, true] {
        let place = Place::new();
        place.fetch(Overwrite::Refuse, b"first", &[]);
        let (disk, first, id_first) = (place.disk(Overwrite::Refuse), name("a"), id(b"first"));
        assert!(disk.holds(std::slice::from_ref(&first), &id_first, &go).remove(0).unwrap());
        let save = || {
            fs::write(place.path("new"), b"mine!").unwrap();
            if by_rename {
                fs::rename(place.path("new"), place.path("a")).unwrap();
            } else {
                fs::write(place.path("a"), b"mine!").unwrap();
            }
            false
        };
        disk.make_names(&[(name("b"), first.clone(), id_first)], &save);
        disk.finish_record();
        drop(disk);
        let written = place.disk(Overwrite::Refuse).batch_write(&[(first, id(b"newer"), b"newer")]).remove(0);
        assert!(matches!(written, Err(StoreError::Exists { .. })), "{written:?}");
        assert_eq!(fs::read(place.path("a")).unwrap(), b"mine!");
    }
}
