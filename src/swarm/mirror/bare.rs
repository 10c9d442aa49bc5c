//! The links and empty directories that peers offer, as far as a mirror makes them.

use std::collections::BTreeMap;

use crate::content::{Bare, RelPath};
use crate::identity::NodeId;
use crate::swarm::mirror::limits::MIRROR_BARE_LEN_MAX;

/// What each peer offers that no file is.
#[derive(Debug, Default)]
pub struct BareOffers {
    /// Sorted by name, one for each.
    peers: BTreeMap<NodeId, Vec<(RelPath, Bare)>>,
    /// Memory that they take, in bytes.
    len: usize,
}

impl BareOffers {
    /// Takes what `node` lists in the place of what it listed before, if its names count. False if there
    /// was no room for all of it.
    pub fn replace(&mut self, node: NodeId, mut bare: Vec<(RelPath, Bare)>, names: bool) -> bool {
        self.remove(node);
        if !names {
            return true;
        }
        bare.sort_by(|a, b| a.0.cmp(&b.0));
        bare.dedup_by(|a, b| a.0 == b.0);
        let listed = bare.len();
        bare.retain(|named| {
            let fits = self.len + len_of(named) <= MIRROR_BARE_LEN_MAX;
            self.len += if fits { len_of(named) } else { 0 };
            fits
        });
        let has_room = bare.len() == listed;
        self.peers.insert(node, bare);
        has_room
    }

    /// Forgets what `node` offers.
    pub fn remove(&mut self, node: NodeId) {
        let bare = self.peers.remove(&node).unwrap_or_default();
        self.len -= bare.iter().map(len_of).sum::<usize>();
    }

    /// What each name is. Sharers decide, and then copies; of a name that several of these have as
    /// different things nothing is said. The oldest time counts.
    pub fn agreed(&self) -> BTreeMap<&RelPath, &Bare> {
        let mut all: BTreeMap<&RelPath, Said<'_>> = BTreeMap::new();
        for (path, bare) in self.peers.values().flatten() {
            all.entry(path).and_modify(|said| *said = said.and(bare)).or_insert(Said { bare, differs: false });
        }
        all.into_iter().filter_map(|(path, said)| Some((path, said.agreed()?))).collect()
    }

    /// What `path` is; as [`agreed`](Self::agreed), for one name.
    pub fn agreed_at(&self, path: &RelPath) -> Option<&Bare> {
        let position = |bare: &[(RelPath, Bare)]| bare.binary_search_by(|(at, _)| at.cmp(path)).ok();
        let mut all = self.peers.values().filter_map(|bare| Some(&bare[position(bare)?].1));
        let first = Said { bare: all.next()?, differs: false };
        all.fold(first, Said::and).agreed()
    }
}

/// What peers say of one name, sharers before copies.
#[derive(Clone, Copy)]
struct Said<'b> {
    bare: &'b Bare,
    /// Others, whose word counts as much, say something else.
    differs: bool,
}

impl<'b> Said<'b> {
    fn and(self, bare: &'b Bare) -> Self {
        match (self.bare.is_copy(), bare.is_copy()) {
            (true, false) => Said { bare, differs: false },
            (false, true) => self,
            _ => {
                let oldest = if self.bare.mtime_ns() <= bare.mtime_ns() { self.bare } else { bare };
                Said { bare: oldest, differs: self.differs || !self.bare.is_as(bare) }
            }
        }
    }

    fn agreed(self) -> Option<&'b Bare> {
        (!self.differs).then_some(self.bare)
    }
}

/// Memory that a name takes, in bytes.
fn len_of((path, bare): &(RelPath, Bare)) -> usize {
    let text = if let Bare::Link { to, .. } = bare { to.target.len() } else { 0 };
    size_of::<(RelPath, Bare)>() + path.as_str().len() + text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::LinkTo;
    use crate::identity::PeerId;

    fn node(n: u8) -> NodeId {
        NodeId::new(PeerId([n; 32]), 1)
    }

    fn link(path: &str, target: &str, mtime_ns: i64, copy: bool) -> (RelPath, Bare) {
        (RelPath::new(path).unwrap(), Bare::Link { to: LinkTo { target: target.into(), mtime_ns }, copy })
    }

    #[test]
    fn sharers_decide_and_where_they_differ_nothing_is_said() {
        let mut offers = BareOffers::default();
        let told = |offers: &BareOffers| -> Vec<String> {
            let target =
                |bare: &Bare| if let Bare::Link { to, .. } = bare { to.target.to_string() } else { "/".into() };
            offers.agreed().into_iter().map(|(path, b)| format!("{path} {} {}", target(b), b.mtime_ns())).collect()
        };
        assert!(offers.replace(node(1), vec![link("a", "v1", 1, true)], true));
        assert!(offers.replace(node(2), vec![link("a", "v2", 5, false), link("b", "x", 5, false)], true));
        assert!(offers.replace(node(2), vec![link("a", "v2", 5, false), link("b", "x", 5, false)], true));
        assert!(offers.replace(node(3), vec![link("a", "v2", 4, false), link("c", "y", 4, false)], true));
        assert_eq!(told(&offers), ["a v2 4", "b x 5", "c y 4"]);
        offers.replace(node(4), vec![link("a", "v3", 1, false)], true);
        assert_eq!(told(&offers), ["b x 5", "c y 4"]);
        offers.replace(node(4), vec![link("a", "v3", 1, false)], false);
        assert_eq!(told(&offers)[0], "a v2 4", "only the names of some count");
        offers.remove(node(2));
        offers.remove(node(3));
        assert_eq!(told(&offers), ["a v1 1"]);
        offers.replace(node(5), vec![link("a", "v0", 1, true)], true);
        assert_eq!(told(&offers), [""; 0], "copies of which nothing says which is meant");
        // Cause: two copies that differed silenced the sharer after them.
        offers.replace(node(6), vec![link("a", "v9", 1, false)], true);
        assert_eq!(told(&offers), ["a v9 1"], "a sharer decides");
        let at = |path: &str| offers.agreed_at(&RelPath::new(path).unwrap()).map(Bare::mtime_ns);
        assert_eq!((at("a"), at("b")), (Some(1), None));
    }
}
