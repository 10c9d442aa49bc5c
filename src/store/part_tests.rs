//! Partial files on a volume that forgets what was not synced.

use std::sync::Arc;

use super::*;
use crate::content::{Digest, Root};
use crate::limits::CHUNK_LEN_MIN;
use crate::store::memory::{Memory, Rng, own_name};

const LAST_LEN: u64 = 77;

fn id(chunks: u64) -> FileId {
    FileId { root: Root(Digest([9; 32])), len: (chunks - 1) * CHUNK_LEN_MIN + LAST_LEN }
}

/// What chunk `index` holds; never the zeros of a hole.
fn chunk(id: &FileId, index: ChunkIndex) -> Vec<u8> {
    vec![index.get() as u8 + 1; Geometry::new(id.len).span(index).len as usize]
}

fn whole(id: &FileId) -> Vec<u8> {
    Geometry::new(id.len).chunks().flat_map(|c| chunk(id, c)).collect()
}

fn open(volume: &Memory, id: FileId) -> Result<Arc<Part>, StoreError> {
    Part::open(Arc::new(volume.clone()), Arc::new(Budget::default()), id)
}

fn write_all(part: &Arc<Part>) -> Result<(), StoreError> {
    part.geometry.chunks().try_for_each(|c| part.write(c, &chunk(&part.id, c)))
}

fn name_of(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// Checks what is unchecked; how many chunks were wrong.
fn recheck(part: &Part) -> u32 {
    let mut wrong = 0;
    while let Some(index) = part.next_unchecked() {
        let span = part.geometry.span(index);
        let mut bytes = vec![0; span.len as usize];
        let right = part.read_at(span.offset, &mut bytes).is_ok() && bytes == chunk(&part.id, index);
        part.checked(index, right);
        wrong += u32::from(!right);
    }
    wrong
}

fn have(part: &Part) -> Vec<u32> {
    part.came(|c| c.have().iter().collect())
}

/// Opens the file again and checks that every chunk which is believed without a look is there.
fn check_claims(volume: &Memory, id: FileId, seed: u64) -> Arc<Part> {
    let part = open(volume, id).unwrap();
    for index in part.geometry.chunks().filter(|c| part.came(|a| a.have().contains(*c))) {
        let span = part.geometry.span(index);
        let mut bytes = vec![0; span.len as usize];
        part.read_at(span.offset, &mut bytes).unwrap();
        assert!(bytes == chunk(&id, index), "seed {seed}: chunk {} is believed and not there", index.get());
    }
    part
}

/// Downloads in random order with random flushes, until it is done or the power fails.
fn download(part: &Arc<Part>, rng: &mut Rng, paths: &[RelPath]) -> Result<(), StoreError> {
    recheck(part);
    let mut missing: Vec<ChunkIndex> =
        part.geometry.chunks().filter(|c| !part.came(|a| a.have().contains(*c))).collect();
    while !missing.is_empty() {
        let index = missing.swap_remove(rng.below(missing.len() as u64) as usize);
        part.write(index, &chunk(&part.id, index))?;
        match rng.below(4) {
            0 => part.flush(),
            1 => part.checkpoint()?,
            _ => (),
        }
    }
    part.finish(paths)
}

#[test]
fn wherever_the_power_fails_claims_are_true_and_final_names_whole() {
    let (mut resumed, mut believed, mut wrong, mut finished) = (0, 0, 0, 0);
    for seed in 0..250 {
        let mut rng = Rng(seed);
        let id = id(2 + rng.below(4));
        let paths = [name_of("d/final"), name_of("twin")];
        let paths = &paths[..1 + rng.below(2) as usize];
        let mut volume = Memory::new();
        paths.iter().for_each(|p| volume.put(p.as_str(), b"old"));
        // Several failures one after the other, by power or by kill; then one run to the end.
        for _ in 0..1 + rng.below(3) {
            volume.cut_after(1 + rng.below(30));
            let done = open(&volume, id).and_then(|part| {
                let done = download(&part, &mut rng, paths);
                if done.is_err() && rng.below(2) == 0 {
                    let _ = part.checkpoint();
                }
                done
            });
            let killed = rng.below(2) == 0;
            volume = if killed { volume.after_kill() } else { volume.after_power_loss(&mut rng) };
            for path in paths {
                let found = volume.content(path.as_str()).unwrap();
                assert!(found == b"old" || found == whole(&id), "seed {seed}: {path} is neither old nor whole");
                assert!(done.is_err() || found == whole(&id), "seed {seed}: {path} was said to be durable");
            }
            let own = own_name(&Names::new(&id).part);
            if rng.below(2) == 0 && volume.content(&own).is_some_and(|bytes| bytes.len() as u64 == id.len) {
                volume.flip(&own, rng.below(id.len) as usize);
            }
            let part = check_claims(&volume, id, seed);
            (resumed, believed) = (resumed + part.resumed(), believed + have(&part).len());
            wrong += recheck(&part);
            finished += u32::from(done.is_ok());
            if rng.below(2) == 0 {
                part.checkpoint().unwrap();
            }
            part.close();
            drop(part);
        }
        let part = check_claims(&volume, id, seed);
        download(&part, &mut rng, paths).unwrap();
        paths.iter().for_each(|p| assert!(volume.content(p.as_str()) == Some(whole(&id)), "seed {seed}: {p}"));
    }
    let all = [resumed, believed as u32, wrong, finished];
    assert!(all.iter().all(|n| *n > 25), "the runs end too early or too late: {all:?}");
}

#[test]
fn a_journal_left_behind_never_speaks_for_a_new_file_with_the_same_inode() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let id = id(3);
        let volume = Memory::new();
        let part = open(&volume, id).unwrap();
        write_all(&part).unwrap();
        part.checkpoint().unwrap();
        let inode = part.inode;
        part.close();
        volume.remove_own(&part.names.part).unwrap();
        volume.sync_own().unwrap();
        assert!(volume.content(&own_name(&part.names.journal)).is_some());

        volume.cut_after(1 + rng.below(8));
        if let Ok(part) = open(&volume, id) {
            assert_eq!((part.inode, part.resumed()), (inode, 0), "seed {seed}: the number is not given out again");
        }
        let volume = volume.after_power_loss(&mut rng);
        check_claims(&volume, id, seed);
    }
}

#[test]
fn a_killed_download_resumes_with_what_was_journaled() {
    let volume = Memory::new();
    let id = id(5);
    let part = open(&volume, id).unwrap();
    let chunks: Vec<ChunkIndex> = part.geometry.chunks().collect();
    part.write(chunks[4], &chunk(&id, chunks[4])).unwrap();
    part.write(chunks[1], &chunk(&id, chunks[1])).unwrap();
    part.checkpoint().unwrap();
    part.write(chunks[0], &chunk(&id, chunks[0])).unwrap();
    assert_eq!(part.came(|c| c.have().iter().collect::<Vec<_>>()), [0, 1, 4]);

    let part = check_claims(&volume.after_kill(), id, 0);
    assert_eq!((part.resumed(), have(&part).len()), (2, 0), "nothing is believed before it is checked");
    assert_eq!((recheck(&part), have(&part)), (0, vec![1, 4]));
}

/// A part with two chunks of four, left in order.
fn left_in_order(volume: &Memory, id: FileId) -> String {
    let part = open(volume, id).unwrap();
    let chunks: Vec<ChunkIndex> = part.geometry.chunks().collect();
    part.write(chunks[3], &chunk(&id, chunks[3])).unwrap();
    part.write(chunks[1], &chunk(&id, chunks[1])).unwrap();
    part.checkpoint().unwrap();
    part.close();
    own_name(&part.names.part)
}

#[test]
fn a_part_left_in_order_is_believed_until_it_is_touched() {
    let (volume, id) = (Memory::new(), id(4));
    let name = left_in_order(&volume, id);
    for _ in 0..2 {
        let part = open(&volume, id).unwrap();
        assert_eq!((have(&part), part.next_unchecked()), (vec![1, 3], None), "nothing was written meanwhile");
        part.close();
    }
    volume.flip(&name, (CHUNK_LEN_MIN + 5) as usize);
    let part = open(&volume, id).unwrap();
    assert_eq!((have(&part).len(), part.unchecked().iter().collect::<Vec<_>>()), (0, vec![1, 3]));
    assert!(matches!(part.finish(&[name_of("x")]), Err(StoreError::NotWhole { missing: 4, .. })));
    // A check that was interrupted proves nothing: the next run begins again.
    part.checked(part.next_unchecked().unwrap(), false);
    part.checkpoint().unwrap();
    part.close();
    let part = open(&volume, id).unwrap();
    assert_eq!((recheck(&part), have(&part)), (1, vec![3]));
    part.checkpoint().unwrap();
    part.close();
    // What was found wrong is not claimed again, although the records still name it.
    let part = open(&volume, id).unwrap();
    assert_eq!((have(&part), part.next_unchecked()), (vec![3], None));
    write_all(&part).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(volume.content("x"), Some(whole(&id)));
}

#[test]
fn a_seal_is_not_put_on_what_could_change_without_a_trace() {
    let now = || i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let (volume, id) = (Memory::new(), id(4));
    let name = left_in_order(&volume, id);
    let believed = |changed: i64| {
        let part = open(&volume, id).unwrap();
        recheck(&part);
        volume.set_changed(&name, changed);
        let begun = now();
        part.checkpoint().unwrap();
        let sealed_at = now();
        part.close();
        let part = open(&volume, id).unwrap();
        part.close();
        (have(&part).len() == 2, Duration::from_nanos((sealed_at - begun) as u64))
    };
    let (sealed, waited) = believed(now());
    assert!(sealed && waited >= TICK_MAX / 2, "a write of this tick would leave the time as it is: {waited:?}");
    assert!(!believed(now() + 1_000_000_000_000).0, "the clock that stamps runs ahead of ours");
    assert!(believed(now() - 1_000_000_000).0);
}

#[test]
fn a_failed_sync_discards_its_batch_and_ends_the_download() {
    let volume = Memory::new();
    let id = id(4);
    let part = open(&volume, id).unwrap();
    let chunks: Vec<ChunkIndex> = part.geometry.chunks().collect();
    part.write(chunks[0], &chunk(&id, chunks[0])).unwrap();
    part.checkpoint().unwrap();
    part.write(chunks[1], &chunk(&id, chunks[1])).unwrap();
    volume.break_syncs(true);
    part.flush();
    assert_eq!(part.came(|c| c.have().iter().collect::<Vec<_>>()), [0]);
    for result in [part.write(chunks[2], &chunk(&id, chunks[2])), part.checkpoint(), part.finish(&[name_of("x")])] {
        assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}");
    }
    part.close();
    volume.break_syncs(false);
    assert_eq!(check_claims(&volume, id, 0).resumed(), 1);
    assert!(volume.content("x").is_none());
}

#[test]
fn what_is_not_whole_gets_no_name() {
    let volume = Memory::new();
    let id = id(3);
    let part = open(&volume, id).unwrap();
    let first = part.geometry.chunk(0).unwrap();
    part.write(first, &chunk(&id, first)).unwrap();
    let refused = part.finish(&[name_of("x")]);
    assert!(matches!(refused, Err(StoreError::NotWhole { missing: 2, .. })), "{refused:?}");
    let wrong = part.write(part.geometry.chunk(1).unwrap(), &[1; 10]);
    assert!(matches!(wrong, Err(StoreError::Io { .. })), "{wrong:?}");
    write_all(&part).unwrap();
    part.finish(&[name_of("x")]).unwrap();
    assert_eq!(volume.content("x"), Some(whole(&id)));
    assert!(volume.own_names().is_empty());
}

#[test]
fn a_file_that_somebody_cut_or_replaced_gets_no_name() {
    for replaced in [false, true] {
        let volume = Memory::new();
        let id = id(2);
        let part = open(&volume, id).unwrap();
        write_all(&part).unwrap();
        if replaced {
            volume.remove_own(&part.names.part).unwrap();
            volume.create_own("other").unwrap();
            volume.create_own(&part.names.part).unwrap();
        } else {
            part.file.set_len(5).unwrap();
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
    let id = FileId { len: 1 << 40, ..id(1) };
    match open(&volume, id).unwrap_err() {
        StoreError::NoSpace { needed, free, .. } => assert_eq!((needed, free), (1 << 40, 1 << 20)),
        other => panic!("{other}"),
    }
    assert!(volume.own_names().is_empty());
}

#[test]
fn a_second_opener_is_told_so_until_the_first_lets_go() {
    let volume = Memory::new();
    let id = id(2);
    let part = open(&volume, id).unwrap();
    assert!(matches!(open(&volume, id), Err(StoreError::Busy { .. })));
    part.close();
    open(&volume, id).unwrap();
}

#[test]
fn a_finished_or_closed_file_is_not_kept_open_by_the_queue() {
    let volume = Memory::new();
    for finish in [true, false] {
        let part = open(&volume, id(2)).unwrap();
        write_all(&part).unwrap();
        if finish {
            part.finish(&[name_of("x")]).unwrap();
        } else {
            part.close();
        }
        assert_eq!(Arc::strong_count(&part), 1);
    }
}
