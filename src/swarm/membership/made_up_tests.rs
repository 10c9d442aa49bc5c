//! Made-up members, which nothing but announces speaks for, do not silence a real one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::identity::{Keypair, NodeId, PeerId};
use crate::limits::{ANNOUNCE_INTERVAL, TTL_INTERVALS, TTL_MAX};
use crate::proto::{Announce, Flags, SignedAnnounce};
use crate::swarm::membership::limits::{GROUP_PACKETS_PER_S, NODES_PER_SOURCE_MAX};
use crate::swarm::membership::{AnnounceSchedule, GroupSize, Outgoing, PeerTable, Question, Received, Via, Way};

const S: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);
const NOW_MS: u64 = 1_800_000_000_000;

fn key(n: u32) -> PeerId {
    let mut key = [9; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    PeerId(key)
}

/// A real server and what it knows, under a virtual clock.
struct Server {
    schedule: AnnounceSchedule,
    table: PeerTable,
    /// The table believes its caller that signatures are good, so one serves for all.
    signed: SignedAnnounce,
    announce: Announce,
    /// When it announced itself to the group.
    sent: Vec<Instant>,
}

impl Server {
    fn start(seed: u64, now: Instant) -> Self {
        let announce = Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: key(0),
            instance: 1,
            seq: NOW_MS,
            ttl_s: 3600,
            port: 27420,
            revision: 1,
            flags: Flags::default(),
        };
        let signed = SignedAnnounce::seal(&announce, &Keypair::generate());
        let table = PeerTable::new(NodeId::new(PeerId([0xee; 32]), 1));
        Server { schedule: AnnounceSchedule::new(seed, now), table, signed, announce, sent: vec![] }
    }

    /// Hears the made-up node `n` from one of `sources` addresses.
    fn hear(&mut self, n: u32, sources: u32, seq: u64, now: Instant) {
        let announce = &Announce { peer: key(n), seq: NOW_MS + seq, ..self.announce.clone() };
        let addr = SocketAddr::from(((0x0a00_0000 + n % sources).to_be_bytes(), 27420));
        let signed = &self.signed;
        let received = Received { signed, announce, addr, via: Via::Datagram, unix_ms: NOW_MS, now };
        let _ = self.table.upsert(&received);
        self.schedule.received(Way::Group, addr.ip(), true, now);
        self.schedule.answered(self.table.is_member(received.node()), addr.ip(), now);
    }

    /// Whether it sends to the group now.
    fn step(&mut self, now: Instant) -> bool {
        self.table.expire(now);
        let before = self.sent.len();
        while self.schedule.due(self.table.size(), now).is_some() {
            self.sent.push(now);
        }
        self.sent.len() > before
    }

    fn run(&mut self, from: Instant, length: Duration) -> Instant {
        let mut now = from;
        while now < from + length {
            self.step(now);
            now += STEP;
        }
        now
    }

    /// How long a client that starts now waits for an answer, if it gets one within `most`.
    fn answers_client(&mut self, client: u32, start: Instant, most: Duration) -> Option<Duration> {
        let mut schedule = AnnounceSchedule::new(client.into(), start);
        let (asker, mut now, mut seq) = (NodeId::new(key(1_000_000 + client), 1), start, 0);
        while now <= start + most {
            while let Some(what) = schedule.due(1, now) {
                seq += 1;
                let unicast = matches!(what, Outgoing::QueryUnicast | Outgoing::Broadcast);
                let offering = Some(self.table.offering() + 1);
                self.schedule.received(Way::Group, SocketAddr::from(([10, 9, 9, client as u8], 1)).ip(), true, now);
                let question = Question { asker, seq, unicast };
                if self.schedule.asked(&question, self.table.size(), || offering, now) {
                    return Some(now - start);
                }
            }
            if self.step(now) {
                return Some(now - start);
            }
            now += STEP;
        }
        None
    }

    fn most_packets_per_s(&self) -> usize {
        let of = |from: &Instant| self.sent.iter().filter(|at| *at >= from && **at < *from + S).count() * 2;
        self.sent.iter().map(of).max().unwrap_or(0)
    }
}

/// `nodes` made-up nodes from `sources` addresses announce themselves `times` within `length`; a
/// minute and ten minutes later a client asks.
fn attack(seed: u64, nodes: u32, sources: u32, length: Duration, times: u64) {
    let t = Instant::now();
    let mut server = Server::start(seed, t);
    let mut now = server.run(t, 20 * S);
    for time in 1..=times {
        for n in 0..nodes {
            let at = now + length.mul_f64(f64::from(n) / f64::from(nodes));
            server.hear(n, sources, time, at);
            if n % 64 == 0 {
                server.step(at);
            }
        }
        now = server.run(now + length, 10 * S);
    }
    for (client, pause) in [60, 600].into_iter().enumerate() {
        now = server.run(now, pause * S);
        let answered = server.answers_client(client as u32, now, 5 * S);
        let size = server.table.size();
        assert!(answered.is_some(), "seed {seed}, {pause} s after {nodes} from {sources} addresses: {size:?}");
        now += 5 * S;
    }
    let most = server.most_packets_per_s();
    assert!(most < GROUP_PACKETS_PER_S as usize, "{most} packets in a second");
}

#[test]
fn a_client_is_answered_among_16_000_made_up_members() {
    for seed in 0..10 {
        attack(seed, 16_000, 400, 6 * S, 1);
    }
}

#[test]
fn a_client_is_answered_where_made_up_members_have_proved_themselves() {
    for seed in 0..10 {
        attack(seed, 16_000, 400, 6 * S, 3);
    }
}

#[test]
fn a_client_is_answered_where_one_host_makes_up_members_slowly() {
    for seed in 0..10 {
        attack(seed, 1039, 1, 52 * S, 1);
    }
}

/// While 25 announces a second of two hosts came, regular announces and new revisions waited, and answers to the group
/// were left out.
#[test]
fn two_hosts_that_announce_without_end_silence_no_other() {
    for seed in 0..10 {
        let t = Instant::now();
        let mut server = Server::start(seed, t);
        let mut attacked = (t, 0);
        let mut attack = |server: &mut Server, until: Instant| {
            while attacked.0 < until {
                attacked = (attacked.0 + Duration::from_millis(40), attacked.1 + 1);
                server.hear((attacked.1 % 1000) as u32, 2, attacked.1, attacked.0);
                server.step(attacked.0);
            }
        };
        attack(&mut server, t + 60 * S);
        for client in 0..10 {
            let begun = t + (60 + client as u32 * 10) * S;
            attack(&mut server, begun);
            let mut schedule = AnnounceSchedule::new(seed * 10 + client, begun);
            let (asker, own) =
                (NodeId::new(key(1_000_000 + client as u32), 1), SocketAddr::from(([10, 9, 9, 9], 1)).ip());
            let (mut answered, mut seq) = (false, 0);
            for step in 0..500 {
                let now = begun + step * STEP;
                let sent = server.sent.len();
                attack(&mut server, now);
                answered |= server.sent.len() > sent;
                while let Some(what) = schedule.due(1, now) {
                    seq += 1;
                    server.schedule.received(Way::Group, own, true, now);
                    let unicast = matches!(what, Outgoing::QueryUnicast | Outgoing::Broadcast);
                    let (offering, size) = (Some(server.table.offering() + 1), server.table.size());
                    answered |= server.schedule.asked(&Question { asker, seq, unicast }, size, || offering, now);
                }
            }
            assert!(answered, "seed {seed}, client {client}: {:?}", server.table.size());
        }
        let most = server.most_packets_per_s();
        assert!(most < GROUP_PACKETS_PER_S as usize, "{most} packets in a second");
    }
}

#[test]
fn members_are_proved_by_tls_or_by_an_interval_of_announces() {
    let t = Instant::now();
    let mut server = Server::start(1, t);
    let proved = |server: &Server| server.table.size().proved;
    server.hear(1, 1, 0, t);
    server.hear(1, 1, 1, t + 2 * S);
    assert_eq!(server.table.size(), GroupSize { known: 2, proved: 1 }, "a burst is no interval");
    server.hear(1, 1, 2, t + 10 * S);
    assert_eq!(proved(&server), 2);
    assert!(server.table.is_member(NodeId::new(key(1), 1)));
    server.hear(2, 1, 0, t + 10 * S);
    assert_eq!(proved(&server), 2);
    server.table.proved(NodeId::new(key(2), 1), SocketAddr::from(([10, 0, 0, 0], 27420)), t + 10 * S);
    assert_eq!(proved(&server), 3);
    for n in 3..200 {
        server.hear(n, 1, 0, t + 11 * S);
        server.hear(n, 1, 1, t + 21 * S);
    }
    assert_eq!(server.table.size(), GroupSize { known: 200, proved: NODES_PER_SOURCE_MAX + 1 });
    server.table.expire(t + TTL_MAX);
    assert_eq!(server.table.size(), GroupSize::from(1));
}

#[test]
fn a_time_to_live_is_believed_as_far_as_the_group_is_large() {
    let (t, usual) = (Instant::now(), ANNOUNCE_INTERVAL * TTL_INTERVALS);
    let mut server = Server::start(1, t);
    (0..1000).for_each(|n| server.hear(n, 1, 0, t));
    server.table.expire(t + usual - STEP);
    assert_eq!(server.table.nodes(), 1001);
    server.table.expire(t + usual);
    assert_eq!(server.table.nodes(), 1, "of one address");
    // A large group: each address has one, and the first ones stay as long as the last.
    (2000..7000).for_each(|n| server.hear(n, 100_000, 0, t + usual));
    server.table.expire(t + usual + 1000 * S);
    assert_eq!(server.table.nodes(), 5001);
    server.table.expire(t + usual + 1072 * S);
    assert_eq!(server.table.nodes(), 1);
}
