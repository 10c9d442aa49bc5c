//! A file that the user writes, and that is read again when it changes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::chain::Chain;
use crate::runtime::keystore::KeyError;
use crate::runtime::keystore::key_file::read_bounded;
use crate::runtime::limits::FOLLOWED_FILE_LEN_MAX;
use crate::sync::lock;

/// A file of at most [`FOLLOWED_FILE_LEN_MAX`] bytes, and how it was found last.
#[derive(Debug)]
pub(crate) struct FollowedFile {
    file: PathBuf,
    /// What it is, for the log.
    what: &'static str,
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

impl FollowedFile {
    /// Reads `file`, which is `what`, and returns what `parse` makes of it.
    ///
    /// # Errors
    /// [`KeyError`]: the file cannot be read, or not parsed.
    pub(crate) fn open<T>(
        file: &Path,
        what: &'static str,
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, KeyError>,
    ) -> Result<(Self, T), KeyError> {
        let (parsed, stamp) = read(file, parse)?;
        Ok((FollowedFile { file: file.into(), what, seen: Mutex::new(LastRead { stamp, trouble: None }) }, parsed))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// What `parse` makes of the file, if it may have changed since the last read and can be used. A
    /// file that cannot is logged once.
    pub(crate) fn read_again<T>(&self, parse: impl FnOnce(&Path, &[u8]) -> Result<T, KeyError>) -> Option<T> {
        let mut seen = lock(&self.seen);
        if seen.stamp.is_some() && seen.stamp == std::fs::metadata(&self.file).ok().as_ref().map(FileStamp::of) {
            return None;
        }
        match read(&self.file, parse) {
            Ok((parsed, stamp)) => {
                seen.stamp = stamp;
                if seen.trouble.take().is_some() {
                    log::info!("{} usable again file={}", self.what, self.file.display());
                }
                Some(parsed)
            }
            Err(e) => {
                seen.stamp = None;
                let text = Chain(&e).to_string();
                if seen.trouble.as_ref() != Some(&text) {
                    log::warn!("{} unusable, what it said before stays in force error={text}", self.what);
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

fn read<T>(
    file: &Path,
    parse: impl FnOnce(&Path, &[u8]) -> Result<T, KeyError>,
) -> Result<(T, Option<FileStamp>), KeyError> {
    let (content, metadata) = read_bounded(file, FOLLOWED_FILE_LEN_MAX, |_| Ok(()))?;
    let stamp = Some(FileStamp::of(&metadata)).filter(FileStamp::is_settled);
    Ok((parse(file, &content)?, stamp))
}

/// The lines of a file that users write, each with its number: without a byte order mark, white space
/// at both ends, blank lines, and lines that begin with `#`.
pub(crate) fn written_lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let lines = content.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).enumerate();
    lines.filter(|(_, line)| !line.is_empty() && line[0] != b'#').map(|(at, line)| (at + 1, line))
}

/// The first [`SHOWN_CHARS`] characters of what was found, without control characters.
pub(crate) fn printable(word: &[u8]) -> String {
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

    use super::*;

    /// Takes files of one line.
    fn parse(file: &Path, content: &[u8]) -> Result<String, KeyError> {
        match written_lines(content).collect::<Vec<_>>()[..] {
            [(_, line)] => Ok(printable(line)),
            _ => Err(KeyError::TooManyKeys { file: file.into() }),
        }
    }

    /// A stamp is relied on only when it is so old that any later write must change it.
    #[test]
    fn a_fresh_stamp_is_not_relied_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let (followed, _) = FollowedFile::open(&file, "the file", parse).unwrap();
        assert_eq!(lock(&followed.seen).stamp, None);
        let fresh = FileStamp::of(&fs::metadata(&file).unwrap());
        let old = FileStamp { modified: (fresh.modified.0 - 10, 0), changed: (fresh.changed.0 - 10, 0), ..fresh };
        assert!(!fresh.is_settled() && old.is_settled());
        assert!(!FileStamp { modified: fresh.modified, ..old }.is_settled());
    }

    #[test]
    fn trouble_is_remembered_so_that_it_is_logged_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x\n").unwrap();
        let (followed, first) = FollowedFile::open(&file, "the file", parse).unwrap();
        assert_eq!(first, "x");
        let trouble = || lock(&followed.seen).trouble.clone();
        fs::write(&file, "x\ny\n").unwrap();
        assert_eq!(followed.read_again(parse), None);
        assert!(trouble().unwrap().contains("has more than"));
        fs::write(&file, "# not this\n  z \r\n").unwrap();
        assert_eq!((followed.read_again(parse), trouble()), (Some("z".into()), None));
    }
}
