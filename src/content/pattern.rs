//! The text that selects files: a name, a directory, a glob or a root.

use globset::{GlobBuilder, GlobMatcher};

use crate::content::limits::ROOT_PREFIX_MIN;
use crate::content::rel_path::is_below;
use crate::content::{Digest, FileId, Root};
use crate::limits::PATTERN_LEN_MAX;

/// A name, a directory, a glob, a root or the beginning of one.
///
/// 64 hex digits are always a root, never a name; `ROOT:LEN` is a root of a given length.
/// Everything else is a path: it means the file of that name, every file below that directory,
/// every file that it matches as a glob (`*` stays within a component, `**` does not), and, with at
/// least eight hex digits, every file whose root begins so.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// A whole root, with the length if it was given.
    Root(Root, Option<u64>),
    /// A path, a directory or a glob, perhaps also the prefix of a root.
    Path {
        /// As typed, without a trailing `/`.
        text: String,
        /// Set when `text` has a character that globs use.
        glob: Option<GlobMatcher>,
        /// Set when `text` may be the beginning of a root, in lower case.
        prefix: Option<String>,
    },
}

/// Why a text is no [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or longer than [`PATTERN_LEN_MAX`] bytes.
    #[error("pattern is empty or longer than {PATTERN_LEN_MAX} bytes")]
    Length,
    /// A glob that is not well formed.
    #[error("malformed pattern: {0}")]
    Glob(String),
    /// The part behind `ROOT:` is no length.
    #[error("`{0}` is no length in bytes")]
    FileLen(String),
}

impl Pattern {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`PatternError`]: empty, too long, or a malformed glob.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > PATTERN_LEN_MAX {
            return Err(PatternError::Length);
        }
        if let Ok(root) = text.parse::<Root>() {
            return Ok(Pattern::Root(root, None));
        }
        if let Some((root, len)) = text.split_once(':')
            && let Ok(root) = root.parse::<Root>()
        {
            let len = len.parse().map_err(|_| PatternError::FileLen(len.into()))?;
            return Ok(Pattern::Root(root, Some(len)));
        }
        let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/').to_string();
        if text.is_empty() {
            return Err(PatternError::Length);
        }
        let glob = text
            .contains(['*', '?', '[', '{'])
            .then(|| GlobBuilder::new(&text).literal_separator(true).backslash_escape(true).build())
            .transpose()
            .map_err(|e| PatternError::Glob(e.kind().to_string()))?
            .map(|g| g.compile_matcher());
        let hex = text.len() >= ROOT_PREFIX_MIN && text.len() < 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let prefix = hex.then(|| text.to_ascii_lowercase());
        Ok(Pattern::Path { text, glob, prefix })
    }

    /// Whether the file of this name and identity is meant. A bare root never means a file of
    /// length 64: that length can be forged to any root, so it must be spelled out as
    /// `ROOT:64`.
    pub fn matches(&self, path: &str, id: &FileId) -> bool {
        self.matches_path(path) || self.matches_id(id)
    }

    /// Whether the path alone makes the file meant.
    pub fn matches_path(&self, path: &str) -> bool {
        match self {
            Pattern::Root(..) => false,
            Pattern::Path { text, glob, .. } => {
                path == text || is_below(path, text) || glob.as_ref().is_some_and(|g| g.is_match(path))
            }
        }
    }

    /// Whether the identity alone makes the file meant.
    pub fn matches_id(&self, id: &FileId) -> bool {
        match self {
            Pattern::Root(root, len) => id.root == *root && len.map_or(id.len != FORGEABLE_LEN, |l| l == id.len),
            Pattern::Path { prefix, .. } => {
                id.len != FORGEABLE_LEN && prefix.as_ref().is_some_and(|p| has_prefix(&id.root.0, p))
            }
        }
    }

    /// Whether exactly one file of exactly this name is meant, if there is one: no glob character
    /// and no root.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Pattern::Path { text, glob: None, .. } => Some(text),
            _ => None,
        }
    }
}

fn has_prefix(digest: &Digest, prefix: &str) -> bool {
    prefix.bytes().enumerate().all(|(i, c)| {
        let byte = digest.0[i / 2];
        let digit = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
        (c as char).to_digit(16) == Some(digit as u32)
    })
}

/// Two digests side by side: the one length at which a file can be made to have another file's
/// root.
const FORGEABLE_LEN: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8, len: u64) -> FileId {
        FileId { root: Root(Digest([byte; 32])), len }
    }

    fn hit(pattern: &str, path: &str, file: FileId) -> bool {
        Pattern::parse(pattern).unwrap().matches(path, &file)
    }

    #[test]
    fn paths_directories_and_globs() {
        let f = id(1, 5);
        assert!(hit("a/b.bin", "a/b.bin", f) && hit("a", "a/b.bin", f) && hit("a/", "a/b.bin", f));
        assert!(hit("*.bin", "b.bin", f) && !hit("*.bin", "a/b.bin", f) && hit("**/*.bin", "a/b.bin", f));
        assert!(hit("a[1].bin", "a[1].bin", f) && hit("a[1].bin", "a1.bin", f));
        assert!(!hit("a", "ab", f) && !hit("b.bin", "a/b.bin", f));
    }

    #[test]
    fn roots_and_prefixes() {
        let root = "ab".repeat(32);
        assert!(hit(&root, "x", id(0xab, 7)) && !hit(&root, &root, id(1, 7)));
        assert!(hit("abababab", "x", id(0xab, 7)) && hit("ABABABABA", "x", id(0xab, 7)));
        assert!(!hit("ababababb", "x", id(0xab, 7)) && !hit("abababa", "x", id(0xab, 7)));
        assert!(hit("abababab", "abababab", id(1, 7)));
    }

    #[test]
    fn a_bare_root_never_means_the_forgeable_length() {
        let root = "ab".repeat(32);
        assert!(!hit(&root, "x", id(0xab, 64)) && !hit("abababab", "x", id(0xab, 64)));
        assert!(hit(&format!("{root}:64"), "x", id(0xab, 64)) && !hit(&format!("{root}:64"), "x", id(0xab, 65)));
    }

    #[test]
    fn what_is_no_pattern() {
        assert_eq!(Pattern::parse("").unwrap_err(), PatternError::Length);
        assert_eq!(Pattern::parse("/").unwrap_err(), PatternError::Length);
        assert!(matches!(Pattern::parse("a[").unwrap_err(), PatternError::Glob(_)));
        assert!(matches!(Pattern::parse(&format!("{}:x", "ab".repeat(32))).unwrap_err(), PatternError::FileLen(_)));
    }
}
