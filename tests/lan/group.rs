//! Servers and clients as a person starts them, and what they report.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::net::{Host, Lan, secs};
use crate::process::{Ended, Process};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// The programs under test.
pub const SERVER: &str = env!("CARGO_BIN_EXE_gpb-server");
/// See [`SERVER`].
pub const CLIENT: &str = env!("CARGO_BIN_EXE_gpb-client");
/// See [`SERVER`].
pub const KEYGEN: &str = env!("CARGO_BIN_EXE_gpb-keygen");

/// A server that has hashed all of its directory.
pub struct Server {
    /// The program.
    pub process: Process,
    /// Its key, as `ed25519:...`.
    pub id: String,
    /// Where it listens, as `ip:port`.
    pub addr: String,
}

/// What a `get` with `--json` reported.
#[derive(Debug)]
pub struct Got {
    /// How it ended.
    pub ended: Ended,
    /// Its JSON lines.
    pub events: Vec<Value>,
}

impl Server {
    /// Starts a server of `dir` and waits until it is ready.
    pub fn start(host: &Host, dir: &Path, args: &[&str]) -> Self {
        let mut server = Self::start_only(host, dir, args);
        server.process.wait_line(&["ready files="], secs(20));
        server
    }

    /// Starts a server of `dir` and waits until it listens.
    pub fn start_only(host: &Host, dir: &Path, args: &[&str]) -> Self {
        let state = state(host, &format!("server-{}", dir.file_name().unwrap().to_str().unwrap()));
        let mut all = vec!["--dir", dir.to_str().unwrap(), "--state", &state];
        all.extend(args);
        let mut process = host.spawn(SERVER, &all);
        let line = process.wait_line(&["listening peer=", "addr="], secs(10));
        let field = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap().to_string();
        Server { process, id: field("peer="), addr: field("addr=") }
    }

    /// Its TCP port.
    pub fn port(&self) -> &str {
        self.addr.rsplit_once(':').unwrap().1
    }
}

/// Starts `gpb-client ARGS --json`, with state of its own under the host's home.
pub fn client(host: &Host, args: &[&str]) -> Process {
    let state = state(host, "client");
    let mut all = args.to_vec();
    all.extend(["--json", "--state", &state]);
    host.spawn(CLIENT, &all)
}

/// Starts `gpb-client get WHAT --dir DIR --json`.
pub fn get(host: &Host, what: &str, dir: &Path, args: &[&str]) -> Process {
    let mut all = vec!["get", what, "--dir", dir.to_str().unwrap(), "--no-share"];
    all.extend(args);
    client(host, &all)
}

/// Time for answers, which ends when all that are known have answered: a loaded machine needs more than the programs wait by
/// themselves. What looks for nobody says `--wait` itself.
const ANSWERS: [&str; 2] = ["--wait", "15"];

/// `command` with `args`, and with time for answers.
fn patient<'a>(command: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let wait = if args.contains(&ANSWERS[0]) { &[][..] } else { &ANSWERS[..] };
    [&[command][..], args, wait].concat()
}

/// Runs `gpb-client list` and returns the files in its JSON lines.
pub fn list(host: &Host, args: &[&str]) -> Vec<Value> {
    let ended = client(host, &patient("list", args)).wait(secs(15));
    json(&ended).into_iter().filter(|v| v["event"].is_null()).collect()
}

/// Runs `gpb-client peers` and returns the keys in its JSON lines.
pub fn peers(host: &Host, args: &[&str]) -> Vec<String> {
    let ended = client(host, &patient("peers", args)).wait(secs(15));
    json(&ended).iter().filter_map(|v| v["peer"].as_str().map(String::from)).collect()
}

/// The root of the file of that name, from a listing.
pub fn root_of(listing: &[Value], path: &str) -> Option<String> {
    listing.iter().find(|v| v["path"] == path).map(|v| v["root"].as_str().unwrap().to_string())
}

impl Got {
    /// Waits for the end of a `get`.
    pub fn wait(process: Process, within: std::time::Duration) -> Self {
        Self::of(process.wait(within))
    }

    /// What a `get` that has ended wrote.
    pub fn of(ended: Ended) -> Self {
        let events = json(&ended);
        Got { ended, events }
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.ended.code, Some(code), "exit code; it wrote:\n{}", self.ended.text());
        self
    }

    /// The last report.
    #[track_caller]
    pub fn done(&self) -> &Value {
        self.event("done")
    }

    /// The first event of that kind.
    #[track_caller]
    pub fn event(&self, kind: &str) -> &Value {
        self.events
            .iter()
            .find(|v| v["event"] == kind)
            .unwrap_or_else(|| panic!("no event `{kind}`; it wrote:\n{}", self.ended.text()))
    }

    /// Bytes fetched in all.
    #[track_caller]
    pub fn bytes(&self) -> u64 {
        self.done()["bytes"].as_u64().unwrap()
    }

    /// Bytes that came from the peer.
    #[track_caller]
    pub fn bytes_from(&self, id: &str) -> u64 {
        let peers = self.done()["peers"].as_array().unwrap();
        peers.iter().filter(|p| p["peer"] == id).map(|p| p["bytes"].as_u64().unwrap()).sum()
    }
}

/// Writes `len` bytes that depend on nothing but `seed`.
pub fn sample(path: &Path, len: u64, seed: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = BufWriter::with_capacity(MIB as usize, File::create(path).unwrap());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = len;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        let n = left.min(8) as usize;
        file.write_all(&bytes[..n]).unwrap();
        left -= n as u64;
    }
    file.flush().unwrap();
}

/// Makes a directory `name` for each name, each with its own copy of the file `path`, and returns them.
pub fn copies<const N: usize>(lan: &Lan, names: [&str; N], path: &str, len: u64, seed: u64) -> [PathBuf; N] {
    let first = lan.new_dir(names[0]).join(path);
    sample(&first, len, seed);
    names.map(|name| {
        let dir = lan.new_dir(name);
        let copy = dir.join(path);
        if copy != first {
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(&first, &copy).unwrap();
        }
        dir
    })
}

/// Fails unless both files have the same bytes.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let read = |p: &Path| fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()));
    assert!(read(a) == read(b), "{} differs from {}", a.display(), b.display());
}

/// The lines of stdout, each of which must be a JSON object.
pub fn json(ended: &Ended) -> Vec<Value> {
    let parse = |line: &String| match serde_json::from_str(line) {
        Ok(Value::Object(o)) => Value::Object(o),
        _ => panic!("with --json stdout has a line that is no JSON object: {line:?}\n{}", ended.text()),
    };
    ended.out.iter().map(parse).collect()
}

fn state(host: &Host, name: &str) -> String {
    host.home().join(format!("state-{name}")).to_str().unwrap().to_string()
}
