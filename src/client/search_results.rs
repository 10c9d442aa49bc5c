//! The listings of all peers, merged.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use crate::client::found_bare::FoundBare;
use crate::content::{Attributes, Bare, FileId, LinkTo, RelPath, Root};
use crate::identity::{KeyPrefix, NodeId, PeerId};
use crate::limits::{CATALOGUE_ENTRIES_MAX, FILE_LEN_MAX};
use crate::proto::ListedFile;

/// A file that at least one peer offers under one name.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// # let node = lan.node()?;
/// let found = node.list("docs/**")?;
/// assert_eq!((found[0].path.as_str(), found[0].id.len, found[0].holders.len()), ("docs/a.txt", 5, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct FoundFile {
    /// Its name.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// The nodes that offer it under that name, sorted. Files with the same holders share this.
    pub holders: Arc<[NodeId]>,
    /// Whether one of them shares it, rather than having fetched it itself.
    pub shared: bool,
    /// What it is besides its content. Where holders differ in that, what is shared counts before
    /// what was fetched, then the oldest modification time.
    pub attributes: Attributes,
    /// The symbolic link, where the name is one for that holder.
    pub link: Option<Box<LinkTo<Box<str>>>>,
}

/// A file that one peer lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerFile {
    path: RelPath,
    id: FileId,
    attributes: Attributes,
    is_copy: bool,
    is_temporary: bool,
    link: Option<Box<LinkTo<Box<str>>>>,
}

impl PeerFile {
    pub(crate) fn new(path: RelPath, file: ListedFile<&str>) -> Self {
        let ListedFile { id, attributes, is_copy, is_temporary, link } = file;
        let link = link.map(|LinkTo { target, mtime_ns }| Box::new(LinkTo { target: target.into(), mtime_ns }));
        PeerFile { path, id, attributes, is_copy, is_temporary, link }
    }

    /// Its name, if it is a copy that goes when it is not used for long.
    pub(crate) fn temporary(&self) -> Option<&RelPath> {
        self.is_temporary.then_some(&self.path)
    }

    /// Memory in bytes that it takes, and that it takes as a [`FoundFile`] at the same time while it
    /// is merged.
    pub(crate) fn len(&self) -> usize {
        let texts = self.path.as_str().len() + link_len(self.link.as_deref());
        size_of::<PeerFile>() + size_of::<FoundFile>() + ALLOCATION_LEN + texts
    }
}

/// Bytes that a text on the heap takes besides its own.
const ALLOCATION_LEN: usize = 16;

fn link_len(link: Option<&LinkTo<Box<str>>>) -> usize {
    link.map_or(0, |link| size_of_val(link) + link.target.len())
}

/// The files found in the listings, each with its holders. There may be millions, so nothing is
/// kept twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchResults {
    /// Sorted by path, then content; no two with the same of both.
    files: Vec<FoundFile>,
    /// Names that are no plain files.
    bare: BTreeMap<RelPath, OfferedBare>,
    /// The peer whose word counts most.
    prefer: Option<KeyPrefix>,
    /// Whose listings are in it.
    peers: BTreeSet<PeerId>,
    /// Makes the numbers of link groups of different peers different ones.
    groups: RandomState,
}

/// A name that is no plain file, as the peer offers it whose word counts most.
#[derive(Debug, Clone)]
pub(crate) struct OfferedBare {
    pub(crate) bare: Bare,
    /// Whether it is the preferred peer's.
    pub(crate) is_preferred: bool,
    /// Whether that peer shares it, rather than having fetched it.
    pub(crate) shared: bool,
    /// How many nodes offer the same under this name.
    pub(crate) holders: usize,
}

impl SearchResults {
    /// Results in which the peer with the key `prefer` says what a name is besides its content.
    pub(crate) fn preferring(prefer: Option<&KeyPrefix>) -> Self {
        SearchResults { prefer: prefer.cloned(), ..SearchResults::default() }
    }

    fn is_preferred(&self, peer: &PeerId) -> bool {
        self.prefer.as_ref().is_some_and(|prefix| prefix.matches(peer))
    }

    /// Takes in what one peer listed, as files that it `shared` or that it fetched. What cannot be
    /// is left out, and what is over the bound of any catalogue. Returns the memory of what was new,
    /// in bytes.
    pub(crate) fn add(&mut self, peer: NodeId, shared: bool, mut listed: Vec<PeerFile>) -> usize {
        self.peers.insert(peer.peer);
        listed.retain(|l| l.id.len <= FILE_LEN_MAX && (l.id.len > 0) == (l.id.root != Root::EMPTY));
        // It is sorted already but for the answers to several patterns.
        listed.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
        listed.dedup_by(|a, b| (&a.path, &a.id) == (&b.path, &b.id));
        let alone: Arc<[NodeId]> = [peer].into();
        let mut sets = Sets { peer, with: HashMap::new() };
        let (mut fresh, mut at, known) = (Vec::new(), 0, self.files.len());
        let (prefer, is_preferred) = (self.prefer.clone(), self.is_preferred(&peer.peer));
        for PeerFile { path, id, mut attributes, is_copy, link, .. } in listed {
            if attributes.link_group != 0 {
                attributes.link_group = self.groups.hash_one((peer.peer, attributes.link_group)).max(1);
            }
            let shared = shared && !is_copy;
            while self.files.get(at).is_some_and(|f| (&f.path, &f.id) < (&path, &id)) {
                at += 1;
            }
            match self.files.get_mut(at) {
                Some(file) if file.path == path && file.id == id => {
                    let is_of = |prefix: &KeyPrefix| file.holders.iter().any(|holder| prefix.matches(&holder.peer));
                    let was_preferred = prefer.as_ref().is_some_and(is_of);
                    sets.join(&mut file.holders);
                    let age = |preferred: bool, shared: bool, of: &Attributes| {
                        (!preferred, !shared, of.mtime_ns, !of.executable)
                    };
                    if age(is_preferred, shared, &attributes) < age(was_preferred, file.shared, &file.attributes) {
                        (file.attributes, file.link) = (attributes, link);
                    }
                    file.shared |= shared;
                }
                _ if known + fresh.len() >= CATALOGUE_ENTRIES_MAX => {}
                _ => fresh.push(FoundFile { path, id, holders: alone.clone(), shared, attributes, link }),
            }
        }
        let texts = |f: &FoundFile| f.path.as_str().len() + link_len(f.link.as_deref());
        let len = |f: &FoundFile| size_of::<FoundFile>() + ALLOCATION_LEN + texts(f);
        let fresh_len = fresh.iter().map(len).sum();
        if self.files.is_empty() {
            self.files = fresh;
        } else if !fresh.is_empty() {
            self.files.reserve_exact(fresh.len());
            self.files.extend(fresh);
            // Two sorted runs: merging them takes one pass.
            self.files.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
        }
        fresh_len
    }

    /// Takes in the names of one peer's listing that are no plain files. Where peers differ, the
    /// preferred one counts first, then what is shared before what was fetched, then the oldest time.
    /// Returns the memory of what was new, in bytes.
    pub(crate) fn add_bare(&mut self, peer: PeerId, shared: bool, mut listed: Vec<FoundBare>) -> usize {
        let age = |of: &OfferedBare| (!of.is_preferred, !of.shared, of.bare.mtime_ns());
        let (mut fresh, is_preferred) = (0, self.is_preferred(&peer));
        // The answers to several patterns may have the same.
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        listed.dedup_by(|a, b| a.path == b.path);
        for found in listed {
            let (len, known) = (found.len(), self.bare.len());
            let shared = shared && !found.bare.is_copy();
            let mut offered = OfferedBare { bare: found.bare, is_preferred, shared, holders: 1 };
            match self.bare.entry(found.path) {
                Entry::Occupied(mut there) => {
                    let there = there.get_mut();
                    let is_first = age(&offered) < age(there);
                    if offered.bare.is_as(&there.bare) {
                        offered.holders += there.holders;
                        there.holders = offered.holders;
                    }
                    if is_first {
                        *there = offered;
                    }
                }
                Entry::Vacant(_) if known >= CATALOGUE_ENTRIES_MAX => {}
                Entry::Vacant(place) => {
                    fresh += len;
                    place.insert(offered);
                }
            }
        }
        fresh
    }

    /// The names that are no plain files, sorted.
    pub(crate) fn bare(&self) -> impl Iterator<Item = (&RelPath, &OfferedBare)> {
        self.bare.iter()
    }

    /// Everything, sorted by path, then content.
    pub(crate) fn files(&self) -> &[FoundFile] {
        &self.files
    }

    /// The peers that listed something, or nothing.
    pub(crate) fn peers(&self) -> &BTreeSet<PeerId> {
        &self.peers
    }

    /// Everything, sorted by path, then content.
    pub(crate) fn into_files(self) -> Vec<FoundFile> {
        self.files
    }

    /// The positions in [`files`](Self::files) of the files of this name.
    pub(crate) fn named(&self, name: &str) -> Range<usize> {
        let from = self.files.partition_point(|f| f.path.as_str() < name);
        from..from + self.files[from..].partition_point(|f| f.path.as_str() == name)
    }

    /// The positions of the files below the directory `dir`.
    pub(crate) fn below(&self, dir: &str) -> Range<usize> {
        let before = |f: &FoundFile| f.path.as_str().as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/")).is_lt();
        let from = self.files.partition_point(before);
        from..from + self.files[from..].partition_point(|f| f.path.is_below(dir))
    }

    /// Gives every file the holders of its content under whatever name.
    pub(crate) fn share_holders(&mut self) {
        let Some(first) = self.files.first().map(|f| f.holders.clone()) else { return };
        if self.files.iter().all(|f| Arc::ptr_eq(&f.holders, &first)) {
            return;
        }
        let order = by_content(&self.files, |f| &f.id);
        let mut rest = order.as_slice();
        while let Some(&at) = rest.first() {
            let id = self.files[at].id;
            let count = rest.iter().take_while(|&&at| self.files[at].id == id).count();
            let (group, others) = rest.split_at(count);
            rest = others;
            let mut all: Vec<&Arc<[NodeId]>> = group.iter().map(|&at| &self.files[at].holders).collect();
            all.dedup_by(|a, b| Arc::ptr_eq(a, b));
            if all.len() == 1 {
                continue;
            }
            let mut all: Vec<NodeId> = all.into_iter().flat_map(|holders| holders.iter().copied()).collect();
            all.sort_unstable();
            all.dedup();
            let all: Arc<[NodeId]> = all.into();
            group.iter().for_each(|&at| self.files[at].holders = all.clone());
        }
    }

    /// Removes the files that are not at one of `positions`, which are sorted.
    pub(crate) fn keep(&mut self, positions: impl IntoIterator<Item = usize>) {
        let mut positions = positions.into_iter().peekable();
        let mut at = 0..;
        self.files.retain(|_| {
            let at = at.next();
            positions.next_if(|&wanted| Some(wanted) == at).is_some()
        });
    }
}

type Holders = Arc<[NodeId]>;

/// Sets of holders, each with one peer more, so that files that had the same have the same again.
struct Sets {
    peer: NodeId,
    /// By where the set without that peer lies, which stays there as long as it is kept here.
    with: HashMap<*const NodeId, (Holders, Holders)>,
}

impl Sets {
    fn join(&mut self, holders: &mut Arc<[NodeId]>) {
        let Err(place) = holders.binary_search(&self.peer) else { return };
        let (_, with) = self.with.entry(holders.as_ptr()).or_insert_with(|| {
            let (before, behind) = holders.split_at(place);
            (holders.clone(), [before, &[self.peer], behind].concat().into())
        });
        *holders = with.clone();
    }
}

/// The positions of `all`, sorted by content and then by position.
pub(crate) fn by_content<T>(all: &[T], id: impl Fn(&T) -> &FileId) -> Vec<usize> {
    let begin = |at: usize| id(&all[at]).root.0.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    // The beginnings of most are different, and lie side by side while they are compared.
    let mut keys: Vec<(u64, u32)> = (0..all.len()).map(|at| (begin(at), at as u32)).collect();
    let place = |key: &(u64, u32)| (id(&all[key.1 as usize]), key.1);
    keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| place(a).cmp(&place(b))));
    keys.into_iter().map(|(_, at)| at as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Digest;
    use crate::identity::{NodeId, PeerId};

    fn listed(path: &str, byte: u8) -> PeerFile {
        let id = FileId { root: Root(Digest([byte; 32])), len: 9 };
        PeerFile::new(RelPath::new(path).unwrap(), ListedFile::plain(id))
    }

    fn peer(n: u8) -> NodeId {
        NodeId::new(PeerId([n; 32]), 1)
    }

    fn shown(results: &SearchResults) -> Vec<(&str, u8, Vec<u8>)> {
        let holders = |f: &FoundFile| f.holders.iter().map(|h| h.peer.0[0]).collect();
        results.files().iter().map(|f| (f.path.as_str(), f.id.root.0.0[0], holders(f))).collect()
    }

    #[test]
    fn what_several_list_is_brought_together() {
        let mut f = SearchResults::default();
        f.add(peer(2), true, vec![listed("b", 1), listed("d", 1), listed("b", 1), listed("a", 1)]);
        f.add(peer(1), true, vec![listed("a", 1), listed("b", 0x80), listed("c", 1), listed("d", 1)]);
        f.add(peer(1), true, vec![listed("a", 1)]);
        let all =
            [("a", 1, vec![1, 2]), ("b", 1, vec![2]), ("b", 0x80, vec![1]), ("c", 1, vec![1]), ("d", 1, vec![1, 2])];
        assert_eq!(shown(&f), all);
        assert!(Arc::ptr_eq(&f.files()[0].holders, &f.files()[4].holders));
        assert_eq!((f.named("b"), f.named("x"), f.below("b")), (1..3, 5..5, 3..3));
        f.share_holders();
        f.keep([0, 1, 2]);
        assert_eq!(shown(&f), [("a", 1, vec![1, 2]), ("b", 1, vec![1, 2]), ("b", 0x80, vec![1])]);
    }

    #[test]
    fn equal_beginnings_are_not_equal_contents() {
        let id =
            |last: u8, len| FileId { root: Root(Digest(std::array::from_fn(|i| if i < 31 { 5 } else { last }))), len };
        let all = [id(2, 1), id(1, 1), id(2, 1), id(2, 3), id(1, 1)];
        assert_eq!(by_content(&all, |id| id), [1, 4, 0, 2, 3]);
    }

    #[test]
    fn what_is_shared_and_then_the_oldest_time_decides_what_a_file_is() {
        let of = |mtime_ns, executable, link_group, is_copy| {
            let attributes = Attributes { mtime_ns, executable, link_group };
            vec![PeerFile { attributes, is_copy, ..listed("a", 1) }]
        };
        let order = |shown: [u8; 3]| {
            let mut f = SearchResults::default();
            for n in shown {
                match n {
                    0 => f.add(peer(1), true, of(9, false, 0, false)),
                    1 => f.add(peer(2), true, of(7, true, 4, false)),
                    _ => f.add(peer(3), true, of(5, false, 4, true)),
                };
            }
            let file = &f.files()[0];
            assert_eq!((f.files().len(), file.shared), (1, true));
            (file.attributes.mtime_ns, file.attributes.executable, file.attributes.link_group == 0)
        };
        for shown in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            assert_eq!(order(shown), (7, true, false), "{shown:?}");
        }
        let mut f = SearchResults::default();
        f.add(peer(1), true, of(1, false, 4, false));
        let first = f.files()[0].attributes.link_group;
        f.add(peer(2), true, of(0, false, 4, false));
        assert_ne!(f.files()[0].attributes.link_group, first, "groups of two peers are two");
    }
}
