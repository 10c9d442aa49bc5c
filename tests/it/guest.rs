//! What a node does to the process that it is a guest in: nothing that outlasts it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use gpb::error::{ConfigError, FetchError};
use gpb::testing::Lan;
use gpb::{Keypair, Node, NodeBuilder, Share, StartError, State};

const WAIT: Duration = Duration::from_secs(20);

/// What a node must leave as it is.
fn process_state() -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    let kept = ["Umask:", "SigBlk:", "SigIgn:", "SigCgt:", "Threads:", "NoNewPrivs:"];
    // Of this thread: the system library blocks the signals of another one while that one starts a thread.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    for line in status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))) {
        let (name, value) = line.split_once(':').unwrap();
        state.insert(name.into(), value.trim().into());
    }
    state.insert("limits".into(), std::fs::read_to_string("/proc/self/limits").unwrap());
    state.insert("environment".into(), format!("{:?}", std::env::vars_os().collect::<BTreeMap<_, _>>()));
    state.insert("directory".into(), format!("{:?}", std::env::current_dir().unwrap()));
    // The descriptor that reads the directory is gone when its link is read.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| e.path());
    let open: Vec<_> = open.filter_map(|fd| Some((fd.clone(), std::fs::read_link(fd).ok()?))).collect();
    state.insert("descriptors".into(), format!("{open:?}"));
    state
}

/// Waits until this process has `count` threads: one that was joined is counted until the system has cleaned up behind it.
fn until_threads(count: &str) {
    let end = Instant::now() + WAIT;
    while process_state()["Threads"] != count {
        assert!(Instant::now() < end, "{} threads instead of {count}", process_state()["Threads"]);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node without a directory, which leaves nothing behind.
fn guest() -> NodeBuilder {
    Node::builder().state(State::Memory).bind(Ipv4Addr::LOCALHOST).interface("127.0.0.1")
}

/// Runs in a process of its own, where no other test starts threads: see below.
#[test]
#[ignore = "is run by a_node_leaves_the_process_as_it_found_it"]
fn alone_in_its_process() {
    let threads = process_state()["Threads"].clone();
    // What the process does once and for all: the table of SIMD functions, the source of random numbers.
    drop(guest().network("guest-0").start().unwrap());
    until_threads(&threads);
    let before = process_state();
    for round in 0..3 {
        let lan = Lan::new().unwrap();
        let server = lan.sharing(&[("a.bin", &[7; 300_000])]).unwrap();
        let client = lan.node().unwrap();
        client.fetch("a.bin").unwrap().wait().unwrap();
        drop((client, server, lan));
        let multicast = guest().network(format!("guest-{round}")).start().unwrap();
        let events = multicast.events();
        assert!(multicast.peers(Duration::from_millis(10)).unwrap().is_empty());
        let offered = multicast.offer("x", vec![0; 3 << 20]).unwrap();
        assert!(offered.wait().is_ok());
        drop((multicast, events, offered));
    }
    until_threads(&threads);
    let after = process_state();
    for (name, value) in &before {
        assert_eq!(after.get(name), Some(value), "{name}");
    }
    // Only on request, and then for good.
    drop(guest().network("guest-0").raise_file_limit(true).start().unwrap());
    let raised = process_state();
    let files = |state: &BTreeMap<String, String>| {
        let line = state["limits"].lines().find(|line| line.starts_with("Max open files")).unwrap();
        let mut words = line.split_whitespace().skip(3).map(str::to_string);
        (words.next().unwrap(), words.next().unwrap())
    };
    assert_eq!(files(&after).0, "256");
    assert_eq!(files(&raised).0, files(&raised).1);
}

#[test]
fn a_node_leaves_the_process_as_it_found_it() {
    let program = std::env::current_exe().unwrap();
    let run =
        format!("ulimit -S -n 256; exec {program:?} --exact guest::alone_in_its_process --ignored --test-threads 1");
    let output = Command::new("sh").args(["-c", &run]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_node_without_a_directory_lists_and_fetches_to_places_that_are_given() {
    let (lan, home) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    let _server = lan.sharing(&[("docs/a.txt", b"hello")]).unwrap();
    let node = Node::builder().state(State::Memory).bind(Ipv4Addr::LOCALHOST);
    let node = lan.start(node).unwrap();
    assert_eq!((node.config().dir.as_ref(), node.config().state.clone()), (None, State::Memory));
    let files = node.list_within("docs", WAIT).unwrap();
    assert_eq!(files.len(), 1);
    let error = node.fetch(&files[0]).unwrap_err();
    assert!(matches!(error, FetchError::NoDirectory), "{error}");
    node.get(&files[0]).to_file(home.path().join("b.txt")).start().unwrap().wait().unwrap();
    node.get("docs").into_dir(home.path().join("all")).start().unwrap().wait().unwrap();
    assert_eq!(std::fs::read(home.path().join("b.txt")).unwrap(), b"hello");
    assert_eq!(std::fs::read(home.path().join("all/docs/a.txt")).unwrap(), b"hello");
    let shares = Node::builder().state(State::Memory).share(Share::Directory).multicast(false).start();
    assert!(matches!(shares, Err(StartError::Config(ConfigError::NoDir))), "{shares:?}");
}

#[test]
fn a_state_in_memory_leaves_nothing_and_still_shares() {
    let (lan, dir) = (Lan::new().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("a.bin"), vec![5; 700_000]).unwrap();
    let start = |key: Option<Keypair>| {
        let node = Node::builder().state(State::Memory).bind(Ipv4Addr::LOCALHOST);
        let node = node.dir(dir.path()).share(Share::Directory);
        lan.start(key.into_iter().fold(node, NodeBuilder::key)).unwrap()
    };
    let (one, other) = (start(None), start(None));
    assert_ne!(one.id(), other.id(), "a new key for each start");
    let key = Keypair::generate();
    assert_eq!(start(Some(key.clone())).id(), key.peer_id());
    assert_eq!(one.wait_ready(WAIT), Some((1, 700_000)));
    let client = lan.node().unwrap();
    client.fetch("a.bin").unwrap().wait().unwrap();
    drop((one, other));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["a.bin"]);
}
