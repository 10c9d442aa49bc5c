//! Results on standard output: tables and lines for people, or one JSON object a line.
//!
//! The JSON fields are a contract: more may be added, none changes.

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::cli::advice::remedy;
use crate::cli::text::{bytes, escape, rate};
use crate::client::{Candidate, FileReport, FoundPeer, Report};
use crate::identity::PeerId;
use crate::node::Finding;

mod failures;
mod list;
mod plan;
mod sync;
mod verify;

pub use plan::PlanTotals;

/// Writes results to `W`, which is flushed after each call, so that a reader at a pipe sees them at
/// once.
#[derive(Debug)]
pub struct Output<W: Write> {
    to: BufWriter<W>,
    json: bool,
}

impl<W: Write> Output<W> {
    /// Results on `to`, as JSON or for people. Where
    /// [`ProgressDisplay`](crate::cli::ProgressDisplay) writes too, `to` is `io::stdout()` and not
    /// its lock, which the display would wait for.
    pub fn new(to: W, json: bool) -> Self {
        Output { to: BufWriter::new(to), json }
    }

    /// A server listens.
    pub fn listening(&mut self, peer: &PeerId, addr: SocketAddr) -> io::Result<()> {
        self.line(&EventLine { event: "listening", of: ListeningLine { peer: peer.to_string(), addr } }, || {
            format!("listening peer={peer} addr={addr}")
        })
    }

    /// A server has hashed all that it found at start, but for the names that cannot be shared.
    pub fn ready(&mut self, files: u64, bytes: u64, unnamed: u64) -> io::Result<()> {
        self.line(&EventLine { event: "ready", of: ReadyLine { files, bytes, unnamed } }, || {
            let left_out = if unnamed > 0 { format!(" unnamed={unnamed}") } else { String::new() };
            format!("ready files={files} bytes={bytes}{left_out}")
        })
    }

    /// The peers that were found.
    pub fn peers(&mut self, found: &[FoundPeer]) -> io::Result<()> {
        let width = found.iter().map(|p| p.addr.to_string().len()).max().unwrap_or(0);
        for p in found {
            let json = PeerLine { peer: p.peer.to_string(), addr: p.addr, files: p.files, age_ms: p.age_ms };
            self.row(&json, || {
                let age = p.age_ms as f64 / 1000.0;
                format!("{}  {:width$}  {:>9}  {age:.1} s", p.peer, p.addr.to_string(), count(p.files, "file"))
            })?;
        }
        self.to.flush()
    }

    /// A download begins. Said in JSON only.
    pub fn start(&mut self, files: u64, bytes: u64) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        self.line(&EventLine { event: "start", of: TotalsLine { files, bytes } }, String::new)
    }

    /// A file is whole, verified and in place below `dir`.
    pub fn file(&mut self, file: &FileReport, dir: &Path) -> io::Result<()> {
        let (root, out) = (file.id.root.to_string(), dir.join(file.out.as_str()));
        let (len, shown, seconds) = (file.id.len, out.to_string_lossy(), thousandths(file.seconds));
        let of = FileLine { path: file.path.as_str(), root: &root, len, out: &shown, seconds };
        self.line(&EventLine { event: "file", of }, || format!("{}  {}", escape(&shown), bytes(len)))
    }

    /// A download is over.
    pub fn done(&mut self, r: &Report) -> io::Result<()> {
        self.line(&EventLine { event: "done", of: done_line(r) }, || summary(r, "done"))
    }

    /// A download is over, and not everything is in place.
    pub fn incomplete(&mut self, r: &Report) -> io::Result<()> {
        let of = IncompleteLine { failed: r.failed.len(), of: done_line(r) };
        self.line(&EventLine { event: "incomplete", of }, || summary(r, "fetched"))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// The contents that one name has, of which one must be chosen by its root.
    pub fn candidates(&mut self, all: &[Candidate]) -> io::Result<()> {
        for c in all {
            let root = c.id.root.to_string();
            let holders: Vec<String> = c.holders.iter().map(PeerId::to_string).collect();
            let text = format!("{}  {}  {root}  {}", escape(c.path.as_str()), bytes(c.id.len), holders.join(" "));
            let of = CandidateLine { path: c.path.as_str(), root: &root, len: c.id.len, holders };
            self.row(&EventLine { event: "candidate", of }, || text)?;
        }
        self.to.flush()
    }

    /// What `doctor` found.
    pub fn findings(&mut self, all: &[Finding]) -> io::Result<()> {
        for f in all {
            let (ok, advice) = (f.problem.is_none(), f.problem.map(remedy).unwrap_or_default());
            let of = CheckLine { check: &f.check, ok, detail: &f.detail, advice: &advice };
            self.row(&EventLine { event: "check", of }, || {
                let (mark, separator) = if ok { ("ok  ", "") } else { ("BAD ", "; ") };
                format!("{mark} {}: {}{separator}{advice}", escape(&f.check), escape(&f.detail))
            })?;
        }
        self.to.flush()
    }

    /// A key was made.
    pub fn key_made(&mut self, file: &Path, peer: &PeerId) -> io::Result<()> {
        let key = file.to_string_lossy();
        self.line(&EventLine { event: "key", of: KeyLine { key: &key, peer: peer.to_string(), trusted: None } }, || {
            format!("key={}\npeer={peer}", escape(&key))
        })
    }

    /// The public half of a key, and its line for a trusted file.
    pub fn key_shown(&mut self, file: &Path, peer: &PeerId, comment: &str) -> io::Result<()> {
        let (key, trusted) = (file.to_string_lossy(), format!("{peer} {}", escape(comment)));
        let of = KeyLine { key: &key, peer: peer.to_string(), trusted: Some(&trusted) };
        self.line(&EventLine { event: "key", of }, || format!("peer={peer}\n{trusted}"))
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

fn done_line(r: &Report) -> DoneLine {
    let peers = r.peers.iter().map(|(peer, bytes)| PeerBytes { peer: peer.to_string(), bytes: *bytes }).collect();
    let seconds = thousandths(r.seconds);
    DoneLine {
        files: r.files,
        bytes: r.bytes,
        fetched: r.bytes,
        reused: r.local.reused,
        holes: r.local.holes,
        seconds,
        retries: r.retries,
        wasted: r.wasted,
        peers,
    }
}

fn summary(r: &Report, verb: &str) -> String {
    let mut text = format!(
        "{verb} {} {} in {:.2} s, {}, {}",
        count(r.files as u64, "file"),
        origins(r),
        r.seconds,
        rate(r.bytes, r.seconds),
        if r.retries == 1 { "1 retry".into() } else { format!("{} retries", r.retries) },
    );
    if r.wasted > 0 {
        text = format!("{text}, {} wasted", bytes(r.wasted));
    }
    let total: u128 = r.peers.iter().map(|(_, n)| u128::from(*n)).sum();
    for (peer, n) in &r.peers {
        let percent = if total > 0 { *n as f64 * 100.0 / total as f64 } else { 0.0 };
        text = format!("{text}\n  {peer}  {:>10}  {percent:.1}%", bytes(*n));
    }
    text
}

/// Bytes that came from peers, and where other bytes came from.
fn origins(r: &Report) -> String {
    if r.local.reused == 0 && r.local.holes == 0 {
        return bytes(r.bytes);
    }
    format!("{} fetched, {} reused, {} holes", bytes(r.bytes), bytes(r.local.reused), bytes(r.local.holes))
}

/// A number of things, as in `1 file` and `2 files`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Seconds to the millisecond; more digits would only pretend.
fn thousandths(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[derive(Serialize)]
struct EventLine<T> {
    event: &'static str,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct ListeningLine {
    peer: String,
    addr: SocketAddr,
}

#[derive(Serialize)]
struct ReadyLine {
    files: u64,
    bytes: u64,
    unnamed: u64,
}

#[derive(Serialize)]
struct TotalsLine {
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
    root: &'a str,
    len: u64,
    out: &'a str,
    seconds: f64,
}

#[derive(Serialize)]
struct DoneLine {
    files: usize,
    bytes: u64,
    /// Equal to `bytes`, and named so beside the two that follow.
    fetched: u64,
    reused: u64,
    holes: u64,
    seconds: f64,
    retries: u64,
    wasted: u64,
    peers: Vec<PeerBytes>,
}

#[derive(Serialize)]
struct IncompleteLine {
    failed: usize,
    #[serde(flatten)]
    of: DoneLine,
}

#[derive(Serialize)]
struct PeerBytes {
    peer: String,
    bytes: u64,
}

#[derive(Serialize)]
struct CandidateLine<'a> {
    path: &'a str,
    root: &'a str,
    len: u64,
    holders: Vec<String>,
}

#[derive(Serialize)]
struct CheckLine<'a> {
    check: &'a str,
    ok: bool,
    detail: &'a str,
    advice: &'a str,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    key: &'a str,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{FoundFile, LocalBytes};
    use crate::content::{Digest, FileId, RelPath, Root};
    use crate::identity::NodeId;

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

    fn found(name: &str, id: FileId, holders: u8) -> FoundFile {
        let holders = (0..holders).map(|n| NodeId { peer: PeerId([n; 32]), instance: 1 }).collect();
        FoundFile { path: path(name), id, holders, shared: true, attributes: Default::default(), link: None }
    }

    #[test]
    fn the_json_of_peers_and_list_is_as_agreed() {
        let peer = PeerId([0; 32]);
        let addr = "10.0.0.1:27420".parse().unwrap();
        let peers = [FoundPeer { peer, instance: 1, addr, files: 3, bytes: 9, age_ms: 40 }];
        assert_eq!(
            written(true, |o| o.peers(&peers)),
            format!("{{\"peer\":\"{peer}\",\"addr\":\"10.0.0.1:27420\",\"files\":3,\"age_ms\":40}}\n")
        );
        let files = [found("a \"b\"", id(0xab, 5), 2)];
        assert_eq!(
            written(true, |o| o.list(&files, &[])),
            format!(
                "{{\"path\":\"a \\\"b\\\"\",\"len\":5,\"root\":\"{}\",\"holders\":2,\"mtime_ns\":0,\"executable\":false}}\n",
                "ab".repeat(32)
            )
        );
    }

    #[test]
    fn the_json_of_get_is_as_agreed() {
        let (peer, root) = (PeerId([0; 32]), "ab".repeat(32));
        let file =
            FileReport { path: path("d/f"), id: id(0xab, 5), out: path("d/f"), seconds: 1.23456, skipped: false };
        assert_eq!(
            written(true, |o| o.file(&file, Path::new("/x"))),
            format!(
                "{{\"event\":\"file\",\"path\":\"d/f\",\"root\":\"{root}\",\"len\":5,\"out\":\"/x/d/f\",\"seconds\":1.235}}\n"
            )
        );
        let peers = vec![(peer, 5)];
        let local = LocalBytes { reused: 6, holes: 7, rehashed: 0 };
        let done =
            Report { files: 1, bytes: 5, seconds: 2.0, retries: 3, wasted: 4, peers, local, ..Report::default() };
        assert_eq!(
            written(true, |o| o.done(&done)),
            format!(
                "{{\"event\":\"done\",\"files\":1,\"bytes\":5,\"fetched\":5,\"reused\":6,\"holes\":7,\"seconds\":2.0,\"retries\":3,\"wasted\":4,\
                 \"peers\":[{{\"peer\":\"{peer}\",\"bytes\":5}}]}}\n"
            )
        );
        assert_eq!(written(true, |o| o.start(2, 9)), "{\"event\":\"start\",\"files\":2,\"bytes\":9}\n");
        assert_eq!(written(false, |o| o.start(2, 9)), "");
    }

    #[test]
    fn people_read_tables() {
        let files = [found("a", id(1, 5), 1), found("long/name", id(2, 1 << 20), 2)];
        let text = written(false, |o| o.list(&files, &[]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("a                 5 B  {}  1 holder", "01".repeat(32)));
        assert_eq!(lines[1], format!("long/name     1.0 MiB  {}  2 holders", "02".repeat(32)));
    }

    #[test]
    fn the_end_tells_who_gave_how_much() {
        let (p, q) = (PeerId([1; 32]), PeerId([2; 32]));
        let peers = vec![(p, 3 << 20), (q, 1 << 20)];
        let done = Report { files: 2, bytes: 4 << 20, seconds: 2.0, retries: 1, peers, ..Report::default() };
        assert_eq!(
            written(false, |o| o.done(&done)),
            format!(
                "done 2 files 4.0 MiB in 2.00 s, 2.0 MiB/s, 1 retry\n  {p}     3.0 MiB  75.0%\n  {q}     1.0 MiB  25.0%\n"
            )
        );
        let local = LocalBytes { reused: 3 << 20, holes: 2 << 20, rehashed: 0 };
        let partly = Report { files: 1, bytes: 1 << 20, seconds: 2.0, local, ..Report::default() };
        assert_eq!(
            written(false, |o| o.done(&partly)),
            "done 1 file 1.0 MiB fetched, 3.0 MiB reused, 2.0 MiB holes in 2.00 s, 512 KiB/s, 0 retries\n"
        );
        let none = Report { wasted: 7, peers: vec![(p, 0)], ..Report::default() };
        let text = written(false, |o| o.done(&none));
        assert!(
            text.starts_with("done 0 files 0 B in 0.00 s, 0 B/s, 0 retries, 7 B wasted\n") && text.contains(" 0.0%")
        );
    }

    #[test]
    fn a_server_says_where_it_is_and_what_it_has() {
        let (peer, addr) = (PeerId([1; 32]), "[::1]:5".parse().unwrap());
        assert_eq!(written(false, |o| o.listening(&peer, addr)), format!("listening peer={peer} addr=[::1]:5\n"));
        assert_eq!(written(false, |o| o.ready(2, 30, 0)), "ready files=2 bytes=30\n");
        assert_eq!(written(false, |o| o.ready(2, 30, 1)), "ready files=2 bytes=30 unnamed=1\n");
        assert_eq!(
            written(true, |o| o.ready(2, 30, 0)),
            "{\"event\":\"ready\",\"files\":2,\"bytes\":30,\"unnamed\":0}\n"
        );
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
            assert_eq!(Output::new(Closed, json).ready(1, 1, 0).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
