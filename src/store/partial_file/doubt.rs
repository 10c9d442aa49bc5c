//! Whether the disk may have lost chunks that it took, and the look at them before the file gets its name.

use std::sync::atomic::{AtomicBool, Ordering};

use log::info;

use crate::content::ChunkIndex;
use crate::store::partial_file::recheck::ChunkScratch;
use crate::store::read_back::{is_room_scarce, lost};
use crate::store::storage::Volume;
use crate::store::{PartialFile, StoreError};

/// Whether room was scarce while chunks were written for which none is reserved.
#[derive(Debug)]
pub(super) struct Doubt {
    is_reserved: bool,
    is_any: AtomicBool,
}

impl Doubt {
    pub(super) fn new(is_reserved: bool) -> Self {
        Doubt { is_reserved, is_any: AtomicBool::new(false) }
    }

    /// Looks at the room after a sync, which may have found too little.
    pub(super) fn look(&self, volume: &dyn Volume) {
        if !self.is_reserved && !self.is_any() && is_room_scarce(volume) {
            self.is_any.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }
}

impl PartialFile {
    /// Reads the whole file, all of which is synced, if the disk may have lost some of it: its room was scarce, or
    /// it had a trouble. What is lost is missing again.
    ///
    /// # Errors
    /// [`StoreError`] if chunks were lost. The journal gets no seal, so that the next download checks all of it.
    pub(super) fn read_back(&self) -> Result<(), StoreError> {
        let part = &*self.part;
        if !part.doubt.is_any() && !self.flusher.told().is_any_of_disk() {
            return Ok(());
        }
        info!("read back before it gets its name, as the disk had a trouble or little room file={}", part.id);
        part.file.forget_cached();
        let mut scratch = ChunkScratch::default();
        let chunks = self.manifest.geometry().chunks();
        let wrong: Vec<ChunkIndex> = chunks.filter(|chunk| !self.is_right(*chunk, &mut scratch)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        part.state().came.remove(wrong);
        Err(part.error(lost()))
    }
}
