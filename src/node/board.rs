//! The one catalogue of a node, made of what its directories hold and what its program offers.
//!
//! Each directory keeps a catalogue of its own, under the names that its files have there. The board
//! follows them: with one directory and nothing offered their snapshots are passed on as they are,
//! else what changed is put into the catalogue of the node, under the names that other nodes know.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::{Bare, BareNames, Catalogue, CatalogueNotes, Entry, EntryRef, RelPath};
use crate::limits::CATALOGUE_ENTRIES_MAX;
use crate::node::limits::OFFERS_MAX;
use crate::runtime::{Subscription, Watch};
use crate::sync::lock;

/// Puts the catalogue of a node together.
pub(super) struct CatalogueBoard {
    latest: Arc<Watch<Arc<Catalogue>>>,
    entries_max: usize,
    state: Mutex<BoardState>,
}

#[derive(Default)]
struct BoardState {
    shelves: Vec<Shelf>,
    offers: BTreeMap<RelPath, OfferedName>,
    /// The number of the offer that was made last.
    offered: u64,
    /// Names of directories may be missing for want of room.
    has_overflowed: bool,
}

/// What a directory holds.
struct Shelf {
    /// The first component of its names here; none for the directory whose names have none.
    name: Option<RelPath>,
    from: Arc<Watch<Arc<Catalogue>>>,
    /// The snapshot that the catalogue of the node has taken in.
    taken: Arc<Catalogue>,
    /// Whether each file that was found there is hashed, as its last event says.
    is_complete: bool,
    _subscription: Subscription,
}

/// A name that the program offers, or is about to.
struct OfferedName {
    number: u64,
    /// None until it is hashed.
    entry: Option<Entry>,
}

/// Why a name cannot be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameClash {
    /// The program offers something under it already.
    Offered,
    /// A file of a directory has it.
    File,
    /// A name lies below it, or it below the name of a file.
    Directory,
    /// There is no room for a further one.
    Full,
    /// It was withdrawn meanwhile.
    Withdrawn,
}

type Changes = BTreeMap<RelPath, Option<Entry>>;

impl CatalogueBoard {
    /// A board that publishes to `latest`.
    pub(super) fn new(latest: Arc<Watch<Arc<Catalogue>>>) -> Self {
        CatalogueBoard { latest, entries_max: CATALOGUE_ENTRIES_MAX, state: Mutex::default() }
    }

    /// Follows the catalogue of a directory, whose names get `name` in front.
    pub(super) fn follow(self: &Arc<Self>, name: Option<RelPath>, from: Arc<Watch<Arc<Catalogue>>>) {
        let board: Weak<Self> = Arc::downgrade(self);
        let mut state = lock(&self.state);
        let number = state.shelves.len();
        let _subscription = from.subscribe(move || board.upgrade().into_iter().for_each(|board| board.take(number)));
        let taken = Arc::new(Catalogue::default());
        state.shelves.push(Shelf { name, from, taken, is_complete: false, _subscription });
    }

    /// The revision, files and bytes of the catalogue now.
    pub(super) fn size(&self) -> (u64, u64, u64) {
        self.latest.read(|all| (all.revision(), all.len() as u64, all.bytes()))
    }

    /// Whether each file that was found in a directory is hashed.
    pub(super) fn is_complete(&self) -> bool {
        lock(&self.state).shelves.iter().all(|shelf| shelf.is_complete)
    }

    /// Notes whether each file that was found in directory `number` is hashed.
    pub(super) fn note_complete(&self, number: usize, is_complete: bool) {
        if let Some(shelf) = lock(&self.state).shelves.get_mut(number) {
            shelf.is_complete = is_complete;
        }
    }

    /// Takes in the newest snapshot of a directory.
    fn take(&self, number: usize) {
        let mut state = lock(&self.state);
        let is_alone = state.shelves.len() == 1 && state.offers.is_empty();
        let Some(shelf) = state.shelves.get_mut(number) else { return };
        let next = shelf.from.get();
        let before = std::mem::replace(&mut shelf.taken, next.clone());
        let latest = self.latest.get();
        let is_newer = next.revision() > latest.revision() || Arc::ptr_eq(&before, &latest);
        if is_alone && shelf.name.is_none() && is_newer {
            drop(self.latest.update(|all| std::mem::replace(all, next)));
            state.has_overflowed = false;
            return;
        }
        let here = |path: &str| state.shelves.get(number).and_then(|shelf| prefixed(shelf.name.as_ref(), path));
        let mut changes = Changes::new();
        for (path, entry) in differences(&before, &next) {
            let Some(path) = here(path) else { continue };
            if state.is_free_for(number, &path) {
                let entry = entry.map(|entry| Entry { path: path.clone(), ..entry.to_entry() });
                changes.insert(path, entry);
            }
        }
        let goes = |(path, entry): &(&RelPath, &Option<Entry>)| entry.is_none() && latest.get(path.as_str()).is_some();
        let mut room = (self.entries_max + changes.iter().filter(goes).count()).saturating_sub(latest.len());
        if state.has_overflowed && room > 0 {
            state.has_overflowed = false;
            state.add_missing(&latest, &mut changes);
        }
        changes.retain(|path, entry| {
            let is_new = entry.is_some() && latest.get(path.as_str()).is_none();
            let fits = !is_new || room > 0;
            room -= usize::from(is_new && fits);
            state.has_overflowed |= !fits;
            fits
        });
        self.publish(&state, &latest, &changes);
    }

    /// Publishes what `changes` make of the `latest` snapshot.
    fn publish(&self, state: &BoardState, latest: &Catalogue, changes: &Changes) {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let next = latest.changed(unix_ms.max(latest.revision() + 1), changes);
        self.latest.publish(next.with_bare(state.bare()).with_notes(state.notes()));
    }

    /// Keeps `name` for an offer, and returns its number.
    pub(super) fn reserve(&self, name: &RelPath) -> Result<u64, NameClash> {
        let mut state = lock(&self.state);
        if state.offers.contains_key(name) {
            return Err(NameClash::Offered);
        }
        if state.offers.len() >= OFFERS_MAX {
            return Err(NameClash::Full);
        }
        state.check(&self.latest.get(), name)?;
        state.offered += 1;
        let number = state.offered;
        state.offers.insert(name.clone(), OfferedName { number, entry: None });
        Ok(number)
    }

    /// Offers `entry` under the name that was kept for it. `put` makes it servable, before any other
    /// node can know of it.
    pub(super) fn offer(&self, number: u64, entry: Entry, put: impl FnOnce()) -> Result<(), NameClash> {
        let mut state = lock(&self.state);
        let latest = self.latest.get();
        if state.offers.get(&entry.path).is_none_or(|offer| offer.number != number) {
            return Err(NameClash::Withdrawn);
        }
        // A file may have come to lie there meanwhile.
        state.check(&latest, &entry.path)?;
        if latest.len() >= self.entries_max {
            return Err(NameClash::Full);
        }
        put();
        let changes = Changes::from([(entry.path.clone(), Some(entry.clone()))]);
        state.offers.insert(entry.path.clone(), OfferedName { number, entry: Some(entry) });
        self.publish(&state, &latest, &changes);
        Ok(())
    }

    /// Offers `name` no longer. The file of a directory that has the name shows again. True if it was
    /// offered.
    pub(super) fn withdraw(&self, name: &RelPath, number: u64) -> bool {
        let mut state = lock(&self.state);
        if state.offers.get(name).is_none_or(|offer| offer.number != number) {
            return false;
        }
        let Some(OfferedName { entry: Some(_), .. }) = state.offers.remove(name) else { return false };
        let below = state.shelves.iter().enumerate().find_map(|(number, shelf)| {
            let path = match &shelf.name {
                Some(first) => name.as_str().strip_prefix(first.as_str())?.strip_prefix('/')?,
                None => name.as_str(),
            };
            let entry = shelf.taken.get(path)?.to_entry();
            state.is_free_for(number, name).then(|| Entry { path: name.clone(), ..entry })
        });
        self.publish(&state, &self.latest.get(), &Changes::from([(name.clone(), below)]));
        true
    }
}

impl BoardState {
    /// Whether a file of directory `number` may have this name here: it is not offered, and no
    /// directory has it for its own.
    fn is_free_for(&self, number: usize, path: &RelPath) -> bool {
        let first = path.components().next();
        let is_of_another = |(other, shelf): (usize, &Shelf)| {
            other != number && first.is_some_and(|first| shelf.name.as_ref().is_some_and(|name| name.as_str() == first))
        };
        !self.shelves.iter().enumerate().any(is_of_another)
            && self.offers.get(path).is_none_or(|offer| offer.entry.is_none())
    }

    /// Adds the names of directories that `latest` lacks.
    fn add_missing(&self, latest: &Catalogue, changes: &mut Changes) {
        for (number, shelf) in self.shelves.iter().enumerate() {
            for entry in shelf.taken.iter() {
                let Some(path) = prefixed(shelf.name.as_ref(), entry.path) else { continue };
                if latest.get(path.as_str()).is_none() && self.is_free_for(number, &path) {
                    changes.entry(path.clone()).or_insert_with(|| Some(Entry { path, ..entry.to_entry() }));
                }
            }
        }
    }

    /// An error if `name` cannot be offered beside the names of `latest`, or of other offers.
    fn check(&self, latest: &Catalogue, name: &RelPath) -> Result<(), NameClash> {
        let above: Vec<&str> = name.as_str().match_indices('/').map(|(at, _)| &name.as_str()[..at]).collect();
        if latest.get(name.as_str()).is_some() || latest.bare().get(name.as_str()).is_some() {
            return Err(NameClash::File);
        }
        let is_dir = !latest.positions_below(name.as_str()).is_empty()
            || self.shelves.iter().any(|shelf| shelf.name.as_ref() == Some(name))
            || self.has_offer_below(name);
        let is_offered = |dir: &str| RelPath::new(dir).is_ok_and(|dir| self.offers.contains_key(&dir));
        let lies_below = |dir: &&str| latest.get(dir).is_some() || is_offered(dir);
        if is_dir || above.iter().any(lies_below) { Err(NameClash::Directory) } else { Ok(()) }
    }

    fn has_offer_below(&self, dir: &RelPath) -> bool {
        let behind = self.offers.range((Bound::Excluded(dir), Bound::Unbounded)).map(|(name, _)| name);
        // Names like `dir-x` lie between `dir` and `dir/x`.
        let mut maybe = behind.take_while(|name| name.as_str().starts_with(dir.as_str()));
        maybe.any(|name| name.is_below(dir.as_str()))
    }

    /// The bare names of all directories.
    fn bare(&self) -> Arc<BareNames> {
        if let [Shelf { name: None, taken, .. }] = &*self.shelves {
            return taken.bare().clone();
        }
        let mut all = BTreeMap::<RelPath, Option<Bare>>::new();
        for (number, shelf) in self.shelves.iter().enumerate() {
            let names = shelf.taken.bare().all().iter();
            let here = names.filter_map(|(path, bare)| Some((prefixed(shelf.name.as_ref(), path.as_str())?, bare)));
            all.extend(
                here.filter(|(path, _)| self.is_free_for(number, path)).map(|(p, bare)| (p, Some(bare.clone()))),
            );
        }
        Arc::new(BareNames::default().changed(&all))
    }

    /// What is known of all directories together.
    fn notes(&self) -> CatalogueNotes {
        let mut notes = CatalogueNotes { complete: !self.shelves.is_empty(), ..CatalogueNotes::default() };
        for shelf in &self.shelves {
            let of = shelf.taken.notes();
            notes.complete &= of.complete;
            notes.unnamed += of.unnamed;
        }
        notes
    }
}

/// The name that `path` below a directory has for other nodes; none if that is too long.
fn prefixed(name: Option<&RelPath>, path: &str) -> Option<RelPath> {
    match name {
        Some(name) => RelPath::new(&format!("{name}/{path}")).ok(),
        None => RelPath::new(path).ok(),
    }
}

/// The names that are another in `next` than in `before`, or are in one of them alone.
fn differences<'c>(
    before: &'c Catalogue,
    next: &'c Catalogue,
) -> impl Iterator<Item = (&'c str, Option<EntryRef<'c>>)> + 'c {
    let (mut old, mut new) = (before.iter().peekable(), next.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.path.cmp(b.path),
            };
            match order {
                std::cmp::Ordering::Less => return old.next().map(|gone| (gone.path, None)),
                std::cmp::Ordering::Greater => return new.next().map(|fresh| (fresh.path, Some(fresh))),
                std::cmp::Ordering::Equal => {
                    let (was, is) = (old.next()?, new.next()?);
                    if was != is {
                        return Some((is.path, Some(is)));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, FileId, Marks, Root, Stamp};

    fn entry(path: &str, byte: u8) -> Entry {
        let id = FileId { root: Root(Digest([byte; 32])), len: 5 };
        Entry { path: name(path), id, stamp: Stamp::default(), marks: Marks::default() }
    }

    fn name(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    type Shared = Arc<Watch<Arc<Catalogue>>>;

    fn board(names: &[Option<&str>]) -> (Arc<CatalogueBoard>, Shared, Vec<Shared>) {
        let empty = || Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let (latest, from) = (empty(), Vec::from_iter(names.iter().map(|_| empty())));
        let board = Arc::new(CatalogueBoard::new(latest.clone()));
        names.iter().zip(&from).for_each(|(dir, from)| board.follow(dir.map(name), from.clone()));
        (board, latest, from)
    }

    fn shown(latest: &Shared) -> Vec<(String, u8)> {
        latest.get().iter().map(|e| (e.path.to_string(), e.id.root.0.0[0])).collect()
    }

    fn names(all: &[(&str, u8)]) -> Vec<(String, u8)> {
        all.iter().map(|(path, byte)| (path.to_string(), *byte)).collect()
    }

    #[test]
    fn one_directory_is_passed_on_as_it_is() {
        let (board, latest, from) = board(&[None]);
        from[0].publish(Catalogue::new(7, vec![entry("a", 1)]));
        assert!(Arc::ptr_eq(&latest.get(), &from[0].get()));
        let number = board.reserve(&name("b")).unwrap();
        from[0].publish(Catalogue::new(8, vec![entry("a", 2)]));
        board.offer(number, entry("b", 9), || ()).unwrap();
        assert_eq!(shown(&latest), names(&[("a", 2), ("b", 9)]));
        let revision = latest.get().revision();
        from[0].publish(Catalogue::new(9, vec![entry("c", 3)]));
        assert!(latest.get().revision() > revision, "revisions grow");
        assert_eq!(shown(&latest), names(&[("b", 9), ("c", 3)]));
        assert!(board.withdraw(&name("b"), number) && !board.withdraw(&name("b"), number));
        assert_eq!((shown(&latest), board.size().1), (names(&[("c", 3)]), 1));
        from[0].publish(Catalogue::new(u64::MAX, vec![entry("d", 4)]));
        assert!(Arc::ptr_eq(&latest.get(), &from[0].get()), "and again");
    }

    #[test]
    fn directories_have_names_of_their_own_and_keep_them() {
        let (_board, latest, from) = board(&[None, Some("m"), Some("n")]);
        from[1].publish(Catalogue::new(1, vec![entry("a", 1), entry("d/b", 2)]));
        from[0].publish(Catalogue::new(1, vec![entry("a", 3), entry("m/a", 4), entry("mm", 5)]));
        from[2].publish(Catalogue::new(1, vec![entry("a", 6)]));
        assert_eq!(shown(&latest), names(&[("a", 3), ("m/a", 1), ("m/d/b", 2), ("mm", 5), ("n/a", 6)]));
        from[1].publish(Catalogue::new(2, vec![entry("d/b", 7)]));
        from[2].publish(Catalogue::new(2, vec![]));
        assert_eq!(shown(&latest), names(&[("a", 3), ("m/d/b", 7), ("mm", 5)]));
    }

    #[test]
    fn names_without_room_show_once_there_is_some() {
        let empty = || Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let latest = empty();
        let board = Arc::new(CatalogueBoard { entries_max: 3, ..CatalogueBoard::new(latest.clone()) });
        let from = [empty(), empty()];
        from.iter().zip([None, Some(name("m"))]).for_each(|(from, dir)| board.follow(dir, from.clone()));
        from[1].publish(Catalogue::new(1, vec![entry("a", 1), entry("b", 2)]));
        from[0].publish(Catalogue::new(1, vec![entry("a", 3), entry("b", 4), entry("c", 5)]));
        assert_eq!(shown(&latest), names(&[("a", 3), ("m/a", 1), ("m/b", 2)]));
        from[1].publish(Catalogue::new(2, vec![entry("a", 1)]));
        assert_eq!(shown(&latest), names(&[("a", 3), ("b", 4), ("m/a", 1)]));
        from[0].publish(Catalogue::new(2, vec![entry("b", 4), entry("c", 5)]));
        assert_eq!(shown(&latest), names(&[("b", 4), ("c", 5), ("m/a", 1)]));
    }

    #[test]
    fn an_offer_takes_no_name_of_a_file_and_none_takes_its_name() {
        let (board, latest, from) = board(&[None, Some("m")]);
        from[0].publish(Catalogue::new(1, vec![entry("a/b", 1), entry("c", 2)]));
        let clash = |path: &str| board.reserve(&name(path)).unwrap_err();
        assert_eq!([clash("c"), clash("a/b")], [NameClash::File; 2]);
        assert_eq!([clash("a"), clash("c/d"), clash("m")], [NameClash::Directory; 3]);
        let number = board.reserve(&name("x/y")).unwrap();
        assert_eq!(
            [clash("x/y"), clash("x"), clash("x/y/z")],
            [NameClash::Offered, NameClash::Directory, NameClash::Directory]
        );
        // A file comes while the content is hashed.
        from[0].publish(Catalogue::new(2, vec![entry("x/y", 3)]));
        assert_eq!(board.offer(number, entry("x/y", 9), || panic!("not put")), Err(NameClash::File));
        from[0].publish(Catalogue::new(3, vec![]));
        board.offer(number, entry("x/y", 9), || ()).unwrap();
        // One that comes later shows once the offer is withdrawn.
        from[0].publish(Catalogue::new(4, vec![entry("x/y", 4), entry("z", 5)]));
        assert_eq!(shown(&latest), names(&[("x/y", 9), ("z", 5)]));
        assert!(!board.withdraw(&name("x/y"), number + 1));
        assert!(board.withdraw(&name("x/y"), number));
        assert_eq!(shown(&latest), names(&[("x/y", 4), ("z", 5)]));
        let number = board.reserve(&name("late")).unwrap();
        assert!(!board.withdraw(&name("late"), number), "it was not offered yet");
        assert_eq!(board.offer(number, entry("late", 1), || ()), Err(NameClash::Withdrawn));
    }
}
