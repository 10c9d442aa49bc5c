//! `sync` makes a directory equal to that of a peer, and touches nothing else: by the real programs over loopback, and by
//! nodes in memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gpb::testing::Lan;
use gpb::{KeyPrefix, Overwrite, SyncHindrance};
use tempfile::TempDir;

use crate::partial_success::{Got, large};
use crate::programs::{Server, WAIT, program};

/// A server with a directory that changes, and the home of a client.
struct Pair {
    source: TempDir,
    server: Server,
    peer: String,
    home: TempDir,
}

impl Pair {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let (source, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, bytes)| put(&source.path().join("data"), name, bytes));
        fs::create_dir_all(source.path().join("data")).unwrap();
        let server = Server::start(source.path(), &["--dir", "data"]);
        let listening = server.seen.iter().find_map(|line| line.split_once("listening peer=")).unwrap();
        let peer = listening.1.split(' ').next().unwrap().to_owned();
        Pair { source, server, peer, home }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.source.path().join("data").join(name)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.home.path().join("into").join(name)
    }

    /// Waits until the server lists exactly these names.
    fn lists(&self, names: &[&str]) {
        let deadline = Instant::now() + WAIT;
        loop {
            let mut listed = self.server.listed();
            listed.sort();
            if listed == names {
                return;
            }
            assert!(Instant::now() < deadline, "{listed:?} instead of {names:?}");
        }
    }

    /// What `sync ARGS` says, once the list of the server is complete.
    fn sync(&self, args: &[&str]) -> Got {
        self.sync_from(&self.peer, args)
    }

    fn sync_from(&self, peer: &str, args: &[&str]) -> Got {
        let deadline = Instant::now() + WAIT;
        loop {
            let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), self.home.path(), &["sync"]);
            command.args(["--no-multicast", "--bind", "127.0.0.1", "--dir", "into", "--timeout", "8"]);
            command.args(["--peer", self.server.addr(), "--from", peer]).args(args);
            let got = Got::of(&command.output().unwrap());
            if !got.errors.contains("its list is complete") || Instant::now() > deadline {
                return got;
            }
        }
    }
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// All below a home but the state directory: of each name whatever the system tells, and the bytes.
fn manifest(home: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![home.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(home).unwrap().to_str().unwrap().to_owned();
            if name == ".local" {
                continue;
            }
            let kind = meta.file_type();
            let told = if kind.is_dir() {
                todo.push(path);
                format!("{:o} {}", meta.mode(), meta.ino())
            } else {
                let bytes = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                let target = fs::read_link(&path).ok();
                let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
                format!("{:o} {} {} {mtime:?} {ctime:?} {target:?} {bytes:?}", meta.mode(), meta.ino(), meta.nlink())
            };
            all.insert(name, told);
        }
    }
    all
}

/// The names that came, went and changed.
fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> [Vec<String>; 3] {
    let missing = |from: &BTreeMap<String, String>, of: &BTreeMap<String, String>| {
        of.keys().filter(|name| !from.contains_key(*name)).cloned().collect()
    };
    let changed = before.iter().filter(|(name, told)| after.get(*name).is_some_and(|now| now != *told));
    [missing(before, after), missing(after, before), changed.map(|(name, _)| name.clone()).collect()]
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_sync_touches_nothing_but_what_the_peer_has_and_what_was_fetched() {
    let big = large(1);
    let pair = Pair::new(&[
        ("models/a", b"a"),
        ("models/b", b"b"),
        ("models/big", &big),
        ("models/sub/d", b"d"),
        ("models/type", b"file"),
        ("other/x", b"x"),
    ]);
    let got = pair.sync(&["models"]);
    assert_eq!(got.code, Some(0), "{got:?}");
    assert!(!pair.here("other").exists() && fs::read(pair.here("models/big")).unwrap() == big);

    // What the user has there, and around it.
    for name in ["models/mine", "models/sub/notes", "models/user/x", "top", "elsewhere/models/y"] {
        put(&pair.here(""), name, name.as_bytes());
    }
    put(pair.home.path(), "outside/z", b"z");
    symlink("../../outside", pair.here("models/link")).unwrap();
    fs::create_dir_all(pair.here("models/empty")).unwrap();
    fs::create_dir_all(pair.here("models/.gpb")).unwrap();
    fs::write(pair.here("models/.gpb/p.part"), "unfinished").unwrap();
    fs::hard_link(pair.here("models/a"), pair.here("a-twin")).unwrap();

    // What happens at the source.
    for gone in ["models/a", "models/sub/d", "models/type"] {
        fs::remove_file(pair.data(gone)).unwrap();
    }
    fs::rename(pair.data("models/big"), pair.data("models/renamed")).unwrap();
    put(&pair.data(""), "models/type/now", b"directory");
    pair.lists(&["models/b", "models/renamed", "models/sub", "models/type/now", "other/x"]);

    let before = manifest(pair.home.path());
    let got = pair.sync(&["models", "--dry-run", "--json"]);
    assert_eq!((got.code, difference(&before, &manifest(pair.home.path()))), (Some(7), Default::default()), "{got:?}");
    let planned = |event: &str| got.out.lines().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count();
    assert_eq!((planned("plan"), planned("remove"), planned("kept")), (3, 4, 4), "{got:?}");
    assert!(got.out.contains(&format!("\"reused\":{}}}", big.len())), "what was renamed is not fetched: {got:?}");

    let got = pair.sync(&["models", "--json"]);
    assert_eq!(got.code, Some(7), "{got:?}");
    let after = manifest(pair.home.path());
    let [came, went, changed] = difference(&before, &after);
    assert_eq!(came, texts(&["into/models/renamed", "into/models/type/now"]));
    assert_eq!(went, texts(&["into/models/a", "into/models/big", "into/models/sub/d"]));
    // `type` was a file; of the hard link only the number of names changed.
    assert_eq!(changed, texts(&["into/a-twin", "into/models/type"]));
    assert!(pair.here("models/type").is_dir() && fs::read(pair.here("a-twin")).unwrap() == b"a");
    let removed = r#"{"event":"removed","path":"models/a","out":"into/models/a"}"#;
    let kept =
        r#""event":"kept","path":"models/mine","out":"into/models/mine","reason":"not fetched, or changed since""#;
    let synced = r#"{"event":"synced","removed":4,"#;
    assert!([removed, kept, synced].iter().all(|line| got.out.contains(line)), "{got:?}");

    // Again: nothing is left to do, and nothing is done.
    let got = pair.sync(&["models"]);
    assert_eq!((got.code, difference(&after, &manifest(pair.home.path()))), (Some(7), Default::default()), "{got:?}");
    let told = "error: 4 files that the peer does not have stay; --force removes what was not fetched";
    assert!(got.errors.contains(told), "{got:?}");

    // With force the user's files below the directory go as well, and nothing beside it or behind a link. `sub` is an empty
    // directory of the peer now.
    let got = pair.sync(&["models", "--force"]);
    assert_eq!(got.code, Some(0), "{got:?}");
    let [came, went, changed] = difference(&after, &manifest(pair.home.path()));
    let mine = ["empty", "link", "mine", "sub/notes", "user", "user/x"].map(|n| format!("into/models/{n}"));
    assert_eq!((came, went, changed), (Vec::new(), mine.to_vec(), Vec::new()));
    assert!(pair.here("models/.gpb/p.part").exists() && pair.home.path().join("outside/z").exists());
}

#[test]
fn a_sync_removes_no_more_than_it_may_and_nothing_by_the_wrong_name() {
    let names = ["d/1", "d/2", "d/3", "d/4"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
    let pair = Pair::new(&files);
    assert_eq!(pair.sync(&["."]).code, Some(0));
    let before = manifest(pair.home.path());
    let untouched = |got: Got, code, told: &str| {
        assert_eq!((got.code, got.errors.contains(told)), (Some(code), true), "{got:?}");
        assert_eq!(difference(&before, &manifest(pair.home.path())), <[Vec<String>; 3]>::default());
    };
    untouched(pair.sync(&["none"]), 4, "none: no peer has it");
    untouched(pair.sync_from("A23456789012", &["d"]), 3, "no peer with that key answered");
    for wrong in [&["d", "d"][..], &["../d"], &[], &["d", "--max-delete", "half"]] {
        untouched(pair.sync(wrong), 2, "error: ");
    }
    for name in &names[1..] {
        fs::remove_file(pair.data(name)).unwrap();
    }
    pair.lists(&["d/1"]);
    let told = "error: nothing was removed: 3 of 4 names would be removed, more than 50%; see which with --dry-run";
    untouched(pair.sync(&["."]), 1, told);
    untouched(pair.sync(&["d", "--max-delete", "2"]), 1, "more than 2");
    let got = pair.sync(&["d", "--max-delete", "75%"]);
    assert_eq!((got.code, pair.here("d/1").exists(), pair.here("d/2").exists()), (Some(0), true, false), "{got:?}");
    // The directory is gone: it may as well have been misspelt.
    fs::remove_dir_all(pair.data("d")).unwrap();
    pair.lists(&[]);
    assert_eq!((pair.sync(&["d", "--force"]).code, pair.here("d/1").exists()), (Some(4), true));
}

fn by<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file that is being rewritten is not in the list for a moment: that list is not complete.
#[test]
fn a_list_is_complete_only_when_all_that_is_there_is_in_it() {
    let lan = Lan::new().unwrap();
    let server = lan.sharing(&[("a", b"1"), ("b", b"1")]).unwrap();
    let dir = server.config().dir.clone().unwrap();
    let complete = || server.catalogue().notes().complete;
    by("complete at first", || complete().then_some(()));
    for round in 2..5 {
        fs::write(dir.join("a"), round.to_string().repeat(round)).unwrap();
        by("the new content, in a list that is complete", || {
            let catalogue = server.catalogue();
            let len = catalogue.get("a").map(|entry| entry.id.len);
            assert!(len.is_some() || !catalogue.notes().complete, "`a` is there and a complete list lacks it");
            (len == Some(round as u64) && catalogue.notes().complete).then_some(())
        });
    }
    fs::remove_file(dir.join("a")).unwrap();
    by("it is gone", || (server.catalogue().get("a").is_none() && complete()).then_some(()));
    fs::rename(&dir, dir.with_extension("moved")).unwrap();
    by("nothing is there", || {
        let catalogue = server.catalogue();
        assert!(!catalogue.is_empty() || !catalogue.notes().complete, "the directory itself is gone");
        catalogue.is_empty().then_some(())
    });
}

/// Cause: a pattern took what was listed by then for all. Effect: beside a server that still hashed, some of it was fetched
/// without a word.
#[test]
fn a_list_that_lacks_what_is_being_written_is_told() {
    let pair = Pair::new(&[("d/a", b"a"), ("d/log", b"log")]);
    let run = |args: &[&str]| {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), pair.home.path(), args);
        command.args(["--no-multicast", "--bind", "127.0.0.1", "--dir", "into", "--peer", pair.server.addr()]);
        Got::of(&command.output().unwrap()).errors.contains("do not list all yet")
    };
    pair.lists(&["d/a", "d/log"]);
    let told = |args: &[&str], wanted: bool| {
        by(if wanted { "a warning" } else { "none" }, || (run(args) == wanted).then_some(()));
    };
    told(&["list"], false);
    let (done, written) = (AtomicBool::new(false), pair.data("d/log"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It ends by itself, too, as the test may fail meanwhile.
            let begun = Instant::now();
            while !done.load(Relaxed) && begun.elapsed() < 2 * WAIT {
                fs::write(&written, format!("{:?}", begun.elapsed())).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        told(&["list"], true);
        told(&["get", "d"], true);
        assert!(!run(&["get", "d/a"]), "a name that is there lacks nothing");
        done.store(true, Relaxed);
    });
    told(&["get", "**"], false);
}

/// A node that only fetched has no list that is complete.
#[test]
fn nothing_is_removed_by_the_list_of_a_node_that_only_fetched() {
    let lan = Lan::new().unwrap();
    let server = lan.sharing(&[("d/a", b"a"), ("d/b", b"b"), ("d/c", b"c")]).unwrap();
    let (copy, node) = (lan.node().unwrap(), lan.node().unwrap());
    node.fetch("d").unwrap().wait().unwrap();
    copy.fetch("d/a").unwrap().wait().unwrap();
    let sync = |from: KeyPrefix, overwrite| {
        let planned = node.sync("d", from).overwrite(overwrite).look(WAIT).unwrap();
        planned.start().unwrap().wait().unwrap()
    };
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let report = sync(copy.id().into(), overwrite);
        assert_eq!((report.hindrance, report.removed.len()), (Some(SyncHindrance::Incomplete), 0), "{report:?}");
    }
    fs::remove_file(server.config().dir.clone().unwrap().join("d/b")).unwrap();
    let report = by("a list that is complete", || {
        let report = sync(server.id().into(), Overwrite::Refuse);
        (report.hindrance.is_none() && !report.removed.is_empty()).then_some(report)
    });
    assert_eq!((report.removed[0].as_str(), report.removed_bytes, report.kept.len()), ("d/b", 1, 0));
}

/// Cause: links whose target stays, being the user's, failed with a cause of their own. Effect: nothing was removed, and
/// that was not said. Beside that a dry run tells of all that would be made.
#[test]
fn links_to_what_stays_hinder_no_removal_and_a_dry_run_tells_of_all_names() {
    let pair = Pair::new(&[("d/a", b"a"), ("d/gone", b"gone"), ("d/sub/x", b"x")]);
    let links = [("d/link", "a"), ("d/over", "dir/../a"), ("d/dir", "sub"), ("d/to", "dir/x")];
    links.iter().for_each(|(name, text)| symlink(text, pair.data(name)).unwrap());
    fs::create_dir(pair.data("d/empty")).unwrap();
    let listed = |names: &[&str]| {
        by("all is listed", || {
            let mut all = pair.server.listed();
            all.sort();
            (all == names).then_some(())
        });
    };
    listed(&["d/a", "d/dir", "d/empty", "d/gone", "d/link", "d/over", "d/sub/x", "d/to"]);
    let made = |got: &Got| {
        let makes = got.out.lines().filter(|line| line.contains("\"event\":\"make\""));
        makes.map(ToOwned::to_owned).collect::<Vec<String>>()
    };
    let row = |name: &str, state: &str, what: &str| {
        format!(r#"{{"event":"make","path":"d/{name}","out":"into/d/{name}","state":"{state}",{what}}}"#)
    };
    let rows = |state: &str| vec![row("dir", state, r#""link":"sub""#), row("empty", state, r#""directory":true"#)];
    let got = pair.sync(&["d", "--dry-run", "--json"]);
    assert_eq!((got.code, made(&got)), (Some(0), rows("new")), "{got:?}");
    assert!(got.out.contains(r#""make":2,"#) && !pair.here("").exists(), "{got:?}");
    assert_eq!(pair.sync(&["d"]).code, Some(0));
    assert_eq!(made(&pair.sync(&["d", "--dry-run", "--json"])), rows("here"));

    fs::write(pair.here("d/a"), "mine").unwrap();
    fs::write(pair.data("d/a"), "newer").unwrap();
    fs::remove_file(pair.data("d/gone")).unwrap();
    listed(&["d/a", "d/dir", "d/empty", "d/link", "d/over", "d/sub/x", "d/to"]);
    let got = pair.sync(&["d"]);
    assert_eq!((got.code, pair.here("d/gone").exists()), (Some(7), false), "{got:?}");
    assert_eq!(fs::read(pair.here("d/a")).unwrap(), b"mine");
    assert!(
        got.errors.contains("into/d/a is here already, and was not fetched or was changed since (2 names)"),
        "{got:?}"
    );
}

/// Cause: a name that was replaced changed the state of the other names of its file. Effect: one of these that the peer no
/// longer had stayed, as if somebody had changed it meanwhile.
#[test]
fn a_name_goes_although_another_name_of_its_file_was_replaced() {
    let pair = Pair::new(&[("a", b"old"), ("z", b"z")]);
    fs::hard_link(pair.data("a"), pair.data("b")).unwrap();
    pair.lists(&["a", "b", "z"]);
    assert_eq!(pair.sync(&["."]).code, Some(0));
    assert_eq!(fs::metadata(pair.here("a")).unwrap().ino(), fs::metadata(pair.here("b")).unwrap().ino());
    ["a", "b"].iter().for_each(|name| fs::remove_file(pair.data(name)).unwrap());
    fs::write(pair.data("a"), "new").unwrap();
    pair.lists(&["a", "z"]);
    by("both are equal", || {
        let got = pair.sync(&["./", "--max-delete", "100%"]);
        assert_eq!((got.code, pair.here("b").exists()), (Some(0), false), "{got:?}");
        (fs::read(pair.here("a")).unwrap() == b"new").then_some(())
    });
}
