//! Results on standard output: tables and lines for people, or one JSON object a line.
//!
//! The JSON fields are a contract: more may be added, none changes.

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::cli::text::{bytes, escape, rate};
use crate::content::{FileId, RelPath};
use crate::identity::PeerId;

/// Writes results to `W`, which is flushed after each call, so that a reader at a pipe sees them at once.
#[derive(Debug)]
pub struct Output<W: Write> {
    to: BufWriter<W>,
    json: bool,
}

/// A peer that was found.
#[derive(Debug, Clone, Copy)]
pub struct PeerRow {
    /// Its key.
    pub peer: PeerId,
    /// Where it serves.
    pub addr: SocketAddr,
    /// How many files it offers.
    pub files: u64,
    /// Milliseconds since it was last heard.
    pub age_ms: u64,
}

/// A file that is offered.
#[derive(Debug, Clone, Copy)]
pub struct FileRow<'a> {
    /// Its name.
    pub path: &'a RelPath,
    /// Its content.
    pub id: &'a FileId,
    /// How many peers hold it.
    pub holders: usize,
}

/// One of several contents that a name has.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The name.
    pub path: &'a RelPath,
    /// One of its contents.
    pub id: &'a FileId,
    /// Who holds this one.
    pub holders: &'a [PeerId],
}

/// What a download came to.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// Files that are whole now.
    pub files: u64,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// Time that it took.
    pub seconds: f64,
    /// Requests that were asked again.
    pub retries: u64,
    /// Bytes that came twice or were wrong.
    pub wasted: u64,
    /// Bytes by peer.
    pub peers: &'a [(PeerId, u64)],
}

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, Copy)]
pub struct Finding<'a> {
    /// What was looked at, such as `interface eth0`.
    pub check: &'a str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: &'a str,
    /// What to change; nothing if all is well.
    pub advice: &'a str,
}

impl<W: Write> Output<W> {
    /// Results on `to`, as JSON or for people. Where a [`Progress`](crate::cli::Progress) writes from another thread,
    /// give `io::stdout()` and not its lock, which would make that thread wait.
    pub fn new(to: W, json: bool) -> Self {
        Output { to: BufWriter::new(to), json }
    }

    /// A server listens.
    pub fn listening(&mut self, peer: &PeerId, addr: SocketAddr) -> io::Result<()> {
        self.line(&Event { event: "listening", of: Listening { peer: peer.to_string(), addr } }, || {
            format!("listening peer={peer} addr={addr}")
        })
    }

    /// A server has hashed all that it found at start.
    pub fn ready(&mut self, files: u64, bytes: u64) -> io::Result<()> {
        self.line(&Event { event: "ready", of: Ready { files, bytes } }, || {
            format!("ready files={files} bytes={bytes}")
        })
    }

    /// The peers that were found.
    pub fn peers(&mut self, rows: &[PeerRow]) -> io::Result<()> {
        let width = rows.iter().map(|r| r.addr.to_string().len()).max().unwrap_or(0);
        for r in rows {
            let json = PeerLine { peer: r.peer.to_string(), addr: r.addr, files: r.files, age_ms: r.age_ms };
            self.row(&json, || {
                let age = r.age_ms as f64 / 1000.0;
                format!("{}  {:width$}  {:>9}  {age:.1} s", r.peer, r.addr.to_string(), count(r.files, "file"))
            })?;
        }
        self.to.flush()
    }

    /// The files that are offered.
    pub fn list<'a>(&mut self, rows: impl Iterator<Item = FileRow<'a>> + Clone) -> io::Result<()> {
        let width = rows.clone().map(|r| r.path.as_str().chars().count().min(PATH_WIDTH_MAX)).max().unwrap_or(0);
        for r in rows {
            let (root, len) = (r.id.root.to_string(), r.id.len);
            let json = FileLine { path: r.path.as_str(), len, root: &root, holders: r.holders };
            self.row(&json, || {
                let path = escape(r.path.as_str());
                format!("{path:width$}  {:>10}  {root}  {}", bytes(len), count(r.holders as u64, "holder"))
            })?;
        }
        self.to.flush()
    }

    /// A download begins. Said in JSON only.
    pub fn start(&mut self, files: u64, bytes: u64) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.line(&Event { event: "start", of: Ready { files, bytes } }, String::new)
    }

    /// A file is whole, verified and in place.
    pub fn file(&mut self, path: &RelPath, id: &FileId, out: &Path, seconds: f64) -> io::Result<()> {
        let (root, shown) = (id.root.to_string(), out.to_string_lossy());
        let of = Fetched { path: path.as_str(), root: &root, len: id.len, out: &shown, seconds: thousandths(seconds) };
        self.line(&Event { event: "file", of }, || format!("{}  {}", escape(&shown), bytes(id.len)))
    }

    /// A download is over.
    pub fn done(&mut self, s: &Summary<'_>) -> io::Result<()> {
        let peers = s.peers.iter().map(|(peer, bytes)| PeerBytes { peer: peer.to_string(), bytes: *bytes }).collect();
        let seconds = thousandths(s.seconds);
        let of = Done { files: s.files, bytes: s.bytes, seconds, retries: s.retries, wasted: s.wasted, peers };
        self.line(&Event { event: "done", of }, || summary(s))
    }

    /// The contents that one name has, of which one must be chosen by its root.
    pub fn candidates(&mut self, all: &[Candidate<'_>]) -> io::Result<()> {
        for c in all {
            let root = c.id.root.to_string();
            let holders: Vec<String> = c.holders.iter().map(PeerId::to_string).collect();
            let text = format!("{}  {}  {root}  {}", escape(c.path.as_str()), bytes(c.id.len), holders.join(" "));
            let of = Choice { path: c.path.as_str(), root: &root, len: c.id.len, holders };
            self.row(&Event { event: "candidate", of }, || text)?;
        }
        self.to.flush()
    }

    /// What `doctor` found.
    pub fn findings(&mut self, all: &[Finding<'_>]) -> io::Result<()> {
        for f in all {
            let of = Check { check: f.check, ok: f.ok, detail: f.detail, advice: f.advice };
            self.row(&Event { event: "check", of }, || {
                let advice = if f.advice.is_empty() { String::new() } else { format!("; {}", escape(f.advice)) };
                let mark = if f.ok { "ok  " } else { "BAD " };
                format!("{mark} {}: {}{advice}", escape(f.check), escape(f.detail))
            })?;
        }
        self.to.flush()
    }

    /// A key was made.
    pub fn key_made(&mut self, file: &Path, peer: &PeerId) -> io::Result<()> {
        let key = file.to_string_lossy();
        self.line(&Event { event: "key", of: Key { key: &key, peer: peer.to_string(), trusted: None } }, || {
            format!("key={}\npeer={peer}", escape(&key))
        })
    }

    /// The public half of a key, and its line for a trusted file.
    pub fn key_shown(&mut self, file: &Path, peer: &PeerId, comment: &str) -> io::Result<()> {
        let (key, trusted) = (file.to_string_lossy(), format!("{peer} {}", escape(comment)));
        let of = Key { key: &key, peer: peer.to_string(), trusted: Some(&trusted) };
        self.line(&Event { event: "key", of }, || format!("peer={peer}\n{trusted}"))
    }

    /// One line that stands for itself.
    fn line(&mut self, json: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        self.row(json, text)?;
        self.to.flush()
    }

    /// One line of several.
    fn row(&mut self, json: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.to, json)?;
        } else {
            self.to.write_all(text().as_bytes())?;
        }
        self.to.write_all(b"\n")
    }
}

fn summary(s: &Summary<'_>) -> String {
    let mut text = format!(
        "done {} {} in {:.2} s, {}, {}",
        count(s.files, "file"),
        bytes(s.bytes),
        s.seconds,
        rate(s.bytes, s.seconds),
        if s.retries == 1 { "1 retry".into() } else { format!("{} retries", s.retries) },
    );
    if s.wasted > 0 {
        text = format!("{text}, {} wasted", bytes(s.wasted));
    }
    let total: u128 = s.peers.iter().map(|(_, n)| u128::from(*n)).sum();
    for (peer, n) in s.peers {
        let percent = if total > 0 { *n as f64 * 100.0 / total as f64 } else { 0.0 };
        text = format!("{text}\n  {peer}  {:>10}  {percent:.1}%", bytes(*n));
    }
    text
}

fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Seconds to the millisecond; more digits would only pretend.
fn thousandths(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Column that longer names run over rather than pushing all others aside.
const PATH_WIDTH_MAX: usize = 60;

#[derive(Serialize)]
struct Event<T> {
    event: &'static str,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct Listening {
    peer: String,
    addr: SocketAddr,
}

#[derive(Serialize)]
struct Ready {
    files: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct PeerLine {
    peer: String,
    addr: SocketAddr,
    files: u64,
    age_ms: u64,
}

#[derive(Serialize)]
struct FileLine<'a> {
    path: &'a str,
    len: u64,
    root: &'a str,
    holders: usize,
}

#[derive(Serialize)]
struct Fetched<'a> {
    path: &'a str,
    root: &'a str,
    len: u64,
    out: &'a str,
    seconds: f64,
}

#[derive(Serialize)]
struct Done {
    files: u64,
    bytes: u64,
    seconds: f64,
    retries: u64,
    wasted: u64,
    peers: Vec<PeerBytes>,
}

#[derive(Serialize)]
struct PeerBytes {
    peer: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Choice<'a> {
    path: &'a str,
    root: &'a str,
    len: u64,
    holders: Vec<String>,
}

#[derive(Serialize)]
struct Check<'a> {
    check: &'a str,
    ok: bool,
    detail: &'a str,
    advice: &'a str,
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    fn written(json: bool, write: impl FnOnce(&mut Output<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut text = Vec::new();
        write(&mut Output::new(&mut text, json)).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn id(byte: u8, len: u64) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len }
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn the_json_of_peers_and_list_is_as_agreed() {
        let peer = PeerId([0; 32]);
        let row = PeerRow { peer, addr: "10.0.0.1:27420".parse().unwrap(), files: 3, age_ms: 40 };
        assert_eq!(
            written(true, |o| o.peers(&[row])),
            format!("{{\"peer\":\"{peer}\",\"addr\":\"10.0.0.1:27420\",\"files\":3,\"age_ms\":40}}\n")
        );
        let row = FileRow { path: &path("a \"b\""), id: &id(0xab, 5), holders: 2 };
        assert_eq!(
            written(true, |o| o.list([row].into_iter())),
            format!("{{\"path\":\"a \\\"b\\\"\",\"len\":5,\"root\":\"{}\",\"holders\":2}}\n", "ab".repeat(32))
        );
    }

    #[test]
    fn the_json_of_get_is_as_agreed() {
        let (peer, root) = (PeerId([0; 32]), "ab".repeat(32));
        assert_eq!(
            written(true, |o| o.file(&path("d/f"), &id(0xab, 5), Path::new("/x/d/f"), 1.23456)),
            format!(
                "{{\"event\":\"file\",\"path\":\"d/f\",\"root\":\"{root}\",\"len\":5,\"out\":\"/x/d/f\",\"seconds\":1.235}}\n"
            )
        );
        let s = Summary { files: 1, bytes: 5, seconds: 2.0, retries: 3, wasted: 4, peers: &[(peer, 5)] };
        assert_eq!(
            written(true, |o| o.done(&s)),
            format!(
                "{{\"event\":\"done\",\"files\":1,\"bytes\":5,\"seconds\":2.0,\"retries\":3,\"wasted\":4,\
                 \"peers\":[{{\"peer\":\"{peer}\",\"bytes\":5}}]}}\n"
            )
        );
        assert_eq!(written(true, |o| o.start(2, 9)), "{\"event\":\"start\",\"files\":2,\"bytes\":9}\n");
        assert_eq!(written(false, |o| o.start(2, 9)), "");
    }

    #[test]
    fn people_read_tables() {
        let (a, b) = (path("a"), path("long/name"));
        let rows =
            [FileRow { path: &a, id: &id(1, 5), holders: 1 }, FileRow { path: &b, id: &id(2, 1 << 20), holders: 2 }];
        let text = written(false, |o| o.list(rows.iter().copied()));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("a                 5 B  {}  1 holder", "01".repeat(32)));
        assert_eq!(lines[1], format!("long/name     1.0 MiB  {}  2 holders", "02".repeat(32)));
    }

    #[test]
    fn the_end_tells_who_gave_how_much() {
        let (p, q) = (PeerId([1; 32]), PeerId([2; 32]));
        let s = Summary {
            files: 2,
            bytes: 4 << 20,
            seconds: 2.0,
            retries: 1,
            wasted: 0,
            peers: &[(p, 3 << 20), (q, 1 << 20)],
        };
        assert_eq!(
            written(false, |o| o.done(&s)),
            format!(
                "done 2 files 4.0 MiB in 2.00 s, 2.0 MiB/s, 1 retry\n  {p}     3.0 MiB  75.0%\n  {q}     1.0 MiB  25.0%\n"
            )
        );
        let none = Summary { files: 0, bytes: 0, seconds: 0.0, retries: 0, wasted: 7, peers: &[(p, 0)] };
        let text = written(false, |o| o.done(&none));
        assert!(
            text.starts_with("done 0 files 0 B in 0.00 s, 0 B/s, 0 retries, 7 B wasted\n") && text.contains(" 0.0%")
        );
    }

    #[test]
    fn a_server_says_where_it_is_and_what_it_has() {
        let (peer, addr) = (PeerId([1; 32]), "[::1]:5".parse().unwrap());
        assert_eq!(written(false, |o| o.listening(&peer, addr)), format!("listening peer={peer} addr=[::1]:5\n"));
        assert_eq!(written(false, |o| o.ready(2, 30)), "ready files=2 bytes=30\n");
        assert_eq!(written(true, |o| o.ready(2, 30)), "{\"event\":\"ready\",\"files\":2,\"bytes\":30}\n");
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [true, false] {
            assert_eq!(Output::new(Closed, json).ready(1, 1).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
