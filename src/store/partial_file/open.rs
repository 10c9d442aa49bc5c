//! Opening a partial file: its lock, what its journal says of it, and its room on the disk.

use std::path::Path;
use std::sync::{Arc, Mutex};

use log::{info, warn};

use crate::content::{Bitfield, ChunkIndex, FileId, Geometry, Manifest};
use crate::store::StoreError;
use crate::store::flusher::Flusher;
use crate::store::holes;
use crate::store::journal::{Claims, Journal, Misfit};
use crate::store::limits::{PART_LOCK_PAUSE, PART_OPEN_TRIES};
use crate::store::partial_file::doubt::Doubt;
use crate::store::partial_file::mark::mark;
use crate::store::partial_file::part::{Flushing, Part, PartNames, PartState};
use crate::store::storage::{FileLock, Stat, Storage, Volume, explain_full};

/// A partial file, and what is known of it.
pub(super) struct OpenedPart {
    pub(super) part: Part,
    /// The chunks that hold nothing but zeros.
    pub(super) zero_chunks: Bitfield,
    /// Number of chunks that the journal claims.
    pub(super) claimed: u32,
}

/// What is known of a file that was there.
enum Found {
    /// The journal fits.
    Kept(Journal, Claims),
    /// There is no journal that fits.
    Unknown,
    /// The journal is of another file, which was being placed.
    Foreign,
}

/// Opens or resumes the partial file of `manifest` and reserves its space. Chunks of zeros are there
/// from the beginning: a new file is one hole. In a file that was left without a seal they have to be
/// checked as the others. A file that is made for readers is marked as such, and a download takes the
/// mark away.
pub(super) fn open(
    volume: Arc<dyn Volume>,
    flusher: &Flusher,
    manifest: &Manifest,
    is_read: bool,
) -> Result<OpenedPart, StoreError> {
    let (id, geometry, zero_chunks) = (manifest.id(), manifest.geometry(), manifest.zero_chunks());
    let names = PartNames::new(&id);
    let path = volume.path_of_own(&names.part);
    volume.make_own()?;
    let look = || {
        let (file, fresh) = open_locked(&*volume, &names.part, &path)?;
        let stat = file.stat().map_err(|e| StoreError::at(&path, e))?;
        let found = if fresh {
            discard_journal(&*volume, &names.journal)?;
            Found::Unknown
        } else {
            resume(&*volume, &names.journal, &id, &stat)?
        };
        Ok((file, fresh, stat, found))
    };
    let (mut file, mut fresh, mut stat, mut found) = look()?;
    let is_foreign = matches!(found, Found::Foreign);
    if is_foreign || matches!(found, Found::Unknown) && stat.links > 1 {
        // Placing was cut off between two steps: this is the file that was replaced, and must not be
        // written to. With a second name it is kept under that. With none it may be one that another
        // program saved at the last moment. Nobody else gets the lock before it is away.
        let at = |e| StoreError::at(&path, e);
        if is_foreign {
            let aside = volume.set_aside_own(&names.part).map_err(at)?;
            warn!(
                "in place of a partial file lay one that was replaced or saved kept_as={}",
                volume.path_of_own(&aside).display()
            );
        } else {
            volume.remove_own(&names.part).map_err(at)?;
        }
        file.unlock();
        (file, fresh, stat, found) = look()?;
    }
    mark(&*volume, &names.mark, fresh, is_read)?;
    let reserved = reserve(&*volume, &*file, &path, (&geometry, &zero_chunks), stat);
    if reserved.is_err() && fresh {
        // The new file holds nothing, and a reservation cut short must not keep the disk full.
        let _ = volume.remove_own(&names.part);
        let _ = volume.remove_own(&names.mark);
        volume.tidy();
    }
    let doubt = Doubt::new(reserved?, flusher, &*file);
    let (journal, claims) = match found {
        Found::Kept(journal, claims) => (Some(journal), claims),
        _ => (None, Claims { have: Bitfield::empty(geometry.chunk_count()), proved: false }),
    };
    let claimed = claims.have.iter().filter(|chunk| !zero_chunks.bit(*chunk)).count() as u32;
    let have = match (fresh, claims.proved) {
        (true, _) => zero_chunks.clone(),
        (false, true) => claims.have.clone(),
        (false, false) => Bitfield::empty(geometry.chunk_count()),
    };
    let is_unchecked = |c: &ChunkIndex| !have.contains(*c) && (claims.have.contains(*c) || zero_chunks.contains(*c));
    let unchecked: Vec<ChunkIndex> = geometry.chunks().filter(is_unchecked).collect();
    let state = PartState::new(have, unchecked);
    let (state, flushing) = (Mutex::new(state), Mutex::new(Flushing::new(journal)));
    let (inode, budget) = (stat.stamp.inode, flusher.budget().clone());
    let part = Part { id, volume, budget, file, inode, names, path, is_read, doubt, state, flushing };
    Ok(OpenedPart { part, zero_chunks, claimed })
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

/// What the journal says of the file in the state `stat`. A journal that does not fit is removed.
fn resume(volume: &dyn Volume, name: &str, id: &FileId, stat: &Stat) -> Result<Found, StoreError> {
    let at = |e| StoreError::at(volume.path_of_own(name), e);
    let Some(file) = volume.open_own(name).map_err(at)? else { return Ok(Found::Unknown) };
    let misfit = match Journal::resume(file.clone(), id, stat).map_err(at)? {
        Ok((journal, claims)) if stat.len == id.len => return Ok(Found::Kept(journal, claims)),
        // Another program cut it. No journal can speak of it.
        Ok(_) => "other length".into(),
        Err(Misfit::Inode) if stat.links == 1 => match Journal::rebind(file, id, stat.stamp.inode).map_err(at)? {
            None => return Ok(Found::Foreign),
            Some((journal, claims)) if stat.len == id.len => return Ok(Found::Kept(journal, claims)),
            Some(_) => "other inode and length".into(),
        },
        Err(misfit) => misfit.to_string(),
    };
    info!("journal discarded file={id} error=\"{misfit}\"");
    discard_journal(volume, name)?;
    Ok(Found::Unknown)
}

/// Removes a journal for good before the file gets the length at which a journal counts: a new file
/// may have the inode number of the one that the journal was written for.
fn discard_journal(volume: &dyn Volume, name: &str) -> Result<(), StoreError> {
    let removed = volume.remove_own(name).and_then(|was| if was { volume.sync_own() } else { Ok(()) });
    removed.map_err(|e| StoreError::at(volume.path_of_own(name), e))
}

/// Gives the file its length and, where possible, room on the disk for all but the chunks of zeros: true if it
/// has that.
fn reserve(
    volume: &dyn Volume,
    file: &dyn Storage,
    path: &Path,
    (geometry, zero_chunks): (&Geometry, &Bitfield),
    stat: Stat,
) -> Result<bool, StoreError> {
    let (at, len) = (|e| StoreError::at(path, e), geometry.len());
    if stat.len > len {
        file.set_len(len).map_err(at)?;
    }
    let needed = (len - holes::len_of(geometry, zero_chunks)).saturating_sub(stat.allocated);
    let free = volume.free_bytes().map_err(at)?;
    if needed > free {
        return Err(StoreError::NoSpace { path: path.to_path_buf(), needed, free });
    }
    if stat.len == len && needed == 0 {
        return Ok(true);
    }
    let ranges = holes::data_ranges(geometry, zero_chunks);
    let is_reserved = file.reserve(len, ranges.as_deref().unwrap_or_default());
    is_reserved.map(|all| all && ranges.is_some()).map_err(|e| explain_full(volume, at(e), needed))
}
