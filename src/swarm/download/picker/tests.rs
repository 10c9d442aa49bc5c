//! The picker under a virtual clock.

use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::content::Geometry;
use crate::limits::RETRY_MIN;
use crate::swarm::download::limits::END_GAME_AT_ONCE;
use crate::swarm::random::next_random;

fn check(p: &ChunkPicker) {
    assert_eq!(p.missing() + p.in_flight.len() as u32 + p.have + p.checking, p.len());
    assert_eq!(p.place.iter().filter(|&&at| at == CHECKING).count() as u32, p.checking);
    assert_eq!(p.by_age.len(), p.in_flight.len());
    assert_eq!(p.ends.last().copied().unwrap_or(0), p.missing());
    let mut start = 0;
    for (copies, &end) in p.ends.iter().enumerate() {
        for at in start..end {
            let chunk = p.order[at as usize];
            assert_eq!(p.place[chunk as usize], at);
            assert_eq!(p.copies[chunk as usize] as usize, copies, "chunk {chunk} in the wrong group");
        }
        start = end;
    }
    for chunk in 0..p.len() {
        let holders = p.peers.values().filter(|s| s.holds.as_ref().is_some_and(|b| b.get(chunk))).count();
        assert_eq!(p.copies[chunk as usize] as usize, holders);
        match p.place[chunk as usize] {
            IN_FLIGHT => {
                let (a, b) = p.in_flight[&chunk];
                assert!(b.is_none_or(|b| b.peer != a.peer));
                assert!(p.by_age.contains(&(latest(a, b), chunk)));
            }
            HAVE | CHECKING => assert!(!p.in_flight.contains_key(&chunk)),
            at => assert_eq!(p.order[at as usize], chunk),
        }
    }
    for s in p.peers.values() {
        let wanted = s.holds.as_ref().map_or(0, |b| p.order.iter().filter(|&&c| b.get(c)).count());
        assert_eq!(s.wanted as usize, wanted);
    }
}

fn bits(len: u32, on: impl Fn(u32) -> bool) -> Bitfield {
    let mut b = Bitfield::empty(len);
    let g = Geometry::new(len as u64 * if len > 4096 { 2 << 20 } else { 256 << 10 });
    assert_eq!(g.chunk_count(), len);
    g.chunks().filter(|c| on(c.get())).for_each(|c| assert!(b.insert(c)));
    b
}

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone)]
enum PickerStep {
    Complete(u16),
    Partial(u16, u64),
    Have(u16, u32),
    Remove(u16),
    Acquire(u16),
    Done(u16),
    Fail(u16),
    Bad(u16),
    Want(u32),
    Read(u32, u32, bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<PickerStep>> {
    let peer = || 0u16..5;
    let step = prop_oneof![
        1 => peer().prop_map(PickerStep::Complete),
        1 => (peer(), any::<u64>()).prop_map(|(p, m)| PickerStep::Partial(p, m)),
        1 => (peer(), 0u32..70).prop_map(|(p, c)| PickerStep::Have(p, c)),
        1 => peer().prop_map(PickerStep::Remove),
        6 => peer().prop_map(PickerStep::Acquire),
        4 => peer().prop_map(PickerStep::Done),
        1 => peer().prop_map(PickerStep::Fail),
        1 => peer().prop_map(PickerStep::Bad),
        1 => (0u32..70).prop_map(PickerStep::Want),
        1 => (0u32..80, 0u32..20, any::<bool>()).prop_map(|(first, len, alone)| PickerStep::Read(first, len, alone)),
        2 => (0u64..400).prop_map(PickerStep::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn every_chunk_is_in_exactly_one_state_whatever_happens(len in 0u32..70, seed: u64, steps in steps()) {
        let mut p = ChunkPicker::new(len, seed);
        let mut now = Instant::now();
        let mut asked: HashMap<u16, Vec<u32>> = HashMap::new();
        for step in steps {
            match step {
                PickerStep::Complete(h) => p.add_complete(PeerHandle(h)),
                PickerStep::Partial(h, m) => p.add_partial(PeerHandle(h), &bits(len, |c| m.rotate_left(c) & 1 == 1)),
                PickerStep::Have(h, c) => p.add_have(PeerHandle(h), c),
                PickerStep::Remove(h) => p.remove_peer(PeerHandle(h)),
                PickerStep::Acquire(h) => {
                    if let Some(c) = p.acquire(PeerHandle(h), now) {
                        let holds = &p.peers[&PeerHandle(h)].holds;
                        prop_assert!(holds.as_ref().is_none_or(|b| b.get(c)));
                        asked.entry(h).or_default().push(c);
                    }
                }
                PickerStep::Done(h) => {
                    if let Some(c) = asked.get_mut(&h).and_then(Vec::pop) {
                        p.complete(c, PeerHandle(h), now);
                        prop_assert_eq!(p.state(c), Some(ChunkState::Have));
                    }
                }
                PickerStep::Fail(h) => p.release_peer(PeerHandle(h)),
                PickerStep::Bad(h) => {
                    if let Some(c) = asked.get_mut(&h).and_then(Vec::pop) {
                        p.reject(c, PeerHandle(h));
                    }
                }
                PickerStep::Want(c) => p.want(c),
                PickerStep::Read(first, len, alone) => {
                    let windows = vec![ReadWindow { first, len }, ReadWindow { first: first / 2, len }];
                    p.set_reads(ReadOrder { windows, alone });
                }
                PickerStep::Wait(ms) => now += MS * ms as u32,
            }
            check(&p);
        }
    }

    /// Peers of different speed, of which some fail and are left alone for a while, against a virtual clock: it always
    /// ends while a whole one lives, and only what was stolen or asked of two is fetched twice.
    #[test]
    fn a_swarm_with_failing_peers_ends(len in 1u32..300, seed: u64, speeds in prop::collection::vec(1u64..500, 1..8)) {
        let mut p = ChunkPicker::new(len, seed);
        let start = Instant::now();
        let mut now = start;
        let mut queues: Vec<Vec<(Instant, u32)>> = vec![Vec::new(); speeds.len()];
        let mut rests_until = vec![start; speeds.len()];
        let mut random = seed;
        for h in 0..speeds.len() {
            if h == 0 {
                p.add_complete(PeerHandle(0));
            } else {
                let mask = next_random(&mut random);
                p.add_partial(PeerHandle(h as u16), &bits(len, |c| mask.rotate_left(c) & 3 > 0));
            }
        }
        let (mut fetched, mut twice) = (0, 0);
        while !p.is_done() {
            for (h, queue) in queues.iter_mut().enumerate() {
                let peer = PeerHandle(h as u16);
                while let Some(&(due, chunk)) = queue.first().filter(|(due, _)| *due <= now) {
                    queue.remove(0);
                    let done = p.complete(chunk, peer, due);
                    fetched += 1;
                    twice += (!done.fresh) as u32;
                }
                if h > 0 && next_random(&mut random).is_multiple_of(200) {
                    p.release_peer(peer);
                    queue.clear();
                    rests_until[h] = now + RETRY_MIN;
                }
                while queue.len() < 3 && now >= rests_until[h] {
                    let Some(chunk) = p.acquire(peer, now) else { break };
                    let from = queue.last().map_or(now, |q| q.0);
                    queue.push((from + MS * speeds[h] as u32, chunk));
                }
            }
            now += MS;
            prop_assert!(now - start < MS * (len * 500 + 10_000), "seed {seed}: no end");
        }
        check(&p);
        prop_assert_eq!(fetched - twice, len);
    }
}

#[test]
fn nothing_is_fetched_twice_among_equals() {
    let mut p = ChunkPicker::new(1000, 7);
    let mut now = Instant::now();
    (0..4).for_each(|h| p.add_complete(PeerHandle(h)));
    let mut seen = std::collections::HashSet::new();
    while p.missing() > 0 {
        let chunks: Vec<_> = (0..4).filter_map(|h| Some((h, p.acquire(PeerHandle(h), now)?))).collect();
        now += MS * 5;
        for (h, c) in chunks {
            assert!(seen.insert(c), "chunk {c} twice");
            assert!(p.complete(c, PeerHandle(h), now).fresh);
        }
    }
    assert!(p.is_done());
}

#[test]
fn the_rarest_comes_first_and_ties_differ_by_seed() {
    let mut firsts = std::collections::HashSet::new();
    for seed in 0..20 {
        let mut p = ChunkPicker::new(100, seed);
        p.add_complete(PeerHandle(0));
        p.add_partial(PeerHandle(1), &bits(100, |c| c != 42 && c != 77));
        let rare =
            [p.acquire(PeerHandle(0), Instant::now()).unwrap(), p.acquire(PeerHandle(0), Instant::now()).unwrap()];
        assert!(rare.contains(&42) && rare.contains(&77), "{rare:?}");
        firsts.insert(p.acquire(PeerHandle(1), Instant::now()).unwrap());
    }
    assert!(firsts.len() > 5);
}

#[test]
fn a_peer_with_few_of_many_chunks_gives_them_all() {
    let mut p = ChunkPicker::new(100_000, 3);
    p.add_partial(PeerHandle(0), &bits(100_000, |c| c % 9973 == 5));
    let got = std::iter::from_fn(|| p.acquire(PeerHandle(0), Instant::now())).count();
    assert_eq!(got, 11);
}

#[test]
fn at_most_two_are_asked_and_the_hung_give_way() {
    let mut p = ChunkPicker::new(2, 1);
    let t = Instant::now();
    (0..4).for_each(|h| p.add_complete(PeerHandle(h)));
    let hung = p.acquire(PeerHandle(0), t).unwrap();
    let quick = p.acquire(PeerHandle(1), t).unwrap();
    p.complete(quick, PeerHandle(1), t + MS * 10);
    assert_eq!(p.acquire(PeerHandle(1), t + MS * 11), None, "too early to be suspicious");
    assert_eq!(p.acquire(PeerHandle(1), t + MS * 105), Some(hung));
    assert_eq!(p.acquire(PeerHandle(2), t + MS * 106), None, "two are enough");
    assert_eq!(p.acquire(PeerHandle(2), t + MS * 300), None, "it gave nothing, and another one did just now");
    assert_eq!(p.acquire(PeerHandle(2), t + MS * 600), Some(hung), "both hang");
    let Some(ChunkState::InFlight(a, Some(b))) = p.state(hung) else { panic!("{:?}", p.state(hung)) };
    assert_eq!((a.peer, b.peer), (PeerHandle(1), PeerHandle(2)));
    let done = p.complete(hung, PeerHandle(0), t + MS * 601);
    assert!(done.fresh && p.is_done(), "late bytes that are right are as good as any");
    assert_eq!(done.others, [Some(PeerHandle(1)), Some(PeerHandle(2))]);
}

/// Three peers that take 44 ms for the two chunks that each is asked for at once, for so many rounds of 22 ms; then one
/// of them falls silent. Returns what it keeps back.
fn silenced(p: &mut ChunkPicker, now: &mut Instant, rounds: u32) -> Vec<u32> {
    (0..3).for_each(|h| p.add_complete(PeerHandle(h)));
    let mut queues: Vec<Vec<u32>> = vec![Vec::new(); 3];
    for _ in 0..rounds {
        for (h, queue) in (0..).zip(&mut queues) {
            if queue.len() == 2 {
                p.complete(queue.remove(0), PeerHandle(h), *now);
            }
            while queue.len() < 2 {
                queue.push(p.acquire(PeerHandle(h), *now).unwrap());
            }
        }
        *now += MS * 22;
    }
    for (h, queue) in (0..2).zip(&queues) {
        queue.iter().for_each(|&c| assert!(p.complete(c, PeerHandle(h), *now).fresh));
    }
    queues.remove(2)
}

#[test]
fn files_are_asked_for_in_order_of_their_names_by_each_peer() {
    let (mut p, t) = (ChunkPicker::new(1000, 3).in_runs(), Instant::now());
    let full = Bitfield::full(1000);
    (0..2).for_each(|h| p.add_partial(PeerHandle(h), &full));
    let mut runs = [0; 2];
    let mut last = [None; 2];
    for i in 0..1000 {
        let h = i % 2;
        let chunk = p.acquire_new(PeerHandle(h as u16), t).unwrap();
        runs[h] += (last[h] != chunk.checked_sub(1)) as u32;
        last[h] = Some(chunk);
    }
    assert!(p.missing() == 0 && runs.iter().all(|&r| r <= 8), "{runs:?} runs");
    // What is rarer than others comes first all the same.
    let mut p = ChunkPicker::new(1000, 3).in_runs();
    (0..2).for_each(|h| p.add_partial(PeerHandle(h), &full));
    let first = p.acquire_new(PeerHandle(0), t).unwrap();
    p.reject((first + 500) % 1000, PeerHandle(1));
    assert_eq!(p.acquire_new(PeerHandle(0), t), Some((first + 500) % 1000));
}

#[test]
fn what_a_silent_peer_keeps_back_is_asked_of_others_while_there_is_other_work() {
    let (mut p, mut now) = (ChunkPicker::new(1000, 11), Instant::now());
    let mut kept = silenced(&mut p, &mut now, 30);
    let begin = now;
    while !kept.is_empty() {
        now += MS * 22;
        for h in 0..2 {
            let chunk = p.acquire(PeerHandle(h), now).unwrap();
            kept.retain(|&c| c != chunk);
            assert!(p.complete(chunk, PeerHandle(h), now + MS * 22).fresh);
        }
        assert!(now - begin < Duration::from_secs(1), "still kept back: {kept:?}");
    }
    assert!(now - begin > MS * 300, "most delays are shorter than that");
    assert!(p.missing() > 500);
}

#[test]
fn what_is_held_up_on_one_connection_is_left_to_a_peer_that_sends_on_others() {
    let (mut p, mut now) = (ChunkPicker::new(1000, 12), Instant::now());
    let kept = silenced(&mut p, &mut now, 30);
    while p.missing() > 0 {
        now += MS * 22;
        for h in 0..3 {
            let Some(chunk) = p.acquire_new(PeerHandle(h), now) else { break };
            assert!(!kept.contains(&chunk), "asked for twice while there is other work");
            p.complete(chunk, PeerHandle(h), now + MS * 22);
        }
    }
    let late = (0..2).filter_map(|h| p.acquire(PeerHandle(h), now)).collect::<Vec<_>>();
    assert!(late.len() == 2 && late.iter().all(|c| kept.contains(c)), "at the end it is: {late:?}");
}

#[test]
fn a_slow_peer_keeps_its_chunks_while_there_is_other_work() {
    let (mut p, mut now) = (ChunkPicker::new(300, 13), Instant::now());
    (0..2).for_each(|h| p.add_complete(PeerHandle(h)));
    let mut slow = (now, p.acquire(PeerHandle(1), now).unwrap());
    let mut wasted = 0;
    while !p.is_done() {
        now += MS * 20;
        if now >= slow.0 + MS * 600 {
            wasted += !p.complete(slow.1, PeerHandle(1), now).fresh as u32;
            slow = (now, p.acquire(PeerHandle(1), now).unwrap_or(slow.1));
        }
        if let Some(chunk) = p.acquire(PeerHandle(0), now) {
            p.complete(chunk, PeerHandle(0), now + MS * 20);
        }
    }
    assert!(wasted <= 1, "{wasted} chunks of a peer thirty times slower were fetched twice");
}

#[test]
fn a_peer_holds_few_chunks_of_others_at_a_time() {
    let (mut p, t) = (ChunkPicker::new(100, 14), Instant::now());
    (0..2).for_each(|h| p.add_complete(PeerHandle(h)));
    let hung = std::iter::from_fn(|| p.acquire(PeerHandle(0), t)).count();
    assert_eq!(hung, 100);
    let later = t + Duration::from_secs(60);
    let mut taken: Vec<u32> = std::iter::from_fn(|| p.acquire_end_game(PeerHandle(1), later)).collect();
    assert_eq!(taken.len(), END_GAME_AT_ONCE);
    p.complete(taken.remove(0), PeerHandle(1), later);
    p.release(taken.remove(0), PeerHandle(1));
    assert_eq!(
        std::iter::from_fn(|| p.acquire_end_game(PeerHandle(1), later)).count(),
        2,
        "one for each that is settled"
    );
}

#[test]
fn a_queue_as_long_as_ever_is_not_late() {
    let mut p = ChunkPicker::new(3, 1);
    let t = Instant::now();
    (0..2).for_each(|h| p.add_complete(PeerHandle(h)));
    let [first, quick, last] = [0, 1, 0].map(|h| p.acquire(PeerHandle(h), t).unwrap());
    p.complete(quick, PeerHandle(1), t + MS * 10);
    p.complete(first, PeerHandle(0), t + MS * 55);
    // The quick one takes 10 ms, the other 55 ms for the chunks that it is asked for at once: below three times the
    // noise that is none of its fault.
    assert_eq!(p.acquire(PeerHandle(1), t + MS * 100), None, "it will come as soon as any");
    assert_eq!(p.acquire(PeerHandle(1), t + MS * 120), Some(last), "late even for who has it");
}

#[test]
fn rejected_chunks_are_asked_of_others() {
    let mut p = ChunkPicker::new(1, 1);
    let t = Instant::now();
    p.add_complete(PeerHandle(0));
    assert_eq!(p.acquire(PeerHandle(0), t), Some(0));
    p.reject(0, PeerHandle(0));
    assert_eq!(p.acquire(PeerHandle(0), t), None);
    p.add_complete(PeerHandle(1));
    assert_eq!(p.acquire(PeerHandle(1), t), Some(0));
    check(&p);
}

#[test]
fn resuming_asks_only_for_the_rest() {
    let mut p = ChunkPicker::resuming(&bits(50, |c| c % 2 == 0), &Bitfield::empty(50), 9);
    p.add_complete(PeerHandle(0));
    check(&p);
    let mut got: Vec<u32> = std::iter::from_fn(|| p.acquire(PeerHandle(0), Instant::now())).collect();
    got.sort_unstable();
    assert_eq!(got, (0..50).filter(|c| c % 2 == 1).collect::<Vec<_>>());
}

#[test]
fn what_is_being_verified_is_neither_asked_for_nor_had() {
    let (complete, partial, t) = (PeerHandle(0), PeerHandle(1), Instant::now());
    let mut p = ChunkPicker::resuming(&bits(10, |c| c < 2), &bits(10, |c| (2..8).contains(&c)), 9);
    p.add_complete(complete);
    p.add_partial(partial, &bits(10, |c| c == 3 || c == 8));
    check(&p);
    assert_eq!((p.missing(), p.have(), p.wanted_of(partial)), (2, 2, 1));
    let mut got: Vec<u32> = std::iter::from_fn(|| p.acquire(complete, t)).collect();
    got.sort_unstable();
    assert_eq!(got, [8, 9]);
    got.iter().for_each(|&c| assert!(p.complete(c, complete, t).fresh));
    assert!(!p.complete(3, partial, t).fresh && p.state(3) == Some(ChunkState::Checking));
    assert!(!p.is_done() && p.is_checking(), "nothing is missing, but it is not known to be whole");
    (2..8).for_each(|c| p.checked(c, c != 3));
    p.checked(3, true);
    p.checked(8, false);
    check(&p);
    assert_eq!((p.missing(), p.wanted_of(partial), p.is_checking(), p.is_done()), (1, 1, false, false));
    assert_eq!(p.acquire(partial, t), Some(3));
    assert!(p.complete(3, partial, t).fresh && p.is_done());
}

#[test]
fn the_largest_file_with_64_peers_is_quick() {
    let len = crate::limits::CHUNKS_MAX as u32;
    let begin = Instant::now();
    let mut p = ChunkPicker::new(len, 5);
    (0..32).for_each(|h| p.add_complete(PeerHandle(h)));
    (32..64).for_each(|h| p.add_have(PeerHandle(h), h as u32 * 7));
    let mut now = begin;
    let mut n = 0;
    while !p.is_done() {
        now += Duration::from_micros(1);
        let peer = PeerHandle((n % 32) as u16);
        let chunk = p.acquire(peer, now).unwrap();
        p.complete(chunk, peer, now);
        n += 1;
    }
    assert_eq!(n, len);
    // Linear work takes seconds; anything quadratic takes hours.
    assert!(begin.elapsed() < Duration::from_secs(300), "{:?}", begin.elapsed());
}

#[test]
fn the_only_complete_holder_chooses_among_all_that_is_rare_and_is_not_asked_for_more_than_is_missing() {
    let (mut p, now) = (ChunkPicker::new(8, 1), Instant::now());
    let (seeder, part) = (PeerHandle(0), PeerHandle(1));
    p.add_complete(seeder);
    let first = p.offer(seeder, 4);
    assert_eq!(first.len(), 4, "also while nobody else is known: others may begin at the same time");
    p.add_partial(part, &bits(8, |c| c < 3));
    let all = p.offer(seeder, 8);
    assert_eq!(all.len(), 8, "it gives none twice, so that offers may overlap");
    assert!(all[..5].iter().all(|&c| c >= 3) && all[5..].iter().all(|&c| c < 3), "the rare ones first: {all:?}");
    assert!(p.offer(part, 8).is_empty(), "only who has everything may choose");

    // Seven of eight are on their way elsewhere: what is missing is covered by the offers.
    for chunk in [0, 1, 2] {
        assert_eq!(p.acquire(part, now).map(|c| c < 3), Some(true), "{chunk}");
    }
    for _ in 0..3 {
        assert!(!p.offer(seeder, 8).is_empty());
    }
    assert_eq!((p.missing(), p.offers.len()), (5, 5));
    assert!(p.offer(seeder, 8).is_empty() && p.acquire(seeder, now).is_none(), "each missing chunk is under way");
    p.withdraw(&first);
    assert!(!p.offer(seeder, 8).is_empty(), "an offer that ended makes room for one");
}

#[test]
fn several_complete_holders_are_offered_different_chunks() {
    let mut p = ChunkPicker::new(64, 2);
    let (a, b, part) = (PeerHandle(0), PeerHandle(1), PeerHandle(2));
    p.add_complete(a);
    p.add_complete(b);
    assert!(p.offer(a, 8).is_empty(), "with nobody to share with there is nothing to choose");
    p.add_partial(part, &bits(64, |c| c == 63));
    let (of_a, of_b) = (p.offer(a, 8), p.offer(b, 8));
    assert!(of_a.len() == 8 && of_b.len() == 8 && of_a.iter().all(|c| !of_b.contains(c)), "{of_a:?} {of_b:?}");
    p.remove_peer(b);
    assert!(!p.offers.iter().any(|o| o.0 == b), "who left was offered nothing");
    let last = p.offer(a, 64);
    assert_eq!(last.len(), 64, "alone it may choose among all");
}

/// The first chunk of a far peer takes some round trips; it was taken for silent by the time of a near one.
#[test]
fn a_far_peer_is_not_late_before_its_round_trips_are_over() {
    for (path_ms, silent_ms) in [(0, 500), (300, 3000)] {
        let (mut p, t) = (ChunkPicker::new(1000, 5), Instant::now());
        let (near, far) = (PeerHandle(0), PeerHandle(1));
        [near, far].into_iter().for_each(|peer| p.add_complete(peer));
        p.set_path(far, MS * path_ms);
        let held = p.acquire_new(far, t).unwrap();
        let mut now = t;
        let taken = loop {
            let chunk = p.acquire_new(near, now).unwrap();
            if chunk == held {
                break now;
            }
            now += MS * 10;
            p.complete(chunk, near, now);
        };
        assert_eq!(taken - t, MS * silent_ms, "{path_ms} ms");
    }
}

/// A hundred silent peers asked each other's chunks in turn, and the honest one waited for the last two until the
/// download timed out.
#[test]
fn silent_peers_do_not_pass_the_last_chunks_round() {
    let mut now = Instant::now();
    let mut p = ChunkPicker::new(40, 1);
    let silent: Vec<_> = (1..=60).map(PeerHandle).collect();
    let honest = PeerHandle(0);
    silent.iter().chain([&honest]).for_each(|&peer| p.add_complete(peer));
    // Each of the silent ones has a chunk, as far as there are any; the honest one gives the rest.
    for &peer in &silent[..30] {
        p.acquire(peer, now).unwrap();
    }
    let begin = now;
    while !p.is_done() && now < begin + Duration::from_secs(5) {
        // The silent ones ask before the honest one each time.
        for &peer in &silent {
            p.acquire(peer, now);
        }
        now += Duration::from_millis(5);
        if let Some(chunk) = p.acquire(honest, now) {
            now += Duration::from_millis(5);
            p.complete(chunk, honest, now);
        }
    }
    assert!(p.is_done() && now < begin + Duration::from_secs(4), "{:?}", now - begin);
}
