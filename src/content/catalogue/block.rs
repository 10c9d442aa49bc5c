//! A run of neighbouring entries, packed: a catalogue may have millions of entries.

use std::sync::Arc;

use crate::content::catalogue::{EntryRef, Marks, Stamp};
use crate::content::limits::CATALOGUE_BLOCK_ENTRIES;
use crate::content::{Entry, FileId};

/// At least one entry, sorted by path. All names lie in one text, so that no entry needs an
/// allocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EntryBlock {
    names: Box<str>,
    /// Where each name ends in `names`.
    ends: Box<[u32]>,
    rest: Box<[(FileId, Stamp, Marks)]>,
    /// Sum of the lengths of the files.
    bytes: u64,
}

impl EntryBlock {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn entry(&self, at: usize) -> EntryRef<'_> {
        let (id, stamp, marks) = self.rest[at];
        EntryRef { path: self.name(at), id, stamp, marks }
    }

    pub(super) fn id(&self, at: usize) -> &FileId {
        &self.rest[at].0
    }

    pub(super) fn name(&self, at: usize) -> &str {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[from as usize..self.ends[at] as usize]
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        (0..self.len()).map(|at| self.entry(at))
    }

    /// Number of names that are `before`. `before` must hold for a prefix of the names.
    pub(super) fn partition_point(&self, before: impl Fn(&str) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            if before(self.name(middle)) { from = middle + 1 } else { to = middle }
        }
        from
    }
}

/// Makes blocks of entries that are pushed in order.
#[derive(Default)]
pub(super) struct BlockBuilder {
    made: Vec<Arc<EntryBlock>>,
    names: String,
    ends: Vec<u32>,
    rest: Vec<(FileId, Stamp, Marks)>,
}

impl BlockBuilder {
    pub(super) fn push(&mut self, entry: EntryRef<'_>) {
        self.names.push_str(entry.path);
        self.ends.push(self.names.len() as u32);
        self.rest.push((entry.id, entry.stamp, entry.marks));
        if self.ends.len() == 2 * CATALOGUE_BLOCK_ENTRIES {
            self.cut(CATALOGUE_BLOCK_ENTRIES);
        }
    }

    /// Takes over a whole block. Entries before it become blocks of their own unless they are few:
    /// then the block is copied behind them, or a catalogue would break into ever smaller
    /// blocks.
    pub(super) fn share(&mut self, block: &Arc<EntryBlock>) {
        if (1..CATALOGUE_BLOCK_ENTRIES / 4).contains(&self.ends.len()) {
            block.entries().for_each(|entry| self.push(entry));
        } else {
            self.flush();
            self.made.push(block.clone());
        }
    }

    pub(super) fn finish(mut self) -> Vec<Arc<EntryBlock>> {
        self.flush();
        self.made
    }

    /// Too many entries for one block become two halves, so that neither is nearly empty.
    fn flush(&mut self) {
        if self.ends.len() > CATALOGUE_BLOCK_ENTRIES {
            self.cut(self.ends.len() / 2);
        }
        if !self.ends.is_empty() {
            self.cut(self.ends.len());
        }
    }

    /// Makes a block of the first `count` entries.
    fn cut(&mut self, count: usize) {
        let len = self.ends[count - 1];
        let names = self.names[..len as usize].into();
        self.names.drain(..len as usize);
        let ends = self.ends.drain(..count).collect();
        self.ends.iter_mut().for_each(|end| *end -= len);
        let rest: Box<[_]> = self.rest.drain(..count).collect();
        let bytes = rest.iter().fold(0, |sum: u64, (id, ..)| sum.saturating_add(id.len));
        self.made.push(Arc::new(EntryBlock { names, ends, rest, bytes }));
    }
}

impl Entry {
    /// This entry as a catalogue returns it.
    pub fn view(&self) -> EntryRef<'_> {
        EntryRef { path: self.path.as_str(), id: self.id, stamp: self.stamp, marks: self.marks }
    }
}
