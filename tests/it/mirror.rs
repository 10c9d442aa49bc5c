//! Copies that look after themselves: mirrors, and the end of copies.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gpb::internals::store::Disk;
use gpb::testing::Lan;
use gpb::{FetchError, FileVerdict, Keypair, Life, Node, NodeBuilder, PeerId, Share, Trust};

const WAIT: Duration = Duration::from_secs(60);

/// A node with a directory and a state of its own, which outlive it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Home(tempfile::tempdir().unwrap());
        let disk = Disk::open(home.0.path(), false).unwrap();
        let (free, size) = disk.room().unwrap();
        assert!(free > size / 10, "a mirror leaves a tenth of the disk free, and less is: set TMPDIR to another one");
        fs::create_dir(home.dir()).unwrap();
        home
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("dir")
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Shares its directory.
    fn sharing(&self, lan: &Lan) -> NodeBuilder {
        lan.builder().dir(self.dir()).state(self.0.path().join("state")).share(Share::Directory)
    }

    fn mirroring(&self, lan: &Lan, from: PeerId) -> NodeBuilder {
        self.sharing(lan).mirror("**").mirror_from(from).quota(1 << 30)
    }

    /// Each file with its bytes and times, without what belongs to unfinished downloads.
    fn manifest(&self) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
        let all = walkdir::WalkDir::new(self.dir()).sort_by_file_name().into_iter().flatten();
        let files =
            all.filter(|entry| entry.file_type().is_file() && !entry.path().starts_with(self.dir().join(".gpb")));
        files
            .map(|entry| {
                let name = entry.path().strip_prefix(self.dir()).unwrap().display().to_string();
                (name, fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap())
            })
            .collect()
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WAIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn offers(node: &Node, name: &str, bytes: &[u8]) -> bool {
    node.catalogue().get(name).is_some_and(|entry| {
        let there = fs::read(node.config().dir.clone().unwrap().join(name));
        entry.id.len == bytes.len() as u64 && there.is_ok_and(|there| there == bytes)
    })
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 253) as u8 ^ i as u8 ^ seed).collect()
}

#[test]
fn a_new_file_is_on_all_servers_and_outlives_its_own() {
    let lan = Lan::new().unwrap();
    let homes = [Home::new(), Home::new(), Home::new()];
    homes[0].put("a", &content(3_000_000, 1));
    homes[0].put("d/b", b"b");
    let first = lan.start(homes[0].sharing(&lan)).unwrap();
    let mirrors: Vec<Node> =
        homes[1..].iter().map(|home| lan.start(home.mirroring(&lan, first.id())).unwrap()).collect();
    for mirror in &mirrors {
        until("what is there is mirrored", || {
            offers(mirror, "a", &content(3_000_000, 1)) && offers(mirror, "d/b", b"b")
        });
        assert!(mirror.catalogue().iter().all(|entry| entry.marks.copy), "offered as copies");
    }
    // A new file, then a new version of it.
    for version in [content(500_000, 2), content(600_000, 3)] {
        homes[0].put("new", &version);
        let took = until("the new file is everywhere", || mirrors.iter().all(|mirror| offers(mirror, "new", &version)));
        println!("a new file was on all three servers after {took:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
    let has_all = |mirror: &Node| mirror.stats().mirror.missing == 0 && mirror.stats().mirror.copies == 3;
    until("nothing is left to do", || mirrors.iter().all(has_all));
    let stats = mirrors[0].stats().mirror;
    assert_eq!((stats.copies, stats.differ, stats.users), (3, 0, 0));
    until("the old version is forgotten", || mirrors.iter().all(|m| m.stats().mirror.bytes == 3_600_001));
    drop(first);
    let client = lan.node().unwrap();
    let knows = |mirror: &Node| client.known_peers().iter().any(|known| known.node.peer == mirror.id());
    until("both are known", || mirrors.iter().all(knows));
    let report = client.fetch("**").unwrap().wait().unwrap();
    assert_eq!((report.files, report.failed.len()), (3, 0));
    let holders = client.find("new", WAIT).unwrap();
    assert_eq!((holders[0].holders.len(), holders[0].shared), (2, false));
}

/// A mirror that was away offers what the sharer had before.
#[test]
fn a_copy_that_lags_behind_never_clashes_with_its_sharer() {
    let lan = Lan::new().unwrap();
    let (sharer, mirror) = (Home::new(), Home::new());
    sharer.put("x", b"old");
    let first = lan.start(sharer.sharing(&lan)).unwrap();
    let copying = lan.start(mirror.mirroring(&lan, first.id())).unwrap();
    until("it is mirrored", || offers(&copying, "x", b"old"));
    drop(copying);
    sharer.put("x", b"newer");
    until("the sharer offers it", || offers(&first, "x", b"newer"));
    // It starts again, and mirrors nothing any more.
    let lagging = lan.start(mirror.sharing(&lan)).unwrap();
    until("its copy is offered", || offers(&lagging, "x", b"old"));
    assert!(lagging.catalogue().get("x").unwrap().marks.copy, "still known as a copy");
    let client = lan.node().unwrap();
    until("both are found", || client.list("x").is_ok_and(|found| found.len() == 2));
    // Once one has answered, the other one has little time to, which a loaded machine may need.
    let fetched = || {
        client.fetch("x").unwrap().wait().unwrap();
        fs::read(client.config().dir.clone().unwrap().join("x")).unwrap()
    };
    until("both answer in time", || fetched() == b"newer");
    // Edited at the mirror, it is the user's: then both clash.
    mirror.put("x", b"edited here");
    until("it is hashed", || offers(&lagging, "x", b"edited here"));
    assert!(!lagging.catalogue().get("x").unwrap().marks.copy);
    until("both are found", || {
        let found = client.list("x").unwrap_or_default();
        found.len() == 2 && found.iter().all(|file| file.shared)
    });
    let other = lagging.config().dir.clone().unwrap().join("../other");
    until("both answer in time", || {
        let _ = fs::remove_dir_all(&other);
        let result = client.get("x").into_dir(&other).start().unwrap().wait();
        result.is_err_and(|failed| matches!(*failed.error, FetchError::Ambiguous { .. }))
    });
}

#[test]
fn files_of_the_user_stay_and_sharers_that_differ_change_nothing() {
    let lan = Lan::new().unwrap();
    let [one, two, mirror] = [Home::new(), Home::new(), Home::new()];
    one.put("both", b"one");
    one.put("mine", b"theirs");
    one.put("edited", b"mirrored");
    one.put("gone", b"gone");
    mirror.put("mine", b"mine");
    let first = lan.start(one.sharing(&lan)).unwrap();
    let copying = lan.start(mirror.mirroring(&lan, first.id()).mirror_from(PeerId([7; 32]))).unwrap();
    until("it is mirrored", || ["both", "edited", "gone"].iter().all(|name| copying.catalogue().get(name).is_some()));
    let second = lan.start(two.sharing(&lan)).unwrap();
    drop(copying);
    let copying = lan.start(mirror.mirroring(&lan, first.id()).mirror_from(second.id())).unwrap();
    two.put("both", b"two");
    mirror.put("edited", b"edited by the user");
    until("sharers differ", || copying.stats().mirror.differ == 1);
    until("the edit is seen", || offers(&copying, "edited", b"edited by the user"));
    one.put("edited", b"a newer version");
    fs::remove_file(one.dir().join("gone")).unwrap();
    until("both are the user's", || copying.stats().mirror.users == 2);
    one.put("last", b"last");
    until("it goes on", || offers(&copying, "last", b"last"));
    let names: Vec<_> = mirror.manifest().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    let expected = [
        ("both", &b"one"[..]),
        ("edited", b"edited by the user"),
        ("gone", b"gone"),
        ("last", b"last"),
        ("mine", b"mine"),
    ];
    assert_eq!(names, expected.map(|(name, bytes)| (name.to_string(), bytes.to_vec())));
    // They agree again.
    two.put("both", b"the same");
    one.put("both", b"the same");
    until("both are one", || offers(&copying, "both", b"the same"));
}

#[test]
fn the_quota_takes_copies_and_nothing_else() {
    let lan = Lan::new().unwrap();
    let [sharer, mirror] = [Home::new(), Home::new()];
    for n in 0..6 {
        sharer.put(&format!("f{n}"), &content(100_000, n));
    }
    mirror.put("users", &content(900_000, 9));
    let before = mirror.manifest();
    let first = lan.start(sharer.sharing(&lan)).unwrap();
    let quota = |bytes: u64| mirror.mirroring(&lan, first.id()).quota(bytes);
    let copying = lan.start(quota(350_000)).unwrap();
    until("three fit", || copying.stats().mirror.copies == 3 && copying.stats().mirror.fetching == 0);
    let stats = copying.stats().mirror;
    assert_eq!((stats.bytes, stats.expired), (300_000, 0), "{stats:?}");
    // What was fetched a moment ago does not make room for a new one; the user's file is not counted.
    sharer.put("new", &content(100_000, 7));
    until("it is seen", || copying.stats().mirror.missing == 4);
    assert_eq!((copying.stats().mirror.copies, copying.stats().mirror.expired), (3, 0));
    drop(copying);
    assert_eq!(mirror.manifest().iter().filter(|file| file.0 == "users").collect::<Vec<_>>(), [&before[0]]);
}

/// Cause: only a look for what expires found that a copy was gone. Effect: a mirror without `--retain` and `--quota`
/// fetched a deleted copy again after its next start alone. Mend: what leaves the catalogue is looked at.
#[test]
fn a_deleted_copy_comes_back() {
    let lan = Lan::new().unwrap();
    let [sharer, mirror] = [Home::new(), Home::new()];
    let keys = [Keypair::generate(), Keypair::generate()];
    let trust = || Trust::keys(keys.iter().map(Keypair::peer_id)).unwrap();
    sharer.put("a", b"a");
    sharer.put("d/b", &content(600_000, 3));
    fs::create_dir_all(sharer.dir().join("e/f")).unwrap();
    ["a", "d"].iter().for_each(|to| std::os::unix::fs::symlink(to, sharer.dir().join(format!("to-{to}"))).unwrap());
    mirror.put("mine", b"mine");
    let _first = lan.start(sharer.sharing(&lan).key(keys[0].clone()).trust(trust())).unwrap();
    let copying = lan.start(mirror.sharing(&lan).key(keys[1].clone()).trust(trust()).mirror("**")).unwrap();
    let has_all = || offers(&copying, "a", b"a") && offers(&copying, "d/b", &content(600_000, 3));
    let is_there = |name: &str| mirror.dir().join(name).symlink_metadata().is_ok();
    let is_offered = |name: &&str| copying.catalogue().bare().get(name).is_some();
    let is_whole = || has_all() && ["e/f", "to-a", "to-d"].iter().all(|name| is_there(name) && is_offered(name));
    until("it is mirrored", is_whole);
    until("nothing is left to do", || copying.stats().mirror.missing == 0 && copying.stats().mirror.copies == 2);
    until("the user's file is offered", || offers(&copying, "mine", b"mine"));
    ["a", "mine", "to-a", "to-d"].iter().for_each(|name| fs::remove_file(mirror.dir().join(name)).unwrap());
    ["d", "e"].iter().for_each(|name| fs::remove_dir_all(mirror.dir().join(name)).unwrap());
    until("what was removed is here again, and offered", is_whole);
    assert!(!is_there("mine"));
}

#[test]
fn what_a_fetch_brings_for_a_while_is_kept_once_a_fetch_is_to_keep_it() {
    let lan = Lan::new().unwrap();
    let (sharer, home) = (Home::new(), Home::new());
    sharer.put("a", b"a");
    sharer.put("b", b"b");
    let first = lan.start(sharer.sharing(&lan)).unwrap();
    until("all is offered", || first.catalogue().len() == 2);
    let fetch = |name: &str, life: Life| {
        let client = lan.start(lan.builder().dir(home.dir()).state(home.0.path().join("state"))).unwrap();
        client.get(name).life(life).start().unwrap().wait().unwrap();
    };
    let copies = || {
        let keeper = lan.start(home.sharing(&lan).quota(1 << 30)).unwrap();
        until("it is ready", || keeper.wait_ready(WAIT).is_some());
        until("it has counted", || keeper.stats().mirror.copies > 0);
        keeper.stats().mirror
    };
    fetch("a", Life::Temporary);
    fetch("b", Life::Temporary);
    assert_eq!((copies().copies, copies().bytes), (2, 2));
    fetch("a", Life::Temporary);
    fetch("b", Life::Kept);
    fetch("b", Life::Temporary);
    assert_eq!((copies().copies, copies().bytes), (1, 1));
    assert!(home.manifest().len() == 2);
}

/// Cause: a server offers what lies in its directory, whatever that is. Effect: `verify` beside it took a file that somebody
/// had changed for what the group has. Mend: what other keys offer counts.
#[test]
fn a_server_is_no_witness_of_its_own_files() {
    let lan = Lan::new().unwrap();
    let [sharer, mirror] = [Home::new(), Home::new()];
    sharer.put("a", b"theirs");
    let first = lan.start(sharer.sharing(&lan)).unwrap();
    let key = Keypair::generate();
    let copying = lan.start(mirror.mirroring(&lan, first.id()).key(key.clone())).unwrap();
    until("it is mirrored", || offers(&copying, "a", b"theirs"));
    mirror.put("a", b"edited");
    until("the edit is offered", || offers(&copying, "a", b"edited"));
    let home = lan.builder().dir(mirror.dir()).state(mirror.0.path().join("state")).key(key);
    let client = lan.start(home).unwrap();
    until("both are found", || client.list("a").is_ok_and(|found| found.len() == 2));
    let verified = client.verify::<&str>(&[]).look(WAIT).unwrap();
    let file = &verified.files()[0];
    assert_eq!((file.verdict, file.in_index, file.in_group), (FileVerdict::Edited, Some(false), Some(false)));
}

/// A fresh machine has no directory yet.
#[test]
fn a_start_makes_the_directory_that_it_shares_if_it_may() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data/set");
    let start = |create| {
        let builder = Node::builder().dir(&dir).create_dir(create).state(home.path().join("state")).bind("127.0.0.1");
        builder.multicast(false).share(Share::Directory).start()
    };
    assert!(start(false).is_err() && !dir.exists());
    let node = start(true).unwrap();
    assert!(dir.is_dir() && node.wait_ready(WAIT) == Some((0, 0)));
}

#[test]
fn the_server_says_what_a_mirror_in_an_open_group_needs() {
    let home = tempfile::tempdir().unwrap();
    let server = assert_cmd::cargo::cargo_bin!("gpb-server");
    for args in [&["--mirror", "**"][..], &["--mirror", "**", "--quota", "1GB"]] {
        let output = crate::programs::program(server, home.path(), args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("needs --from PEER and --quota SIZE"), "{said}");
    }
}

#[test]
fn what_cannot_be_a_mirror_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let start = |builder: NodeBuilder| builder.multicast(false).dir(tmp.path()).state(tmp.path().join("s")).start();
    let builder = || Node::builder().bind("127.0.0.1");
    let errors = [
        start(builder().mirror("**").share(Share::Directory)),
        start(builder().mirror("**").share(Share::Directory).quota(5)),
        start(builder().mirror("**").mirror_from(PeerId([1; 32])).quota(5)),
        start(builder().mirror("").share(Share::Directory)),
        start(builder().retain(Duration::from_secs(5))),
    ]
    .map(|started| started.unwrap_err().to_string());
    let parts = ["open group", "open group", "shared directory", "cannot be mirrored", "shared directory"];
    for (error, part) in errors.iter().zip(parts) {
        assert!(error.contains(part) && !error.contains("--"), "{error}");
    }
}
