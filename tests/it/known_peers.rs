//! Peers that a node knows before it hears of any: those of earlier runs, and those of the peer file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gpb::internals::swarm::{RememberedError, RememberedPeers};
use gpb::{Node, NodeBuilder, Share, State, Trust};

use crate::programs::{Server, free_port, program};

const WAIT: Duration = Duration::from_secs(60);

/// A node on loopback that hears no announce, and that no other one dials.
fn deaf(state: impl Into<State>) -> NodeBuilder {
    Node::builder().state(state).bind("127.0.0.1").multicast(false).share(Share::Nothing)
}

/// Waits until this many peers were found by name, by memory and by the peer file.
fn until_found(node: &Node, by: [usize; 3]) {
    until(&format!("found by name, memory and file: {by:?}"), || {
        let counts = node.stats().peers;
        [counts.by_contact, counts.by_memory, counts.by_peer_file] == by
    });
}

/// A node that shares a file of 100 kB under this name.
fn giver(home: &Path, name: &str) -> Node {
    let dir = home.join(format!("dir-{name}"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(name), name.repeat(100_000 / name.len())).unwrap();
    let node = deaf(State::Memory).dir(dir).share(Share::Directory).start().unwrap();
    assert!(node.wait_ready(WAIT).is_some());
    node
}

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn knows(node: &Node, other: &Node) -> bool {
    node.known_peers().iter().any(|known| known.node.peer == other.id())
}

/// A state directory whose node has met `other`.
fn met(home: &Path, other: &Node) -> std::path::PathBuf {
    let state = home.join(format!("state-{}", rand::random::<u64>()));
    let first = deaf(&state).peer(other.addrs()[0]).start().unwrap();
    until("the named peer", || knows(&first, other));
    until_found(&first, [1, 0, 0]);
    drop(first);
    state
}

fn remembered(state: &Path) -> Result<RememberedPeers, RememberedError> {
    RememberedPeers::parse(&fs::read_to_string(state.join("peers.known")).unwrap())
}

#[test]
fn a_second_start_finds_its_group_without_being_told() {
    let home = tempfile::tempdir().unwrap();
    let other = giver(home.path(), "a.bin");
    let state = met(home.path(), &other);
    let mode = fs::metadata(state.join("peers.known")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "addresses are nobody else's business");
    let kept = fs::read(state.join("peers.known")).unwrap();

    for (what, by_root) in
        [("a.bin".to_string(), false), (other.catalogue().iter().next().unwrap().id.root.to_string(), true)]
    {
        let out = home.path().join(format!("out-{by_root}"));
        let began = Instant::now();
        let second = deaf(&state).dir(&out).create_dir(true).start().unwrap();
        let report = second.fetch(what.as_str()).unwrap().wait().unwrap();
        println!("second start, first 100 kB by_root={by_root}: {:?}", began.elapsed());
        assert_eq!(report.fetched.len(), 1);
        until_found(&second, [0, 1, 0]);
    }
    assert_eq!(fs::read(state.join("peers.known")).unwrap(), kept, "nothing new, nothing written");
    assert!(!state.join("peers.known.new").exists());
}

#[test]
fn who_wants_no_memory_leaves_none() {
    let home = tempfile::tempdir().unwrap();
    let other = giver(home.path(), "a.bin");
    let state = met(home.path(), &other);
    let kept = fs::read(state.join("peers.known")).unwrap();
    let forgetful = deaf(&state).remember(false).peer("127.0.0.1:9").start().unwrap();
    assert!(forgetful.peers(Duration::from_millis(300)).unwrap().is_empty());
    assert_eq!(forgetful.stats().peers.known, 0);
    drop(forgetful);
    assert_eq!(fs::read(state.join("peers.known")).unwrap(), kept);

    let fresh = home.path().join("fresh");
    let node = deaf(&fresh).remember(false).peer(other.addrs()[0]).start().unwrap();
    until("the named peer", || knows(&node, &other));
    drop(node);
    assert!(!fresh.join("peers.known").exists());
}

#[test]
fn a_key_that_lost_trust_is_not_dialed_and_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (giver(home.path(), "one.bin"), giver(home.path(), "two.bin"));
    let state = met(home.path(), &one);
    let closed = deaf(&state).trust(Trust::keys([two.id()]).unwrap()).peer(two.addrs()[0]).start().unwrap();
    until("the trusted peer", || knows(&closed, &two));
    assert!(!knows(&closed, &one) && closed.stats().peers.known == 1);
    drop(closed);
    let left = remembered(&state).unwrap();
    let keys: Vec<_> = left.of_network("gpb").iter().map(|known| known.peer).collect();
    assert_eq!(keys, [two.id()]);
}

#[test]
fn another_network_is_another_memory() {
    let home = tempfile::tempdir().unwrap();
    let other = giver(home.path(), "a.bin");
    let state = met(home.path(), &other);
    let elsewhere = deaf(&state).network("elsewhere").start().unwrap();
    assert!(elsewhere.peers(Duration::from_millis(300)).unwrap().is_empty());
    drop(elsewhere);
    assert_eq!(remembered(&state).unwrap().of_network("gpb").len(), 1);
}

/// What lies there is a hint and never an obstacle: whatever the file holds, the node starts, and the next proof
/// makes it a good one.
#[test]
fn a_file_that_is_torn_or_hostile_counts_for_nothing() {
    let home = tempfile::tempdir().unwrap();
    let other = giver(home.path(), "a.bin");
    let state = met(home.path(), &other);
    let good = fs::read(state.join("peers.known")).unwrap();
    let line = String::from_utf8(good.clone()).unwrap().lines().nth(1).unwrap().to_string();
    let flood = format!("GPB peers 1\n{}end 5000\n", format!("{line}\n").repeat(5000));
    let cases: [&[u8]; 6] =
        [b"", &good[..good.len() / 2], b"\xff\xfe\x00", b"GPB peers 9\nend 0\n", flood.as_bytes(), &[b'x'; 1 << 20]];
    for bad in cases {
        fs::write(state.join("peers.known"), bad).unwrap();
        let node = deaf(&state).start().unwrap();
        assert!(node.peers(Duration::from_millis(100)).unwrap().is_empty());
        node.add_peer(other.addrs()[0]).unwrap();
        until("the named peer", || knows(&node, &other));
        drop(node);
        assert_eq!(remembered(&state).unwrap().len(), 1);
    }
    // A directory in its place cannot be replaced; the node runs all the same.
    fs::remove_file(state.join("peers.known")).unwrap();
    fs::create_dir(state.join("peers.known")).unwrap();
    drop(deaf(&state).peer(other.addrs()[0]).start().unwrap());
}

#[test]
fn a_peer_file_is_followed_line_by_line() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (giver(home.path(), "one.bin"), giver(home.path(), "two.bin"));
    let file = home.path().join("peer-file");
    fs::write(&file, format!("# the lab\n{}  # first\nno such:line\n", one.addrs()[0])).unwrap();
    let node = deaf(State::Memory).peer_file(&file).start().unwrap();
    until("the first of the file", || knows(&node, &one));
    until_found(&node, [0, 0, 1]);
    // By name, which has several addresses on most hosts; the line before it is still bad.
    fs::write(&file, format!("?\nlocalhost:{}\n", two.addrs()[0].port())).unwrap();
    until("the second of the file", || knows(&node, &two));
    until_found(&node, [0, 0, 2]);
    fs::remove_file(&file).unwrap();
    let missing = deaf(State::Memory).peer_file(&file).start().unwrap_err();
    assert!(missing.to_string().contains("peer-file"), "{missing}");
}

/// A client that shares the key of a server remembers it. The server dialed itself each second at its next start.
#[test]
fn a_server_is_no_peer_of_itself() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir(home.join("shared")).unwrap();
    let server = Server::start_at(free_port(), home, &["--dir", "shared"], None);
    assert!(server.client(home, &["peers", "--wait", "20"]).status.success());
    let addr = server.addr().to_string();
    drop(server);
    assert!(fs::read_to_string(home.join(".local/state/gpb/peers.known")).unwrap().contains(&addr));
    let port = addr.rsplit(':').next().unwrap();
    let args = ["--dir", "shared", "--bind", "127.0.0.1", "--port", port, "--no-multicast", "--log-level", "debug"];
    let mut again = program(assert_cmd::cargo::cargo_bin!("gpb-server"), home, &args);
    let mut again = again.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(again.stderr.take().unwrap()).lines().map_while(Result::ok);
    let is_told = |line: &String| line.contains("this node itself is there") || line.contains("peers exchanged");
    let told = log.find(is_told);
    let _ = again.kill();
    let _ = again.wait();
    assert!(told.as_ref().is_some_and(|line| line.contains("itself")), "{told:?}");
}
