//! The directories that a node shares, each with its names.

use std::sync::Arc;

use crate::content::{Digest, Entry, FileId, RelPath};
use crate::store::{Index, Reader};

/// A directory that is shared, as its server reads it.
#[derive(Debug, Clone)]
pub struct SharedRoot {
    /// The first component of all names below it; none for the directory whose names have none.
    pub name: Option<RelPath>,
    /// Reads its files.
    pub reader: Arc<Reader>,
    /// What is known of them.
    pub index: Arc<Index>,
}

/// All directories that a node shares. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SharedRoots(Arc<[SharedRoot]>);

impl SharedRoots {
    /// These directories, whose names differ.
    pub fn new(roots: Vec<SharedRoot>) -> Self {
        SharedRoots(roots.into())
    }

    /// Whether no directory is shared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &SharedRoot> {
        self.0.iter()
    }

    /// The number of the directory that `path` is a name of, and the name there. A directory with a
    /// name goes before one without.
    pub fn place_of(&self, path: &RelPath) -> Option<(usize, RelPath)> {
        place_of(self.0.iter().map(|root| root.name.as_ref()), path)
    }

    /// The directory of `entry`, and the entry there.
    pub fn find(&self, entry: &Entry) -> Option<(&SharedRoot, Entry)> {
        let (number, path) = self.place_of(&entry.path)?;
        Some((self.0.get(number)?, Entry { path, ..entry.clone() }))
    }

    /// Digests of these chunks of a file, if a directory has it and all of them are known.
    pub fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>> {
        self.0.iter().find_map(|root| root.index.layer(id, first, count))
    }
}

/// Which of directories with these `names` the name `path` belongs to, and what it is called there.
pub fn place_of<'n>(
    names: impl Iterator<Item = Option<&'n RelPath>> + Clone,
    path: &RelPath,
) -> Option<(usize, RelPath)> {
    let below = |(number, name): (usize, Option<&RelPath>)| {
        let rest = path.as_str().strip_prefix(name?.as_str())?.strip_prefix('/')?;
        Some((number, RelPath::new(rest).ok()?))
    };
    let named = names.clone().enumerate().find_map(below);
    named.or_else(|| Some((names.enumerate().find(|(_, name)| name.is_none())?.0, path.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_decides() {
        let name = |text: &str| RelPath::new(text).unwrap();
        let (a, ab) = (name("a"), name("a-b"));
        let place = |names: &[Option<&RelPath>], path: &str| {
            place_of(names.iter().copied(), &name(path)).map(|(number, path)| (number, path.to_string()))
        };
        let at = |number, path: &str| Some((number, path.to_string()));
        let all = [None, Some(&a), Some(&ab)];
        assert_eq!(place(&all, "a/x/y"), at(1, "x/y"));
        assert_eq!(place(&all, "a-b/x"), at(2, "x"));
        assert_eq!([place(&all, "a"), place(&all, "ax/y"), place(&all, "x")], [at(0, "a"), at(0, "ax/y"), at(0, "x")]);
        assert_eq!(place(&all[1..], "x"), None);
    }
}
