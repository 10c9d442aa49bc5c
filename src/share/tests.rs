//! The whole service over real directories and the real watch. Every wait is for a condition, with
//! a deadline.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ShareSetup, Sharer};
use crate::content::{Bare, Catalogue, Entry, Geometry, merkle};
use crate::runtime::{EventSender, Events, Shutdown, Watch};
use crate::share::limits::QUIET;
use crate::store::{Index, OwnFiles, Reader};
use crate::swarm::Event;

/// Less than the time until a scan finds what no hint reported.
const DEADLINE: Duration = Duration::from_secs(40);

struct Share {
    tmp: Arc<tempfile::TempDir>,
    dir: PathBuf,
    index: Arc<Index>,
    reader: Arc<Reader>,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    events: Events,
    shutdown: Shutdown,
    sharer: Sharer,
}

impl Share {
    fn over(files: &[(&str, &[u8])]) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("shared");
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in files {
            put(&dir, name, bytes);
        }
        Self::start(Arc::new(tmp))
    }

    fn start(tmp: Arc<tempfile::TempDir>) -> Self {
        Self::start_with(tmp, &[])
    }

    /// With these own files, relative to the temporary directory, beside the state directory.
    fn start_with(tmp: Arc<tempfile::TempDir>, own: &[&str]) -> Self {
        let dir = tmp.path().join("shared");
        let own =
            OwnFiles::new(Some(&tmp.path().join("state")), own.iter().map(|o| tmp.path().join(o)), Some(dir.as_path()));
        let index = Arc::new(Index::open(&tmp.path().join("state"), &dir).unwrap());
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let (sender, events) = EventSender::channel();
        let shutdown = Shutdown::new();
        let reader = Arc::new(Reader::open(&dir).unwrap());
        let setup = ShareSetup {
            dir: dir.clone(),
            index: index.clone(),
            records: None,
            reader: reader.clone(),
            own_files: Arc::new(own),
            catalogue: catalogue.clone(),
            events: sender,
            shutdown: shutdown.clone(),
        };
        let sharer = Sharer::start(setup).unwrap();
        let share = Share { tmp, dir, index, reader, catalogue, events, shutdown, sharer };
        share.sharer.wait_ready(DEADLINE).expect("never ready");
        share
    }

    fn restart(self) -> Self {
        let Share { tmp, index, sharer, shutdown, .. } = self;
        shutdown.begin();
        drop(sharer);
        drop(index);
        Self::start(tmp)
    }

    /// Waits until the catalogue is as wanted; how long that took.
    fn until(&self, what: &str, wanted: impl Fn(&Catalogue) -> bool) -> Duration {
        let begun = Instant::now();
        let mut seen = self.catalogue.changes();
        while !wanted(&self.catalogue.get()) {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "never: {what}; offered: {:?}", names(&self.catalogue.get()));
            seen = self.catalogue.wait_beyond(seen, left);
        }
        begun.elapsed()
    }

    fn names(&self) -> Vec<String> {
        names(&self.catalogue.get())
    }

    fn entry(&self, name: &str) -> Entry {
        self.catalogue.get().get(name).unwrap().to_entry()
    }
}

fn names(c: &Catalogue) -> Vec<String> {
    c.iter().map(|e| e.path.to_string()).collect()
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn holds(c: &Catalogue, name: &str, bytes: &[u8]) -> bool {
    c.get(name).is_some_and(|e| e.id.root.0 == merkle::root_of_bytes(bytes) && e.id.len == bytes.len() as u64)
}

fn content(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 249 + i / 9999 + seed) as u8).collect()
}

#[test]
fn all_that_is_there_at_the_start_is_offered_with_its_layers() {
    let big = content(3_000_000, 1);
    let s = Share::over(&[("a", b"one"), ("d/e/f", b"two"), ("empty", b""), ("big", &big)]);
    assert_eq!(s.names(), ["a", "big", "d/e/f", "empty"]);
    let c = s.catalogue.get();
    assert!(holds(&c, "a", b"one") && holds(&c, "empty", b"") && holds(&c, "big", &big));
    assert!(c.revision() > 1_600_000_000_000, "revisions begin at the clock");
    assert_eq!(s.sharer.wait_ready(DEADLINE), Some((4, 3_000_006)));
    let (id, g) = (s.entry("big").id, Geometry::new(3_000_000));
    let layer = s.index.layer(&id, 0, g.chunk_count()).unwrap();
    assert_eq!(merkle::root_of_layer(&layer, g.chunk_height()), id.root.0);
    let complete = s.events.try_iter().any(|e| matches!(e, Event::CatalogueChanged { files: 4, complete: true, .. }));
    assert!(complete);
}

#[test]
fn an_empty_directory_is_ready_too() {
    let s = Share::over(&[]);
    assert_eq!(s.sharer.wait_ready(DEADLINE), Some((0, 0)));
    assert!(s.catalogue.get().revision() > 0);
}

#[test]
fn changes_are_seen() {
    let s = Share::over(&[("a", b"old"), ("d/x", b"x"), ("d/y/z", b"z"), ("stays", b"s")]);
    let revision = s.catalogue.get().revision();

    put(&s.dir, "new/deep/file", b"fresh");
    let took = s.until("new file", |c| holds(c, "new/deep/file", b"fresh"));
    assert!(took < DEADLINE / 2, "{took:?}");
    assert!(s.catalogue.get().revision() > revision);

    put(&s.dir, "a", b"newer");
    s.until("changed file", |c| holds(c, "a", b"newer"));

    fs::rename(s.dir.join("a"), s.dir.join("b")).unwrap();
    s.until("renamed file", |c| c.get("a").is_none() && holds(c, "b", b"newer"));

    fs::remove_file(s.dir.join("b")).unwrap();
    let took = s.until("removed file", |c| c.get("b").is_none());
    assert!(took < DEADLINE / 2, "{took:?}");

    fs::rename(s.dir.join("d"), s.dir.join("e")).unwrap();
    s.until("renamed directory", |c| names(c) == ["e/x", "e/y/z", "new/deep/file", "stays"]);

    let outside = s.tmp.path().join("outside");
    put(&outside, "1", b"1");
    put(&outside, "sub/2", b"2");
    fs::rename(&outside, s.dir.join("inside")).unwrap();
    s.until("directory moved in", |c| holds(c, "inside/1", b"1") && holds(c, "inside/sub/2", b"2"));
    put(&s.dir, "inside/sub/3", b"3");
    s.until("file in it", |c| holds(c, "inside/sub/3", b"3"));

    fs::rename(s.dir.join("inside"), s.tmp.path().join("away")).unwrap();
    fs::remove_dir_all(s.dir.join("new")).unwrap();
    s.until("directories gone", |c| names(c) == ["e/x", "e/y/z", "stays"]);

    fs::remove_dir_all(s.dir.join("e")).unwrap();
    fs::write(s.dir.join("e"), "a file now").unwrap();
    s.until("file where a directory was", |c| names(c) == ["e", "stays"]);
    fs::remove_file(s.dir.join("e")).unwrap();
    put(&s.dir, "e/again", b"x");
    s.until("directory where a file was", |c| names(c) == ["e/again", "stays"]);
}

#[test]
fn a_file_that_is_being_written_is_offered_when_it_is_quiet() {
    let s = Share::over(&[("other", b"o")]);
    let file = fs::File::create(s.dir.join("growing")).unwrap();
    let mut written = 0;
    let begun = Instant::now();
    // Writing at short intervals for several times the quiet time is the condition under test, not
    // a wait for state.
    let mut wrote_at = Instant::now();
    while begun.elapsed() < QUIET * 4 {
        file.write_all_at(&[7; 1000], written).unwrap();
        written += 1000;
        std::thread::sleep(QUIET / 10);
        if wrote_at.elapsed() > QUIET / 2 {
            println!("skipped: this machine is too busy to write often enough");
            break;
        }
        wrote_at = Instant::now();
        assert!(s.catalogue.get().get("growing").is_none(), "offered after {written} bytes");
    }
    drop(file);
    s.until("whole file", |c| holds(c, "growing", &vec![7; written as usize]));
}

#[test]
fn a_restart_hashes_nothing() {
    let big = content(20_000_000, 3);
    let mut files: Vec<(String, Vec<u8>)> = (0..2000).map(|i| (format!("d{}/f{i}", i % 17), content(i, i))).collect();
    files.push(("big".into(), big));
    let refs: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let s = Share::over(&refs);
    let bytes: u64 = files.iter().map(|(_, b)| b.len() as u64).sum();
    assert_eq!(s.sharer.wait_ready(DEADLINE), Some((2001, bytes)));
    assert_eq!(s.sharer.hashed_bytes(), bytes);
    let before = s.catalogue.get();
    fs::write(s.dir.join("d1/f1"), "changed").unwrap();
    s.until("change", |c| holds(c, "d1/f1", b"changed"));
    let s = s.restart();
    assert_eq!(s.sharer.hashed_bytes(), 0);
    let after = s.catalogue.get();
    assert!(after.revision() > before.revision() && after.len() == 2001);
    assert!(files.iter().all(|(n, b)| n == "d1/f1" || holds(&after, n, b)));
    let id = s.entry("big").id;
    assert!(s.index.layer(&id, 0, Geometry::new(id.len).chunk_count()).is_some());
}

#[test]
fn what_cannot_be_shared_is_left_out() {
    let s = Share::over(&[("real", b"r"), (".gpb/part", b"p"), ("sub/.gpb", b"fine")]);
    fs::write(s.tmp.path().join("secret"), "secret").unwrap();
    symlink(s.tmp.path().join("secret"), s.dir.join("out")).unwrap();
    symlink("nowhere", s.dir.join("dangling")).unwrap();
    symlink(s.tmp.path(), s.dir.join("outdir")).unwrap();
    symlink(".", s.dir.join("cycle")).unwrap();
    symlink(".gpb/part", s.dir.join("own")).unwrap();
    symlink("real", s.dir.join("link")).unwrap();
    symlink(s.dir.join("sub/.gpb"), s.dir.join("absolute")).unwrap();
    let fifo = s.dir.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(s.dir.join("socket")).unwrap();
    fs::write(s.dir.join(std::ffi::OsStr::new("bad\u{7}name")), "x").unwrap();
    let expected = ["absolute", "link", "real", "sub/.gpb"];
    s.until("links that stay inside", |c| names(c) == expected);
    put(&s.dir, "real", b"changed");
    s.until("link follows its target", |c| holds(c, "link", b"changed"));
    let s = s.restart();
    assert_eq!(s.names(), expected);
}

#[test]
fn own_files_are_left_out_wherever_they_lie_and_however_they_are_linked() {
    let tmp = Arc::new(tempfile::tempdir().unwrap());
    let (root, dir) = (tmp.path().to_path_buf(), tmp.path().join("shared"));
    for (name, bytes) in [("shared/real", "r"), ("shared/etc/trusted", "t"), ("shared/own/file", "f"), ("key", "k")] {
        put(&root, name, bytes.as_bytes());
    }
    drop(Index::open(&root.join("state"), &dir).unwrap());
    fs::hard_link(root.join("state/index.redb"), dir.join("index")).unwrap();
    fs::hard_link(root.join("key"), dir.join("deep-key")).unwrap();
    fs::hard_link(dir.join("etc/trusted"), dir.join("copy")).unwrap();
    fs::hard_link(dir.join("real"), dir.join("twin")).unwrap();
    symlink("etc/trusted", dir.join("link")).unwrap();
    symlink("own/file", dir.join("link-into")).unwrap();
    symlink("link", dir.join("link-to-link")).unwrap();
    let own = ["key", "shared/etc/trusted", "shared/own", "shared/log"];
    let s = Share::start_with(tmp, &own);
    assert_eq!(s.names(), ["real", "twin"]);

    put(&dir, "own/new", b"below an own directory");
    put(&dir, "log", b"made later");
    fs::hard_link(root.join("key"), dir.join("etc/key")).unwrap();
    symlink("../log", dir.join("etc/log")).unwrap();
    put(&dir, "last", b"x");
    s.until("last file", |c| c.get("last").is_some());
    assert_eq!(s.names(), ["last", "real", "twin"]);
    drop(s.sharer);
    let s = Share::start_with(s.tmp, &own);
    assert_eq!(s.names(), ["last", "real", "twin"]);
}

#[test]
fn own_files_that_are_replaced_are_left_out_before_and_after() {
    let s = Share::over(&[("a", b"1"), ("b", b"2"), ("log", b"l")]);
    let root = s.tmp.path().to_path_buf();
    let dir = s.dir.clone();
    put(&root, "trusted", b"old");
    drop(s.sharer);
    let s = Share::start_with(s.tmp, &["trusted", "shared/log"]);
    assert_eq!(s.names(), ["a", "b"]);

    // The trusted file becomes a link to what is offered: no write to the directory tells.
    fs::hard_link(root.join("trusted"), dir.join("old-trusted")).unwrap();
    fs::hard_link(dir.join("a"), root.join("next")).unwrap();
    fs::rename(root.join("next"), root.join("trusted")).unwrap();
    s.until("offered file that became an own one", |c| names(c) == ["b"]);

    // The log is rotated.
    fs::rename(dir.join("log"), dir.join("log.1")).unwrap();
    put(&dir, "log", b"new");
    put(&dir, "last", b"x");
    s.until("last file", |c| c.get("last").is_some());
    assert_eq!(s.names(), ["b", "last"]);
}

#[test]
fn private_keys_that_only_their_owner_may_read_are_left_out() {
    use std::os::unix::fs::PermissionsExt;
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ==\n-----END PRIVATE KEY-----\n";
    let ssh = [b"-----BEGIN OPENSSH PRIVATE KEY-----\r\n", [7; 500_000].as_slice()].concat();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let s = Share::over(&[("key", KEY), ("open", KEY), ("text", b"-----BEGIN"), ("z", b"")]);
    assert_eq!(s.names(), ["key", "open", "text", "z"]);
    let dir = s.dir.clone();
    put(&dir, "ssh", &ssh);
    for name in ["key", "text", "z", "ssh"] {
        mode(&dir.join(name), 0o600);
    }
    let expected = ["open", "text", "z"];
    s.until("closed key", |c| c.get("key").is_none());
    put(&dir, "zz", b"last");
    s.until("last file", |c| c.get("zz").is_some());
    fs::remove_file(dir.join("zz")).unwrap();
    s.until("what is no closed key", |c| names(c) == expected);
    let s = s.restart();
    assert_eq!(s.names(), expected);
    mode(&dir.join("key"), 0o640);
    s.until("a key that is opened", |c| holds(c, "key", KEY));
    mode(&dir.join("key"), 0o400);
    // The index knows the file in this state as well once it was offered so.
    s.until("a key that is closed", |c| names(c) == expected);
}

#[test]
fn a_withdrawn_file_is_offered_again_only_when_it_is_written_anew() {
    let bytes = content(700_000, 5);
    let s = Share::over(&[("f", &bytes)]);
    let entry = s.entry("f");
    // What no test can do to the disk itself: the index is made to say something else than the
    // bytes.
    let mut lied = entry.clone();
    lied.id.root.0.0[0] ^= 1;
    s.sharer.withdraw(&lied);
    assert!(s.sharer.wait_ready(DEADLINE).is_some() && s.names() == ["f"], "only what is offered is withdrawn");
    s.sharer.withdraw(&entry);
    let deadline = Instant::now() + DEADLINE;
    let event = loop {
        match s.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("no event") {
            Event::FileWithdrawn { path, id } => break (path, id),
            _ => continue,
        }
    };
    assert_eq!(event, (entry.path.clone(), entry.id));
    s.until("withdrawn", Catalogue::is_empty);
    put(&s.dir, "other", b"o");
    s.until("another file", |c| names(c) == ["other"]);
    put(&s.dir, "f", &content(700_000, 6));
    s.until("the new content", |c| holds(c, "f", &content(700_000, 6)));
    assert!(s.index.layer(&s.entry("f").id, 0, 3).is_some());
}

#[test]
fn a_directory_that_vanishes_empties_the_catalogue_and_may_come_back() {
    let s = Share::over(&[("a", b"1"), ("d/b", b"2")]);
    fs::rename(&s.dir, s.tmp.path().join("away")).unwrap();
    s.until("nothing offered", Catalogue::is_empty);
    put(&s.dir, "new", b"3");
    s.until("the new directory", |c| names(c) == ["new"] && holds(c, "new", b"3"));
    put(&s.dir, "newer", b"4");
    s.until("which is watched", |c| holds(c, "newer", b"4"));
    fs::remove_dir_all(&s.dir).unwrap();
    s.until("nothing again", Catalogue::is_empty);
}

#[test]
fn dropping_ends_it_although_the_signal_lives() {
    let s = Share::over(&[("a", b"1")]);
    let Share { sharer, shutdown, .. } = s;
    drop(sharer);
    shutdown.begin();
}

#[test]
fn a_missing_directory_is_an_error() {
    let tmp = tempfile::tempdir().unwrap();
    let setup = ShareSetup {
        dir: tmp.path().join("none"),
        records: None,
        index: Arc::new(Index::open(tmp.path(), tmp.path()).unwrap()),
        reader: Arc::new(Reader::open(tmp.path()).unwrap()),
        own_files: Arc::default(),
        catalogue: Arc::new(Watch::new(Arc::new(Catalogue::default()))),
        events: EventSender::channel().0,
        shutdown: Shutdown::new(),
    };
    assert_eq!(Sharer::start(setup).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_removed_file_is_not_kept_open() {
    let s = Share::over(&[("a", b"12345"), ("b", &[7; 300_000])]);
    let entry = s.entry("b");
    let span = Geometry::new(entry.id.len).span(Geometry::new(entry.id.len).chunk(0).unwrap());
    drop(s.reader.chunk(&entry, span).unwrap().unwrap());
    let held = |name: &str| {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|f| fs::read_link(f.ok()?.path()).ok());
        open.filter(|at| at.to_string_lossy().starts_with(&*s.dir.join(name).to_string_lossy())).count()
    };
    assert_eq!(held("b"), 1, "the reader keeps what it read open");
    fs::remove_file(s.dir.join("b")).unwrap();
    s.until("removed file", |c| c.get("b").is_none());
    let end = Instant::now() + DEADLINE;
    while held("b") > 0 {
        assert!(Instant::now() < end, "still open");
        std::thread::yield_now();
    }
}

/// The bare names, with a mark for empty directories and the target of links.
fn bare(c: &Catalogue) -> Vec<String> {
    let text = |bare: &Bare| match bare {
        Bare::EmptyDir { .. } => "/".to_string(),
        Bare::Link { to, .. } => format!(" -> {}", to.target),
    };
    c.bare().all().iter().map(|(name, bare)| format!("{name}{}", text(bare))).collect()
}

#[test]
fn programs_links_and_empty_directories_are_announced_as_they_are() {
    let s = Share::over(&[("v2/model", b"model"), ("bin/run", b"run"), ("one", b"one"), ("twin", b"one")]);
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(s.dir.join("bin/run"), mode(0o755)).unwrap();
    fs::hard_link(s.dir.join("one"), s.dir.join("other")).unwrap();
    let age = std::time::SystemTime::UNIX_EPOCH - Duration::new(5, 7);
    fs::File::options().write(true).open(s.dir.join("v2/model")).unwrap().set_modified(age).unwrap();
    fs::create_dir_all(s.dir.join("empty/in/it")).unwrap();
    for (target, link) in [
        ("v2", "latest"),
        ("latest/model", "model"),
        ("../v2", "bin/up"),
        ("/etc/passwd", "absolute"),
        ("nowhere", "dangling"),
        (s.dir.to_str().unwrap(), "inside"),
        (s.dir.join("one").to_str().unwrap(), "whole"),
        ("../shared/one", "through"),
        ("bin/up/../one", "behind"),
        ("circle", "circle"),
    ] {
        symlink(target, s.dir.join(link)).unwrap();
    }
    let all = ["bin/up -> ../v2", "empty/in/it/", "latest -> v2", "model -> latest/model"];
    s.until("links and directories", |c| bare(c) == all && c.len() == 9);
    let marks = |name: &str| s.entry(name).marks;
    s.until("attributes", |c| c.get("bin/run").is_some_and(|e| e.marks.executable));
    assert!(!marks("one").executable && !marks("model").executable);
    s.until("hard links", |c| c.get("other").is_some_and(|e| e.marks.link_group != 0));
    s.until("the other name", |c| c.get("one").is_some_and(|e| e.marks.link_group != 0));
    assert_eq!(marks("one").link_group, marks("other").link_group);
    assert_eq!([marks("twin").link_group, marks("whole").link_group, marks("model").link_group], [0; 3]);
    let mtime = |c: &Catalogue, name: &str| c.get(name).map(|e| e.attributes().mtime_ns);
    s.until("the time", |c| mtime(c, "v2/model") == Some(-5_000_000_007) && mtime(c, "model") == mtime(c, "v2/model"));

    let s = s.restart();
    s.until("the same after a restart", |c| bare(c) == all && c.len() == 9);
    assert!(s.entry("bin/run").marks.executable && s.entry("one").marks.link_group != 0);

    put(&s.dir, "empty/in/it/now", b"x");
    s.until("no longer empty", |c| bare(c).len() == 3 && c.len() == 10);
    fs::remove_file(s.dir.join("empty/in/it/now")).unwrap();
    s.until("empty again", |c| bare(c) == all && c.len() == 9);
    fs::remove_dir_all(s.dir.join("empty")).unwrap();
    fs::remove_file(s.dir.join("latest")).unwrap();
    symlink("bin", s.dir.join("latest")).unwrap();
    s.until("what is gone", |c| bare(c) == ["bin/up -> ../v2", "latest -> bin"] && c.len() == 8);
}
