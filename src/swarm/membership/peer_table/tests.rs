use std::time::Duration;

use super::*;
use crate::identity::Keypair;
use crate::limits::REFUSALS_MAX;
use crate::limits::{ADDRS_PER_PEER_MAX, CLOCK_SKEW_MAX, INSTANCES_PER_KEY_MAX, PEERS_MAX, TTL_MIN};
use crate::proto::Flags;
use crate::swarm::membership::limits::FULL_REMEMBERED;

const NOW_MS: u64 = 1_800_000_000_000;

fn table() -> PeerTable {
    PeerTable::new(NodeId::new(PeerId([0xee; 32]), 1))
}

fn ip(n: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 27420))
}

fn said(peer: PeerId, instance: u64, seq: u64) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer,
        instance,
        seq,
        ttl_s: 30,
        port: 27420,
        revision: 1,
        flags: Flags::default(),
    }
}

/// The table believes its caller that signatures are good, so one key seals for all made-up peers.
struct Lab {
    table: PeerTable,
    sealer: Keypair,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Lab { table: table(), sealer: Keypair::generate(), now: Instant::now() }
    }

    fn hear(&mut self, announce: &Announce, addr: SocketAddr, via: Via) -> Result<TableChange, Dropped> {
        let signed = SignedAnnounce::seal(announce, &self.sealer);
        self.table.upsert(&Received { signed: &signed, announce, addr, via, unix_ms: NOW_MS, now: self.now })
    }

    fn wait(&mut self, s: u64) -> Vec<Event> {
        self.now += Duration::from_secs(s);
        self.table.expire(self.now)
    }

    fn addrs(&self, peer: PeerId, instance: u64) -> Vec<SocketAddr> {
        self.table.peer(NodeId::new(peer, instance)).map(|p| p.addrs).unwrap_or_default()
    }
}

fn joined(peer: PeerId, instance: u64, addr: SocketAddr) -> Event {
    Event::PeerJoined { node: NodeId::new(peer, instance), addr }
}

fn left(peer: PeerId, instance: u64) -> Event {
    Event::PeerLeft { node: NodeId::new(peer, instance) }
}

const A: PeerId = PeerId([1; 32]);
const B: PeerId = PeerId([2; 32]);

#[test]
fn a_peer_joins_changes_and_expires() {
    let mut lab = Lab::new();
    let heard = lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [joined(A, 7, ip(1))]);
    assert!(heard.notable);
    let heard = lab.hear(&said(A, 7, NOW_MS + 1), ip(1), Via::Datagram).unwrap();
    assert_eq!(heard, TableChange::default(), "nothing new");
    let heard = lab.hear(&Announce { revision: 2, ..said(A, 7, NOW_MS + 2) }, ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [Event::PeerChanged { node: NodeId::new(A, 7), revision: 2 }]);
    assert_eq!(lab.wait(29), []);
    assert_eq!((lab.table.len(), lab.table.nodes()), (1, 2));
    assert_eq!(lab.wait(1), [left(A, 7)]);
    assert!(lab.table.is_empty() && lab.table.next_expiry().is_none());
}

#[test]
fn the_own_pair_is_dropped_but_not_another_instance_of_the_key() {
    let mut lab = Lab::new();
    let own = PeerId([0xee; 32]);
    assert_eq!(lab.hear(&said(own, 1, NOW_MS), ip(1), Via::Datagram), Err(Dropped::Own));
    assert!(lab.hear(&said(own, 2, NOW_MS), ip(1), Via::Datagram).is_ok());
}

#[test]
fn replays_are_dropped_and_echoes_are_not() {
    let mut lab = Lab::new();
    let first = said(A, 7, NOW_MS);
    lab.hear(&first, ip(1), Via::Datagram).unwrap();
    assert!(lab.hear(&first, ip(2), Via::Datagram).unwrap().notable, "the same at another interface");
    assert_eq!(lab.addrs(A, 7), [ip(1), ip(2)]);
    assert_eq!(lab.hear(&Announce { revision: 9, ..first.clone() }, ip(1), Via::Datagram), Err(Dropped::Replayed));
    assert_eq!(lab.hear(&said(A, 7, NOW_MS - 1), ip(3), Via::Datagram), Err(Dropped::Replayed));
    lab.wait(3);
    assert_eq!(lab.hear(&first, ip(3), Via::Datagram), Err(Dropped::Replayed), "too late for an echo");
    assert!(lab.hear(&first, ip(4), Via::Hint).is_ok(), "others may have heard less");
    assert_eq!(lab.addrs(A, 7), [ip(1), ip(2), ip(4)]);
    let signed = SignedAnnounce::seal(&first, &lab.sealer);
    assert_eq!(lab.table.screen(&signed, &first), Ok(true));
    let old = said(A, 7, NOW_MS - 5);
    assert_eq!(lab.table.screen(&SignedAnnounce::seal(&old, &lab.sealer), &old), Err(Dropped::Replayed));
}

#[test]
fn what_has_ended_is_not_brought_back_by_a_replay() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    lab.wait(60);
    for via in [Via::Datagram, Via::Hint] {
        assert_eq!(lab.hear(&said(A, 7, NOW_MS), ip(1), via), Err(Dropped::Replayed));
    }
    assert!(lab.hear(&said(A, 7, NOW_MS + 1), ip(1), Via::Datagram).is_ok(), "but by a newer announce");
}

#[test]
fn clocks_far_off_drop_and_others_are_reported_once() {
    let mut lab = Lab::new();
    let day = CLOCK_SKEW_MAX.as_millis() as u64;
    assert_eq!(lab.hear(&said(A, 7, NOW_MS + day + 1), ip(1), Via::Datagram), Err(Dropped::Future));
    assert_eq!(lab.hear(&said(A, 7, NOW_MS - day - 1), ip(1), Via::Datagram), Err(Dropped::Stale));
    assert_eq!(lab.hear(&said(A, 7, 0), ip(1), Via::Datagram), Err(Dropped::Stale));
    assert_eq!(lab.hear(&said(A, 7, u64::MAX), ip(1), Via::Datagram), Err(Dropped::Future));
    assert_eq!(lab.hear(&said(A, 7, NOW_MS - 61_000), ip(1), Via::Datagram).unwrap().skew_ms, Some(-61_000));
    assert_eq!(lab.hear(&said(A, 7, NOW_MS - 60_500), ip(1), Via::Datagram).unwrap().skew_ms, None, "told");
    assert_eq!(lab.hear(&said(B, 7, NOW_MS + 60_000), ip(1), Via::Datagram).unwrap().skew_ms, None, "little");
}

/// A session was as good as refused when the clocks of its ends differed by more than a day: the peer stayed unknown
/// even to who named it.
#[test]
fn in_a_session_a_clock_far_off_is_reported_and_no_more() {
    let day = CLOCK_SKEW_MAX.as_millis() as u64;
    for via in [Via::Session, Via::Hello] {
        for seq in [0, NOW_MS - day - 1, NOW_MS + day + 1, u64::MAX] {
            let mut lab = Lab::new();
            let change = lab.hear(&said(A, 7, seq), ip(1), via).unwrap();
            assert!(change.skew_ms.unwrap().unsigned_abs() > day, "{seq}");
            assert!(lab.hear(&said(A, 7, seq), ip(1), Via::Hint).is_err(), "not from others: {seq}");
        }
        let (mut lab, far) = (Lab::new(), NOW_MS + 30 * 3_600_000);
        lab.hear(&said(A, 7, far), ip(1), via).unwrap();
        assert!(lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).is_ok(), "set right, and taken in at once");
        lab.hear(&said(B, 7, far), ip(2), via).unwrap();
        lab.wait(60);
        assert!(lab.hear(&said(B, 7, NOW_MS), ip(2), Via::Datagram).is_ok(), "set right after it had left");
        lab.wait(60);
        assert_eq!(lab.hear(&said(B, 7, NOW_MS), ip(2), Via::Datagram), Err(Dropped::Replayed));
    }
}

#[test]
fn silly_times_to_live_are_bounded() {
    let mut lab = Lab::new();
    lab.hear(&Announce { ttl_s: 0, ..said(A, 7, NOW_MS) }, ip(1), Via::Datagram).unwrap();
    lab.hear(&Announce { ttl_s: u16::MAX, ..said(B, 7, NOW_MS) }, ip(2), Via::Datagram).unwrap();
    assert_eq!(lab.wait(0), []);
    assert_eq!(lab.wait(TTL_MIN.as_secs()), [left(A, 7)]);
    assert_eq!(lab.wait(28), []);
    assert_eq!(lab.wait(1), [left(B, 7)], "three intervals of so small a group");
}

#[test]
fn goodbye_counts_for_its_instance_only() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    let goodbye = |instance, seq| Announce { flags: Flags::GOODBYE, ..said(A, instance, seq) };
    assert_eq!(lab.hear(&goodbye(6, NOW_MS + 9), ip(1), Via::Datagram), Ok(TableChange::default()));
    assert_eq!(lab.hear(&goodbye(7, NOW_MS), ip(1), Via::Datagram), Err(Dropped::Replayed));
    assert_eq!(lab.table.len(), 1);
    let heard = lab.hear(&goodbye(7, NOW_MS + 1), ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [left(A, 7)]);
    assert_eq!(lab.table.nodes(), 1);
}

/// Each node that ended was counted as a replay at every host with two links, and warned of.
#[test]
fn the_goodbye_that_comes_over_another_link_is_no_replay() {
    let mut lab = Lab::new();
    let goodbye = |seq| Announce { flags: Flags::GOODBYE, ..said(A, 7, seq) };
    for busy in [false, true] {
        let seq = NOW_MS + 9 * u64::from(busy);
        lab.hear(&said(A, 7, seq), ip(1), Via::Datagram).unwrap();
        if busy {
            lab.table.session_opened(NodeId::new(A, 7));
        }
        for addr in [1, 2] {
            let (said, signed) = (goodbye(seq + 1), SignedAnnounce::seal(&goodbye(seq + 1), &lab.sealer));
            assert_eq!(lab.table.screen(&signed, &said), Ok(false));
            let heard = lab.hear(&said, ip(addr), Via::Datagram).unwrap();
            assert_eq!(heard.events.len(), usize::from(addr == 1), "{busy}");
        }
        // Of a node whose session is open still, this is an echo.
        assert_eq!(lab.hear(&said(A, 7, seq), ip(1), Via::Datagram).is_ok(), busy);
    }
}

#[test]
fn a_live_session_outlasts_silence_and_goodbye() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    lab.table.session_opened(NodeId::new(A, 7));
    lab.table.session_opened(NodeId::new(A, 7));
    assert_eq!(lab.wait(500), []);
    assert_eq!(lab.table.session_closed(NodeId::new(A, 7), lab.now), []);
    let goodbye = Announce { flags: Flags::GOODBYE, ..said(A, 7, NOW_MS + 1) };
    let heard = lab.hear(&goodbye, ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [left(A, 7)], "nobody dials it any more");
    assert_eq!((lab.table.len(), lab.table.nodes()), (0, 2), "but it is there");
    assert_eq!(lab.wait(500), []);
    assert_eq!(lab.table.session_closed(NodeId::new(A, 7), lab.now), []);
    assert_eq!(lab.table.nodes(), 1);
    assert_eq!(lab.table.session_closed(NodeId::new(A, 7), lab.now), [], "once too often harms nobody");
}

#[test]
fn a_new_start_at_the_same_place_replaces_the_old_one() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    lab.hear(&said(A, 8, NOW_MS), ip(2), Via::Datagram).unwrap();
    assert_eq!(lab.table.len(), 2, "another host");
    let heard = lab.hear(&said(A, 9, NOW_MS + 1), ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [left(A, 7), joined(A, 9, ip(1))]);
    assert!(lab.table.peer(NodeId::new(A, 7)).is_none() && lab.table.peer(NodeId::new(A, 8)).is_some());
    lab.hear(&said(A, 5, NOW_MS - 5), ip(1), Via::Datagram).unwrap();
    assert!(lab.table.peer(NodeId::new(A, 9)).is_some(), "the replay of an earlier start ends nobody");
    lab.hear(&said(A, 4, NOW_MS + 5), ip(1), Via::Hint).unwrap();
    assert!(lab.table.peer(NodeId::new(A, 9)).is_some(), "and hints end nobody");
}

#[test]
fn a_key_has_eight_instances_and_the_oldest_without_a_session_gives_way() {
    let mut lab = Lab::new();
    let place = |n: u64| ip(n as u32);
    for n in 0..INSTANCES_PER_KEY_MAX as u64 {
        lab.hear(&said(A, n, NOW_MS - 1000 + n), place(n), Via::Datagram).unwrap();
    }
    lab.table.session_opened(NodeId::new(A, 0));
    lab.table.proved(NodeId::new(A, 1), place(1), lab.now);
    assert_eq!(lab.hear(&said(A, 50, NOW_MS - 5000), ip(50), Via::Datagram), Err(Dropped::Crowded), "a replay");
    lab.hear(&said(A, 51, NOW_MS), ip(51), Via::Datagram).unwrap();
    assert!(lab.table.peer(NodeId::new(A, 2)).is_none());
    assert!(lab.table.peer(NodeId::new(A, 0)).is_some() && lab.table.peer(NodeId::new(A, 1)).is_some());
    assert_eq!(lab.table.len(), INSTANCES_PER_KEY_MAX);
    // Announces dated ahead do not hold their places against honest ones.
    for n in 100..108 {
        lab.hear(&said(A, n, NOW_MS + 3_600_000), place(n), Via::Datagram).unwrap();
    }
    lab.hear(&said(A, 60, NOW_MS), ip(60), Via::Datagram).unwrap();
    assert!(lab.table.peer(NodeId::new(A, 60)).is_some() && lab.table.peer(NodeId::new(A, 0)).is_some());
    for n in lab.table.entries.keys().map(|k| k.instance).collect::<Vec<_>>() {
        lab.table.session_opened(NodeId::new(A, n));
    }
    assert_eq!(lab.hear(&said(A, 61, NOW_MS), ip(61), Via::Datagram), Err(Dropped::Crowded));
    assert!(lab.hear(&said(B, 61, NOW_MS), ip(61), Via::Datagram).is_ok(), "other keys do not suffer");
}

#[test]
fn what_tls_proved_comes_first_and_stays() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    lab.hear(&said(B, 7, NOW_MS), ip(2), Via::Datagram).unwrap();
    lab.table.proved(NodeId::new(A, 7), ip(9), lab.now);
    for n in 10..60 {
        lab.hear(&said(A, 7, NOW_MS), ip(n), Via::Hint).unwrap();
    }
    assert_eq!(lab.addrs(A, 7)[..2], [ip(9), ip(1)]);
    assert_eq!(lab.addrs(A, 7).len(), ADDRS_PER_PEER_MAX);
    lab.now += Duration::from_secs(1);
    lab.hear(&said(B, 7, NOW_MS + 1), ip(2), Via::Datagram).unwrap();
    assert_eq!(lab.table.peers().iter().map(|p| p.peer).collect::<Vec<_>>(), [A, B], "B is fresher, A is proved");
    lab.table.failed(NodeId::new(A, 7), ip(9), lab.now);
    assert_eq!(lab.addrs(A, 7)[0], ip(1));
    assert_eq!(lab.table.peers().iter().map(|p| p.peer).collect::<Vec<_>>(), [B, A]);
}

#[test]
fn a_proved_address_is_taken_from_the_key_s_other_instances() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Hint).unwrap();
    lab.hear(&said(A, 8, NOW_MS), ip(2), Via::Datagram).unwrap();
    assert_eq!(lab.table.proved(NodeId::new(A, 8), ip(1), lab.now), [left(A, 7)]);
    assert!(lab.table.peer(NodeId::new(A, 7)).is_none());
    assert_eq!(lab.addrs(A, 8), [ip(1), ip(2)]);
}

#[test]
fn a_node_that_serves_nothing_counts_as_a_node_only() {
    let mut lab = Lab::new();
    let quiet = Announce { port: 0, ..said(A, 7, NOW_MS) };
    assert_eq!(lab.hear(&quiet, SocketAddr::from(([10, 0, 0, 1], 0)), Via::Datagram), Ok(TableChange::default()));
    assert_eq!((lab.table.len(), lab.table.nodes()), (0, 2));
    assert!(lab.table.peers().is_empty() && lab.table.hints(ip(9).ip(), 10).is_empty());
    let heard = lab.hear(&said(A, 7, NOW_MS + 1), ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [joined(A, 7, ip(1))], "until it does");
    let heard = lab.hear(&Announce { port: 0, ..said(A, 7, NOW_MS + 2) }, ip(1), Via::Datagram).unwrap();
    assert_eq!(heard.events, [left(A, 7)]);
    assert_eq!((lab.table.len(), lab.table.nodes()), (0, 2));
}

#[test]
fn one_key_on_two_hosts_is_reported_once() {
    let mut lab = Lab::new();
    let at = |addr: &str| -> SocketAddr { addr.parse().unwrap() };
    // A server and a client of one host, over two interfaces and loopback.
    for round in 0..3 {
        for (instance, addrs) in [(7, ["10.0.0.1:1", "127.0.0.1:1"]), (8, ["127.0.0.1:2", "10.0.0.1:2"])] {
            for addr in addrs {
                let announce = Announce { port: at(addr).port(), ..said(A, instance, NOW_MS + round) };
                assert_eq!(lab.hear(&announce, at(addr), Via::Datagram).unwrap().duplicate_key, None);
            }
        }
    }
    lab.hear(&said(A, 9, NOW_MS), ip(77), Via::Datagram).unwrap();
    assert!(lab.hear(&said(A, 9, NOW_MS + 1), ip(77), Via::Datagram).unwrap().duplicate_key.is_some());
    assert!(lab.hear(&said(A, 9, NOW_MS + 2), ip(77), Via::Datagram).unwrap().duplicate_key.is_none());
}

#[test]
fn hints_hand_on_what_is_known_at_first_hand_and_take_turns() {
    let mut lab = Lab::new();
    let far = ip(200).ip();
    let local: SocketAddr = "127.0.0.1:5".parse().unwrap();
    lab.hear(&said(A, 7, NOW_MS), local, Via::Datagram).unwrap();
    lab.hear(&said(B, 7, NOW_MS), ip(2), Via::Hint).unwrap();
    assert!(lab.table.hints(far, 10).is_empty(), "neither loopback nor hearsay");
    assert_eq!(lab.table.hints("::ffff:127.0.0.1".parse().unwrap(), 10)[0].addrs, [local]);
    lab.hear(&said(A, 7, NOW_MS), ip(66), Via::Datagram).unwrap();
    assert!(lab.table.hints(far, 10).is_empty(), "whoever repeats an announce is not told of as its peer");
    assert_eq!(lab.table.hint(NodeId::new(A, 7), far), None);
    lab.hear(&said(A, 7, NOW_MS + 1), ip(1), Via::Datagram).unwrap();
    let hints = lab.table.hints(far, 10);
    assert_eq!(hints.len(), 1);
    assert_eq!(hints[0].addrs, [ip(1)]);
    assert_eq!(SignedAnnounce::parse(&hints[0].announce).unwrap().1, said(A, 7, NOW_MS + 1));
    assert_eq!(lab.table.hint(NodeId::new(A, 7), far).as_ref(), hints.first());
    assert_eq!((lab.table.hint(NodeId::new(B, 7), far), lab.table.hint(NodeId::new(A, 8), far)), (None, None));
    for n in 10..30u8 {
        lab.hear(&said(PeerId([n; 32]), 1, NOW_MS), ip(n.into()), Via::Datagram).unwrap();
    }
    let told: BTreeSet<_> = (0..3).flat_map(|_| lab.table.hints(far, 7)).map(|h| h.addrs[0]).collect();
    assert_eq!(told.len(), 21, "three times seven different ones");
}

#[test]
fn refusals_are_counted_by_peer_until_it_lets_us_in() {
    let mut lab = Lab::new();
    lab.table.refused(A, RefusalCause::OtherNetwork);
    lab.table.refused(A, RefusalCause::OtherNetwork);
    lab.table.refused(B, RefusalCause::NotTrustedHere);
    assert_eq!(lab.table.refusals().count(), 2);
    lab.table.proved(NodeId::new(A, 7), ip(1), lab.now);
    assert_eq!(lab.table.refusals().collect::<Vec<_>>(), [(B, RefusalCause::NotTrustedHere)]);
    for n in 0..2 * REFUSALS_MAX as u64 {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        lab.table.refused(PeerId(key), RefusalCause::Unstated);
    }
    assert_eq!(lab.table.refusals().count(), REFUSALS_MAX);
}

#[test]
fn a_full_peer_counts_until_it_lets_us_in_or_is_long_ago() {
    let mut lab = Lab::new();
    [A, B].into_iter().for_each(|peer| lab.table.was_full(peer, lab.now));
    assert_eq!((lab.table.full(lab.now).count(), lab.table.refusals().count()), (2, 0));
    lab.table.proved(NodeId::new(A, 7), ip(1), lab.now);
    assert_eq!(lab.table.full(lab.now).count(), 1);
    lab.table.refused(B, RefusalCause::NotTrustedHere);
    assert_eq!((lab.table.full(lab.now).count(), lab.table.refusals().count()), (0, 1), "what it said last counts");
    lab.table.was_full(A, lab.now);
    assert_eq!(lab.table.full(lab.now + FULL_REMEMBERED).count(), 0);
}

#[test]
fn keys_that_lose_trust_are_gone_at_once() {
    let mut lab = Lab::new();
    lab.hear(&said(A, 7, NOW_MS), ip(1), Via::Datagram).unwrap();
    lab.hear(&said(B, 7, NOW_MS), ip(2), Via::Datagram).unwrap();
    lab.table.session_opened(NodeId::new(A, 7));
    assert_eq!(lab.table.retain(|peer| *peer == B), [left(A, 7)]);
    assert_eq!(lab.table.len(), 1);
}

fn key(n: u32) -> PeerId {
    let mut key = [3; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    PeerId(key)
}

#[test]
fn a_full_table_makes_room_at_the_cost_of_the_crowd() {
    let mut lab = Lab::new();
    // 1,000 honest hosts, one of them proved; one host with many keys fills the rest.
    for n in 0..1000 {
        lab.hear(&said(key(n), 1, NOW_MS), ip(n), Via::Datagram).unwrap();
    }
    lab.table.proved(NodeId::new(key(5), 1), ip(5), lab.now);
    let flooder = ip(0xff_ffff);
    for n in 1000..PEERS_MAX as u32 + 5000 {
        lab.now += Duration::from_millis(1);
        let _ = lab.hear(&Announce { ttl_s: 3600, ..said(key(n), 1, NOW_MS) }, flooder, Via::Datagram);
    }
    assert_eq!(lab.table.len(), PEERS_MAX);
    for n in 0..1000 {
        assert!(lab.table.peer(NodeId::new(key(n), 1)).is_some(), "honest {n} was pushed out");
    }
    for n in 1_000_000..1_001_000 {
        lab.hear(&said(key(n), 1, NOW_MS), ip(n), Via::Datagram).unwrap();
    }
    for n in (0..1000).chain(1_000_000..1_001_000) {
        assert!(lab.table.peer(NodeId::new(key(n), 1)).is_some(), "honest {n} found no room");
    }
    assert!(lab.table.len() <= PEERS_MAX);
    // Hearsay finds none.
    while lab.table.len() < PEERS_MAX {
        let n = 2_000_000 + lab.table.len() as u32;
        lab.hear(&said(key(n), 1, NOW_MS), ip(n), Via::Datagram).unwrap();
    }
    assert_eq!(lab.hear(&said(A, 1, NOW_MS), ip(1), Via::Hint), Err(Dropped::Full));
}

#[test]
fn honest_hosts_beyond_the_bound_do_not_push_each_other_around() {
    let mut lab = Lab::new();
    for n in 0..PEERS_MAX as u32 {
        lab.hear(&said(key(n), 1, NOW_MS), ip(n), Via::Datagram).unwrap();
    }
    for n in 0..5000 {
        let newcomer = PEERS_MAX as u32 + n;
        assert_eq!(lab.hear(&said(key(newcomer), 1, NOW_MS), ip(newcomer), Via::Datagram), Err(Dropped::Full));
    }
    assert_eq!(lab.table.len(), PEERS_MAX);
    let hour = Duration::from_secs(3600);
    assert_eq!(lab.table.expire(lab.now + hour).len(), PEERS_MAX);
    assert!(lab.table.deadlines.is_empty() && lab.table.entries.is_empty() && lab.table.origins.is_empty());
}
