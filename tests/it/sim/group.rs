//! Who comes, who goes, and what the group says by multicast.

use gpb::internals::identity::NodeId;
use std::net::SocketAddr;
use std::time::Instant;

use gpb::internals::identity::Keypair;
use gpb::internals::limits::WIRE_VERSION;
use gpb::internals::proto::{Announce, Flags, Hello, Request, SignedAnnounce, encode_request};
use gpb::internals::swarm::{AnnounceSchedule, Outgoing, PeerTable, Question, Received, Via, Way};

use super::peer::Fault;
use super::world::{Event, World, key_of};

/// What the group hears.
pub(super) struct Group {
    keypair: Keypair,
    /// Hosts that have come, in that order; those that left too.
    pub(super) joined: Vec<u32>,
    pub(super) here: u32,
    /// By host.
    paces: Vec<Option<AnnounceSchedule>>,
    /// Whole tables, of the first hosts.
    pub(super) tables: Vec<PeerTable>,
    /// Packets and bytes to the group so far: everyone receives them.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Packets in each second.
    pub(super) by_second: Vec<u32>,
    /// Length of a `Hello` and, nearly, of the answer to it.
    pub(super) hello_len: u64,
}

impl Group {
    pub(super) fn new() -> Self {
        let keypair = Keypair::generate();
        let announce = SignedAnnounce::seal(&announce_of(0, 1 << 40, 30, Flags::default()), &keypair);
        let hello = Hello {
            version: WIRE_VERSION,
            network: NETWORK.into(),
            instance: u64::MAX,
            announce: announce.as_bytes().to_vec(),
            agent: "gpb/0.1.0".into(),
        };
        let mut frame = Vec::new();
        encode_request(&Request::Hello(hello), &mut frame);
        Group {
            keypair,
            joined: Vec::new(),
            here: 0,
            paces: Vec::new(),
            tables: Vec::new(),
            packets: 0,
            bytes: 0,
            by_second: Vec::new(),
            hello_len: frame.len() as u64,
        }
    }

    /// How many are there, as the first hosts know it from what they heard.
    fn nodes(&self) -> usize {
        self.tables.iter().map(PeerTable::nodes).max().unwrap_or(1)
    }
}

impl World {
    pub(super) fn join(&mut self, peer: u32) {
        let (now, seed) = (self.now(), self.rng.next());
        self.peers[peer as usize].here = true;
        self.peers[peer as usize].joined = (self.now_ns(), self.group.packets, self.group.bytes);
        self.group.here += 1;
        if self.group.paces.len() <= peer as usize {
            self.group.paces.resize_with(peer as usize + 1, || None);
        }
        self.group.paces[peer as usize] = Some(AnnounceSchedule::new(seed, now));
        if (peer as usize) < TABLES {
            self.group.tables.push(PeerTable::new(key_of(peer)));
        }
        if peer >= self.config.holders {
            (0..self.config.holders).for_each(|holder| self.meet(peer, holder, true));
        }
        let others = self.group.joined.len() as u64;
        for n in 0..others.min(KNOWN) {
            // In a small group everyone, in a large one a few by chance.
            let at = if others <= KNOWN { n } else { self.rng.below(others) };
            let other = self.group.joined[at as usize];
            self.meet(peer, other, false);
            self.meet(other, peer, false);
        }
        self.group.joined.push(peer);
        self.drive_now(peer);
        self.announce(peer);
    }

    /// A host leaves without a word, or falls silent.
    pub(super) fn leave(&mut self, peer: u32) {
        if self.peers[peer as usize].fault == Fault::Freezes {
            self.peers[peer as usize].frozen = true;
            return;
        }
        for conn in self.outgoing_of(peer) {
            self.close(conn, gpb::internals::swarm::ConnectionEnd::Stopped);
        }
        self.peers[peer as usize].here = false;
        self.group.here -= 1;
        self.group.paces[peer as usize] = None;
        for conn in std::mem::take(&mut self.peers[peer as usize].incoming) {
            let generation = self.conns[conn as usize].generation;
            self.after(self.conns[conn as usize].delay, Event::Broken(conn, generation));
        }
    }

    /// Sends what is due now, and waits for what is due next.
    pub(super) fn announce(&mut self, peer: u32) {
        let now = self.now();
        self.peers[peer as usize].announces_ns = u64::MAX;
        loop {
            let nodes = self.group.nodes();
            let Some(pace) = self.group.paces.get_mut(peer as usize).and_then(Option::as_mut) else { return };
            if self.peers[peer as usize].frozen {
                return;
            }
            let Some(what) = pace.due(nodes, now) else { break };
            let ttl_s = pace.ttl_s();
            self.tell_group(peer, what, ttl_s, now);
        }
        self.announce_when_due(peer);
    }

    pub(super) fn announce_when_due(&mut self, peer: u32) {
        let Some(pace) = self.group.paces.get(peer as usize).and_then(Option::as_ref) else { return };
        let due = self.ns_of(pace.next_due()).max(self.now_ns());
        if due < self.peers[peer as usize].announces_ns {
            self.peers[peer as usize].announces_ns = due;
            self.at(due, Event::Announce(peer));
        }
    }

    /// The catalogue of a host changed.
    pub(super) fn changed(&mut self, peer: u32) {
        let now = self.now();
        if let Some(pace) = self.group.paces.get_mut(peer as usize).and_then(Option::as_mut) {
            pace.changed(now);
            self.announce_when_due(peer);
        }
    }

    fn tell_group(&mut self, peer: u32, what: Outgoing, ttl_s: u16, now: Instant) {
        let flags = match what {
            Outgoing::QueryUnicast | Outgoing::Broadcast => Flags::QUERY.with(Flags::UNICAST),
            Outgoing::Query => Flags::QUERY,
            Outgoing::Announce => Flags::default(),
        };
        let unix_ms = UNIX_MS + self.now_ns() / 1_000_000;
        let announce = announce_of(peer, unix_ms, ttl_s, flags);
        let signed = SignedAnnounce::seal(&announce, &self.group.keypair);
        let len = signed.as_bytes().len() as u64;
        let (way, copies) = match what {
            Outgoing::Broadcast => (Way::Broadcast, 1),
            // Over IPv4 and IPv6.
            _ => (Way::Group, 2),
        };
        self.count(copies, copies * len);
        let addr = addr_of(peer);
        for (at, table) in self.group.tables.iter_mut().enumerate() {
            let lost = self.config.loss > 0.0 && self.rng.unit() < self.config.loss;
            if at != peer as usize && !lost {
                let (signed, announce, via) = (&signed, &announce, Via::Datagram);
                let _ = table.upsert(&Received { signed, announce, addr, via, unix_ms, now });
            }
        }
        for (at, pace) in self.group.paces.iter_mut().enumerate().filter(|(at, _)| *at != peer as usize) {
            let lost = self.config.loss > 0.0 && self.rng.unit() < self.config.loss;
            if let Some(pace) = pace.as_mut().filter(|_| !lost) {
                let _ = at;
                pace.received(way, source_of(peer), true, now);
            }
        }
        if flags.contains(Flags::QUERY) {
            self.ask_group(peer, announce.seq, flags.contains(Flags::UNICAST), len, now);
        }
    }

    /// A question is heard. The first holder, which alone offers something, always looks at it. In a large group each of
    /// the others answers with a small probability; of that, a first coin is thrown here, for all at once, and the rest by
    /// [`AnnounceSchedule`], which is told of a group so much smaller.
    fn ask_group(&mut self, asker: u32, seq: u64, unicast: bool, len: u64, now: Instant) {
        let here = self.group.joined.len() as u64;
        let few = here <= ASKED;
        let nodes = self.group.nodes();
        self.put_question(0, (asker, seq), unicast, nodes, len, now);
        for n in 0..here.min(ASKED) {
            let at = if few { n } else { self.rng.below(here) };
            let peer = self.group.joined[at as usize];
            if peer != 0 {
                self.put_question(peer, (asker, seq), unicast, if few { nodes } else { ASKED as usize }, len, now);
            }
        }
    }

    fn put_question(
        &mut self,
        peer: u32,
        (asker, seq): (u32, u64),
        unicast: bool,
        nodes: usize,
        len: u64,
        now: Instant,
    ) {
        if peer == asker || self.peers[peer as usize].frozen {
            return;
        }
        let Some(pace) = self.group.paces.get_mut(peer as usize).and_then(Option::as_mut) else { return };
        if pace.asked(&Question { asker: key_of(asker), seq, unicast }, nodes, || (peer == 0).then_some(1), now) {
            self.count(1, len);
            if let Some(pace) = self.group.paces[asker as usize].as_mut() {
                pace.received(Way::Unicast, source_of(peer), true, now);
            }
            // Only the asker receives it.
            self.group.packets -= 1;
            self.group.bytes -= len;
            let tally = &mut self.peers[asker as usize].tally;
            tally.packets += 1;
            tally.announces += len;
        }
        self.announce_when_due(peer);
    }

    fn count(&mut self, packets: u64, bytes: u64) {
        self.group.packets += packets;
        self.group.bytes += bytes;
        let second = (self.now_ns() / 1_000_000_000) as usize;
        let by_second = &mut self.group.by_second;
        by_second.resize(by_second.len().max(second + 1), 0);
        by_second[second] += packets as u32;
    }
}

fn announce_of(peer: u32, seq: u64, ttl_s: u16, flags: Flags) -> Announce {
    let NodeId { peer: key, instance } = key_of(peer);
    Announce {
        version: Announce::VERSION,
        network: NETWORK.into(),
        peer: key,
        instance,
        seq,
        ttl_s,
        port: 27420,
        revision: 0,
        flags,
    }
}

fn addr_of(peer: u32) -> SocketAddr {
    let [_, b, c, d] = peer.to_be_bytes();
    SocketAddr::from(([10, b, c, d], 27420))
}

const NETWORK: &str = "gpb";
/// Some time in this decade, by which announces are dated.
const UNIX_MS: u64 = 1_800_000_000_000;
/// Hosts that keep a whole table.
const TABLES: usize = 3;
/// Others that a host that joins hears of, and that hear of it.
const KNOWN: u64 = 96;
/// Hosts to which a question is put, of a large group.
const ASKED: u64 = 65;

/// The address that a schedule sees. Each remembers the addresses that it heard, so there are few here.
fn source_of(peer: u32) -> std::net::IpAddr {
    [10, 1, 0, peer as u8].into()
}
