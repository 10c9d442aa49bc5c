//! What the peers offer that a mirror takes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::content::{Attributes, FileId, LinkTo, RelPath, follow_link};
use crate::identity::{NodeId, PeerId};
use crate::limits::COPY_AHEAD_MAX;
use crate::swarm::mirror::limits::{COPY_TIME_STEP, MIRROR_ANCHORS_MAX, MIRROR_OFFERS_MAX};

/// A file that a peer offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorOffer {
    /// Its name.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Whether a fetch put it there, so that its name is that of another node.
    pub copy: bool,
    /// Whether it is a copy that expires when unused for long, even if no other node has it.
    pub temporary: bool,
    /// What it is besides its content.
    pub attributes: Attributes,
    /// The symbolic link, where the name is one.
    pub link: Option<Box<LinkTo<Box<str>>>>,
}

/// The listings of the peers, as far as they concern the mirror.
#[derive(Debug, Default)]
pub struct MirrorOffers {
    peers: BTreeMap<NodeId, PeerOffers>,
    count: usize,
    /// A copy with a later time, in ns since 1970, does not count as the newest.
    latest_ns: Option<i64>,
}

#[derive(Debug)]
struct PeerOffers {
    /// Sorted by name, one for each.
    files: Vec<MirrorOffer>,
    /// Whether its names count; otherwise it is only known to hold the contents.
    names: bool,
}

/// What is meant by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorVerdict {
    /// No peer offers it.
    Nothing,
    /// This content, which these nodes offer under that name.
    One {
        /// The content.
        id: FileId,
        /// The nodes that have it.
        holders: Vec<NodeId>,
        /// Whether a sharer says so, rather than copies alone, of which the newest counts.
        shared: bool,
    },
    /// Several contents, and nothing says which: of sharers, or of copies where no sharer is and whose
    /// times decide nothing: they are equal, or the latest one lies far in the future.
    Differ {
        /// Their number.
        contents: usize,
        /// Whether sharers differ, rather than copies.
        shared: bool,
    },
}

/// What came of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The names of which something changed.
    pub changed: Vec<RelPath>,
    /// The nodes of which nothing is known from now on.
    pub left_out: Vec<NodeId>,
}

impl MirrorOffers {
    /// Takes the listing of `node` in the place of its former one. `names` says whether its names
    /// count. Where there is no room for it, longer listings give way to it, those first whose names do not count: no
    /// peer crowds out others by what it lists. Of a node that is left out nothing is known.
    pub fn replace(&mut self, node: NodeId, mut files: Vec<MirrorOffer>, names: bool) -> Replaced {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        let old = self.take(node);
        let lacking = (self.count + files.len()).saturating_sub(MIRROR_OFFERS_MAX);
        let Some(left_out) = self.giving_way(lacking, files.len(), names) else {
            return Replaced { changed: old.into_iter().map(|file| file.path).collect(), left_out: vec![node] };
        };
        let mut changed = changed(&old, &files);
        left_out.iter().for_each(|other| changed.extend(self.remove(*other)));
        self.count += files.len();
        self.peers.insert(node, PeerOffers { files, names });
        Replaced { changed, left_out }
    }

    /// The nodes whose listings give way to one of `len` files, so that there is room for `lacking` more; `None` if
    /// there is none even so.
    fn giving_way(&self, mut lacking: usize, len: usize, names: bool) -> Option<Vec<NodeId>> {
        let gives_way = |peer: &PeerOffers| names && !peer.names || names == peer.names && peer.files.len() > len;
        let others = self.peers.iter().filter(|(_, peer)| lacking > 0 && gives_way(peer));
        let mut others: Vec<_> = others.map(|(node, peer)| (peer.names, peer.files.len(), *node)).collect();
        others.sort_by_key(|(names, len, _)| (*names, std::cmp::Reverse(*len)));
        let mut gone = Vec::new();
        for (_, len, node) in others {
            if lacking == 0 {
                break;
            }
            lacking = lacking.saturating_sub(len);
            gone.push(node);
        }
        (lacking == 0).then_some(gone)
    }

    /// Forgets what `node` offers. Returns the names.
    pub fn remove(&mut self, node: NodeId) -> Vec<RelPath> {
        self.take(node).into_iter().map(|file| file.path).collect()
    }

    /// The time is `now_s`, in seconds since 1970. Whether what is the newest copy may be another one by
    /// that than when the time was said last.
    pub fn set_time(&mut self, now_s: u64) -> bool {
        let latest_s = now_s.saturating_add(COPY_AHEAD_MAX.as_secs());
        let latest_ns = i64::try_from(latest_s).unwrap_or(i64::MAX).saturating_mul(NS_PER_S);
        let is_other = self.latest_ns.is_none_or(|ns| ns.abs_diff(latest_ns) >= COPY_TIME_STEP.as_nanos() as u64);
        if is_other {
            self.latest_ns = Some(latest_ns);
        }
        is_other
    }

    /// What `path` means.
    pub fn verdict(&self, path: &RelPath) -> MirrorVerdict {
        let all: Vec<(NodeId, &MirrorOffer)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.names)
            .filter_map(|(node, peer)| Some((*node, peer.get(path)?)))
            .collect();
        let ids = |copy: bool| -> BTreeSet<FileId> {
            all.iter().filter(|(_, file)| file.copy == copy).map(|(_, file)| file.id).collect()
        };
        let (sharers, copies) = (ids(false), ids(true));
        if sharers.is_empty() && copies.len() > 1 {
            let mut by_age: Vec<(i64, FileId)> = all.iter().map(|(_, f)| (f.attributes.mtime_ns, f.id)).collect();
            by_age.sort_by_key(|(mtime_ns, _)| std::cmp::Reverse(*mtime_ns));
            // A clock that was wrong must not decide for ever.
            let newest = by_age.first().copied().filter(|(at, _)| self.latest_ns.is_none_or(|latest| *at <= latest));
            // Equally new ones of several contents tell nothing.
            if let Some((_, id)) = newest.filter(|(at, id)| by_age.iter().all(|(at2, id2)| id2 == id || at2 < at)) {
                return MirrorVerdict::One { id, holders: self.holders(path, &id), shared: false };
            }
        }
        let (ids, shared) = if sharers.is_empty() { (copies, false) } else { (sharers, true) };
        match (ids.first(), ids.len()) {
            (None, _) => MirrorVerdict::Nothing,
            (Some(&id), 1) => MirrorVerdict::One { id, holders: self.holders(path, &id), shared },
            (Some(_), contents) => MirrorVerdict::Differ { contents, shared },
        }
    }

    /// Whether another node keeps the copy `id` of `path` when this one, with the key `own`, lets it
    /// go: a sharer has it, or of all that have a copy for good another one comes first. All nodes that see the
    /// same copies agree on the one that keeps it.
    pub fn is_kept_elsewhere(&self, path: &RelPath, id: &FileId, own: &PeerId) -> bool {
        let others = self.peers.iter().filter_map(|(node, peer)| Some((node, peer.get(path).filter(|f| f.id == *id)?)));
        let mine = rank(own, id);
        others.into_iter().any(|(node, file)| !file.copy || !file.temporary && rank(&node.peer, id) < mine)
    }

    /// What `path` is with the content `id`: as a sharer says it, else as a copy.
    pub fn offered(&self, path: &RelPath, id: &FileId) -> Option<&MirrorOffer> {
        let all = self.peers.values().filter_map(|peer| peer.get(path).filter(|file| file.id == *id));
        all.min_by_key(|file| (file.copy, file.attributes.mtime_ns))
    }

    /// The name that the text of `link` means, if its content is offered there.
    pub fn end_of_link(&self, link: &MirrorOffer) -> Option<RelPath> {
        let to = link.link.as_ref()?;
        let end = RelPath::new(&follow_link(&link.path, &to.target, &mut |_| None).ok()?).ok()?;
        self.offered(&end, &link.id).is_some().then_some(end)
    }

    /// What `path` is, where sharers agree about its content.
    pub fn meant(&self, path: &RelPath) -> Option<&MirrorOffer> {
        match self.verdict(path) {
            MirrorVerdict::One { id, shared: true, .. } => self.offered(path, &id),
            _ => None,
        }
    }

    /// The first file below the directory `dir` that `is_it`, of some of each peer.
    pub fn first_below(&self, dir: &str, is_it: impl Fn(&MirrorOffer) -> bool) -> Option<&MirrorOffer> {
        self.peers.values().find_map(|peer| {
            let is_before = |file: &MirrorOffer| {
                file.path.as_str().as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/")).is_lt()
            };
            let below = peer.files[peer.files.partition_point(is_before)..].iter();
            below.take_while(|file| file.path.is_below(dir)).take(MIRROR_ANCHORS_MAX).find(|file| is_it(file))
        })
    }

    /// The names that are symbolic links of peers whose names count.
    pub fn links(&self) -> impl Iterator<Item = &RelPath> {
        self.linked().map(|file| &file.path)
    }

    /// The names of such links to one of these contents.
    pub fn links_to(&self, contents: &HashSet<FileId>) -> impl Iterator<Item = &RelPath> {
        self.linked().filter(|file| contents.contains(&file.id)).map(|file| &file.path)
    }

    fn linked(&self) -> impl Iterator<Item = &MirrorOffer> {
        let named = self.peers.values().filter(|peer| peer.names).flat_map(|peer| &peer.files);
        named.filter(|file| file.link.is_some())
    }

    /// The nodes that offer `id` under this name.
    pub fn holders(&self, path: &RelPath, id: &FileId) -> Vec<NodeId> {
        let has = |peer: &PeerOffers| peer.get(path).is_some_and(|file| file.id == *id);
        self.peers.iter().filter(|(_, peer)| has(peer)).map(|(node, _)| *node).collect()
    }

    fn take(&mut self, node: NodeId) -> Vec<MirrorOffer> {
        let old = self.peers.remove(&node).map_or(Vec::new(), |peer| peer.files);
        self.count -= old.len();
        old
    }
}

impl PeerOffers {
    fn get(&self, path: &RelPath) -> Option<&MirrorOffer> {
        let at = self.files.binary_search_by(|file| file.path.cmp(path)).ok()?;
        self.files.get(at)
    }
}

/// The names of which one listing says something else than the other. Both are sorted.
fn changed(old: &[MirrorOffer], new: &[MirrorOffer]) -> Vec<RelPath> {
    let (mut names, mut old, mut new) = (Vec::new(), old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => old.path.cmp(&new.path),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return names,
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        let content = |file: Option<&MirrorOffer>| file.map(|file| (file.id, file.copy));
        if content(before) != content(after) {
            names.extend(before.or(after).map(|file| file.path.clone()));
        }
    }
}

/// The place of a node among all that have a copy of `id`: different for each content, so that the
/// last copies are spread over the nodes (rendezvous hashing, Thaler and Ravishankar 1998).
fn rank(peer: &PeerId, id: &FileId) -> (u64, PeerId) {
    let words = peer.0.chunks_exact(8).chain(id.root.0.0.chunks_exact(8));
    let hash = words.fold(0, |hash, word| mix(hash ^ word.try_into().map_or(0, u64::from_le_bytes)));
    (hash, *peer)
}

const NS_PER_S: i64 = 1_000_000_000;

/// Spreads each bit over all (SplitMix64).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    fn node(n: u8) -> NodeId {
        NodeId::new(PeerId([n; 32]), 1)
    }

    fn id(n: u8) -> FileId {
        FileId { root: Root(Digest([n; 32])), len: 5 }
    }

    fn name(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn plain(path: &str, id: FileId, copy: bool) -> MirrorOffer {
        MirrorOffer { path: name(path), id, copy, temporary: false, attributes: Attributes::default(), link: None }
    }

    fn offered(files: &[(&str, u8, bool)]) -> Vec<MirrorOffer> {
        files.iter().map(|(path, n, copy)| plain(path, id(*n), *copy)).collect()
    }

    #[test]
    fn a_sharer_decides_and_a_copy_that_lags_behind_never_does() {
        let mut offers = MirrorOffers::default();
        offers.replace(node(1), offered(&[("a", 2, false)]), true);
        offers.replace(node(2), offered(&[("a", 1, true)]), true);
        offers.replace(node(3), offered(&[("a", 2, true), ("b", 3, true)]), true);
        let one = |n, holders: &[u8], shared| MirrorVerdict::One {
            id: id(n),
            holders: holders.iter().map(|n| node(*n)).collect(),
            shared,
        };
        assert_eq!(offers.verdict(&name("a")), one(2, &[1, 3], true));
        assert_eq!(offers.verdict(&name("b")), one(3, &[3], false), "its sharer is gone");
        assert_eq!(offers.verdict(&name("c")), MirrorVerdict::Nothing);
        offers.remove(node(1));
        assert_eq!(offers.verdict(&name("a")), MirrorVerdict::Differ { contents: 2, shared: false });
        let newer =
            MirrorOffer { attributes: Attributes { mtime_ns: 1, ..Attributes::default() }, ..plain("a", id(1), true) };
        offers.replace(node(2), vec![newer], true);
        assert_eq!(offers.verdict(&name("a")), one(1, &[2], false), "the newest copy");
        offers.replace(node(4), offered(&[("a", 7, false)]), true);
        offers.replace(node(5), offered(&[("a", 8, false)]), true);
        assert_eq!(offers.verdict(&name("a")), MirrorVerdict::Differ { contents: 2, shared: true });
        offers.replace(node(5), offered(&[("a", 8, false)]), false);
        assert_eq!(offers.verdict(&name("a")), one(7, &[4], true), "only the names of some count");
        offers.replace(node(5), offered(&[("a", 7, false)]), false);
        assert_eq!(offers.verdict(&name("a")), one(7, &[4, 5], true), "the content comes from all");
    }

    /// Cause: only what a client chooses had a bound. Effect: a copy that a machine with a wrong clock had made was
    /// the newest one for mirrors until that time came.
    #[test]
    fn a_copy_of_the_far_future_is_not_the_newest() {
        let mut offers = MirrorOffers::default();
        let at = |s: u64, n| {
            let attributes = Attributes { mtime_ns: s as i64 * NS_PER_S, ..Attributes::default() };
            vec![MirrorOffer { attributes, ..plain("a", id(n), true) }]
        };
        let day = COPY_AHEAD_MAX.as_secs();
        offers.replace(node(1), at(1000, 1), true);
        offers.replace(node(2), at(1000 + day, 2), true);
        let verdicts = [1000, 999, 1000 + day].map(|now_s| {
            let mut offers_then = MirrorOffers { latest_ns: None, ..std::mem::take(&mut offers) };
            assert!(offers_then.set_time(now_s) && !offers_then.set_time(now_s + 1));
            let verdict = offers_then.verdict(&name("a"));
            offers = offers_then;
            verdict
        });
        let newest = MirrorVerdict::One { id: id(2), holders: vec![node(2)], shared: false };
        let none = MirrorVerdict::Differ { contents: 2, shared: false };
        assert_eq!(verdicts, [newest.clone(), none, newest]);
    }

    #[test]
    fn what_changed_between_two_listings_is_told() {
        let mut offers = MirrorOffers::default();
        let names = |replaced: Replaced| -> Vec<String> { replaced.changed.iter().map(RelPath::to_string).collect() };
        let first = offers.replace(node(1), offered(&[("b", 1, false), ("a", 1, false), ("d", 1, false)]), true);
        assert_eq!(names(first), ["a", "b", "d"]);
        let second = offers.replace(node(1), offered(&[("a", 1, false), ("b", 2, false), ("c", 1, true)]), true);
        assert_eq!(names(second), ["b", "c", "d"]);
        let changed = offers.remove(node(1));
        assert_eq!(names(Replaced { changed, ..Replaced::default() }), ["a", "b", "c"]);
        assert!(offers.remove(node(1)).is_empty() && offers.count == 0);
    }

    /// Cause: what came when there was no room was left out. Effect: a peer with millions of names, whose names did not
    /// even count, kept a mirror from whom it follows.
    #[test]
    fn a_long_listing_gives_way_to_shorter_ones_and_to_those_that_count() {
        let mut offers = MirrorOffers::default();
        let listing = |files: u8| offered(&[("a", 1, false), ("b", 1, false), ("c", 1, false)][..files.into()]);
        for (n, files, names) in [(1, 3, false), (2, 2, false), (3, 3, true), (4, 1, true)] {
            assert!(offers.replace(node(n), listing(files), names).left_out.is_empty());
        }
        let way = |lacking, len, names| offers.giving_way(lacking, len, names);
        let nodes = |all: &[u8]| Some(all.iter().map(|n| node(*n)).collect::<Vec<_>>());
        assert_eq!(way(0, 9, true), nodes(&[]));
        assert_eq!((way(3, 9, true), way(4, 9, true), way(6, 9, true)), (nodes(&[1]), nodes(&[1, 2]), None));
        assert_eq!((way(6, 2, true), way(9, 2, true)), (nodes(&[1, 2, 3]), None), "as short ones stay");
        assert_eq!((way(3, 2, false), way(4, 2, false), way(1, 3, false)), (nodes(&[1]), None, None));
    }

    /// Two mirrors whose copies are equally old must not let both go.
    #[test]
    fn of_all_that_have_the_last_copies_exactly_one_keeps_each() {
        let nodes: Vec<u8> = (1..=5).collect();
        let contents: Vec<(String, u8)> = (0..40).map(|n| (format!("f{n}"), n)).collect();
        let listing: Vec<(&str, u8, bool)> = contents.iter().map(|(name, n)| (name.as_str(), *n, true)).collect();
        let mut kept = BTreeMap::new();
        for (path, n) in &contents {
            let keepers = nodes.iter().filter(|own| {
                let mut offers = MirrorOffers::default();
                for other in nodes.iter().filter(|other| other != own) {
                    offers.replace(node(*other), offered(&listing), true);
                }
                !offers.is_kept_elsewhere(&name(path), &id(*n), &node(**own).peer)
            });
            let keepers: Vec<u8> = keepers.copied().collect();
            assert_eq!(keepers.len(), 1, "{path} {keepers:?}");
            *kept.entry(keepers[0]).or_insert(0) += 1;
        }
        assert!(kept.len() == nodes.len(), "spread over the nodes {kept:?}");
        let mut offers = MirrorOffers::default();
        for n in 2..60 {
            let temporary = MirrorOffer { temporary: true, ..plain("a", id(1), true) };
            offers.replace(node(n), vec![temporary], true);
        }
        assert!(
            !offers.is_kept_elsewhere(&name("a"), &id(1), &node(1).peer),
            "temporary copies go whoever relies on them"
        );
        let mut offers = MirrorOffers::default();
        assert!(!offers.is_kept_elsewhere(&name("a"), &id(1), &node(1).peer), "the last one");
        offers.replace(node(9), offered(&[("a", 1, false)]), true);
        assert!(offers.is_kept_elsewhere(&name("a"), &id(1), &node(1).peer), "a sharer has it");
        assert!(!offers.is_kept_elsewhere(&name("a"), &id(2), &node(1).peer), "another content");
    }
}
