//! The journal of a partial file: which chunks are verified *and* durable.
//!
//! A header binds it to one file identity and one inode. Behind it lie records of chunk numbers; each has a checksum
//! over itself and the checksum before it, so a torn or foreign tail ends the journal and is never taken for more. The
//! order of syncs is the caller's: a record is appended only for chunks that are durable already.
//!
//! All integers are little-endian: header = magic 8, version 4, zero 4, root 32, length 8, inode 8, checksum 16;
//! record = count 4, chunk numbers 4 each, checksum 16. A checksum is the beginning of a SHA-256.

use std::io;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::content::{Bitfield, ChunkIndex, FileId, Geometry};
use crate::store::limits::JOURNAL_LEN_MAX;
use crate::store::storage::Storage;

/// An open journal that takes more records.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<dyn Storage>,
    end: u64,
    chain: Checksum,
}

/// Why a journal does not belong to a partial file, which then starts afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    /// Not a journal, or its header is torn.
    #[error("garbage")]
    Garbage,
    /// A version that is not known.
    #[error("other version")]
    Version,
    /// It is about other content.
    #[error("other content")]
    Content,
    /// The partial file is not the one that it was written for.
    #[error("other inode")]
    Inode,
}

impl Journal {
    /// Begins a journal in the empty `file`, for content `id` in a partial file with number `inode`.
    pub(crate) fn create(file: Arc<dyn Storage>, id: &FileId, inode: u64) -> io::Result<Self> {
        let (header, chain) = header(id, inode);
        file.write_at(0, &header)?;
        Ok(Journal { file, end: HEADER_LEN as u64, chain })
    }

    /// Reads a journal and continues it. The inner error says why it is not one for this partial file.
    pub(crate) fn resume(
        file: Arc<dyn Storage>,
        id: &FileId,
        inode: u64,
    ) -> io::Result<Result<(Self, Bitfield), Misfit>> {
        let len = file.stat()?.len;
        if len > JOURNAL_LEN_MAX {
            return Ok(Err(Misfit::Garbage));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes)?;
        Ok(match parse(&bytes, id, inode) {
            Err(misfit) => Err(misfit),
            Ok(Parsed { have, end, chain }) => {
                if end < len {
                    file.set_len(end)?;
                }
                Ok((Journal { file, end, chain }, have))
            }
        })
    }

    /// Adds chunks that are verified and durable.
    pub(crate) fn append(&mut self, chunks: &[ChunkIndex]) -> io::Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (record, chain) = record(chunks.iter().map(|c| c.get()), &self.chain);
        // After an error the next record goes to the same place, so half a record never lies between two whole ones.
        self.file.write_at(self.end, &record)?;
        (self.end, self.chain) = (self.end + record.len() as u64, chain);
        Ok(())
    }

    /// Makes the records durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

struct Parsed {
    have: Bitfield,
    end: u64,
    chain: Checksum,
}

/// What `bytes` say about content `id` in the partial file with number `inode`.
fn parse(bytes: &[u8], id: &FileId, inode: u64) -> Result<Parsed, Misfit> {
    let head = bytes.get(..HEADER_LEN).ok_or(Misfit::Garbage)?;
    let (expected, mut chain) = header(id, inode);
    if head[..8] != MAGIC || head[HEADER_LEN - SUM_LEN..] != sum(&[&head[..HEADER_LEN - SUM_LEN]]) {
        return Err(Misfit::Garbage);
    }
    if head[8..16] != expected[8..16] {
        return Err(Misfit::Version);
    }
    if head[16..56] != expected[16..56] {
        return Err(Misfit::Content);
    }
    if head != expected {
        return Err(Misfit::Inode);
    }
    let geometry = Geometry::new(id.len);
    let mut have = Bitfield::empty(geometry.chunk_count());
    let mut end = HEADER_LEN;
    while let Some((body, checksum)) = split_record(&bytes[end..], geometry.chunk_count()) {
        if checksum != sum(&[&chain, body]) {
            break;
        }
        let numbers = body[4..].chunks_exact(4).map(|n| geometry.chunk(u32_at(n)));
        let Some(chunks) = numbers.collect::<Option<Vec<_>>>() else { break };
        for chunk in chunks {
            have.insert(chunk);
        }
        chain.copy_from_slice(checksum);
        end += body.len() + SUM_LEN;
    }
    Ok(Parsed { have, end: end as u64, chain })
}

/// The first record of `bytes` as (count and numbers, checksum), if it lies there whole.
fn split_record(bytes: &[u8], count_max: u32) -> Option<(&[u8], &[u8])> {
    let count = bytes.get(..4).map(u32_at).filter(|n| (1..=count_max).contains(n))? as usize;
    let (body, rest) = bytes.split_at_checked(4 + 4 * count)?;
    Some((body, rest.get(..SUM_LEN)?))
}

fn header(id: &FileId, inode: u64) -> ([u8; HEADER_LEN], Checksum) {
    let mut head = [0; HEADER_LEN];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..48].copy_from_slice(&id.root.0.0);
    head[48..56].copy_from_slice(&id.len.to_le_bytes());
    head[56..64].copy_from_slice(&inode.to_le_bytes());
    let checksum = sum(&[&head[..HEADER_LEN - SUM_LEN]]);
    head[HEADER_LEN - SUM_LEN..].copy_from_slice(&checksum);
    (head, checksum)
}

fn record(chunks: impl ExactSizeIterator<Item = u32>, chain: &Checksum) -> (Vec<u8>, Checksum) {
    let mut bytes = Vec::with_capacity(4 + 4 * chunks.len() + SUM_LEN);
    bytes.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    chunks.for_each(|c| bytes.extend_from_slice(&c.to_le_bytes()));
    let checksum = sum(&[chain, &bytes]);
    bytes.extend_from_slice(&checksum);
    (bytes, checksum)
}

fn sum(parts: &[&[u8]]) -> Checksum {
    let mut hash = Sha256::new();
    parts.iter().for_each(|p| hash.update(p));
    let mut out = [0; SUM_LEN];
    out.copy_from_slice(&hash.finalize()[..SUM_LEN]);
    out
}

fn u32_at(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |n, b| n << 8 | *b as u32)
}

type Checksum = [u8; SUM_LEN];

const MAGIC: [u8; 8] = *b"GPBJRNL\n";
const VERSION: u32 = 1;
const SUM_LEN: usize = 16;
const HEADER_LEN: usize = 64 + SUM_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::memory::Memory;
    use crate::store::storage::Volume;

    const INODE: u64 = 77;

    fn id() -> FileId {
        FileId { root: Root(Digest([5; 32])), len: 300 << 18 }
    }

    fn chunks(numbers: &[u32]) -> Vec<ChunkIndex> {
        numbers.iter().map(|n| Geometry::new(id().len).chunk(*n).unwrap()).collect()
    }

    fn bytes_of(batches: &[&[u32]]) -> Vec<u8> {
        let (head, mut chain) = header(&id(), INODE);
        let mut bytes = head.to_vec();
        for batch in batches {
            let (more, next) = record(batch.iter().copied(), &chain);
            bytes.extend(more);
            chain = next;
        }
        bytes
    }

    fn chunks_in(bytes: &[u8]) -> Vec<u32> {
        parse(bytes, &id(), INODE).unwrap().have.iter().collect()
    }

    #[test]
    fn records_come_back_and_more_can_follow() {
        let volume = Memory::new();
        let file = volume.create_own("j").unwrap().unwrap();
        let mut journal = Journal::create(file.clone(), &id(), INODE).unwrap();
        journal.append(&chunks(&[3, 1])).unwrap();
        journal.append(&[]).unwrap();
        let (mut journal, have) = Journal::resume(file.clone(), &id(), INODE).unwrap().unwrap();
        assert_eq!(have.iter().collect::<Vec<_>>(), [1, 3]);
        journal.append(&chunks(&[299])).unwrap();
        let (_, have) = Journal::resume(file, &id(), INODE).unwrap().unwrap();
        assert_eq!(have.iter().collect::<Vec<_>>(), [1, 3, 299]);
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_ignored_and_written_over() {
        let whole = bytes_of(&[&[0, 1, 2], &[7], &[8, 9]]);
        let ends = [HEADER_LEN, HEADER_LEN + 32, HEADER_LEN + 56, whole.len()];
        for cut in HEADER_LEN..=whole.len() {
            let records = ends.iter().filter(|e| **e <= cut).count() - 1;
            assert_eq!(chunks_in(&whole[..cut]).len(), [0, 3, 4, 6][records], "cut at {cut}");

            let volume = Memory::new();
            let file = volume.create_own("j").unwrap().unwrap();
            file.write_at(0, &whole[..cut]).unwrap();
            let (mut journal, before) = Journal::resume(file.clone(), &id(), INODE).unwrap().unwrap();
            journal.append(&chunks(&[200])).unwrap();
            let (_, after) = Journal::resume(file, &id(), INODE).unwrap().unwrap();
            assert_eq!(after.count(), before.count() + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_ends_the_journal_before_its_record() {
        let whole = bytes_of(&[&[0, 1, 2], &[7], &[8, 9]]);
        for at in HEADER_LEN..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let expected = [0, 3, 4][[32, 56, usize::MAX].iter().position(|e| at - HEADER_LEN < *e).unwrap()];
            assert_eq!(chunks_in(&bytes).len(), expected, "byte {at}");
        }
        for at in 0..HEADER_LEN {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(parse(&bytes, &id(), INODE).err(), Some(Misfit::Garbage), "byte {at}");
        }
    }

    #[test]
    fn records_of_another_place_or_chunk_do_not_count() {
        let two = bytes_of(&[&[1], &[2]]);
        let first_lost = [&two[..HEADER_LEN], &two[HEADER_LEN + 24..]].concat();
        assert!(chunks_in(&first_lost).is_empty());
        assert!(chunks_in(&bytes_of(&[&[300]])).is_empty(), "there are 300 chunks, from 0");
        assert!(chunks_in(&[bytes_of(&[]), vec![0; 100]].concat()).is_empty());
    }

    #[test]
    fn a_journal_of_something_else_does_not_fit() {
        let bytes = bytes_of(&[&[1]]);
        assert_eq!(parse(&bytes, &id(), INODE + 1).err(), Some(Misfit::Inode));
        assert_eq!(parse(&bytes, &FileId { len: id().len - 1, ..id() }, INODE).err(), Some(Misfit::Content));
        assert_eq!(parse(&bytes[..HEADER_LEN - 1], &id(), INODE).err(), Some(Misfit::Garbage));
        assert_eq!(parse(&[], &id(), INODE).err(), Some(Misfit::Garbage));

        let mut later = bytes.clone();
        later[8] = 2;
        let checksum = sum(&[&later[..HEADER_LEN - SUM_LEN]]);
        later[HEADER_LEN - SUM_LEN..HEADER_LEN].copy_from_slice(&checksum);
        assert_eq!(parse(&later, &id(), INODE).err(), Some(Misfit::Version));
    }
}
