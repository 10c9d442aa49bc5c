//! The state of a download without any I/O.

use std::time::Duration;

use super::*;
use crate::content::{Digest, Root};
use crate::identity::{NodeId, PeerId};
use crate::limits::LOCATE_FILES_MAX;
use crate::limits::SMALL_FILES_LEN_MAX;
use crate::swarm::download::limits::{
    HAVE_POLL_MAX, HAVE_POLL_MIN, HOLDERS_ENOUGH, LAYER_ASKED_MIN, LAYER_BUSY_MAX, LAYER_PATIENCE, LOCATE_POLL_MIN,
    PEERS_POLL_MAX, PEERS_POLL_MIN,
};
use crate::swarm::download::picker::ReadWindow;
use crate::swarm::download::task::{AnyOfTask, ChunkTask, LayerTask, SmallTask, Task};

const CHUNK: u64 = 256 << 10;

fn ids(lens: &[u64]) -> Vec<FileId> {
    (1..).zip(lens).map(|(i, &len)| FileId { root: Root(Digest([i; 32])), len }).collect()
}

fn key(n: u8) -> NodeId {
    NodeId::new(PeerId([n; 32]), n as u64)
}

/// A state whose files are all wanted and held whole by `peers` peers.
fn state(lens: &[u64], peers: u8) -> (DownloadState<()>, Vec<PeerHandle>) {
    let mut s = DownloadState::new(&ids(lens), 1);
    let handles: Vec<_> = (0..peers).map(|n| s.peer(key(n)).unwrap()).collect();
    for file in 0..lens.len() as FileNo {
        handles.iter().for_each(|&h| s.set_held(file, h, Extent::Whole));
        s.checked(file, false);
    }
    (s, handles)
}

/// What `peer` is asked for next, other than whom it knows.
fn next(s: &mut DownloadState<()>, peer: PeerHandle, now: Instant) -> Option<Task<()>> {
    std::iter::from_fn(|| s.next_task(peer, now, true)).find(|work| !matches!(work, Task::Peers { .. }))
}

fn any_of(task: &Task<()>) -> &AnyOfTask<()> {
    match task {
        Task::AnyOf(task) => task,
        other => panic!("{other:?}"),
    }
}

/// The chunk that is asked for, and its file.
fn chunk(task: &Task<()>) -> (u32, FileNo) {
    match task {
        Task::Chunk(task) => (task.index.get(), task.file),
        other => panic!("{other:?}"),
    }
}

fn open(s: &mut DownloadState<()>, file: FileNo) {
    assert!(s.layer_came(file));
    let count = Geometry::new(s.id(file).len).chunk_count();
    assert!(!s.opened(file, (), &Bitfield::empty(count), &Bitfield::empty(count)));
}

/// Peers that drip a layer held it up for ever once two of them were asked. Now a further holder is
/// asked after a while, up to a bound, and sooner one that has given a chunk.
fn is_asked_for_layer(s: &mut DownloadState<()>, peer: PeerHandle, now: Instant) -> bool {
    matches!(next(s, peer, now), Some(Task::Layer(_)))
}

/// When each of `p` is asked, if none sends anything.
fn layer_asks(s: &mut DownloadState<()>, p: &[PeerHandle], mut now: Instant) -> Vec<Instant> {
    let (begin, mut asked) = (now, Vec::new());
    while asked.len() < p.len() && now < begin + LAYER_PATIENCE * 20 {
        let peer = p[asked.len()];
        if is_asked_for_layer(s, peer, now) {
            assert!(!is_asked_for_layer(s, peer, now + LAYER_PATIENCE * 2), "never twice at once");
            asked.push(now);
        }
        now += Duration::from_millis(5);
    }
    asked
}

/// Sixteen holders that sent nothing left no turn to an honest one.
#[test]
fn a_layer_is_asked_of_one_holder_after_the_other_until_one_sends_it() {
    let (mut s, p) = state(&[3 * CHUNK], 64);
    let asked = layer_asks(&mut s, &p, Instant::now());
    assert_eq!(asked.len(), 64, "each connection may ask");
    assert!(asked[1] - asked[0] > LAYER_PATIENCE && asked[2] - asked[1] > LAYER_PATIENCE);
    assert!(asked.windows(2).skip(2).all(|w| w[1] - w[0] > LAYER_PATIENCE / 64));
    assert!(asked[63] - asked[0] < LAYER_PATIENCE * 7, "{:?}", asked[63] - asked[0]);
    // A long layer is not asked of all at once.
    let (mut s, p) = state(&[4 << 40], 64);
    assert_eq!(layer_asks(&mut s, &p, Instant::now()).len(), LAYER_ASKED_MIN);
}

/// Those that had failed were dialed again and took each turn.
#[test]
fn holders_that_did_not_send_a_layer_come_after_those_that_were_not_asked() {
    let (mut s, p) = state(&[3 * CHUNK], 20);
    let now = *layer_asks(&mut s, &p[..10], Instant::now()).last().unwrap();
    let task = Task::Layer(LayerTask { file: 0, id: s.id(0), digests: Vec::new() });
    for &peer in &p[..5] {
        s.give_back(&task, peer);
    }
    let soon = now + LAYER_PATIENCE / 3;
    assert!(!is_asked_for_layer(&mut s, p[0], soon) && is_asked_for_layer(&mut s, p[10], soon));
    let (mut last, mut late) = (soon, soon + LAYER_PATIENCE * 2);
    assert!(!is_asked_for_layer(&mut s, p[0], late));
    late += Duration::from_millis(1);
    assert!(is_asked_for_layer(&mut s, p[0], late), "where there is no other, in the end");
    // Of those, only so many that there is room for others.
    for &peer in &p[1..5] {
        last = late;
        late += LAYER_PATIENCE * 3;
        is_asked_for_layer(&mut s, peer, late);
    }
    assert!(!is_asked_for_layer(&mut s, p[4], late + LAYER_PATIENCE * 9), "{last:?}");
    assert!(is_asked_for_layer(&mut s, p[11], late + LAYER_PATIENCE));
    // When all have failed, each may be asked at once.
    for &peer in &p {
        s.give_back(&task, peer);
    }
    assert!(is_asked_for_layer(&mut s, p[2], late));
}

#[test]
fn a_peer_that_has_given_something_is_asked_for_a_layer_sooner() {
    let (mut s, p) = state(&[1000, 3 * CHUNK], 3);
    let now = Instant::now();
    assert!(matches!(next(&mut s, p[0], now), Some(Task::Layer(_))));
    assert!(matches!(next(&mut s, p[1], now), Some(Task::Small(_))));
    assert!(s.small_came(0, p[1], now));
    let soon = now + LAYER_PATIENCE * 2 / 3;
    assert_eq!(next(&mut s, p[2], soon), None);
    assert!(matches!(next(&mut s, p[1], soon), Some(Task::Layer(_))));
}

#[test]
fn another_holder_is_one_that_has_the_chunk() {
    let (mut s, p) = state(&[3 * CHUNK], 1);
    assert!(!s.is_held_elsewhere(0, Some(1), p[0]), "a lone holder is kept, however slow");
    let other = s.peer(key(9)).unwrap();
    let Some(Task::Layer(_)) = next(&mut s, p[0], Instant::now()) else { panic!() };
    open(&mut s, 0);
    s.set_held(0, other, Extent::Partial);
    let mut bits = Bitfield::empty(3);
    bits.insert(Geometry::new(3 * CHUNK).chunk(1).unwrap());
    s.set_chunks(0, other, 1, Chunks::These(&bits));
    assert!(s.is_held_elsewhere(0, Some(1), p[0]));
    assert!(!s.is_held_elsewhere(0, Some(2), p[0]) && !s.is_held_elsewhere(0, None, p[0]));
    assert!(s.is_held_elsewhere(0, Some(2), other));
}

#[test]
fn a_file_goes_from_list_to_chunks_to_done() {
    let (mut s, p) = state(&[3 * CHUNK], 2);
    let now = Instant::now();
    let Some(Task::Layer(LayerTask { file: 0, .. })) = next(&mut s, p[0], now) else { panic!() };
    assert_eq!(next(&mut s, p[1], now), None, "one list is enough");
    let late = now + LAYER_PATIENCE * 2;
    assert!(matches!(next(&mut s, p[1], late), Some(Task::Layer(_))), "unless it does not come");
    open(&mut s, 0);
    assert!(!s.layer_came(0), "the second list is not used");
    let mut left = 3;
    while let Some(Task::Chunk(ChunkTask { file, index, .. })) = next(&mut s, p[left % 2], now) {
        left -= 1;
        assert_eq!(s.chunk_came(file, index.get(), p[left % 2], now), ChunkCame { fresh: true, whole: left == 0 });
        assert!(!s.chunk_came(file, index.get(), p[0], now).fresh, "twice is waste");
    }
    assert_eq!(left, 0);
    assert!(s.disk_is_busy() && s.unfinished() == 1);
    s.finished(0);
    assert_eq!((s.unfinished(), s.useful(p[0]), s.useful(p[1])), (0, 0, 0));
}

#[test]
fn a_resumed_file_is_whole_when_its_chunks_are_verified() {
    let (mut s, p) = state(&[3 * CHUNK], 2);
    let now = Instant::now();
    assert!(matches!(next(&mut s, p[0], now), Some(Task::Layer(_))) && s.layer_came(0));
    assert!(!s.opened(0, (), &Bitfield::empty(3), &Bitfield::full(3)));
    assert_eq!(next(&mut s, p[0], now), None, "none is missing");
    assert!(s.disk_is_busy() && !s.is_wanted(0, 1));
    assert!(!s.rechecked(0, 0, true) && !s.rechecked(0, 1, false));
    let Some(Task::Chunk(ChunkTask { index, .. })) = next(&mut s, p[0], now) else { panic!() };
    assert_eq!((index.get(), s.chunk_came(0, 1, p[0], now).fresh), (1, true));
    assert!(s.rechecked(0, 2, true), "the last one makes it whole");
    assert!(!s.rechecked(0, 2, true), "once");
}

#[test]
fn small_files_need_no_list_and_stay_within_their_memory() {
    let n = 200;
    let (mut s, p) = state(&vec![CHUNK; n], 1);
    let now = Instant::now();
    let mut works = Vec::new();
    while let Some(work) = next(&mut s, p[0], now) {
        works.push(work);
    }
    assert!(works.len() >= 30 && works.len() as u64 * CHUNK <= SMALL_FILES_LEN_MAX + CHUNK, "{}", works.len());
    s.give_back(&works.pop().unwrap(), p[0]);
    let mut done = 0;
    while s.unfinished() > 0 {
        for work in works.drain(..) {
            let Task::Small(SmallTask { file, .. }) = work else { panic!() };
            assert!(s.small_came(file, p[0], now));
            s.small_written(file);
            done += 1;
        }
        works.extend(std::iter::from_fn(|| next(&mut s, p[0], now)));
    }
    assert_eq!(done, n);
    assert_eq!((s.small.len, s.small.writing), (0, 0));
}

#[test]
fn files_wait_for_their_check_and_are_started_in_order() {
    let mut s: DownloadState<()> = DownloadState::new(&ids(&[2 * CHUNK, 2 * CHUNK, 10, 0]), 1);
    let p = s.peer(key(1)).unwrap();
    (0..4).for_each(|f| s.set_held(f, p, Extent::Whole));
    let now = Instant::now();
    assert_eq!(next(&mut s, p, now), None);
    s.checked(0, true);
    s.checked(1, false);
    assert!(matches!(next(&mut s, p, now), Some(Task::Layer(LayerTask { file: 1, .. }))));
    assert!(s.disk_is_busy(), "two are not checked");
    s.checked(2, false);
    s.checked(3, false);
    assert!(matches!(next(&mut s, p, now), Some(Task::Small(SmallTask { file: 2, .. }))));
    s.small_written(3);
    assert_eq!(s.unfinished(), 2);
}

#[test]
fn a_liar_holds_nothing_and_its_chunks_are_asked_of_others() {
    let (mut s, p) = state(&[2 * CHUNK, 100], 2);
    let now = Instant::now();
    open_by(&mut s, p[0], now);
    let got: Vec<_> = std::iter::from_fn(|| next(&mut s, p[0], now)).collect();
    assert_eq!(got.len(), 3);
    s.forget(p[0]);
    assert_eq!((s.useful(p[0]), next(&mut s, p[0], now)), (0, None));
    let again: Vec<_> = std::iter::from_fn(|| next(&mut s, p[1], now)).collect();
    assert_eq!(again.len(), 3, "{again:?}");
    assert!(s.pending().all(|(_, _, holders)| holders == 1));
}

fn open_by(s: &mut DownloadState<()>, peer: PeerHandle, now: Instant) {
    while let Some(work) = next(s, peer, now) {
        match work {
            Task::Layer(LayerTask { file, .. }) => open(s, file),
            other => {
                s.give_back(&other, peer);
                return;
            }
        }
    }
}

#[test]
fn partial_holders_are_asked_what_they_have_and_grow() {
    let (mut s, p) = state(&[4 * CHUNK], 1);
    let now = Instant::now();
    open_by(&mut s, p[0], now);
    let part = s.peer(key(9)).unwrap();
    s.set_held(0, part, Extent::Partial);
    assert!(matches!(next(&mut s, part, now), Some(Task::Have { revision: 0, .. })));
    assert_eq!(next(&mut s, part, now), None);
    let mut bits = Bitfield::empty(4);
    bits.insert(Geometry::new(4 * CHUNK).chunk(2).unwrap());
    s.set_chunks(0, part, 5, Chunks::These(&bits));
    let Some(Task::Chunk(ChunkTask { index, .. })) = next(&mut s, part, now) else { panic!() };
    assert_eq!(index.get(), 2);
    assert_eq!(next(&mut s, part, now), None);
    let later = now + HAVE_POLL_MIN;
    assert!(matches!(next(&mut s, part, later), Some(Task::Have { revision: 5, .. })));
    s.set_chunks(0, part, 6, Chunks::More(&[0, 99]));
    assert!(matches!(next(&mut s, part, later), Some(Task::Chunk(_))));
    s.set_chunks(0, part, 7, Chunks::All);
    assert!(matches!(next(&mut s, part, later), Some(Task::Chunk(_))));
}

#[test]
fn who_has_nothing_new_is_asked_ever_less_often() {
    let (mut s, p) = state(&[4 * CHUNK], 1);
    let mut now = Instant::now();
    open_by(&mut s, p[0], now);
    let part = s.peer(key(9)).unwrap();
    s.set_held(0, part, Extent::Partial);
    let end = now + 10 * HAVE_POLL_MAX;
    let mut asked = Vec::new();
    while now < end {
        if let Some(Task::Have { .. }) = next(&mut s, part, now) {
            asked.push(now);
        }
        now += Duration::from_millis(5);
    }
    assert!((10..=20).contains(&asked.len()) && asked[1] - asked[0] == HAVE_POLL_MIN, "{}", asked.len());
    s.set_chunks(0, part, 2, Chunks::More(&[1]));
    let Some(Task::Chunk(ChunkTask { since: 2, .. })) = next(&mut s, part, now) else { panic!() };
    now += HAVE_POLL_MAX;
    assert!(matches!(next(&mut s, part, now), Some(Task::Have { .. })));
    assert!(matches!(next(&mut s, part, now + HAVE_POLL_MIN), Some(Task::Have { .. })), "it is busy again");
    s.set_chunks(0, part, 1, Chunks::More(&[3]));
    assert_eq!(next(&mut s, part, now), None, "an answer that was overtaken tells nothing");
}

#[test]
fn the_faster_chunks_come_the_more_often_others_are_asked_what_they_have() {
    let asked = |gap: Duration| {
        let (mut s, p) = state(&[400 * CHUNK], 1);
        let begin = Instant::now();
        open_by(&mut s, p[0], begin);
        let part = s.peer(key(9)).unwrap();
        s.set_held(0, part, Extent::Partial);
        let (mut now, mut came, mut asked) = (begin, begin, 0);
        while now < begin + Duration::from_secs(10) {
            asked += u32::from(matches!(next(&mut s, part, now), Some(Task::Have { .. })));
            if now >= came + gap {
                let work = next(&mut s, p[0], now).unwrap();
                let Task::AnyOf(AnyOfTask { chunks, .. }) = &work else { panic!() };
                assert!(s.chosen(any_of(&work), chunks[0], p[0], now).is_some());
                s.chunk_came(0, chunks[0], p[0], now);
                came += gap;
            }
            now += Duration::from_millis(5);
        }
        asked
    };
    let (often, seldom) = (asked(Duration::from_millis(25)), asked(Duration::from_secs(1)));
    assert!(often > 150 && seldom <= 20, "{often} {seldom}");
    let begin = Instant::now();
    let (mut s, p) = state(&[40 * CHUNK], 1);
    open_by(&mut s, p[0], begin);
    for chunk in 0..20 {
        s.chunk_came(0, chunk, p[0], begin + chunk * Duration::from_millis(1));
    }
    let part = s.peer(key(9)).unwrap();
    s.set_held(0, part, Extent::Partial);
    let polls = |s: &mut DownloadState<()>, from: Duration| {
        let times = (0..200).map(|n| begin + from + n * Duration::from_millis(5));
        times.filter(|&now| matches!(next(s, part, now), Some(Task::Have { .. }))).count()
    };
    let (first, later) = (polls(&mut s, Duration::from_secs(1)), polls(&mut s, Duration::from_secs(20)));
    assert!(later <= 2 && first >= later, "nothing comes any more: {first} {later}");
}

#[test]
fn who_is_too_busy_for_a_list_is_left_alone_while_others_are_asked() {
    let (mut s, p) = state(&[3 * CHUNK], 2);
    let (now, wait) = (Instant::now(), Duration::from_millis(100));
    assert!(matches!(next(&mut s, p[0], now), Some(Task::Layer(_))));
    assert_eq!(next(&mut s, p[1], now), None);
    s.layer_busy(0, p[0], wait, now);
    assert_eq!(next(&mut s, p[0], now + wait / 2), None);
    assert!(matches!(next(&mut s, p[1], now), Some(Task::Layer(_))), "at once");
    s.layer_busy(0, p[1], Duration::ZERO, now);
    assert_eq!(next(&mut s, p[1], now), None, "not as often as it likes");
    s.layer_busy(0, p[1], Duration::MAX, now);
    assert!(matches!(next(&mut s, p[0], now + wait), Some(Task::Layer(_))));
    s.layer_busy(0, p[0], wait, now + wait);
    assert!(matches!(next(&mut s, p[1], now + LAYER_BUSY_MAX), Some(Task::Layer(_))), "nor as seldom");
    open(&mut s, 0);
    assert!(matches!(next(&mut s, p[0], now + LAYER_BUSY_MAX), Some(Task::Chunk(_))));
}

#[test]
fn holders_are_asked_whom_they_know_as_long_as_few_are_known() {
    let (mut s, p) = state(&[3 * CHUNK, 2 * CHUNK], 2);
    let mut now = Instant::now();
    for other in 0..HOLDERS_ENOUGH as u8 {
        let other = s.peer(key(100 + other)).unwrap();
        s.named(0, other);
    }
    s.named(0, p[0]);
    assert!(s.files[0].holders.iter().any(|h| h.peer == p[0] && h.extent == Extent::Whole), "it said more itself");
    let begin = now;
    let mut asked = Vec::new();
    while now < begin + 4 * PEERS_POLL_MAX {
        while let Some(work) = s.next_task(p[0], now, true) {
            if let Task::Peers { file, .. } = work {
                assert_eq!(file, 1, "of the other, enough are known");
                asked.push(now);
            }
        }
        now += Duration::from_millis(50);
    }
    assert!(asked[0] == begin && asked[1] - begin == PEERS_POLL_MIN && (7..=10).contains(&asked.len()), "{asked:?}");
    let (mut small, p) = state(&[CHUNK], 1);
    assert!(matches!(small.next_task(p[0], now, true), Some(Task::Small(_))), "one answer brings all of it");
    assert_eq!(small.next_task(p[0], now, true), None);
}

#[test]
fn a_seeder_chooses_once_there_is_somebody_to_share_with() {
    let (mut s, p) = state(&[64 * CHUNK], 2);
    let now = Instant::now();
    open_by(&mut s, p[0], now);
    assert!(matches!(next(&mut s, p[0], now), Some(Task::Chunk(ChunkTask { since: 0, .. }))));
    let part = s.peer(key(9)).unwrap();
    s.set_held(0, part, Extent::Partial);
    s.set_chunks(0, part, 3, Chunks::More(&[7, 8]));
    let first = next(&mut s, p[0], now).unwrap();
    let second = next(&mut s, p[1], now).unwrap();
    let (a, b) = (&any_of(&first).chunks, &any_of(&second).chunks);
    assert!(a.len() > 2 && b.len() > 2 && a.iter().all(|c| !b.contains(c)), "{a:?} {b:?}");
    assert!(a.iter().chain(b).all(|c| ![7, 8].contains(c)), "those can be had elsewhere");
    assert!(s.chosen(any_of(&first), 7, p[0], now).is_none(), "it was not asked for that one");
    let Some(ChunkTask { index, .. }) = s.chosen(any_of(&first), a[1], p[0], now) else { panic!() };
    assert_eq!(index.get(), a[1]);
    s.give_back(&second, p[1]);
    assert_eq!(s.chunk_came(0, a[1], p[0], now), ChunkCame { fresh: true, whole: false });
    let others: Vec<u32> = std::iter::from_fn(|| match next(&mut s, p[1], now)? {
        Task::AnyOf(AnyOfTask { chunks, .. }) => Some(chunks),
        _ => None,
    })
    .flatten()
    .collect();
    assert!(!others.contains(&a[1]) && others.len() >= 60 - 8, "what is free again is offered again: {others:?}");
}

#[test]
fn giants_do_not_share_the_memory_of_lists() {
    let giant = 1 << 40;
    let (mut s, p) = state(&[giant, giant + 1, 100], 1);
    let now = Instant::now();
    let works: Vec<_> = std::iter::from_fn(|| next(&mut s, p[0], now)).collect();
    assert_eq!(works.iter().filter(|w| matches!(w, Task::Layer(_))).count(), 1);
    assert_eq!(works.len(), 2);
    s.finished(0);
    assert!(matches!(next(&mut s, p[0], now), Some(Task::Layer(LayerTask { file: 1, .. }))));
}

#[test]
fn a_hung_peer_does_not_stall_the_end() {
    let (mut s, p) = state(&[8 * CHUNK], 2);
    let mut now = Instant::now();
    open_by(&mut s, p[1], now);
    for _ in 0..4 {
        assert!(next(&mut s, p[0], now).is_some(), "asked, and never answers");
    }
    let begin = now;
    while matches!(s.files[0].phase, FilePhase::Chunks(..)) {
        now += Duration::from_millis(5);
        if let Some(Task::Chunk(ChunkTask { file, index, .. })) = next(&mut s, p[1], now) {
            now += Duration::from_millis(5);
            s.chunk_came(file, index.get(), p[1], now);
        }
        assert!(now - begin < Duration::from_secs(2));
    }
}

#[test]
fn who_comes_to_hold_more_is_asked_again_in_turn() {
    let n = LOCATE_FILES_MAX + 10;
    let ids: Vec<FileId> = (1..=n as u64).map(|len| FileId { root: Root(Digest([1; 32])), len }).collect();
    let mut s: DownloadState<()> = DownloadState::new(&ids, 1);
    let p = s.peer(key(9)).unwrap();
    let now = Instant::now();
    assert_eq!(s.relocate(p, now + LOCATE_POLL_MIN), None, "it tells by itself");
    s.grows(p, now);
    assert_eq!(s.relocate(p, now), None, "it was just asked");
    s.set_held(3, p, Extent::Whole);
    let first = s.relocate(p, now + LOCATE_POLL_MIN).unwrap();
    assert!(first.len() == LOCATE_FILES_MAX && first.iter().all(|f| f.0 != 3));
    assert_eq!(s.relocate(p, now + LOCATE_POLL_MIN), None);
    let second = s.relocate(p, now + LOCATE_POLL_MIN * 3).unwrap();
    assert_eq!(second[0].0, first.last().unwrap().0 + 1, "then the others");
    assert!((0..n as FileNo).filter(|&f| f != 3).all(|f| first.iter().chain(&second).any(|x| x.0 == f)));
}

#[test]
fn a_file_that_comes_from_elsewhere_holds_up_no_other_and_can_be_needed_after_all() {
    let (mut s, now) = (DownloadState::<()>::new(&ids(&[3 * CHUNK, 3 * CHUNK, 3 * CHUNK]), 1), Instant::now());
    let peer = s.peer(key(0)).unwrap();
    (0..3).for_each(|file| s.set_held(file, peer, Extent::Whole));
    s.elsewhere(0);
    (1..3).for_each(|file| s.checked(file, false));
    let asked = |s: &mut DownloadState<()>| match next(s, peer, now) {
        Some(Task::Layer(task)) => Some(task.file),
        _ => None,
    };
    assert_eq!((asked(&mut s), asked(&mut s), asked(&mut s)), (Some(1), Some(2), None));
    assert_eq!((s.unfinished(), s.awaitable(2).len(), s.awaitable(3).len()), (3, 2, 3));
    s.checked(0, false);
    assert_eq!(asked(&mut s), Some(0), "it lies before the others and is fetched all the same");
    assert!(s.layer_came(0));
    s.elsewhere(0);
    s.finished(0);
    assert!(s.is_done(0));
    s.elsewhere(0);
    assert_eq!((s.unfinished(), s.bytes_had(0), s.bytes_had(1)), (2, 3 * CHUNK, 0));
}

#[test]
fn what_is_read_comes_before_all_else_of_a_download() {
    let now = Instant::now();
    // More files than are fetched at once, one-chunk files among them.
    let (mut s, peers) = {
        let mut lens = vec![40 * CHUNK; 120];
        lens.extend([100, 200, 300]);
        state(&lens, 1)
    };
    let read = |first, alone| ReadOrder { windows: vec![ReadWindow { first, len: 3 }], alone };
    let (file, small) = (110, 121);
    s.set_reads(file, read(7, false));
    s.set_reads(small, read(0, false));
    let Some(Task::Layer(LayerTask { file: first, .. })) = next(&mut s, peers[0], now) else { panic!() };
    assert_eq!(first, file, "its layer comes first");
    open(&mut s, file);
    while matches!(s.next_task(peers[0], now, false), Some(Task::Layer(_))) {}
    let asked: Vec<_> = (0..4).filter_map(|_| next(&mut s, peers[0], now)).collect();
    assert!(matches!(asked[0], Task::Small(SmallTask { file: 121, .. })), "{asked:?}");
    let chunks: Vec<u32> = asked.iter().filter(|t| matches!(t, Task::Chunk(_))).map(|t| chunk(t).0).collect();
    assert_eq!(chunks, [7, 8, 9]);
    s.set_reads(file, ReadOrder::default());
    s.set_reads(small, ReadOrder::default());
    assert!(matches!(next(&mut s, peers[0], now), Some(Task::Small(_))), "then the others");
    assert!(!s.is_resting());
}

#[test]
fn a_download_rests_when_its_readers_have_what_they_need() {
    let now = Instant::now();
    let (mut s, peers) = state(&[40 * CHUNK], 1);
    s.set_reads(0, ReadOrder { windows: vec![ReadWindow { first: 0, len: 2 }], alone: true });
    assert!(matches!(next(&mut s, peers[0], now), Some(Task::Layer(_))) && !s.is_resting());
    open(&mut s, 0);
    for n in 0..2 {
        assert_eq!(next(&mut s, peers[0], now).as_ref().map(chunk), Some((n, 0)));
        assert!(!s.is_resting());
        assert!(s.chunk_came(0, n, peers[0], now).fresh);
    }
    assert!(s.is_resting() && next(&mut s, peers[0], now).is_none() && s.useful(peers[0]) > 0);
    s.set_reads(0, ReadOrder { windows: vec![ReadWindow { first: 1, len: 2 }], alone: true });
    assert!(!s.is_resting());
    assert_eq!(next(&mut s, peers[0], now).as_ref().map(chunk), Some((2, 0)));
}
