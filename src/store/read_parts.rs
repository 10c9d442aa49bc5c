//! Where the parts lie of what is read while it is fetched.
//!
//! Such a part is one like any other: a later download of the content resumes from it, and takes it
//! over. A mark beside it, `<root>-<len>.read`, says that no download has: then it goes soon after
//! its last reader, or with the next fetch into the directory.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::content::{FileId, Manifest};
use crate::store::disk_volume::DiskVolume;
use crate::store::flusher::Flusher;
use crate::store::in_memory::InMemory;
use crate::store::leftovers;
use crate::store::limits::READ_MEMORY_MAX;
use crate::store::storage::Volume;
use crate::store::{PartialFile, StoreError};
use crate::sync::{PanicAlarm, lock};

/// Opens and removes the parts of what is read.
#[derive(Debug)]
pub struct ReadParts {
    volume: Arc<dyn Volume>,
    /// The thread that journals, started with the first part.
    flusher: Mutex<Option<Arc<Flusher>>>,
    is_in_memory: bool,
    /// What a panic of that thread ends.
    alarm: PanicAlarm,
}

impl ReadParts {
    /// Parts in the own directory of `dir`, which is made with its parents if it is missing and
    /// `create` is set.
    ///
    /// # Errors
    /// As [`Disk::open`](crate::store::Disk::open).
    pub fn in_dir(dir: &Path, create: bool) -> Result<Self, StoreError> {
        let volume = Arc::new(DiskVolume::open(dir, create)?);
        Ok(ReadParts { volume, flusher: Mutex::default(), is_in_memory: false, alarm: PanicAlarm::default() })
    }

    /// Parts in memory, of at most [`READ_MEMORY_MAX`] bytes
    /// together.
    pub fn in_memory() -> Self {
        let volume = Arc::new(InMemory::default());
        ReadParts { volume, flusher: Mutex::default(), is_in_memory: true, alarm: PanicAlarm::default() }
    }

    /// The same, where a panic of the thread that journals rings `alarm`.
    pub(crate) fn alarmed(self, alarm: PanicAlarm) -> Self {
        ReadParts { alarm, ..self }
    }

    /// Whether the parts lie in memory.
    pub fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    /// Whether parts of `len` bytes more have no room in memory, where others make way for them. One that
    /// cannot have it in an empty memory makes none go.
    pub fn lacks_memory(&self, len: u64) -> bool {
        self.is_in_memory && len <= READ_MEMORY_MAX && self.volume.free_bytes().is_ok_and(|free| free < len)
    }

    /// Opens or resumes the part of `manifest`. One that was not there is marked as one that is read
    /// only.
    ///
    /// # Errors
    /// As [`Disk::partial`](crate::store::Disk::partial).
    pub fn open(&self, manifest: Arc<Manifest>) -> Result<Arc<PartialFile>, StoreError> {
        Ok(Arc::new(PartialFile::open_to_read(self.volume.clone(), self.flusher()?, manifest)?))
    }

    fn flusher(&self) -> Result<Arc<Flusher>, StoreError> {
        let mut flusher = lock(&self.flusher);
        if let Some(running) = &*flusher {
            return Ok(running.clone());
        }
        let path = self.volume.path_of_own("");
        let started = Arc::new(Flusher::start(&self.alarm).map_err(|e| StoreError::at(path, e))?);
        Ok(flusher.insert(started).clone())
    }

    /// Has the thread that journals panic.
    #[cfg(test)]
    pub(crate) fn panic_in_journal(&self) {
        if let Ok(flusher) = self.flusher() {
            flusher.panic();
        }
    }

    /// Removes the part of `id`, unless a download took it over or a process uses it. Trouble with it
    /// leaves it for the next fetch.
    pub fn discard(&self, id: &FileId) {
        leftovers::discard(&*self.volume, id);
        self.volume.tidy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ChunkIndex, Digest, Geometry, RelPath, Root, merkle};
    use crate::limits::CHUNK_LEN_MIN;
    use crate::store::leftovers::Spared;
    use crate::store::limits::READ_PART_STALE;
    use crate::store::memory::{Memory, Rng, own_name};
    use crate::store::partial_file::PartNames;

    const LEN: u64 = 3 * CHUNK_LEN_MIN + 5;

    fn chunk(index: ChunkIndex) -> Vec<u8> {
        vec![index.get() as u8 + 1; Geometry::new(LEN).span(index).len as usize]
    }

    fn manifest() -> Arc<Manifest> {
        let geometry = Geometry::new(LEN);
        let digest = |c| merkle::chunk_digest(&chunk(c), geometry.chunk_height());
        let layer: Vec<Digest> = geometry.chunks().map(digest).collect();
        let root = Root(merkle::root_of_layer(&layer, geometry.chunk_height()));
        Arc::new(Manifest::new(FileId { root, len: LEN }, layer).unwrap())
    }

    /// Reads some of the file, or fetches it, until the power is gone. Returns the number of chunks that
    /// were reported to a download as durable.
    fn run(volume: &Memory, manifest: &Arc<Manifest>, is_read: bool, rng: &mut Rng) -> Result<u32, (StoreError, u32)> {
        let mut kept = 0;
        let mut go = || -> Result<(), StoreError> {
            let (volume, flusher) = (Arc::new(volume.clone()), Arc::new(Flusher::without_thread()));
            let file = match is_read {
                true => PartialFile::open_to_read(volume.clone(), flusher, manifest.clone())?,
                false => PartialFile::open(volume.clone(), flusher, manifest.clone())?,
            };
            file.recheck(u64::MAX);
            let missing = manifest.geometry().chunks().filter(|c| !file.has(*c) && (!is_read || rng.below(2) == 0));
            for index in missing.collect::<Vec<_>>() {
                file.write(index, &chunk(index))?;
                file.checkpoint()?;
                kept = if is_read { 0 } else { file.have_count() };
            }
            // A download takes over what is whole, also from readers.
            if file.is_whole() && rng.below(2) == 0 {
                file.finish_each(&*volume, &[RelPath::new("f").unwrap()])?.pop().unwrap_or(Ok(()))?;
            }
            if rng.below(2) == 0 {
                file.kill();
            }
            Ok(())
        };
        let done = go();
        done.map(|()| kept).map_err(|e| (e, kept))
    }

    #[test]
    fn wherever_it_crashes_what_a_download_has_stays_and_what_was_only_read_goes() {
        let (manifest, mut kept_parts, mut gone) = (manifest(), 0, 0);
        let names = PartNames::new(&manifest.id());
        let whole: Vec<u8> = manifest.geometry().chunks().flat_map(chunk).collect();
        for seed in 0..300 {
            let mut rng = Rng(seed);
            let mut volume = Memory::new();
            let (mut kept, is_killed) = (0, rng.below(2) == 0);
            for _ in 0..1 + rng.below(4) {
                volume.cut_after(1 + rng.below(40));
                let is_read = rng.below(2) == 0;
                let (Ok(durable) | Err((_, durable))) = run(&volume, &manifest, is_read, &mut rng);
                kept = kept.max(durable);
                volume = if is_killed { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
                let placed = volume.content("f");
                assert!(placed.as_ref().is_none_or(|bytes| *bytes == whole), "seed {seed}: not whole");
                leftovers::sweep(&volume, &[], Spared::Nothing, 2 * READ_PART_STALE);
                let is_there = volume.content(&own_name(&names.part)).is_some();
                assert!(kept == 0 || is_there || placed.is_some(), "seed {seed}: {kept} chunks of a download are gone");
                let is_marked = volume.content(&own_name(&names.mark)).is_some();
                assert!(!is_marked, "seed {seed}: what was only read stays");
                kept_parts += u32::from(kept > 0 && is_there);
                gone += u32::from(is_read && !is_there);
                if placed.is_some() {
                    break;
                }
            }
        }
        println!("{kept_parts} parts kept, {gone} gone");
        assert!(kept_parts > 50 && gone > 50, "{kept_parts} {gone}");
    }
}
