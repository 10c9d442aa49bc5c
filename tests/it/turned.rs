//! Turned sessions: who cannot be dialed answers on sessions that it opens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gpb::internals::peers::limits::TURNED_PER_NODE_MAX;
use gpb::testing::{Fault, FaultyPeer, Lan, TestFile};
use gpb::{Keypair, Node, NodeBuilder, Share, Trust};

const WAIT: Duration = Duration::from_secs(60);

/// A node that meets others only where it is told to.
fn builder(lan: &Lan) -> NodeBuilder {
    lan.builder().multicast(false).timeout(WAIT)
}

/// A node that shares `file` and that nobody can dial: others see its sessions come from another address than the one
/// where it listens, as behind a NAT.
fn behind_nat(builder: NodeBuilder, dir: &tempfile::TempDir, file: &TestFile, peer: SocketAddr) -> Node {
    std::fs::write(dir.path().join(file.path.as_str()), &*file.bytes).unwrap();
    let node = builder.dir(dir.path()).share(Share::Directory).bind("127.0.0.2").peer(peer).start().unwrap();
    node.wait_ready(WAIT).expect("it is hashed");
    node
}

/// A peer with `files` that nobody can dial, as behind a NAT: who was dialed has no use for an offer.
fn hidden(files: &[TestFile], faults: &[Fault]) -> FaultyPeer {
    FaultyPeer::start_at("127.0.0.2".parse().unwrap(), files, faults).unwrap()
}

/// Sessions on which others offer `node` to answer.
fn offered(node: &Node) -> usize {
    node.client().ctx.peers.turned().offered()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_node_that_nobody_can_dial_gives_to_the_one_that_it_knows() {
    let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let file = TestFile::random("a.bin", 3_000_000, 1).unwrap();
    let outside = builder(&lan).start().unwrap();
    let inside = behind_nat(builder(&lan), &dir, &file, outside.addrs()[0]);
    let report = outside.fetch("a.bin").unwrap().wait().unwrap();
    assert_eq!(report.peers, [(inside.id(), 3_000_000)]);
    assert!(inside.stats().traffic.sent_to.iter().any(|(peer, bytes)| *peer == outside.id() && *bytes > 3_000_000));
}

/// Who asks learns of an offer at once, and who ends takes nothing with it.
#[test]
fn an_offer_ends_with_either_side() {
    let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let file = TestFile::random("a.bin", 1000, 1).unwrap();
    let outside = builder(&lan).start().unwrap();
    let inside = behind_nat(builder(&lan), &dir, &file, outside.addrs()[0]);
    until("an offer comes", || offered(&outside) == 1);
    drop(inside);
    until("it ends with the one who made it", || offered(&outside) == 0);
    let inside = behind_nat(builder(&lan), &dir, &file, outside.addrs()[0]);
    until("an offer comes again", || offered(&outside) == 1);
    drop(outside);
    let answered = || inside.client().ctx.peers.turned().answered().len();
    until("it ends with the one to whom it was made", || answered() == 0);
}

#[test]
fn the_end_of_trust_cuts_an_offer_off() {
    let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let file = TestFile::random("a.bin", 1000, 1).unwrap();
    let keys = [Keypair::generate(), Keypair::generate()];
    let ids = keys.each_ref().map(Keypair::peer_id);
    let trust = || Trust::keys(ids).unwrap();
    let (theirs, ours) = (trust(), trust());
    let outside = builder(&lan).key(keys[0].clone()).trust(theirs.clone()).start().unwrap();
    let inside = behind_nat(builder(&lan).key(keys[1].clone()).trust(ours), &dir, &file, outside.addrs()[0]);
    until("an offer comes", || offered(&outside) == 1);
    theirs.remove(&ids[1]).unwrap();
    until("it is gone", || offered(&outside) == 0);
    until("and told", || inside.client().ctx.peers.turned().answered().is_empty());
}

/// Whichever side ends the trust, nothing more comes, however much was asked for.
#[test]
fn the_end_of_trust_cuts_a_download_on_a_turned_session_off() {
    for by_asker in [true, false] {
        let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
        let file = TestFile::random("a.bin", 20_000_000, 1).unwrap();
        let keys = [Keypair::generate(), Keypair::generate()];
        let ids = keys.each_ref().map(Keypair::peer_id);
        let [theirs, ours] = [(); 2].map(|()| Trust::keys(ids).unwrap());
        let patience = Duration::from_secs(4);
        let asker = builder(&lan).key(keys[0].clone()).trust(theirs.clone()).timeout(patience).start().unwrap();
        let giver = builder(&lan).key(keys[1].clone()).trust(ours.clone()).upload_limit(2_000_000);
        let giver = behind_nat(giver, &dir, &file, asker.addrs()[0]);
        until("an offer comes", || offered(&asker) == 1);
        let fetch = asker.fetch("a.bin").unwrap();
        until("something comes", || fetch.progress().bytes_done > 0);
        assert_eq!(giver.stats().turned.asking, 1);
        let cut = if by_asker { theirs.remove(&ids[1]) } else { ours.remove(&ids[0]) };
        cut.unwrap();
        until("the session ends", || giver.stats().turned.answered == 0);
        let error = fetch.wait().unwrap_err();
        let came = asker.stats().traffic.bytes_received;
        assert!(came < 20_000_000, "by_asker={by_asker}: {came} bytes came, {error}");
    }
}

/// Whoever floods a node with offers has few of them, and others keep theirs.
#[test]
fn offers_are_bounded() {
    let lan = Lan::new().unwrap();
    let file = TestFile::random("a.bin", 1000, 1).unwrap();
    let node = builder(&lan).start().unwrap();
    let flood = hidden(std::slice::from_ref(&file), &[]);
    for n in 1..=10 {
        flood.offer_to(node.addrs()[0]).unwrap();
        until("it is kept", || offered(&node) >= n.min(TURNED_PER_NODE_MAX));
        assert!(offered(&node) <= TURNED_PER_NODE_MAX);
    }
    let other = hidden(&[file], &[]);
    other.offer_to(node.addrs()[0]).unwrap();
    until("another key has its own", || offered(&node) == TURNED_PER_NODE_MAX + 1);
}

/// What comes on a turned session is believed as little as elsewhere.
#[test]
fn whoever_answers_badly_on_a_turned_session_harms_nobody() {
    let file = TestFile::random("a.bin", 3_000_000, 1).unwrap();
    for fault in [Fault::Mute, Fault::DripAll, Fault::WrongChunks, Fault::WrongLayers, Fault::Garbage(1), Fault::Stall]
    {
        let lan = Lan::new().unwrap();
        let node = builder(&lan).start().unwrap();
        let [bad, good] = [&[fault][..], &[]].map(|faults| hidden(std::slice::from_ref(&file), faults));
        for peer in [&bad, &good, &bad, &good] {
            peer.offer_to(node.addrs()[0]).unwrap();
        }
        until("all are there", || offered(&node) == 4);
        let report = node.fetch("a.bin").unwrap().wait().unwrap();
        assert_eq!((report.bytes, report.peers.contains(&(bad.id(), 0))), (3_000_000, false), "{fault:?}");
        let from_good = report.peers.iter().find(|(peer, _)| *peer == good.id());
        assert!(from_good.is_some_and(|(_, bytes)| *bytes > 0), "{fault:?}: {:?}", report.peers);
        assert_eq!(good.connections(), 0, "nobody is dialed");
    }
}
