//! The keys that a node talks to: all, or the keys in a file that is read again when it changes.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::chain::Chain;
use crate::identity::PeerId;
use crate::runtime::keystore::KeyError;
use crate::runtime::keystore::key_file::read_bounded;
use crate::runtime::limits::{TRUSTED_FILE_LEN_MAX, TRUSTED_KEYS_MAX};
use crate::sync::{lock, read_lock, write_lock};

/// The set of trusted keys. Reading it is cheap and never blocks on I/O.
#[derive(Debug)]
pub struct Trust {
    closed: Option<Closed>,
    generation: AtomicU64,
}

#[derive(Debug)]
struct Closed {
    file: PathBuf,
    own: PeerId,
    keys: RwLock<HashSet<PeerId>>,
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

impl Trust {
    /// An open group: every key, authenticated.
    pub fn open() -> Self {
        Trust { closed: None, generation: AtomicU64::new(0) }
    }

    /// A closed group: the keys in `file` and `own`. With an empty file only `own`.
    ///
    /// # Errors
    /// [`KeyError`]: the file is missing or a line is malformed; the message names file and line.
    pub fn closed(file: &Path, own: PeerId) -> Result<Self, KeyError> {
        let (keys, stamp) = match read(file, own) {
            Err(KeyError::Read { file, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(KeyError::TrustedNotFound { file });
            }
            other => other?,
        };
        let seen = Mutex::new(LastRead { stamp, trouble: None });
        let closed = Closed { file: file.into(), own, keys: RwLock::new(keys), seen };
        Ok(Trust { closed: Some(closed), generation: AtomicU64::new(0) })
    }

    /// Whether `peer` may talk to this node, and this node to it.
    pub fn allows(&self, peer: &PeerId) -> bool {
        let Some(closed) = &self.closed else { return true };
        read_lock(&closed.keys).contains(peer)
    }

    /// Whether every key is trusted.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Number of trusted keys, the own one included; `None` for an open group.
    pub fn len(&self) -> Option<usize> {
        let closed = self.closed.as_ref()?;
        Some(read_lock(&closed.keys).len())
    }

    /// Whether the own key is the only trusted one.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(1)
    }

    /// Grows whenever the set changes, so that a long session knows when to check its peer again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the file if its stamp changed, and replaces the set; true if that changed it. A
    /// vanished or broken file leaves the last good set and is logged once. The node calls this
    /// every 500 ms.
    pub fn reload(&self) -> bool {
        let Some(closed) = &self.closed else { return false };
        let changed = closed.reload();
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }
}

impl Closed {
    fn reload(&self) -> bool {
        let mut seen = lock(&self.seen);
        if seen.stamp.is_some() && seen.stamp == std::fs::metadata(&self.file).ok().as_ref().map(FileStamp::of) {
            return false;
        }
        match read(&self.file, self.own) {
            Ok((keys, stamp)) => {
                seen.stamp = stamp;
                if seen.trouble.take().is_some() {
                    log::info!("trust file usable again file={}", self.file.display());
                }
                self.take_over(keys)
            }
            Err(e) => {
                seen.stamp = None;
                let text = Chain(&e).to_string();
                if seen.trouble.as_ref() != Some(&text) {
                    log::warn!("trust file unusable, keeping the last good keys error={text}");
                    seen.trouble = Some(text);
                }
                false
            }
        }
    }

    fn take_over(&self, new: HashSet<PeerId>) -> bool {
        let mut keys = write_lock(&self.keys);
        if *keys == new {
            return false;
        }
        let old = std::mem::replace(&mut *keys, new.clone());
        drop(keys);
        old.difference(&new).for_each(|peer| log::info!("trust removed peer={peer}"));
        new.difference(&old).for_each(|peer| log::info!("trust added peer={peer}"));
        true
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

fn read(file: &Path, own: PeerId) -> Result<(HashSet<PeerId>, Option<FileStamp>), KeyError> {
    let (content, metadata) = read_bounded(file, TRUSTED_FILE_LEN_MAX, |_| Ok(()))?;
    let stamp = Some(FileStamp::of(&metadata)).filter(FileStamp::is_settled);
    let mut keys = parse(file, &content)?;
    keys.insert(own);
    Ok((keys, stamp))
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

    fn closed(content: &str) -> (tempfile::TempDir, PathBuf, Trust) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trusted");
        fs::write(&file, content).unwrap();
        let trust = Trust::closed(&file, id(0)).unwrap();
        (dir, file, trust)
    }

    fn refusal(content: &[u8]) -> String {
        parse(Path::new("dir/trusted"), content).unwrap_err().to_string()
    }

    #[test]
    fn an_open_group_is_everyone() {
        let trust = Trust::open();
        assert!(trust.is_open() && trust.allows(&id(9)) && !trust.reload() && trust.len().is_none());
    }

    #[test]
    fn comments_blank_lines_and_line_ends_are_tolerated() {
        let text = format!("\u{feff}# lab\r\n\r\n{} alice's laptop\r\n\t{}\t# bob\n   # end\n{}", id(1), id(2), id(3));
        let (_dir, _, trust) = closed(&text);
        assert!([0, 1, 2, 3].iter().all(|n| trust.allows(&id(*n))) && !trust.allows(&id(4)));
        assert_eq!(trust.len(), Some(4));
    }

    #[test]
    fn an_empty_file_is_nobody_else() {
        let (_dir, _, trust) = closed("");
        assert!(trust.allows(&id(0)) && !trust.allows(&id(1)) && !trust.is_open() && trust.is_empty());
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
        let said = |path: &Path| Trust::closed(path, id(0)).unwrap_err().to_string();
        assert!(said(&dir.path().join("none")).contains("not found"));
        assert!(said(dir.path()).contains("a directory"));
    }

    #[test]
    fn added_and_removed_keys_take_effect() {
        let (_dir, file, trust) = closed(&format!("{}\n{}\n", id(1), id(2)));
        assert!(!trust.reload());
        let before = trust.generation();
        fs::write(&file, format!("{}\n{}\n", id(1), id(3))).unwrap();
        assert!(trust.reload() && trust.generation() > before);
        assert!(trust.allows(&id(0)) && trust.allows(&id(1)) && !trust.allows(&id(2)) && trust.allows(&id(3)));
        let before = trust.generation();
        fs::write(&file, format!("# only words\n{}\n{}\n", id(3), id(1))).unwrap();
        assert!(!trust.reload() && trust.generation() == before);
    }

    /// Same length, same inode, and perhaps the same tick of the file system's clock.
    #[test]
    fn changes_in_quick_succession_are_all_seen() {
        let (_dir, file, trust) = closed(&format!("{}\n", id(1)));
        for n in 2..50 {
            fs::write(&file, format!("{}\n", id(n))).unwrap();
            assert!(trust.reload(), "{n}");
            assert!(trust.allows(&id(n)) && !trust.allows(&id(n - 1)));
        }
    }

    /// A stamp is relied on only when it is so old that any later write must change it.
    #[test]
    fn a_fresh_stamp_is_not_relied_on() {
        let (_dir, file, trust) = closed("");
        assert_eq!(trust.closed.as_ref().unwrap().seen.lock().unwrap().stamp, None);
        let fresh = FileStamp::of(&fs::metadata(&file).unwrap());
        let old = FileStamp { modified: (fresh.modified.0 - 10, 0), changed: (fresh.changed.0 - 10, 0), ..fresh };
        assert!(!fresh.is_settled() && old.is_settled());
        assert!(!FileStamp { modified: fresh.modified, ..old }.is_settled());
    }

    #[test]
    fn a_broken_or_vanished_file_leaves_the_last_good_set() {
        let (_dir, file, trust) = closed(&format!("{}\n", id(1)));
        fs::write(&file, "nonsense\n").unwrap();
        assert!(!trust.reload() && !trust.reload() && trust.allows(&id(1)));
        fs::remove_file(&file).unwrap();
        assert!(!trust.reload() && trust.allows(&id(1)) && trust.generation() == 0);
        fs::write(&file, format!("{}\n", id(2))).unwrap();
        assert!(trust.reload() && !trust.allows(&id(1)) && trust.allows(&id(2)));
    }

    #[test]
    fn trouble_is_remembered_so_that_it_is_logged_once() {
        let (_dir, file, trust) = closed("");
        let trouble = |t: &Trust| t.closed.as_ref().unwrap().seen.lock().unwrap().trouble.clone();
        fs::write(&file, "nonsense\n").unwrap();
        trust.reload();
        assert!(trouble(&trust).unwrap().contains(":1: `nonsense`"));
        fs::write(&file, "").unwrap();
        trust.reload();
        assert_eq!(trouble(&trust), None);
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
