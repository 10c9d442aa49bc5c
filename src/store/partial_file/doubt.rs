//! Whether chunks may be others than were written, and the look at them before the file gets its name.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::info;

use crate::content::ChunkIndex;
use crate::store::error::ToldErrors;
use crate::store::flusher::Flusher;
use crate::store::partial_file::recheck::ChunkScratch;
use crate::store::read_back::{is_room_scarce, lost};
use crate::store::storage::{Storage, Volume};
use crate::store::write_watch::WriteWatch;
use crate::store::{PartialFile, StoreError};

/// Whether a chunk may be lost or changed: the disk had a trouble, room was scarce while chunks were written for which
/// none is reserved, or another program wrote to the file.
#[derive(Debug)]
pub(super) struct Doubt {
    told: Arc<ToldErrors>,
    is_reserved: bool,
    was_scarce: AtomicBool,
    watches: Arc<WriteWatch>,
    watch: Option<i32>,
}

impl Doubt {
    pub(super) fn new(is_reserved: bool, flusher: &Flusher, file: &dyn Storage) -> Self {
        let (told, watches) = (flusher.told().clone(), flusher.watch().clone());
        let watch = watches.add(file);
        Doubt { told, is_reserved, was_scarce: AtomicBool::new(false), watches, watch }
    }

    /// Looks at the room after a sync, which may have found too little.
    pub(super) fn look(&self, volume: &dyn Volume) {
        if !self.is_reserved && !self.was_scarce.load(Ordering::Acquire) && is_room_scarce(volume) {
            self.was_scarce.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.told.is_any_of_disk() || self.was_scarce.load(Ordering::Acquire) || self.is_touched()
    }

    fn is_touched(&self) -> bool {
        self.watch.is_some_and(|watch| self.watches.is_written(watch))
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if let Some(watch) = self.watch {
            self.watches.remove(watch);
        }
    }
}

impl PartialFile {
    /// Reads the whole file, all of which is synced, if some of it may not be as it was written: another program had
    /// it open, or the disk may have lost some, as its room was scarce or it had a trouble. What is wrong is missing again.
    ///
    /// # Errors
    /// [`StoreError`] if chunks are wrong. The journal gets no seal, so that the next download checks all of it.
    pub(super) fn read_back(&self) -> Result<(), StoreError> {
        let part = &*self.part;
        if !part.doubt.is_any() {
            return Ok(());
        }
        let is_touched = part.doubt.is_touched();
        let why = if is_touched { "another program had it open" } else { "the disk had a trouble or little room" };
        info!("read back before it gets its name file={} cause=\"{why}\"", part.id);
        part.file.forget_cached();
        let mut scratch = ChunkScratch::default();
        let chunks = self.manifest.geometry().chunks();
        let wrong: Vec<ChunkIndex> = chunks.filter(|chunk| !self.is_right(*chunk, &mut scratch)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        part.state().came.remove(wrong);
        Err(part.error(if is_touched { io::Error::other("another program changed it meanwhile") } else { lost() }))
    }
}
