//! `get` fetches all that can be fetched, and says what could not be and why, by the real programs over loopback.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::{Server, WAIT, program};

/// A client's home with a directory `into`, and servers that share the given files.
pub(crate) struct Group {
    pub(crate) home: TempDir,
    servers: Vec<Server>,
    dirs: Vec<TempDir>,
}

impl Group {
    pub(crate) fn new(shared: &[&[(&str, &[u8])]]) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("into")).unwrap();
        let mut group = Group { home, servers: Vec::new(), dirs: Vec::new() };
        group.share(shared);
        group
    }

    /// Replaces the servers by ones that share these files.
    pub(crate) fn share(&mut self, shared: &[&[(&str, &[u8])]]) {
        self.servers.clear();
        self.dirs = shared.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let start = |(dir, files): (&TempDir, &&[(&str, &[u8])])| {
            for (name, bytes) in *files {
                put(&dir.path().join("data"), name, bytes);
            }
            Server::start(dir.path(), &["--dir", "data"])
        };
        self.servers = self.dirs.iter().zip(shared).map(start).collect();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), self.home.path(), &["get"]);
        command.args(["--no-multicast", "--bind", "127.0.0.1", "--dir", "into", "--timeout", "8"]);
        for server in &self.servers {
            command.args(["--peer", server.addr()]);
        }
        command.args(args);
        command
    }

    /// The options that name the servers.
    pub(crate) fn addrs(&self) -> Vec<&str> {
        self.servers.iter().flat_map(|server| ["--peer", server.addr()]).collect()
    }

    /// What `get ARGS` says, and its exit code.
    pub(crate) fn get(&self, args: &[&str]) -> Got {
        Got::of(&self.command(args).output().unwrap())
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        put(&self.home.path().join("into"), name, bytes);
    }

    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.home.path().join("into").join(name);
        // Reading a FIFO would wait for a writer.
        path.symlink_metadata().is_ok_and(|meta| meta.is_file()).then(|| fs::read(path).unwrap())
    }
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Got {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Got { code: output.status.code(), out: text(&output.stdout), errors: text(&output.stderr) }
    }

    /// The names and codes of `failed` events.
    pub(crate) fn failed(&self) -> Vec<(String, u64)> {
        let events = self.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut failed: Vec<_> = events
            .filter(|e| e["event"] == "failed")
            .map(|e| (e["path"].as_str().unwrap().to_owned(), e["code"].as_u64().unwrap()))
            .collect();
        failed.sort();
        failed
    }
}

pub(crate) fn large(seed: u8) -> Vec<u8> {
    (0..700_000_u32).map(|i| (i / 251) as u8 ^ i as u8 ^ seed).collect()
}

/// One directory where a file belongs ended the download of everything else, each time again.
#[test]
fn blocked_places_keep_nothing_else_from_coming() {
    let (one, two) = (large(1), large(2));
    let names: Vec<String> = (0..20).map(|n| format!("files/{n}")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    files.extend([
        ("aaa", &b"small"[..]),
        ("aab", &one),
        ("sub/x", b"below a file"),
        ("link/x", b"below a link"),
        ("fifo", b"in place of a FIFO"),
        ("large", &two),
        ("twin/1", b"of two places"),
        ("twin/2", b"of two places"),
        ("empty", b""),
        ("copy/1", &two),
    ]);
    let group = Group::new(&[&files]);
    for dir in ["aaa", "aab/x", "twin/1", "empty/x", "copy/1"] {
        fs::create_dir_all(group.home.path().join("into").join(dir)).unwrap();
    }
    group.put("sub", b"a file of the user");
    std::os::unix::fs::symlink("/tmp", group.home.path().join("into/link")).unwrap();
    let fifo = group.home.path().join("into/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let blocked = ["aaa", "aab", "copy/1", "empty", "fifo", "link/x", "sub/x", "twin/1"];
    for run in 0..2 {
        let got = group.get(&["**", "--json"]);
        assert_eq!(got.code, Some(7), "{got:?}");
        assert_eq!(got.failed(), blocked.map(|name| (name.to_owned(), 7)), "run {run}");
        for (name, bytes) in &files {
            let is_there = group.content(name).as_deref() == Some(bytes);
            assert_eq!(is_there, !blocked.contains(name), "{name} in run {run}");
        }
        let last: Value = serde_json::from_str(got.out.lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), last["code"].as_u64()), (Some("error"), Some(7)));
        assert!(!group.home.path().join("into/.gpb").exists(), "what cannot be put anywhere is not fetched");
    }
    let got = group.get(&["**"]);
    assert_eq!(got.errors.matches("failed: ").count(), blocked.len(), "{got:?}");
    assert!(got.errors.contains("failed: a directory is in the way at into/aaa\n"), "{got:?}");
    assert!(got.errors.contains("error: 8 of 30 names could not be fetched; move it away"), "{got:?}");
    assert_eq!(group.content("sub").as_deref(), Some(&b"a file of the user"[..]));
}

#[test]
fn a_single_blocked_place_is_one_line() {
    let group = Group::new(&[&[("a", b"1"), ("b", b"2")]]);
    fs::create_dir(group.home.path().join("into/a")).unwrap();
    let got = group.get(&["**"]);
    assert_eq!((got.code, group.content("b").is_some()), (Some(7), true));
    let errors: Vec<&str> = got.errors.lines().filter(|line| !line.starts_with("progress")).collect();
    let [error] = errors[..] else { panic!("{got:?}") };
    assert!(error.starts_with("error: a directory is in the way at into/a; move it away"), "{got:?}");
}

/// Without `.gpb` nothing can be staged: that is one cause, not one for each name.
#[test]
fn a_file_called_as_the_own_directory_is_one_cause() {
    let group = Group::new(&[&[("a", b"1"), ("b", &large(1)), ("c", b"here")]]);
    group.put(".gpb", b"");
    group.put("c", b"here");
    let got = group.get(&["**", "--json"]);
    assert_eq!(got.code, Some(7), "{got:?}");
    assert_eq!(got.failed(), [("a".to_owned(), 7), ("b".to_owned(), 7)]);
    let got = group.get(&["**"]);
    assert_eq!(got.errors.matches("failed: ").count(), 1, "{got:?}");
}

/// One name with two contents, or one that is a file here and a directory there, ended everything with 5 or 7.
#[test]
fn names_that_clash_keep_nothing_else_from_coming() {
    let group = Group::new(&[
        &[("a", b"a"), ("twin", b"one"), ("x", b"file"), ("z/1", b"1")],
        &[("a", b"a"), ("twin", b"other"), ("x/y", b"below"), ("z/2", b"2")],
    ]);
    let got = group.get(&["**", "--json"]);
    assert_eq!(got.code, Some(5), "{got:?}");
    assert_eq!(got.failed(), [("twin".to_owned(), 5), ("x".to_owned(), 5)]);
    assert_eq!(got.out.matches("\"candidate\"").count(), 4, "{got:?}");
    let has = |name: &str| group.content(name).is_some();
    assert!(["a", "z/1", "z/2"].map(has).iter().all(|here| *here), "{got:?}");
    assert!(!has("twin") && !has("x"), "{got:?}");
    // A key of one of them, or leaving them out, settles it.
    let key = |name: &str| {
        let found = got.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = found.filter(|e| e["event"] == "candidate" && e["path"] == name).collect::<Vec<_>>();
        of[0]["holders"][0].as_str().unwrap().to_owned()
    };
    let settled = group.get(&["**", "--exclude", "twin", "--exclude", "x/**", "--out", "out"]);
    assert_eq!(settled.code, Some(0), "{settled:?}");
    assert!(group.home.path().join("out/x").is_file() && !group.home.path().join("out/twin").exists());
    let (first, second) = (key("x"), key("x/y"));
    for (key, is_file) in [(&first, true), (&second, false)] {
        let out = format!("from{is_file}");
        let settled = group.get(&["**", "--from", &key[..24], "--out", &out]);
        assert_eq!(settled.code, Some(0), "{settled:?}");
        let at = |name: &str| group.home.path().join(&out).join(name);
        assert_eq!((at("x").is_file(), at("x/y").is_file(), at("z/1").is_file()), (is_file, !is_file, true));
        assert_eq!(fs::read(at("twin")).unwrap(), if is_file { &b"one"[..] } else { b"other" });
    }
    let unknown = group.get(&["**", "--from", "ed25519:AAAAAAAAAAAAAAAA"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let got = group.get(&["**"]);
    assert_eq!(got.code, Some(5), "{got:?}");
    assert!(got.errors.contains("failed: twin: 2 contents\n") && got.out.contains("twin  "), "{got:?}");
}

/// `get a nothing` fetched nothing.
#[test]
fn what_no_peer_has_keeps_nothing_else_from_coming() {
    let group = Group::new(&[&[("a", b"a"), ("b", b"b")]]);
    let got = group.get(&["a", "none", "nor/this", "--json"]);
    assert_eq!(got.code, Some(4), "{got:?}");
    assert_eq!(got.failed(), [("none".to_owned(), 4), ("nor/this".to_owned(), 4)]);
    assert_eq!(group.content("a").as_deref(), Some(&b"a"[..]));
    // Where files go does not depend on what others share.
    let got = group.get(&["b", "none", "--out", "new"]);
    assert_eq!((got.code, group.home.path().join("new/b").is_file()), (Some(4), true), "{got:?}");
    // The gravest cause is the exit code.
    fs::remove_file(group.home.path().join("into/a")).unwrap();
    fs::create_dir(group.home.path().join("into/a")).unwrap();
    assert_eq!(group.get(&["a", "b", "none"]).code, Some(7));
}

/// A file over the limit of its process, or of the file system, ended the download of the smaller ones.
#[test]
fn a_file_that_is_too_large_keeps_no_smaller_one_from_coming() {
    let group = Group::new(&[&[("0", &large(1)), ("1", b"1"), ("2", b"2")]]);
    let get = group.command(&["**", "--json"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1000; exec \"$0\" \"$@\""]).arg(get.get_program()).args(get.get_args());
    let output = limited.env_clear().env("HOME", group.home.path()).current_dir(group.home.path()).output().unwrap();
    let got = Got::of(&output);
    assert_eq!((got.code, got.failed()), (Some(7), vec![("0".to_owned(), 7)]), "{got:?}");
    assert!(group.content("1").is_some() && group.content("2").is_some(), "{got:?}");
}

/// `get '*' --dir ~` brought a `.bashrc`, and `**` a `.ssh/authorized_keys`.
#[test]
fn wildcards_leave_dotfiles_alone() {
    let group = Group::new(&[&[(".bashrc", b"1"), (".ssh/keys", b"2"), ("a/.x/y", b"3"), ("a/b", b"4"), ("c", b"5")]]);
    let has = |name: &str| group.content(name).is_some();
    let got = group.get(&["**"]);
    assert_eq!(got.code, Some(0), "{got:?}");
    assert!(got.errors.contains("note: 3 names with a leading dot are left out; --hidden takes them"), "{got:?}");
    assert!(has("a/b") && has("c") && !has(".bashrc") && !has(".ssh/keys") && !has("a/.x/y"));
    assert_eq!(group.get(&["*", "--json"]).out.matches(r#"{"event":"hidden","names":1}"#).count(), 1);
    assert_eq!(group.get(&["a"]).code, Some(0));
    assert!(has("a/.x/y"), "a directory that is named means all of it");
    assert_eq!(group.get(&["**", "--hidden"]).code, Some(0));
    assert!(has(".bashrc") && has(".ssh/keys"));
}

#[test]
fn a_directory_to_fetch_into_is_made() {
    let group = Group::new(&[&[("a", b"a")]]);
    fs::remove_dir(group.home.path().join("into")).unwrap();
    assert_eq!(group.get(&["a"]).code, Some(0));
    assert_eq!(group.get(&["a", "--out", "deep/er/"]).code, Some(0));
    assert!(group.content("a").is_some() && group.home.path().join("deep/er/a").is_file());
}

/// A name of 64 hex digits is a root, and nothing said how to ask for the file.
#[test]
fn a_name_that_looks_like_a_root_is_explained() {
    let name = "ab".repeat(32);
    let group = Group::new(&[&[(name.as_str(), b"a")]]);
    let got = group.get(&[&name]);
    assert_eq!((got.code, got.errors.contains("a file of that name is ./NAME")), (Some(4), true), "{got:?}");
    assert_eq!(group.get(&[&format!("./{name}")]).code, Some(0));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let big = large(1);
    let group = Group::new(&[&[("new", &big), ("here", b"here"), ("mine", b"theirs"), ("d/x", b"x")]]);
    group.put("here", b"here");
    group.put("mine", b"mine");
    let rows = |got: &Got| {
        let events = got.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let plans = events.filter(|e| e["event"] == "plan");
        plans.map(|e| format!("{} {}", e["path"].as_str().unwrap(), e["state"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let got = group.get(&["**", "--dry-run", "--json"]);
    assert_eq!((got.code, got.failed()), (Some(7), vec![("mine".to_owned(), 7)]), "{got:?}");
    assert_eq!(rows(&got), ["d/x new", "here here", "new new"]);
    let got = group.get(&["**", "--dry-run", "--json", "--force"]);
    assert_eq!(
        (got.code, rows(&got)),
        (
            Some(0),
            vec!["d/x", "here", "mine", "new"]
                .into_iter()
                .zip(["new", "here", "changed", "new"])
                .map(|(a, b)| format!("{a} {b}"))
                .collect()
        )
    );
    let totals: Value = serde_json::from_str(got.out.lines().last().unwrap()).unwrap();
    assert_eq!((totals["files"].as_u64(), totals["fetch"].as_u64()), (Some(4), Some(3)), "{totals}");
    assert_eq!(totals["needed"].as_u64(), Some(big.len() as u64 + 7));
    let got = group.get(&["**", "--dry-run", "--out", "not/there/"]);
    assert!(got.out.contains("would fetch 4 of 4 files"), "{got:?}");
    assert!(!group.home.path().join("not").exists());
    let names = || fs::read_dir(group.home.path().join("into")).unwrap().count();
    assert_eq!((names(), group.content("mine").as_deref()), (2, Some(&b"mine"[..])));
}

/// Three files of 2 MiB kept each other from a disk that had room for two, and three names of one content, too.
#[test]
fn what_fits_comes_and_the_rest_is_named() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let bytes: Vec<Vec<u8>> = (1..5).map(|n| vec![n; 2 << 20]).collect();
    // Whether such a long one is dense is known from its layer alone.
    let long = vec![9; 65 << 20];
    let group = Group::new(&[&[
        ("a", &bytes[0]),
        ("b", &bytes[1]),
        ("c", &bytes[2]),
        ("t/1", &bytes[3]),
        ("t/2", &bytes[3]),
        ("t/3", &bytes[3]),
        ("tiny", b"tiny"),
        ("long", &long),
    ]]);
    let small = group.home.path().join("small");
    fs::create_dir(&small).unwrap();
    let on_disk = |len: &str, here: &[(&str, &[u8])], what: &[&str]| {
        let size = format!("size={len}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "gpb-test"]).arg(&small).status();
        assert!(mounted.unwrap().success());
        here.iter().for_each(|(name, bytes)| put(&small, name, bytes));
        let got = group.get(&[what, &["--out", "small/", "--json"]].concat());
        let all = ["a", "b", "c", "long", "t/1", "t/2", "t/3", "tiny"];
        let there = all.into_iter().filter(|name| small.join(name).exists()).collect::<Vec<_>>();
        let is_tidy = !small.join(".gpb").exists();
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
        assert!(is_tidy, "{got:?}");
        (got, there)
    };
    let seven = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 7)).collect::<Vec<_>>();
    let (got, there) = on_disk("5m", &[], &["[abc]", "tiny"]);
    assert_eq!((got.code, got.failed(), there), (Some(7), seven(&["c"]), vec!["a", "b", "tiny"]), "{got:?}");
    assert!(got.errors.contains("needed=6291460 ") && got.errors.contains("left_out=1"), "told at first: {got:?}");
    assert!(got.out.contains("2097152 bytes needed"), "{got:?}");
    let (got, there) = on_disk("5m", &[], &["t"]);
    assert_eq!((got.code, got.failed(), there), (Some(7), seven(&["t/3"]), vec!["t/1", "t/2"]), "{got:?}");
    let (got, there) = on_disk("5m", &[], &["t/[12]"]);
    assert_eq!((got.code, there), (Some(0), vec!["t/1", "t/2"]), "{got:?}");
    // What lies there does not fail with its other names.
    let (got, there) = on_disk("5m", &[("t/1", &bytes[3]), ("t/2", &bytes[3])], &["t"]);
    assert_eq!((got.code, got.failed(), there), (Some(7), seven(&["t/3"]), vec!["t/1", "t/2"]), "{got:?}");
    // It would take the room that the others were promised.
    let (got, there) = on_disk("67m", &[], &["long", "[ab]"]);
    assert_eq!((got.code, got.failed(), there), (Some(7), seven(&["long"]), vec!["a", "b"]), "{got:?}");
}

/// Cause: a copy of what is here asks for no room before it begins, and a disk that is full ends a fetch. Effect: one
/// file that found no room kept those from coming that had it.
#[test]
fn a_copy_without_room_keeps_nothing_else_from_coming() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let (long, short) = (vec![9; 65 << 20], vec![8; 2 << 20]);
    let group = Group::new(&[&[("a", &short), ("long", &long), ("x/long", &long)]]);
    let small = group.home.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=100m", "gpb-test"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    let first = group.get(&["long", "--out", "small/"]);
    let second = group.get(&["a", "x/long", "--out", "small/", "--json"]);
    let there = ["a", "long", "x/long"].map(|name| small.join(name).exists());
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!((second.code, second.failed()), (Some(7), vec![("x/long".to_owned(), 7)]), "{second:?}");
    assert_eq!(there, [true, true, false], "{second:?}");
}

/// `.gpb` of another user was told as `change its owner or mode`.
#[test]
fn a_download_of_another_user_is_told() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: another user needs root");
        return;
    }
    let group = Group::new(&[&[("a", b"a")]]);
    let into = group.home.path().join("into");
    // An empty directory would be removed, and made anew.
    group.put(".gpb/unfinished.part", b"x");
    for (path, mode) in [(into.join(".gpb"), 0o700), (into, 0o777), (group.home.path().to_path_buf(), 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(group.home.path(), Some(65534), Some(65534)).unwrap();
    let mut command = group.command(&["a"]);
    let Ok(output) = command.uid(65534).gid(65534).output() else {
        eprintln!("skipped: another user may not run the program");
        return;
    };
    let got = Got::of(&output);
    assert_eq!(got.code, Some(7), "{got:?}");
    assert!(got.errors.contains("unfinished downloads of user 0 lie in into/.gpb"), "{got:?}");
}

/// For as long as it seeded, a fetch said nothing of what had failed, and then ended as interrupted.
#[test]
fn what_failed_is_told_before_the_seeding() {
    let group = Group::new(&[&[("a", b"a")]]);
    let mut command = group.command(&["a", "missing", "--seed", "3600", "--json"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut said = String::new();
    let deadline = Instant::now() + WAIT;
    while !said.contains("\"event\":\"error\"") {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else {
            child.kill().unwrap();
            panic!("no error before the end of the seeding: {said}");
        };
        said += &(line + "\n");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let code = child.wait().unwrap().code();
    let _ = reader.join().unwrap();
    said.extend(lines.try_iter());
    assert_eq!((code, said.matches("\"event\":\"error\"").count()), (Some(4), 1), "{said}");
    assert!(said.contains("\"event\":\"failed\"") && said.contains("\"event\":\"incomplete\""), "{said}");
}

/// A copy that met a full disk was in no list, and the name that no peer has gave the exit code.
#[test]
fn a_copy_without_room_is_named_and_counts() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let bytes = large(1);
    let group = Group::new(&[&[("t/1", &bytes), ("t/2", &bytes), ("t/3", &bytes)]]);
    let small = group.home.path().join("small");
    fs::create_dir(&small).unwrap();
    let mut parted = 0;
    for inodes in 5..12 {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size=9m,nr_inodes={inodes}"), "gpb-test"])
            .arg(&small)
            .status();
        assert!(mounted.unwrap().success());
        let got = group.get(&["t", "none", "--out", "small/", "--json"]);
        let lacks = ["t/1", "t/2", "t/3"].into_iter().filter(|name| !small.join(name).exists()).collect::<Vec<_>>();
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
        parted += usize::from(!lacks.is_empty() && lacks.len() < 3);
        let mut expected = vec![("none".to_owned(), 4)];
        expected.extend(lacks.iter().map(|name| ((*name).to_owned(), 7)));
        assert_eq!(got.failed(), expected, "{inodes} inodes: {got:?}");
        assert_eq!(got.code, Some(if lacks.is_empty() { 4 } else { 7 }), "{inodes} inodes: {got:?}");
    }
    assert!(parted > 0, "no number of inodes was enough for some of the copies");
}

/// A root was taken for `--exclude`, and left nothing out.
#[test]
fn a_root_is_excluded() {
    let group = Group::new(&[&[("a", b"a"), ("b", b"b"), ("d/a", b"a")]]);
    let root = gpb::internals::content::merkle::root_of_bytes(b"a").to_string();
    assert_eq!(group.get(&["**", "--exclude", &root]).code, Some(0));
    assert_eq!(["a", "b", "d/a"].map(|name| group.content(name).is_some()), [false, true, false]);
}

/// A file of equal length counted as there, and a partial file once for each name.
#[test]
fn a_dry_run_sums_the_room_that_is_needed() {
    use std::os::unix::fs::MetadataExt;
    let (twin, root) = ([7_u8; 20_000], |bytes: &[u8]| gpb::internals::content::merkle::root_of_bytes(bytes));
    let group = Group::new(&[&[("mine", b"theirs"), ("t/1", &twin), ("t/2", &twin), ("t/3", &twin)]]);
    group.put("mine", b"mine..");
    group.put("t/3", &twin);
    let part = format!(".gpb/{}-20000.part", root(&twin));
    group.put(&part, &twin[..8192]);
    let reserved = fs::metadata(group.home.path().join("into").join(&part)).unwrap().blocks() * 512;
    let got = group.get(&["**", "--dry-run", "--force", "--json"]);
    let totals: Value = serde_json::from_str(got.out.lines().last().unwrap()).unwrap();
    assert_eq!((totals["files"].as_u64(), totals["fetch"].as_u64()), (Some(4), Some(3)), "{got:?}");
    assert!(reserved > 0, "the partial file takes room");
    assert_eq!(totals["needed"].as_u64(), Some(6 + 40_000 - reserved), "{got:?}");
}

/// Each link counted as one more file to fetch, also where it was in place.
#[test]
fn a_dry_run_needs_no_room_for_links() {
    let bytes = large(3);
    let group = Group::new(&[&[("v/1", &bytes)]]);
    let data = group.dirs[0].path().join("data");
    std::os::unix::fs::symlink("v/1", data.join("latest")).unwrap();
    fs::hard_link(data.join("v/1"), data.join("v/twin")).unwrap();
    let deadline = Instant::now() + WAIT;
    while group.servers[0].listed().len() < 3 {
        assert!(Instant::now() < deadline, "{:?}", group.servers[0].listed());
    }
    let planned = || {
        let got = group.get(&["**", "--dry-run", "--json"]);
        let totals: Value = serde_json::from_str(got.out.lines().last().unwrap()).unwrap();
        ["files", "fetch", "bytes", "needed"].map(|field| totals[field].as_u64().unwrap())
    };
    let len = bytes.len() as u64;
    assert_eq!(planned(), [3, 1, len, len]);
    assert_eq!(group.get(&["**"]).code, Some(0));
    assert_eq!(planned(), [3, 0, 0, 0]);
}

/// It named the files of the node as ones that would be fetched.
#[test]
fn a_dry_run_refuses_the_files_of_the_node() {
    let group = Group::new(&[&[("key.pem", b"a key")]]);
    for more in [&["--dry-run"][..], &[]] {
        let got = group.get(&[&["key.pem", "--json", "--force", "--out", ".local/state/gpb/"], more].concat());
        assert_eq!((got.code, got.failed()), (Some(7), vec![("key.pem".to_owned(), 7)]), "{more:?} {got:?}");
        assert!(!got.out.contains("\"plan\""), "{got:?}");
    }
}

/// What is in the way of a large file, or there already, counted against the room for the others.
#[test]
fn room_is_asked_for_what_is_missing_alone() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let (image, here, big) = (vec![1; 5 << 20], vec![2; 1 << 20], vec![3; 7 << 20]);
    let group = Group::new(&[&[("disk.img", &image), ("here", &here), ("s/1", b"1"), ("s/2", b"2"), ("big", &big)]]);
    let small = group.home.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=7m", "gpb-test"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    fs::write(small.join("disk.img"), vec![9; 4 << 20]).unwrap();
    fs::write(small.join("here"), &here).unwrap();
    let fits = group.get(&["disk.img", "here", "s", "--out", "small/", "--json"]);
    let small_ones = ["s/1", "s/2"].map(|name| small.join(name).exists());
    let lacks = group.get(&["big", "here", "--out", "small/", "--json"]);
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!((fits.code, fits.failed()), (Some(7), vec![("disk.img".to_owned(), 7)]), "{fits:?}");
    assert!(!fits.out.contains("no space"), "{fits:?}");
    assert_eq!(small_ones, [true; 2], "{fits:?}");
    assert_eq!((lacks.code, lacks.failed()), (Some(7), vec![("big".to_owned(), 7)]), "what is there is no failure");
    assert!(lacks.out.contains("7340032 bytes needed"), "{lacks:?}");
}
