//! What a node fetched is served by it to others, wherever it was put.

use std::path::Path;
use std::time::Duration;

use gpb::{Node, NodeBuilder, Share};

const WAIT: Duration = Duration::from_secs(60);

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 249 + i / 9999) as u8).collect()
}

fn builder(tmp: &Path, name: &str) -> NodeBuilder {
    let loopback = "127.0.0.1";
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
    middle.get("large").to_file(&out).start().unwrap().wait().unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes);
    drop(source);

    // Somebody must say what the name means, but it would need minutes to send the file.
    let slow = builder(tmp.path(), "source").share(Share::Directory).upload_limit(10_000).start().unwrap();
    assert_eq!(slow.wait_ready(WAIT), Some((1, 3_000_000)));
    let last = builder(tmp.path(), "last").peer(addr(&slow)).peer(addr(&middle)).start().unwrap();
    let out = tmp.path().join("last/file");
    let fetch = last.get("large").to_file(&out).start().unwrap();
    assert!(fetch.wait_for(WAIT), "the node that has the whole file does not serve it");
    let report = fetch.wait().unwrap();
    let given = report.peers.iter().find(|p| p.0 == middle.id()).map_or(0, |p| p.1);
    assert!(given > 2_000_000, "{report:?}");
    assert!(std::fs::read(&out).unwrap() == bytes);
}

#[test]
fn what_was_fetched_is_listed_when_it_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let bytes = content(3_000_000);
    for dir in ["source/d", "middle", "last", "late"] {
        std::fs::create_dir_all(tmp.path().join(dir)).unwrap();
    }
    std::fs::write(tmp.path().join("source/d/large"), &bytes).unwrap();
    std::fs::write(tmp.path().join("source/d/copy"), &bytes).unwrap();
    // Nothing is near its end when it is looked at.
    let source = builder(tmp.path(), "source").share(Share::Directory).upload_limit(300_000).start().unwrap();
    assert_eq!(source.wait_ready(WAIT), Some((2, 6_000_000)));

    let middle = builder(tmp.path(), "middle").peer(addr(&source)).start().unwrap();
    let fetch = middle.fetch("d").unwrap();
    while fetch.progress().bytes_done == 0 {
        assert!(!fetch.wait_for(Duration::from_millis(5)), "it ended before it was looked at");
    }
    let holders = |node: &Node| -> Vec<_> {
        let found = node.list_within(gpb::Everything, WAIT).unwrap();
        found.iter().map(|f| (f.path.to_string(), f.holders.len(), f.shared)).collect()
    };
    let of = |count, shared| [("d/copy".to_string(), count, shared), ("d/large".to_string(), count, shared)];
    let last = builder(tmp.path(), "last").peer(addr(&source)).peer(addr(&middle)).start().unwrap();
    assert_eq!(holders(&last), of(1, true), "what is only partly there is not listed");
    assert!(middle.catalogue().is_empty());

    source.set_upload_limit(None);
    fetch.wait().unwrap();
    assert_eq!(holders(&last), of(2, true));
    assert_eq!(middle.catalogue().len(), 2);
    drop((last, source));

    let last = builder(tmp.path(), "last").peer(addr(&middle)).start().unwrap();
    assert_eq!(holders(&last), of(1, false));
    let root = middle.catalogue().get("d/large").unwrap().id.root.to_string();
    for (what, path) in [("d/copy", "d/copy"), (&root, "d/copy"), ("d", "d/large")] {
        last.fetch(what).unwrap().wait().unwrap();
        assert!(std::fs::read(tmp.path().join("last").join(path)).unwrap() == bytes, "{what}");
    }
    drop(last);

    // It is withdrawn when the first one to ask finds it changed.
    std::fs::write(tmp.path().join("middle/d/copy"), b"other").unwrap();
    let late = builder(tmp.path(), "late").peer(addr(&middle)).timeout(Duration::from_secs(4)).start().unwrap();
    assert!(late.fetch("d/large").unwrap().wait().is_err());
    assert!(middle.catalogue().is_empty());
}
