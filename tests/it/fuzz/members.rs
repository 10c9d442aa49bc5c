//! Target: the table of peers, under any announces from anywhere, at any time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gpb::internals::identity::{NodeId, PeerId};
use gpb::internals::limits::{ADDRS_PER_PEER_MAX, INSTANCES_PER_KEY_MAX, PEERS_MAX, REFUSALS_MAX, TTL_MAX};
use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::internals::swarm::{Event, PeerTable, Received, Via};

use super::input::Input;

/// What happens to a table, one event after the other.
pub fn peer_table(bytes: &[u8]) {
    let (mut input, begin) = (Input::new(bytes), Instant::now());
    let mut world =
        World { table: PeerTable::new(OWN), now: begin, unix_ms: 1_700_000_000_000, sessions: vec![], joined: 0 };
    for step in 0..2000 {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        // A large table takes long to look through.
        if world.table.nodes() < 300 || step % 16 == 0 {
            world.check();
        }
    }
    // With the last session, and then with the last time to live, each node ends.
    for node in std::mem::take(&mut world.sessions) {
        let events = world.table.session_closed(node, world.now);
        world.count(&events);
    }
    world.now += TTL_MAX * 2;
    for _ in 0..3 {
        let events = world.table.expire(world.now);
        world.count(&events);
        world.now += TTL_MAX * 2;
    }
    assert!(world.table.is_empty() && world.table.nodes() == 1 && world.joined == 0, "{:?}", world.table);
    assert_eq!(world.table.next_expiry(), None);
}

struct World {
    table: PeerTable,
    now: Instant,
    unix_ms: u64,
    /// Nodes with a live session, one entry each.
    sessions: Vec<NodeId>,
    /// Peers that joined and did not leave, by the events.
    joined: isize,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let (node, addr) = (node(input), addr(input));
        let events = match what % 12 {
            0..=4 => self.announce(input, node, addr, false),
            5 => self.announce(input, node, addr, true),
            6 => self.table.proved(node, addr, self.now),
            7 => {
                self.table.failed(node, addr, self.now);
                self.table.refused(node.peer, gpb::RefusalCause::Unstated);
                vec![]
            }
            8 if self.table.knows(node) => {
                self.table.session_opened(node);
                self.sessions.push(node);
                vec![]
            }
            9 => match self.sessions.iter().position(|n| *n == node) {
                Some(at) => {
                    self.sessions.swap_remove(at);
                    self.table.session_closed(node, self.now)
                }
                None => vec![],
            },
            10 => {
                let passed = Duration::from_millis(input.number() % 4_000_000);
                self.now += passed;
                self.unix_ms += passed.as_millis() as u64;
                self.table.expire(self.now)
            }
            _ => {
                let max = input.below(300);
                let hints = self.table.hints(addr.ip(), max);
                assert!(hints.len() <= max);
                let to_self = addr.ip().to_canonical().is_loopback();
                for hint in &hints {
                    assert!((1..=ADDRS_PER_PEER_MAX).contains(&hint.addrs.len()));
                    assert!(to_self || hint.addrs.iter().all(|a| !a.ip().is_loopback()), "{hint:?} for {addr}");
                }
                vec![]
            }
        };
        self.count(&events);
    }

    /// One announce, or many of one kind from one source.
    fn announce(&mut self, input: &mut Input<'_>, node: NodeId, addr: SocketAddr, many: bool) -> Vec<Event> {
        let via = [Via::Datagram, Via::Hint, Via::Hello, Via::Session][input.below(4)];
        let skewed = input.number();
        let template = Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: node.peer,
            instance: node.instance,
            seq: if input.flag() { self.unix_ms.saturating_add(skewed) } else { self.unix_ms.saturating_sub(skewed) },
            ttl_s: input.number() as u16,
            port: input.number() as u16,
            revision: input.number() % 3,
            flags: Flags(input.number() as u16),
        };
        let mut events = vec![];
        for n in 0..if many { 1 + input.below(256) as u16 } else { 1 } {
            let mut announce = template.clone();
            if many {
                let [high, low] = n.to_le_bytes();
                (announce.peer.0[1], announce.peer.0[2]) = (high, low);
            }
            let signed = unsigned(&announce);
            let (now, unix_ms) = (self.now, self.unix_ms);
            let known = self.table.knows(NodeId::new(announce.peer, announce.instance));
            let screened = self.table.screen(&signed, &announce);
            assert!(known || screened != Ok(true), "only what is in the table was seen before");
            let received = Received { signed: &signed, announce: &announce, addr, via, unix_ms, now };
            if let Ok(change) = self.table.upsert(&received) {
                assert!(change.notable || change.events.is_empty() || known);
                events.extend(change.events);
            }
        }
        events
    }

    fn count(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::PeerJoined { .. } => self.joined += 1,
                Event::PeerLeft { .. } => self.joined -= 1,
                _ => (),
            }
        }
    }

    fn check(&mut self) {
        let table = &self.table;
        assert_eq!(table.len() as isize, self.joined, "events tell who is there");
        assert!(
            table.nodes() <= PEERS_MAX + 1 && table.len() < table.nodes() && table.refusals().count() <= REFUSALS_MAX
        );
        let peers = table.peers();
        assert_eq!(peers.len(), table.len());
        let mut instances: HashMap<PeerId, usize> = HashMap::new();
        for peer in &peers {
            assert!(peer.addrs.len() <= ADDRS_PER_PEER_MAX && table.knows(peer.node()));
            *instances.entry(peer.peer).or_default() += 1;
        }
        assert!(instances.values().all(|count| *count <= INSTANCES_PER_KEY_MAX));
        assert!(self.sessions.iter().all(|node| table.knows(*node)), "a node with a session stays");
        assert!(!table.knows(OWN));
    }
}

/// An announce whose signature is not looked at: the table gets verified ones only.
fn unsigned(announce: &Announce) -> SignedAnnounce {
    let payload = gpb::internals::proto::encode_body(announce);
    let bytes = [b"GPBa", [0; 64].as_slice(), &payload].concat();
    SignedAnnounce::parse(&bytes).expect("a well-formed announce").0
}

fn node(input: &mut Input<'_>) -> NodeId {
    let which = input.byte();
    if which == 0 { OWN } else { NodeId::new(PeerId([which % 8; 32]), u64::from(which / 8)) }
}

fn addr(input: &mut Input<'_>) -> SocketAddr {
    let (kind, last) = (input.byte(), input.byte());
    let ip: IpAddr = match kind % 5 {
        0 | 1 => Ipv4Addr::new(10, 0, 0, last).into(),
        2 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()).into(),
        3 => Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped().into(),
        _ => Ipv4Addr::from([last; 4]).into(),
    };
    SocketAddr::new(ip, 1 + u16::from(kind))
}

const OWN: NodeId = NodeId { peer: PeerId([200; 32]), instance: 0 };
