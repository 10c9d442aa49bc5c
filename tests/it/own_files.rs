//! What belongs to the node itself is neither offered nor overwritten, by the real programs over loopback.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::programs::{Server, WAIT, program};

/// What a client can fetch of all that it can ask for by these names and roots.
fn fetched(server: &Server, wanted: &[String]) -> Vec<PathBuf> {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    for what in wanted {
        server.client(home.path(), &["get", what, "--out", &format!("{}/", out.display()), "--timeout", "2"]);
    }
    let files = walkdir::WalkDir::new(&out).into_iter().flatten().filter(|e| e.file_type().is_file());
    files.map(|e| e.into_path().strip_prefix(&out).unwrap().to_path_buf()).collect()
}

fn put(path: impl AsRef<Path>, text: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The root by which a file of one chunk could be asked for.
fn root_of(path: &Path) -> String {
    gpb::internals::content::merkle::root_of_bytes(&fs::read(path).unwrap()).to_string()
}

fn keygen(home: &Path, args: &[&str]) -> String {
    let output = program(assert_cmd::cargo::cargo_bin!("gpb-keygen"), home, args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_home_directory_is_shared_without_the_files_of_the_node() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    put(home.join("data"), "data");
    put(home.join(".config/gpb/config.toml"), "log-file = \"logs/gpb.log\"\nlog-level = \"debug\"\n");
    fs::create_dir(home.join("logs")).unwrap();
    let state = home.join(".local/state/gpb");
    keygen(home, &["--out", state.join("key.pem").to_str().unwrap()]);
    fs::hard_link(state.join("key.pem"), home.join("hard")).unwrap();
    fs::hard_link(home.join(".config/gpb/config.toml"), home.join("config")).unwrap();
    symlink(".local/state/gpb/key.pem", home.join("soft")).unwrap();
    symlink(".local/state/gpb", home.join("state")).unwrap();
    let mut server = Server::start(home, &["--dir", home.to_str().unwrap()]);
    let named = |line: &String| line.contains("files of this node itself") && line.contains("left_out=");
    let line = server.seen.iter().find(|line| named(line)).expect("a line names what is left out").clone();
    for name in [".local/state/gpb", ".config/gpb/config.toml", "logs/gpb.log"] {
        assert!(line.contains(name), "{line}");
    }
    fs::hard_link(state.join("index.redb"), home.join("index")).unwrap();
    fs::hard_link(home.join("logs/gpb.log"), home.join("log")).unwrap();
    put(home.join("last"), "x");
    server.wait_line("files=2 ");
    assert_eq!(server.listed(), ["data", "last"]);

    let own = [state.join("key.pem"), state.join("index.redb"), home.join(".config/gpb/config.toml")];
    let mut wanted: Vec<String> = own.iter().map(|path| root_of(path)).collect();
    wanted
        .extend(["hard", "soft", "config", "index", "log", "logs", ".local/**", "**/key.pem", "**"].map(String::from));
    wanted.extend([".local/state/gpb/key.pem", ".config/gpb/config.toml", "logs/gpb.log"].map(String::from));
    let mut fetched = fetched(&server, &wanted);
    fetched.sort();
    assert_eq!(fetched, [Path::new("data"), Path::new("last")]);

    falls_silent(&home.join("logs/gpb.log"));
}

/// A log that lies in the shared directory stops when nothing else happens.
fn falls_silent(log: &Path) {
    let (mut before, mut since, deadline) = (0, Instant::now(), Instant::now() + WAIT);
    while since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "the log never stops: {}", fs::read_to_string(log).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let len = fs::metadata(log).unwrap().len();
        if len != before {
            (before, since) = (len, Instant::now());
        }
    }
}

#[test]
fn what_the_shell_keeps_of_the_output_is_not_offered() {
    let home = tempfile::tempdir().unwrap();
    let (home, dir) = (home.path(), home.path().join("shared"));
    put(dir.join("data"), "data");
    let errors = dir.join("nohup.err");
    let server = Server::start_to(home, &["--dir", "shared", "--log-level", "debug"], Some(&errors));
    fs::hard_link(&errors, dir.join("linked")).unwrap();
    put(dir.join("last"), "x");
    let deadline = Instant::now() + WAIT;
    while server.listed().len() < 2 {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(&errors).unwrap());
    }
    assert_eq!(server.listed(), ["data", "last"]);
    falls_silent(&errors);
    assert_eq!(server.listed(), ["data", "last"]);
}

#[test]
fn files_named_by_flags_are_not_offered_wherever_they_lie() {
    let home = tempfile::tempdir().unwrap();
    let (home, dir) = (home.path(), home.path().join("shared"));
    put(dir.join("data"), "data");
    put(home.join("real-config"), "network = \"own\"\n");
    let id = keygen(home, &["--out", "elsewhere.pem"]);
    put(dir.join("trusted"), &format!("{}\n", id.lines().find_map(|line| line.strip_prefix("peer=")).unwrap()));
    fs::hard_link(home.join("elsewhere.pem"), dir.join("innocent")).unwrap();
    fs::hard_link(dir.join("trusted"), dir.join("friends")).unwrap();
    symlink("../real-config", dir.join("config")).unwrap();
    fs::hard_link(home.join("real-config"), dir.join("settings")).unwrap();
    let args = ["--dir", "shared", "--state", "shared/state", "--key", "elsewhere.pem", "--trusted", "shared/trusted"];
    let mut all = args.to_vec();
    all.extend(["--config", "shared/config", "--log-file", "shared/log", "--log-level", "debug"]);
    let mut server = Server::start(home, &all);
    assert!(server.seen.iter().any(|line| line.contains("files=1 ")), "{:#?}", server.seen);

    // Each is replaced while it runs, the old one and the new one under other names as well.
    for (own, old, new) in [("trusted", "trusted.1", "new-trusted"), ("log", "log.1", "new-log")] {
        fs::rename(dir.join(own), dir.join(old)).unwrap();
        fs::copy(dir.join(old), dir.join(own)).unwrap();
        fs::hard_link(dir.join(own), dir.join(new)).unwrap();
    }
    put(dir.join("last"), "x");
    server.wait_line("files=2 ");
    let keyed =
        ["list", "--json", "--wait", "20", "--key", home.join("elsewhere.pem").to_str().unwrap(), "--network", "own"]
            .map(String::from);
    let keyed: Vec<&str> = keyed.iter().map(String::as_str).collect();
    let output = String::from_utf8(server.client(home, &keyed).stdout).unwrap();
    assert!(output.contains("\"data\"") && output.contains("\"last\""), "{output}");
    for name in ["trusted", "log", "innocent", "friends", "settings", "config", "state", "pem"] {
        assert!(!output.contains(name), "{name}: {output}");
    }
}

#[test]
fn a_fetch_never_overwrites_the_clients_own_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("shared");
    for name in ["key.pem", "log", "trusted", "sub/file", "state/x", "fine"] {
        put(dir.join(name), "from the server");
    }
    let server = Server::start(home.path(), &["--dir", dir.to_str().unwrap()]);
    let own = tempfile::tempdir().unwrap();
    let own = own.path();
    let id = keygen(own, &["--out", "key.pem"]);
    fs::create_dir(own.join("sub")).unwrap();
    put(own.join("conf"), "timeout = 5\n");
    fs::hard_link(own.join("conf"), own.join("sub/file")).unwrap();
    let before = fs::read(own.join("key.pem")).unwrap();
    let common = ["--dir", ".", "--state", "state", "--key", "key.pem", "--config", "conf", "--log-file", "log"];
    for what in ["key.pem", "log", "state/x", "sub/file", "**"] {
        let mut args = vec!["get", what];
        args.extend(common);
        let output = server.client(own, &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{what}: {said}");
        assert!(said.contains("is a file of this node itself"), "{what}: {said}");
    }
    for out in ["state/new", "state/", "state/deeper/new", "./key.pem", "key.pem", "conf"] {
        let mut args = vec!["get", "fine", "--out", out];
        args.extend(common);
        assert_eq!(server.client(own, &args).status.code(), Some(7), "{out}");
    }
    let mut args = vec!["get", "fine"];
    args.extend(common);
    assert!(server.client(own, &args).status.success());
    assert_eq!(fs::read(own.join("key.pem")).unwrap(), before, "{id}");
    assert_eq!(fs::read_to_string(own.join("conf")).unwrap(), "timeout = 5\n");
    assert!(!own.join("state/x").exists() && own.join("fine").exists());
}
