//! Journals as bytes, for the fuzz targets: what a journal says, and what is written into one.

use crate::content::{Bitfield, FileId, Stamp};
use crate::store::journal::{header, parse, record, seal};

/// What the bytes of a journal say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalText {
    /// The chunks that its records claim.
    pub claimed: Bitfield,
    /// Where the records end.
    pub end: usize,
    /// The times of the partial file, mtime and ctime in ns, and the chunks of the seal.
    pub sealed: Option<(i64, i64, Bitfield)>,
}

impl JournalText {
    /// Reads a journal of `id` in the partial file with inode number `inode`; `None` if it belongs
    /// to another one or is damaged.
    pub fn read(bytes: &[u8], id: &FileId, inode: u64) -> Option<Self> {
        let parsed = parse(bytes, id, inode).ok()?;
        let sealed = parsed.seal.map(|seal| (seal.mtime_ns, seal.ctime_ns, seal.have));
        Some(JournalText { claimed: parsed.claimed, end: parsed.end as usize, sealed })
    }

    /// Writes a journal with these records and perhaps a seal.
    pub fn write(id: &FileId, inode: u64, records: &[Vec<u32>], sealed: Option<(&Stamp, &Bitfield)>) -> Vec<u8> {
        let (head, mut chain) = header(id, inode);
        let mut bytes = head.to_vec();
        for chunks in records {
            let (more, next) = record(chunks.iter().copied(), &chain);
            bytes.extend(more);
            chain = next;
        }
        if let Some((stamp, have)) = sealed {
            bytes.extend(seal(stamp, have, &chain));
        }
        bytes
    }
}
