//! What is meant among the names that peers offer, beyond the patterns themselves.

use crate::content::Pattern;
use crate::identity::KeyPrefix;

/// What narrows down a question for files.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names that one of these means are left out.
    pub exclude: Vec<Pattern>,
    /// Whether a wildcard matches the dot that a name, or a directory above it, begins with.
    pub hidden: bool,
    /// Where names clash, what the peer with this key offers is meant.
    pub prefer: Option<KeyPrefix>,
}

impl Selection {
    /// Whether the file of this name is left out.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches_path(path))
    }

    /// Whether a pattern that matches `path` means it.
    pub(crate) fn shows(&self, pattern: &Pattern, path: &str) -> bool {
        self.hidden || pattern.shows(path)
    }
}
