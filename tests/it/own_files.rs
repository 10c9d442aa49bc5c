//! What belongs to the node itself is neither offered nor overwritten, by the real programs over loopback.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(30);

fn program(bin: &Path, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin);
    command.env_clear().env("HOME", home).current_dir(home).args(args);
    command
}

struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    addr: String,
}

impl Server {
    /// `gpb-server ARGS` with this home, once all files are hashed.
    fn start(home: &Path, args: &[&str]) -> Self {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-server"), home, args);
        command.args(["--bind", "127.0.0.1", "--port", "0", "--no-multicast"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let (lines, sender) = (BufReader::new(output).lines(), sender.clone());
            thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        }
        let mut server = Server { child, lines, seen: Vec::new(), addr: String::new() };
        let line = server.wait_line("127.0.0.1:");
        let from = line.find("127.0.0.1:").unwrap();
        server.addr = line[from..].split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next().unwrap().into();
        server.wait_line("ready");
        server
    }

    fn wait_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { panic!("no line with `{part}`: {:#?}", self.seen) };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// A client with a home of its own that knows this server.
    fn client(&self, home: &Path, args: &[&str]) -> Output {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), home, args);
        command.args(["--no-multicast", "--bind", "127.0.0.1", "--peer", &self.addr]);
        command.output().unwrap()
    }

    fn listed(&self) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let output = self.client(home.path(), &["list", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        rows.filter_map(|row| Some(row.get("path")?.as_str()?.to_owned())).collect()
    }

    /// What a client can fetch of all that it can ask for by these names and roots.
    fn fetched(&self, wanted: &[String]) -> Vec<PathBuf> {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        for what in wanted {
            self.client(home.path(), &["get", what, "--out", &format!("{}/", out.display()), "--timeout", "2"]);
        }
        let files = walkdir::WalkDir::new(&out).into_iter().flatten().filter(|e| e.file_type().is_file());
        files.map(|e| e.into_path().strip_prefix(&out).unwrap().to_path_buf()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
