//! What a program changes while its node runs: trusted keys, rates, peers.

use std::time::{Duration, Instant};

use gpb::error::{ConfigError, PublishError};
use gpb::internals::limits::STATIC_PEERS_MAX;
use gpb::testing::Lan;
use gpb::{Event, Fetch, Keypair, Node, NodeBuilder, Trust};

const WAIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A node that gives 24 MiB at 2 MB/s, which takes 12 s.
fn giver(lan: &Lan, dir: &tempfile::TempDir, builder: NodeBuilder) -> Node {
    std::fs::write(dir.path().join("big.bin"), noise(24 * MIB as usize)).unwrap();
    let builder = builder.dir(dir.path()).share(gpb::Share::Directory).upload_limit(2_000_000);
    let node = lan.start(builder).unwrap();
    assert!(node.wait_ready(WAIT).is_some());
    node
}

/// A node that takes it, and has some of it.
fn taker(lan: &Lan, builder: NodeBuilder) -> (Node, Fetch) {
    let client = lan.start(builder).unwrap();
    let fetch = client.fetch("big.bin").unwrap();
    until("some bytes", || fetch.progress().bytes_fetched > MIB);
    (client, fetch)
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// At 2 MB/s that is half a second: some more chunks that were on their way may still be verified.
const AFTER_CUT: u64 = MIB;

/// Bounds of a cut under load. Alone, the last byte goes out within 50 ms, and the fetch ends within a
/// second; all of the file takes 12.
const CUT_WITHIN: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));

/// Until `fetch` has ended: when the last of the bytes came that `count` counts, and when it ended,
/// since `begin`.
fn last_change(begin: Instant, fetch: &Fetch, count: impl Fn() -> u64) -> (Duration, Duration) {
    let (mut seen, mut changed) = (count(), Duration::ZERO);
    loop {
        let has_ended = fetch.wait_for(Duration::from_micros(500));
        let now = count();
        if now != seen {
            (seen, changed) = (now, begin.elapsed());
        }
        if has_ended {
            return (changed, begin.elapsed());
        }
        assert!(begin.elapsed() < WAIT, "the fetch does not end");
    }
}

#[test]
fn a_key_that_is_removed_in_code_is_cut_off_at_once() {
    let (lan, key) = (Lan::new().unwrap(), Keypair::generate());
    let trust = Trust::keys([key.peer_id()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = giver(&lan, &dir, lan.builder().trust(trust.clone()));
    let (_client, fetch) = taker(&lan, lan.builder().key(key.clone()).timeout(WAIT));
    let begin = Instant::now();
    assert_eq!(trust.remove(&key.peer_id()), Ok(true));
    let before = fetch.progress().bytes_fetched;
    assert!(server.known_peers().is_empty(), "it is no peer any more when the call returns");
    let (last_byte, end) = last_change(begin, &fetch, || server.stats().traffic.bytes_sent);
    println!("the last byte went out {last_byte:?} after the key was removed, the fetch ended after {end:?}");
    assert!(last_byte < CUT_WITHIN.0 && end < CUT_WITHIN.1, "{last_byte:?}, {end:?}");
    let after = fetch.progress().bytes_fetched;
    assert!(after - before < AFTER_CUT, "{before} and then {after} bytes");
    assert!(fetch.wait().is_err());
    // It comes back as soon as it is trusted again.
    let other = lan.start(lan.builder().key(key.clone())).unwrap();
    assert_eq!(trust.insert(key.peer_id()), Ok(true));
    until("the file", || other.list_within("big.bin", Duration::from_secs(1)).is_ok_and(|found| found.len() == 1));
}

#[test]
fn a_holder_that_loses_trust_is_asked_no_more() {
    let (lan, holder) = (Lan::new().unwrap(), Keypair::generate());
    let trust = Trust::keys([holder.peer_id()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let _server = giver(&lan, &dir, lan.builder().key(holder));
    let (client, fetch) = taker(&lan, lan.builder().trust(trust.clone()).timeout(Duration::from_secs(4)));
    let begin = Instant::now();
    assert_eq!(trust.replace([]), Ok(true));
    let before = fetch.progress().bytes_fetched;
    assert!(client.known_peers().is_empty());
    let (last_byte, end) = last_change(begin, &fetch, || fetch.progress().bytes_fetched);
    println!("the last byte counted {last_byte:?} after the trust ended, the fetch ended after {end:?}");
    assert!(last_byte < CUT_WITHIN.0 && end < CUT_WITHIN.1, "{last_byte:?}, {end:?}");
    let after = fetch.progress().bytes_fetched;
    assert!(after - before < AFTER_CUT, "{before} and then {after} bytes");
}

#[test]
fn limits_change_under_a_running_transfer() {
    let lan = Lan::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.bin"), noise(8 * MIB as usize)).unwrap();
    let server = lan.builder().dir(dir.path()).share(gpb::Share::Directory).upload_limit(50_000);
    let server = lan.start(server).unwrap();
    assert!(server.wait_ready(WAIT).is_some());
    let client = lan.start(lan.builder().download_limit(0)).unwrap();
    let fetch = client.fetch("a.bin").unwrap();
    // At these rates the file takes minutes.
    assert!(!fetch.wait_for(Duration::from_millis(300)));
    client.set_download_limit(None);
    assert!(!fetch.wait_for(Duration::from_millis(300)));
    server.set_upload_limit(None);
    until("the end of the fetch", || fetch.wait_for(Duration::from_millis(10)));
    assert_eq!(fetch.wait().unwrap().bytes, 8 * MIB);
    // And down again.
    client.set_download_limit(Some(50_000));
    std::fs::remove_file(client.config().dir.as_ref().unwrap().join("a.bin")).unwrap();
    let fetch = client.fetch("a.bin").unwrap();
    assert!(!fetch.wait_for(Duration::from_secs(1)), "{:?}", fetch.progress());
}

#[test]
fn a_peer_can_be_added_while_the_node_runs() {
    // Two LANs: no announce leads from one to the other.
    let (here, there) = (Lan::new().unwrap(), Lan::new().unwrap());
    let (node, other) = (here.node().unwrap(), there.node().unwrap());
    let events = node.events();
    assert_eq!(events.try_recv(), Ok(Event::Known(vec![])));
    node.add_peer(other.addrs()[0]).unwrap();
    let joined = |e: Event| matches!(e, Event::PeerJoined { .. });
    assert!(joined(events.recv_timeout(WAIT).unwrap()));
    // By name, which starts the resolver; and again, which is no error.
    let late = here.node().unwrap();
    let name = format!("localhost:{}", other.addrs()[0].port());
    late.add_peer(name.as_str()).unwrap();
    late.add_peer(name).unwrap();
    until("the named peer", || late.known_peers().iter().any(|k| k.node.peer == other.id()));
    assert!(matches!(node.add_peer("a b"), Err(ConfigError::Peer(_))));
    for n in 1..STATIC_PEERS_MAX {
        node.add_peer(format!("127.0.0.1:{n}")).unwrap();
    }
    assert_eq!(node.add_peer("127.0.0.1:9999"), Err(ConfigError::TooManyPeers(STATIC_PEERS_MAX)));
    assert_eq!(node.add_peer("127.0.0.1:7"), Ok(()), "it is there already");
}

#[test]
fn a_file_is_offered_as_soon_as_it_is_hashed() {
    let lan = Lan::new().unwrap();
    let (node, other) = (lan.sharing(&[("old", b"old")]).unwrap(), lan.node().unwrap());
    until("the peer", || other.known_peers().len() == 1);
    let dir = node.config().dir.clone().unwrap();
    let mut took = Vec::new();
    for n in 0..5 {
        let bytes = noise(MIB as usize + n);
        std::fs::write(dir.join("new.bin"), &bytes).unwrap();
        let began = Instant::now();
        let id = node.publish("new.bin").unwrap();
        took.push(began.elapsed());
        assert!(node.is_here(&id) && !other.is_here(&id));
        let here = tempfile::tempdir().unwrap();
        other.get(id).to_file(here.path().join("x")).start().unwrap().wait().unwrap();
        assert!(std::fs::read(here.path().join("x")).unwrap() == bytes);
        assert_eq!(node.publish("new.bin"), Ok(id), "again, and at once");
    }
    println!("published 1 MiB in {took:?}");
    assert!(took.iter().min().unwrap() < &Duration::from_millis(400), "without the time of quiet: {took:?}");
}

#[test]
fn what_is_no_file_is_not_published_and_what_is_forgotten_stays_so() {
    let lan = Lan::new().unwrap();
    let (node, other) = (lan.sharing(&[("d/a", b"a"), ("b", b"b")]).unwrap(), lan.node().unwrap());
    let dir = node.config().dir.clone().unwrap();
    assert!(matches!(node.publish("none"), Err(PublishError::NotFound(_))));
    assert!(matches!(node.publish("d"), Err(PublishError::NotShared { .. })));
    assert!(matches!(node.publish("../b"), Err(PublishError::Name { .. })));
    assert_eq!(other.publish("b"), Err(PublishError::NotSharing));
    std::fs::write(dir.join("link"), "").unwrap();
    std::fs::remove_file(dir.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    assert!(matches!(node.publish("link"), Err(PublishError::NotShared { .. })));

    let id = node.publish("b").unwrap();
    assert_eq!((node.forget("b"), node.forget("b"), node.forget("none")), (Ok(true), Ok(false), Ok(false)));
    assert!(!node.is_here(&id) && node.catalogue().get("b").is_none());
    let names = |node: &Node| -> Vec<String> { node.catalogue().iter().map(|e| e.path.to_string()).collect() };
    assert_eq!(names(&node), ["d/a"]);
    // A change of another file, and one that leaves it as it is, bring it not back.
    std::fs::write(dir.join("c"), "c").unwrap();
    until("the other file", || names(&node) == ["c", "d/a"]);
    assert_eq!(node.publish("b"), Ok(id));
    assert_eq!(names(&node), ["b", "c", "d/a"]);
    assert_eq!(node.forget("b"), Ok(true));
    std::fs::write(dir.join("b"), "changed").unwrap();
    until("the changed file", || names(&node) == ["b", "c", "d/a"]);
}

#[test]
fn what_was_fetched_into_the_shared_directory_is_forgotten_too() {
    let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let _source = lan.sharing(&[("d/a", b"a")]).unwrap();
    let node = lan.start(lan.builder().dir(dir.path()).share(gpb::Share::Directory)).unwrap();
    let id = node.fetch("d/a").unwrap().wait().unwrap().fetched[0].id;
    assert!(node.is_here(&id));
    assert_eq!(node.forget("d/a"), Ok(true));
    assert!(!node.is_here(&id), "neither as shared nor as fetched");
    assert_eq!(node.forget("d/a"), Ok(false));
    assert_eq!(node.publish("d/a"), Ok(id));
    assert!(node.is_here(&id));
}

#[test]
fn publishing_ends_with_the_node() {
    let lan = Lan::new().unwrap();
    let node = lan.sharing(&[]).unwrap();
    let file = std::fs::File::create(node.config().dir.as_ref().unwrap().join("huge")).unwrap();
    file.set_len(1 << 42).unwrap();
    let stopper = node.stopper();
    let publishing = std::thread::spawn(move || node.publish("huge"));
    std::thread::sleep(Duration::from_millis(20));
    stopper.stop();
    let ended = publishing.join().unwrap();
    // Holes are not read, so that even this file may have been hashed by then.
    assert!(matches!(ended, Ok(_) | Err(PublishError::Stopped)), "{ended:?}");
}
