//! The name of a shared file: a relative path that stays below the directory that it is joined to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{PATH_COMPONENT_LEN_MAX, PATH_LEN_MAX};

/// A relative path in UTF-8 with `/` between its components.
///
/// It cannot leave the directory that it is joined to: no `..`, `.`, empty or absolute part, and no
/// NUL or control character. Whatever else a Unix file system takes is a name, also what Windows
/// would refuse (`aux.c`, `Acme Inc.`, `a\b`). Deserializing checks all of that.
///
/// ```
/// use gpb::{RelPath, error::RelPathError};
///
/// let path = RelPath::new("docs/a.txt")?;
/// assert_eq!((path.file_name(), path.is_below("docs")), ("a.txt", true));
/// assert!(RelPath::new("../a.txt").is_err() && RelPath::new("/etc/passwd").is_err());
/// # Ok::<(), RelPathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RelPath(Arc<str>);

/// Why a text is no [`RelPath`].
///
/// ```
/// use gpb::{RelPath, error::RelPathError};
///
/// assert_eq!(RelPath::new("").unwrap_err(), RelPathError::Empty);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelPathError {
    /// Nothing at all, or an empty component (`a//b`, `/a`, `a/`).
    #[error("empty path or path component")]
    Empty,
    /// Longer than [`PATH_LEN_MAX`], or a component longer than [`PATH_COMPONENT_LEN_MAX`].
    #[error("path or path component too long")]
    TooLong,
    /// A `.` or `..` component.
    #[error("`.` or `..` in path")]
    Dots,
    /// A control character or NUL.
    #[error("control character in path")]
    Character,
    /// The first component is `.gpb`, where GPB keeps its own files.
    #[error("`.gpb` is for gpb's own files")]
    Own,
}

impl RelPath {
    /// Checks `path`.
    ///
    /// # Errors
    /// Says which rule is broken; see [`RelPathError`].
    pub fn new(path: &str) -> Result<Self, RelPathError> {
        if path.len() > PATH_LEN_MAX {
            return Err(RelPathError::TooLong);
        }
        for (i, part) in path.split('/').enumerate() {
            check_component(part)?;
            if i == 0 && part.eq_ignore_ascii_case(OWN_DIR) {
                return Err(RelPathError::Own);
            }
        }
        Ok(RelPath(path.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the outermost to the file's name.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the file lies somewhere below the directory `dir` (`a/b` is below `a`, not below
    /// `a/b` or ``).
    pub fn is_below(&self, dir: &str) -> bool {
        is_below(&self.0, dir)
    }

    /// The path with this text, which must come from a [`RelPath`].
    pub(super) fn checked_before(path: &str) -> Self {
        RelPath(path.into())
    }
}

/// The directories above `name`, the nearest first, without the top.
pub(crate) fn dirs_above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.rsplit_once('/'), |(dir, _)| dir.rsplit_once('/')).map(|(dir, _)| dir)
}

/// See [`RelPath::is_below`].
pub(super) fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| !dir.is_empty() && rest.starts_with('/'))
}

fn check_component(part: &str) -> Result<(), RelPathError> {
    if part.is_empty() {
        return Err(RelPathError::Empty);
    }
    if part.len() > PATH_COMPONENT_LEN_MAX {
        return Err(RelPathError::TooLong);
    }
    if part == "." || part == ".." {
        return Err(RelPathError::Dots);
    }
    if part.chars().any(char::is_control) {
        return Err(RelPathError::Character);
    }
    Ok(())
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RelPath {
    type Err = RelPathError;

    /// As [`new`](RelPath::new).
    fn from_str(text: &str) -> Result<Self, RelPathError> {
        RelPath::new(text)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(Text)
    }
}

/// Reads a borrowed text: a listing has up to a million of them.
struct Text;

impl Visitor<'_> for Text {
    type Value = RelPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a relative path")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RelPath, E> {
        RelPath::new(text).map_err(E::custom)
    }
}

/// The directory below a shared one where GPB keeps partial files and journals.
const OWN_DIR: &str = ".gpb";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        let plain = ["a", "a/b.c", "sub dir/ümlaut.bin", ".hidden", "a/.gpb", "..a", "a..b", "12:30.log"];
        let odd = [
            "Acme Inc./x",
            "aux.c",
            "con",
            "prn/y",
            "nul.tar.gz",
            "etc...",
            "trail /w",
            "a\\b",
            "C:",
            "x:y",
            "a ",
            "...",
        ];
        for s in plain.into_iter().chain(odd) {
            assert_eq!(RelPath::new(s).map(|p| p.to_string()), Ok(s.to_string()));
        }
    }

    #[test]
    fn names_that_could_do_harm_do_not() {
        use RelPathError::*;
        let (long, deep) = ("x".repeat(256), "x/".repeat(600) + "x");
        for (s, why) in [
            ("", Empty),
            ("/a", Empty),
            ("a//b", Empty),
            ("a/", Empty),
            (".", Dots),
            ("a/../b", Dots),
            ("..", Dots),
            ("a\0b", Character),
            ("a\nb", Character),
            ("a\u{85}", Character),
            (".gpb/x", Own),
            (".GPB", Own),
            (long.as_str(), TooLong),
            (deep.as_str(), TooLong),
        ] {
            assert_eq!(RelPath::new(s), Err(why), "{s:?}");
        }
    }

    #[test]
    fn below_means_a_whole_component() {
        let p = RelPath::new("ab/c/d").unwrap();
        assert!(p.is_below("ab") && p.is_below("ab/c"));
        assert!(!p.is_below("a") && !p.is_below("") && !p.is_below("ab/c/d"));
    }
}
