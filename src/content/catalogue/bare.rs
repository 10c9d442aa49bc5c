//! Names that are no plain file: empty directories and symbolic links.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::content::rel_path::is_below;
use crate::content::{LinkTo, RelPath};

/// What a name is that is no plain file.
///
/// ```
/// use gpb::{Bare, LinkTo};
///
/// let link = Bare::Link { to: LinkTo { target: "v2".into(), mtime_ns: 0 }, copy: false };
/// assert_ne!(link, Bare::EmptyDir { mtime_ns: 0, copy: false });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// A directory with nothing in it.
    EmptyDir {
        /// Modification time, ns since the Unix epoch.
        mtime_ns: i64,
        /// Whether the node has it from others, as [`Marks::copy`](crate::Marks::copy).
        copy: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        to: LinkTo<Box<str>>,
        /// Whether the node has it from others.
        copy: bool,
    },
}

impl Bare {
    /// Whether the node has it from others.
    pub fn is_copy(&self) -> bool {
        let (Bare::EmptyDir { copy, .. } | Bare::Link { copy, .. }) = self;
        *copy
    }

    /// Modification time, ns since the Unix epoch.
    pub fn mtime_ns(&self) -> i64 {
        let (Bare::EmptyDir { mtime_ns, .. } | Bare::Link { to: LinkTo { mtime_ns, .. }, .. }) = self;
        *mtime_ns
    }

    /// Whether both are the same, whatever their times.
    pub(crate) fn is_as(&self, other: &Bare) -> bool {
        match (self, other) {
            (Bare::EmptyDir { .. }, Bare::EmptyDir { .. }) => true,
            (Bare::Link { to, .. }, Bare::Link { to: other, .. }) => to.target == other.target,
            _ => false,
        }
    }

    /// The same, as a copy or not.
    pub(crate) fn marked(mut self, is_copy: bool) -> Self {
        let (Bare::EmptyDir { copy, .. } | Bare::Link { copy, .. }) = &mut self;
        *copy = is_copy;
        self
    }
}

/// The bare names of a catalogue, sorted by path. They are few beside the files, so a change builds
/// the whole list again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BareNames {
    all: Vec<(RelPath, Bare)>,
}

impl BareNames {
    /// The names after `changes`: what each is now, or `None` if it is no bare name any longer.
    pub fn changed(&self, changes: &BTreeMap<RelPath, Option<Bare>>) -> Self {
        let mut all = Vec::with_capacity(self.all.len() + changes.len());
        let mut changes = changes.iter().peekable();
        let put = |all: &mut Vec<_>, (path, bare): (&RelPath, &Option<Bare>)| {
            all.extend(bare.clone().map(|bare| (path.clone(), bare)));
        };
        for old in &self.all {
            while let Some(fresh) = changes.next_if(|(path, _)| **path < old.0) {
                put(&mut all, fresh);
            }
            match changes.next_if(|(path, _)| **path == old.0) {
                Some(fresh) => put(&mut all, fresh),
                None => all.push(old.clone()),
            }
        }
        changes.for_each(|fresh| put(&mut all, fresh));
        BareNames { all }
    }

    /// All of them, sorted by path.
    pub fn all(&self) -> &[(RelPath, Bare)] {
        &self.all
    }

    /// What the name is.
    pub fn get(&self, path: &str) -> Option<&Bare> {
        self.position(path).map(|at| &self.all[at].1)
    }

    /// The position of the name.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.all.binary_search_by(|(name, _)| name.as_str().cmp(path)).ok()
    }

    /// The position of the first name that is not `before`, which must hold for a prefix of them.
    pub fn partition_point(&self, before: impl Fn(&str) -> bool) -> usize {
        self.all.partition_point(|(name, _)| before(name.as_str()))
    }

    /// The positions of the names below the directory `dir`.
    pub fn positions_below(&self, dir: &str) -> Range<usize> {
        let compare = |name: &str| name.as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/"));
        let from = self.partition_point(|name| compare(name).is_lt());
        from..self.partition_point(|name| compare(name).is_lt() || is_below(name, dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn changes_are_merged_in_order() {
        let dir = |mtime_ns| Some(Bare::EmptyDir { mtime_ns, copy: false });
        let of = |all: &[(&str, Option<Bare>)]| all.iter().map(|(path, bare)| (name(path), bare.clone())).collect();
        let first = BareNames::default().changed(&of(&[("b", dir(1)), ("d", dir(2)), ("d/x", dir(3)), ("gone", None)]));
        let next = first.changed(&of(&[("a", dir(4)), ("b", None), ("c", dir(5)), ("d", dir(6)), ("z", dir(7))]));
        let shown: Vec<_> = next.all().iter().map(|(path, bare)| (path.as_str(), Some(bare.clone()))).collect();
        assert_eq!(shown, [("a", dir(4)), ("c", dir(5)), ("d", dir(6)), ("d/x", dir(3)), ("z", dir(7))]);
        assert_eq!((next.get("d/x").cloned(), next.get("b")), (dir(3), None));
        assert_eq!((next.positions_below("d"), next.positions_below("x")), (3..4, 4..4));
    }
}
