//! A name in a listing that is no plain file.

use crate::content::{Bare, RelPath};

/// A name that is no plain file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBare {
    /// The name.
    pub path: RelPath,
    /// What it is.
    pub bare: Bare,
}

impl FoundBare {
    /// Memory that it takes, in bytes.
    pub(crate) fn len(&self) -> usize {
        let text = if let Bare::Link { to, .. } = &self.bare { to.target.len() } else { 0 };
        size_of::<FoundBare>() + self.path.as_str().len() + text
    }
}
