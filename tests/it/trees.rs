//! Link groups and links of a directory that is fetched again and again, while the source changes and the user edits.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gpb::testing::Lan;
use gpb::{Everything, Failed, FetchError, Node, Report};

use crate::attributes::{dir, sharing, states};

/// A fetch of all that the directory has now.
fn fetch(lan: &Lan, source: &Path, node: &Node) -> Result<Arc<Report>, Failed> {
    let _sharer = sharing(lan, source);
    node.fetch(Everything).unwrap().wait()
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Cause: replacing the first name of an inode changed the state of the others. Effect: those counted as changed by the
/// user and kept the old content, exit code 7.
#[test]
fn a_link_group_that_changed_arrives_whole_and_linked() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (root, node) = (source.path(), lan.node().unwrap());
    let here = dir(&node);
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("a"), b"first").unwrap();
    for other in ["b", "c", "d/e"] {
        fs::hard_link(root.join("a"), root.join(other)).unwrap();
    }
    for content in [&b"first"[..], b"other", &[7; 600_000], b""] {
        fs::write(root.join("c"), content).unwrap();
        let report = fetch(&lan, root, &node).unwrap();
        assert_eq!((report.files, report.failed.len()), (4, 0), "{} bytes", content.len());
        for name in ["a", "b", "c", "d/e"] {
            assert_eq!(fs::read(here.join(name)).unwrap(), content, "{name}");
            assert_eq!(inode(&here.join(name)), inode(&here.join("a")), "{name}");
        }
    }
    // What the user edited stays and is named; the rest comes.
    fs::remove_file(here.join("b")).unwrap();
    fs::write(here.join("b"), b"mine too").unwrap();
    fs::write(root.join("a"), b"more").unwrap();
    let failed = fetch(&lan, root, &node).unwrap_err();
    let names: Vec<&str> = failed.report.failed.iter().map(|f| f.path.as_str()).collect();
    assert_eq!((names, fs::read(here.join("b")).unwrap()), (vec!["b"], b"mine too".to_vec()));
    assert!(fs::read(here.join("d/e")).unwrap() == b"more" && inode(&here.join("c")) == inode(&here.join("a")));
}

#[test]
fn attributes_that_change_at_the_source_come_without_a_byte() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (root, node) = (source.path(), lan.node().unwrap());
    let here = dir(&node);
    for (name, bytes) in [("one", &b"one"[..]), ("large", &[1; 400_000]), ("linked", b"linked")] {
        fs::write(root.join(name), bytes).unwrap();
    }
    fs::hard_link(root.join("linked"), root.join("other")).unwrap();
    fs::create_dir(root.join("hollow")).unwrap();
    fetch(&lan, root, &node).unwrap();
    let when = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    for name in ["one", "large", "other", "hollow"] {
        File::open(root.join(name)).unwrap().set_modified(when).unwrap();
        fs::set_permissions(root.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let report = fetch(&lan, root, &node).unwrap();
    assert_eq!((report.files, report.skipped, report.bytes), (4, 4, 0));
    for name in ["one", "large", "linked", "other", "hollow"] {
        let meta = fs::metadata(here.join(name)).unwrap();
        assert!(meta.modified().unwrap() == when && meta.mode() & 0o111 != 0, "{name}");
    }
    assert_eq!(inode(&here.join("other")), inode(&here.join("linked")));
    let before = (states(&here), fs::metadata(&here).unwrap().modified().unwrap());
    fetch(&lan, root, &node).unwrap();
    assert!((states(&here), fs::metadata(&here).unwrap().modified().unwrap()) == before, "nothing is touched");
    // The records are up to date for all names: new contents replace them.
    fs::write(root.join("other"), b"changed").unwrap();
    let report = fetch(&lan, root, &node).unwrap();
    assert_eq!((report.failed.len(), fs::read(here.join("linked")).unwrap()), (0, b"changed".to_vec()));
}

/// Cause: the name of an inode that a fetch chose to write was a file of the user's. Effect: none of its other names
/// came. Mend: another one is written.
#[test]
fn one_blocked_name_of_a_link_group_keeps_no_other_away() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (root, node) = (source.path(), lan.node().unwrap());
    let here = dir(&node);
    let names: Vec<String> = (0..9).map(|n| format!("n{n}")).collect();
    fs::write(root.join("n0"), b"content").unwrap();
    names[1..].iter().for_each(|name| fs::hard_link(root.join("n0"), root.join(name)).unwrap());
    let when = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    File::open(root.join("n0")).unwrap().set_modified(when).unwrap();
    // Files of the same length, of another one, a directory, a link.
    fs::create_dir_all(&here).unwrap();
    fs::write(here.join("n0"), b"mine, 1").unwrap();
    fs::write(here.join("n1"), b"mine").unwrap();
    fs::create_dir(here.join("n2")).unwrap();
    symlink("elsewhere", here.join("n3")).unwrap();
    fs::write(here.join("n5"), b"mine, 2").unwrap();
    let blocked = ["n0", "n1", "n2", "n3", "n5"];
    let before: Vec<_> = states(&here);
    for _ in 0..2 {
        let failed = fetch(&lan, root, &node).unwrap_err();
        let mut told: Vec<&str> = failed.report.failed.iter().map(|f| f.path.as_str()).collect();
        told.sort_unstable();
        assert_eq!((told, failed.report.files), (blocked.to_vec(), 4), "{failed:?}");
        assert_eq!(fs::metadata(here.join("n4")).unwrap().modified().unwrap(), when);
        for name in ["n4", "n6", "n7", "n8"] {
            assert!(
                fs::read(here.join(name)).unwrap() == b"content" && inode(&here.join(name)) == inode(&here.join("n4"))
            );
        }
        assert!(before.iter().all(|state| states(&here).contains(state)), "what is the user's is not touched");
    }
    names.iter().for_each(|name| drop(fs::remove_file(here.join(name))));
    fs::remove_dir(here.join("n2")).unwrap();
    // All of them.
    names.iter().for_each(|name| fs::write(here.join(name), b"mine, 3").unwrap());
    let failed = fetch(&lan, root, &node).unwrap_err();
    assert_eq!((failed.report.failed.len(), failed.report.files), (9, 0), "{failed:?}");
}

#[test]
fn chains_of_links_stay_links_and_lead_nowhere_else() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (root, node) = (source.path(), lan.node().unwrap());
    let here = dir(&node);
    fs::create_dir(root.join("v2")).unwrap();
    fs::write(root.join("v2/model"), b"weights").unwrap();
    let links =
        [("current", "v2"), ("latest", "current"), ("model", "latest/model"), ("it", "./model"), ("v2/back", "../it")];
    for (link, target) in links {
        symlink(target, root.join(link)).unwrap();
    }
    let report = fetch(&lan, root, &node).unwrap();
    assert_eq!((report.files, report.bytes), (4, 7), "{report:?}");
    for (link, target) in links {
        assert_eq!(fs::read_link(here.join(link)).unwrap(), Path::new(target), "{link}");
    }
    assert_eq!(fs::read(here.join("v2/back")).unwrap(), b"weights");
    let before = states(&here);
    assert_eq!(fetch(&lan, root, &node).unwrap().skipped, 4);
    assert!(states(&here) == before, "nothing is touched");
    // One that is the user's is not led over.
    let (other, outside) = (lan.node().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(dir(&other)).unwrap();
    symlink(outside.path(), dir(&other).join("latest")).unwrap();
    let failed = fetch(&lan, root, &other).unwrap_err();
    let mut told: Vec<&str> = failed.report.failed.iter().map(|f| f.path.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, ["it", "latest", "model", "v2/back"]);
    assert!(dir(&other).join("current").is_symlink() && !dir(&other).join("model").is_symlink());
    // A part of a chain is a copy where the rest is not fetched.
    let part = lan.node().unwrap();
    let _sharer = sharing(&lan, root);
    part.fetch("it").unwrap().wait().unwrap();
    assert!(!dir(&part).join("it").is_symlink() && fs::read(dir(&part).join("it")).unwrap() == b"weights");
}

#[test]
fn a_fetch_that_makes_links_is_cancelled_soon() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let root = source.path();
    fs::write(root.join("a"), b"content").unwrap();
    (0..4000).for_each(|n| fs::hard_link(root.join("a"), root.join(format!("n{n:04}"))).unwrap());
    let _sharer = sharing(&lan, root);
    // On a busy machine a fetch may be done before it is cancelled: one try of many comes in time.
    let is_cut = |_| {
        let node = lan.node().unwrap();
        let (here, fetch, begun) = (dir(&node), node.fetch(Everything).unwrap(), Instant::now());
        while !here.join("n0000").exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing comes");
            std::thread::sleep(Duration::from_millis(1));
        }
        fetch.cancel();
        let end = fetch.wait();
        let is_cancelled = end.as_ref().is_err_and(|failed| matches!(*failed.error, FetchError::Cancelled));
        assert!(!here.join(".gpb").exists() && (is_cancelled || end.is_ok()), "{end:?}");
        !here.join("n3999").exists()
    };
    assert!((0..100).any(is_cut), "each went on to the end");
}

/// Cause: where a link goes lay a file of the user's with the very content. Effect: exit code 7. Mend: a file that has
/// the wanted content is never in the way.
#[test]
fn a_file_with_the_content_of_a_link_stays_and_is_in_no_ones_way() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (root, node) = (source.path(), lan.node().unwrap());
    let here = dir(&node);
    fs::write(root.join("v2"), b"content").unwrap();
    symlink("v2", root.join("latest")).unwrap();
    symlink("latest", root.join("over")).unwrap();
    fs::create_dir_all(&here).unwrap();
    fs::write(here.join("latest"), b"content").unwrap();
    let before = states(&here);
    for _ in 0..2 {
        let report = fetch(&lan, root, &node).unwrap();
        assert_eq!((report.files, report.failed.len()), (3, 0), "{report:?}");
        assert!(before.iter().all(|state| states(&here).contains(state)) && here.join("over").is_symlink());
    }
}
