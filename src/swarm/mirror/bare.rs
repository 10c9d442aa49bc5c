//! The links and empty directories that peers offer, as far as a mirror makes them.

use std::collections::BTreeMap;

use crate::content::{Bare, RelPath};
use crate::identity::NodeId;
use crate::swarm::mirror::limits::MIRROR_BARE_LEN_MAX;

/// What each peer offers that no file is.
#[derive(Debug, Default)]
pub struct BareOffers {
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
        let mut all: BTreeMap<&RelPath, Option<&Bare>> = BTreeMap::new();
        for (path, bare) in self.peers.values().flatten() {
            let Some(known) = all.get_mut(path) else {
                all.insert(path, Some(bare));
                continue;
            };
            let of = known.is_some_and(Bare::is_copy);
            *known = match *known {
                Some(_) if of && !bare.is_copy() => Some(bare),
                Some(known) if !of && bare.is_copy() => Some(known),
                Some(known) if !known.is_as(bare) => None,
                Some(known) if known.mtime_ns() <= bare.mtime_ns() => Some(known),
                Some(_) => Some(bare),
                None => None,
            };
        }
        all.into_iter().filter_map(|(path, bare)| Some((path, bare?))).collect()
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
    }
}
