//! What makes a directory equal to that of a peer: what is removed, and what stays. Pure: whose a file
//! is, and what the node itself needs, are answered by its caller.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use crate::client::{FoundBare, FoundFile, MaxDelete, WholeListing};
use crate::content::{Bare, FileId, RelPath, dirs_above};
use crate::store::{LocalKind, LocalName, LocalTree};

/// What a sync does: the files that the peer has are fetched, and what it does not have is removed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SyncPlan {
    /// The revision of the peer's list.
    pub revision: u64,
    /// The files that the peer has. What is here already is not fetched again.
    pub files: Vec<FoundFile>,
    /// Empty directories, and links without a content of their own, that the peer has.
    pub bare: Vec<FoundBare>,
    /// What is removed because the peer does not have it; what lies where other files go comes first.
    pub remove: Vec<RelPath>,
    /// What the peer does not have, and stays.
    pub kept: Vec<KeptFile>,
    /// Why nothing is removed.
    pub hindrance: Option<SyncHindrance>,
    /// What is removed before anything is fetched.
    pub(crate) in_the_way: Vec<LocalName>,
    /// What is removed after all was fetched.
    pub(crate) later: Vec<LocalName>,
    /// Directories that go if they are empty then, each behind those in it.
    pub(crate) dirs: Vec<RelPath>,
    /// The ones of `dirs` that lie where something else goes.
    pub(crate) dirs_in_the_way: Vec<RelPath>,
    /// The ones of `dirs` that fetches made, so that they are among what is removed.
    pub(crate) made: BTreeSet<RelPath>,
}

/// A file that a sync did not remove although the peer does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptFile {
    /// Its name.
    pub path: RelPath,
    /// Why it stays.
    pub reason: KeptReason,
}

impl KeptFile {
    pub(crate) fn new(path: RelPath, reason: KeptReason) -> Self {
        KeptFile { path, reason }
    }
}

/// Why a file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptReason {
    /// No fetch put it there, or it was changed since.
    Users,
    /// It is a device, FIFO or socket.
    Special,
    /// It changed after it had been looked at.
    Changed,
    /// The system did not remove it.
    Failed,
}

/// Why a sync removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncHindrance {
    /// The peer does not say that its list is complete, or the list changed each time that it was
    /// read.
    Incomplete,
    /// More than the permitted number would go.
    TooMany {
        /// Files, links and empty directories that would be removed, without any whose content has another
        /// name now.
        files: u64,
        /// Files, links and empty directories that are there.
        all: u64,
        /// What is permitted.
        max: MaxDelete,
    },
    /// Not all that the peer has could be fetched.
    NotFetched,
}

/// What the directory has, and what is known of it.
pub(crate) struct LocalSide<'a> {
    pub(crate) tree: LocalTree,
    /// The content that an earlier fetch put there, if it lies there still.
    pub(crate) fetched_as: &'a dyn Fn(&LocalName) -> Option<FileId>,
    /// Whether a directory is empty and an earlier fetch made it so.
    pub(crate) is_made_dir: &'a dyn Fn(&RelPath) -> bool,
    /// Whether a name stays without being mentioned: a file of the node, or one that is excluded.
    pub(crate) is_left_out: &'a dyn Fn(&RelPath) -> bool,
    /// Whether a wanted name means the same file, as on a file system that does not tell cases apart.
    pub(crate) is_same: &'a dyn Fn(&LocalName, &str) -> bool,
}

/// What may be removed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SyncLimits {
    /// Whether the user's files may be removed as well, and any number of files.
    pub(crate) force: bool,
    pub(crate) max_delete: MaxDelete,
}

/// What a name of the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedAs {
    Leaf,
    EmptyDir,
}

/// The names that the peer has.
struct Wanted<'l> {
    names: BTreeMap<&'l str, WantedAs>,
    /// Directories that these names need.
    dirs: HashSet<&'l str>,
    /// The names in lower case, with one that is written so.
    folded: HashMap<String, &'l str>,
    contents: HashSet<FileId>,
}

impl<'l> Wanted<'l> {
    fn new(listing: &'l WholeListing) -> Self {
        let files = listing.files.iter().map(|file| (file.path.as_str(), WantedAs::Leaf));
        let bare = listing.bare.iter().map(|FoundBare { path, bare }| match bare {
            Bare::EmptyDir { .. } => (path.as_str(), WantedAs::EmptyDir),
            Bare::Link { .. } => (path.as_str(), WantedAs::Leaf),
        });
        let names: BTreeMap<&str, WantedAs> = bare.chain(files).collect();
        let above = names.keys().flat_map(|name| dirs_above(name));
        let own = names.iter().filter(|(_, what)| **what == WantedAs::EmptyDir).map(|(name, _)| *name);
        let dirs = above.chain(own).collect();
        let folded = names.keys().map(|name| (name.to_lowercase(), *name)).collect();
        let contents = listing.files.iter().map(|file| file.id).collect();
        Wanted { names, dirs, folded, contents }
    }

    fn is_leaf(&self, name: &str) -> bool {
        self.names.get(name) == Some(&WantedAs::Leaf)
    }

    /// Whether what has this name lies where something else goes.
    fn is_in_the_way(&self, name: &str) -> bool {
        self.dirs.contains(name) || dirs_above(name).any(|dir| self.is_leaf(dir))
    }
}

impl SyncPlan {
    /// Compares the list of a peer with what is here.
    pub(crate) fn new(listing: WholeListing, local: LocalSide<'_>, limits: SyncLimits) -> Self {
        let mut plan = SyncPlan { revision: listing.revision, ..SyncPlan::default() };
        let wanted = Wanted::new(&listing);
        let (mut all, mut counted) = (0, 0);
        let mut emptied: BTreeSet<RelPath> = BTreeSet::new();
        // What is left out keeps its directories.
        let mut needed: HashSet<RelPath> = HashSet::new();
        let LocalSide { tree, fetched_as, is_made_dir, is_left_out, is_same } = local;
        // Of two names that are both listed here none is only another spelling of the other.
        let listed = tree.names.iter().filter_map(|name| wanted.names.get_key_value(name.path.as_str()));
        let listed: HashSet<&str> = listed.map(|(name, _)| *name).collect();
        for name in tree.names {
            if is_left_out(&name.path) {
                needed.extend(dirs_above(name.path.as_str()).filter_map(|dir| RelPath::new(dir).ok()));
                continue;
            }
            all += 1;
            let path = name.path.as_str();
            let twin = || wanted.folded.get(&path.to_lowercase()).filter(|twin| !listed.contains(**twin));
            if wanted.is_leaf(path) || twin().is_some_and(|twin| is_same(&name, twin)) {
                continue;
            }
            let fetched = fetched_as(&name);
            let reason = match (name.kind, fetched) {
                (LocalKind::Other, _) => Some(KeptReason::Special),
                (_, None) if !limits.force => Some(KeptReason::Users),
                _ => None,
            };
            if let Some(reason) = reason {
                plan.kept.push(KeptFile { path: name.path, reason });
                continue;
            }
            // A content that has another name now is moved rather than lost.
            counted += u64::from(!fetched.is_some_and(|id| wanted.contents.contains(&id)));
            emptied.extend(dirs_above(path).filter_map(|dir| RelPath::new(dir).ok()));
            let list = if wanted.is_in_the_way(path) { &mut plan.in_the_way } else { &mut plan.later };
            list.push(name);
        }
        let stays = |dir: &RelPath| wanted.dirs.contains(dir.as_str()) || needed.contains(dir) || is_left_out(dir);
        let made: BTreeSet<RelPath> = tree.dirs.iter().filter(|dir| !stays(dir) && is_made_dir(dir)).cloned().collect();
        // An empty directory that a fetch made is as much of the directory as a file.
        let is_empty_dir = |dir: &RelPath| wanted.names.get(dir.as_str()) == Some(&WantedAs::EmptyDir);
        let has_empty_dir = |dir: &&RelPath| is_empty_dir(dir) && !is_left_out(dir);
        all += made.len() as u64 + tree.dirs.iter().filter(has_empty_dir).count() as u64;
        counted += made.len() as u64;
        emptied.extend(made.iter().flat_map(|dir| dirs_above(dir.as_str())).filter_map(|dir| RelPath::new(dir).ok()));
        let is_gone = |dir: &&RelPath| !stays(dir) && (limits.force || emptied.contains(*dir) || made.contains(*dir));
        plan.dirs = tree.dirs.iter().rev().filter(is_gone).cloned().collect();
        let is_under_leaf = |dir: &&RelPath| wanted.is_leaf(dir.as_str()) || wanted.is_in_the_way(dir.as_str());
        plan.dirs_in_the_way = plan.dirs.iter().filter(is_under_leaf).cloned().collect();
        drop(wanted);
        plan.kept.sort_by(|a, b| a.path.cmp(&b.path));
        plan.in_the_way.sort_by(|a, b| a.path.cmp(&b.path));
        plan.later.sort_by(|a, b| a.path.cmp(&b.path));
        plan.remove = plan.in_the_way.iter().chain(&plan.later).map(|name| name.path.clone()).collect();
        plan.remove.extend(made.iter().cloned());
        plan.made = made;
        plan.hindrance = match (plan.remove.is_empty(), listing.complete) {
            (true, true) => None,
            (_, false) => Some(SyncHindrance::Incomplete),
            (false, true) if limits.force || limits.max_delete.allows(counted, all) => None,
            (false, true) => Some(SyncHindrance::TooMany { files: counted, all, max: limits.max_delete }),
        };
        (plan.files, plan.bare) = (listing.files, listing.bare);
        plan
    }
}

impl fmt::Display for KeptReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeptReason::Users => "not fetched, or changed since",
            KeptReason::Special => "a device, FIFO or socket",
            KeptReason::Changed => "changed meanwhile",
            KeptReason::Failed => "could not be removed",
        })
    }
}

impl fmt::Display for SyncHindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncHindrance::Incomplete => f.write_str("the peer does not say that its list is complete"),
            SyncHindrance::TooMany { files, all, max } => {
                write!(f, "{files} of {all} names would be removed, more than {max}")
            }
            SyncHindrance::NotFetched => f.write_str("not all that the peer has could be fetched"),
        }
    }
}

#[cfg(test)]
mod tests;
