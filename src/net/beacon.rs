//! Datagrams between nodes: what carries them, and a carrier in memory for tests.
//!
//! A beacon moves bytes; discovery gives them meaning.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::net::limits::HUB_QUEUE_MAX;
use crate::swarm::Way;
use crate::sync::lock;

/// Sends datagrams to a group and receives from it. Owned by one thread.
pub trait Beacon: Send {
    /// Sends `bytes` over every link that `to` means. A datagram that cannot be sent is lost, as on
    /// any network; [`links`](Self::links) shows the trouble.
    fn send(&mut self, bytes: &[u8], to: To);

    /// Waits for a datagram until `until`; one that is there already is returned even later. `None`
    /// when the time is over or the waker was used. Bytes that do not fit `buffer` are cut off.
    fn receive(&mut self, buffer: &mut [u8], until: Instant) -> Option<Datagram>;

    /// Ends a wait in [`receive`](Self::receive), or the next one, from any thread.
    fn waker(&self) -> Waker;

    /// The links that this beacon uses, to be shown.
    fn links(&self) -> Vec<Link>;

    /// Number of links that have come up since the start: when it grows, there may be new
    /// neighbours to ask.
    fn links_up(&self) -> u64;
}

/// Wakes the thread that waits in a beacon. Never blocks.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The target of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The group, on every link.
    Group,
    /// Every host of the wire, on every link that has broadcast.
    Broadcast,
    /// One node: answers a [`Datagram`] that came over that link from that address. An address that
    /// is not of the link's network gets none.
    Node(LinkId, SocketAddr),
}

/// One of a beacon's links, as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// A received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Its length in bytes.
    pub len: usize,
    /// Its source. A link-local IPv6 address has its scope.
    pub from: SocketAddr,
    /// The link that it came over.
    pub link: LinkId,
    /// How it was addressed.
    pub way: Way,
    /// Whether the source is an address of this host.
    pub local: bool,
}

/// A network interface, with one address family, as discovery uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of the interface.
    pub interface: String,
    /// The address that this node sends from.
    pub addr: IpAddr,
    /// The group and its port.
    pub group: SocketAddr,
    /// The hops that what is sent to the group goes at most; 1 stays on the link.
    pub hops: u8,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received, this host's own included.
    pub heard: u64,
    /// Why it does not work, if it does not.
    pub error: Option<LinkError>,
}

/// Why an interface does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Another program has the common port and does not share it.
    #[error("UDP port {} is used by another program", crate::limits::PORT)]
    PortTaken,
    /// What the system says.
    #[error("{0}")]
    Failed(String),
}

/// A LAN in memory: every node receives what any of them sends, except for losses by chance.
#[derive(Debug, Clone)]
pub struct Hub {
    lan: Arc<Mutex<HubState>>,
}

#[derive(Debug)]
struct HubState {
    nodes: BTreeMap<SocketAddr, Sender<Parcel>>,
    next_port: u16,
    loss: f64,
    rng: StdRng,
    sent: u64,
}

/// An element of a node's queue: a datagram, or `None` for a wake-up.
type Parcel = Option<(Vec<u8>, SocketAddr, Way)>;

/// The beacon of one node of a [`Hub`].
#[derive(Debug)]
pub struct HubBeacon {
    lan: Arc<Mutex<HubState>>,
    addr: SocketAddr,
    queue: Receiver<Parcel>,
    wake: Sender<Parcel>,
    sent: u64,
    heard: u64,
}

impl Hub {
    /// A LAN that loses nothing.
    pub fn new() -> Self {
        Self::lossy(0.0, 0)
    }

    /// A LAN that loses each delivery with probability `loss`, drawn from a generator seeded with
    /// `seed`.
    pub fn lossy(loss: f64, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let lan = HubState { nodes: BTreeMap::new(), next_port: 40_000, loss: loss.clamp(0.0, 1.0), rng, sent: 0 };
        Hub { lan: Arc::new(Mutex::new(lan)) }
    }

    /// A new node with that address. It leaves when its beacon is dropped.
    pub fn join(&self, ip: IpAddr) -> HubBeacon {
        let (wake, queue) = bounded(HUB_QUEUE_MAX);
        let mut lan = lock(&self.lan);
        let addr = SocketAddr::new(ip, lan.next_port);
        lan.next_port = lan.next_port.checked_add(1).unwrap_or(40_000);
        lan.nodes.insert(addr, wake.clone());
        HubBeacon { lan: self.lan.clone(), addr, queue, wake, sent: 0, heard: 0 }
    }

    /// Number of datagrams sent, each counted once.
    pub fn sent(&self) -> u64 {
        lock(&self.lan).sent
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Beacon for HubBeacon {
    fn send(&mut self, bytes: &[u8], to: To) {
        self.sent += 1;
        lock(&self.lan).deliver(bytes, self.addr, to);
    }

    fn receive(&mut self, buffer: &mut [u8], until: Instant) -> Option<Datagram> {
        let parcel = self.queue.try_recv().or_else(|_| self.queue.recv_deadline(until)).ok()?;
        let (bytes, from, way) = parcel?;
        self.heard += 1;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Some(Datagram { len, from, link: LinkId(0), way, local: false })
    }

    fn waker(&self) -> Waker {
        let wake = self.wake.clone();
        // With a full queue the receiver does not wait.
        Arc::new(move || drop(wake.try_send(None)))
    }

    fn links(&self) -> Vec<Link> {
        let (addr, group) = (self.addr.ip(), SocketAddr::from((crate::limits::GROUP_V4, crate::limits::PORT)));
        vec![Link { interface: "hub".into(), addr, group, hops: 1, sent: self.sent, heard: self.heard, error: None }]
    }

    fn links_up(&self) -> u64 {
        1
    }
}

impl Drop for HubBeacon {
    fn drop(&mut self) {
        lock(&self.lan).nodes.remove(&self.addr);
    }
}

impl HubState {
    fn deliver(&mut self, bytes: &[u8], from: SocketAddr, to: To) {
        self.sent += 1;
        let way = match to {
            To::Group => Way::Group,
            To::Broadcast => Way::Broadcast,
            To::Node(..) => Way::Unicast,
        };
        for (addr, node) in &self.nodes {
            let meant = match to {
                To::Node(_, to) => *addr == to,
                // A sender receives its own datagrams, as with real multicast.
                To::Group | To::Broadcast => true,
            };
            if meant && !(self.loss > 0.0 && self.rng.random_bool(self.loss)) {
                // A full queue loses, as a socket's buffer does.
                drop(node.try_send(Some((bytes.to_vec(), from, way))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn everyone_hears_the_group_and_one_hears_an_answer() {
        let hub = Hub::new();
        let (mut a, mut b) = (hub.join(ip(1)), hub.join(ip(2)));
        a.send(b"hello", To::Group);
        let mut buffer = [0; 4];
        let heard = b.receive(&mut buffer, soon()).unwrap();
        assert_eq!((heard.from, heard.way, &buffer), (a.addr, Way::Group, b"hell"));
        assert_eq!(a.receive(&mut buffer, soon()).unwrap().from, a.addr);
        b.send(b"hi", To::Node(heard.link, heard.from));
        assert_eq!(a.receive(&mut buffer, soon()).unwrap().way, Way::Unicast);
        assert!(b.receive(&mut buffer, Instant::now()).is_none());
        assert_eq!(hub.sent(), 2);
    }

    #[test]
    fn a_waker_ends_the_wait() {
        let mut a = Hub::new().join(ip(1));
        a.waker()();
        assert!(a.receive(&mut [0; 4], soon()).is_none());
    }

    #[test]
    fn a_lossy_lan_loses_some() {
        let hub = Hub::lossy(0.5, 7);
        let (mut a, mut b) = (hub.join(ip(1)), hub.join(ip(2)));
        (0..200).for_each(|_| a.send(b"x", To::Group));
        let heard = (0..200).filter(|_| b.receive(&mut [0; 4], Instant::now()).is_some()).count();
        assert!((60..=140).contains(&heard), "{heard}");
    }
}
