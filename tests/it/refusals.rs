//! Why a peer that is there cannot be asked: each cause has an error that says it, and says it soon.

use std::time::{Duration, Instant};

use gpb::error::FetchError;
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{Everything, Keypair, Node, NodeId, RefusalCause, Share, Trust};

const WAIT: Duration = Duration::from_secs(60);

/// The peers that refuse, by the error of a listing.
fn refusals(node: &Node) -> Vec<RefusalCause> {
    match node.list_within(Everything, WAIT) {
        Err(FetchError::Refused { peers }) => peers.into_iter().map(|(_, cause)| cause).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_causes_are_told_apart_and_counted_once() {
    let lan = Lan::new().unwrap();
    let (key, stranger) = (Keypair::generate(), Keypair::generate());
    let closed = lan.start(lan.builder().trust(Trust::keys([key.peer_id()]).unwrap())).unwrap();
    let addr = closed.addrs()[0];
    let named = || lan.builder().multicast(false).peer(addr);

    let they_do_not = lan.start(named().key(stranger.clone())).unwrap();
    for _ in 0..3 {
        assert_eq!(refusals(&they_do_not), [RefusalCause::NotTrustedThere], "once, however often they are asked");
    }
    drop(they_do_not);
    let i_do_not = lan.start(named().key(key.clone()).trust(Trust::keys([stranger.peer_id()]).unwrap())).unwrap();
    assert_eq!(refusals(&i_do_not), [RefusalCause::NotTrustedHere]);
    let timeout = 2 * WAIT;
    let other_network = lan.start(named().key(key.clone()).network("another").timeout(timeout)).unwrap();
    assert_eq!(refusals(&other_network), [RefusalCause::OtherNetwork]);
    let begin = Instant::now();
    let failed = other_network.fetch("x").unwrap().wait().unwrap_err();
    assert!(matches!(&*failed.error, FetchError::Refused { peers } if peers[0].0 == closed.id()), "{failed}");
    assert!(begin.elapsed() < timeout / 2, "not the timeout, but {:?}", begin.elapsed());
}

#[test]
fn a_question_to_one_node_is_not_answered_by_the_refusal_of_another() {
    let lan = Lan::new().unwrap();
    let _closed = lan.start(lan.builder().trust(Trust::keys([Keypair::generate().peer_id()]).unwrap())).unwrap();
    let node = lan.node().unwrap();
    assert_eq!(refusals(&node), [RefusalCause::NotTrustedThere]);
    let (absent, wait, begin) = (Keypair::generate().peer_id(), Duration::from_millis(1500), Instant::now());
    let found = node.peer_files(NodeId::new(absent, 1), wait);
    assert!(found.as_ref().is_ok_and(Vec::is_empty), "{found:?}");
    assert!(begin.elapsed() >= wait, "it may still come");
}

#[test]
fn a_fetch_that_all_holders_refuse_ends_soon() {
    let lan = Lan::new().unwrap();
    let content: Vec<u8> = (0..40_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), &content).unwrap();
    let key = Keypair::generate();
    let trust = Trust::keys([key.peer_id()]).unwrap();
    let server = lan.builder().dir(dir.path()).share(Share::Directory).trust(trust.clone()).upload_limit(4 << 20);
    let server = lan.start(server).unwrap();
    server.wait_ready(WAIT).unwrap();
    // One that answers, and has something else.
    let other_dir = tempfile::tempdir().unwrap();
    std::fs::write(other_dir.path().join("other"), "other").unwrap();
    let other = lan.start(lan.builder().dir(other_dir.path()).share(Share::Directory)).unwrap();
    other.wait_ready(WAIT).unwrap();
    let node = lan.start(lan.builder().key(key.clone()).timeout(WAIT)).unwrap();
    let fetch = node.fetch("big").unwrap();
    let end = Instant::now() + WAIT;
    while fetch.progress().bytes_fetched == 0 {
        assert!(Instant::now() < end, "{fetch:?}");
        fetch.wait_for(Duration::from_millis(2));
    }
    let begin = Instant::now();
    trust.remove(&key.peer_id()).unwrap();
    let failed = fetch.wait().unwrap_err();
    println!("the fetch that was cut ended after {:?}: {failed}", begin.elapsed());
    let FetchError::Refused { peers } = &*failed.error else { panic!("{failed}") };
    assert_eq!(peers, &[(server.id(), RefusalCause::NotTrustedThere)]);
    assert!(begin.elapsed() < WAIT / 2, "not the timeout, but {:?}", begin.elapsed());
    assert!(failed.report.bytes > 0);
}

#[test]
fn a_holder_that_left_in_the_middle_is_not_nobody() {
    let lan = Lan::new().unwrap();
    let file = TestFile::random("big", 12 << 20, 1).unwrap();
    let peer = FaultyPeer::start(std::slice::from_ref(&file), &[Fault::Delay(Duration::from_millis(20))]).unwrap();
    lan.join(&peer);
    let node = lan.start(lan.builder().timeout(Duration::from_secs(3))).unwrap();
    let fetch = node.fetch("big").unwrap();
    let end = Instant::now() + WAIT;
    while fetch.progress().bytes_fetched < 2 << 20 {
        assert!(Instant::now() < end, "{fetch:?}");
        fetch.wait_for(Duration::from_millis(2));
    }
    drop(peer);
    let failed = fetch.wait().unwrap_err();
    match &*failed.error {
        FetchError::HolderLeft { had, of, .. } => assert!(*had >= 2 << 20 && *of == 12 << 20, "{had} of {of}"),
        error => panic!("{error}"),
    }
    let empty = Lan::new().unwrap();
    let nobody = empty.start(empty.builder().timeout(Duration::from_millis(100))).unwrap();
    let failed = nobody.fetch(file.id).unwrap().wait().unwrap_err();
    assert!(matches!(*failed.error, FetchError::NoPeer(_)), "{failed}");
}
