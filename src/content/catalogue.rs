//! Everything that a peer offers: names, identities, and the state of the disk that they were read in.

use crate::content::{FileId, Pattern, RelPath};

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

    /// All entries with that content, sorted by path.
    pub fn find(&self, id: &FileId) -> impl Iterator<Item = &Entry> {
        let at = self.by_id.partition_point(|&i| self.entries[i as usize].id < *id);
        self.by_id[at..].iter().map(|&i| &self.entries[i as usize]).take_while(move |e| e.id == *id)
    }

    /// The entries that `pattern` means (all without one) whose path comes after `after`, sorted by path.
    pub fn select<'a>(&'a self, pattern: Option<&'a Pattern>, after: Option<&str>) -> impl Iterator<Item = &'a Entry> {
        let mut from = after.map_or(0, |a| self.entries.partition_point(|e| e.path.as_str() <= a));
        let mut to = self.entries.len();
        // A plain name cannot match beyond itself and what lies below it, so a large catalogue is not walked for it.
        if let Some(Pattern::Path { text, glob: None, prefix: None }) = pattern {
            from = from.max(self.entries.partition_point(|e| e.path.as_str() < text.as_str()));
            to = from + self.entries[from..].partition_point(|e| e.path.as_str().starts_with(text.as_str()));
        }
        self.entries[from..to.max(from)].iter().filter(move |e| pattern.is_none_or(|p| p.matches(&e.path, &e.id)))
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
    fn selection_pages_on_and_takes_only_what_matches() {
        let c = Catalogue::new(1, ["d", "d/1", "d/2", "d.x", "e"].map(entry_named).to_vec());
        let d = Pattern::parse("d").unwrap();
        assert_eq!(paths(c.select(Some(&d), None)), ["d", "d/1", "d/2"]);
        assert_eq!(paths(c.select(Some(&d), Some("d/1"))), ["d/2"]);
        assert_eq!(paths(c.select(None, Some("d"))), ["d.x", "d/1", "d/2", "e"]);
        assert_eq!(paths(c.select(Some(&d), Some("z"))), Vec::<&str>::new());
    }

    fn entry_named(path: &str) -> Entry {
        Entry { path: RelPath::new(path).unwrap(), ..entry("q", 7) }
    }
}
