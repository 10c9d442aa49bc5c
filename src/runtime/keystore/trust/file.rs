//! A file of trusted keys, which is read again when it changes.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::chain::Chain;
use crate::identity::PeerId;
use crate::runtime::keystore::KeyError;
use crate::runtime::keystore::key_file::read_bounded;
use crate::runtime::limits::{TRUSTED_FILE_LEN_MAX, TRUSTED_KEYS_MAX};
use crate::sync::lock;

/// The file of a closed group.
#[derive(Debug)]
pub(super) struct TrustedFile {
    file: PathBuf,
    seen: Mutex<LastRead>,
}

/// What the last read of the file found.
#[derive(Debug, Default)]
struct LastRead {
    /// The stamp of the content that was read; `None` if a later write might leave the stamp
    /// unchanged.
    stamp: Option<FileStamp>,
    /// Why the file is not usable, as logged.
    trouble: Option<String>,
}

/// Metadata that changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl TrustedFile {
    /// Reads `file`, and returns the keys that it has.
    ///
    /// # Errors
    /// [`KeyError`]: the file is missing or a line is malformed; the message names file and line.
    pub(super) fn open(file: &Path) -> Result<(Self, HashSet<PeerId>), KeyError> {
        let (keys, stamp) = match read(file) {
            Err(KeyError::Read { file, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(KeyError::TrustedNotFound { file });
            }
            other => other?,
        };
        Ok((TrustedFile { file: file.into(), seen: Mutex::new(LastRead { stamp, trouble: None }) }, keys))
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// The keys of the file, if it may have changed since the last read and can be used. A file that
    /// cannot is logged once.
    pub(super) fn read_again(&self) -> Option<HashSet<PeerId>> {
        let mut seen = lock(&self.seen);
        if seen.stamp.is_some() && seen.stamp == std::fs::metadata(&self.file).ok().as_ref().map(FileStamp::of) {
            return None;
        }
        match read(&self.file) {
            Ok((keys, stamp)) => {
                seen.stamp = stamp;
                if seen.trouble.take().is_some() {
                    log::info!("trust file usable again file={}", self.file.display());
                }
                Some(keys)
            }
            Err(e) => {
                seen.stamp = None;
                let text = Chain(&e).to_string();
                if seen.trouble.as_ref() != Some(&text) {
                    log::warn!("trust file unusable, keeping the last good keys error={text}");
                    seen.trouble = Some(text);
                }
                None
            }
        }
    }
}

impl FileStamp {
    fn of(m: &Metadata) -> Self {
        FileStamp {
            inode: (m.dev(), m.ino()),
            len: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }

    /// Whether every later write changes the stamp: file systems keep times in steps of up to 2 s.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        self.changed.0 + 2 < now && self.modified.0 + 2 < now
    }
}

fn read(file: &Path) -> Result<(HashSet<PeerId>, Option<FileStamp>), KeyError> {
    let (content, metadata) = read_bounded(file, TRUSTED_FILE_LEN_MAX, |_| Ok(()))?;
    let stamp = Some(FileStamp::of(&metadata)).filter(FileStamp::is_settled);
    Ok((parse(file, &content)?, stamp))
}

/// Reads one `ed25519:<base64> comment` a line; blank lines and lines that begin with `#` are
/// skipped.
fn parse(file: &Path, content: &[u8]) -> Result<HashSet<PeerId>, KeyError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut keys = HashSet::new();
    for (i, line) in content.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if word.is_empty() || word[0] == b'#' {
            continue;
        }
        let id = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
        let Some(id) = id else {
            let found = printable(word);
            return Err(KeyError::TrustedLine { file: file.into(), line: i + 1, found });
        };
        keys.insert(id);
        if keys.len() > TRUSTED_KEYS_MAX {
            return Err(KeyError::TooManyKeys { file: file.into() });
        }
    }
    Ok(keys)
}

/// The first [`SHOWN_CHARS`] characters of what was found, without control characters.
fn printable(word: &[u8]) -> String {
    let text = String::from_utf8_lossy(word);
    let mut short: String = text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > SHOWN_CHARS {
        short.push_str("...");
    }
    short
}

const SHOWN_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn written(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trusted");
        fs::write(&file, content).unwrap();
        (dir, file)
    }

    fn refusal(content: &[u8]) -> String {
        parse(Path::new("dir/trusted"), content).unwrap_err().to_string()
    }

    #[test]
    fn comments_blank_lines_and_line_ends_are_tolerated() {
        let text = format!("\u{feff}# lab\r\n\r\n{} alice's laptop\r\n\t{}\t# bob\n   # end\n{}", id(1), id(2), id(3));
        let (_dir, file) = written(&text);
        let (_, keys) = TrustedFile::open(&file).unwrap();
        assert_eq!(keys, [1, 2, 3].map(id).into());
    }

    #[test]
    fn a_malformed_line_is_named() {
        let good = id(1).to_string();
        for (line, bad) in [(1, "hello"), (1, &good[..20]), (1, &good[1..]), (1, "\u{7}x")] {
            let text = refusal(bad.as_bytes());
            assert!(text.starts_with(&format!("dir/trusted:{line}: `")), "{text}");
            assert!(!text.contains('\u{7}'));
        }
        assert!(refusal(format!("{good}\n\n# x\n{good},\n").as_bytes()).starts_with("dir/trusted:4: "));
        assert!(refusal(b"\xff\xfe\x00").starts_with("dir/trusted:1: "));
        let long = refusal("x".repeat(5000).as_bytes());
        assert!(long.len() < 200 && long.contains("..."), "{long}");
        let many: String = (0..=TRUSTED_KEYS_MAX as u32)
            .map(|n| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_le_bytes());
                format!("{}\n", PeerId(key))
            })
            .collect();
        assert!(refusal(many.as_bytes()).contains("more than 16384 keys"));
    }

    #[test]
    fn a_missing_file_is_an_error_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &Path| TrustedFile::open(path).unwrap_err().to_string();
        assert!(said(&dir.path().join("none")).contains("not found"));
        assert!(said(dir.path()).contains("a directory"));
    }

    /// A stamp is relied on only when it is so old that any later write must change it.
    #[test]
    fn a_fresh_stamp_is_not_relied_on() {
        let (_dir, file) = written("");
        let (trusted, _) = TrustedFile::open(&file).unwrap();
        assert_eq!(lock(&trusted.seen).stamp, None);
        let fresh = FileStamp::of(&fs::metadata(&file).unwrap());
        let old = FileStamp { modified: (fresh.modified.0 - 10, 0), changed: (fresh.changed.0 - 10, 0), ..fresh };
        assert!(!fresh.is_settled() && old.is_settled());
        assert!(!FileStamp { modified: fresh.modified, ..old }.is_settled());
    }

    #[test]
    fn trouble_is_remembered_so_that_it_is_logged_once() {
        let (_dir, file) = written("");
        let (trusted, _) = TrustedFile::open(&file).unwrap();
        let trouble = || lock(&trusted.seen).trouble.clone();
        fs::write(&file, "nonsense\n").unwrap();
        trusted.read_again();
        assert!(trouble().unwrap().contains(":1: `nonsense`"));
        fs::write(&file, "").unwrap();
        trusted.read_again();
        assert_eq!(trouble(), None);
    }

    proptest! {
        #[test]
        fn no_content_panics(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(Path::new("f"), &content);
        }

        #[test]
        fn every_id_is_found_again(ids in proptest::collection::hash_set(any::<[u8; 32]>(), 0..20)) {
            let text: String = ids.iter().map(|i| format!("{} # x\n", PeerId(*i))).collect();
            let all = parse(Path::new("f"), text.as_bytes()).unwrap();
            prop_assert_eq!(all, ids.into_iter().map(PeerId).collect());
        }
    }
}
