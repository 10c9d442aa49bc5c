//! A whole node as a program holds it: it ends when told to, starts or says why not, and takes any wait.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gpb::error::{ConfigError, StoreError};

use gpb::internals::limits::STATIC_PEERS_MAX;
use gpb::testing::Lan;
use gpb::{Event, Everything, FetchError, Keypair, Node, NodeBuilder, Share, StartError};

const WAIT: Duration = Duration::from_secs(60);

/// A node that finds nobody.
fn quiet(dir: &tempfile::TempDir) -> NodeBuilder {
    Node::builder()
        .dir(dir.path())
        .state(dir.path().join("state"))
        .key(Keypair::generate())
        .bind(Ipv4Addr::LOCALHOST)
        .multicast(false)
}

/// Calls `run` in a thread; what it returns must come within [`WAIT`].
fn soon<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(run()));
    told.recv_timeout(WAIT).expect("it never returned")
}

#[test]
fn a_survey_that_waits_ends_with_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = quiet(&dir).share(Share::Nothing).start().unwrap();
    let stopper = node.stopper();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(None).unwrap();
        let answer = node.peers(WAIT);
        tell.send(Some((Instant::now(), answer))).unwrap();
    });
    assert!(told.recv_timeout(WAIT).unwrap().is_none(), "it begins");
    // Whether it waits already or is about to, it is to end.
    std::thread::sleep(Duration::from_millis(50));
    let stopped = Instant::now();
    stopper.stop();
    let (ended, answer) = told.recv_timeout(2 * WAIT).unwrap().expect("its end");
    assert!(matches!(answer, Err(FetchError::Stopped)), "{answer:?}");
    assert!(ended - stopped < WAIT / 2, "{:?}", ended - stopped);
}

#[test]
fn a_diagnosis_that_is_cancelled_in_its_last_second_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = quiet(&dir).share(Share::Nothing).start().unwrap();
    let canceller = gpb::Canceller::new();
    let button = canceller.clone();
    let pressing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        button.cancel();
    });
    let found = node.diagnose(canceller.within(Duration::from_millis(1)));
    assert!(matches!(found, Err(FetchError::Cancelled)), "{found:?}");
    pressing.join().unwrap();
}

#[test]
fn a_wildcard_takes_no_leading_dot_in_any_call() {
    let lan = Lan::new().unwrap();
    let _server = lan.sharing(&[(".a", b"1"), ("d/.b", b"2"), ("d/c", b"3")]).unwrap();
    let node = lan.node().unwrap();
    let names = |found: Result<Vec<gpb::FoundFile>, FetchError>| -> Vec<String> {
        found.unwrap().iter().map(|f| f.path.to_string()).collect()
    };
    for (want, meant) in [("**", &["d/c"][..]), ("d/*", &["d/c"]), (".*", &[".a"]), ("d", &["d/.b", "d/c"])] {
        assert_eq!(names(node.list_within(want, WAIT)), meant, "list {want}");
        assert_eq!(names(node.find(want, WAIT)), meant, "find {want}");
    }
    assert_eq!(names(node.list_within(Everything, WAIT)), [".a", "d/.b", "d/c"]);
    assert_eq!(names(node.find(Everything, WAIT)), [".a", "d/.b", "d/c"]);
}

#[test]
fn the_longest_waits_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let node = quiet(&dir).share(Share::Nothing).timeout(Duration::MAX).start().unwrap();
    let stopper = node.stopper();
    let asked = std::thread::spawn(move || {
        let found = node.peers(Duration::MAX);
        let list = node.list_within(Everything, Duration::MAX);
        (found, list, node.fetch("x").unwrap().wait().err(), node.wait_ready(Duration::MAX))
    });
    std::thread::sleep(Duration::from_millis(50));
    stopper.stop();
    assert!(stopper.wait(Duration::MAX));
    let (peers, list, fetch, ready) = soon(|| asked.join().expect("no wait is too long"));
    assert!(matches!(peers, Err(FetchError::Stopped)), "{peers:?}");
    assert!(matches!(list, Err(FetchError::Stopped)), "{list:?}");
    assert!(fetch.as_ref().is_some_and(|f| matches!(*f.error, FetchError::Stopped)), "{fetch:?}");
    assert_eq!(ready, None);
}

#[test]
fn more_named_peers_than_can_be_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let all = (0..=STATIC_PEERS_MAX).fold(quiet(&dir), |node, n| node.peer(format!("10.0.0.1:{}", 1000 + n)));
    let error = all.start().unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error}");
    assert!(error.to_string().contains(&STATIC_PEERS_MAX.to_string()), "{error}");
}

#[test]
fn a_text_that_is_no_peer_or_no_interface_is_an_error_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (builder, is_peer) in [(quiet(&dir).peer("lab:0"), true), (quiet(&dir).interface("a/b"), false)] {
        let error = builder.start().unwrap_err();
        let StartError::Config(error) = error else { panic!("{error}") };
        assert_eq!(matches!(error, ConfigError::Peer(_)), is_peer, "{error}");
        assert_eq!(matches!(error, ConfigError::Interface(_)), !is_peer, "{error}");
    }
    // A zone by name is looked up by the system.
    assert!(quiet(&dir).share(Share::Nothing).peer("[fe80::1%lo]:9").start().is_ok());
}

#[test]
fn a_missing_directory_is_made_only_if_that_is_wanted() {
    let lan = Lan::new().unwrap();
    let _server = lan.sharing(&[("a.bin", b"hello")]).unwrap();
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("not/there");
    let careful = lan.start(lan.builder().dir(&missing).create_dir(false)).unwrap();
    let error = careful.fetch("a.bin").unwrap().wait().unwrap_err().error;
    assert!(matches!(&*error, FetchError::Storage(StoreError::MissingDirectory { .. })), "{error}");
    assert!(!missing.exists());
    let node = lan.start(lan.builder().dir(&missing).create_dir(true)).unwrap();
    node.fetch("a.bin").unwrap().wait().unwrap();
    assert_eq!(std::fs::read(missing.join("a.bin")).unwrap(), b"hello");
}

#[test]
fn events_end_with_the_node() {
    let lan = Lan::new().unwrap();
    let (node, other) = (lan.node().unwrap(), lan.node().unwrap());
    let events = node.events();
    let is_other = |e: Event| match e {
        Event::Known(peers) => peers.iter().any(|known| known.node.peer == other.id()),
        Event::PeerJoined { node, .. } => node.peer == other.id(),
        _ => false,
    };
    assert!((0..2).any(|_| is_other(events.recv_timeout(WAIT).unwrap())));
    let reader = std::thread::spawn(move || events.count());
    drop(node);
    soon(|| reader.join().unwrap());
}
