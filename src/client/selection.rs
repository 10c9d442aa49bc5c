//! What is meant among the names that peers offer, beyond the patterns themselves.

use std::collections::BTreeSet;

use crate::client::FoundFile;
use crate::content::{FileId, Pattern, PatternKind};
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
    /// What of `found`, which `patterns` match, they mean, and the number of names that only a
    /// wildcard for a leading dot would mean. Without patterns everything is meant.
    pub fn shown(&self, patterns: &[String], mut found: Vec<FoundFile>) -> (Vec<FoundFile>, usize) {
        let patterns: Vec<Pattern> = patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        if self.hidden || patterns.is_empty() {
            return (found, 0);
        }
        let mut hidden = BTreeSet::new();
        found.retain(|file| {
            let path = file.path.as_str();
            let is_meant = patterns.iter().any(|p| p.matches_id(&file.id) || p.shows(path));
            if !is_meant {
                hidden.insert(file.path.clone());
            }
            is_meant
        });
        found.iter().for_each(|file| {
            hidden.remove(&file.path);
        });
        (found, hidden.len())
    }

    /// Keeps of `names`, which are no files and each of which a pattern matches, only those that
    /// `patterns` mean.
    pub fn retain_shown<T>(&self, patterns: &[String], names: &mut Vec<T>, path: impl Fn(&T) -> &str) {
        let parsed: Vec<Pattern> = patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        if !self.hidden && !patterns.is_empty() {
            names.retain(|name| parsed.iter().any(|pattern| pattern.shows(path(name))));
        }
    }

    /// Whether a file is left out. The beginning of a root is no more than a name here: whatever
    /// else has a root that begins so stays.
    pub(crate) fn excludes(&self, path: &str, id: &FileId) -> bool {
        self.exclude.iter().any(|pattern| match pattern.kind() {
            PatternKind::Root(..) => pattern.matches_id(id),
            PatternKind::Path { .. } => pattern.matches_path(path),
        })
    }

    /// Whether a pattern that matches `path` means it.
    pub(crate) fn shows(&self, pattern: &Pattern, path: &str) -> bool {
        self.hidden || pattern.shows(path)
    }
}
