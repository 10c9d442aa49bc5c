//! What a program asks a node for, and the handle that it gets: both as a stranger would write them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gpb::error::{Failed, FetchError, ParseFileIdError, RelPathError, StoreError};
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{Canceller, Events, Everything, Fetch, FileId, Keypair, Node, Pattern, Phase, RelPath, Share, Update};
// By these names a program looks for them first.
use gpb::{Candidate, Catalogue, Finding, KeyError, KnownPeer};

const WAIT: Duration = Duration::from_secs(60);

/// What a program keeps of a node.
#[derive(Debug)]
#[allow(dead_code)]
struct App {
    node: Arc<Node>,
    fetch: Option<Fetch>,
    events: Events,
    catalogue: Arc<Catalogue>,
    known: Vec<KnownPeer>,
    candidates: Vec<Candidate>,
    findings: Vec<Finding>,
    key: Option<KeyError>,
}

/// Each of these is what a program writes next after the first example.
#[test]
#[allow(clippy::needless_borrows_for_generic_args)]
fn natural_calls_compile_and_mean_what_they_say() {
    let lan = Lan::new().unwrap();
    let _server = lan.sharing(&[("d/star*.bin", b"star"), ("d/starx.bin", b"x"), ("e", b"e")]).unwrap();
    let node = lan.node().unwrap();
    // Without a time it waits for two seconds, which a loaded machine may need for less.
    until_known(&node, 1);
    assert!(!node.list(Everything).is_ok_and(|found| found.len() > 3));
    let files = node.list_within(Everything, WAIT).unwrap();
    assert_eq!(files.len(), 3);
    let file = &files[0];
    let names = |fetch: Result<Fetch, FetchError>| -> Vec<String> {
        let mut names: Vec<_> = fetch.unwrap().wait().unwrap().fetched.iter().map(|f| f.out.to_string()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(node.fetch("e")), ["e"]);
    assert_eq!(names(node.fetch(String::from("e"))), ["e"]);
    assert_eq!(names(node.fetch(["e"])), ["e"]);
    assert_eq!(names(node.fetch(&["e"])), ["e"]);
    assert_eq!(names(node.fetch(vec!["d", "e"])), ["d/star*.bin", "d/starx.bin", "e"]);
    assert_eq!(names(node.fetch(&[&file.path])), ["d/star*.bin"], "a name that was listed is no glob");
    assert_eq!(names(node.fetch("d/star*.bin")), ["d/star*.bin", "d/starx.bin"], "a text that was typed is");
    assert_eq!(names(node.fetch(&[file.id])), ["d/star*.bin"]);
    assert_eq!(names(node.fetch(file)), ["d/star*.bin"]);
    assert_eq!(names(node.fetch(&files)), ["d/star*.bin", "d/starx.bin", "e"]);
    assert_eq!(names(node.fetch(&files[1..])), ["d/starx.bin", "e"]);
    assert_eq!(names(node.fetch(Pattern::parse("d/*x.bin").unwrap())), ["d/starx.bin"]);
    assert_eq!(names(node.fetch(Everything)).len(), 3);
    assert_eq!(node.list_within(["d", "e"], WAIT).unwrap().len(), 3);
    let out = node.config().dir.as_ref().unwrap().join("out.bin");
    assert_eq!(names(node.fetch_to(&["e"], &out)), ["out.bin"]);
    assert_eq!(node.peer_files(files[0].holders[0], WAIT).unwrap(), files);
    assert_eq!("a/b".parse::<RelPath>().unwrap().as_str(), "a/b");
    assert_eq!("/a".parse::<RelPath>(), Err(RelPathError::Empty));
    assert_eq!("..:5".parse::<FileId>(), Err(ParseFileIdError::Root));
    assert_eq!(file.id.to_string().parse::<FileId>(), Ok(file.id));
    let addr: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let builder = Node::builder().bind("127.0.0.1").bind(IpAddr::from(Ipv4Addr::LOCALHOST)).peer(addr).peer("lab3");
    drop(builder);
    let (events, catalogue, known) = (node.events(), node.catalogue(), node.known_peers());
    let fetch = Some(node.fetch("e").unwrap());
    let app =
        App { node: node.into(), fetch, events, catalogue, known, candidates: vec![], findings: vec![], key: None };
    assert!(format!("{app:?}").contains("Fetch"));
}

#[test]
fn nothing_is_an_error_and_nobody_is_an_empty_list() {
    let lan = Lan::new().unwrap();
    let alone = lan.node().unwrap();
    let short = Duration::from_millis(100);
    assert!(alone.peers(short).unwrap().is_empty() && alone.list_within(Everything, short).unwrap().is_empty());
    assert!(alone.peers(Duration::ZERO).unwrap().is_empty());
    assert!(matches!(alone.list_within(Vec::<String>::new(), short), Err(FetchError::NothingAsked)));
    assert!(matches!(alone.fetch(Vec::<FileId>::new()), Err(FetchError::NothingAsked)));
    assert!(matches!(alone.fetch(""), Err(FetchError::Pattern { .. })));
    let _server = lan.sharing(&[("a", b"a")]).unwrap();
    assert!(alone.list_within("b", WAIT).unwrap().is_empty(), "what no peer has is no error either");
}

#[test]
fn the_layout_is_what_the_caller_said() {
    let lan = Lan::new().unwrap();
    let _server = lan.sharing(&[("one/x.txt", b"same"), ("two/y.txt", b"same"), ("two/z", b"z")]).unwrap();
    let node = lan.node().unwrap();
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    let files = node.list_within("two/y.txt", WAIT).unwrap();
    node.get(&files).into_dir(at("new/dir")).start().unwrap().wait().unwrap();
    assert_eq!(fs::read(at("new/dir/two/y.txt")).unwrap(), b"same", "a listed file keeps its own name");
    assert!(!at("new/dir/one").exists());
    // A directory of one file is a directory all the same.
    node.get("one").into_dir(at("out")).start().unwrap().wait().unwrap();
    assert_eq!(fs::read(at("out/one/x.txt")).unwrap(), b"same");
    let report = node.get("two/z").to_file(at("deep/er/z.bin")).start().unwrap().wait().unwrap();
    assert_eq!((report.dir.as_path(), report.fetched[0].out.as_str()), (at("deep/er").as_path(), "z.bin"));
    assert_eq!(fs::read(at("deep/er/z.bin")).unwrap(), b"z");
    let failed = node.get("two").to_file(at("no")).start().unwrap().wait().unwrap_err();
    assert!(matches!(*failed.error, FetchError::SeveralFiles { files: 2, .. }), "{failed}");
    assert!(!at("no").exists());
}

/// A fetch of what no peer has, which searches until its timeout.
fn searching(lan: &Lan) -> (Node, Fetch) {
    let node = lan.node().unwrap();
    let fetch = node.fetch("nowhere").unwrap();
    (node, fetch)
}

/// How long it takes from `end` until the result.
fn ends(fetch: &Fetch, end: impl FnOnce()) -> (Duration, Failed) {
    let (waiting, (tell, told)) = (fetch.clone(), mpsc::channel());
    let thread = std::thread::spawn(move || tell.send((waiting.wait(), Instant::now())));
    assert!(!fetch.wait_for(Duration::from_millis(50)), "it searches on: {fetch:?}");
    let begin = Instant::now();
    end();
    let (result, at) = told.recv_timeout(WAIT).unwrap();
    thread.join().unwrap().unwrap();
    (at.saturating_duration_since(begin), result.unwrap_err())
}

#[test]
fn a_search_is_cancelled_at_once_and_the_node_goes_on() {
    let lan = Lan::new().unwrap();
    let (node, fetch) = searching(&lan);
    assert_eq!((fetch.progress().phase, node.fetches().len()), (Phase::Searching, 1));
    let canceller = fetch.canceller();
    let (took, failed) = ends(&fetch, || canceller.cancel());
    println!("a cancelled search ended after {took:?}");
    assert!(matches!(*failed.error, FetchError::Cancelled), "{failed}");
    assert!(took < WAIT / 2, "{took:?}");
    assert_eq!((fetch.progress().phase, node.fetches().len()), (Phase::Ended, 0));

    let (_node, fetch) = searching(&lan);
    let stopper = _node.stopper();
    let (_, failed) = ends(&fetch, || stopper.stop());
    assert!(matches!(*failed.error, FetchError::Stopped), "{failed}");

    let _server = lan.sharing(&[("a", b"a")]).unwrap();
    assert_eq!(node.fetch("a").unwrap().wait().unwrap().files, 1);
}

#[test]
fn calls_that_ask_are_cancelled_at_once() {
    let lan = Lan::new().unwrap();
    let node = Arc::new(lan.node().unwrap());
    for asks_peers in [true, false] {
        let (canceller, asking) = (Canceller::new(), node.clone());
        let wait = canceller.within(WAIT);
        let thread = std::thread::spawn(move || {
            if asks_peers { asking.peers(wait).err() } else { asking.list_within(Everything, wait).err() }
        });
        std::thread::sleep(Duration::from_millis(20));
        let begin = Instant::now();
        canceller.cancel();
        let error = thread.join().unwrap();
        println!("a cancelled call ended after {:?}", begin.elapsed());
        assert!(matches!(error, Some(FetchError::Cancelled)), "{error:?}");
        assert!(begin.elapsed() < WAIT / 2, "{:?}", begin.elapsed());
        assert!(matches!(node.find("a", canceller.within(WAIT)), Err(FetchError::Cancelled)), "for good");
    }
}

#[test]
fn a_dropped_fetch_ends_and_clones_keep_it() {
    let lan = Lan::new().unwrap();
    let (node, fetch) = searching(&lan);
    let clone = fetch.clone();
    drop(fetch);
    assert!(!clone.wait_for(Duration::from_millis(50)));
    let mut updates = clone.updates();
    drop(clone);
    assert!(node.fetches().is_empty());
    assert!(updates.any(|update| update == Update::Ended));
    assert_eq!(updates.recv_timeout(Duration::ZERO), Some(Update::Ended), "again and again");
}

fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A peer that gives `bytes` slowly.
fn slow_peer(lan: &Lan, bytes: &[u8]) -> FaultyPeer {
    let file = TestFile::new("big", bytes.to_vec()).unwrap();
    let peer = FaultyPeer::start(&[file], &[Fault::Delay(Duration::from_millis(20))]).unwrap();
    lan.join(&peer);
    peer
}

#[test]
fn updates_tell_each_file_and_the_newest_state() {
    let lan = Lan::new().unwrap();
    let big = content(3_000_000);
    let _server = lan.sharing(&[("d/a", b"a"), ("d/big", &big), ("d/c", b"c")]).unwrap();
    let node = lan.node().unwrap();
    let fetch = node.fetch("d").unwrap();
    let (tell, told) = mpsc::channel();
    fetch.on_update(move |at| _ = tell.send(at));
    let updates: Vec<Update> = fetch.updates().collect();
    let files: Vec<&str> =
        updates.iter().filter_map(|u| if let Update::File(f) = u { Some(f.out.as_str()) } else { None }).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(updates.iter().filter(|u| **u == Update::Ended).count(), 1);
    assert_eq!(updates.last(), Some(&Update::Ended));
    // The callback is dropped with the end, which closes the channel.
    let states: Vec<_> = told.iter().collect();
    let last = states.last().unwrap();
    assert_eq!((last.phase, last.files_done, last.bytes_done), (Phase::Ended, 3, 3_000_002));
    assert!(states.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done), "{states:?}");
    assert!(states.len() < 200, "{} calls", states.len());
    let (tell, late) = mpsc::channel();
    fetch.on_update(move |at| _ = tell.send(at.phase));
    assert_eq!(late.recv_timeout(WAIT), Ok(Phase::Ended), "no wake-up is lost");
    assert_eq!(fetch.peers().iter().map(|p| p.1).sum::<u64>(), fetch.wait().unwrap().bytes);
}

/// Waits until the node knows so many peers: a list is complete soon after the last one of those that are known.
fn until_known(node: &Node, peers: usize) {
    let end = Instant::now() + WAIT;
    while node.known_peers().len() < peers {
        assert!(Instant::now() < end, "{:?}", node.known_peers());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits, beside the fetch, until something holds.
fn wait_until(fetch: &Fetch, what: &str, is: &dyn Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what}: {fetch:?}");
        fetch.wait_for(Duration::from_millis(2));
    }
}

#[test]
fn a_pause_lets_go_and_a_resume_takes_up_what_is_there() {
    let lan = Lan::new().unwrap();
    let bytes = content(12 << 20);
    let _peer = slow_peer(&lan, &bytes);
    let node = lan.node().unwrap();
    // It is far from its end when it is paused.
    node.set_download_limit(Some(4 << 20));
    let fetch = node.fetch("big").unwrap();
    let until = |what: &str, is: &dyn Fn() -> bool| wait_until(&fetch, what, is);
    until("some came", &|| fetch.progress().bytes_fetched > 2 << 20);
    fetch.pause();
    until("it rests", &|| fetch.progress().phase == Phase::Paused);
    let at = fetch.progress();
    assert!(!fetch.wait_for(Duration::from_millis(200)));
    assert_eq!(fetch.progress().bytes_done, at.bytes_done, "nothing comes meanwhile");
    node.set_download_limit(None);
    fetch.resume();
    let report = fetch.wait().unwrap();
    assert!(fs::read(node.config().dir.as_ref().unwrap().join("big")).unwrap() == bytes);
    assert_eq!(fetch.progress().bytes_done, bytes.len() as u64);
    println!("{} bytes fetched, {} wasted, {} hashed again", report.bytes, report.wasted, report.local.rehashed);
    assert_eq!((report.bytes, report.local.rehashed), (bytes.len() as u64, 0), "each byte once");

    let paused = node.get("big").to_file(node.config().dir.as_ref().unwrap().join("copy/of")).start().unwrap();
    paused.pause();
    let (took, failed) = ends(&paused, || paused.cancel());
    assert!(matches!(*failed.error, FetchError::Cancelled) && took < WAIT / 2, "{failed} {took:?}");
}

#[test]
fn a_search_rests_and_its_pause_counts_in_no_timeout() {
    let lan = Lan::new().unwrap();
    let timeout = Duration::from_secs(3);
    let node = lan.start(lan.builder().timeout(timeout)).unwrap();
    let fetch = node.fetch("big").unwrap();
    fetch.pause();
    let end = Instant::now() + WAIT;
    while fetch.progress().phase != Phase::Paused {
        assert!(Instant::now() < end && !fetch.wait_for(Duration::from_millis(2)), "it rests: {fetch:?}");
    }
    assert!(!fetch.wait_for(timeout + Duration::from_millis(500)), "{fetch:?}");
    let bytes = content(1 << 20);
    let _peer = slow_peer(&lan, &bytes);
    fetch.resume();
    assert_eq!(fetch.wait().unwrap().bytes, 1 << 20);
}

/// Cause: a fetch holds its directory open and never looked at its path again. Effect: of a directory that was moved away,
/// replaced or mounted over meanwhile it ended well, and nothing lay there. Mend: the end looks at the path.
#[test]
fn a_directory_that_was_moved_away_meanwhile_ends_no_fetch_well() {
    let lan = Lan::new().unwrap();
    let _peer = slow_peer(&lan, &content(4 << 20));
    let node = lan.node().unwrap();
    let place = tempfile::tempdir().unwrap();
    let [dir, away] = ["dir", "away"].map(|name| place.path().join(name));
    for makes_other in [false, true] {
        std::fs::create_dir(&dir).unwrap();
        let fetch = node.get("big").limit(2 << 20).into_dir(&dir).start().unwrap();
        wait_until(&fetch, "some came", &|| fetch.progress().bytes_fetched > 1 << 19);
        std::fs::rename(&dir, &away).unwrap();
        if makes_other {
            std::fs::create_dir(&dir).unwrap();
        }
        let failed = fetch.wait().unwrap_err();
        let is_named = match &*failed.error {
            FetchError::Storage(StoreError::MissingDirectory { path }) => !makes_other && *path == dir,
            FetchError::Storage(StoreError::NameTaken { path, .. }) => makes_other && *path == dir,
            _ => false,
        };
        assert!(is_named, "{failed}");
        assert_eq!(std::fs::metadata(away.join("big")).unwrap().len(), 4 << 20, "what came is not lost");
        std::fs::remove_dir_all(&away).unwrap();
    }
}

#[test]
fn what_was_reached_before_a_pause_is_reported_when_the_fetch_ends_in_it() {
    let lan = Lan::new().unwrap();
    let bytes = content(12 << 20);
    let _peer = slow_peer(&lan, &bytes);
    let timeout = Duration::from_secs(3);
    let node = lan.start(lan.builder().timeout(timeout)).unwrap();
    let fetch = node.get("big").limit(4 << 20).start().unwrap();
    let until = |what: &str, is: &dyn Fn() -> bool| wait_until(&fetch, what, is);
    for round in 1..3 {
        until("some came", &|| fetch.progress().bytes_fetched > round << 20);
        fetch.pause();
        until("it rests", &|| fetch.progress().phase == Phase::Paused);
        if round == 1 {
            assert!(!fetch.wait_for(timeout + Duration::from_millis(500)));
            fetch.resume();
        }
    }
    let fetched = fetch.progress().bytes_fetched;
    fetch.cancel();
    let failed = fetch.wait().unwrap_err();
    assert!(matches!(*failed.error, FetchError::Cancelled), "{failed}");
    assert_eq!((failed.report.bytes, failed.report.peers.len()), (fetched, 1), "{:?}", failed.report);
    assert!(failed.report.seconds > 3.5, "{:?}", failed.report);
}

#[test]
fn callbacks_may_panic_and_are_called_at_most_twenty_times_a_second() {
    let lan = Lan::new().unwrap();
    let bodies: Vec<_> = (0..60).map(|i| (format!("d/{i}"), content(300_000 + i))).collect();
    let files: Vec<_> = bodies.iter().map(|(path, body)| TestFile::new(path, body.clone()).unwrap()).collect();
    let peer = FaultyPeer::start(&files, &[Fault::Delay(Duration::from_millis(10))]).unwrap();
    lan.join(&peer);
    let node = lan.node().unwrap();
    let fetch = node.fetch("d").unwrap();
    let caller = std::thread::current().id();
    fetch.on_update(move |_| assert!(std::thread::current().id() == caller, "it panics for the test"));
    let (tell, told) = mpsc::channel();
    let begin = Instant::now();
    fetch.on_update(move |at| _ = tell.send(at.phase));
    assert_eq!(fetch.wait().unwrap().files, 60);
    let calls = told.iter().count() as u128;
    let took = begin.elapsed();
    println!("{calls} calls in {took:?}");
    assert!(calls <= took.as_millis() / 50 + 6, "{calls} calls in {took:?}");
}

#[test]
fn a_failure_keeps_what_was_reached() {
    let lan = Lan::new().unwrap();
    let _server = lan.sharing(&[("d/a", b"a")]).unwrap();
    let bytes = content(4 << 20);
    let _slow = slow_peer(&lan, &bytes);
    let node = lan.node().unwrap();
    until_known(&node, 2);
    let fetch = node.get(["d/a", "big"]).limit(2 << 20).start().unwrap();
    let end = Instant::now() + WAIT;
    while fetch.progress().files_done == 0 || fetch.progress().bytes_done < 1 << 20 {
        assert!(Instant::now() < end, "{fetch:?}");
        fetch.wait_for(Duration::from_millis(2));
    }
    fetch.cancel();
    let failed = fetch.wait().unwrap_err();
    assert!(matches!(*failed.error, FetchError::Cancelled), "{failed}");
    assert_eq!((failed.report.files, failed.report.fetched[0].out.as_str()), (1, "d/a"));
    assert!(failed.report.bytes > 1 << 20 && !failed.report.peers.is_empty(), "{:?}", failed.report);
    assert_eq!(std::error::Error::source(&failed).map(ToString::to_string), None, "a cause is told once");
}

#[test]
fn only_the_named_sources_give_and_the_limit_holds() {
    let lan = Lan::new().unwrap();
    let bytes = content(1 << 20);
    let servers: Vec<Node> = (0..2).map(|_| lan.sharing(&[("big", &bytes)]).unwrap()).collect();
    let node = lan.node().unwrap();
    until_known(&node, 2);
    let files = node.list_within("big", WAIT).unwrap();
    assert_eq!(files[0].holders.len(), 2);
    for holder in &*files[0].holders {
        let dir = tempfile::tempdir().unwrap();
        for by_name in [true, false] {
            let get = if by_name { node.get("big") } else { node.get(&files) };
            let place = dir.path().join(by_name.to_string());
            let report = get.from(&[*holder]).into_dir(&place).start().unwrap().wait().unwrap();
            assert_eq!(report.peers, [(holder.peer, bytes.len() as u64)]);
        }
    }
    let (begin, dir) = (Instant::now(), tempfile::tempdir().unwrap());
    let node = lan.node().unwrap();
    node.get(&files).limit(2 << 20).into_dir(dir.path()).start().unwrap().wait().unwrap();
    assert!(begin.elapsed() > Duration::from_millis(300), "half a second of bytes took {:?}", begin.elapsed());
    drop(servers);
}

/// Files that were listed are fetched without a question for names.
#[test]
fn fifty_listed_files_are_fetched_one_by_one_under_their_names() {
    let lan = Lan::new().unwrap();
    let bodies: Vec<(String, Vec<u8>)> = (0..50).map(|i| (format!("d/{i:02}"), content(1000 + i))).collect();
    let shared: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect();
    let _server = lan.sharing(&shared).unwrap();
    let node = lan.start(lan.builder().share(Share::Nothing).key(Keypair::generate())).unwrap();
    let files = node.list_within("d", WAIT).unwrap();
    let begin = Instant::now();
    for file in &files {
        let report = node.fetch(file).unwrap().wait().unwrap();
        assert_eq!(report.fetched[0].out, file.path);
    }
    let took = begin.elapsed();
    println!("50 listed files one by one: {took:?}");
    for (path, body) in &bodies {
        assert_eq!(fs::read(node.config().dir.as_ref().unwrap().join(path)).unwrap(), *body);
    }
}
