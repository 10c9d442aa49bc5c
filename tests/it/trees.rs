//! Link groups and links of a directory that is fetched again and again, while the source changes and the user edits.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gpb::testing::Lan;
use gpb::{Everything, Failed, Node, Report};

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
