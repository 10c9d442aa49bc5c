//! The tables of the index, and the bytes of their keys and records.

use redb::{ReadableTable, Table};
use sha2::Digest as _;

use crate::content::{Digest, FileId, Geometry, Root, Stamp};
use crate::store::index::{Hashed, Indexed};
use crate::store::limits::INDEX_RECORD_DIGESTS;

/// redb's errors, all of which only cost what was known.
pub(super) type IndexResult<T> = Result<T, redb::Error>;
type Definition<V> = redb::TableDefinition<'static, &'static [u8], V>;

// The number in a table's name is the version of its records: another format takes another table.
/// Directory number, path -> state and identity.
pub(super) const FILES: Definition<&[u8]> = Definition::new("files.1");
/// Identity, record number -> check and digests.
pub(super) const LAYERS: Definition<&[u8]> = Definition::new("layers.1");
/// Identity of a file of several chunks -> number of paths that have it. Its layer lives as long as
/// one does.
pub(super) const OWNERS: Definition<u64> = Definition::new("owners.1");
/// Path of a shared directory -> its number.
pub(super) const DIRS: Definition<u32> = Definition::new("dirs.1");

/// The tables of one transaction.
pub(super) struct Tables<'t> {
    pub(super) files: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) layers: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) owners: Table<'t, &'static [u8], u64>,
}

impl Tables<'_> {
    pub(super) fn put(&mut self, dir: u32, file: &Hashed) -> IndexResult<()> {
        let key = file_key(dir, file.path.as_str());
        let old = self.files.insert(key.as_slice(), encode(&file.indexed).as_slice())?.and_then(|v| decode(v.value()));
        // The new owner comes first, so that a layer that stays is not removed and written again.
        if !file.layer.is_empty() {
            let owner = owner_key(&file.indexed.id);
            let owners = self.owners.get(owner.as_slice())?.map_or(0, |v| v.value());
            self.owners.insert(owner.as_slice(), owners + 1)?;
            // Written even when it is there: hashing a file again repairs a damaged record.
            for (record, digests) in file.layer.chunks(INDEX_RECORD_DIGESTS as usize).enumerate() {
                let key = layer_key(&file.indexed.id, record as u32);
                self.layers.insert(key.as_slice(), layer_value(digests).as_slice())?;
            }
        }
        old.map_or(Ok(()), |old| self.disown(&old.id))
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> IndexResult<()> {
        let old = self.files.remove(key)?.and_then(|v| decode(v.value()));
        old.map_or(Ok(()), |old| self.disown(&old.id))
    }

    fn disown(&mut self, id: &FileId) -> IndexResult<()> {
        let geometry = Geometry::new(id.len);
        if !geometry.needs_layer() {
            return Ok(());
        }
        let owner = owner_key(id);
        let owners = self.owners.get(owner.as_slice())?.map(|v| v.value());
        match owners {
            Some(owners @ 2..) => {
                self.owners.insert(owner.as_slice(), owners - 1)?;
            }
            _ => {
                self.owners.remove(owner.as_slice())?;
                for record in 0..geometry.chunk_count().div_ceil(INDEX_RECORD_DIGESTS) {
                    self.layers.remove(layer_key(id, record).as_slice())?;
                }
            }
        }
        Ok(())
    }
}

/// The key in `FILES`.
pub(super) fn file_key(dir: u32, path: &str) -> Vec<u8> {
    [dir.to_be_bytes().as_slice(), path.as_bytes()].concat()
}

/// The key in `OWNERS`.
pub(super) fn owner_key(id: &FileId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&id.root.0.0);
    key[32..].copy_from_slice(&id.len.to_be_bytes());
    key
}

/// The key in `LAYERS`.
pub(super) fn layer_key(id: &FileId, record: u32) -> [u8; 44] {
    let mut key = [0; 44];
    key[..40].copy_from_slice(&owner_key(id));
    key[40..].copy_from_slice(&record.to_be_bytes());
    key
}

pub(super) fn encode(indexed: &Indexed) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(&indexed.id.root.0.0);
    out[32..40].copy_from_slice(&indexed.id.len.to_le_bytes());
    out[40..48].copy_from_slice(&indexed.stamp.mtime_ns.to_le_bytes());
    out[48..56].copy_from_slice(&indexed.stamp.ctime_ns.to_le_bytes());
    out[56..].copy_from_slice(&indexed.stamp.inode.to_le_bytes());
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<Indexed> {
    let (root, rest) = bytes.split_first_chunk::<32>()?;
    let (numbers, []) = rest.as_chunks::<8>() else { return None };
    let [len, mtime, ctime, inode] = numbers else { return None };
    Some(Indexed {
        id: FileId { root: Root(Digest(*root)), len: u64::from_le_bytes(*len) },
        stamp: Stamp {
            mtime_ns: i64::from_le_bytes(*mtime),
            ctime_ns: i64::from_le_bytes(*ctime),
            inode: u64::from_le_bytes(*inode),
        },
    })
}

/// A record begins with a check of its digests: peers would drop a node that sends them a wrong
/// layer.
pub(super) fn layer_value(digests: &[Digest]) -> Vec<u8> {
    let mut out = vec![0; CHECK_LEN];
    digests.iter().for_each(|d| out.extend_from_slice(&d.0));
    let check = sha2::Sha256::digest(&out[CHECK_LEN..]);
    out[..CHECK_LEN].copy_from_slice(&check[..CHECK_LEN]);
    out
}

/// The digests in a record; `None` if it is damaged.
pub(super) fn layer_record(value: &[u8]) -> Option<&[[u8; 32]]> {
    let (check, bytes) = value.split_at_checked(CHECK_LEN)?;
    let (digests, []) = bytes.as_chunks::<32>() else { return None };
    (sha2::Sha256::digest(bytes)[..CHECK_LEN] == *check).then_some(digests)
}

const CHECK_LEN: usize = 8;

// A record with its key fits a page of 32 KiB.
const _: () = assert!(INDEX_RECORD_DIGESTS as usize * 32 + CHECK_LEN + 44 + 64 <= 32 * 1024);
