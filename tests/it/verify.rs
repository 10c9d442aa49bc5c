//! `verify` tells what the disk has damaged from what somebody changed, and repairs the former: by the real programs over
//! loopback.

use std::fs;
use std::os::unix::fs::FileExt;

use gpb::internals::store::Disk;
use gpb::{FileId, Overwrite, RelPath};

use crate::partial_success::{Got, Group, large};
use crate::programs::program;

/// What `verify ARGS` says; with the servers of the group, or with no peer.
fn verify(group: &Group, with_peers: bool, args: &[&str]) -> Got {
    let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), group.home.path(), &["verify"]);
    command.args(["--no-multicast", "--bind", "127.0.0.1", "--dir", "into"]).args(args);
    let wait = if with_peers {
        [group.addrs(), vec!["--wait", "20"]].concat()
    } else {
        vec!["--wait", "0.1", "--no-remember"]
    };
    Got::of(&command.args(wait).output().unwrap())
}

/// Changes a byte behind the back of the file system. No program can set the time of the last inode change, so the record is
/// told of the state that the file has then.
fn rot(group: &Group, name: &str, at: u64, id: FileId) {
    let into = group.home.path().join("into");
    let file = fs::File::options().read(true).write(true).open(into.join(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    let state = group.home.path().join(".local/state/gpb");
    let disk = Disk::open_guarded(&into, false, Overwrite::Refuse, Some(&state)).unwrap();
    disk.note(&disk.local_name(&RelPath::new(name).unwrap()).unwrap(), id);
    disk.finish_record();
}

/// The content of a name, as `verify` tells it.
fn content(got: &Got, name: &str) -> FileId {
    let events = got.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = events.into_iter().find(|e| e["path"] == name).unwrap();
    format!("{}:{}", row["root"].as_str().unwrap(), row["len"]).parse().unwrap()
}

fn states(got: &Got) -> Vec<(String, String)> {
    let events = got.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = |e: &serde_json::Value| {
        let text = |field: &str| e[field].as_str().unwrap().to_owned();
        (e["event"] == "verify").then(|| (text("path"), text("state")))
    };
    events.filter_map(|e| row(&e)).collect()
}

fn told(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(path, state)| (path.to_string(), state.to_string())).collect()
}

#[test]
fn what_the_disk_has_damaged_is_repaired_and_what_somebody_changed_is_left() {
    let big = large(3);
    let group = Group::new(&[&[("big", &big), ("d/edited", b"theirs"), ("d/same", b"same"), ("other", b"other")]]);
    assert_eq!(group.get(&["**"]).code, Some(0));
    group.put("mine", b"mine");
    fs::remove_file(group.home.path().join("into/other")).unwrap();
    group.put("other", b"mine, too");
    let good = [("big", "ok"), ("d/edited", "ok"), ("d/same", "ok"), ("mine", "unknown")];
    let got = verify(&group, false, &["big", "d", "mine", "--json"]);
    assert_eq!((got.code, states(&got)), (Some(0), told(&good)), "{got:?}");
    assert!(got.errors.contains("note: not compared with the group"), "{got:?}");

    rot(&group, "big", 300_000, content(&got, "big"));
    group.put("d/edited", b"mine");
    let bad = [("big", "damaged"), ("d/edited", "edited"), ("d/same", "ok"), ("mine", "unknown"), ("other", "edited")];
    for with_peers in [false, true] {
        let got = verify(&group, with_peers, &["--json"]);
        assert_eq!((got.code, states(&got)), (Some(7), told(&bad)), "{got:?}");
    }
    assert_eq!(verify(&group, true, &["d"]).code, Some(1));
    assert_eq!(verify(&group, true, &["none"]).code, Some(7));
    assert_eq!(verify(&group, true, &["../x"]).code, Some(2));
    assert_eq!(verify(&group, false, &["--repair"]).code, Some(7), "without peers it stays damaged");
    assert_eq!(states(&verify(&group, true, &["big", "--json"])), told(&bad[..1]), "and is still known to be");

    let got = verify(&group, true, &["--repair"]);
    assert_eq!((got.code, group.content("big")), (Some(1), Some(big.clone())), "{got:?}");
    let kept = ["d/edited", "mine", "other"].map(|name| group.content(name).unwrap());
    assert_eq!(kept, [&b"mine"[..], b"mine", b"mine, too"]);
    let got = verify(&group, true, &["--repair", "--force"]);
    assert_eq!((got.code, group.content("d/edited")), (Some(0), Some(b"theirs".to_vec())), "{got:?}");
    assert_eq!((group.content("mine"), group.content("other")), (Some(b"mine".to_vec()), Some(b"other".to_vec())));
}

/// Cause: only what lies there was looked at. Effect: a file that a fetch had put there and that was gone was not told.
#[test]
fn what_was_fetched_and_is_gone_is_told_and_comes_back_by_force() {
    let mut group = Group::new(&[&[("a", b"a"), ("d/b", b"b"), ("d/mine", b"c")]]);
    assert_eq!(group.get(&["a", "d/b"]).code, Some(0));
    fs::remove_dir_all(group.home.path().join("into/d")).unwrap();
    fs::create_dir_all(group.home.path().join("into/d/b")).unwrap();
    assert_eq!(verify(&group, true, &["--json"]).code, Some(1), "a directory has its name");
    fs::remove_dir_all(group.home.path().join("into/d")).unwrap();
    let told = told(&[("a", "ok"), ("d/b", "gone")]);
    let got = verify(&group, true, &["--json"]);
    assert_eq!((got.code, states(&got)), (Some(1), told.clone()), "{got:?}");
    let got = verify(&group, true, &["--json", "--repair"]);
    assert_eq!((got.code, group.content("d/b")), (Some(1), None), "somebody may have removed it: {got:?}");
    assert_eq!(states(&verify(&group, true, &["./a", "--json"])), told[..1]);
    let got = verify(&group, true, &["--repair", "--force"]);
    assert_eq!((got.code, group.content("d/b")), (Some(0), Some(b"b".to_vec())), "{got:?}");
    // It was moved.
    fs::rename(group.home.path().join("into/d/b"), group.home.path().join("into/b")).unwrap();
    assert_eq!(verify(&group, true, &[]).code, Some(0));
    fs::rename(group.home.path().join("into/b"), group.home.path().join("into/d/b")).unwrap();
    // What no peer has now may be gone because of that.
    fs::remove_file(group.home.path().join("into/d/b")).unwrap();
    group.share(&[&[("a", b"a")]]);
    let got = verify(&group, true, &["--json"]);
    assert_eq!((got.code, states(&got)), (Some(0), told[..1].to_vec()), "{got:?}");
}

/// Cause: a content that lay under any other name counted as moved there. Effect: of two equal files one could be gone
/// without a word.
#[test]
fn a_gone_file_is_told_though_another_one_is_equal() {
    let group = Group::new(&[&[("a", b"same"), ("c", b"same")]]);
    assert_eq!(group.get(&["**"]).code, Some(0));
    fs::remove_file(group.home.path().join("into/c")).unwrap();
    let got = verify(&group, true, &["--json"]);
    assert_eq!((got.code, states(&got)), (Some(1), told(&[("a", "ok"), ("c", "gone")])), "{got:?}");
    assert_eq!(verify(&group, true, &["--repair", "--force"]).code, Some(0));
    assert_eq!(group.content("c"), Some(b"same".to_vec()));
}
