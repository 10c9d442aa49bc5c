//! A file is read while it is fetched.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gpb::error::{Failed, FetchError};
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{Node, NodeBuilder, OpenFile, Share, State};

const WAIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
const CHUNK: usize = 256 << 10;

fn file(path: &str, len: usize, seed: u64) -> TestFile {
    TestFile::random(path, len, seed).unwrap()
}

/// A peer with `f`, which waits so long before each chunk.
fn peer(lan: &Lan, f: &TestFile, delay_ms: u64) -> FaultyPeer {
    faulty(lan, f, &[Fault::Delay(Duration::from_millis(delay_ms))])
}

fn faulty(lan: &Lan, f: &TestFile, faults: &[Fault]) -> FaultyPeer {
    let peer = FaultyPeer::start(std::slice::from_ref(f), faults).unwrap();
    lan.join(&peer);
    peer
}

fn dir(node: &Node) -> PathBuf {
    node.config().dir.clone().unwrap()
}

/// What lies in the own directory of a node.
fn own(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join(".gpb")).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A node without a directory, which leaves nothing behind.
fn guest(lan: &Lan) -> NodeBuilder {
    let _ = lan;
    Node::builder().state(State::Memory).bind(std::net::Ipv4Addr::LOCALHOST)
}

fn failed(error: &io::Error) -> &Failed {
    error.get_ref().and_then(|e| e.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

fn read_at(file: &mut OpenFile, at: usize, len: usize) -> Vec<u8> {
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_file_is_read_in_order_whatever_its_length() {
    let lan = Lan::new().unwrap();
    let lens = [0, 1, CHUNK, CHUNK + 1, 9 * MIB + 7];
    let files: Vec<TestFile> = (1..).zip(lens).map(|(n, len)| file(&format!("d/{n}"), len, n)).collect();
    let peer = FaultyPeer::start(&files, &[]).unwrap();
    lan.join(&peer);
    let nodes = [lan.node().unwrap(), lan.start(guest(&lan)).unwrap()];
    for node in &nodes {
        for f in &files {
            let mut opened = node.open(&f.path).unwrap();
            assert_eq!((opened.len(), opened.found().id), (f.bytes.len() as u64, f.id));
            let mut read = Vec::new();
            opened.read_to_end(&mut read).unwrap();
            assert!(read == *f.bytes, "{} of {node:?}", f.path);
            assert_eq!(opened.read(&mut [0; 9]).unwrap(), 0, "the end");
            assert!(!node.config().dir.as_ref().is_some_and(|dir| dir.join(f.path.as_str()).exists()), "no file");
        }
    }
}

#[test]
fn a_seek_fetches_what_is_read_there_and_not_the_rest() {
    let lan = Lan::new().unwrap();
    let f = file("x", 64 * MIB, 1);
    let peer = peer(&lan, &f, 1);
    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    for at in [40 * MIB + 5, 100, 60 * MIB] {
        assert_eq!(read_at(&mut opened, at, 5000), f.bytes[at..at + 5000]);
    }
    assert_eq!(opened.seek(SeekFrom::Current(-5000)).unwrap(), 60 * MIB as u64);
    assert_eq!(opened.seek(SeekFrom::End(-10)).unwrap(), 64 * MIB as u64 - 10);
    assert_eq!(opened.seek(SeekFrom::Current(-i64::MAX)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let mut end = Vec::new();
    opened.read_to_end(&mut end).unwrap();
    assert_eq!(end, f.bytes[64 * MIB - 10..]);
    assert!(opened.seek(SeekFrom::End(5)).is_ok() && opened.read(&mut [0; 3]).unwrap() == 0, "beyond the end");
    // Each of three places, 1 MiB ahead of each, and the last chunk.
    println!("{} of 256 chunks", peer.chunks());
    assert!(peer.chunks() <= 3 * (1 + MIB / CHUNK) as u64 + 1, "{}", peer.chunks());
}

#[test]
fn several_readers_of_one_content_fetch_it_once() {
    let lan = Lan::new().unwrap();
    let f = file("x", 12 * MIB, 1);
    let peer = peer(&lan, &f, 2);
    let node = lan.node().unwrap();
    let first = node.open("x").unwrap();
    let open = node.stats().open;
    assert_eq!((open[0].path.as_str(), open[0].id, open[0].readers), ("x", f.id, 1));
    let barrier = Barrier::new(5);
    thread::scope(|scope| {
        for n in 0..5 {
            let mut reader = if n == 0 { node.open("x").unwrap() } else { first.try_clone().unwrap() };
            let (barrier, f) = (&barrier, &f);
            scope.spawn(move || {
                barrier.wait();
                let from = n * 2 * MIB + 77;
                reader.seek(SeekFrom::Start(from as u64)).unwrap();
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                assert!(read == f.bytes[from..], "reader {n}");
            });
        }
    });
    assert_eq!(peer.chunks(), (12 * MIB / CHUNK) as u64, "nothing twice");
    assert_eq!(node.stats().open[0].peers, [(peer.id(), f.id.len)]);
    assert!(node.open("x").is_ok());
    assert!(matches!(
        (0..65).map(|_| first.try_clone()).collect::<Result<Vec<_>, _>>(),
        Err(FetchError::TooManyReaders(64))
    ));
}

#[test]
fn what_was_read_is_a_part_that_a_later_fetch_goes_on_from() {
    let lan = Lan::new().unwrap();
    let f = file("x", 8 * MIB, 1);
    let peer = peer(&lan, &f, 0);
    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    read_at(&mut opened, 3 * MIB, CHUNK);
    drop(opened);
    until("the part is let go", || fs::read_dir(dir(&node).join(".gpb")).is_ok_and(|d| d.count() == 3));
    let names = own(&dir(&node));
    let has = |end: &str| names.iter().any(|name| name.ends_with(end));
    assert!(has(".part") && has(".journal") && has(".read"), "{names:?}");
    let report = node.fetch("x").unwrap().wait().unwrap();
    println!("{} bytes were there", f.id.len - report.bytes);
    assert!(report.local.rehashed == 0 && report.bytes < f.id.len, "{report:?}");
    assert!(fs::read(dir(&node).join("x")).unwrap() == *f.bytes && own(&dir(&node)).is_empty());
    let fetched = peer.chunks();
    // What is there is read from there.
    let mut whole = Vec::new();
    node.open("x").unwrap().read_to_end(&mut whole).unwrap();
    assert!(whole == *f.bytes && peer.chunks() == fetched);
}

/// It takes a minute: `cargo test --test it open::what_nobody_reads -- --ignored`.
#[test]
#[ignore = "waits for a minute"]
fn what_nobody_reads_any_longer_goes_after_a_minute() {
    let lan = Lan::new().unwrap();
    let f = file("x", 8 * MIB, 1);
    let _peer = peer(&lan, &f, 0);
    let node = lan.node().unwrap();
    read_at(&mut node.open("x").unwrap(), 3 * MIB, CHUNK);
    let closed = Instant::now();
    thread::sleep(Duration::from_secs(50));
    assert!(own(&dir(&node)).iter().any(|name| name.ends_with(".part")));
    until("it goes", || own(&dir(&node)).is_empty());
    println!("after {:?}", closed.elapsed());
}

#[test]
fn what_is_kept_becomes_the_file_and_is_read_on() {
    let lan = Lan::new().unwrap();
    let f = file("d/x", 8 * MIB, 1);
    let peer = peer(&lan, &f, 1);
    let node = lan.node().unwrap();
    let mut opened = node.open("d/x").unwrap();
    read_at(&mut opened, 0, 10);
    let here = dir(&node).join("kept");
    let report = opened.keep(&here).unwrap().wait().unwrap();
    assert_eq!((report.files, fs::read(&here).unwrap() == *f.bytes), (1, true));
    assert!(own(&dir(&node)).is_empty(), "{:?}", own(&dir(&node)));
    let elsewhere = dir(&node).join("new/copy");
    opened.keep(&elsewhere).unwrap().wait().unwrap();
    assert!(fs::read(&elsewhere).unwrap() == *f.bytes);
    println!("{} chunks", peer.chunks());
    assert!(peer.chunks() <= 32 * 3 / 2, "once, but for what it chose twice: {}", peer.chunks());
    // It is a file like any other now, and what its user writes is not handed out as what was asked for.
    fs::OpenOptions::new().write(true).open(&here).unwrap().write_all(b"changed").unwrap();
    assert_eq!(read_at(&mut opened, 0, 10), f.bytes[..10]);
    assert_eq!(read_at(&mut opened, 7 * MIB, 10), f.bytes[7 * MIB..7 * MIB + 10]);
    fs::write(dir(&node).join("other"), "mine").unwrap();
    let refused = opened.keep(dir(&node).join("other")).unwrap().wait().unwrap_err();
    assert!(matches!(*refused.error, FetchError::Storage(_)), "{refused}");
}

#[test]
fn a_file_is_read_while_a_fetch_brings_it_and_fetched_while_it_is_read() {
    let lan = Lan::new().unwrap();
    let f = file("x", 24 * MIB, 1);
    let peer = peer(&lan, &f, 10);
    let node = lan.node().unwrap();
    // All of it takes 12 s: however slow the machine, the fetch is not near its end yet.
    node.set_download_limit(Some(2 * MIB as u64));
    let fetch = node.fetch("x").unwrap();
    until("it fetches", || fetch.progress().bytes_fetched > 0);
    let mut opened = node.open("x").unwrap();
    assert_eq!(read_at(&mut opened, 17 * MIB, 100), f.bytes[17 * MIB..][..100]);
    let at = fetch.progress().bytes_fetched;
    println!("read from the middle after {at} bytes");
    assert!(at < 12 * MIB as u64, "what is read comes first: {at}");
    node.set_download_limit(None);
    fetch.wait().unwrap();
    let mut whole = Vec::new();
    opened.seek(SeekFrom::Start(0)).unwrap();
    opened.read_to_end(&mut whole).unwrap();
    println!("{} chunks", peer.chunks());
    // The peer chooses a chunk twice now and then.
    assert!(whole == *f.bytes && peer.chunks() <= 96 * 3 / 2, "{}", peer.chunks());

    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    assert_eq!(read_at(&mut opened, 20 * MIB, 100), f.bytes[20 * MIB..][..100]);
    let fetch = node.fetch("x").unwrap();
    assert_eq!(read_at(&mut opened, 9 * MIB, 100), f.bytes[9 * MIB..][..100]);
    fetch.wait().unwrap();
    assert!(
        fs::read(dir(&node).join("x")).unwrap() == *f.bytes && peer.chunks() <= 2 * 96 * 3 / 2,
        "{}",
        peer.chunks()
    );
    // One that is cancelled leaves it to the readers; it is far from its end by then.
    let node = lan.node().unwrap();
    let fetch = node.get("x").limit(2 * MIB as u64).start().unwrap();
    until("it fetches", || fetch.progress().bytes_fetched > MIB as u64);
    let mut opened = node.open("x").unwrap();
    read_at(&mut opened, 5 * MIB, 1);
    fetch.cancel();
    assert_eq!(read_at(&mut opened, 23 * MIB, 100), f.bytes[23 * MIB..][..100]);
    drop(opened);
    until("the part is let go", || own(&dir(&node)).iter().any(|name| name.ends_with(".journal")));
    assert!(!own(&dir(&node)).iter().any(|name| name.ends_with(".read")), "a fetch left it");
}

#[test]
fn what_a_fetch_gained_stays_after_the_readers_that_it_joined() {
    let lan = Lan::new().unwrap();
    let f = file("x", 16 * MIB, 1);
    let _peer = peer(&lan, &f, 10);
    let is_marked = |node: &Node| own(&dir(node)).iter().any(|name| name.ends_with(".read"));
    for is_kept in [false, true] {
        let node = lan.node().unwrap();
        let mut opened = node.open("x").unwrap();
        read_at(&mut opened, 3 * MIB, 1);
        assert!(is_marked(&node), "it is only read");
        // It is far from its end when it is paused.
        node.set_download_limit(Some(2 * MIB as u64));
        let fetch = if is_kept { opened.keep(dir(&node).join("./y")).unwrap() } else { node.fetch("x").unwrap() };
        until("the part is that of a fetch", || !is_marked(&node));
        fetch.pause();
        until("it rests", || fetch.progress().phase == gpb::Phase::Paused);
        drop(opened);
        until("the part is let go", || own(&dir(&node)).iter().any(|name| name.ends_with(".journal")));
        assert!(!is_marked(&node), "kept: {is_kept}");
        node.set_download_limit(None);
        fetch.resume();
        fetch.wait().unwrap();
        assert!(own(&dir(&node)).is_empty());
    }
    // Its own directory is another one: nothing there goes on from what was read.
    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    read_at(&mut opened, 3 * MIB, 1);
    opened.keep(dir(&node).join("deeper/y")).unwrap().wait().unwrap();
    assert!(is_marked(&node), "it goes after its readers");
}

/// What the first one passed by is not there.
#[test]
fn a_reader_that_comes_later_gets_the_beginning() {
    let lan = Lan::new().unwrap();
    let f = file("x", 700_000, 1);
    let _peer = peer(&lan, &f, 0);
    for _ in 0..8 {
        let node = lan.node().unwrap();
        let mut first = node.open("x").unwrap();
        read_at(&mut first, 500_000, 4096);
        let mut other = node.open("x").unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(read_at(&mut other, 0, 100)));
        assert_eq!(told.recv_timeout(WAIT).expect("the beginning comes"), f.bytes[..100]);
    }
}

#[test]
fn liars_are_never_read_from() {
    let lan = Lan::new().unwrap();
    let f = file("x", 6 * MIB, 1);
    let liars = [Fault::WrongChunks, Fault::OtherChunks].map(|fault| faulty(&lan, &f, &[fault]));
    let node = lan.start(lan.builder().timeout(Duration::from_secs(4))).unwrap();
    let mut opened = node.open("x").unwrap();
    let error = opened.read(&mut [0; 100]).unwrap_err();
    assert!(matches!(*failed(&error).error, FetchError::OnlyLiars { .. }), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let _honest = peer(&lan, &f, 0);
    drop(liars);
    let mut whole = Vec::new();
    opened.read_to_end(&mut whole).unwrap();
    assert!(whole == *f.bytes);
}

#[test]
fn a_read_ends_with_the_error_of_the_fetch_and_the_next_one_tries_again() {
    let lan = Lan::new().unwrap();
    let f = file("x", 6 * MIB, 1);
    let stalls = faulty(&lan, &f, &[Fault::Stall]);
    let node = lan.start(lan.builder().timeout(Duration::from_secs(3))).unwrap();
    let mut opened = node.open("x").unwrap();
    let begun = Instant::now();
    let error = opened.read(&mut [0; 100]).unwrap_err();
    assert!(matches!(*failed(&error).error, FetchError::Silent { .. }), "{error}");
    assert!(error.kind() == io::ErrorKind::TimedOut && begun.elapsed() < WAIT / 2, "{error:?}");
    drop(stalls);
    // A holder that leaves in the middle: what came of it is read, and the rest from the next one.
    let leaves = faulty(&lan, &f, &[Fault::CutAfter(9)]);
    let (mut read, mut buffer) = (0, vec![0; 100_000]);
    let error = loop {
        match opened.read(&mut buffer) {
            Ok(len) => {
                assert!(buffer[..len] == f.bytes[read..read + len]);
                read += len;
            }
            Err(e) => break e,
        }
    };
    println!("{read} bytes, then {error}");
    assert!(read >= CHUNK && error.kind() == io::ErrorKind::TimedOut, "{read}: {error:?}");
    drop(leaves);
    assert_eq!(read_at(&mut opened, 5, 10), f.bytes[5..15], "what is there");
    let _honest = peer(&lan, &f, 0);
    opened.seek(SeekFrom::Start(read as u64)).unwrap();
    let mut rest = Vec::new();
    opened.read_to_end(&mut rest).unwrap();
    assert!(rest == f.bytes[read..]);
}

#[test]
fn a_read_that_waits_is_cancelled_and_ends_with_the_node() {
    let lan = Lan::new().unwrap();
    let f = file("x", 6 * MIB, 1);
    let _stalls = faulty(&lan, &f, &[Fault::Stall]);
    let node = lan.node().unwrap();
    let (mut opened, mut other) = (node.open("x").unwrap(), node.open("x").unwrap());
    let canceller = opened.canceller();
    let begun = Instant::now();
    let waiting = thread::spawn(move || opened.read(&mut [0; 10]).unwrap_err());
    thread::sleep(Duration::from_millis(50));
    canceller.cancel();
    let error = waiting.join().unwrap();
    assert!(matches!(*failed(&error).error, FetchError::Cancelled), "{error}");
    let mut third = other.try_clone().unwrap();
    let waiting = thread::spawn(move || other.read(&mut [0; 10]).unwrap_err());
    thread::sleep(Duration::from_millis(50));
    drop(node);
    let error = waiting.join().unwrap();
    assert!(matches!(*failed(&error).error, FetchError::Stopped), "{error}");
    assert!(begun.elapsed() < WAIT / 2, "{:?}", begun.elapsed());
    let error = third.read(&mut [0; 10]).unwrap_err();
    assert!(matches!(*failed(&error).error, FetchError::Stopped), "{error}");
}

#[test]
fn a_cancelled_reader_reads_no_more_of_what_is_there() {
    let lan = Lan::new().unwrap();
    let f = file("x", MIB, 1);
    let _peer = peer(&lan, &f, 0);
    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    let mut other = opened.try_clone().unwrap();
    read_at(&mut opened, 0, MIB);
    opened.seek(SeekFrom::Start(MIB as u64 - 9)).unwrap();
    assert_eq!(opened.read(&mut [0; 3]).unwrap(), 3);
    opened.canceller().cancel();
    let error = opened.read(&mut [0; 3]).unwrap_err();
    assert!(matches!(*failed(&error).error, FetchError::Cancelled), "{error}");
    assert_eq!(read_at(&mut other, 0, MIB), *f.bytes, "the others go on");
    // The same of a fetch to a writer.
    struct Cancels(Kept, mpsc::Receiver<gpb::Canceller>);
    impl Write for Cancels {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Ok(canceller) = self.1.recv() {
                canceller.cancel();
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (kept, (sender, receiver)) = (Kept::default(), mpsc::channel());
    let fetch = node.get("x").to_writer(Cancels(kept.clone(), receiver)).start().unwrap();
    sender.send(fetch.canceller()).unwrap();
    drop(sender);
    assert!(matches!(*fetch.wait().unwrap_err().error, FetchError::Cancelled));
    assert_eq!(kept.0.lock().unwrap().len(), CHUNK, "no more than was being written");
}

#[test]
fn nothing_is_asked_for_at_the_end_and_beyond() {
    let lan = Lan::new().unwrap();
    let f = file("x", MIB + 5, 1);
    let _stalls = faulty(&lan, &f, &[Fault::Stall]);
    let node = lan.node().unwrap();
    let mut opened = node.open("x").unwrap();
    for by in [0, 1, CHUNK as i64 - 6, 9 * MIB as i64] {
        opened.seek(SeekFrom::End(by)).unwrap();
        assert_eq!(opened.read(&mut [0; 9]).unwrap(), 0, "{by} beyond");
    }
    opened.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(opened.read(&mut []).unwrap(), 0);
}

#[test]
fn in_memory_what_is_no_longer_read_makes_way() {
    let lan = Lan::new().unwrap();
    let files: Vec<TestFile> = (0..7).map(|n| file(&format!("{n}"), 44 * MIB, n)).collect();
    let peer = FaultyPeer::start(&files, &[]).unwrap();
    lan.join(&peer);
    let node = lan.start(guest(&lan)).unwrap();
    for f in &files {
        let report = node.get(&f.path).to_writer(io::sink()).start().unwrap().wait();
        assert!(report.is_ok(), "{}: {report:?}", f.path);
    }
}

#[test]
fn contents_are_opened_again_and_many_in_turn() {
    let lan = Lan::new().unwrap();
    let files: Vec<TestFile> = (0..70).map(|n| file(&format!("{n}"), 2 * CHUNK, n)).collect();
    let peer = FaultyPeer::start(&files, &[]).unwrap();
    lan.join(&peer);
    let node = lan.node().unwrap();
    for f in files.iter().flat_map(|f| [f, f]) {
        assert_eq!(read_at(&mut node.open(&f.path).unwrap(), CHUNK, 5), f.bytes[CHUNK..CHUNK + 5]);
    }
}

#[test]
fn what_is_read_is_shared_meanwhile() {
    let lan = Lan::new().unwrap();
    for len in [6 * MIB, 1000] {
        let f = file("x", len, len as u64);
        let peer = peer(&lan, &f, 0);
        let reads = lan.node().unwrap();
        let found = reads.find("x", WAIT).unwrap();
        let mut opened = reads.open(&found[0]).unwrap();
        io::copy(&mut opened, &mut io::sink()).unwrap();
        drop(peer);
        let fetches = lan.node().unwrap();
        let report = fetches.get(&found[0]).to_file(dir(&fetches).join("y")).start().unwrap().wait().unwrap();
        assert_eq!(report.peers, [(reads.id(), f.id.len)], "{len}");
        drop(opened);
    }
}

/// A writer that keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_fetch_passes_its_bytes_to_a_writer() {
    let lan = Lan::new().unwrap();
    let files = [file("d/x", 9 * MIB, 1), file("d/small", 100, 2), file("d/empty", 0, 3)];
    let peer = FaultyPeer::start(&files, &[]).unwrap();
    lan.join(&peer);
    for node in [lan.node().unwrap(), lan.start(guest(&lan)).unwrap()] {
        for f in &files {
            let kept = Kept::default();
            let report = node.get(&f.path).to_writer(kept.clone()).start().unwrap().wait().unwrap();
            assert!(*kept.0.lock().unwrap() == *f.bytes, "{}", f.path);
            // A reader may be done before its last chunk is counted.
            assert!(report.bytes <= f.id.len, "{report:?}");
            assert_eq!((report.files, report.failed.len()), (0, 0));
        }
        let several = node.get("d").to_writer(io::sink()).start().unwrap().wait().unwrap_err();
        assert!(matches!(*several.error, FetchError::NotOneFile { files: 3, .. }), "{several}");
        assert!(matches!(node.open("d"), Err(FetchError::NotOneFile { files: 3, .. })));
        let none = node.get("d/none").to_writer(io::sink()).start().unwrap().wait().unwrap_err();
        assert!(matches!(*none.error, FetchError::NotFound { .. }), "{none}");
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let full = node.get("d/x").to_writer(Full).start().unwrap().wait().unwrap_err();
        assert!(matches!(&*full.error, FetchError::Writer(e) if e.kind() == io::ErrorKind::StorageFull), "{full}");
    }
}

#[test]
fn a_fetch_to_a_writer_rests_and_goes_on_and_is_cancelled() {
    let lan = Lan::new().unwrap();
    let f = file("x", 12 * MIB, 1);
    let _peer = peer(&lan, &f, 10);
    let node = lan.start(lan.builder().share(Share::Nothing)).unwrap();
    let kept = Kept::default();
    let fetch = node.get("x").limit(4 * MIB as u64).to_writer(kept.clone()).start().unwrap();
    until("some came", || kept.0.lock().unwrap().len() > MIB);
    fetch.pause();
    until("it rests", || fetch.progress().phase == gpb::Phase::Paused);
    let at = kept.0.lock().unwrap().len();
    assert!(!fetch.wait_for(Duration::from_millis(100)) && kept.0.lock().unwrap().len() == at);
    fetch.resume();
    assert_eq!(fetch.wait().unwrap().failed.len(), 0);
    assert!(*kept.0.lock().unwrap() == *f.bytes);
    assert_eq!((fetch.progress().bytes_done, fetch.progress().bytes), (f.id.len, f.id.len));
    let other = lan.node().unwrap();
    let fetch = other.get("x").limit(4 * MIB as u64).to_writer(io::sink()).start().unwrap();
    until("some came", || fetch.progress().bytes_fetched > 0);
    fetch.cancel();
    assert!(matches!(*fetch.wait().unwrap_err().error, FetchError::Cancelled));
}
