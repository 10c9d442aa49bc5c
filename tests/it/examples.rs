//! The examples run, and do what they say: one shares, one fetches, one sees both come and go.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

struct Example {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Example {
    fn start(home: &Path, name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(path_of(name))
            .args(args)
            .env_clear()
            .env("HOME", home.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Example { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `part`.
    fn wait_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with `{part}`, only {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Presses Enter and waits for a good end.
    fn finish(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let status = self.child.wait().unwrap();
        self.seen.extend(self.lines.iter());
        assert!(status.success(), "{status}: {:#?}", self.seen);
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cargo has put an example.
fn path_of(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_gpb-client")).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing; `cargo build --examples` makes it", path.display());
    path
}

#[test]
fn the_examples_work_together() {
    let home = tempfile::tempdir().unwrap();
    let (shared, fetched) = (home.path().join("shared"), home.path().join("fetched"));
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::create_dir_all(&fetched).unwrap();
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(shared.join("a.bin"), &content).unwrap();
    // Others that run these tests at the same time are in networks of other names.
    let network = format!("examples-{}", std::process::id());

    // It ends when nothing happens for that many seconds, and is ended with the test.
    let mut watch = Example::start(home.path(), "watch_peers", &["600", &network, "lo"]);
    // Who comes from here on joins; who came before is there already.
    watch.wait_line("0 peers are there");
    let mut share = Example::start(home.path(), "share_directory", &[shared.to_str().unwrap(), &network, "lo"]);
    let listening = share.wait_line(" listens at ");
    let id = listening.split(' ').next().unwrap();
    share.wait_line("shares 1 files of 3000000 bytes");
    watch.wait_line(&format!("{id} joined"));

    let mut fetch = Example::start(home.path(), "fetch_file", &["a.bin", fetched.to_str().unwrap(), &network, "lo"]);
    fetch.wait_line("1 files, 3000000 bytes");
    fetch.wait_line(&format!("{id} gave 3000000 bytes"));
    fetch.finish();
    assert!(std::fs::read(fetched.join("a.bin")).unwrap() == content);

    let elsewhere = home.path().join("elsewhere");
    let args = ["a.bin", elsewhere.to_str().unwrap(), &network, "lo"];
    let mut window = Example::start(home.path(), "progress_window", &args);
    window.wait_line("a.bin is there");
    window.wait_line("1 files are in");
    window.finish();
    assert!(std::fs::read(elsewhere.join("a.bin")).unwrap() == content);
    let mut memory = Example::start(home.path(), "file_to_memory", &["a.bin", &network, "lo"]);
    memory.wait_line(&format!("a.bin has 3000000 bytes, the first is Some({})", content[0]));
    memory.finish();
    let mut read = Example::start(home.path(), "read_while_fetching", &["a.bin", &network, "lo"]);
    read.wait_line("a.bin has 3000000 bytes; the first after");
    read.wait_line(&format!(": {:?}", &content[2_999_984..]));
    read.wait_line("3000000 bytes read");
    read.finish();

    share.finish();
    watch.wait_line(&format!("{id} left"));
}

#[test]
fn a_button_cancels_a_search() {
    let home = tempfile::tempdir().unwrap();
    let (dir, network) = (home.path().join("dir"), format!("button-{}", std::process::id()));
    let args = ["nowhere.bin", dir.to_str().unwrap(), &network, "lo"];
    let mut window = Example::start(home.path(), "progress_window", &args);
    window.wait_line("press Enter to cancel");
    window.finish();
}

#[test]
fn members_of_a_group_come_and_go() {
    let home = tempfile::tempdir().unwrap();
    let mut group = Example::start(home.path(), "closed_group", &["lo"]);
    group.wait_line("bo sees plan.txt");
    group.wait_line("eve is refused: they do not trust its key");
    group.wait_line("eve sees 1 files");
    group.finish();
}
