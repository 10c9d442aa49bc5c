//! A whole node as a program holds it: it ends when told to, starts or says why not, and takes any wait.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gpb::internals::identity::Keypair;
use gpb::internals::limits::STATIC_PEERS_MAX;
use gpb::{FetchError, Node, NodeBuilder, Share, StartError};

const WAIT: Duration = Duration::from_secs(20);

/// A node that finds nobody.
fn quiet(dir: &tempfile::TempDir) -> NodeBuilder {
    Node::builder()
        .dir(dir.path())
        .state(dir.path().join("state"))
        .key(Keypair::generate())
        .bind(Ipv4Addr::LOCALHOST.into())
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
    assert!(matches!(answer, Err(FetchError::Interrupted)), "{answer:?}");
    assert!(ended - stopped < Duration::from_secs(1), "{:?}", ended - stopped);
}

#[test]
fn the_longest_waits_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let node = quiet(&dir).share(Share::Nothing).timeout(Duration::MAX).start().unwrap();
    let stopper = node.stopper();
    let asked = std::thread::spawn(move || {
        let found = node.peers(Duration::MAX);
        (found, node.list::<&str>(&[], Duration::MAX), node.fetch(&["x"]).err(), node.wait_ready(Duration::MAX))
    });
    std::thread::sleep(Duration::from_millis(50));
    stopper.stop();
    assert!(stopper.wait(Duration::MAX));
    let (peers, list, fetch, ready) = soon(|| asked.join().expect("no wait is too long"));
    assert!(matches!(peers, Err(FetchError::Interrupted)), "{peers:?}");
    assert!(matches!(list, Err(FetchError::Interrupted)), "{list:?}");
    assert!(matches!(fetch, Some(FetchError::Interrupted)), "{fetch:?}");
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
