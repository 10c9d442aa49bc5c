//! Links and empty directories that lie where other peers have something else.
//!
//! A copy may be what a sharer had before. So where one name excludes others, the one stands whose
//! word counts more: a sharer's link takes the place of the file, or of the files below a directory,
//! that a mirror still has there. Of equal ones the files stand, as
//! [`Tree`](crate::client::Tree) decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::chooser::{Chooser, Rank};
use crate::client::search_results::OfferedBare;
use crate::content::{Bare, RelPath, dirs_above};

/// Bare names that are meant.
type BareMap<'a> = BTreeMap<RelPath, &'a OfferedBare>;

/// Files of which only some can be meant, with the text that means them.
type Clash<'t> = (&'t str, Vec<u32>);

impl Chooser<'_> {
    /// Leaves out of `chosen`, which is sorted, and of `clashes` the files that a bare name of a higher
    /// rank excludes, and of `bare` what others exclude. Files in `clear`, which is sorted, were asked
    /// for by their root and stay.
    pub(super) fn part_bare<'t>(
        &self,
        bare: &mut BareMap<'_>,
        mut chosen: Vec<u32>,
        mut clashes: Vec<Clash<'t>>,
        clear: &[u32],
    ) -> (Vec<u32>, Vec<Clash<'t>>) {
        let all: BTreeSet<u32> = chosen.iter().chain(clashes.iter().flat_map(|(_, found)| found)).copied().collect();
        let (lost, mut gone) = self.excluded(bare, &all);
        bare.retain(|path, _| !lost.contains(path));
        gone.sort_by_key(|place| place.start);
        let is_gone = |at: &u32| {
            let before = gone.partition_point(|place| place.start <= *at as usize);
            before > 0 && (*at as usize) < gone[before - 1].end && clear.binary_search(at).is_err()
        };
        chosen.retain(|at| !is_gone(at));
        clashes.iter_mut().for_each(|(_, found)| found.retain(|at| !is_gone(at)));
        chosen.extend(clashes.iter().filter(|(_, found)| found.len() == 1).flat_map(|(_, found)| found));
        clashes.retain(|(_, found)| found.len() > 1);
        chosen.sort_unstable();
        chosen.dedup();
        (chosen, clashes)
    }

    /// The bare names that others exclude, and the positions of files that bare names exclude, each
    /// range apart from the others or the same.
    fn excluded(&self, bare: &BareMap<'_>, files: &BTreeSet<u32>) -> (BTreeSet<RelPath>, Vec<Range<usize>>) {
        let (mut lost, mut gone) = (BTreeSet::new(), Vec::new());
        if bare.is_empty() {
            return (lost, gone);
        }
        let of_rank = |rank| files.iter().copied().filter(|&at| self.rank(at) >= rank).collect();
        let by_rank: [Vec<u32>; 4] = RANKS.map(of_rank);
        let stands = |place: &Range<usize>, rank: Rank| {
            let ranked = RANKS.iter().position(|of| *of == rank).map_or(&[][..], |at| &by_rank[at]);
            let from = ranked.partition_point(|&at| (at as usize) < place.start);
            ranked.get(from).is_some_and(|&at| (at as usize) < place.end)
        };
        let mut links: HashMap<&str, Rank> = HashMap::new();
        for (path, offered) in bare {
            let (rank, is_link) = (rank_of(offered), matches!(offered.bare, Bare::Link { .. }));
            // A link that stands has decided about all below it.
            if let Some(of_link) = dirs_above(path.as_str()).find_map(|dir| links.get(dir)) {
                lost.extend((*of_link > rank).then(|| path.clone()));
                continue;
            }
            let mut places = vec![self.results().named(path.as_str())];
            places.extend(is_link.then(|| self.results().below(path.as_str())));
            places.extend(dirs_above(path.as_str()).map(|dir| self.results().named(dir)));
            let is_over = |other: &OfferedBare| rank < rank_of(other);
            if places.iter().any(|place| stands(place, rank)) || is_link && below(bare, path).any(is_over) {
                lost.insert(path.clone());
                continue;
            }
            gone.extend(places.into_iter().filter(|place| !place.is_empty()));
            if is_link {
                links.insert(path.as_str(), rank);
            }
        }
        (lost, gone)
    }
}

fn rank_of(offered: &OfferedBare) -> Rank {
    Rank(offered.is_preferred, offered.shared)
}

/// The bare names below the directory `dir`.
fn below<'b>(bare: &'b BareMap<'_>, dir: &RelPath) -> impl Iterator<Item = &'b OfferedBare> {
    let behind = bare.range(dir.clone()..).take_while(|(path, _)| path.as_str().starts_with(dir.as_str()));
    behind.filter(|(path, _)| path.is_below(dir.as_str())).map(|(_, offered)| *offered)
}

/// From the least to the greatest.
const RANKS: [Rank; 4] = [Rank(false, false), Rank(false, true), Rank(true, false), Rank(true, true)];
