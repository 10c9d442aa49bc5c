//! The clock, what happens when, and all hosts and connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use gpb::internals::content::{Digest, FileId, Geometry, Root};
use gpb::internals::identity::{NodeId, PeerId};

use super::group::Group;
use super::peer::{Conn, Fault, Peer, State};
use super::{Config, Outcome};

/// Everything there is.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) id: FileId,
    pub(super) geometry: Geometry,
    base: Instant,
    now_ns: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    ticket: u64,
    pub(super) rng: Rng,
    pub(super) peers: Vec<Peer>,
    pub(super) conns: Vec<Conn>,
    pub(super) free: Vec<u32>,
    pub(super) group: Group,
    /// Peers that are to have the file and do not have it.
    pub(super) waiting: u32,
    pub(super) events: u64,
    frames: Vec<u8>,
}

/// What happens at a host or on a connection. Those of connections carry its generation, as numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Join(u32),
    Leave(u32),
    /// Connections are looked at as by the thread that watches over a download.
    Drive(u32),
    /// Connections without work look for some.
    Look(u32),
    Dialed(u32, u32),
    /// The dialer gives up, or notices that the other side is gone or silent.
    Broken(u32, u32),
    Requested(u32, u32),
    /// A block has left the uplink of a host.
    Sent(u32, u32, u32, u32),
    /// A block arrives at the downlink of a host, in turn or not.
    Arrived(u32, u32, u32, bool),
    /// A block is received.
    Received(u32, u32, u32),
    /// The sender learns of it.
    Acknowledged(u32, u32, u32),
    /// Somebody waits for an upload to begin.
    Retry(u32),
    Announce(u32),
}

/// SplitMix64.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl World {
    pub(super) fn new(config: &Config) -> Self {
        let base = Instant::now();
        let id = FileId { root: Root(Digest([7; 32])), len: config.file_len };
        let mut world = World {
            config: config.clone(),
            id,
            geometry: Geometry::new(config.file_len),
            base,
            now_ns: 0,
            heap: BinaryHeap::new(),
            ticket: 0,
            rng: Rng(config.seed),
            peers: Vec::new(),
            conns: Vec::new(),
            free: Vec::new(),
            group: Group::new(),
            waiting: 0,
            events: 0,
            frames: Vec::new(),
        };
        let faults = [
            (Fault::Leaves, config.leavers),
            (Fault::Freezes, config.freezers),
            (Fault::Lies, config.liars),
            (Fault::Slow, config.slow),
        ];
        let mut faults = faults.into_iter().flat_map(|(fault, n)| std::iter::repeat_n(fault, n as usize));
        for no in 0..config.holders + config.peers {
            let fault = if no < config.holders { Fault::None } else { faults.next().unwrap_or(Fault::None) };
            let seed = world.rng.next();
            world.peers.push(Peer::new(no, fault, &world.config, id, seed, base));
            world.waiting += u32::from(world.peers[no as usize].is_to_fetch());
            let at = match no {
                no if no < config.holders => 0,
                _ => 1_000_000 + world.rng.below(config.join.as_nanos() as u64 + 1),
            };
            world.at(at, Event::Join(no));
        }
        world
    }

    pub(super) fn run(mut self) -> Outcome {
        let limit_ns = (self.config.lower_bound_s() * LIMIT * 1e9) as u64 + LIMIT_MIN_NS;
        while self.waiting > 0
            && let Some(Reverse((at, _, event))) = self.heap.pop()
        {
            self.now_ns = at;
            if at > limit_ns {
                break;
            }
            self.events += 1;
            self.happens(event);
        }
        Outcome::of(&self)
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Join(peer) => self.join(peer),
            Event::Leave(peer) => self.leave(peer),
            Event::Drive(peer) => self.drive(peer),
            Event::Look(peer) => self.look(peer),
            Event::Dialed(conn, of) if self.is_current(conn, of) => self.dialed(conn),
            Event::Broken(conn, of) if self.is_current(conn, of) => self.broken(conn),
            Event::Requested(conn, of) if self.is_current(conn, of) => self.requested(conn),
            Event::Sent(peer, conn, of, len) => self.sent(peer, conn, of, len),
            Event::Received(conn, of, len) if self.is_current(conn, of) => self.received(conn, len),
            Event::Arrived(conn, of, len, in_turn) if self.is_current(conn, of) => {
                self.arrived((conn, of), len, in_turn, self.now_ns);
            }
            Event::Acknowledged(conn, of, len) if self.is_current(conn, of) => self.acknowledged(conn, len),
            Event::Retry(peer) => self.retry(peer),
            Event::Announce(peer) => self.announce(peer),
            _ => {}
        }
    }

    /// Whether a connection is still the one that the event was for.
    pub(super) fn is_current(&self, conn: u32, generation: u32) -> bool {
        let c = &self.conns[conn as usize];
        c.generation == generation && c.state != State::Closed
    }

    pub(super) fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.now_ns)
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The virtual time since the beginning in ns of an instant.
    pub(super) fn ns_of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    pub(super) fn at(&mut self, at_ns: u64, event: Event) {
        self.ticket += 1;
        self.heap.push(Reverse((at_ns, self.ticket, event)));
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now_ns + wait.as_nanos() as u64, event);
    }

    /// The length of what `encode` appends to a buffer.
    pub(super) fn measure(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> u64 {
        self.frames.clear();
        encode(&mut self.frames);
        self.frames.len() as u64
    }
}

/// The key and instance of a host.
pub(super) fn key_of(no: u32) -> NodeId {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&no.to_le_bytes());
    // A key looks random, and so does an instance.
    key[4..8].copy_from_slice(&no.wrapping_mul(0x9e37_79b9).to_le_bytes());
    NodeId::new(PeerId(key), u64::from(no).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The host whose key that is.
pub(super) fn host_of(NodeId { peer: PeerId(key), .. }: NodeId) -> u32 {
    let [a, b, c, d, ..] = key;
    u32::from_le_bytes([a, b, c, d])
}

/// Simulates no longer than so many times the lower bound.
const LIMIT: f64 = 50.0;
const LIMIT_MIN_NS: u64 = 60_000_000_000;
