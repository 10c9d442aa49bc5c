use std::sync::{LazyLock, Mutex};

use super::*;
use crate::limits::CLOCK_SKEW_MAX;
use crate::net::LinkId;
use crate::peers::fake::{directory, hello, keypair_and_id, said};
use crate::proto::Flags;
use crate::swarm::Way;
use crate::swarm::membership::limits::CLOCK_SKEW_LOGGED;

/// The lines that all tests of this binary log, newest last.
static LINES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    Mutex::default()
});

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// How many lines that begin with `what` were logged of `peer`.
fn logged(what: &str, peer: PeerId) -> usize {
    let of = format!("peer={peer}");
    LINES.lock().unwrap().iter().filter(|line| line.starts_with(what) && line.contains(&of)).count()
}

const SKEW: &str = "clocks differ";
const DUPLICATE: &str = "one key seems to be in use on two hosts";

fn host(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 4000))
}

fn datagram(from: SocketAddr) -> Datagram {
    Datagram { len: 0, from, link: LinkId(0), way: Way::Group, local: false }
}

/// A clock that is wrong by more than what is tolerated in silence.
fn wrong_ms() -> u64 {
    unix_ms() + 5 * CLOCK_SKEW_LOGGED.as_millis() as u64
}

#[test]
fn a_wrong_clock_is_logged_once_when_the_peer_is_first_met_by_hello() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let _ = logged(SKEW, peer);
    let seq = wrong_ms();
    let presence = directory.hello(peer, &hello(&keypair, 7, seq), host(1));
    assert!(presence.is_some());
    assert_eq!(logged(SKEW, peer), 1);
    let _again = directory.hello(peer, &hello(&keypair, 7, seq + 1), host(1));
    directory.datagram(said(&keypair, 7, seq + 2).as_bytes(), &datagram(host(1)), Instant::now()).unwrap();
    assert_eq!(logged(SKEW, peer), 1);
}

#[test]
fn a_wrong_clock_is_logged_once_when_the_peer_is_first_met_by_welcome() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let _ = logged(SKEW, peer);
    let seq = wrong_ms();
    for n in 0..3 {
        let announce = said(&keypair, 7, seq + n);
        directory.welcome(NodeId::new(peer, 7), announce.as_bytes(), host(1), Instant::now()).unwrap();
    }
    assert_eq!(logged(SKEW, peer), 1);
}

#[test]
fn a_key_on_two_hosts_is_logged_once_when_the_second_comes_by_hello() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let _ = logged(DUPLICATE, peer);
    let seq = unix_ms();
    // A node has several addresses, so each instance must have been met twice before two can be
    // told apart.
    for n in 0..3 {
        directory.datagram(said(&keypair, 7, seq + n).as_bytes(), &datagram(host(1)), Instant::now()).unwrap();
        assert!(directory.hello(peer, &hello(&keypair, 8, seq + n), host(2)).is_some());
    }
    assert_eq!(logged(DUPLICATE, peer), 1);
}

#[test]
fn a_key_on_two_hosts_is_logged_once_when_the_second_comes_by_welcome() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let _ = logged(DUPLICATE, peer);
    let seq = unix_ms();
    for n in 0..3 {
        assert!(directory.hello(peer, &hello(&keypair, 7, seq + n), host(1)).is_some());
        let announce = said(&keypair, 8, seq + n);
        directory.welcome(NodeId::new(peer, 8), announce.as_bytes(), host(2), Instant::now()).unwrap();
    }
    assert_eq!(logged(DUPLICATE, peer), 1);
}

#[test]
fn a_peer_stays_while_a_session_with_it_lives() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let presence = directory.hello(peer, &hello(&keypair, 7, unix_ms()), host(1)).unwrap();
    let late = Instant::now() + Duration::from_secs(3600);
    directory.housekeep(late);
    assert!(directory.read(|t| t.knows(NodeId::new(peer, 7))));
    drop(presence);
    directory.housekeep(late);
    assert!(!directory.read(|t| t.knows(NodeId::new(peer, 7))), "it expired");
}

#[test]
fn a_session_brings_only_announces_of_its_own_peer_and_counts_without() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let (other, now) = (keypair_and_id().0, Instant::now());
    assert!(directory.hello(peer, &hello(&other, 7, unix_ms()), host(1)).is_none(), "signed by another key");
    assert!(directory.hello(peer, &Hello { announce: vec![], ..hello(&keypair, 7, 0) }, host(1)).is_none());
    let stale = unix_ms() - CLOCK_SKEW_MAX.as_millis() as u64 - 60_000;
    let welcome = |announce: &[u8]| directory.welcome(NodeId::new(peer, 7), announce, host(1), now);
    assert_eq!(welcome(said(&other, 7, unix_ms()).as_bytes()), Err(Dropped::OtherPeer));
    assert_eq!(directory.read(PeerTable::nodes), 1);
    assert_eq!(welcome(said(&keypair, 7, stale).as_bytes()), Ok(()), "a session is fresh, whatever the clocks say");
    assert_eq!(directory.read(PeerTable::nodes), 2);
    directory.refused(peer, RefusalCause::OtherNetwork);
    assert_eq!(welcome(&[]), Err(Dropped::Malformed));
    assert_eq!(directory.read(|t| t.refusals().count()), 0, "a peer that welcomes this node does not refuse it");
}

/// A peer that was first met by its own dial is noted at the source of that, where it may not answer. A download went on dialing that
/// address alone after a contact had proved another one.
#[test]
fn an_address_that_is_proved_later_is_told_to_those_who_wait() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let (seq, node, now) = (unix_ms(), NodeId::new(peer, 7), Instant::now());
    let _presence = directory.hello(peer, &hello(&keypair, 7, seq), host(1)).unwrap();
    let welcome = |at| directory.welcome(node, said(&keypair, 7, seq).as_bytes(), at, now).unwrap();
    let before = directory.changes();
    welcome(host(2));
    assert_eq!(directory.read(|t| t.first_addr(node)), Some(host(2)));
    let told = directory.changes();
    assert!(told > before, "waiters look again");
    welcome(host(2));
    assert_eq!(directory.changes(), told, "nothing new");
}

#[test]
fn goodbye_is_told_and_its_announce_dropped() {
    let (directory, (keypair, peer)) = (directory(), keypair_and_id());
    let seq = unix_ms();
    assert!(directory.hello(peer, &hello(&keypair, 7, seq), host(1)).is_some());
    let before = directory.changes();
    let goodbye = crate::peers::fake::announce(&keypair, 7, seq + 1);
    let goodbye = SignedAnnounce::seal(&Announce { flags: Flags::GOODBYE, ..goodbye }, &keypair);
    directory.datagram(goodbye.as_bytes(), &datagram(host(1)), Instant::now()).unwrap();
    assert!(directory.changes() > before, "waiters look again");
    assert!(!directory.read(|t| t.knows(NodeId::new(peer, 7))));
    let replay = said(&keypair, 7, seq);
    assert_eq!(
        directory.datagram(replay.as_bytes(), &datagram(host(1)), Instant::now()),
        Err(Dropped::Replayed),
        "it does not come back"
    );
}

/// Most networks have IPv4 and IPv6, and each announce comes over both: one is news.
#[test]
fn a_second_copy_of_an_announce_is_not_new() {
    let (directory, (keypair, _)) = (directory(), keypair_and_id());
    let announce = said(&keypair, 7, unix_ms());
    let v6 = SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 4000));
    let is_new = |from| directory.datagram(announce.as_bytes(), &datagram(from), Instant::now()).unwrap().1;
    assert!(is_new(host(1)) && !is_new(v6));
}
