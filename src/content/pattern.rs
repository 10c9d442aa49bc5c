//! The text that selects files: a name, a directory, a glob or a root.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use globset::{GlobBuilder, GlobSet};

use crate::content::dot_rule::DotRule;
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
///
/// Two forms mean a name and nothing else, whatever characters it has: `./NAME`, and a text whose
/// glob characters all stand behind a backslash. A text that is no well-formed glob, such as
/// `draft[x`, is a name as well. So every name can be asked for, and a glob means the same whatever
/// names others offer.
///
/// ```
/// use gpb::Pattern;
///
/// let pattern = Pattern::parse("models/**/*.bin")?;
/// assert!(pattern.matches_path("models/a/b.bin") && !pattern.matches_path("models/a.txt"));
/// assert!(Pattern::parse("models")?.matches_path("models/a.txt"));
/// # Ok::<(), gpb::error::PatternError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    kind: PatternKind,
}

/// What a [`Pattern`] means.
#[derive(Debug, Clone)]
pub(crate) enum PatternKind {
    /// A whole root, with the length if it was given.
    Root(Root, Option<u64>),
    /// A path, a directory or a glob, perhaps also the prefix of a root.
    Path {
        /// The name, without a trailing `/`.
        text: String,
        /// Set when `text` is also a well-formed glob.
        glob: Option<PathGlob>,
        /// Set when `text` may be the beginning of a root, in lower case.
        prefix: Option<String>,
    },
}

/// A glob, and what it does not match as shells have it, once that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct PathGlob {
    set: GlobSet,
    dots: OnceLock<DotRule>,
}

/// Why a text is no [`Pattern`].
///
/// ```
/// use gpb::{Pattern, error::PatternError};
///
/// assert_eq!(Pattern::parse("").unwrap_err(), PatternError::Length);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, aside from `./` and trailing `/`, or longer than [`PATTERN_LEN_MAX`] bytes.
    #[error("pattern is empty without its `/`, or longer than {PATTERN_LEN_MAX} bytes")]
    Length,
    /// A glob that would take too much to match.
    #[error("pattern is too complex: {0}")]
    Glob(String),
    /// The part behind `ROOT:` is no length.
    #[error("`{0}` is no length in bytes")]
    FileLen(String),
}

impl Pattern {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`PatternError`]: empty, too long, or a glob that is too complex.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(Pattern { kind: PatternKind::parse(text)?, text: text.to_string() })
    }

    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub(crate) fn kind(&self) -> &PatternKind {
        &self.kind
    }

    /// Whether the file of this name and identity is meant. A bare root never means a file of
    /// length 64: that length can be forged to any root, so it must be spelled out as
    /// `ROOT:64`.
    pub fn matches(&self, path: &str, id: &FileId) -> bool {
        self.matches_path(path) || self.matches_id(id)
    }

    /// Whether the path alone makes the file meant.
    pub fn matches_path(&self, path: &str) -> bool {
        match &self.kind {
            PatternKind::Root(..) => false,
            PatternKind::Path { text, glob, .. } => {
                path == text || is_below(path, text) || glob.as_ref().is_some_and(|g| g.set.is_match(path))
            }
        }
    }

    /// Whether the path alone makes the file meant, as shells have it: no wildcard takes the dot
    /// that a name, or a directory above it, begins with. A name means the file, and a directory
    /// everything below it.
    ///
    /// ```
    /// use gpb::Pattern;
    ///
    /// assert!(!Pattern::parse("**")?.shows(".git/HEAD"));
    /// assert!(Pattern::parse(".git/*")?.shows(".git/HEAD") && Pattern::parse(".git")?.shows(".git/HEAD"));
    /// # Ok::<(), gpb::error::PatternError>(())
    /// ```
    pub fn shows(&self, path: &str) -> bool {
        let PatternKind::Path { text, glob, .. } = &self.kind else { return false };
        let by_glob =
            |glob: &PathGlob| glob.set.is_match(path) && glob.dots.get_or_init(|| DotRule::new(text)).allows(path);
        path == text || is_below(path, text) || glob.as_ref().is_some_and(by_glob)
    }

    /// Whether the identity alone makes the file meant.
    pub fn matches_id(&self, id: &FileId) -> bool {
        match &self.kind {
            PatternKind::Root(root, len) => id.root == *root && len.map_or(id.len != FORGEABLE_LEN, |l| l == id.len),
            PatternKind::Path { prefix, .. } => {
                id.len != FORGEABLE_LEN && prefix.as_ref().is_some_and(|p| has_prefix(&id.root.0, p))
            }
        }
    }
}

impl PatternKind {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > PATTERN_LEN_MAX {
            return Err(PatternError::Length);
        }
        if let Some(name) = text.strip_prefix("./") {
            return Self::name(name.trim_end_matches('/').to_string(), None);
        }
        if let Ok(root) = text.parse::<Root>() {
            return Ok(PatternKind::Root(root, None));
        }
        if let Some((root, len)) = text.split_once(':')
            && let Ok(root) = root.parse::<Root>()
        {
            let len = len.parse().map_err(|_| PatternError::FileLen(len.into()))?;
            return Ok(PatternKind::Root(root, Some(len)));
        }
        let text = text.trim_end_matches('/');
        match glob(text)? {
            None => Self::name(unescape(text), root_prefix(text)),
            Some(glob) => Ok(PatternKind::Path { text: text.into(), glob: Some(glob), prefix: None }),
        }
    }

    fn name(text: String, prefix: Option<String>) -> Result<Self, PatternError> {
        if text.is_empty() { Err(PatternError::Length) } else { Ok(PatternKind::Path { text, glob: None, prefix }) }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    /// As [`parse`](Pattern::parse).
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Pattern::parse(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// `text` as a glob; `None` if it has no glob character without a backslash before it, or is not
/// well formed.
fn glob(text: &str) -> Result<Option<PathGlob>, PatternError> {
    let (mut is_glob, mut depth, mut depth_max) = (false, 0_usize, 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|next| is_special(*next)) => drop(chars.next()),
            '{' => (is_glob, depth) = (true, depth + 1),
            '}' => depth = depth.saturating_sub(1),
            '*' | '?' | '[' => is_glob = true,
            _ => (),
        }
        depth_max = depth_max.max(depth);
    }
    if !is_glob {
        return Ok(None);
    }
    // The parser of the regular expression that a glob becomes gives up at some depth.
    if depth_max > BRACES_MAX {
        return Err(PatternError::Glob(format!("it nests more than {BRACES_MAX} braces")));
    }
    let Ok(glob) = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build() else {
        return Ok(None);
    };
    // A set of one: unlike a matcher alone, it reports what cannot be compiled.
    let set = GlobSet::builder().add(glob).build().map_err(|e| PatternError::Glob(e.kind().to_string()))?;
    Ok(Some(PathGlob { set, dots: OnceLock::new() }))
}

/// Takes the backslashes before glob characters away.
fn unescape(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| is_special(*next)) } else { None };
        name.push(escaped.unwrap_or(c));
    }
    name
}

/// Whether a backslash before `c` makes it a plain character.
fn is_special(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\')
}

/// `text` in lower case if it may be the beginning of a root.
fn root_prefix(text: &str) -> Option<String> {
    let hex = (ROOT_PREFIX_MIN..64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| text.to_ascii_lowercase())
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
/// Braces of a glob within one another, at most.
const BRACES_MAX: usize = 8;

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
    fn every_name_can_be_asked_for() {
        let f = id(1, 5);
        for name in ["draft[x", "{b", "a}", "[", "a{b", "x[!", "set [2024", "a\\b", "end\\", "a[z-a]", "a}*", "1/[x"] {
            assert!(hit(name, name, f) && hit(name, &format!("{name}/y"), f), "{name}");
            assert!(hit(&format!("./{name}"), name, f), "./{name}");
        }
        for name in ["*", "**", "a[1].txt", "set [2024]", "{a,b}", "?", "a\\b*", "abababab", &"ab".repeat(32)] {
            let exact = format!("./{name}");
            assert!(hit(&exact, name, f) && hit(&exact, &format!("{name}/y"), f), "{exact}");
            assert!(!hit(&exact, "x", id(0xab, 7)) && !hit(&exact, "a1.txt", f), "{exact}");
        }
        for (escaped, name) in
            [("draft\\[x", "draft[x"), ("set \\[2024\\]", "set [2024]"), ("\\*\\*", "**"), ("\\{a,b\\}", "{a,b}")]
        {
            assert!(hit(escaped, name, f) && hit(escaped, &format!("{name}/y"), f), "{escaped}");
            assert!(!hit(escaped, "x", f) && !hit(escaped, "a", f), "{escaped}");
        }
        assert!(hit("a\\[*", "a[b", f) && !hit("a\\[*", "ab", f), "part of a glob");
        assert!(hit("set \\[*/y", "set [2024]/y", f));
    }

    #[test]
    fn a_pattern_of_any_depth_is_compiled_or_refused() {
        for depth in [1, 8, 9, 250, 256] {
            let text = "{a,".repeat(depth) + &"}".repeat(depth);
            match Pattern::parse(&text) {
                Ok(_) => assert!(depth <= BRACES_MAX),
                Err(PatternError::Glob(_)) => assert!(depth > BRACES_MAX),
                Err(e) => panic!("{e}"),
            }
        }
        for part in ["[!a-z]", "?", "{a,b}", "**/", "*a", "[a-zA-Z0-9]", "\\"] {
            let text = part.repeat(PATTERN_LEN_MAX / part.len());
            assert!(!matches!(Pattern::parse(&text), Err(PatternError::Length)), "{part}");
        }
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
        assert_eq!(Pattern::parse("./").unwrap_err(), PatternError::Length);
        assert!(matches!(Pattern::parse(&format!("{}:x", "ab".repeat(32))).unwrap_err(), PatternError::FileLen(_)));
    }
}
