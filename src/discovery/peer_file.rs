//! The peer file: one `HOST[:PORT]` a line, read again when it changes.
//!
//! Whatever knows the hosts of a group writes it: Ansible, Consul, a script over `tailscale status`.

use std::path::Path;
use std::sync::Mutex;

use crate::discovery::limits::BAD_LINES_LOGGED;
use crate::limits::STATIC_PEERS_MAX;
use crate::net::PeerAddr;
use crate::runtime::keystore::{FollowedFile, KeyError, printable, written_lines};
use crate::sync::lock;

/// The peer file of a node, and the peers that it names now.
#[derive(Debug)]
pub struct PeerListFile {
    file: FollowedFile,
    /// The peers that it named at the start.
    pub(super) first: Vec<PeerAddr>,
    /// The lines that were left out, as logged.
    logged: Mutex<Vec<String>>,
}

/// What a peer file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PeerLines {
    /// The peers, each once, at most [`STATIC_PEERS_MAX`].
    pub peers: Vec<PeerAddr>,
    /// The lines that name none, with their numbers: one short text each.
    pub bad: Vec<String>,
}

impl PeerListFile {
    /// Reads `file`. A line that names no peer is logged and left out.
    ///
    /// # Errors
    /// [`KeyError`]: the file cannot be read.
    pub fn open(file: &Path) -> Result<Self, KeyError> {
        let (followed, lines) = FollowedFile::open(file, "peer file", parse)?;
        let mut peer_file = PeerListFile { file: followed, first: Vec::new(), logged: Mutex::default() };
        peer_file.first = peer_file.take(lines);
        Ok(peer_file)
    }

    /// The peers that it names, if it may have changed since the last read. A file that vanished or
    /// cannot be read is logged once, and leaves the peers as they are.
    pub(super) fn read_again(&self) -> Option<Vec<PeerAddr>> {
        self.file.read_again(parse).map(|lines| self.take(lines))
    }

    fn take(&self, lines: PeerLines) -> Vec<PeerAddr> {
        let mut logged = lock(&self.logged);
        if *logged != lines.bad {
            for line in lines.bad.iter().take(BAD_LINES_LOGGED) {
                log::warn!("peer file: line left out {}:{line}", self.file.path().display());
            }
            if let Some(more) = lines.bad.len().checked_sub(BAD_LINES_LOGGED).filter(|more| *more > 0) {
                log::warn!("peer file: lines left out file={} more={more}", self.file.path().display());
            }
            *logged = lines.bad;
        }
        lines.peers
    }
}

impl PeerLines {
    /// Reads one `HOST[:PORT]` a line; behind it may be a comment that begins with `#`. Blank lines,
    /// and lines that begin with `#`, are skipped. The bad lines that are kept are bounded, too.
    pub fn parse(content: &[u8]) -> Self {
        let mut lines = PeerLines::default();
        for (number, line) in written_lines(content) {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let (word, next) = (words.next().unwrap_or_default(), words.next());
            let is_comment = next.is_none_or(|next| next[0] == b'#');
            let peer = std::str::from_utf8(word).ok().filter(|_| is_comment).map(str::parse::<PeerAddr>);
            match peer {
                Some(Ok(peer)) if lines.peers.contains(&peer) => {}
                Some(Ok(_)) if lines.peers.len() == STATIC_PEERS_MAX => {
                    lines.bad.push(format!("{number}: more than {STATIC_PEERS_MAX} peers"));
                    return lines;
                }
                Some(Ok(peer)) => lines.peers.push(peer),
                Some(Err(e)) if word.len() <= 64 && !word.iter().any(u8::is_ascii_control) => {
                    lines.note_bad(format!("{number}: {e}"));
                }
                Some(Err(_)) | None => lines.note_bad(format!("{number}: `{}` is no HOST[:PORT]", printable(line))),
            }
        }
        lines
    }

    fn note_bad(&mut self, line: String) {
        if self.bad.len() < STATIC_PEERS_MAX {
            self.bad.push(line);
        }
    }
}

fn parse(_: &Path, content: &[u8]) -> Result<PeerLines, KeyError> {
    Ok(PeerLines::parse(content))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn shown(lines: &PeerLines) -> Vec<String> {
        lines.peers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn peers_stand_one_on_a_line_with_comments() {
        let text = "\u{feff}# site A\r\n\r\n  gw.example:9  # the gateway\r\n[fe80::1%eth0]:80\n10.0.0.7#\nfd00::1\t#x\ngw.example:9";
        let lines = PeerLines::parse(text.as_bytes());
        assert_eq!(shown(&lines), ["gw.example:9", "[fe80::1%eth0]:80", "[fd00::1]:27420"]);
        assert_eq!(lines.bad.len(), 1, "{:?}", lines.bad);
        assert!(lines.bad[0].starts_with("5: `10.0.0.7#` is no HOST"));
        assert_eq!(PeerLines::parse(b""), PeerLines::default());
    }

    #[test]
    fn a_bad_line_is_named_and_stops_no_other() {
        let text =
            [&b"a\nb:0\n\xff\xfe\n10.0.0.1 lab3\nfe80::1\nc\n"[..], &[0x7f; 64], b"\n", "x".repeat(5000).as_bytes()]
                .concat();
        let lines = PeerLines::parse(&text);
        assert_eq!(shown(&lines), ["a:27420", "c:27420"]);
        let begins = [
            "2: `b:0` has no usable port",
            "3: `",
            "4: `10.0.0.1 lab3` is no HOST",
            "5: `fe80::1` is a link",
            "7: `???",
            "8: `xxx",
        ];
        assert_eq!(lines.bad.len(), begins.len(), "{:?}", lines.bad);
        for (line, begin) in lines.bad.iter().zip(begins) {
            assert!(line.starts_with(begin) && line.len() < 200 && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_long_file_is_cut_off_with_a_word() {
        let many: String = (0..5000).map(|n| format!("h{n}\n")).collect();
        let lines = PeerLines::parse(many.as_bytes());
        assert_eq!(
            (lines.peers.len(), lines.bad.as_slice()),
            (STATIC_PEERS_MAX, &["257: more than 256 peers".to_string()][..])
        );
        let bad = PeerLines::parse("?\n".repeat(5000).as_bytes());
        assert_eq!(bad.bad.len(), STATIC_PEERS_MAX);
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_one_that_vanishes_keeps_its_peers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        assert!(PeerListFile::open(&path).is_err() && PeerListFile::open(dir.path()).is_err());
        fs::write(&path, "a\n?\n").unwrap();
        let file = PeerListFile::open(&path).unwrap();
        assert_eq!(file.first, ["a".parse().unwrap()]);
        assert_eq!(lock(&file.logged).len(), 1);
        fs::write(&path, "b\n").unwrap();
        assert_eq!(file.read_again(), Some(vec!["b".parse().unwrap()]));
        assert!(lock(&file.logged).is_empty());
        fs::remove_file(&path).unwrap();
        assert_eq!(file.read_again(), None);
    }

    proptest! {
        #[test]
        fn no_content_panics_and_what_is_read_is_bounded(content in proptest::collection::vec(any::<u8>(), 0..400)) {
            let lines = PeerLines::parse(&content);
            prop_assert!(lines.peers.len() + lines.bad.len() <= content.split(|b| *b == b'\n').count());
            prop_assert!(lines.bad.iter().all(|line| line.len() < 400 && !line.contains('\n')));
        }
    }
}
