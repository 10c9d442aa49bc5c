//! What is on the disk already is not fetched, by the real programs over loopback.

use std::fs;
use std::os::unix::fs::MetadataExt;

use gpb::Share;
use gpb::testing::Lan;
use serde_json::Value;

use crate::partial_success::{Got, Group};

const CHUNK: usize = 256 << 10;

/// Bytes without two equal chunks, and without zeros.
fn bytes(chunks: usize, seed: u8) -> Vec<u8> {
    (0..chunks * CHUNK).map(|i| (i / CHUNK * 31 + i % 251) as u8 ^ seed | 1).collect()
}

/// What the end says: bytes that were fetched, that were reused, and that are holes.
fn origins(got: &Got) -> (u64, u64, u64) {
    assert_eq!(got.code, Some(0), "{got:?}");
    let done: Value = serde_json::from_str(got.out.lines().last().unwrap()).unwrap();
    let of = |field: &str| done[field].as_u64().unwrap();
    assert_eq!(of("bytes"), of("fetched"));
    (of("fetched"), of("reused"), of("holes"))
}

/// A changed file cost all its bytes.
#[test]
fn a_changed_file_costs_its_changed_chunks() {
    let (old, lines) = (bytes(12, 0), bytes(12, 64));
    let mut group = Group::new(&[&[("image", &old), ("log", &lines), ("mine", &old)]]);
    assert_eq!(origins(&group.get(&["image", "log", "--json"])), (2 * old.len() as u64, 0, 0));
    let mut new = old.clone();
    new[5 * CHUNK + 7] ^= 0xff;
    let mut other = old.clone();
    other[7 * CHUNK] ^= 0xff;
    let longer = [&lines[..], &bytes(1, 99)[..1000]].concat();
    group.put("mine", &old);
    group.share(&[&[("image", &new), ("log", &longer), ("mine", &other)]]);
    let got = group.get(&["image", "log", "--json"]);
    assert_eq!(origins(&got), ((CHUNK + 1000) as u64, (11 * CHUNK + 12 * CHUNK) as u64, 0));
    assert!(group.content("image").unwrap() == new && group.content("log").unwrap() == longer);
    // A file of the user that is replaced helps as well, and is kept where that was asked for.
    assert_eq!(group.get(&["mine"]).code, Some(7));
    assert_eq!(origins(&group.get(&["mine", "--backup", "--json"])), (CHUNK as u64, 11 * CHUNK as u64, 0));
    assert!(group.content("mine").unwrap() == other && group.content("mine~").unwrap() == old);
    assert!(!group.home.path().join("into/.gpb").exists());
}

/// Zeros were fetched and written.
#[test]
fn zeros_are_never_fetched_and_take_no_room() {
    let data = bytes(1, 3);
    let sparse = [&vec![0; 3 * CHUNK][..], &data, &vec![0; 2 * CHUNK + 77]].concat();
    let (small, empty) = (vec![0; 100_000], Vec::new());
    let group = Group::new(&[&[("d/sparse", &sparse), ("d/small", &small), ("d/empty", &empty)]]);
    let got = group.get(&["d", "--json"]);
    assert_eq!(origins(&got), (CHUNK as u64, 0, (5 * CHUNK + 77 + 100_000) as u64));
    for (name, content, room) in [("d/sparse", &sparse, CHUNK), ("d/small", &small, 0), ("d/empty", &empty, 0)] {
        assert!(group.content(name).as_ref() == Some(content), "{name}");
        let path = group.home.path().join("into").join(name);
        let taken = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(taken <= room as u64 + 8192, "{name} takes {taken} bytes");
    }
    let shown = group.get(&["d/sparse", "--out", "elsewhere"]);
    assert!(shown.out.contains("0 B fetched, 256 KiB reused, 1.3 MiB holes"), "{shown:?}");
}

/// A directory that was renamed where it is shared cost all its bytes again.
#[test]
fn what_lies_under_another_name_is_not_fetched() {
    let (big, small) = (bytes(5, 7), bytes(1, 9)[..9000].to_vec());
    let all = |dir: &str| [(format!("{dir}/big"), &big), (format!("{dir}/s/small"), &small)];
    let mut group = Group::new(&[&[("x", b"x")]]);
    let share = |group: &mut Group, dir: &str| {
        let files = all(dir);
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        group.share(&[&files]);
    };
    let total = (big.len() + small.len()) as u64;
    share(&mut group, "first");
    assert_eq!(origins(&group.get(&["first", "--json"])), (total, 0, 0));
    share(&mut group, "second");
    assert_eq!(origins(&group.get(&["second", "--json"])), (0, total, 0));
    // Moved here, too, and no fetch knows where to.
    let into = group.home.path().join("into");
    fs::remove_dir_all(into.join("first")).unwrap();
    fs::rename(into.join("second"), into.join("mine")).unwrap();
    share(&mut group, "third");
    assert_eq!(origins(&group.get(&["third", "--json"])), (0, total, 0));
    // Copies that another program made, of which only the long one is looked for.
    fs::remove_dir_all(into.join("mine")).unwrap();
    fs::copy(into.join("third/big"), into.join("copy")).unwrap();
    fs::remove_dir_all(into.join("third")).unwrap();
    share(&mut group, "fourth");
    assert_eq!(origins(&group.get(&["fourth", "--json"])), (small.len() as u64, big.len() as u64, 0));
    for (name, bytes) in all("fourth") {
        assert!(group.content(&name).as_ref() == Some(bytes), "{name}");
    }
    assert!(!into.join(".gpb").exists());
}

/// Cause: only the records of fetches and the lengths of long files were looked at. Effect: what a server had hashed of the
/// user's own was fetched once more where it had another name, all small files of it.
#[test]
fn what_a_server_shares_under_another_name_is_not_fetched() {
    let big = bytes(3, 5);
    let content = |n: u32| [&n.to_le_bytes()[..], &[1; 700]].concat();
    let fill = |dir: &std::path::Path| {
        fs::create_dir_all(dir.join("s")).unwrap();
        (0..100).for_each(|n| fs::write(dir.join(format!("s/{n}")), content(n)).unwrap());
        fs::write(dir.join("big"), &big).unwrap();
    };
    let lan = Lan::new().unwrap();
    let [theirs, ours, state] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    fill(&theirs.path().join("new"));
    fill(&ours.path().join("mine"));
    let sharer = lan.start(lan.builder().dir(theirs.path()).share(Share::Directory)).unwrap();
    assert_eq!(sharer.wait_ready(crate::programs::WAIT).map(|(files, _)| files), Some(101));
    let node = lan.start(lan.builder().dir(ours.path()).state(state.path()).share(Share::Directory)).unwrap();
    assert_eq!(node.wait_ready(crate::programs::WAIT).map(|(files, _)| files), Some(101));
    // One of them has changed since, behind the server's back as far as it knows.
    fs::write(ours.path().join("mine/s/7"), content(1007)).unwrap();
    let report = node.fetch("new").unwrap().wait().unwrap();
    let all = 100 * content(0).len() as u64 + big.len() as u64;
    assert_eq!((report.bytes, report.local.reused), (content(7).len() as u64, all - content(7).len() as u64));
    (0..100).for_each(|n| assert!(fs::read(ours.path().join(format!("new/s/{n}"))).unwrap() == content(n), "{n}"));
    assert!(fs::read(ours.path().join("new/big")).unwrap() == big);
}

/// Cause: the name that went first took the place of a content before that was copied. Effect: logs that were rotated, and
/// names that changed places, were fetched again.
#[test]
fn names_that_change_places_cost_nothing() {
    let names = |n: usize| -> Vec<String> {
        let big = (0..3).map(|at| format!("big.{at}"));
        big.chain((0..n).map(|at| format!("small/{at:02}"))).collect()
    };
    let content = |n: usize, seed: u8| if n < 3 { bytes(2, seed) } else { vec![seed | 1; 3000 + usize::from(seed)] };
    let all: Vec<Vec<u8>> = (0..23).map(|n| content(n, 2 * n as u8)).collect();
    let shared = |turn: usize| -> Vec<(String, &[u8])> {
        let of = |at: usize| if at < 3 { (at + turn) % 3 } else { 3 + (at - 3 + turn) % 20 };
        names(20).into_iter().enumerate().map(|(at, name)| (name, all[of(at)].as_slice())).collect()
    };
    let total = all.iter().map(Vec::len).sum::<usize>() as u64;
    let mut group = Group::new(&[&[("x", b"x")]]);
    for turn in 0..3 {
        let files = shared(turn);
        group.share(&[&files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect::<Vec<_>>()]);
        let (fetched, reused, holes) = origins(&group.get(&["**", "--json"]));
        assert_eq!((fetched + reused, holes), (total, 0), "turn {turn}");
        assert!(turn == 0 || fetched == 0, "turn {turn}: {fetched} bytes were fetched");
        files.iter().for_each(|(name, bytes)| assert!(group.content(name).as_deref() == Some(*bytes), "{turn} {name}"));
    }
}
