//! What a directory is besides its contents arrives with them: times, program bits, links, empty directories.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use gpb::testing::Lan;
use gpb::{Everything, Node};

/// The directory of a node.
pub(crate) fn dir(node: &Node) -> PathBuf {
    node.config().dir.clone().unwrap()
}

/// Mode bits without those that the umask takes, and the time.
fn look(path: &Path) -> (bool, i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.mode() & 0o111 != 0, meta.mtime(), meta.mtime_nsec())
}

fn set(path: &Path, mode: u32, mtime: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(mtime).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn times_and_programs_arrive_and_are_brought_in_line_without_a_byte() {
    let lan = Lan::new().unwrap();
    let source = tempfile::tempdir().unwrap();
    let (epoch, day) = (SystemTime::UNIX_EPOCH, Duration::from_secs(86_400));
    let large = vec![7; 600_000];
    for (name, bytes, mode, mtime) in [
        ("run", &b"#!/bin/sh\n"[..], 0o755, epoch - Duration::new(5, 7)),
        ("large", &large, 0o4711, epoch + 100_000 * day + Duration::from_nanos(123_456_789)),
        ("plain", b"plain", 0o600, epoch),
        ("twin", b"plain", 0o644, epoch + day),
    ] {
        fs::write(source.path().join(name), bytes).unwrap();
        set(&source.path().join(name), mode, mtime);
    }
    let _sharer = sharing(&lan, source.path());
    let node = lan.node().unwrap();
    let here = dir(&node);
    let report = node.fetch(Everything).unwrap().wait().unwrap();
    assert_eq!((report.files, report.skipped), (4, 0));
    for name in ["run", "large", "plain", "twin"] {
        assert_eq!(look(&here.join(name)), look(&source.path().join(name)), "{name}");
    }
    let made = here.join("made");
    fs::write(&made, b"").unwrap();
    let umask = 0o666 & !fs::metadata(&made).unwrap().mode();
    fs::remove_file(&made).unwrap();
    assert_eq!(fs::metadata(here.join("run")).unwrap().mode() & 0o7777, 0o777 & !umask);
    assert_eq!(fs::metadata(here.join("large")).unwrap().mode() & 0o7000, 0, "and nothing else than that");

    set(&here.join("run"), 0o644, epoch + day);
    set(&here.join("plain"), 0o755, epoch + day);
    let ctime = |name: &str| fs::metadata(here.join(name)).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    let untouched = ctime("large");
    let report = node.fetch(Everything).unwrap().wait().unwrap();
    assert_eq!((report.files, report.skipped, report.bytes), (4, 4, 0));
    for name in ["run", "large", "plain", "twin"] {
        assert_eq!(look(&here.join(name)), look(&source.path().join(name)), "{name}");
    }
    assert_eq!(ctime("large"), untouched, "what is in line is left alone");

    let other = lan.node().unwrap();
    let begun = SystemTime::now() - day;
    other.get(Everything).contents_only().start().unwrap().wait().unwrap();
    for name in ["run", "large", "plain", "twin"] {
        let meta = fs::metadata(dir(&other).join(name)).unwrap();
        assert!(meta.mode() & 0o111 == 0 && meta.modified().unwrap() > begun, "{name}");
    }
}

/// A tree of all that is taken along.
fn tree(root: &Path) {
    let epoch = SystemTime::UNIX_EPOCH;
    for (name, bytes, mode, mtime) in [
        ("bin/run", &b"#!/bin/sh\n"[..], 0o755, epoch - Duration::new(5, 7)),
        ("bin/tool", &[3; 400_000], 0o700, epoch + Duration::from_nanos(1)),
        ("v2/model", b"weights", 0o644, epoch + Duration::new(8_900_000_000, 123_456_789)),
        ("v2/deep/er/config", b"{}", 0o600, epoch),
        ("one", b"content", 0o644, epoch + Duration::new(1_000_000_000, 5)),
        ("twin", b"content", 0o644, epoch + Duration::new(1_000_000_001, 5)),
        ("empty", b"", 0o755, epoch + Duration::new(77, 0)),
    ] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), bytes).unwrap();
        set(&root.join(name), mode, mtime);
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all_at(b"island", 2 << 20).unwrap();
    set(&root.join("sparse"), 0o644, epoch + Duration::new(5, 5));
    fs::hard_link(root.join("one"), root.join("v2/other")).unwrap();
    fs::hard_link(root.join("one"), root.join("bin/third")).unwrap();
    for dir in ["hollow", "nest/of/hollows", "v2/void"] {
        fs::create_dir_all(root.join(dir)).unwrap();
        File::open(root.join(dir)).unwrap().set_modified(epoch + Duration::new(99, 9)).unwrap();
    }
    for (target, link) in [
        ("v2", "latest"),
        ("v2/model", "model"),
        ("../../hollow", "nest/of/way"),
        ("../bin/run", "v2/run"),
        (".", "self"),
        ("./v2/model", "again"),
    ] {
        symlink(target, root.join(link)).unwrap();
        let time =
            Command::new("touch").args(["-h", "-d", "1999-12-31 23:59:58.123456789"]).arg(root.join(link)).status();
        assert!(time.unwrap().success());
    }
}

pub(crate) fn sharing(lan: &Lan, dir: &Path) -> Node {
    let sharer = lan.start(lan.builder().share(gpb::Share::Directory).dir(dir)).unwrap();
    sharer.wait_ready(Duration::from_secs(20)).unwrap();
    sharer
}

/// What rsync would still have to do.
fn rsync(from: &Path, to: &Path) -> String {
    let args = ["-n", "-c", "-rlEtHO", "--itemize-changes", "--delete"];
    let out = Command::new("rsync").args(args).arg(from.join("")).arg(to.join("")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Each name with all that a change would show.
pub(crate) fn states(root: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let meta = entry.path().symlink_metadata().unwrap();
        all.push((entry.path(), meta.ino(), meta.ctime(), meta.ctime_nsec()));
        if meta.is_dir() {
            all.extend(states(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn rsync_finds_nothing_to_do_behind_a_fetch() {
    if Command::new("rsync").arg("--version").output().is_err() {
        assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "there is no rsync");
        println!("skipped: there is no rsync");
        return;
    }
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    tree(source.path());
    let _sharer = sharing(&lan, source.path());
    let node = lan.node().unwrap();
    let here = dir(&node);
    let report = node.fetch(Everything).unwrap().wait().unwrap();
    assert_eq!(rsync(source.path(), &here), "");
    // Ten names of files and three links that lead to one.
    assert_eq!((report.files, report.skipped, report.failed.len()), (13, 0, 0));
    let inode = |name: &str| fs::metadata(here.join(name)).unwrap().ino();
    assert!(inode("one") == inode("v2/other") && inode("one") == inode("bin/third") && inode("one") != inode("twin"));

    let before = states(&here);
    let again = node.fetch(Everything).unwrap().wait().unwrap();
    assert_eq!((again.files, again.skipped, again.bytes), (13, 13, 0));
    assert!(states(&here) == before, "nothing is touched");

    // What differs is brought in line without a byte.
    fs::remove_file(here.join("v2/other")).unwrap();
    fs::copy(here.join("one"), here.join("v2/other")).unwrap();
    fs::remove_file(here.join("one")).unwrap();
    fs::remove_file(here.join("model")).unwrap();
    fs::remove_dir(here.join("hollow")).unwrap();
    let failed = node.fetch(Everything).unwrap().wait().map(|report| (report.bytes, report.failed.len()));
    assert_eq!(failed.unwrap(), (0, 0));
    assert!(here.join("model").is_symlink() && here.join("hollow").is_dir() && inode("one") == inode("bin/third"));

    let other = lan.node().unwrap();
    other.get("model").contents_only().start().unwrap().wait().unwrap();
    let copied = dir(&other).join("model");
    assert!(!copied.is_symlink() && fs::read(&copied).unwrap() == b"weights");
    other.fetch("nest").unwrap().wait().unwrap();
    assert!(dir(&other).join("nest/of/hollows").is_dir() && !dir(&other).join("nest/of/way").is_symlink());
}

#[test]
fn what_is_the_users_stays_where_links_and_directories_go() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    tree(source.path());
    let _sharer = sharing(&lan, source.path());
    let (node, outside) = (lan.node().unwrap(), tempfile::tempdir().unwrap());
    let here = dir(&node);
    fs::create_dir_all(here.join("nest/of")).unwrap();
    fs::write(here.join("latest"), b"mine").unwrap();
    fs::write(here.join("hollow"), b"mine").unwrap();
    fs::write(here.join("bin"), b"mine").unwrap();
    symlink(outside.path(), here.join("v2")).unwrap();
    symlink("elsewhere", here.join("self")).unwrap();
    let failed = node.fetch(Everything).unwrap().wait().unwrap_err();
    for name in ["latest", "hollow", "bin"] {
        assert_eq!(fs::read(here.join(name)).unwrap(), b"mine", "{name}");
    }
    assert_eq!(fs::read_link(here.join("self")).unwrap(), Path::new("elsewhere"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing is written through a link");
    let names: Vec<&str> = failed.report.failed.iter().map(|f| f.path.as_str()).collect();
    for name in ["latest", "hollow", "self", "bin/run", "v2/model"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(here.join("twin").exists() && here.join("nest/of/hollows").is_dir());
    assert!(!here.join(".gpb").exists(), "nothing is left");
}

const FIND_OFFLINE: &str = r#"
import os, sys
from huggingface_hub import snapshot_download, try_to_load_from_cache
where = snapshot_download("org/name", cache_dir=sys.argv[1], local_files_only=True)
model = try_to_load_from_cache("org/name", "model.safetensors", cache_dir=sys.argv[1])
print(where.endswith("/snapshots/" + "a" * 40), os.path.islink(model), open(model).read())
"#;

/// The Python with `huggingface_hub`, if there is one.
fn hugging_face() -> Option<String> {
    let named = std::env::var("HUGGING_FACE_PYTHON").ok();
    let has = |python: &String| {
        Command::new(python).args(["-c", "import huggingface_hub"]).output().is_ok_and(|out| out.status.success())
    };
    named.into_iter().chain(["python3".into(), "/usr/bin/python3".into()]).find(has)
}

#[test]
fn a_hugging_face_cache_is_found_offline_where_it_was_fetched_to() {
    let (lan, source) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let cache = source.path().join("models--org--name");
    let (rev, blobs) = ("a".repeat(40), [("1".repeat(64), "the weights"), ("2".repeat(40), "{\"model_type\": \"x\"}")]);
    fs::create_dir_all(cache.join("blobs")).unwrap();
    fs::create_dir_all(cache.join("refs")).unwrap();
    fs::create_dir_all(cache.join("snapshots").join(&rev)).unwrap();
    fs::write(cache.join("refs/main"), &rev).unwrap();
    for ((blob, content), name) in blobs.iter().zip(["model.safetensors", "config.json"]) {
        fs::write(cache.join("blobs").join(blob), content).unwrap();
        symlink(format!("../../blobs/{blob}"), cache.join("snapshots").join(&rev).join(name)).unwrap();
    }
    let _sharer = sharing(&lan, source.path());
    let node = lan.node().unwrap();
    let report = node.fetch("models--*/**").unwrap().wait().unwrap();
    assert_eq!((report.files, report.bytes), (5, 11 + 19 + 40), "each content once");
    let here = dir(&node).join("models--org--name");
    for name in ["model.safetensors", "config.json"] {
        assert!(here.join("snapshots").join(&rev).join(name).is_symlink(), "{name}");
    }
    let Some(python) = hugging_face() else {
        assert!(std::env::var_os("TESTS_REQUIRE_ALL").is_none_or(|v| v != "1"), "no huggingface_hub");
        println!("skipped: no Python has huggingface_hub (pip install huggingface_hub)");
        return;
    };
    let mut found = Command::new(python);
    found.args(["-c", FIND_OFFLINE]).arg(dir(&node)).env("HF_HUB_OFFLINE", "1").env("HF_HOME", dir(&node).join("home"));
    let found = found.output().unwrap();
    let (told, trouble) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert_eq!(told.trim(), "True True the weights", "{trouble}");
}
