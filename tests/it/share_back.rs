//! What a node fetched is served by it to others, wherever it was put.

use std::path::Path;
use std::time::Duration;

use gpb::{Node, NodeBuilder, Share};

const WAIT: Duration = Duration::from_secs(20);

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 249 + i / 9999) as u8).collect()
}

fn builder(tmp: &Path, name: &str) -> NodeBuilder {
    let loopback = [127, 0, 0, 1].into();
    let dir = tmp.join(name);
    Node::builder().dir(dir).state(tmp.join(format!("{name}-state"))).bind(loopback).multicast(false).timeout(WAIT)
}

fn addr(node: &Node) -> String {
    node.addrs()[0].to_string()
}

#[test]
fn what_was_fetched_to_elsewhere_is_served_when_it_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let bytes = content(3_000_000);
    std::fs::create_dir(tmp.path().join("source")).unwrap();
    std::fs::write(tmp.path().join("source/large"), &bytes).unwrap();
    let source = builder(tmp.path(), "source").share(Share::Directory).start().unwrap();
    assert_eq!(source.wait_ready(WAIT), Some((1, 3_000_000)));

    // The directory of its configuration is not there at all.
    let middle = builder(tmp.path(), "middle").peer(addr(&source)).start().unwrap();
    let out = tmp.path().join("elsewhere/renamed");
    middle.fetch_to(&["large"], Some(&out)).unwrap().wait().unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes);
    drop(source);

    // Somebody must say what the name means, but it would need minutes to send the file.
    let slow = builder(tmp.path(), "source").share(Share::Directory).upload_limit(10_000).start().unwrap();
    assert_eq!(slow.wait_ready(WAIT), Some((1, 3_000_000)));
    let last = builder(tmp.path(), "last").peer(addr(&slow)).peer(addr(&middle)).start().unwrap();
    let out = tmp.path().join("last/file");
    let fetch = last.fetch_to(&["large"], Some(&out)).unwrap();
    assert!(fetch.wait_for(WAIT), "the node that has the whole file does not serve it");
    let report = fetch.wait().unwrap();
    let given = report.peers.iter().find(|p| p.0 == middle.id()).map_or(0, |p| p.1);
    assert!(given > 2_000_000, "{report:?}");
    assert!(std::fs::read(&out).unwrap() == bytes);
}
