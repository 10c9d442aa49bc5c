use super::*;
use crate::limits::{PEERS_MAX, RETRY_MAX};

const ALL: fn(PeerHandle) -> bool = |_| true;
const EQUAL: fn(PeerHandle) -> u64 = |_| 1 << 20;
const NONE: fn(PeerHandle) -> bool = |_| false;

fn mesh(peers: u16, now: Instant) -> Mesh {
    let mut mesh = Mesh::new(7, now);
    (0..peers).for_each(|n| mesh.meet(PeerHandle(n), 1, true, now));
    mesh
}

fn handles(dials: &[Dial]) -> Vec<u16> {
    let mut handles: Vec<u16> = dials.iter().map(|d| d.peer.0).collect();
    handles.sort_unstable();
    handles
}

#[test]
fn a_large_group_gets_few_connections_to_peers_chosen_by_chance() {
    let now = Instant::now();
    let mut a = mesh(PEERS_MAX as u16, now);
    let chosen = handles(&a.dial(ALL, now));
    assert_eq!((chosen.len(), a.connections()), (DOWNLOAD_CONNECTIONS_MAX, DOWNLOAD_CONNECTIONS_MAX));
    assert!(chosen[0] < 2000 && *chosen.last().unwrap() > 14_000, "from all over: {chosen:?}");
    assert!(a.dial(ALL, now).is_empty() && !a.all_have_one(ALL, now));
    let mut b = Mesh::new(8, now);
    (0..PEERS_MAX as u16).for_each(|n| b.meet(PeerHandle(n), 1, true, now));
    assert_ne!(handles(&b.dial(ALL, now)), chosen, "others choose others");
    let mut again = mesh(PEERS_MAX as u16, now);
    assert_eq!(handles(&again.dial(ALL, now)), chosen, "the same seed chooses the same");
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
        mesh.ended(*dial, Ending::Idle { lost: false }, (false, false), now, 0.0);
    }
    assert_eq!(mesh.dial(|p| p.0 < 5, now).len(), LOCATES_AT_ONCE, "then the next");
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
        mesh.ended(*dial, Ending::Idle { lost: false }, (false, false), now, 0.0);
    }
    let left = dials[36..].iter().filter(|d| d.peer.0 != 3).count();
    assert_eq!(mesh.dial(|p| p.0 == 3, now).iter().filter(|d| d.locate).count(), LOCATES_AT_ONCE - left);
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
            mesh.ended(dial, Ending::Idle { lost: false }, (false, false), now, 0.0);
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
    let mut mesh = mesh(DOWNLOAD_CONNECTIONS_MAX as u16 + 1, now);
    let chosen = mesh.dial(ALL, now);
    let poor = chosen[5];
    let given = |p: PeerHandle| if p == poor.peer { 1_000 } else { 1_000_000 };
    assert_eq!(mesh.review(given, EQUAL, ALL, now), None, "not so soon");
    now += MESH_REVIEW;
    assert_eq!(mesh.review(given, EQUAL, ALL, now), Some(poor.peer));
    now += MESH_REVIEW;
    assert_eq!(mesh.review(|p| given(p) * 2, EQUAL, ALL, now), None, "it is on its way out, the others give alike");
    mesh.ended(poor, Ending::Idle { lost: false }, (true, true), now, 0.0);
    let next = mesh.dial(ALL, now);
    assert!(next.len() == 1 && next[0].peer != poor.peer && !chosen.contains(&next[0]));
    mesh.ended(next[0], Ending::Failed, (false, true), now, 0.0);
    assert_eq!(handles(&mesh.dial(ALL, now)), [poor.peer.0], "better than nobody");
}

#[test]
fn who_has_what_nobody_else_has_is_kept_however_little_it_gives() {
    let mut now = Instant::now();
    let mut mesh = mesh(DOWNLOAD_CONNECTIONS_MAX as u16 + 1, now);
    let chosen = mesh.dial(ALL, now);
    let first = chosen[5].peer;
    now += MESH_REVIEW;
    let given = |p: PeerHandle| if p == first { 0 } else { 1_000_000 };
    let backlog = |p: PeerHandle| if p == first { 1 << 30 } else { 1 << 20 };
    assert_eq!(mesh.review(given, backlog, ALL, now), None);
}

#[test]
fn who_just_came_and_sets_that_are_not_full_are_left_alone() {
    let mut now = Instant::now();
    let mut few = mesh(3, now);
    few.dial(ALL, now);
    now += MESH_REVIEW;
    assert_eq!(few.review(|p| 1_000_000 * u64::from(p.0), EQUAL, ALL, now), None);
    let mut all = mesh(DOWNLOAD_CONNECTIONS_MAX as u16, now);
    all.dial(ALL, now);
    now += MESH_REVIEW;
    assert_eq!(all.review(|p| 1_000_000 * u64::from(p.0), EQUAL, ALL, now), None, "nobody waits for a place");
}

#[test]
fn failures_back_off_liars_are_out_and_the_forgotten_free_no_place_twice() {
    let now = Instant::now();
    let mut mesh = mesh(3, now);
    let dials = mesh.dial(ALL, now);
    let at = mesh.ended(dials[0], Ending::Failed, (false, true), now, 0.0).unwrap();
    mesh.ended(dials[1], Ending::Lied, (false, true), now, 0.0);
    assert!(mesh.dial(ALL, now).is_empty() && mesh.next_due(now) == Some(at));
    assert_eq!(mesh.dial(ALL, at), [Dial { failures: 1, ..dials[0] }]);
    assert!(!mesh.ban(dials[1].peer) && mesh.ban(dials[2].peer));
    mesh.retain(NONE, NONE);
    assert!(!mesh.knows(dials[0].peer) && mesh.connections() == 2);
    mesh.ended(dials[0], Ending::Failed, (false, true), at, 0.0);
    mesh.ended(dials[2], Ending::Stopped, (false, true), at, 0.0);
    assert_eq!((mesh.connections(), mesh.next_due(at)), (0, None));
}

#[test]
fn a_stale_connection_is_not_held_against_the_peer_once() {
    let now = Instant::now();
    let mut mesh = mesh(1, now);
    let dial = mesh.dial(ALL, now)[0];
    assert_eq!(mesh.ended(dial, Ending::Stale, (false, true), now, 0.0), None);
    let dial = mesh.dial(ALL, now)[0];
    assert!(mesh.ended(dial, Ending::Stale, (false, true), now, 0.0).is_some());
    assert!(mesh.dial(ALL, now).is_empty());
    let dial = mesh.dial(ALL, now + RETRY_MAX)[0];
    assert!(mesh.ended(dial, Ending::Busy(Duration::ZERO), (true, true), now + RETRY_MAX, 0.0).is_some());
}
