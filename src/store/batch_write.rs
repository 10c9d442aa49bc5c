//! Writing many small files at once.

use std::sync::Arc;

use crate::content::{FileId, RelPath};
use crate::store::StoreError;
use crate::store::error::again;
use crate::store::holes;
use crate::store::limits::{BATCH_OPEN_MAX, SYNCFS_FILES_MIN};
use crate::store::read_back::{check_bytes, is_room_scarce};
use crate::store::storage::{Storage, Volume, create_temp, dress, explain_full};

/// Writes each file under a temporary name, makes all of them durable, then renames each to its
/// final name.
///
/// The temporary names lie in the node's own directory. A rename from there costs as much as one
/// within the final directory (measured), it needs no open descriptor for each file as `O_TMPFILE`
/// would, and what a killed process leaves behind lies in one place that is not shared. The own
/// directory stays for the next batch: removing a directory that held thousands of names costs as
/// much as writing dozens of files.
pub(crate) fn batch_write<B: AsRef<[u8]>>(
    volume: &dyn Volume,
    files: &[(RelPath, FileId, B)],
) -> Vec<Result<(), StoreError>> {
    // One sync of the file system also writes out data of other programs, but is one commit instead
    // of one for each file.
    let together = files.len() >= SYNCFS_FILES_MIN;
    let mut results = Vec::with_capacity(files.len());
    let mut moves = Vec::with_capacity(files.len());
    let mut places = Vec::with_capacity(files.len());
    // Files that stay open need not be looked for again. They are closed where the process may open no
    // others, which fails nothing.
    let mut keeps_open = files.len() <= BATCH_OPEN_MAX;
    let mut open = Vec::with_capacity(if keeps_open { files.len() } else { 0 });
    let mut is_made = false;
    for (i, (path, id, bytes)) in files.iter().enumerate() {
        let bytes = bytes.as_ref();
        debug_assert_eq!(bytes.len() as u64, id.len);
        let made = if is_made { Ok(()) } else { volume.make_own() };
        is_made = made.is_ok();
        let mut written = made.and_then(|()| write_temp(volume, path, bytes, !together));
        if keeps_open && written.as_ref().is_err_and(StoreError::is_of_descriptors) {
            (keeps_open, open) = (false, Vec::new());
            written = volume.make_own().and_then(|()| write_temp(volume, path, bytes, !together));
            is_made = written.is_ok();
        }
        results.push(written.map(|(temp, file)| {
            moves.push((temp, path));
            open.extend(keeps_open.then_some(file));
            places.push(i);
        }));
    }
    let synced = if together { volume.sync_files() } else { Ok(()) };
    if synced.is_ok() && is_room_scarce(volume) {
        for at in (0..moves.len()).rev() {
            let (temp, path) = &moves[at];
            let Err(e) = check_bytes(volume, temp, files[places[at]].2.as_ref()) else { continue };
            results[places[at]] = Err(StoreError::at(volume.path_of(path), e));
            let _ = volume.remove_own(temp);
            moves.remove(at);
            places.remove(at);
            if keeps_open {
                open.remove(at);
            }
        }
    }
    let mut done = match synced {
        Ok(()) => volume.place_open(&moves, &open),
        Err(e) => moves.iter().map(|(_, path)| Err(StoreError::at(volume.path_of(path), again(&e)))).collect(),
    };
    if !open.is_empty() && done.iter().any(|done| done.as_ref().is_err_and(StoreError::is_of_descriptors)) {
        drop(open);
        for (done, name) in done.iter_mut().zip(&moves) {
            if done.as_ref().is_err_and(StoreError::is_of_descriptors) {
                *done = volume.place(std::slice::from_ref(name)).pop().unwrap_or(Ok(()));
            }
        }
    }
    for ((i, (temp, _)), done) in places.into_iter().zip(&moves).zip(done) {
        // A missing directory takes an inode, too, as the temporary file still does.
        results[i] = done.map_err(|e| explain_full(volume, e, 0));
        if results[i].is_err() {
            let _ = volume.remove_own(temp);
        }
    }
    results
}

/// Writes one file under a temporary name and returns that name, and the file.
fn write_temp(
    volume: &dyn Volume,
    path: &RelPath,
    bytes: &[u8],
    sync: bool,
) -> Result<(String, Arc<dyn Storage>), StoreError> {
    let at_path = |e| explain_full(volume, StoreError::at(volume.path_of(path), e), bytes.len() as u64);
    let (name, file) = create_temp(volume).map_err(at_path)?;
    let len = bytes.len() as u64;
    // Zeros become a hole.
    let written = if holes::is_zeros(bytes) && len > 0 { file.set_len(len) } else { file.write_at(0, bytes) };
    let written = written.and_then(|()| dress(volume, &*file, path));
    let written = written.and_then(|()| if sync { file.sync() } else { Ok(()) });
    match written {
        Ok(()) => Ok((name, file)),
        Err(e) => {
            let _ = volume.remove_own(&name);
            Err(at_path(e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, Root};
    use crate::store::limits::SCARCE_ROOM;
    use crate::store::memory::{FaultKind, Memory, Rng};

    fn files(n: usize, rng: &mut Rng) -> Vec<(RelPath, FileId, Vec<u8>)> {
        let file = |i: usize| {
            let bytes: Vec<u8> = (0..rng.below(50)).map(|_| rng.below(256) as u8).collect();
            let id = FileId { root: Root(Digest([i as u8; 32])), len: bytes.len() as u64 };
            (RelPath::new(&format!("d{}/f{i}", i % 3)).unwrap(), id, bytes)
        };
        (0..n).map(file).collect()
    }

    #[test]
    fn final_names_hold_whole_files_wherever_the_power_fails() {
        for seed in 0..600 {
            let mut rng = Rng(seed);
            let volume = Memory::new();
            let count = 1 + rng.below(6) as usize;
            let batch = files(count, &mut rng);
            for (path, ..) in &batch {
                volume.put(path.as_str(), b"old");
            }
            volume.cut_after(1 + rng.below(6 * batch.len() as u64));
            let results = batch_write(&volume, &batch);
            let after = volume.after_power_loss(&mut rng);
            for ((path, _, bytes), result) in batch.iter().zip(results) {
                let found = after.content(path.as_str()).unwrap();
                assert!(found == b"old" || found == *bytes, "seed {seed}: {path} has {found:?}");
                assert!(result.is_err() || found == *bytes, "seed {seed}: {path} was said to be durable");
            }
        }
    }

    /// Cause: a batch keeps its files open. Effect: a process with few descriptors failed at names that
    /// need not have failed. Mend: they are closed, and what could not be opened is tried again.
    #[test]
    fn few_descriptors_fail_no_file() {
        let (batch, volume) = (files(9, &mut Rng(1)), Memory::new());
        assert!(batch_write(&volume, &batch).iter().all(Result::is_ok));
        for at in 1..=volume.calls() {
            let volume = Memory::new();
            volume.fault_at(at, FaultKind::TooManyOpen, false);
            let results = batch_write(&volume, &batch);
            assert!(results.iter().all(Result::is_ok), "call {at}: {results:?}");
            assert!(volume.own_names().is_empty(), "call {at}");
        }
    }

    /// Cause: a full disk dropped what it had taken, and no sync told. Effect: a final name with other bytes.
    /// Mend: what is written with little room left is read back before it gets its name.
    #[test]
    fn what_a_full_disk_lost_gets_no_name() {
        for count in [1, SYNCFS_FILES_MIN, BATCH_OPEN_MAX + 1] {
            let (mut rng, volume) = (Rng(7), Memory::new());
            let mut batch = files(count, &mut rng);
            for (i, (_, id, bytes)) in batch.iter_mut().enumerate() {
                (*bytes, id.len) = (vec![i as u8 + 1; 9], 9);
            }
            volume.put(batch[0].0.as_str(), b"old");
            volume.set_free(SCARCE_ROOM - 1);
            assert!(batch_write(&volume, &batch[1..]).iter().all(Result::is_ok), "{count}");
            // A batch is synced as a whole from some files on, a single file by itself.
            volume.fault_at(1, FaultKind::Losing, true);
            let lost = batch_write(&volume, &batch);
            assert!(volume.mend() && lost.iter().all(|r| matches!(r, Err(StoreError::Io { .. }))), "{count}: {lost:?}");
            assert_eq!(volume.content(batch[0].0.as_str()).unwrap(), b"old");
            assert!(volume.own_names().is_empty());
            assert!(batch_write(&volume, &batch).iter().all(Result::is_ok), "{count}");
            assert!(batch.iter().all(|(path, _, bytes)| volume.content(path.as_str()).unwrap() == *bytes));
        }
    }

    #[test]
    fn nothing_stays_behind() {
        let volume = Memory::new();
        let batch = files(9, &mut Rng(1));
        assert!(batch_write(&volume, &batch).iter().all(Result::is_ok));
        assert!(volume.own_names().is_empty());
        for (path, _, bytes) in &batch {
            assert_eq!(volume.content(path.as_str()).as_ref(), Some(bytes));
        }
        assert!(batch_write::<Vec<u8>>(&volume, &[]).is_empty());
    }
}
