use super::*;
use crate::limits::PEERS_MAX;
use crate::swarm::download::limits::{MESH_ROTATE, RETRY_MAX};

const ALL: fn(PeerHandle) -> bool = |_| true;
const EQUAL: fn(PeerHandle) -> u64 = |_| 1 << 20;
const NONE: fn(PeerHandle) -> bool = |_| false;

fn mesh(peers: u16, now: Instant) -> Mesh {
    let mut mesh = Mesh::new(7, now);
    (0..peers).for_each(|n| mesh.meet(PeerHandle(n), 1, true, now));
    mesh
}

/// Dials for so long that a set is full.
fn fill(mesh: &mut Mesh, holds: fn(PeerHandle) -> bool, now: &mut Instant) -> Vec<Dial> {
    let mut dials = mesh.dial(holds, *now);
    for _ in 0..DOWNLOAD_CONNECTIONS_MAX {
        *now += DIAL_EVERY;
        dials.extend(mesh.dial(holds, *now));
    }
    dials
}

fn handles(dials: &[Dial]) -> Vec<u16> {
    let mut handles: Vec<u16> = dials.iter().map(|d| d.peer.0).collect();
    handles.sort_unstable();
    handles
}

#[test]
fn a_large_group_gets_few_connections_to_peers_chosen_by_chance() {
    let mut now = Instant::now();
    let mut a = mesh(PEERS_MAX as u16, now);
    let begin = now;
    assert_eq!(mesh(100, now).dial(ALL, now).len(), DIALS_AT_ONCE as usize, "others come to hold something soon");
    let chosen = handles(&fill(&mut a, ALL, &mut now));
    assert_eq!((chosen.len(), a.connections()), (DOWNLOAD_CONNECTIONS_MAX, DOWNLOAD_CONNECTIONS_MAX));
    assert!(chosen[0] < 2000 && *chosen.last().unwrap() > 14_000, "from all over: {chosen:?}");
    assert!(a.dial(ALL, now).is_empty() && !a.all_have_one(ALL, now));
    let mut b = Mesh::new(8, begin);
    (0..PEERS_MAX as u16).for_each(|n| b.meet(PeerHandle(n), 1, true, begin));
    assert_ne!(handles(&fill(&mut b, ALL, &mut now)), chosen, "others choose others");
    let (mut again, mut now) = (mesh(PEERS_MAX as u16, begin), begin);
    assert_eq!(handles(&fill(&mut again, ALL, &mut now)), chosen, "the same seed chooses the same");
}

#[test]
fn holders_come_before_those_that_are_only_asked() {
    let now = Instant::now();
    let mut mesh = Mesh::new(7, now);
    (0..200).for_each(|n| mesh.meet(PeerHandle(n), 1, n < 5, now));
    let dials = mesh.dial(|p| p.0 < 5, now);
    assert_eq!(dials[..5].iter().filter(|d| d.peer.0 < 5 && !d.locate).count(), 5);
    assert_eq!(dials.len(), 5 + LOCATES_AT_ONCE, "the rest can wait");
    assert!(dials[5..].iter().all(|d| d.peer.0 >= 5 && d.locate));
    for dial in &dials[5..] {
        mesh.ended(*dial, ConnectionEnd::Idle { lost: false }, (false, false), now, 0.0);
    }
    assert_eq!(mesh.dial(|p| p.0 < 5, now).len(), LOCATES_AT_ONCE, "then the next");
}

#[test]
fn beyond_a_few_connections_those_that_are_asked_have_the_same_chance() {
    let begin = Instant::now();
    let (mut found, mut now) = (0, begin);
    // All hold something in truth, but that is known of a tenth.
    let known = |p: PeerHandle| p.0 < 100;
    for seed in 0..20 {
        let mut mesh = Mesh::new(seed, now);
        (0..1000).for_each(|n| mesh.meet(PeerHandle(n), 1, n < 100, now));
        let mut told = std::collections::BTreeSet::new();
        let mut count = 0;
        while count < DOWNLOAD_CONNECTIONS_MAX {
            let dials = mesh.dial(|p| known(p) || told.contains(&p), now);
            count += dials.len();
            told.extend(dials.iter().map(|d| d.peer));
            now += DIAL_EVERY;
        }
        found += told.iter().filter(|p| !known(**p)).count();
    }
    let share = found as f64 / (20 * DOWNLOAD_CONNECTIONS_MAX) as f64;
    assert!(share > 0.3, "{share}: those who came early would serve all the others");
}

#[test]
fn without_any_holder_all_are_asked_at_once() {
    let now = Instant::now();
    let mut mesh = Mesh::new(7, now);
    (0..40).for_each(|n| mesh.meet(PeerHandle(n), 1, false, now));
    let dials = mesh.dial(NONE, now);
    assert!(dials.len() == 40 && dials.iter().all(|d| d.locate));
    (40..60).for_each(|n| mesh.meet(PeerHandle(n), 1, false, now));
    assert!(mesh.dial(|p| p.0 == 3, now).is_empty(), "one is found, so no more than a few at once");
    for dial in &dials[..36] {
        mesh.ended(*dial, ConnectionEnd::Idle { lost: false }, (false, false), now, 0.0);
    }
    let left = dials[36..].iter().filter(|d| d.peer.0 != 3).count();
    assert_eq!(mesh.dial(|p| p.0 == 3, now).iter().filter(|d| d.locate).count(), LOCATES_AT_ONCE - left);
}

#[test]
fn who_was_asked_in_vain_keeps_holders_waiting_for_a_moment_only() {
    let mut now = Instant::now();
    let mut mesh = Mesh::new(7, now);
    (0..1000).for_each(|n| mesh.meet(PeerHandle(n), 1, false, now));
    for _ in 0..100 {
        for dial in mesh.dial(NONE, now) {
            mesh.ended(dial, ConnectionEnd::Idle { lost: false }, (false, false), now, 0.0);
        }
        now += Duration::from_millis(5);
    }
    let holds = |p: PeerHandle| p.0 >= 1000;
    (1000..1030).for_each(|n| mesh.meet(PeerHandle(n), 1, true, now));
    let at_once = mesh.dial(holds, now).iter().filter(|d| holds(d.peer)).count();
    assert!(at_once <= DIALS_AT_ONCE as usize && mesh.dial(holds, now).is_empty(), "{at_once}");
    let next = mesh.next_due(now).unwrap();
    assert_eq!(next, now + DIAL_EVERY, "the others do not have to wait for an event");
    assert_eq!(mesh.dial(holds, next).iter().filter(|d| holds(d.peer)).count(), 1);
}

#[test]
fn who_held_nothing_is_asked_ever_less_often() {
    let begin = Instant::now();
    let mut mesh = mesh(0, begin);
    mesh.meet(PeerHandle(0), 1, false, begin);
    let (mut now, mut times) = (begin, Vec::new());
    while now < begin + Duration::from_secs(20) {
        for dial in mesh.dial(NONE, now) {
            times.push(now);
            mesh.ended(dial, ConnectionEnd::Idle { lost: false }, (false, false), now, 0.0);
        }
        now += Duration::from_millis(10);
    }
    assert!(times[1] - times[0] == LOCATE_POLL_MIN && (8..16).contains(&times.len()), "{}", times.len());
    mesh.meet(PeerHandle(0), 2, false, now);
    assert!(mesh.dial(NONE, now).is_empty(), "it is waited for");
}

#[test]
fn a_full_set_lets_go_of_who_gives_little_for_who_was_not_tried() {
    let mut now = Instant::now();
    let mut mesh = mesh(DOWNLOAD_CONNECTIONS_MAX as u16 + 2, now);
    let chosen = fill(&mut mesh, ALL, &mut now);
    let poor = [chosen[5], chosen[9]];
    let given = |p: PeerHandle| if poor.iter().any(|d| d.peer == p) { 1_000 } else { 1_000_000 + u64::from(p.0) };
    assert!(mesh.rotate(|_| 0, EQUAL, ALL, now).is_empty(), "they had no time to give anything");
    assert!(mesh.rotate(given, EQUAL, ALL, now).is_empty(), "not so soon");
    now += MESH_ROTATE;
    let mut let_go = mesh.rotate(given, EQUAL, ALL, now);
    let_go.sort_unstable();
    assert_eq!(let_go, handles(&poor).into_iter().map(PeerHandle).collect::<Vec<_>>());
    for dial in poor {
        mesh.ended(dial, ConnectionEnd::Idle { lost: false }, (true, true), now, 0.0);
    }
    let next = mesh.dial(ALL, now);
    assert!(next.len() == 2 && next.iter().all(|d| !chosen.iter().any(|c| c.peer == d.peer)));
    mesh.ended(next[0], ConnectionEnd::Failed, (false, true), now, 0.0);
    let back = handles(&mesh.dial(ALL, now));
    assert!(back.len() == 1 && poor.iter().any(|d| d.peer.0 == back[0]), "better than nobody");
}

#[test]
fn among_equals_one_after_the_other_gives_way_to_who_was_not_tried() {
    let mut now = Instant::now();
    let mut mesh = mesh(DOWNLOAD_CONNECTIONS_MAX as u16 + 10, now);
    fill(&mut mesh, ALL, &mut now);
    let mut gone = std::collections::BTreeSet::new();
    for round in 1..=5 {
        now += MESH_ROTATE;
        let let_go = mesh.rotate(|_| round * 1_000_000, EQUAL, ALL, now);
        let [peer] = let_go[..] else { panic!("{let_go:?}") };
        assert!(gone.insert(peer), "it came back before others were tried");
        mesh.ended(
            Dial { peer, locate: false, failures: 0 },
            ConnectionEnd::Idle { lost: false },
            (true, true),
            now,
            0.0,
        );
        assert_eq!(mesh.dial(ALL, now).len(), 1);
    }
}

#[test]
fn who_has_what_nobody_else_has_is_kept_however_little_it_gives() {
    let mut now = Instant::now();
    let mut mesh = mesh(DOWNLOAD_CONNECTIONS_MAX as u16 + 1, now);
    let chosen = fill(&mut mesh, ALL, &mut now);
    let first = chosen[5].peer;
    now += MESH_ROTATE;
    let given = |p: PeerHandle| if p == first { 0 } else { 1_000_000 };
    let backlog = |p: PeerHandle| if p == first { 1 << 30 } else { 1 << 20 };
    let let_go = mesh.rotate(given, backlog, ALL, now);
    assert!(let_go.len() == 1 && let_go[0] != first);
}

#[test]
fn who_just_came_and_sets_that_are_not_full_are_left_alone() {
    let mut now = Instant::now();
    let mut few = mesh(3, now);
    few.dial(ALL, now);
    now += MESH_ROTATE;
    assert!(few.rotate(|p| 1_000_000 * u64::from(p.0), EQUAL, ALL, now).is_empty());
    let mut all = mesh(DOWNLOAD_CONNECTIONS_MAX as u16, now);
    fill(&mut all, ALL, &mut now);
    now += MESH_ROTATE;
    assert!(all.rotate(|p| 1_000_000 * u64::from(p.0), EQUAL, ALL, now).is_empty(), "nobody waits for a place");
}

#[test]
fn failures_back_off_liars_are_out_and_the_forgotten_free_no_place_twice() {
    let now = Instant::now();
    let mut mesh = mesh(3, now);
    let dials = mesh.dial(ALL, now);
    let at = mesh.ended(dials[0], ConnectionEnd::Failed, (false, true), now, 0.0).unwrap();
    mesh.ended(dials[1], ConnectionEnd::Lied, (false, true), now, 0.0);
    assert!(mesh.dial(ALL, now).is_empty() && mesh.next_due(now) == Some(at));
    assert_eq!(mesh.dial(ALL, at), [Dial { failures: 1, ..dials[0] }]);
    assert!(!mesh.ban(dials[1].peer) && mesh.ban(dials[2].peer));
    mesh.retain(NONE, NONE);
    assert!(!mesh.knows(dials[0].peer) && mesh.connections() == 2);
    mesh.ended(dials[0], ConnectionEnd::Failed, (false, true), at, 0.0);
    mesh.ended(dials[2], ConnectionEnd::Stopped, (false, true), at, 0.0);
    assert_eq!((mesh.connections(), mesh.next_due(at)), (0, None));
}

#[test]
fn a_stale_connection_is_not_held_against_the_peer_once() {
    let now = Instant::now();
    let mut mesh = mesh(1, now);
    let dial = mesh.dial(ALL, now)[0];
    assert_eq!(mesh.ended(dial, ConnectionEnd::Stale, (false, true), now, 0.0), None);
    let dial = mesh.dial(ALL, now)[0];
    assert!(mesh.ended(dial, ConnectionEnd::Stale, (false, true), now, 0.0).is_some());
    assert!(mesh.dial(ALL, now).is_empty());
    let dial = mesh.dial(ALL, now + RETRY_MAX)[0];
    assert!(mesh.ended(dial, ConnectionEnd::Busy(Duration::ZERO), (true, true), now + RETRY_MAX, 0.0).is_some());
}

/// Slow peers were dialed again at once, and took the place of peers that were not tried.
#[test]
fn slow_peers_come_after_those_that_were_not_tried() {
    let mut now = Instant::now();
    let mut mesh = mesh(80, now);
    let first = fill(&mut mesh, ALL, &mut now);
    assert!(mesh.others_wait(ALL, now));
    for dial in &first {
        assert!(mesh.ended(*dial, ConnectionEnd::Slow, (false, true), now, 0.0).is_some());
    }
    now += RETRY_MAX;
    let next = mesh.dial(ALL, now);
    assert!(next.iter().all(|d| d.failures == 0), "{next:?}");
    assert_eq!(next.len(), DIALS_AT_ONCE as usize);
    assert!(!mesh.others_wait(ALL, now));
    now += DIAL_EVERY * DIALS_AT_ONCE;
    assert!(mesh.dial(ALL, now).iter().all(|d| d.failures == 1), "but they are dialed");
}

/// A hundred and thirty keys of one host took all connections, and a peer elsewhere was dialed late or never.
#[test]
fn each_host_has_a_first_connection_before_any_has_a_second() {
    let ip = |n: u8| Some(std::net::IpAddr::from([10, 0, 0, n]));
    for seed in 0..20 {
        let now = Instant::now();
        let mut mesh = Mesh::new(seed, now);
        for n in 0..133 {
            mesh.meet(PeerHandle(n), 1, true, now);
            mesh.set_host(PeerHandle(n), ip(if n < 130 { 1 } else { n as u8 }));
        }
        let dials = mesh.dial(ALL, now);
        let elsewhere = |dials: &[Dial]| dials.iter().filter(|dial| dial.peer.0 >= 130).count();
        assert_eq!((dials.len(), elsewhere(&dials[..4])), (DIALS_AT_ONCE as usize, 3));
        // The connections that a host has count.
        mesh.meet(PeerHandle(133), 1, true, now);
        mesh.set_host(PeerHandle(133), ip(200));
        assert_eq!(mesh.dial(ALL, now + DIAL_EVERY)[0].peer, PeerHandle(133));
    }
}

/// A peer that was too slow before it had said what it holds was never asked again.
#[test]
fn a_slow_peer_is_asked_again_what_it_holds() {
    let now = Instant::now();
    let mut mesh = Mesh::new(7, now);
    mesh.meet(PeerHandle(0), 1, false, now);
    let dial = mesh.dial(NONE, now)[0];
    assert!(dial.locate);
    mesh.ended(dial, ConnectionEnd::Slow, (false, false), now, 0.0);
    let again = mesh.dial(NONE, now + RETRY_MAX);
    assert!(matches!(again[..], [dial] if dial.locate), "{again:?}");
}
