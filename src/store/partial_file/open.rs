//! Opening a partial file: its lock, what its journal says of it, and its room on the disk.

use std::path::Path;
use std::sync::{Arc, Mutex};

use log::info;

use crate::content::{Bitfield, FileId, Geometry};
use crate::store::StoreError;
use crate::store::flusher::Budget;
use crate::store::journal::{Claims, Journal};
use crate::store::limits::{PART_LOCK_PAUSE, PART_OPEN_TRIES};
use crate::store::partial_file::part::{Flushing, Part, PartNames, PartState};
use crate::store::storage::{FileLock, Stat, Storage, Volume, explain_full};

/// Opens or resumes the partial file of `id` and reserves its space.
pub(super) fn open(volume: Arc<dyn Volume>, budget: Arc<Budget>, id: FileId) -> Result<Part, StoreError> {
    let names = PartNames::new(&id);
    let path = volume.path_of_own(&names.part);
    volume.make_own()?;
    let (file, fresh) = open_locked(&*volume, &names.part, &path)?;
    let stat = file.stat().map_err(|e| StoreError::at(&path, e))?;
    // At another length its creation was interrupted, or another program cut it. No journal can
    // speak of it.
    let kept = if fresh || stat.len != id.len {
        discard_journal(&*volume, &names.journal)?;
        None
    } else {
        resume(&*volume, &names.journal, &id, &stat)?
    };
    if let Err(e) = reserve(&*volume, &*file, &path, id.len, stat) {
        if fresh {
            // The new file holds nothing, and a reservation cut short must not keep the disk full.
            let _ = volume.remove_own(&names.part);
            volume.tidy();
        }
        return Err(e);
    }
    let geometry = Geometry::new(id.len);
    let (journal, claims) = kept.unzip();
    let none = || Bitfield::empty(geometry.chunk_count());
    let (have, unchecked) = match claims {
        Some(Claims { have, proved: true }) => (have, none()),
        Some(Claims { have, proved: false }) => (none(), have),
        None => (none(), none()),
    };
    let state = PartState::new(have, unchecked.iter().filter_map(|i| geometry.chunk(i)));
    let (state, flushing) = (Mutex::new(state), Mutex::new(Flushing::new(journal)));
    Ok(Part { id, volume, budget, file, inode: stat.stamp.inode, names, path, state, flushing })
}

/// Opens or makes the file and takes its lock; true if it was made.
fn open_locked(volume: &dyn Volume, name: &str, path: &Path) -> Result<(Arc<dyn Storage>, bool), StoreError> {
    let at = |e| explain_full(volume, StoreError::at(path, e), 0);
    for _ in 0..PART_OPEN_TRIES {
        let (file, fresh) = match volume.open_own(name).map_err(at)? {
            Some(file) => (file, false),
            None => match volume.create_own(name).map_err(at)? {
                Some(file) => (file, true),
                None => continue,
            },
        };
        // A file system without locks is no reason not to write there.
        if file.try_lock().map_err(at)? == FileLock::Held {
            std::thread::sleep(PART_LOCK_PAUSE);
            continue;
        }
        // The holder of the lock before may have put the file in place meanwhile: then it is no
        // longer a partial one.
        if volume.inode_of_own(name).map_err(at)? == Some(file.stat().map_err(at)?.stamp.inode) {
            return Ok((file, fresh));
        }
    }
    Err(StoreError::Busy { path: path.to_path_buf() })
}

/// What the journal says of the file; `None` if there is no journal, or none that fits.
fn resume(volume: &dyn Volume, name: &str, id: &FileId, part: &Stat) -> Result<Option<(Journal, Claims)>, StoreError> {
    let at = |e| StoreError::at(volume.path_of_own(name), e);
    let Some(file) = volume.open_own(name).map_err(at)? else { return Ok(None) };
    match Journal::resume(file, id, part).map_err(at)? {
        Ok(kept) => Ok(Some(kept)),
        Err(misfit) => {
            info!("journal discarded file={id} error=\"{misfit}\"");
            discard_journal(volume, name)?;
            Ok(None)
        }
    }
}

/// Removes a journal for good before the file gets the length at which a journal counts: a new file
/// may have the inode number of the one that the journal was written for.
fn discard_journal(volume: &dyn Volume, name: &str) -> Result<(), StoreError> {
    let removed = volume.remove_own(name).and_then(|was| if was { volume.sync_own() } else { Ok(()) });
    removed.map_err(|e| StoreError::at(volume.path_of_own(name), e))
}

/// Gives the file its length and, where possible, its room on the disk.
fn reserve(volume: &dyn Volume, file: &dyn Storage, path: &Path, len: u64, stat: Stat) -> Result<(), StoreError> {
    let at = |e| StoreError::at(path, e);
    if stat.len > len {
        file.set_len(len).map_err(at)?;
    }
    let needed = len.saturating_sub(stat.allocated);
    let free = volume.free_bytes().map_err(at)?;
    if needed > free {
        return Err(StoreError::NoSpace { path: path.to_path_buf(), needed, free });
    }
    if stat.len == len && needed == 0 {
        return Ok(());
    }
    file.reserve(len).map_err(|e| explain_full(volume, at(e), needed))
}
