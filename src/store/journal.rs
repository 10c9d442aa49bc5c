//! The journal of a partial file: which chunks are verified *and* durable.
//!
//! The header binds the journal to one file identity and one inode. For a copy, or
//! a file that was restored, it is begun anew with the same claims. Records of chunk numbers
//! follow. Each record has a checksum over itself and the checksum before it, so a torn or foreign
//! tail ends the journal and is never read as records. Callers order the syncs: they append a
//! record only for chunks that are durable already.
//!
//! The records are claims. A *seal* behind the last one turns them into a proof. It holds the times
//! (mtime and ctime) of the partial file after its last write, and exactly the chunks that the file
//! held then. While the file still has these times, its length and its inode, no byte of it has
//! changed. The next record overwrites the seal. So an orderly end leaves a seal as the last thing
//! written; a killed process or a power loss leaves none, or one that does not fit the file.
//! Without a fitting seal, every claimed chunk has to be hashed again.
//!
//! All integers are little-endian: header = magic 8, version 4, zero 4, root 32, length 8, inode 8,
//! checksum 16; record = count 4, chunk numbers 4 each, checksum 16; seal = 0xffffffff 4, mtime and
//! ctime in ns since 1970 8 each, bitfield of the chunks, checksum 16; the mark of a file that is being
//! placed, instead of a seal = 0xfffffffe 4, checksum 16. A checksum is the beginning of a SHA-256.
//!
//! The mark is written before the partial file changes places with one that it replaces. A file with
//! another inode beside such a journal is no copy: it was replaced, or another program saved it.

use std::io;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::content::{Bitfield, ChunkIndex, Digest, FileId, Geometry, Root, Stamp};
use crate::store::limits::JOURNAL_LEN_MAX;
use crate::store::storage::{Stat, Storage};

mod probe;

pub use probe::JournalText;

/// An open journal, to which records are appended.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<dyn Storage>,
    /// End of the records. The seal, if there is one, lies here.
    end: u64,
    chain: Checksum,
    /// The state of the partial file in the seal, if there is one.
    sealed: Option<Stamp>,
}

/// What a journal says of its partial file.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The chunks that it holds.
    pub(crate) have: Bitfield,
    /// Whether the seal fits the file, so that the chunks need no check.
    pub(crate) proved: bool,
}

/// Why a journal does not belong to a partial file, which then starts empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    /// It is no journal, or its header is torn.
    #[error("garbage")]
    Garbage,
    /// Its version is unknown.
    #[error("other version")]
    Version,
    /// It describes another content.
    #[error("other content")]
    Content,
    /// It was written for another partial file.
    #[error("other inode")]
    Inode,
}

impl Journal {
    /// Starts a journal in the empty `file`, for content `id` in a partial file with inode number
    /// `inode`.
    pub(crate) fn create(file: Arc<dyn Storage>, id: &FileId, inode: u64) -> io::Result<Self> {
        let (header, chain) = header(id, inode);
        file.write_at(0, &header)?;
        Ok(Journal { file, end: HEADER_LEN as u64, chain, sealed: None })
    }

    /// Reads a journal and continues it, for a partial file that is in the state `part`. The inner
    /// error says why the journal does not belong to that file.
    pub(crate) fn resume(
        file: Arc<dyn Storage>,
        id: &FileId,
        part: &Stat,
    ) -> io::Result<Result<(Self, Claims), Misfit>> {
        let Some(bytes) = read(&*file)? else { return Ok(Err(Misfit::Garbage)) };
        let len = bytes.len() as u64;
        Ok(match parse(&bytes, id, part.stamp.inode) {
            Err(misfit) => Err(misfit),
            Ok(Parsed { claimed, end, chain, seal, .. }) => {
                let is_sealed = seal.is_some();
                let fitting = seal.filter(|seal| part.len == id.len && seal.is_of(&part.stamp));
                let seal_is_stale = is_sealed && fitting.is_none();
                if fitting.is_none() && end < len {
                    file.set_len(end)?;
                }
                if seal_is_stale {
                    // A power loss must not bring the seal back: it may also bring back the old
                    // times of the file.
                    file.sync()?;
                }
                let sealed = fitting.as_ref().map(|_| part.stamp);
                let claims = Claims { proved: sealed.is_some(), have: fitting.map_or(claimed, |seal| seal.have) };
                Ok((Journal { file, end, chain, sealed }, claims))
            }
        })
    }

    /// Begins the journal of another partial file anew for the one with inode number `inode`, which is a
    /// copy: what is claimed is still claimed, and nothing is proved. Whatever a crash leaves of both
    /// journals claims no more, as no record fits behind the header of the other. `None`, with nothing
    /// done, if the other file was being placed.
    pub(crate) fn rebind(file: Arc<dyn Storage>, id: &FileId, inode: u64) -> io::Result<Option<(Self, Claims)>> {
        let bytes = read(&*file)?.unwrap_or_default();
        let of = bytes.get(INODE_AT).map_or(0, u64_at);
        let Some(Parsed { claimed, .. }) = parse(&bytes, id, of).ok().filter(|parsed| !parsed.is_placing) else {
            return Ok(None);
        };
        file.set_len(0)?;
        let mut journal = Self::create(file, id, inode)?;
        let geometry = Geometry::new(id.len);
        let chunks: Vec<_> = claimed.iter().filter_map(|n| geometry.chunk(n)).collect();
        journal.append(&chunks)?;
        Ok(Some((journal, Claims { have: claimed, proved: false })))
    }

    /// Appends a record of chunks that are verified and durable.
    pub(crate) fn append(&mut self, chunks: &[ChunkIndex]) -> io::Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (record, chain) = record(chunks.iter().map(|c| c.get()), &self.chain);
        self.sealed = None;
        // After an error the next record goes to the same place, so that no torn record lies
        // between two whole ones.
        self.file.write_at(self.end, &record)?;
        (self.end, self.chain) = (self.end + record.len() as u64, chain);
        Ok(())
    }

    /// Seals the journal: the partial file, in the state `stamp`, holds exactly the chunks `have`,
    /// all of them durable. Returns whether the seal is new.
    pub(crate) fn seal(&mut self, stamp: Stamp, have: &Bitfield) -> io::Result<bool> {
        if self.sealed == Some(stamp) {
            return Ok(false);
        }
        self.sealed = None;
        self.file.write_at(self.end, &seal(&stamp, have, &self.chain))?;
        self.sealed = Some(stamp);
        Ok(true)
    }

    /// Marks that the partial file is about to change places with another one. The next record or seal
    /// overwrites the mark.
    pub(crate) fn note_placing(&mut self) -> io::Result<()> {
        self.sealed = None;
        self.file.write_at(self.end, &placing(&self.chain))
    }

    /// Whether the journal in `file` says that its partial file was being placed, and is not the one with
    /// inode number `inode`.
    pub(crate) fn is_cut_off(file: &dyn Storage, inode: u64) -> io::Result<bool> {
        let bytes = read(file)?.unwrap_or_default();
        let Some(id) = id_in(&bytes) else { return Ok(false) };
        let of = bytes.get(INODE_AT).map_or(inode, u64_at);
        Ok(of != inode && parse(&bytes, &id, of).is_ok_and(|parsed| parsed.is_placing))
    }

    /// Makes the records and the seal durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// The bytes of a journal; `None` if it is longer than any.
fn read(file: &dyn Storage) -> io::Result<Option<Vec<u8>>> {
    let len = file.stat()?.len;
    if len > JOURNAL_LEN_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

struct Parsed {
    claimed: Bitfield,
    end: u64,
    chain: Checksum,
    seal: Option<Seal>,
    is_placing: bool,
}

/// The proof at the end of a journal.
struct Seal {
    mtime_ns: i64,
    ctime_ns: i64,
    have: Bitfield,
}

impl Seal {
    fn is_of(&self, stamp: &Stamp) -> bool {
        (self.mtime_ns, self.ctime_ns) == (stamp.mtime_ns, stamp.ctime_ns)
    }
}

/// Reads the journal `bytes` of content `id` in the partial file with inode number `inode`.
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
    let mut claimed = Bitfield::empty(geometry.chunk_count());
    let mut end = HEADER_LEN;
    while let Some((body, checksum)) = split_record(&bytes[end..], geometry.chunk_count()) {
        if checksum != sum(&[&chain, body]) {
            break;
        }
        let numbers = body[4..].chunks_exact(4).map(|n| geometry.chunk(u32_at(n)));
        let Some(chunks) = numbers.collect::<Option<Vec<_>>>() else { break };
        for chunk in chunks {
            claimed.insert(chunk);
        }
        chain.copy_from_slice(checksum);
        end += body.len() + SUM_LEN;
    }
    let seal = parse_seal(&bytes[end..], geometry.chunk_count(), &chain);
    let is_placing = bytes[end..].starts_with(&placing(&chain));
    Ok(Parsed { claimed, end: end as u64, chain, seal, is_placing })
}

/// Splits the first whole record off `bytes`, as (count and numbers, checksum).
fn split_record(bytes: &[u8], count_max: u32) -> Option<(&[u8], &[u8])> {
    let count = bytes.get(..4).map(u32_at).filter(|n| (1..=count_max).contains(n))? as usize;
    let (body, rest) = bytes.split_at_checked(4 + 4 * count)?;
    Some((body, rest.get(..SUM_LEN)?))
}

/// The seal at the start of `bytes`, if a whole one lies there.
fn parse_seal(bytes: &[u8], chunk_count: u32, chain: &Checksum) -> Option<Seal> {
    let (body, rest) = bytes.split_at_checked(SEAL_HEAD_LEN + chunk_count.div_ceil(8) as usize)?;
    let (head, bits) = body.split_at_checked(SEAL_HEAD_LEN)?;
    if head[..4] != SEAL_MARK || *rest.get(..SUM_LEN)? != sum(&[chain, body]) {
        return None;
    }
    let (_, times) = head.split_at(4);
    let ([mtime, ctime], []) = times.as_chunks::<8>() else { return None };
    let have = Bitfield::from_bytes(bits, chunk_count)?;
    Some(Seal { mtime_ns: i64::from_le_bytes(*mtime), ctime_ns: i64::from_le_bytes(*ctime), have })
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

fn seal(stamp: &Stamp, have: &Bitfield, chain: &Checksum) -> Vec<u8> {
    let mut bytes = SEAL_MARK.to_vec();
    bytes.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
    bytes.extend_from_slice(&stamp.ctime_ns.to_le_bytes());
    bytes.extend_from_slice(have.as_bytes());
    let checksum = sum(&[chain, &bytes]);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn placing(chain: &Checksum) -> Vec<u8> {
    [&PLACING_MARK[..], &sum(&[chain, &PLACING_MARK])].concat()
}

/// The content that the header names.
fn id_in(bytes: &[u8]) -> Option<FileId> {
    let (root, len) = (bytes.get(16..48)?.try_into().ok()?, u64_at(bytes.get(48..56)?));
    Some(FileId { root: Root(Digest(root)), len })
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

fn u64_at(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | *b as u64)
}

type Checksum = [u8; SUM_LEN];

const MAGIC: [u8; 8] = *b"GPBJRNL\n";
const VERSION: u32 = 1;
const SUM_LEN: usize = 16;
const HEADER_LEN: usize = 64 + SUM_LEN;
/// Where the inode number lies in the header.
const INODE_AT: std::ops::Range<usize> = 56..64;
/// Starts a seal. No record has 2^32 - 1 chunks, so a reader without seals ends here.
const SEAL_MARK: [u8; 4] = [0xff; 4];
/// Says that the file is being placed. No record has as many chunks either.
const PLACING_MARK: [u8; 4] = [0xfe, 0xff, 0xff, 0xff];
const SEAL_HEAD_LEN: usize = 4 + 8 + 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::storage::Volume;

    const INODE: u64 = 77;
    const STAMP: Stamp = Stamp { mtime_ns: -3, ctime_ns: 9, inode: INODE };

    fn id() -> FileId {
        FileId { root: Root(Digest([5; 32])), len: 300 << 18 }
    }

    fn chunks(numbers: &[u32]) -> Vec<ChunkIndex> {
        numbers.iter().map(|n| Geometry::new(id().len).chunk(*n).unwrap()).collect()
    }

    fn resume(file: &Arc<dyn Storage>, stamp: Stamp) -> (Journal, Claims) {
        let part = Stat { len: id().len, allocated: 0, links: 1, stamp };
        Journal::resume(file.clone(), &id(), &part).unwrap().unwrap()
    }

    fn numbers(claims: &Claims) -> Vec<u32> {
        claims.have.iter().collect()
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
        parse(bytes, &id(), INODE).unwrap().claimed.iter().collect()
    }

    #[test]
    fn records_come_back_and_more_can_follow() {
        let volume = Memory::new();
        let file = volume.create_own("j").unwrap().unwrap();
        let mut journal = Journal::create(file.clone(), &id(), INODE).unwrap();
        journal.append(&chunks(&[3, 1])).unwrap();
        journal.append(&[]).unwrap();
        let (mut journal, claims) = resume(&file, STAMP);
        assert_eq!((numbers(&claims), claims.proved), (vec![1, 3], false));
        journal.append(&chunks(&[299])).unwrap();
        assert_eq!(numbers(&resume(&file, STAMP).1), [1, 3, 299]);
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
            let (mut journal, before) = resume(&file, STAMP);
            journal.append(&chunks(&[200])).unwrap();
            let (_, after) = resume(&file, STAMP);
            assert_eq!(after.have.count(), before.have.count() + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_seal_proves_what_it_names_while_the_file_is_as_it_was() {
        let volume = Memory::new();
        let file = volume.create_own("j").unwrap().unwrap();
        let mut journal = Journal::create(file.clone(), &id(), INODE).unwrap();
        journal.append(&chunks(&[3, 1, 7])).unwrap();
        // One of them turned out to be wrong and is not there.
        let mut have = Bitfield::empty(300);
        chunks(&[1, 3]).into_iter().for_each(|c| assert!(have.insert(c)));
        assert!(journal.seal(STAMP, &have).unwrap() && !journal.seal(STAMP, &have).unwrap(), "once is enough");
        for _ in 0..2 {
            let (_, claims) = resume(&file, STAMP);
            assert_eq!((numbers(&claims), claims.proved), (vec![1, 3], true), "as often as it is resumed");
        }
        let sealed = volume.content(&crate::store::memory::own_name("j")).unwrap();
        for other in [
            Stamp { mtime_ns: -2, ..STAMP },
            Stamp { ctime_ns: 8, ..STAMP },
            Stamp { ctime_ns: STAMP.mtime_ns, mtime_ns: STAMP.ctime_ns, ..STAMP },
        ] {
            file.write_at(0, &sealed).unwrap();
            let (_, claims) = resume(&file, other);
            assert_eq!((numbers(&claims), claims.proved), (vec![1, 3, 7], false), "{other:?}");
            assert!(!resume(&file, STAMP).1.proved, "the seal is gone for good");
        }
        file.write_at(0, &sealed).unwrap();
        let part = Stat { len: id().len - 1, allocated: 0, links: 1, stamp: STAMP };
        assert!(!Journal::resume(file.clone(), &id(), &part).unwrap().unwrap().1.proved, "another length");
        // What is appended takes the place of the seal.
        file.write_at(0, &sealed).unwrap();
        let (mut journal, _) = resume(&file, STAMP);
        journal.append(&chunks(&[9])).unwrap();
        let (mut journal, claims) = resume(&file, STAMP);
        assert_eq!((numbers(&claims), claims.proved), (vec![1, 3, 7, 9], false));
        assert!(journal.seal(STAMP, &have).unwrap() && resume(&file, STAMP).1.proved);
    }

    #[test]
    fn a_damaged_seal_proves_nothing() {
        let whole = bytes_of(&[&[0, 1, 2], &[7]]);
        let (_, first) = header(&id(), INODE);
        let (_, chain) = record([0, 1, 2].into_iter(), &first);
        let (_, chain) = record([7].into_iter(), &chain);
        let seal = seal(&STAMP, &Bitfield::full(300), &chain);
        let sealed = [whole.as_slice(), &seal].concat();
        assert!(parse(&sealed, &id(), INODE).unwrap().seal.is_some());
        for at in HEADER_LEN..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            assert!(parse(&bytes, &id(), INODE).unwrap().seal.is_none(), "byte {at}");
            assert!(parse(&sealed[..at], &id(), INODE).unwrap().seal.is_none(), "cut at {at}");
        }
        // The seal of another journal, behind the same records.
        let foreign = [whole.as_slice(), &super::seal(&STAMP, &Bitfield::full(300), &first)].concat();
        assert!(parse(&foreign, &id(), INODE).unwrap().seal.is_none());
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
