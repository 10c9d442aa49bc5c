//! Partial files on a volume that forgets what was not synced.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::part::PartNames;
use super::*;
use crate::content::{Digest, FileId, Geometry, Root, merkle};
use crate::limits::CHUNK_LEN_MIN;
use crate::store::disk_volume::DiskVolume;
use crate::store::flusher::Flush;
use crate::store::leftovers::{self, Spared};
use crate::store::limits::{COPY_RUN_LEN, SCARCE_ROOM, TICK_MAX};
use crate::store::memory::{FaultKind, Memory, Rng, own_name};
use crate::store::storage::{FileLock, Stat, Storage};

const LAST_LEN: u64 = 77;

/// A file of that many chunks, the last of which is short.
fn manifest(chunks: u64) -> Arc<Manifest> {
    static KNOWN: Mutex<Option<HashMap<u64, Arc<Manifest>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap();
    let known = known.get_or_insert_default();
    let len = (chunks - 1) * CHUNK_LEN_MIN + LAST_LEN;
    let made = || {
        let geometry = Geometry::new(len);
        let height = geometry.chunk_height();
        let layer: Vec<Digest> = geometry.chunks().map(|c| merkle::chunk_digest(&chunk(len, c), height)).collect();
        let root = Root(merkle::root_of_layer(&layer, height));
        Arc::new(Manifest::new(FileId { root, len }, layer).unwrap())
    };
    known.entry(chunks).or_insert_with(made).clone()
}

/// What chunk `index` holds; never the zeros of a hole.
fn chunk(len: u64, index: ChunkIndex) -> Vec<u8> {
    vec![index.get() as u8 + 1; Geometry::new(len).span(index).len as usize]
}

fn whole(manifest: &Manifest) -> Vec<u8> {
    manifest.geometry().chunks().map(|c| chunk(manifest.id().len, c)).collect::<Vec<_>>().concat()
}

fn open(volume: &Memory, manifest: &Arc<Manifest>) -> Result<PartialFile, StoreError> {
    PartialFile::open(Arc::new(volume.clone()), Arc::new(Flusher::without_thread()), manifest.clone())
}

fn write(file: &PartialFile, index: ChunkIndex) -> Result<(), StoreError> {
    file.write(index, &chunk(file.manifest().id().len, index))
}

fn write_all(file: &PartialFile) -> Result<(), StoreError> {
    file.manifest().geometry().chunks().try_for_each(|c| write(file, c))
}

fn chunks_of(manifest: &Manifest) -> Vec<ChunkIndex> {
    manifest.geometry().chunks().collect()
}

fn name_of(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// Checks what is unchecked; how many chunks were wrong.
fn recheck(file: &PartialFile) -> usize {
    file.recheck(u64::MAX).iter().filter(|chunk| !chunk.right).count()
}

fn have(file: &PartialFile) -> Vec<u32> {
    file.have().iter().collect()
}

/// Opens the file again and checks that every chunk which is believed without a look is there.
fn check_claims(volume: &Memory, manifest: &Arc<Manifest>, seed: u64) -> PartialFile {
    let file = open(volume, manifest).unwrap();
    for index in chunks_of(manifest).into_iter().filter(|c| file.has(*c)) {
        let span = manifest.geometry().span(index);
        let mut bytes = vec![0; span.len as usize];
        file.read_at(span.offset, &mut bytes).unwrap();
        let right = bytes == chunk(manifest.id().len, index);
        assert!(right, "seed {seed}: chunk {} is believed and not there", index.get());
    }
    file
}

/// Downloads in random order with random flushes, until it is done or the power fails.
fn download(file: &PartialFile, rng: &mut Rng, paths: &[RelPath]) -> Result<(), StoreError> {
    recheck(file);
    let mut missing: Vec<ChunkIndex> = chunks_of(file.manifest()).into_iter().filter(|c| !file.has(*c)).collect();
    while !missing.is_empty() {
        let index = missing.swap_remove(rng.below(missing.len() as u64) as usize);
        write(file, index)?;
        match rng.below(4) {
            0 => file.part.flush(),
            1 => file.checkpoint()?,
            _ => (),
        }
    }
    file.finish(paths)
}

#[test]
fn wherever_the_power_fails_claims_are_true_and_final_names_whole() {
    let (mut resumed, mut believed, mut wrong, mut finished) = (0, 0, 0, 0);
    for seed in 0..250 {
        let mut rng = Rng(seed);
        let manifest = manifest(2 + rng.below(4));
        let len = manifest.id().len;
        let paths = [name_of("d/final"), name_of("twin")];
        let paths = &paths[..1 + rng.below(2) as usize];
        let mut volume = Memory::new();
        paths.iter().for_each(|p| volume.put(p.as_str(), b"old"));
        // Several failures one after the other, by power or by kill; then one run to the end.
        for _ in 0..1 + rng.below(3) {
            volume.cut_after(1 + rng.below(30));
            let done = open(&volume, &manifest).and_then(|file| {
                let done = download(&file, &mut rng, paths);
                if rng.below(2) == 0 {
                    file.kill();
                }
                done
            });
            let killed = rng.below(2) == 0;
            volume = if killed { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
            for path in paths {
                let found = volume.content(path.as_str()).unwrap();
                assert!(found == b"old" || found == whole(&manifest), "seed {seed}: {path} is neither old nor whole");
                assert!(done.is_err() || found == whole(&manifest), "seed {seed}: {path} was said to be durable");
            }
            let own = own_name(&PartNames::new(&manifest.id()).part);
            if rng.below(2) == 0 && volume.content(&own).is_some_and(|bytes| bytes.len() as u64 == len) {
                volume.flip(&own, rng.below(len) as usize);
            }
            let file = check_claims(&volume, &manifest, seed);
            (resumed, believed) = (resumed + file.resumed() as usize, believed + have(&file).len());
            wrong += recheck(&file);
            finished += usize::from(done.is_ok());
            if rng.below(2) == 0 {
                file.kill();
            }
        }
        let file = check_claims(&volume, &manifest, seed);
        download(&file, &mut rng, paths).unwrap();
        paths.iter().for_each(|p| assert!(volume.content(p.as_str()) == Some(whole(&manifest)), "seed {seed}: {p}"));
    }
    let all = [resumed, believed, wrong, finished];
    assert!(all.iter().all(|n| *n > 25), "the runs end too early or too late: {all:?}");
}

#[test]
fn a_journal_left_behind_never_speaks_for_a_new_file_with_the_same_inode() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let manifest = manifest(3);
        let volume = Memory::new();
        let part = open(&volume, &manifest).unwrap();
        write_all(&part).unwrap();
        let inode = part.part.inode;
        drop(part);
        let names = PartNames::new(&manifest.id());
        volume.remove_own(&names.part).unwrap();
        volume.sync_own().unwrap();
        assert!(volume.content(&own_name(&names.journal)).is_some());

        volume.cut_after(1 + rng.below(8));
        if let Ok(part) = open(&volume, &manifest) {
            assert_eq!((part.part.inode, part.resumed()), (inode, 0), "seed {seed}: the number is not given out again");
            part.kill();
        }
        let volume = volume.after_power_loss(&mut rng);
        check_claims(&volume, &manifest, seed);
    }
}

#[test]
fn a_killed_download_resumes_with_what_was_journaled() {
    let volume = Memory::new();
    let manifest = manifest(5);
    let part = open(&volume, &manifest).unwrap();
    let chunks = chunks_of(&manifest);
    write(&part, chunks[4]).unwrap();
    write(&part, chunks[1]).unwrap();
    part.checkpoint().unwrap();
    write(&part, chunks[0]).unwrap();
    assert_eq!(have(&part), [0, 1, 4]);
    part.kill();

    let volume = volume.after_kill();
    let part = check_claims(&volume, &manifest, 0);
    assert_eq!(volume.reads(&own_name(&part.part.names.part)), 0, "a download does not wait for the check");
    assert_eq!((part.resumed(), have(&part).len()), (2, 0), "nothing is believed before it is checked");
    assert_eq!((recheck(&part), have(&part)), (0, vec![1, 4]));
}

/// A process that was killed before it made the names durable left a journal that the next one went on with, and whose
/// records alone it made durable: a power loss took the names, and with them chunks that were said to be kept. The next
/// one makes the names durable too.
#[test]
fn what_a_killed_process_began_is_durable_once_the_next_one_says_so() {
    let (manifest, mut resumed) = (manifest(4), 0);
    let chunks = chunks_of(&manifest);
    for cut in 1..20 {
        let volume = Memory::new();
        volume.cut_after(cut);
        if let Ok(part) = open(&volume, &manifest) {
            let _ = write(&part, chunks[0]).and_then(|()| part.checkpoint());
            part.kill();
        }
        let volume = volume.after_kill();
        let part = open(&volume, &manifest).unwrap();
        recheck(&part);
        resumed += part.resumed();
        write(&part, chunks[1]).and_then(|()| part.checkpoint()).unwrap();
        part.kill();
        for seed in 0..8 {
            let part = check_claims(&volume.after_power_loss(&mut Rng(seed)), &manifest, seed);
            assert!(part.have_count() + part.unchecked().count() > 0, "cut {cut}, seed {seed}: the chunk is lost");
            part.kill();
        }
    }
    assert!(resumed > 0, "no process left a journal");
}

/// A part with two chunks of four, left in order.
fn left_in_order(volume: &Memory, manifest: &Arc<Manifest>) -> String {
    let part = open(volume, manifest).unwrap();
    let chunks = chunks_of(manifest);
    write(&part, chunks[3]).unwrap();
    write(&part, chunks[1]).unwrap();
    own_name(&part.part.names.part)
}

#[test]
fn a_part_left_in_order_is_believed_until_it_is_touched() {
    let (volume, manifest) = (Memory::new(), manifest(4));
    let name = left_in_order(&volume, &manifest);
    for _ in 0..2 {
        let part = open(&volume, &manifest).unwrap();
        assert_eq!((have(&part), recheck(&part), part.resumed()), (vec![1, 3], 0, 2), "nothing was written meanwhile");
        part.kill();
    }
    volume.flip(&name, (CHUNK_LEN_MIN + 5) as usize);
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((have(&part).len(), part.unchecked().iter().collect::<Vec<_>>()), (0, vec![1, 3]));
    assert!(matches!(part.finish(&[name_of("x")]), Err(StoreError::NotWhole { missing: 4, .. })));
    // A check that was interrupted proves nothing: the next run begins again.
    assert_eq!(part.recheck(1).len(), 1);
    drop(part);
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((recheck(&part), have(&part)), (1, vec![3]));
    drop(part);
    // What was found wrong is not claimed again, although the records still name it.
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((have(&part), part.unchecked().count()), (vec![3], 0));
    write_all(&part).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(volume.content("x"), Some(whole(&manifest)));
}

/// A part that was copied, moved to another disk or restored has another inode than its journal names: all of it was fetched anew.
/// Its chunks are hashed as after a kill, and the journal goes on for the new file.
#[test]
fn a_part_with_another_inode_is_hashed_and_not_fetched_anew() {
    let (volume, manifest) = (Memory::new(), manifest(4));
    let name = left_in_order(&volume, &manifest);
    let restore = || volume.put(&name, &volume.content(&name).unwrap());
    restore();
    volume.flip(&name, (CHUNK_LEN_MIN + 5) as usize);
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((have(&part).len(), part.unchecked().iter().collect::<Vec<_>>()), (0, vec![1, 3]));
    // Killed before anything is hashed: the claims stay.
    part.kill();
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((recheck(&part), have(&part), part.resumed()), (1, vec![3], 2));
    drop(part);
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((have(&part), part.unchecked().count()), (vec![3], 0), "the seal is of the new file");
    drop(part);
    // A second name may be that of a file of the user's, which this one was before it was replaced.
    restore();
    volume.link_name(&name, "kept").unwrap();
    let part = open(&volume, &manifest).unwrap();
    assert_eq!((have(&part).len(), part.resumed()), (0, 0));
    write_all(&part).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(volume.content("x"), Some(whole(&manifest)));
    assert_ne!(volume.content("kept"), Some(whole(&manifest)), "it is not written to");
}

/// A process that was killed between the exchange of two names and the exchange back left what another program had saved under the
/// name of the part. The next download wrote over it, even if it is as long and has the same chunks but for a byte.
#[test]
fn what_another_program_saved_under_the_name_of_a_part_is_set_aside() {
    let manifest = manifest(4);
    let mut edited = whole(&manifest);
    edited[7] ^= 1;
    for (saved, is_swept) in [(b"text".to_vec(), false), (edited.clone(), false), (Vec::new(), false), (edited, true)] {
        let volume = Memory::new();
        let part = open(&volume, &manifest).unwrap();
        let name = own_name(&part.part.names.part);
        write_all(&part).unwrap();
        // As `finish` does before the exchange, which the process does not survive.
        part.part.note_placing(&mut part.part.flushing());
        part.kill();
        volume.put("x", &whole(&manifest));
        volume.put(&name, &saved);
        if is_swept {
            leftovers::sweep(&volume, &[], Spared::Nothing, Duration::from_secs(1 << 31));
            assert_eq!(volume.content(&format!("{name}.1.saved")), Some(saved));
            continue;
        }
        let part = open(&volume, &manifest).unwrap();
        assert_eq!((have(&part).len(), part.unchecked().count(), part.resumed()), (0, 0, 0));
        write_all(&part).unwrap();
        part.finish(&[name_of("x")]).unwrap();
        assert_eq!(volume.content("x"), Some(whole(&manifest)));
        assert_eq!(volume.content(&format!("{name}.1.saved")), Some(saved));
    }
}

#[test]
fn a_seal_is_not_put_on_what_could_change_without_a_trace() {
    let now = || i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let (volume, manifest) = (Memory::new(), manifest(4));
    let name = left_in_order(&volume, &manifest);
    // Whether it is, and its age by then, if it was changed that long after now.
    let believed = |after_ns: i64| {
        let part = open(&volume, &manifest).unwrap();
        recheck(&part);
        let changed = now() + after_ns;
        volume.set_changed(&name, changed);
        part.checkpoint().unwrap();
        let age_ns = now() - changed;
        part.kill();
        (open(&volume, &manifest).unwrap().have_count() == 2, age_ns)
    };
    let (sealed, age_ns) = believed(0);
    assert!(sealed && age_ns >= TICK_MAX.as_nanos() as i64, "a write of this tick leaves the time as it is: {age_ns}");
    assert!(!believed(1_000_000_000_000).0, "the clock that stamps runs ahead of ours");
    assert!(believed(-1_000_000_000).0);
}

/// Cause: a disk that gets full may lose what it took before, without an error. Effect: a part with a hole was believed
/// by the next run, and became a wrong file.
#[test]
fn what_a_full_disk_took_is_checked_when_it_goes_on() {
    let (volume, manifest) = (Memory::new(), manifest(4));
    let chunks = chunks_of(&manifest);
    for is_full in [false, true] {
        let part = open(&volume, &manifest).unwrap();
        recheck(&part);
        write(&part, chunks[usize::from(is_full)]).unwrap();
        if is_full {
            volume.fault_at(1, FaultKind::Full, true);
            write(&part, chunks[2]).unwrap_err();
            volume.mend();
        }
        // What is in the way of one name says nothing of the disk, nor does a name that it does not take.
        for e in [
            StoreError::NameTaken { path: "a".into(), by: "a directory" },
            StoreError::Exists { path: "a".into() },
            StoreError::at("a", rustix::io::Errno::NAMETOOLONG),
        ] {
            part.flusher.told().tell(&e);
        }
        assert_eq!(part.part.doubt.is_any(), is_full);
        drop(part);
        let part = open(&volume, &manifest).unwrap();
        assert_eq!((part.resumed(), part.have_count()), if is_full { (2, 0) } else { (1, 1) });
    }
}

/// Cause: a disk that was full for a moment dropped what it had taken, and told no sync. Effect: the file that was
/// completed in the same run got its name with other bytes. Mend: what was written with little room left, or when
/// the disk had a trouble, is read back before.
#[test]
fn what_a_full_disk_lost_in_the_same_run_gets_no_name() {
    let manifest = manifest(4);
    let chunks = chunks_of(&manifest);
    for (is_scarce, had_trouble, names) in
        [(true, false, &["x"][..]), (false, true, &["x"]), (true, false, &["x", "y"]), (false, false, &["x"])]
    {
        let volume = Memory::new();
        let part = open(&volume, &manifest).unwrap();
        write(&part, chunks[0]).unwrap();
        if is_scarce {
            volume.set_free(SCARCE_ROOM - 1);
        }
        volume.fault_at(1, FaultKind::Losing, false);
        part.part.flush();
        assert!(volume.mend());
        volume.set_free(u64::MAX);
        if had_trouble {
            part.flusher.told().tell(&StoreError::NoSpace { path: "z".into(), needed: 0, free: 0 });
        }
        write_all(&part).unwrap();
        let names: Vec<RelPath> = names.iter().map(|name| name_of(name)).collect();
        let finished = part.finish(&names);
        if !is_scarce && !had_trouble {
            finished.unwrap();
            assert_ne!(volume.content("x").unwrap(), whole(&manifest), "the fault does what it says");
            continue;
        }
        assert!(finished.is_err_and(|e| matches!(e, StoreError::Io { .. })));
        assert_eq!((have(&part), volume.content("x")), (vec![1, 2, 3], None));
        drop(part);
        let part = open(&volume, &manifest).unwrap();
        assert_eq!((part.have_count(), recheck(&part)), (0, 1));
        write_all(&part).unwrap();
        part.finish(&names).unwrap();
        assert!(names.iter().all(|name| volume.content(name.as_str()).unwrap() == whole(&manifest)));
    }
}

/// Cause: a chunk was not looked at again once it was written. Effect: what another program wrote into the part while the
/// rest was fetched got the final name. Mend: the file is read back if somebody else had it open for writing; who only
/// reads it, as the sweep of another fetch does, costs nothing.
#[cfg(target_os = "linux")]
#[test]
fn what_another_program_writes_into_a_part_gets_no_name() {
    let (dir, manifest) = (tempfile::tempdir().unwrap(), manifest(4));
    let volume: Arc<dyn Volume> = Arc::new(DiskVolume::open(dir.path(), false).unwrap());
    let open = || PartialFile::open(volume.clone(), Arc::new(Flusher::without_thread()), manifest.clone()).unwrap();
    let (chunks, place) = (chunks_of(&manifest), dir.path().join("x"));
    let path = volume.path_of_own(&PartNames::new(&manifest.id()).part);
    let write_there = || {
        let other = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&other, b"another", CHUNK_LEN_MIN + 5).unwrap();
    };
    let part = open();
    write_all(&part).unwrap();
    std::fs::read(&path).unwrap();
    leftovers::sweep(&*volume, &[], Spared::Nothing, SystemTime::UNIX_EPOCH.elapsed().unwrap());
    assert!(!part.part.doubt.is_any());
    write_there();
    assert!(part.part.doubt.is_any());
    let failed = part.finish(&[name_of("x")]).unwrap_err();
    assert!(Chain(&failed).to_string().contains("another program"), "{failed}");
    assert!(!place.exists() && have(&part) == [0, 2, 3]);
    drop(part);

    // The journal of a run that ends before proves nothing either.
    let part = open();
    assert_eq!((part.have_count(), recheck(&part)), (0, 1));
    write(&part, chunks[1]).unwrap();
    write_there();
    drop(part);
    let part = open();
    assert_eq!((part.have_count(), recheck(&part)), (0, 1));
    write(&part, chunks[1]).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), whole(&manifest));
}

/// As the copy of a whole file at a further name.
#[test]
fn a_copy_that_a_full_disk_lost_gets_no_name() {
    let (manifest, volume, other) = (manifest(3), Memory::new(), Memory::new());
    let part = open(&volume, &manifest).unwrap();
    write_all(&part).unwrap();
    other.set_free(SCARCE_ROOM - 1);
    other.fault_at(1, FaultKind::Losing, true);
    part.copy_to(&other, &name_of("y")).unwrap_err();
    assert!(other.mend() && other.content("y").is_none() && other.own_names().is_empty());
    part.copy_to(&other, &name_of("y")).unwrap();
    assert_eq!(other.content("y").unwrap(), whole(&manifest));
}

#[test]
fn a_failed_sync_discards_its_batch_and_ends_the_download() {
    let volume = Memory::new();
    let manifest = manifest(4);
    let part = open(&volume, &manifest).unwrap();
    let chunks = chunks_of(&manifest);
    write(&part, chunks[0]).unwrap();
    part.checkpoint().unwrap();
    write(&part, chunks[1]).unwrap();
    volume.break_syncs(true);
    part.part.flush();
    assert_eq!(have(&part), [0]);
    for result in [write(&part, chunks[2]), part.checkpoint(), part.finish(&[name_of("x")])] {
        assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}");
    }
    part.kill();
    volume.break_syncs(false);
    assert_eq!(check_claims(&volume, &manifest, 0).resumed(), 1);
    assert!(volume.content("x").is_none());
}

#[test]
fn what_is_not_whole_gets_no_name() {
    let volume = Memory::new();
    let manifest = manifest(3);
    let part = open(&volume, &manifest).unwrap();
    let first = manifest.geometry().chunk(0).unwrap();
    write(&part, first).unwrap();
    let refused = part.finish(&[name_of("x")]);
    assert!(matches!(refused, Err(StoreError::NotWhole { missing: 2, .. })), "{refused:?}");
    let wrong = part.write(manifest.geometry().chunk(1).unwrap(), &[1; 10]);
    assert!(matches!(wrong, Err(StoreError::Io { .. })), "{wrong:?}");
    write_all(&part).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(volume.content("x"), Some(whole(&manifest)));
    assert!(volume.own_names().is_empty());
}

#[test]
fn a_file_that_somebody_cut_or_replaced_gets_no_name() {
    for replaced in [false, true] {
        let volume = Memory::new();
        let manifest = manifest(2);
        let part = open(&volume, &manifest).unwrap();
        write_all(&part).unwrap();
        if replaced {
            volume.remove_own(&part.part.names.part).unwrap();
            volume.create_own("other").unwrap();
            volume.create_own(&part.part.names.part).unwrap();
        } else {
            part.part.file.set_len(5).unwrap();
        }
        let refused = part.finish(&[name_of("x")]);
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
        assert!(volume.content("x").is_none());
        let read = part.read_at(100, &mut [0; 10]);
        assert!(replaced || matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    }
}

#[test]
fn too_little_space_is_told_before_anything_is_written() {
    let volume = Memory::new();
    volume.set_free(1 << 20);
    let layer = vec![Digest::ZERO; Geometry::new(1 << 40).chunk_count() as usize];
    let root = Root(merkle::root_of_layer(&layer, Geometry::new(1 << 40).chunk_height()));
    let manifest = Arc::new(Manifest::new(FileId { root, len: 1 << 40 }, layer).unwrap());
    match open(&volume, &manifest).unwrap_err() {
        StoreError::NoSpace { needed, free, .. } => assert_eq!((needed, free), (1 << 40, 1 << 20)),
        other => panic!("{other}"),
    }
    assert!(volume.own_names().is_empty());
}

#[test]
fn a_second_opener_is_told_so_until_the_first_lets_go() {
    let volume = Memory::new();
    let manifest = manifest(2);
    let part = open(&volume, &manifest).unwrap();
    assert!(matches!(open(&volume, &manifest), Err(StoreError::Busy { .. })));
    part.kill();
    open(&volume, &manifest).unwrap();
}

#[test]
fn a_finished_or_closed_file_is_not_kept_open_by_the_queue() {
    let volume = Memory::new();
    for finish in [true, false] {
        let file = open(&volume, &manifest(2)).unwrap();
        write_all(&file).unwrap();
        let part = file.part.clone();
        if finish {
            file.finish(&[name_of("x")]).unwrap();
        }
        drop(file);
        assert_eq!(Arc::strong_count(&part), 1);
    }
}

/// A content of six chunks, of which the odd ones and the short last one are zeros.
fn with_zeros() -> (Arc<Manifest>, Vec<u8>) {
    let mut bytes = vec![0; 5 * CHUNK_LEN_MIN as usize + 77];
    for index in [0, 2, 4] {
        bytes[index * CHUNK_LEN_MIN as usize..][..CHUNK_LEN_MIN as usize].fill(index as u8 + 1);
    }
    (manifest_of(&bytes), bytes)
}

fn manifest_of(bytes: &[u8]) -> Arc<Manifest> {
    let geometry = Geometry::new(bytes.len() as u64);
    let digest = |part: &[u8]| merkle::chunk_digest(part, geometry.chunk_height());
    let layer: Vec<Digest> = bytes.chunks(geometry.chunk_len() as usize).map(digest).collect();
    let root = Root(merkle::root_of_layer(&layer, geometry.chunk_height()));
    Arc::new(Manifest::new(FileId { root, len: geometry.len() }, layer).unwrap())
}

fn write_of(file: &PartialFile, bytes: &[u8], index: u32) {
    let index = file.manifest().geometry().chunk(index).unwrap();
    let span = file.manifest().geometry().span(index);
    file.write(index, &bytes[span.offset as usize..][..span.len as usize]).unwrap();
}

#[test]
fn chunks_of_zeros_are_there_and_only_the_rest_needs_room() {
    let (manifest, bytes) = with_zeros();
    let volume = Memory::new();
    volume.set_free(3 * CHUNK_LEN_MIN - 1);
    let full = open(&volume, &manifest).unwrap_err();
    assert!(matches!(full, StoreError::NoSpace { needed, .. } if needed == 3 * CHUNK_LEN_MIN), "{full:?}");
    volume.set_free(3 * CHUNK_LEN_MIN);
    let file = open(&volume, &manifest).unwrap();
    // A disk with so little left is not trusted.
    volume.set_free(u64::MAX);
    assert_eq!((have(&file), file.resumed(), file.unchecked().count()), (vec![1, 3, 5], 0, 0));
    write_of(&file, &bytes, 2);
    file.checkpoint().unwrap();
    drop(file);
    let file = open(&volume, &manifest).unwrap();
    assert_eq!((have(&file), file.resumed(), file.unchecked().count()), (vec![1, 2, 3, 5], 1, 0), "sealed");
    [0, 4].into_iter().for_each(|index| write_of(&file, &bytes, index));
    file.finish(&[name_of("x")]).unwrap();
    assert!(volume.content("x").unwrap() == bytes);
}

#[test]
fn chunks_of_zeros_are_checked_where_another_program_may_have_written() {
    let (manifest, bytes) = with_zeros();
    let volume = Memory::new();
    let file = open(&volume, &manifest).unwrap();
    write_of(&file, &bytes, 0);
    file.checkpoint().unwrap();
    drop(file);
    let own = own_name(&PartNames::new(&manifest.id()).part);
    volume.flip(&own, CHUNK_LEN_MIN as usize + 5);
    let file = open(&volume, &manifest).unwrap();
    assert_eq!((have(&file), file.unchecked().iter().collect::<Vec<_>>()), (vec![], vec![0, 1, 3, 5]));
    assert_eq!((recheck(&file), have(&file)), (0, vec![0, 1, 3, 5]), "and made zeros where they were not");
    [2, 4].into_iter().for_each(|index| write_of(&file, &bytes, index));
    file.finish(&[name_of("x")]).unwrap();
    assert!(volume.content("x").unwrap() == bytes);
}

fn source(volume: &Memory, name: &str, bytes: &[u8]) -> ReuseSource {
    volume.put(name, bytes);
    ReuseSource::new(volume.open_name(name).unwrap().unwrap(), bytes.len() as u64)
}

#[test]
fn chunks_that_an_older_version_has_at_their_place_are_taken_from_it() {
    let (manifest, bytes) = with_zeros();
    let volume = Memory::new();
    // Chunk 0 is as it was, 2 is not, 4 lies in the file only in part, and zeros are not looked at.
    let mut old = bytes[..4 * CHUNK_LEN_MIN as usize + 9].to_vec();
    old[2 * CHUNK_LEN_MIN as usize + 5] ^= 1;
    old[CHUNK_LEN_MIN as usize] = 1;
    let file = open(&volume, &manifest).unwrap();
    let found = file.reuse(vec![source(&volume, "old", &old), source(&volume, "older", &bytes[..1000])]);
    assert_eq!(found.iter().collect::<Vec<_>>(), [0, 2]);
    let checked = file.recheck(u64::MAX);
    let results: Vec<_> = checked.iter().map(|c| (c.index.get(), c.right, c.origin)).collect();
    assert_eq!(results, [(0, true, ChunkOrigin::Reused), (2, false, ChunkOrigin::Reused)]);
    assert_eq!((have(&file), file.recheck(u64::MAX)), (vec![0, 1, 3, 5], vec![]));
    [2, 4].into_iter().for_each(|index| write_of(&file, &bytes, index));
    file.finish(&[name_of("old")]).unwrap();
    assert!(volume.content("old").unwrap() == bytes);
}

/// The layer of a file stands for its bytes as long as nobody touched it; then each chunk is read.
#[test]
fn chunks_of_a_file_that_nobody_touched_are_known_by_its_layer() {
    let (manifest, bytes) = with_zeros();
    let mut old = bytes.clone();
    old[2 * CHUNK_LEN_MIN as usize + 5] ^= 1;
    let layer = manifest_of(&old);
    for touched in [None, Some(false), Some(true)] {
        let volume = Memory::new();
        // Bytes that are not what the layer says: only what is not read passes for it.
        let mut wrong = old.clone();
        wrong[7] ^= 1;
        volume.put("old", &wrong);
        let there = volume.open_name("old").unwrap().unwrap();
        let known = ReuseSource::new(there.clone(), wrong.len() as u64);
        let known = known.with_layer(Some((*layer).clone()), there.stat().unwrap().stamp);
        let file = open(&volume, &manifest).unwrap();
        // Before it is asked for, and afterwards.
        let touch = || there.write_at(9, &[5]).unwrap();
        if touched == Some(false) {
            touch();
        }
        assert_eq!(file.reuse(vec![known]).iter().collect::<Vec<_>>(), [0, 4], "2 is not looked at");
        if touched == Some(true) {
            touch();
        }
        let results: Vec<_> = file.recheck(u64::MAX).iter().map(|c| (c.index.get(), c.right)).collect();
        assert_eq!(results, [(0, touched.is_none()), (4, true)], "touched {touched:?}");
        assert_eq!(file.has(chunks_of(&manifest)[0]), touched.is_none());
    }
}

/// Chunks that are known and follow one another are copied at once; one that came another way meanwhile is not
/// written over, since the old version may change under the copy.
#[test]
fn known_chunks_are_taken_in_runs() {
    let mut bytes = vec![0; 70 * CHUNK_LEN_MIN as usize];
    bytes.chunks_mut(CHUNK_LEN_MIN as usize).enumerate().for_each(|(n, chunk)| chunk.fill(n as u8 + 1));
    let manifest = manifest_of(&bytes);
    let mut old = bytes.clone();
    old[5 * CHUNK_LEN_MIN as usize] ^= 1;
    for came in [None, Some(10)] {
        let volume = Memory::new();
        let known = source(&volume, "old", &old);
        let there = volume.open_name("old").unwrap().unwrap();
        let known = known.with_layer(Some((*manifest_of(&old)).clone()), there.stat().unwrap().stamp);
        let file = open(&volume, &manifest).unwrap();
        assert_eq!(file.reuse(vec![known]).count(), 69);
        came.into_iter().for_each(|index| write_of(&file, &bytes, index));
        let turns: Vec<Vec<u32>> = std::iter::from_fn(|| {
            Some(file.recheck(1)).filter(|turn| !turn.is_empty()).map(|turn| {
                assert!(turn.iter().all(|chunk| chunk.right && chunk.origin == ChunkOrigin::Reused));
                turn.iter().map(|chunk| chunk.index.get()).collect()
            })
        })
        .collect();
        let run_max = (COPY_RUN_LEN / CHUNK_LEN_MIN) as u32;
        let runs: &[std::ops::Range<u32>] = match came {
            None => &[0..5, 6..6 + run_max, 6 + run_max..6 + 2 * run_max],
            Some(_) => &[0..5, 6..10, 10..11, 11..11 + run_max, 11 + run_max..70],
        };
        assert_eq!(turns, runs.iter().map(|run| run.clone().collect()).collect::<Vec<Vec<u32>>>());
        write_of(&file, &bytes, 5);
        file.checkpoint().unwrap();
        drop(file);
        let file = open(&volume, &manifest).unwrap();
        assert_eq!((have(&file).len(), file.unchecked().count()), (70, 0), "journaled");
        file.finish(&[name_of("new")]).unwrap();
        assert!(volume.content("new").unwrap() == bytes);
    }
}

/// An older version that a program writes to while it is read.
#[derive(Debug)]
struct TouchedFile {
    file: Arc<dyn Storage>,
    reads_left: AtomicU32,
}

const TOUCHED_CHUNK: u32 = 3;

impl Storage for TouchedFile {
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_some(offset, bytes)
    }

    fn read_some(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.reads_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.file.write_at(u64::from(TOUCHED_CHUNK) * CHUNK_LEN_MIN + 5, b"of the user")?;
        }
        self.file.read_some(offset, into)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64, ranges: &[Range<u64>]) -> io::Result<bool> {
        self.file.reserve(len, ranges)
    }

    fn make_hole(&self, range: Range<u64>) -> io::Result<()> {
        self.file.make_hole(range)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }

    fn try_lock(&self) -> io::Result<FileLock> {
        self.file.try_lock()
    }

    fn unlock(&self) {
        self.file.unlock();
    }
}

/// What is written to an older version while a run of it is copied gets into no chunk.
#[test]
fn a_run_whose_source_changes_meanwhile_is_read_and_hashed() {
    let mut bytes = vec![0; 20 * CHUNK_LEN_MIN as usize];
    bytes.chunks_mut(CHUNK_LEN_MIN as usize).enumerate().for_each(|(n, chunk)| chunk.fill(n as u8 + 1));
    let manifest = manifest_of(&bytes);
    let mut old = bytes.clone();
    old[5 * CHUNK_LEN_MIN as usize] ^= 1;
    // The first run, before chunk 5, takes two reads.
    for at in 1..6 {
        let volume = Memory::new();
        volume.put("old", &old);
        let file = volume.open_name("old").unwrap().unwrap();
        let stamp = file.stat().unwrap().stamp;
        let touched = Arc::new(TouchedFile { file, reads_left: AtomicU32::new(at) });
        let known = ReuseSource::new(touched, old.len() as u64).with_layer(Some((*manifest_of(&old)).clone()), stamp);
        let file = open(&volume, &manifest).unwrap();
        assert_eq!(file.reuse(vec![known]).count(), 19);
        let checked = file.recheck(u64::MAX);
        assert_eq!(checked.len(), 19);
        for chunk in checked {
            let index = chunk.index.get();
            assert_eq!(chunk.right, index != TOUCHED_CHUNK || at > 2, "read {at}, chunk {index}");
            if !chunk.right {
                write_of(&file, &bytes, index);
            }
        }
        write_of(&file, &bytes, 5);
        file.finish(&[name_of("new")]).unwrap();
        assert!(volume.content("new").unwrap() == bytes, "read {at}");
    }
}

/// The chunks of a longer file may be twice as long.
#[test]
fn chunks_are_taken_from_a_file_that_has_shorter_ones() {
    let volume = Memory::new();
    let chunk_len = 2 * CHUNK_LEN_MIN as usize;
    let mut bytes = vec![0; 4097 * CHUNK_LEN_MIN as usize];
    bytes[..chunk_len].fill(1);
    bytes[chunk_len..2 * chunk_len].fill(2);
    let (manifest, old) = (manifest_of(&bytes), &bytes[..4 * CHUNK_LEN_MIN as usize - 1]);
    assert_eq!(manifest.geometry().chunk_len(), chunk_len as u64);
    let file = open(&volume, &manifest).unwrap();
    assert_eq!(file.reuse(vec![source(&volume, "old", old)]).iter().collect::<Vec<_>>(), [0]);
    assert!(
        file.recheck(u64::MAX).iter().all(|chunk| chunk.right)
            && file.has(file.manifest().geometry().chunk(0).unwrap())
    );
}
