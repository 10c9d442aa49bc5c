//! `get` replaces what it fetched before, and nothing of the user's unless told so, by the real programs over loopback.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::partial_success::{Group, large};
use crate::programs::program;

fn failed(names: &[&str]) -> Vec<(String, u64)> {
    names.iter().map(|name| (name.to_string(), 7)).collect()
}

/// `get notes` replaced the user's `notes` without a word, also in mode 444 and as a symlink.
#[test]
fn a_file_of_the_user_is_replaced_only_when_told() {
    let big = large(1);
    let group = Group::new(&[&[("notes", b"theirs"), ("big", &big), ("link", b"x"), ("same", b"same"), ("new", b"n")]]);
    let into = group.home.path().join("into");
    for (name, bytes) in [("notes", &b"mine"[..]), ("big", &big[1..]), ("target", b"mine"), ("same", b"same")] {
        group.put(name, bytes);
    }
    symlink("target", into.join("link")).unwrap();
    let mut mode = fs::metadata(into.join("notes")).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(into.join("notes"), mode).unwrap();
    for run in 0..2 {
        let got = group.get(&["**", "--json"]);
        assert_eq!((got.code, got.failed()), (Some(7), failed(&["big", "link", "notes"])), "{got:?} {run}");
        assert_eq!(group.content("notes").as_deref(), Some(&b"mine"[..]));
        assert_eq!(group.content("big").as_deref(), Some(&big[1..]));
        assert!(into.join("link").is_symlink() && group.content("new").is_some() && !into.join(".gpb").exists());
    }
    let got = group.get(&["notes"]);
    let told = "error: into/notes is here already, and was not fetched or was changed since; replace it with --force, \
                or with --backup of `get`, which keeps it as well";
    assert!(got.errors.contains(told), "{got:?}");
    fs::write(group.home.path().join("file"), b"mine").unwrap();
    assert_eq!(group.get(&["notes", "--out", "file"]).code, Some(7), "nor where --out names it");

    let got = group.get(&["**", "--backup"]);
    assert_eq!(got.code, Some(0), "{got:?}");
    assert_eq!(group.content("notes").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(group.content("notes~").as_deref(), Some(&b"mine"[..]));
    assert_eq!((group.content("big"), group.content("big~")), (Some(big.clone()), Some(big[1..].to_vec())));
    assert!(into.join("link~").is_symlink() && group.content("link").as_deref() == Some(b"x"));
    assert!(group.content("same~").is_none(), "what has the content already is not in the way");
    group.put("notes", b"mine again");
    assert_eq!(group.get(&["notes", "--backup"]).code, Some(0));
    assert_eq!(group.content("notes~").as_deref(), Some(&b"mine"[..]), "a kept file stays");
    assert_eq!(group.content("notes.~2~").as_deref(), Some(&b"mine again"[..]));

    group.put("notes", b"mine");
    assert_eq!(group.get(&["notes", "--force"]).code, Some(0));
    assert_eq!(group.content("notes").as_deref(), Some(&b"theirs"[..]));
    assert!(group.content("notes.~3~").is_none());
    assert_eq!(group.content("target").as_deref(), Some(&b"mine"[..]), "never written through");
}

#[test]
fn what_was_fetched_is_replaced_without_a_word_and_what_was_changed_since_is_not() {
    let (one, two) = (large(1), large(2));
    let old: [(&str, &[u8]); 6] = [
        ("big", &one),
        ("small", b"one"),
        ("touched", b"one"),
        ("edited", b"one"),
        ("d/large", &one),
        ("gone", b"one"),
    ];
    let mut group = Group::new(&[&old]);
    assert_eq!(group.get(&["**"]).code, Some(0));
    let into = group.home.path().join("into");
    // Another state, the same content.
    for name in ["touched", "d/large"] {
        let file = fs::File::options().write(true).open(into.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    }
    fs::copy(into.join("small"), into.join("copy")).unwrap();
    fs::rename(into.join("copy"), into.join("small")).unwrap();
    fs::write(into.join("edited"), b"mine").unwrap();
    fs::remove_file(into.join("gone")).unwrap();
    let new: [(&str, &[u8]); 6] = [
        ("big", &two),
        ("small", b"two"),
        ("touched", b"two"),
        ("edited", b"two"),
        ("d/large", &two),
        ("gone", b"two"),
    ];
    group.share(&[&new]);
    let got = group.get(&["**", "--json"]);
    assert_eq!((got.code, got.failed()), (Some(7), failed(&["edited"])), "{got:?}");
    for (name, bytes) in new {
        let expected = if name == "edited" { &b"mine"[..] } else { bytes };
        assert_eq!(group.content(name).as_deref(), Some(expected), "{name}");
    }
    // The same files by another directory, and with a server running on the same state.
    let server = ["--dir", "into", "--bind", "127.0.0.1", "--port", "0", "--no-multicast"];
    let mut running = program(assert_cmd::cargo::cargo_bin!("gpb-server"), group.home.path(), &server)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    group.share(&[&[("large", &one), ("big", &one)]]);
    let (below, whole) = (group.get(&["large", "--out", "into/d/"]), group.get(&["big", "--out", "into/big"]));
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!((below.code, whole.code), (Some(0), Some(0)), "{below:?} {whole:?}");
    assert_eq!((group.content("d/large"), group.content("big")), (Some(one.clone()), Some(one)));
    // What the whole directory has on record of it is older.
    group.share(&[&[("d/large", &two)]]);
    let again = group.get(&["d/large"]);
    assert_eq!((again.code, group.content("d/large")), (Some(0), Some(two.clone())), "{again:?}");
    // Nothing is known of what another state recorded.
    group.share(&[&[("big", &two)]]);
    assert_eq!(group.get(&["big", "--state", "other"]).code, Some(7));
    assert_eq!(group.get(&["big"]).code, Some(0));
}

/// A record that is damaged says nothing: then the file is the user's.
#[test]
fn a_damaged_record_is_no_record() {
    let mut group = Group::new(&[&[("a", b"1")]]);
    assert_eq!(group.get(&["a"]).code, Some(0));
    let state = group.home.path().join(".local/state/gpb");
    let record = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
        names.into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("placed-")).unwrap()
    };
    fs::write(record(&state), b"garbage").unwrap();
    group.share(&[&[("a", b"22")]]);
    assert_eq!(group.get(&["a"]).code, Some(7));
    assert_eq!(group.get(&["a", "--force"]).code, Some(0));
    group.share(&[&[("a", b"333")]]);
    assert_eq!(group.get(&["a"]).code, Some(0), "from then on it is known again");
}
