//! Content in memory, for tests.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::content::{
    Bitfield, Catalogue, ChunkIndex, Digest, Entry, FileId, Geometry, Marks, RelPath, Root, Stamp, merkle,
};
use crate::proto::Delta;
use crate::server::content::{Absent, ChunkBody, Content, Held};
use crate::swarm::Arrivals;

/// Files in memory, one of them perhaps held only in part, one perhaps gone from the disk.
#[derive(Default)]
pub(crate) struct Files {
    catalogue: Arc<Catalogue>,
    bytes: HashMap<FileId, Arc<Vec<u8>>>,
    partly: HashMap<FileId, Arrivals>,
    pub(crate) gone: Option<FileId>,
    pub(crate) unreadable: Option<FileId>,
    pub(crate) changing: Option<FileId>,
    pub(crate) audits: AtomicUsize,
}

impl Files {
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let mut all = Files::default();
        let mut entries = vec![];
        for (path, bytes) in files {
            let id = id_of(bytes);
            entries.push(Entry {
                path: RelPath::new(path).unwrap(),
                id,
                stamp: Stamp::default(),
                marks: Marks::default(),
            });
            all.bytes.insert(id, Arc::new(bytes.clone()));
        }
        all.catalogue = Arc::new(Catalogue::new(7, entries));
        all
    }

    /// Adds a download of which only `chunks` are there.
    pub(crate) fn with_part(mut self, bytes: Vec<u8>, chunks: &[u32]) -> Self {
        let id = id_of(&bytes);
        let geometry = Geometry::new(id.len);
        let mut have = Bitfield::empty(geometry.chunk_count());
        chunks.iter().for_each(|i| assert!(have.insert(geometry.chunk(*i).unwrap())));
        self.bytes.insert(id, Arc::new(bytes));
        self.partly.insert(id, Arrivals::new(have));
        self
    }
}

impl Content for Files {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn held(&self, id: &FileId) -> Held {
        match self.partly.get(id) {
            Some(came) => Held::Partly(came.have().clone()),
            None if self.bytes.contains_key(id) => Held::Whole,
            None => Held::Nothing,
        }
    }

    fn delta(&self, id: &FileId, since: u64) -> Option<Delta> {
        match self.partly.get(id) {
            Some(came) => came.delta(since),
            None => self.bytes.contains_key(id).then_some(Delta::Whole),
        }
    }

    fn news(&self, id: &FileId, since: u64, max: usize) -> Option<Delta> {
        match self.partly.get(id) {
            Some(came) => came.news(since, max),
            None => self.bytes.contains_key(id).then_some(Delta::Whole),
        }
    }

    fn layer(&self, id: &FileId, first: u32, count: u32) -> Option<Vec<Digest>> {
        let layer = layer_of(self.bytes.get(id)?);
        layer.get(first as usize..(first + count) as usize).map(<[_]>::to_vec)
    }

    fn open(&self, id: &FileId, index: ChunkIndex) -> Result<Box<dyn ChunkBody>, Absent> {
        if self.gone == Some(*id) {
            return Err(Absent::Gone);
        }
        if self.unreadable == Some(*id) {
            return Err(Absent::Unreadable);
        }
        let bytes = self.bytes.get(id).ok_or(Absent::NotFound)?;
        if self.partly.get(id).is_some_and(|came| !came.have().contains(index)) {
            return Err(Absent::NotFound);
        }
        let span = Geometry::new(id.len).span(index);
        let end = (span.offset + span.len as u64) as usize;
        let changed = self.changing == Some(*id);
        Ok(Box::new(Slice { bytes: bytes.clone(), at: span.offset as usize, end, changed }))
    }

    fn audit(&self, _: &FileId, _: ChunkIndex) -> bool {
        self.audits.fetch_add(1, Ordering::Relaxed);
        false
    }
}

struct Slice {
    bytes: Arc<Vec<u8>>,
    at: usize,
    end: usize,
    changed: bool,
}

impl ChunkBody for Slice {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.end - self.at);
        into[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }

    fn unchanged(&mut self) -> bool {
        !self.changed
    }
}

/// Bytes that differ everywhere and from seed to seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

pub(crate) fn layer_of(bytes: &[u8]) -> Vec<Digest> {
    let geometry = Geometry::new(bytes.len() as u64);
    if !geometry.needs_layer() {
        return vec![];
    }
    bytes.chunks(geometry.chunk_len() as usize).map(|c| merkle::chunk_digest(c, geometry.chunk_height())).collect()
}

pub(crate) fn id_of(bytes: &[u8]) -> FileId {
    let geometry = Geometry::new(bytes.len() as u64);
    let root = match geometry.needs_layer() {
        true => merkle::root_of_layer(&layer_of(bytes), geometry.chunk_height()),
        false => merkle::root_of_bytes(bytes),
    };
    FileId { root: Root(root), len: bytes.len() as u64 }
}
