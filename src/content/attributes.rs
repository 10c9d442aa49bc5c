//! What a name is besides a content.

use serde::{Deserialize, Serialize};

/// What a file is besides its content. It takes no part in its identity.
///
/// ```
/// use gpb::Attributes;
///
/// assert!(!Attributes::default().executable);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// Modification time, ns since the Unix epoch; negative before it.
    pub mtime_ns: i64,
    /// Whether it may be run as a program.
    pub executable: bool,
    /// Names with one number in one listing are names of one inode there (hard links). 0: the name
    /// is the only one.
    pub link_group: u64,
}

/// A symbolic link. `T` is the text of its target.
///
/// ```
/// let link = gpb::LinkTo { target: "v2/model.bin", mtime_ns: 0 };
/// assert_eq!(link.as_borrowed(), link);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTo<T> {
    /// The text of the link: where it leads, from the directory in which it lies.
    pub target: T,
    /// Modification time of the link itself, ns since the Unix epoch.
    pub mtime_ns: i64,
}

impl<T: AsRef<str>> LinkTo<T> {
    /// The same with a borrowed target.
    pub fn as_borrowed(&self) -> LinkTo<&str> {
        LinkTo { target: self.target.as_ref(), mtime_ns: self.mtime_ns }
    }
}
