//! Everything that a node offers: names, identities, and the state on disk in which each file was
//! hashed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::content::catalogue::block::{BlockBuilder, EntryBlock};
use crate::content::rel_path::is_below;
use crate::content::{Attributes, FileId, RelPath};

mod bare;
mod block;

pub use bare::{Bare, BareNames};

/// The state of a file when it was hashed; any difference means that it may hold other bytes now.
///
/// ```
/// use gpb::Stamp;
///
/// let hashed = Stamp { mtime_ns: 1, ctime_ns: 1, inode: 7 };
/// assert_ne!(hashed, Stamp { inode: 8, ..hashed });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Modification time, ns since the Unix epoch.
    pub mtime_ns: i64,
    /// Time of the last inode change, ns since the Unix epoch.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
}

/// What is known of an offered file besides its content and [`Stamp`].
///
/// ```
/// use gpb::Marks;
///
/// assert_eq!(Marks::default(), Marks { executable: false, copy: false, temporary: false, link_group: 0 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Whether it may be run as a program.
    pub executable: bool,
    /// Whether the node has it from others, as their mirror: what a node shares of its own wins over
    /// it.
    pub copy: bool,
    /// Whether it is a copy that was fetched for a while: it expires when unused for long, even if no
    /// other node has it.
    pub temporary: bool,
    /// Names with one number in one catalogue are names of one inode (hard links). 0: the name is
    /// the only one.
    pub link_group: u64,
}

/// One offered file.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// let entry = node.catalogue().iter().next().ok_or("nothing offered")?.to_entry();
/// assert_eq!(entry.path.as_str(), "docs/a.txt");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name below the shared directory.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// The state of the disk when it was hashed.
    pub stamp: Stamp,
    /// What else is known of it.
    pub marks: Marks,
}

/// An [`Entry`] where it lies in a [`Catalogue`].
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// let catalogue = node.catalogue();
/// let entry = catalogue.get("docs/a.txt").ok_or("not offered")?;
/// assert_eq!(entry.id.len, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'c> {
    /// Its name below the shared directory, the text of a [`RelPath`].
    pub path: &'c str,
    /// Its content.
    pub id: FileId,
    /// The state of the disk when it was hashed.
    pub stamp: Stamp,
    /// What else is known of it.
    pub marks: Marks,
}

impl EntryRef<'_> {
    /// A copy that needs no catalogue.
    pub fn to_entry(self) -> Entry {
        let path = RelPath::checked_before(self.path);
        Entry { path, id: self.id, stamp: self.stamp, marks: self.marks }
    }

    /// What it is besides its content.
    pub fn attributes(&self) -> Attributes {
        let Marks { executable, link_group, .. } = self.marks;
        Attributes { mtime_ns: self.stamp.mtime_ns, executable, link_group }
    }
}

/// An immutable snapshot of what a node offers, sorted by path, with an index by identity.
///
/// A change makes a new snapshot; a reader keeps the one that it began with. Consecutive snapshots
/// share the blocks that did not change. An entry takes about 88 bytes and its name. Empty directories
/// and symbolic links are [`Bare`] names beside the files.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.sharing(&[("docs/a.txt", b"hello")])?;
/// let catalogue = node.catalogue();
/// assert_eq!((catalogue.len(), catalogue.bytes()), (1, 5));
/// for entry in catalogue.iter() {
///     println!("{} {}", entry.path, entry.id);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    revision: u64,
    blocks: Vec<Arc<EntryBlock>>,
    /// The position of the first entry of each block.
    starts: Vec<u32>,
    len: usize,
    /// Positions of all entries, sorted by identity, then path.
    by_id: Vec<u32>,
    bytes: u64,
    bare: Arc<BareNames>,
    notes: CatalogueNotes,
}

/// What a catalogue says of the directory as a whole.
///
/// ```
/// assert!(!gpb::CatalogueNotes::default().complete);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CatalogueNotes {
    /// Whether it has all that the directory has: that was scanned whole, and nothing in it is
    /// unmounted, unreadable or still to be hashed.
    pub complete: bool,
    /// Files whose names cannot be shared.
    pub unnamed: u64,
}

impl Catalogue {
    /// Makes a snapshot of entries in any order. The last of several with one path wins.
    ///
    /// `revision` grows with every snapshot of a directory that differs from the one before. 0
    /// stands for the empty catalogue before the first scan, and for fetched files without a
    /// shared directory.
    pub fn new(revision: u64, entries: Vec<Entry>) -> Self {
        let changes = entries.into_iter().map(|entry| (entry.path.clone(), Some(entry))).collect();
        Catalogue::default().changed(revision, &changes)
    }

    /// The snapshot after `changes`: the new entry of each path, or `None` if the path is no longer
    /// offered. Blocks without a change are shared, so the cost for each of their entries is one
    /// copied number. Bare names and notes stay as they are.
    pub fn changed(&self, revision: u64, changes: &BTreeMap<RelPath, Option<Entry>>) -> Self {
        let mut next = Draft { moved_to: Vec::with_capacity(self.len), ..Draft::default() };
        let mut changes = changes.iter().peekable();
        for (number, block) in self.blocks.iter().enumerate() {
            let end = self.blocks.get(number + 1).map(|next| next.name(0));
            let concerns = |path: &RelPath| end.is_none_or(|end| path.as_str() < end);
            if !changes.peek().is_some_and(|(path, _)| concerns(path)) {
                next.keep_all(block);
                continue;
            }
            for old in block.entries() {
                while let Some((_, entry)) = changes.next_if(|(path, _)| path.as_str() < old.path) {
                    next.put(entry.as_ref());
                }
                match changes.next_if(|(path, _)| path.as_str() == old.path) {
                    Some((_, entry)) => next.replace(entry.as_ref()),
                    None => next.keep(old),
                }
            }
            while let Some((_, entry)) = changes.next_if(|(path, _)| concerns(path)) {
                next.put(entry.as_ref());
            }
        }
        changes.for_each(|(_, entry)| next.put(entry.as_ref()));
        next.finish(self, revision)
    }

    /// The same files with other `bare` names.
    pub fn with_bare(self, bare: Arc<BareNames>) -> Self {
        Catalogue { bare, ..self }
    }

    /// The same with other `notes`.
    pub fn with_notes(self, notes: CatalogueNotes) -> Self {
        Catalogue { notes, ..self }
    }

    /// The names that are more or less than a file: a symbolic link whose content is offered is both
    /// here and among the entries.
    pub fn bare(&self) -> &Arc<BareNames> {
        &self.bare
    }

    /// What it says of the directory as a whole.
    pub fn notes(&self) -> CatalogueNotes {
        self.notes
    }

    /// Number of this snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The entries at these positions, sorted by path.
    ///
    /// # Panics
    /// `positions` end behind [`len`](Self::len).
    pub fn entries(&self, positions: Range<usize>) -> impl Iterator<Item = EntryRef<'_>> {
        assert!(positions.end <= self.len, "no such entries");
        let mut block = self.block_of(positions.start);
        positions.map(move |at| {
            if self.starts.get(block + 1).is_some_and(|&start| start as usize <= at) {
                block += 1;
            }
            self.blocks[block].entry(at - self.starts[block] as usize)
        })
    }

    /// All entries, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.entries(0..self.len)
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of the lengths of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry of that name.
    pub fn get(&self, path: &str) -> Option<EntryRef<'_>> {
        self.position(path).map(|at| self.entry(at))
    }

    /// The position of the entry of that name.
    pub fn position(&self, path: &str) -> Option<usize> {
        let at = self.partition_point(|name| name < path);
        (at < self.len && self.entry(at).path == path).then_some(at)
    }

    /// The position of the first entry whose name is not `before`. `before` must hold for a prefix
    /// of the entries.
    pub fn partition_point(&self, before: impl Fn(&str) -> bool) -> usize {
        let behind = self.blocks.partition_point(|block| before(block.name(0)));
        let Some(block) = behind.checked_sub(1) else { return 0 };
        self.starts[block] as usize + self.blocks[block].partition_point(before)
    }

    /// The positions of the entries below the directory `dir`; of all when it is empty.
    pub fn positions_below(&self, dir: &str) -> Range<usize> {
        if dir.is_empty() {
            return 0..self.len;
        }
        let compare = |name: &str| name.as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/"));
        let from = self.partition_point(|name| compare(name).is_lt());
        from..self.partition_point(|name| compare(name).is_lt() || is_below(name, dir))
    }

    /// All entries with that content, sorted by path.
    pub fn find(&self, id: &FileId) -> impl Iterator<Item = EntryRef<'_>> {
        let at = self.by_id.partition_point(|&at| *self.id_at(at as usize) < *id);
        let same = self.by_id[at..].iter().take_while(move |&&at| *self.id_at(at as usize) == *id);
        same.map(|&at| self.entry(at as usize))
    }

    /// The content of an entry alone: asked for often, and without a look at its name.
    fn id_at(&self, at: usize) -> &FileId {
        let block = self.block_of(at);
        self.blocks[block].id(at - self.starts[block] as usize)
    }

    fn entry(&self, at: usize) -> EntryRef<'_> {
        let block = self.block_of(at);
        self.blocks[block].entry(at - self.starts[block] as usize)
    }

    fn block_of(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start as usize <= at).saturating_sub(1)
    }
}

/// A snapshot in the making, from the one before it.
#[derive(Default)]
struct Draft {
    blocks: BlockBuilder,
    len: u32,
    /// The new position of each entry of the snapshot before.
    moved_to: Vec<u32>,
    /// Positions of the entries that are new.
    fresh: Vec<u32>,
}

impl Draft {
    fn keep_all(&mut self, block: &Arc<EntryBlock>) {
        let end = self.len + block.len() as u32;
        self.moved_to.extend(self.len..end);
        self.blocks.share(block);
        self.len = end;
    }

    fn keep(&mut self, old: EntryRef<'_>) {
        self.moved_to.push(self.len);
        self.blocks.push(old);
        self.len += 1;
    }

    fn replace(&mut self, entry: Option<&Entry>) {
        self.moved_to.push(REMOVED);
        self.put(entry);
    }

    fn put(&mut self, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        self.fresh.push(self.len);
        self.blocks.push(entry.view());
        self.len += 1;
    }

    fn finish(mut self, before: &Catalogue, revision: u64) -> Catalogue {
        let blocks = self.blocks.finish();
        let ends = blocks.iter().scan(0, |end, block| {
            *end += block.len() as u32;
            Some(*end)
        });
        let starts = [0].into_iter().chain(ends).take(blocks.len()).collect();
        let mut next = Catalogue { revision, blocks, starts, len: self.len as usize, ..Catalogue::default() };
        (next.bare, next.notes) = (before.bare.clone(), before.notes);
        next.bytes = next.blocks.iter().fold(0, |sum, block| sum.saturating_add(block.bytes()));
        self.fresh.sort_by_cached_key(|&at| (next.entry(at as usize).id, at));
        // Both lists are sorted by identity, so one merge makes the new index.
        let mut by_id = Vec::with_capacity(next.len);
        let mut old = before.by_id.as_slice();
        let stay = |old: &[u32], by_id: &mut Vec<u32>| {
            by_id.extend(old.iter().map(|&at| self.moved_to[at as usize]).filter(|&at| at != REMOVED));
        };
        for &at in &self.fresh {
            let fresh = next.entry(at as usize);
            let first = leading(old, |at| {
                let old = before.entry(at as usize);
                (old.id, old.path) < (fresh.id, fresh.path)
            });
            stay(&old[..first], &mut by_id);
            old = &old[first..];
            by_id.push(at);
        }
        stay(old, &mut by_id);
        next.by_id = by_id;
        next
    }
}

/// The length of the prefix of `all` for which `before` holds, by galloping: cheap where the prefix
/// is short.
fn leading(all: &[u32], before: impl Fn(u32) -> bool) -> usize {
    let mut reach = 1;
    while all.get(reach - 1).is_some_and(|&at| before(at)) {
        reach *= 2;
    }
    let from = reach / 2;
    let to = all.len().min(reach);
    from + all[from..to].partition_point(|&at| before(at))
}

/// Marks an entry that is not part of the new snapshot.
const REMOVED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    fn entry(path: &str, byte: u8) -> Entry {
        let id = FileId { root: Root(Digest([byte; 32])), len: 100 + byte as u64 };
        let marks = Marks { link_group: byte.into(), ..Marks::default() };
        Entry { path: RelPath::new(path).unwrap(), id, stamp: Stamp::default(), marks }
    }

    fn paths<'a>(it: impl Iterator<Item = EntryRef<'a>>) -> Vec<&'a str> {
        it.map(|e| e.path).collect()
    }

    #[test]
    fn the_last_of_equal_paths_stays() {
        let c = Catalogue::new(1, vec![entry("b", 1), entry("a", 2), entry("b", 3)]);
        assert_eq!(paths(c.iter()), ["a", "b"]);
        assert_eq!(c.get("b").unwrap().id, entry("b", 3).id);
        assert_eq!(c.get("c"), None);
        assert_eq!(c.bytes(), 205);
    }

    #[test]
    fn equal_contents_are_found_together() {
        let c = Catalogue::new(1, vec![entry("x", 1), entry("a", 1), entry("b", 2)]);
        assert_eq!(paths(c.find(&entry("q", 1).id)), ["a", "x"]);
        assert_eq!(c.find(&entry("q", 9).id).count(), 0);
    }

    #[test]
    fn changes_make_the_snapshot_that_would_be_made_afresh() {
        let mut state = 88_172_645_463_325_252u64;
        let mut below = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut model = BTreeMap::new();
        let mut c = Catalogue::default();
        for revision in 1..200 {
            let mut changes = BTreeMap::new();
            for _ in 0..below(12) {
                let e = entry(&format!("f{}", below(40)), below(5) as u8);
                changes.insert(e.path.clone(), (below(3) > 0).then_some(e));
            }
            model.extend(changes.clone());
            c = c.changed(revision, &changes);
            let fresh = Catalogue::new(revision, model.values().flatten().cloned().collect());
            assert!(c.iter().eq(fresh.iter()), "revision {revision}");
            assert_eq!((c.revision, c.bytes, &c.by_id), (revision, fresh.bytes, &fresh.by_id));
        }
    }

    #[test]
    fn what_lies_below_a_directory_is_one_range() {
        let c = Catalogue::new(1, ["d", "d-", "d/1", "d/2/x", "d0", "e"].map(entry_named).to_vec());
        assert_eq!(c.positions_below("d"), 2..4);
        assert_eq!(c.positions_below("d/2"), 3..4);
        assert_eq!(c.positions_below(""), 0..6);
        assert!(c.positions_below("e").is_empty() && c.positions_below("zz").is_empty());
        assert_eq!((c.position("d/1"), c.position("x")), (Some(2), None));
    }

    fn entry_named(path: &str) -> Entry {
        Entry { path: RelPath::new(path).unwrap(), ..entry("q", 7) }
    }
}
