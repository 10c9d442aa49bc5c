//! The one-chunk files of a download: together they are the "chunks" of one picker.

use std::time::Instant;

use crate::content::{Bitfield, FileId};
use crate::limits::SMALL_FILES_LEN_MAX;
use crate::swarm::download::picker::{ChunkPicker, PeerHandle};
use crate::swarm::download::state::file::is_small;
use crate::swarm::download::task::FileNo;

/// The one-chunk files of a download, each in a slot. At most [`SMALL_FILES_LEN_MAX`] bytes of
/// them, and one file beyond that, are asked for or wait to be written.
pub(super) struct SmallFiles {
    /// Slots of finished files, and of files that are not checked, count as there.
    pub(super) picker: ChunkPicker,
    /// The file in each slot.
    files: Vec<FileNo>,
    /// Bytes that are asked for or wait to be written, with [`SMALL_OVERHEAD`] for each file.
    pub(super) len: u64,
    /// One-chunk and empty files that wait to be written.
    pub(super) writing: usize,
}

impl SmallFiles {
    pub(super) fn new(ids: &[FileId], seed: u64) -> Self {
        let files: Vec<FileNo> = (0..).zip(ids).filter(|(_, id)| is_small(id)).map(|(no, _)| no).collect();
        let slots = files.len() as u32;
        let picker = ChunkPicker::resuming(&Bitfield::full(slots), &Bitfield::empty(slots), seed).in_runs();
        SmallFiles { picker, files, len: 0, writing: 0 }
    }

    /// The slot of a one-chunk file.
    pub(super) fn slot_of(&self, file: FileNo) -> u32 {
        self.files.binary_search(&file).unwrap_or(0) as u32
    }

    /// The next file that `acquire` finds in the picker, while there is room for its bytes.
    pub(super) fn acquire(&mut self, acquire: impl FnOnce(&mut ChunkPicker) -> Option<u32>) -> Option<FileNo> {
        if self.len >= SMALL_FILES_LEN_MAX {
            return None;
        }
        acquire(&mut self.picker).map(|slot| self.files[slot as usize])
    }

    /// A file of `len` bytes is asked for.
    pub(super) fn reserve(&mut self, len: u64) {
        self.len += len + SMALL_OVERHEAD;
    }

    /// It does not come, or is written.
    pub(super) fn release(&mut self, len: u64) {
        self.len -= len + SMALL_OVERHEAD;
    }

    /// The verified file in `slot` came from `peer`: true if it is to be written.
    pub(super) fn came(&mut self, slot: u32, peer: PeerHandle, now: Instant) -> bool {
        let fresh = self.picker.complete(slot, peer, now).fresh;
        self.writing += usize::from(fresh);
        fresh
    }
}

/// Memory and work that a file costs besides its bytes, in bytes.
const SMALL_OVERHEAD: u64 = 4 << 10;
