//! Everything that a peer offers: names, identities, and the state of the disk that they were read in.

use std::collections::BTreeMap;

use crate::content::{FileId, RelPath};

/// The state in which a file was hashed; any difference means that the file may hold other bytes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Modification time, ns since the Unix epoch.
    pub mtime_ns: i64,
    /// Time of the last inode change, ns since the Unix epoch.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
}

/// One offered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name below the shared directory.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// The state of the disk when it was hashed.
    pub stamp: Stamp,
}

/// An immutable snapshot of what a peer offers, sorted by path, with an index by identity.
///
/// Whoever keeps it true makes a new one and publishes it; readers hold on to the one that they began with.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    revision: u64,
    entries: Vec<Entry>,
    /// Positions in `entries`, sorted by identity, then path.
    by_id: Vec<u32>,
    bytes: u64,
}

impl Catalogue {
    /// Makes a snapshot. Entries come in any order; of several with one path the last stays.
    ///
    /// `revision` grows with every snapshot that differs from the one before; 0 is for the empty catalogue before
    /// the first scan.
    pub fn new(revision: u64, mut entries: Vec<Entry>) -> Self {
        // A stable sort keeps the later of two equal paths behind the earlier one.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.reverse();
        entries.dedup_by(|a, b| a.path == b.path);
        entries.reverse();
        let mut by_id: Vec<u32> = (0..entries.len() as u32).collect();
        by_id.sort_unstable_by_key(|&i| (entries[i as usize].id, i));
        let bytes = entries.iter().map(|e| e.id.len).fold(0, u64::saturating_add);
        Catalogue { revision, entries, by_id, bytes }
    }

    /// The snapshot after `changes`: the new entry of a path, or `None` where it is no longer offered. Takes time in
    /// proportion to the number of entries, but sorts only the changed ones.
    pub fn changed(&self, revision: u64, changes: &BTreeMap<RelPath, Option<Entry>>) -> Self {
        const REMOVED: u32 = u32::MAX;
        let mut entries = Vec::with_capacity(self.entries.len() + changes.values().flatten().count());
        let mut moved_to = Vec::with_capacity(self.entries.len());
        let mut fresh = Vec::new();
        let mut bytes = 0u64;
        let mut put = |entry: Entry, entries: &mut Vec<Entry>| {
            bytes = bytes.saturating_add(entry.id.len);
            entries.push(entry);
            entries.len() as u32 - 1
        };
        let mut changes = changes.iter().peekable();
        for old in &self.entries {
            while let Some((_, entry)) = changes.next_if(|(path, _)| **path < old.path) {
                fresh.extend(entry.iter().map(|e| put(e.clone(), &mut entries)));
            }
            match changes.next_if(|(path, _)| **path == old.path) {
                Some((_, entry)) => {
                    fresh.extend(entry.iter().map(|e| put(e.clone(), &mut entries)));
                    moved_to.push(REMOVED);
                }
                None => moved_to.push(put(old.clone(), &mut entries)),
            }
        }
        for (_, entry) in changes {
            fresh.extend(entry.iter().map(|e| put(e.clone(), &mut entries)));
        }
        let key = |i: u32| (entries[i as usize].id, i);
        fresh.sort_unstable_by_key(|&i| key(i));
        // What stays keeps its order, so both lists are merged.
        let mut fresh = fresh.into_iter().peekable();
        let mut by_id = Vec::with_capacity(entries.len());
        for stays in self.by_id.iter().map(|&i| moved_to[i as usize]).filter(|&i| i != REMOVED) {
            while let Some(i) = fresh.next_if(|&i| key(i) < key(stays)) {
                by_id.push(i);
            }
            by_id.push(stays);
        }
        by_id.extend(fresh);
        Catalogue { revision, entries, by_id, bytes }
    }

    /// Number of this snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the lengths of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry of that name.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.binary_search_by(|e| e.path.as_str().cmp(path)).ok().map(|i| &self.entries[i])
    }

    /// Where the entry of that name is in [`Catalogue::entries`].
    pub fn position(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|e| e.path.as_str().cmp(path)).ok()
    }

    /// The positions of the entries below the directory `dir`; of all when it is empty.
    pub fn positions_below(&self, dir: &str) -> std::ops::Range<usize> {
        if dir.is_empty() {
            return 0..self.entries.len();
        }
        let compare = |e: &Entry| e.path.as_str().as_bytes().iter().cmp(dir.as_bytes().iter().chain(b"/"));
        let from = self.entries.partition_point(|e| compare(e).is_lt());
        from..from + self.entries[from..].partition_point(|e| e.path.is_below(dir))
    }

    /// All entries with that content, sorted by path.
    pub fn find(&self, id: &FileId) -> impl Iterator<Item = &Entry> {
        let at = self.by_id.partition_point(|&i| self.entries[i as usize].id < *id);
        self.by_id[at..].iter().map(|&i| &self.entries[i as usize]).take_while(move |e| e.id == *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};

    fn entry(path: &str, byte: u8) -> Entry {
        let id = FileId { root: Root(Digest([byte; 32])), len: 100 + byte as u64 };
        Entry { path: RelPath::new(path).unwrap(), id, stamp: Stamp::default() }
    }

    fn paths<'a>(it: impl Iterator<Item = &'a Entry>) -> Vec<&'a str> {
        it.map(|e| e.path.as_str()).collect()
    }

    #[test]
    fn the_last_of_equal_paths_stays() {
        let c = Catalogue::new(1, vec![entry("b", 1), entry("a", 2), entry("b", 3)]);
        assert_eq!(paths(c.entries().iter()), ["a", "b"]);
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
            assert_eq!(
                (c.revision, c.bytes, &c.entries, &c.by_id),
                (revision, fresh.bytes, &fresh.entries, &fresh.by_id)
            );
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
