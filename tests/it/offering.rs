//! What a program offers besides a directory: bytes, files elsewhere, readers; and several directories.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gpb::error::{ConfigError, FetchError, OfferError, PublishError, SourceError};
use gpb::testing::Lan;
use gpb::{Event, Everything, FileId, Node, NodeBuilder, ReadAt, Share, Source, StartError, State};

const WAIT: Duration = Duration::from_secs(60);

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A node that has no directory, and leaves nothing behind.
fn guest(lan: &Lan) -> Node {
    lan.start(Node::builder().state(State::Memory).bind("127.0.0.1")).unwrap()
}

fn fetched(node: &Node, id: FileId) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("x");
    node.fetch_to(id, &place).unwrap().wait().unwrap();
    fs::read(place).unwrap()
}

fn names(node: &Node) -> Vec<String> {
    node.catalogue().iter().map(|entry| entry.path.to_string()).collect()
}

/// Gives bytes that begin with one that may change; 9 is an error, 8 a panic.
struct Fickle(Vec<u8>, Arc<AtomicU8>, AtomicUsize);

impl ReadAt for Fickle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.2.fetch_add(1, Ordering::Relaxed);
        let n = into.len().min(self.0.len() - offset as usize);
        into[..n].copy_from_slice(&self.0[offset as usize..][..n]);
        match self.1.load(Ordering::SeqCst) {
            9 => return Err(io::Error::other("the archive is closed")),
            8 => panic!("the reader panics for the test"),
            first if offset == 0 => into[0] = first,
            _ => {}
        }
        Ok(n)
    }
}

#[test]
fn bytes_files_and_readers_are_fetched_like_files() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let (node, other) = (guest(&lan), guest(&lan));
    let bytes = noise(3_000_000);
    fs::write(home.path().join("x"), &bytes[1..]).unwrap();
    let first = Arc::new(AtomicU8::new(bytes[2]));
    let reader = Fickle(bytes[2..].to_vec(), first, AtomicUsize::new(0));
    let offers = [
        node.offer("a/bytes.bin", bytes.clone()).unwrap(),
        node.offer("a/file.bin", home.path().join("x")).unwrap(),
        node.offer("a/open.bin", fs::File::open(home.path().join("x")).unwrap()).unwrap(),
        node.offer("reader.bin", Source::reader(reader)).unwrap(),
        node.offer("a/empty", Vec::new()).unwrap(),
        node.offer("small", b"hello").unwrap(),
    ];
    assert!(offers[5].id().is_some(), "what is small is offered at once");
    let ids: Vec<FileId> = offers.iter().map(|offered| offered.wait().unwrap()).collect();
    assert!(ids.iter().all(|id| node.is_here(id)) && ids[1] == ids[2]);
    let listed = other.list_within(Everything, WAIT).unwrap();
    let shown: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(shown, ["a/bytes.bin", "a/empty", "a/file.bin", "a/open.bin", "reader.bin", "small"]);
    assert!(listed.iter().all(|file| file.shared), "it is shared, not a copy");
    assert!(fetched(&other, ids[0]) == bytes && fetched(&other, ids[1]) == bytes[1..]);
    assert!(fetched(&other, ids[3]) == bytes[2..] && fetched(&other, ids[4]).is_empty());
    assert_eq!(fetched(&other, ids[5]), b"hello");
    let all = other.get(&listed).into_dir(home.path().join("all")).start().unwrap().wait().unwrap();
    assert_eq!((all.files, fs::read(home.path().join("all/a/open.bin")).unwrap() == bytes[1..]), (6, true));
    // Each goes with its handle; of two names of one content the other stays.
    let mut offers = Vec::from(offers);
    offers.truncate(1);
    assert_eq!(names(&node), ["a/bytes.bin"]);
    assert!(other.list_within("small", WAIT).unwrap().is_empty());
    assert!(node.stats().share.files == 1 && !node.is_here(&ids[1]));
}

#[test]
fn a_source_that_changes_or_fails_is_withdrawn_and_never_mixed() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(1_500_000);
    for change in [2, 9, 8, 0] {
        let node = guest(&lan);
        let other = lan.start(lan.builder().timeout(Duration::from_secs(3))).unwrap();
        let (first, place) = (Arc::new(AtomicU8::new(1)), home.path().join("x"));
        let source = match change {
            0 => {
                fs::write(&place, &bytes).unwrap();
                Source::from(place.as_path())
            }
            _ => Source::reader(Fickle(bytes.clone(), first.clone(), AtomicUsize::new(0))),
        };
        let events = node.events();
        let offered = node.offer("x.bin", source).unwrap();
        let id = offered.wait().unwrap();
        until("the peer", || other.known_peers().iter().any(|known| known.node.peer == node.id()));
        match change {
            0 => fs::write(&place, noise(1_500_001)).unwrap(),
            _ => first.store(change, Ordering::SeqCst),
        }
        let failed = other.fetch(id).unwrap().wait().unwrap_err();
        assert!(
            matches!(&*failed.error, FetchError::Changed { .. } | FetchError::NotFound { .. }),
            "{change}: {failed}"
        );
        until("the end of the offer", || names(&node).is_empty());
        let error = offered.wait().unwrap_err();
        match (change, &error) {
            (9, OfferError::Source { source, .. }) => assert!(source.to_string().contains("archive")),
            (8, OfferError::Source { source, .. }) => assert!(source.to_string().contains("panicked")),
            (0 | 2, OfferError::Changed(name)) => assert_eq!(name.as_str(), "x.bin"),
            _ => panic!("{change}: {error}"),
        }
        assert!(!node.is_here(&id) && offered.id().is_none());
        let withdrawn = |event: Event| matches!(event, Event::FileWithdrawn { path, .. } if path.as_str() == "x.bin");
        assert!(std::iter::from_fn(|| events.recv_timeout(WAIT).ok()).any(withdrawn), "{change}");
        assert!(other.stats().traffic.chunks_wrong == 0, "the peer is no liar");
        drop(offered);
        assert!(node.offer("x.bin", b"again").unwrap().wait().is_ok());
    }
}

#[test]
fn names_that_clash_are_clear_errors() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let node = lan.sharing(&[("d/a", b"a"), ("b", b"b")]).unwrap();
    let dir = node.config().dir.clone().unwrap();
    assert!(matches!(node.offer("b", b"x"), Err(OfferError::Taken(_))));
    assert!(matches!(node.offer("d", b"x"), Err(OfferError::Directory(_))));
    assert!(matches!(node.offer("b/c", b"x"), Err(OfferError::Directory(_))));
    assert!(matches!(node.offer("../x", b"x"), Err(OfferError::Name { .. })));
    let offered = node.offer("d/x", b"x").unwrap();
    let id = offered.wait().unwrap();
    assert!(matches!(node.offer("d/x", b"y"), Err(OfferError::Offered(_))));
    assert_eq!(names(&node), ["b", "d/a", "d/x"]);
    // A file that comes to lie there waits until the offer is gone, and other files come meanwhile.
    fs::write(dir.join("d/x"), "from the disk").unwrap();
    fs::write(dir.join("c"), "c").unwrap();
    until("the other file", || names(&node) == ["b", "c", "d/a", "d/x"]);
    assert_eq!(node.catalogue().get("d/x").unwrap().id, id);
    let revision = node.catalogue().revision();
    drop(offered);
    until("the file", || node.catalogue().get("d/x").is_some_and(|entry| entry.id != id));
    assert!(node.catalogue().revision() > revision);
    // What cannot be read at all.
    let error = node.offer("none", home.path().join("none")).unwrap().wait().unwrap_err();
    assert!(matches!(&error, OfferError::Source { source, .. } if matches!(**source, SourceError::Io(_))), "{error}");
    let error = node.offer("dir", home.path()).unwrap().wait().unwrap_err();
    assert!(matches!(&error, OfferError::Source { source, .. } if matches!(**source, SourceError::NotRegular)));
    let nothing = lan.start(lan.builder().share(Share::Nothing)).unwrap();
    assert!(matches!(nothing.offer("x", b"x"), Err(OfferError::NotSharing)));
}

#[test]
fn the_key_of_the_node_is_not_offered_either() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let key = home.path().join("key.pem");
    let builder = Node::builder().state(State::Memory).bind("127.0.0.1").key_file(&key);
    let node = lan.start(builder).unwrap();
    std::os::unix::fs::symlink(&key, home.path().join("link")).unwrap();
    for place in [key.clone(), home.path().join("link")] {
        let error = node.offer("x", place).unwrap().wait().unwrap_err();
        assert!(matches!(error, OfferError::OwnFile(_)), "{error}");
    }
    let opened = node.offer("x", fs::File::open(&key).unwrap()).unwrap().wait().unwrap_err();
    assert!(matches!(opened, OfferError::OwnFile(_)), "{opened}");
}

#[test]
fn hashing_ends_with_its_handle_and_with_the_node() {
    /// Never comes to an end.
    struct Endless;
    impl ReadAt for Endless {
        fn size(&self) -> io::Result<u64> {
            Ok(1 << 44)
        }

        fn read_at(&self, into: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(into.len().min(1000))
        }
    }
    let lan = Lan::new().unwrap();
    let node = guest(&lan);
    let offered = node.offer("x", Source::reader(Endless)).unwrap();
    assert!(offered.wait_for(Duration::from_millis(20)).is_none() && offered.id().is_none());
    drop(offered);
    let again = node.offer("x", Source::reader(Endless)).unwrap();
    let stopper = node.stopper();
    let waiting = std::thread::spawn(move || again.wait());
    stopper.stop();
    assert!(matches!(waiting.join().unwrap(), Err(OfferError::Stopped)));
    let kept = node.offer("y", b"y");
    assert!(matches!(kept, Err(OfferError::Stopped)));
    drop(node);
}

/// A handle may outlive its node.
#[test]
fn a_node_ends_its_offers() {
    let lan = Lan::new().unwrap();
    let (node, other) = (guest(&lan), guest(&lan));
    let offered = node.offer("x", b"x").unwrap();
    let id = offered.wait().unwrap();
    until("the peer", || other.known_peers().len() == 1);
    drop(node);
    assert_eq!(offered.id(), Some(id));
    until("its leave", || other.known_peers().is_empty());
    drop(offered);
}

fn two_dirs(lan: &Lan, home: &tempfile::TempDir) -> NodeBuilder {
    for (path, text) in [("base/a", "a"), ("base/m/hidden", "h"), ("models/b.bin", "b"), ("notes/d/c", "c")] {
        let place = home.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }
    let builder = lan.builder().dir(home.path().join("base")).share(Share::Directory);
    builder.dir_as("m", home.path().join("models")).dir_as("notes", home.path().join("notes"))
}

#[test]
fn several_directories_share_one_node() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let node = lan.start(two_dirs(&lan, &home)).unwrap();
    let other = lan.node().unwrap();
    assert_eq!(node.wait_ready(WAIT).map(|ready| ready.0), Some(4));
    assert_eq!(names(&node), ["a", "m/b.bin", "notes/d/c"], "what lies below the name of another is hidden");
    let here = other.config().dir.clone().unwrap();
    assert_eq!(other.fetch(Everything).unwrap().wait().unwrap().files, 3);
    assert_eq!(fs::read(here.join("m/b.bin")).unwrap(), b"b");
    // Each is watched.
    fs::write(home.path().join("notes/new"), "new").unwrap();
    fs::remove_file(home.path().join("models/b.bin")).unwrap();
    until("the changes", || names(&node) == ["a", "notes/d/c", "notes/new"]);
    // A program names files as other nodes do.
    fs::write(home.path().join("models/p"), "p").unwrap();
    let id = node.publish("m/p").unwrap();
    assert_eq!(other.fetch(id).unwrap().wait().unwrap().fetched[0].path.as_str(), "m/p");
    assert!(matches!(node.publish("m/none"), Err(PublishError::NotFound(name)) if name.as_str() == "m/none"));
    assert_eq!((node.forget("m/p"), node.forget("m/p")), (Ok(true), Ok(false)));
    assert!(matches!(node.offer("m", b"x"), Err(OfferError::Directory(_))));
    let offered = node.offer("m/offered", b"x").unwrap();
    assert!(offered.wait().is_ok() && names(&node).contains(&"m/offered".to_string()));
    // A request finds what no hint reported, in the directory of its name.
    let entry = node.catalogue().get("notes/d/c").unwrap().to_entry();
    fs::write(home.path().join("notes/d/c"), "C").unwrap();
    let withdrawn = other.get(entry.id).into_dir(home.path().join("out")).start().unwrap().wait();
    drop(withdrawn);
    until("the new bytes", || node.catalogue().get("notes/d/c").is_some_and(|now| now.id != entry.id));
}

/// The directories have one index, which a second start finds.
#[test]
fn nothing_is_hashed_twice_in_any_directory_and_no_own_file_is_offered() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    drop(two_dirs(&lan, &home));
    fs::write(home.path().join("models/mine"), "mine").unwrap();
    fs::write(home.path().join("models/big.bin"), vec![3; 600_000]).unwrap();
    for hashed in [true, false] {
        let builder = lan.builder().dir_as("m", home.path().join("models")).dir_as("n", home.path().join("notes"));
        let builder = builder.state(home.path().join("notes/state")).never_share(home.path().join("models/mine"));
        let node = lan.start(builder.dir(home.path().join("base")).share(Share::Directory)).unwrap();
        assert!(node.wait_ready(WAIT).is_some());
        assert_eq!(names(&node), ["a", "m/b.bin", "m/big.bin", "n/d/c"]);
        assert_eq!(node.stats().share.hashed_bytes > 0, hashed);
    }
}

#[test]
fn fetched_and_offered_files_are_listed_together() {
    let lan = Lan::new().unwrap();
    let source = lan.sharing(&[("d/x", b"fetched")]).unwrap();
    let (node, other) = (lan.node().unwrap(), guest(&lan));
    node.fetch("d/x").unwrap().wait().unwrap();
    drop(source);
    let offered = node.offer("d/y", b"offered").unwrap();
    offered.wait().unwrap();
    let known = || other.known_peers().into_iter().find(|known| known.node.peer == node.id());
    until("the peer", || known().is_some());
    let listed = other.peer_files(known().unwrap().node, WAIT).unwrap();
    let shown: Vec<_> = listed.iter().map(|file| (file.path.as_str(), file.shared)).collect();
    assert_eq!(shown, [("d/x", false), ("d/y", true)], "what was fetched is a copy, what is offered is not");
    drop(offered);
    assert_eq!(names(&node), ["d/x"]);
}

#[test]
fn fetched_files_go_where_their_names_begin() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let _source = lan.sharing(&[("m/x.bin", &noise(600_000)), ("y", b"y"), ("notes/z", b"z")]).unwrap();
    let node = lan.start(two_dirs(&lan, &home)).unwrap();
    let fetch = node.fetch("m/x.bin").unwrap();
    let report = fetch.wait().unwrap();
    assert_eq!((report.dir.as_path(), fetch.dir()), (&*home.path().join("models"), &*home.path().join("models")));
    assert_eq!((report.fetched[0].path.as_str(), report.fetched[0].out.as_str()), ("m/x.bin", "x.bin"));
    assert!(fs::read(home.path().join("models/x.bin")).unwrap() == noise(600_000));
    assert!(!home.path().join("models/.gpb").exists() && !home.path().join("base/.gpb").exists());
    node.fetch("y").unwrap().wait().unwrap();
    assert_eq!(fs::read(home.path().join("base/y")).unwrap(), b"y");
    until("both", || ["m/x.bin", "y"].iter().all(|name| node.catalogue().get(name).is_some()));
    let failed = node.fetch(["m/x.bin", "notes/z"]).unwrap().wait().unwrap_err();
    assert!(matches!(&*failed.error, FetchError::SeveralDirs { dirs, .. } if dirs.len() == 2), "{failed}");
    assert_eq!(node.forget("m/x.bin"), Ok(true));
    let alone = Node::builder().state(State::Memory).bind("127.0.0.1").dir_as("m", home.path().join("models"));
    let alone = lan.start(alone).unwrap();
    let failed = alone.fetch("y").unwrap().wait().unwrap_err();
    assert!(matches!(&*failed.error, FetchError::NoDirectory), "{failed}");
    // A name that belongs nowhere here fails alone, whoever shares it.
    let failed = alone.fetch(["m/x.bin", "y"]).unwrap().wait().unwrap_err();
    assert_eq!((failed.report.files, failed.report.failed[0].path.as_str()), (1, "y"), "{failed}");
}

#[test]
fn names_of_directories_are_checked() {
    let start = |dirs: &[&str]| {
        let builder = Node::builder().state(State::Memory).multicast(false).bind("127.0.0.1");
        dirs.iter().fold(builder, |builder, name| builder.dir_as(*name, "/tmp")).start().map(drop)
    };
    for name in ["", "a/b", "..", "."] {
        let error = start(&[name]).unwrap_err();
        assert!(matches!(&error, StartError::Config(ConfigError::DirName(text)) if text == name), "{error}");
    }
    assert!(matches!(start(&["a", "a"]), Err(StartError::Config(ConfigError::SameDir(_)))));
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(start(&many), Err(StartError::Config(ConfigError::TooManyDirs(65)))));
    assert!(start(&["a", "b"]).is_ok());
}
