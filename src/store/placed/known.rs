//! What the records of one directory say, once they were read.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::content::FileId;
use crate::limits::PATH_LEN_MAX;
use crate::store::limits::PLACED_NAMES_MAX;
use crate::store::placed::frames::{FRAME_HEAD_LEN, Header, hash_of, read_frame, read_frame_head};
use crate::store::placed::{PlacedFile, PlacedState};
use crate::store::storage::Storage;

/// Where the last records of each name lie.
#[derive(Debug)]
pub(super) struct KnownNames {
    file: Arc<dyn Storage>,
    /// By a hash of the name: the record itself has the whole name.
    pub(super) at: HashMap<u64, LastRecords>,
    /// Makes the proofs; no peer can choose a root that gives the proof of another one.
    keys: RandomState,
    /// Where the records of each content lie, by the beginning of its root; made when it is first asked
    /// for.
    contents: OnceLock<HashMap<u64, Vec<u32>>>,
}

/// Where the last record of a name with a state lies, and the intent behind it. Zero, where the
/// header is, stands for none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastRecords {
    state: u32,
    intent: u32,
    /// A keyed hash of the content and the state, so that most questions are answered without reading
    /// the record.
    proof: u64,
}

impl LastRecords {
    pub(super) fn add(&mut self, at: u32, proof: Option<u64>) {
        *self = match proof {
            Some(proof) => LastRecords { state: at, intent: 0, proof },
            None => LastRecords { intent: at, ..*self },
        };
    }

    pub(super) fn each(self) -> impl Iterator<Item = u64> {
        [self.state, self.intent].into_iter().filter(|at| *at > 0).map(u64::from)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordLine<'a> {
    pub(super) name: &'a str,
    pub(super) id: FileId,
    pub(super) state: Option<PlacedState>,
}

impl KnownNames {
    /// Reads all records of `dir`; `None` if the file has none.
    pub(super) fn read(file: Arc<dyn Storage>, dir: &Path) -> io::Result<Option<Self>> {
        let Some(header) = Header::read(&*file, dir)? else { return Ok(None) };
        let (mut at, mut place, keys) = (HashMap::<u64, LastRecords>::new(), header.len, RandomState::new());
        while let Some((len, _)) = read_frame_head(&*file, place)? {
            let begin = place + FRAME_HEAD_LEN as u64;
            // A damaged frame is left out.
            let records = read_frame(&*file, place)?.unwrap_or_default();
            let mut rest = records.as_slice();
            while let Ok((line, behind)) = postcard::take_from_bytes::<RecordLine<'_>>(rest) {
                let name = hash_of(line.name.as_bytes());
                // Nothing lies beyond the longest file that is written.
                let Ok(record) = u32::try_from(begin + (records.len() - rest.len()) as u64) else { break };
                if at.len() < PLACED_NAMES_MAX || at.contains_key(&name) {
                    let proof = line.state.map(|state| keys.hash_one((line.id, state)));
                    at.entry(name).or_default().add(record, proof);
                }
                rest = behind;
            }
            place = begin + len as u64;
        }
        Ok(Some(KnownNames { file, at, keys, contents: OnceLock::new() }))
    }

    pub(super) fn has(&self, name: &str, id: &FileId, state: &PlacedState) -> bool {
        let last = self.at.get(&hash_of(name.as_bytes()));
        // Names of one hash are as unlikely as a proof that fits by chance.
        last.is_some_and(|last| last.state > 0 && last.proof == self.keys.hash_one((*id, *state)))
    }

    /// Where the content was put, as the last records of each name say.
    pub(super) fn places_of(&self, id: &FileId) -> Vec<(String, PlacedState)> {
        let mut buffer = vec![0; RECORD_LEN_MAX];
        let contents = self.contents.get_or_init(|| {
            let mut contents = HashMap::<u64, Vec<u32>>::new();
            for last in self.at.values().filter(|last| last.state > 0) {
                if let Some(line) = read_record(&*self.file, last.state.into(), &mut buffer) {
                    contents.entry(beginning_of(&line.id)).or_default().push(last.state);
                }
            }
            contents
        });
        let records = contents.get(&beginning_of(id)).map_or(&[][..], Vec::as_slice);
        let mut read = |at: &u32| {
            let line = read_record(&*self.file, (*at).into(), &mut buffer)?;
            (line.id == *id).then_some((line.name.to_owned(), line.state?))
        };
        records.iter().filter_map(&mut read).collect()
    }

    pub(super) fn get(&self, name: &str) -> Vec<PlacedFile> {
        let Some(last) = self.at.get(&hash_of(name.as_bytes())) else { return Vec::new() };
        let mut buffer = vec![0; RECORD_LEN_MAX];
        let mut read = |at| {
            let line = read_record(&*self.file, at, &mut buffer)?;
            (line.name == name).then_some(PlacedFile { id: line.id, state: line.state })
        };
        last.each().filter_map(&mut read).collect()
    }
}

/// The beginning of a root, which tells most contents apart.
pub(super) fn beginning_of(id: &FileId) -> u64 {
    id.root.0.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn read_record<'b>(file: &dyn Storage, at: u64, buffer: &'b mut [u8]) -> Option<RecordLine<'b>> {
    let left = file.stat().ok()?.len.saturating_sub(at);
    let bytes = &mut buffer[..left.min(RECORD_LEN_MAX as u64) as usize];
    file.read_at(at, bytes).ok()?;
    postcard::take_from_bytes(bytes).ok().map(|(line, _)| line)
}

/// More than the longest record: a name, an identity, five numbers.
pub(super) const RECORD_LEN_MAX: usize = PATH_LEN_MAX + 128;
