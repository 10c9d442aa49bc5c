//! A file of trusted keys, which is read again when it changes.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::identity::PeerId;
use crate::runtime::keystore::KeyError;
use crate::runtime::keystore::followed_file::{FollowedFile, printable, written_lines};
use crate::runtime::limits::TRUSTED_KEYS_MAX;

/// The file of a closed group.
#[derive(Debug)]
pub(super) struct TrustedFile(FollowedFile);

impl TrustedFile {
    /// Reads `file`, and returns the keys that it has.
    ///
    /// # Errors
    /// [`KeyError`]: the file is missing or a line is malformed; the message names file and line.
    pub(super) fn open(file: &Path) -> Result<(Self, HashSet<PeerId>), KeyError> {
        match FollowedFile::open(file, "trust file", parse) {
            Err(KeyError::Read { file, source }) if source.kind() == io::ErrorKind::NotFound => {
                Err(KeyError::TrustedNotFound { file })
            }
            other => other.map(|(file, keys)| (TrustedFile(file), keys)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The keys of the file, if it may have changed since the last read and can be used. A file that
    /// cannot is logged once.
    pub(super) fn read_again(&self) -> Option<HashSet<PeerId>> {
        self.0.read_again(parse)
    }
}

/// Reads one `ed25519:<base64> comment` a line; blank lines and lines that begin with `#` are
/// skipped. `peer=` may stand before a key, as in all that `gpb-keygen --show` prints.
fn parse(file: &Path, content: &[u8]) -> Result<HashSet<PeerId>, KeyError> {
    let mut keys = HashSet::new();
    for (number, line) in written_lines(content) {
        let (word, id, _) = trusted_line(line);
        let Some(id) = id else {
            let found = printable(word);
            return Err(KeyError::TrustedLine { file: file.into(), line: number, found });
        };
        keys.insert(id);
        if keys.len() > TRUSTED_KEYS_MAX {
            return Err(KeyError::TooManyKeys { file: file.into() });
        }
    }
    Ok(keys)
}

/// The first word of a line, the key that it is, and the comment behind it.
pub(crate) fn trusted_line(line: &[u8]) -> (&[u8], Option<PeerId>, &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (word, comment) = line.split_at(end);
    let key = std::str::from_utf8(word.strip_prefix(b"peer=").unwrap_or(word)).ok();
    (word, key.and_then(|key| key.parse().ok()), comment.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

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

    /// The output of `gpb-keygen --show`, appended as a whole, broke the file at its first line.
    #[test]
    fn all_that_keygen_shows_may_be_appended() {
        let (_dir, file) = written(&format!("{}\npeer={}\n{} ana@host\n", id(1), id(2), id(2)));
        assert_eq!(TrustedFile::open(&file).unwrap().1, [1, 2].map(id).into());
        assert!(refusal(format!("key={}", id(1)).as_bytes()).starts_with("dir/trusted:1: "));
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
