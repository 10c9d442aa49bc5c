//! The files of a download, each content once.

use std::sync::Arc;

use crate::client::search_results::by_content;
use crate::content::{FileId, RelPath};
use crate::identity::NodeId;

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name under which it is shared.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Where it goes, below the directory of the plan's disk.
    pub out: RelPath,
    /// Nodes that are known to hold it; others are found meanwhile.
    pub holders: Arc<[NodeId]>,
}

/// A content to fetch, with all places where it goes.
pub(crate) struct FileTarget {
    pub(crate) id: FileId,
    /// A name under which it is shared.
    pub(crate) path: RelPath,
    /// Where it goes: at least one place, all different, sorted.
    pub(crate) outs: Vec<RelPath>,
}

/// Brings targets of one content together, in the order of their first ones, each with its known
/// holders.
pub(crate) fn merge(targets: Vec<Target>) -> (Vec<FileTarget>, Vec<Arc<[NodeId]>>) {
    // For each target, the first one with its content.
    let mut first: Vec<u32> = vec![0; targets.len()];
    for group in by_content(&targets, |t| &t.id).chunk_by(|&a, &b| targets[a].id == targets[b].id) {
        group.iter().for_each(|&at| first[at] = group[0] as u32);
    }
    let mut files: Vec<FileTarget> = Vec::new();
    let mut holders: Vec<Arc<[NodeId]>> = Vec::new();
    for (at, target) in targets.into_iter().enumerate() {
        let leader = first[at] as usize;
        if leader == at {
            first[at] = files.len() as u32;
            files.push(FileTarget { id: target.id, path: target.path, outs: vec![target.out] });
            holders.push(target.holders);
            continue;
        }
        let file = first[leader] as usize;
        files[file].outs.push(target.out);
        if !Arc::ptr_eq(&holders[file], &target.holders) {
            let mut all: Vec<NodeId> = [&*holders[file], &*target.holders].concat();
            all.sort_unstable();
            all.dedup();
            holders[file] = all.into();
        }
    }
    for file in files.iter_mut().filter(|f| f.outs.len() > 1) {
        file.outs.sort_unstable();
        file.outs.dedup();
    }
    (files, holders)
}
