//! The real programs over loopback, each with a home of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WAIT: Duration = Duration::from_secs(60);

pub(crate) fn program(bin: &Path, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin);
    command.env_clear().env("HOME", home).current_dir(home).args(args);
    command
}

/// A port of 127.0.0.1 that is free now, and that no program gets which asks for any port: the system takes those from 32,768
/// on.
pub(crate) fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| 10_000 + rand::random::<u16>() % 17_000);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(1000).find(is_free).expect("a free port")
}

/// `gpb-server`, ended when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
    addr: String,
}

impl Server {
    /// `gpb-server ARGS` with this home, once all files are hashed.
    pub(crate) fn start(home: &Path, args: &[&str]) -> Self {
        Self::start_to(home, args, None)
    }

    /// With its standard error in a file, if one is given.
    pub(crate) fn start_to(home: &Path, args: &[&str], errors: Option<&Path>) -> Self {
        Self::start_at(0, home, args, errors)
    }

    /// The same at this port; 0 for any.
    pub(crate) fn start_at(port: u16, home: &Path, args: &[&str], errors: Option<&Path>) -> Self {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-server"), home, args);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--no-multicast"]);
        let stderr = errors.map_or_else(Stdio::piped, |path| File::create(path).unwrap().into());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let mut outputs: Vec<Box<dyn Read + Send>> = vec![Box::new(child.stdout.take().unwrap())];
        outputs.extend(child.stderr.take().map(|e| Box::new(e) as Box<dyn Read + Send>));
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

    /// The address that it listens on.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) fn wait_line(&mut self, part: &str) -> String {
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
    pub(crate) fn client(&self, home: &Path, args: &[&str]) -> Output {
        let mut command = program(assert_cmd::cargo::cargo_bin!("gpb-client"), home, &[]);
        command.args(["--no-multicast", "--bind", "127.0.0.1", "--peer", &self.addr]);
        command.args(args).output().unwrap()
    }

    pub(crate) fn listed(&self) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let output = self.client(home.path(), &["list", "--json", "--wait", "20"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        rows.filter_map(|row| Some(row.get("path")?.as_str()?.to_owned())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
