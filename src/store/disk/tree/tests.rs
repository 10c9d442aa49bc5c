use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::content::{Digest, Root};
use crate::store::Overwrite;

fn disk(dir: &Path, state: Option<&Path>) -> std::sync::Arc<Disk> {
    Disk::open_guarded(dir, false, Overwrite::Refuse, state).unwrap()
}

fn names(tree: &LocalTree) -> Vec<(&str, LocalKind)> {
    let mut names: Vec<_> = tree.names.iter().map(|name| (name.path.as_str(), name.kind)).collect();
    names.sort_by_key(|(name, _)| *name);
    names
}

fn of<'t>(tree: &'t LocalTree, path: &str) -> &'t LocalName {
    tree.names.iter().find(|name| name.path.as_str() == path).unwrap()
}

fn go() -> bool {
    false
}

#[test]
fn a_tree_has_what_could_be_shared_and_follows_no_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    fs::create_dir_all(dir.path().join("d/.GPB")).unwrap();
    fs::create_dir_all(dir.path().join(".gpb")).unwrap();
    for name in ["a", "d/b", "d/e/c", "d/.GPB/x.part", ".gpb/y.part", "d/con\x01trol"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::write(outside.path().join("f"), "f").unwrap();
    symlink(outside.path(), dir.path().join("d/out")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("d/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let disk = disk(dir.path(), None);
    let tree = disk.tree("", &go).unwrap();
    let below = [("d/b", LocalKind::File), ("d/e/c", LocalKind::File), ("d/fifo", LocalKind::Other)];
    let all = [&[("a", LocalKind::File)], &below[..], &[("d/out", LocalKind::Link)]].concat();
    assert_eq!(names(&tree), all);
    assert_eq!(tree.dirs.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["d", "d/e"]);
    assert_eq!(names(&disk.tree("d", &go).unwrap()).len(), 4);
    for dir in ["none", "a", "d/out"] {
        assert!(disk.tree(dir, &go).unwrap().names.is_empty(), "{dir}");
    }
    assert!(disk.tree("", &|| true).is_err());
}

#[test]
fn only_what_was_looked_at_is_removed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    for name in ["a", "d/b", "d/e/c", "edited", "replaced"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::write(outside.path().join("b"), "theirs").unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    fs::hard_link(dir.path().join("a"), dir.path().join("twin")).unwrap();
    let disk = disk(dir.path(), None);
    let tree = disk.tree("", &go).unwrap();
    fs::write(dir.path().join("edited"), "mine").unwrap();
    fs::remove_file(dir.path().join("replaced")).unwrap();
    fs::create_dir(dir.path().join("replaced")).unwrap();
    // The way to a file is a link by now.
    fs::rename(dir.path().join("d"), dir.path().join("moved")).unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    let asked = ["a", "d/b", "edited", "link", "replaced"].map(|path| of(&tree, path).clone());
    let results: Vec<bool> = disk.remove(&asked).into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [true, false, false, true, false]);
    let left = ["a", "twin", "moved/b", "edited", "link", "replaced"].map(|name| dir.path().join(name).exists());
    assert_eq!(left, [false, true, true, true, false, true]);
    assert_eq!(fs::read(outside.path().join("b")).unwrap(), b"theirs");
    assert_eq!(fs::read(dir.path().join("edited")).unwrap(), b"mine");
    assert!(!dir.path().join(".gpb").exists());
    let remove = |path| disk.remove_dir(&RelPath::new(path).unwrap());
    assert_eq!(["moved", "d/e", "d", "replaced", "none"].map(remove), [false, false, false, true, false]);
}

#[test]
fn what_was_fetched_is_known_by_its_state_or_its_bytes() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| RelPath::new(name).unwrap();
    let id = |bytes: &[u8]| {
        use sha2::Digest as _;
        FileId { root: Root(Digest(sha2::Sha256::digest(bytes).into())), len: bytes.len() as u64 }
    };
    let first = disk(dir.path(), Some(state.path()));
    let files = ["same", "touched", "edited"].map(|name| (path(name), id(b"fetched"), b"fetched"));
    first.batch_write(&files).into_iter().for_each(|result| result.unwrap());
    first.finish_record();
    fs::write(dir.path().join("mine"), "fetched").unwrap();
    fs::write(dir.path().join("edited"), "changed").unwrap();
    let touched = fs::File::options().write(true).open(dir.path().join("touched")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let again = disk(dir.path(), Some(state.path()));
    let tree = again.tree("", &go).unwrap();
    let found = |name| again.fetched_as(of(&tree, name), &go);
    let known = Some(id(b"fetched"));
    assert_eq!(["same", "touched", "edited", "mine"].map(found), [known, known, None, None]);
    let other = disk(dir.path(), None);
    assert_eq!(other.fetched_as(of(&tree, "same"), &go), None, "without records all is the user's");
}
