//! Two parts of one program want the same file: it is fetched once, and both have it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use gpb::error::FetchError;
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{Fetch, Node};

const WAIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// A peer with these files, which waits so long before each chunk.
fn peer(lan: &Lan, files: &[TestFile], delay_ms: u64) -> FaultyPeer {
    let peer = FaultyPeer::start(files, &[Fault::Delay(Duration::from_millis(delay_ms))]).unwrap();
    lan.join(&peer);
    peer
}

fn file(path: &str, len: usize, seed: u64) -> TestFile {
    TestFile::random(path, len, seed).unwrap()
}

fn until(what: &str, fetch: &Fetch, is: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what}: {fetch:?}");
        fetch.wait_for(Duration::from_millis(2));
    }
}

/// Waits until the node knows so many peers: a list is complete soon after the last one of those that are known.
fn until_known(node: &Node, peers: usize) {
    let end = Instant::now() + WAIT;
    while node.known_peers().len() < peers {
        assert!(Instant::now() < end, "{:?}", node.known_peers());
        thread::sleep(Duration::from_millis(2));
    }
}

fn holds(dir: &Path, f: &TestFile) -> bool {
    fs::read(dir.join(f.path.as_str())).is_ok_and(|bytes| bytes == *f.bytes)
}

/// Eight threads ask for `f` at once, each into the directory that `place` names. Returns the bytes
/// that came for one byte of the file. Before each chunk the peer waits, so that the fetch that begins
/// first is not over before the last one begins.
fn eight(f: &TestFile, delay_ms: u64, place: impl Fn(&Node, usize) -> std::path::PathBuf) -> f64 {
    let lan = Lan::new().unwrap();
    let _peer = peer(&lan, std::slice::from_ref(f), delay_ms);
    let (node, barrier) = (Arc::new(lan.node().unwrap()), Arc::new(Barrier::new(8)));
    let places: Vec<_> = (0..8).map(|n| place(&node, n)).collect();
    let threads: Vec<_> = places
        .iter()
        .map(|dir| {
            let (node, barrier, dir, path) = (node.clone(), barrier.clone(), dir.clone(), f.path.clone());
            thread::spawn(move || {
                barrier.wait();
                node.get(&path).into_dir(dir).start().unwrap().wait()
            })
        })
        .collect();
    let reports: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
    assert!(reports.iter().all(|report| report.files == 1));
    assert!(places.iter().all(|dir| holds(dir, f)));
    reports.iter().map(|report| report.bytes).sum::<u64>() as f64 / f.id.len as f64
}

#[test]
fn eight_threads_that_want_one_file_fetch_it_once() {
    for (len, seed, delay_ms) in [(9 * MIB + 7, 1, 20), (100_000, 2, 500)] {
        let f = file("d/x", len, seed);
        let ratio = eight(&f, delay_ms, |node, _| node.config().dir.clone().unwrap());
        println!("{len} bytes to one place: {ratio} bytes fetched for each");
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
        let ratio = eight(&f, delay_ms, |node, n| node.config().dir.as_ref().unwrap().join(n.to_string()));
        println!("{len} bytes to eight places: {ratio} bytes fetched for each");
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
    }
}

#[test]
fn overlapping_directories_are_both_whole() {
    let lan = Lan::new().unwrap();
    let files = [file("d/y", 5 * MIB, 1), file("d/z", 4 * MIB, 2), file("e/u", 3 * MIB, 3), file("d/small", 77, 4)];
    let peer = peer(&lan, &files, 2);
    let node = lan.node().unwrap();
    let one = node.fetch(["d/y", "e", "d/small"]).unwrap();
    let both = node.fetch("d").unwrap();
    let (one, both) = (one.wait().unwrap(), both.wait().unwrap());
    assert_eq!((one.files, both.files), (3, 3));
    assert!(files.iter().all(|f| holds(node.config().dir.as_ref().unwrap(), f)));
    let all: u64 = files.iter().map(|f| f.id.len).sum();
    println!("{} bytes fetched of {all}, {} chunks", one.bytes + both.bytes, peer.chunks());
    assert_eq!(one.bytes + both.bytes, all, "nothing twice");
}

#[test]
fn a_second_fetch_counts_what_is_there() {
    let lan = Lan::new().unwrap();
    let f = file("x", 12 * MIB, 1);
    let _peer = peer(&lan, std::slice::from_ref(&f), 20);
    let node = lan.node().unwrap();
    // The first one is far from its end when the second one begins.
    node.set_download_limit(Some(4 * MIB as u64));
    let first = node.fetch("x").unwrap();
    until("some came", &first, || first.progress().bytes_fetched > 3 * MIB as u64);
    let second = node.get("x").to_file(node.config().dir.as_ref().unwrap().join("copy")).start().unwrap();
    until("it counts", &second, || second.progress().bytes_done > 3 * MIB as u64);
    assert_eq!(second.progress().bytes_fetched, 0);
    node.set_download_limit(None);
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert_eq!((first.bytes, second.bytes, second.skipped), (f.id.len, 0, 0));
    assert!(
        fs::read(node.config().dir.as_ref().unwrap().join("copy")).unwrap() == *f.bytes
            && holds(node.config().dir.as_ref().unwrap(), &f)
    );
}

#[test]
fn cancel_lets_go_of_the_own_share_only() {
    let lan = Lan::new().unwrap();
    let f = file("x", 12 * MIB, 1);
    let _peer = peer(&lan, std::slice::from_ref(&f), 20);
    let node = lan.node().unwrap();
    // None is near its end when it is cancelled, or paused.
    node.set_download_limit(Some(4 * MIB as u64));
    let fetches: Vec<Fetch> = (0..3).map(|_| node.fetch("x").unwrap()).collect();
    let came = || fetches.iter().map(|fetch| fetch.progress().bytes_fetched).sum::<u64>();
    until("some came", &fetches[0], || came() > 3 * MIB as u64);
    // The one that fetches goes, and then one that waits.
    let owner = (0..3).max_by_key(|&n| fetches[n].progress().bytes_fetched).unwrap();
    fetches[owner].cancel();
    fetches[(owner + 1) % 3].pause();
    node.set_download_limit(None);
    let failed = fetches[owner].wait().unwrap_err();
    assert!(matches!(*failed.error, FetchError::Cancelled), "{failed}");
    let last = fetches[(owner + 2) % 3].wait().unwrap();
    assert!(holds(node.config().dir.as_ref().unwrap(), &f));
    let fetched = last.bytes + failed.report.bytes;
    println!("{fetched} bytes fetched of {}", f.id.len);
    assert!(fetched < f.id.len + 2 * MIB as u64, "it goes on from what is there");
    fetches[(owner + 1) % 3].resume();
    assert_eq!(fetches[(owner + 1) % 3].wait().unwrap().files, 1);
}

#[test]
fn a_fetch_does_not_go_under_the_limit_of_another() {
    let lan = Lan::new().unwrap();
    let f = file("x", 6 * MIB, 1);
    let _peer = peer(&lan, std::slice::from_ref(&f), 2);
    let node = lan.node().unwrap();
    let slow = node.get("x").limit(100_000).start().unwrap();
    until("it fetches", &slow, || slow.progress().bytes_done > 0);
    let dir = node.config().dir.as_ref().unwrap().join("copy");
    let free = node.get("x").into_dir(&dir).start().unwrap();
    assert!(free.wait_for(WAIT), "6 MiB at the limit take a minute: {free:?}");
    assert!(holds(&dir, &f));
    assert_eq!(slow.wait().unwrap().bytes + free.wait().unwrap().bytes, f.id.len, "nothing twice");
}

#[test]
fn a_fetch_takes_nothing_from_one_with_other_sources() {
    let lan = Lan::new().unwrap();
    let f = file("x", 6 * MIB, 1);
    let servers: Vec<Node> = (0..2).map(|_| lan.sharing(&[("x", &f.bytes)]).unwrap()).collect();
    let node = lan.node().unwrap();
    until_known(&node, 2);
    let files = node.list_within("x", WAIT).unwrap();
    let holders = files[0].holders.to_vec();
    let first = node.get("x").from(&holders[..1]).limit(2 * MIB as u64).start().unwrap();
    until("it fetches", &first, || first.progress().bytes_done > 0);
    let dir = node.config().dir.as_ref().unwrap().join("copy");
    let second = node.get("x").from(&holders[1..]).into_dir(&dir).start().unwrap();
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert_eq!(first.peers, [(holders[0].peer, f.id.len)]);
    assert_eq!(second.peers, [(holders[1].peer, f.id.len)]);
    assert!(holds(&dir, &f));
    drop(servers);
}

/// The holder is silent: all that wait for it end when the one that asks does, and not one after
/// the other.
#[test]
fn waiting_fetches_time_out_together() {
    let lan = Lan::new().unwrap();
    let f = file("x", 4 * MIB, 1);
    let mute = FaultyPeer::start(std::slice::from_ref(&f), &[Fault::Stall]).unwrap();
    lan.join(&mute);
    let timeout = Duration::from_secs(4);
    let node = lan.start(lan.builder().timeout(timeout)).unwrap();
    let begin = Instant::now();
    let fetches: Vec<Fetch> = (0..8).map(|_| node.fetch(f.id).unwrap()).collect();
    for fetch in &fetches {
        let failed = fetch.wait().unwrap_err();
        // Under load, not each of them gets through to the peer in time.
        assert!(matches!(*failed.error, FetchError::Silent { .. } | FetchError::NoPeer(_)), "{failed}");
    }
    println!("all had ended after {:?}", begin.elapsed());
    assert!(begin.elapsed() < 6 * timeout, "{:?}", begin.elapsed());
}

/// Nothing of the silent holder's fetch is of use to the other, which has another source.
#[test]
fn a_fetch_with_other_sources_waits_for_no_silent_one() {
    let lan = Lan::new().unwrap();
    let f = file("x", 4 * MIB, 1);
    let mute = FaultyPeer::start(std::slice::from_ref(&f), &[Fault::DripChunks]).unwrap();
    lan.join(&mute);
    let server = lan.sharing(&[("x", &f.bytes)]).unwrap();
    let node = lan.start(lan.builder().timeout(2 * WAIT)).unwrap();
    until_known(&node, 2);
    let holders = node.find("x", WAIT).unwrap()[0].holders.to_vec();
    let (good, silent): (Vec<_>, Vec<_>) = holders.into_iter().partition(|holder| holder.peer == server.id());
    assert_eq!((good.len(), silent.len()), (1, 1));
    let stuck = node.get(f.id).from(&silent).start().unwrap();
    let part = |dir: &Path| fs::read_dir(dir.join(".gpb")).is_ok_and(|mut files| files.next().is_some());
    until("it has the file open", &stuck, || part(node.config().dir.as_ref().unwrap()));
    let dir = node.config().dir.as_ref().unwrap().join("copy");
    let begin = Instant::now();
    node.get(f.id).from(&good).into_dir(&dir).start().unwrap().wait().unwrap();
    assert!(begin.elapsed() < WAIT / 2, "{:?}", begin.elapsed());
    assert!(holds(&dir, &f) && !stuck.wait_for(Duration::ZERO));
    stuck.cancel();
}
