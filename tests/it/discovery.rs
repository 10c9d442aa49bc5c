//! Peers find each other: over an in-memory LAN with hostile neighbours, over real multicast on loopback, and by
//! contact only.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpb::internals::content::Catalogue;
use gpb::internals::discovery::{Discovery, DiscoverySetup, DiscoverySources, DiscoveryStats, PeerListFile};
use gpb::internals::identity::{Keypair, NodeId, PeerId};
use gpb::internals::limits::{ANNOUNCE_INTERVAL, ANNOUNCE_LEN_MAX, CLOCK_SKEW_MAX, WIRE_VERSION};
use gpb::internals::net::{Beacon, Dialed, Hub, HubBeacon, LinkOptions, Multicast, Tls, To};
use gpb::internals::peers::{Dialer, Directory, OwnIdentity};
use gpb::internals::proto::{Announce, Flags, Hello, Request, SignedAnnounce, Status, encode_request};
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Events, Shutdown, Throttle, Watch};
use gpb::internals::server::{Server, ServerBounds, ServerConfig};
use gpb::internals::store::FetchedFiles;
use gpb::internals::swarm::membership::limits::{BURST_MS, CLOCK_SKEW_LOGGED};
use gpb::internals::swarm::{Dropped, Event, PeerTable};

use crate::directory::{announce, directory, identity, unix_ms, warnings};
use crate::programs::free_port;

const WAIT: Duration = Duration::from_secs(60);
/// What comes by answers to one node, on a loaded machine. Those of twelve nodes to the group are spread over twice that time.
const AT_ONCE: Duration = Duration::from_millis(300);

/// A node of which only the discovery runs, and the server if it is asked for.
struct TestNode {
    id: PeerId,
    instance: u64,
    table: Arc<Directory>,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    watch: Events,
    shutdown: Shutdown,
    server: Option<Server>,
    discovery: Option<Discovery>,
}

struct Plan {
    keypair: Keypair,
    network: String,
    port: u16,
    trust: TrustView,
    beacon: Option<Box<dyn Beacon>>,
    peers: Vec<String>,
    /// Where peers are remembered.
    state: Option<PathBuf>,
    peer_file: Option<PathBuf>,
    /// Where to run a server, too; port 0 for any.
    serve: Option<SocketAddr>,
    bounds: ServerBounds,
}

impl Plan {
    fn on(beacon: impl Beacon + 'static) -> Self {
        Plan { beacon: Some(Box::new(beacon)), ..Plan::alone() }
    }

    fn alone() -> Self {
        Plan {
            keypair: Keypair::generate(),
            network: "test".into(),
            port: 4000,
            trust: TrustView::open(),
            beacon: None,
            peers: vec![],
            state: None,
            peer_file: None,
            serve: None,
            bounds: ServerBounds::default(),
        }
    }

    fn start(self) -> TestNode {
        let (id, instance) = (self.keypair.peer_id(), rand::random());
        let (events, watch) = EventSender::channel();
        let shutdown = Shutdown::new();
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::new(1, vec![]))));
        let tls = Tls::new(&self.keypair).unwrap();
        let listener = self.serve.map(|addr| TcpListener::bind(addr).unwrap());
        let port = listener.as_ref().map_or(self.port, |l| l.local_addr().unwrap().port());
        let own = OwnIdentity { network: self.network, port, ..identity(&self.keypair, instance) };
        let table = directory(own, &catalogue, self.trust, &events);
        let discovery = Discovery::start(DiscoverySetup {
            dialer: Dialer::new(table.clone(), tls.clone(), shutdown.clone()),
            beacon: self.beacon,
            sources: DiscoverySources {
                peers: self.peers.iter().map(|p| p.parse().unwrap()).collect(),
                state: self.state,
                interfaces: Vec::new(),
                peer_file: self.peer_file.map(|file| PeerListFile::open(&file).unwrap()),
                dns_sd: None,
                dht: None,
            },
        });
        let server = listener.map(|listener| {
            let config = ServerConfig {
                listeners: vec![listener],
                tls,
                directory: table.clone(),
                catalogue: catalogue.clone(),
                roots: Default::default(),
                offered: Default::default(),
                fetched: Arc::new(FetchedFiles::new()),
                report: Arc::new(|_, _| ()),
                upload: Arc::new(Throttle::new(None)),
                events,
                shutdown: shutdown.clone(),
                bounds: self.bounds,
            };
            Server::start(config).unwrap()
        });
        let discovery = Some(discovery.unwrap());
        TestNode { id, instance, table, catalogue, watch, shutdown, server, discovery }
    }
}

impl TestNode {
    /// Waits until the table is as `wanted`.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&PeerTable) -> bool) {
        self.until_within(what, WAIT, wanted);
    }

    #[track_caller]
    fn until_within(&self, what: &str, within: Duration, wanted: impl Fn(&PeerTable) -> bool) {
        let end = Instant::now() + within;
        let mut seen = 0;
        while !self.table.read(&wanted) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: never; {:?}", self.table.read(|t| t.peers()));
            seen = self.table.wait_beyond(seen, left.min(Duration::from_millis(100)));
        }
    }

    #[track_caller]
    fn until_knows(&self, other: &TestNode) {
        self.until("the other node", |t| t.peer(NodeId::new(other.id, other.instance)).is_some());
    }

    fn knows(&self, other: &TestNode) -> bool {
        self.table.read(|t| t.peer(NodeId::new(other.id, other.instance)).is_some())
    }

    fn stats(&self) -> DiscoveryStats {
        self.discovery.as_ref().unwrap().stats()
    }

    fn addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addrs()[0]
    }

    /// Waits for an event.
    #[track_caller]
    fn event(&self, wanted: impl Fn(&Event) -> bool) {
        let end = Instant::now() + WAIT;
        while !wanted(
            &self.watch.recv_timeout(end.saturating_duration_since(Instant::now())).expect("the event never came"),
        ) {}
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.shutdown.begin();
        self.server.take();
        self.discovery.take();
    }
}

/// A neighbour that says whatever it likes.
struct Stranger {
    keypair: Keypair,
    beacon: HubBeacon,
}

impl Stranger {
    fn join(hub: &Hub, n: u8) -> Self {
        Stranger { keypair: Keypair::generate(), beacon: hub.join(ip(n)) }
    }

    fn announce(&self) -> Announce {
        Announce {
            version: Announce::VERSION,
            network: "test".into(),
            peer: self.keypair.peer_id(),
            instance: 7,
            seq: unix_ms(),
            ttl_s: 30,
            port: 5000,
            revision: 1,
            flags: Flags::default(),
        }
    }

    fn say(&mut self, announce: &Announce) {
        let sealed = SignedAnnounce::seal(announce, &self.keypair);
        self.beacon.send(sealed.as_bytes(), To::Group);
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        self.beacon.send(bytes, To::Group);
    }

    fn knows(&self, node: &TestNode) -> bool {
        node.table.read(|t| t.peer(NodeId::new(self.keypair.peer_id(), 7)).is_some())
    }
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

/// One of this host's many addresses.
fn loopback(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], port))
}

#[test]
fn nodes_find_each_other_at_once() {
    let hub = Hub::new();
    let servers: Vec<_> = (1..=12).map(|n| Plan::on(hub.join(ip(n))).start()).collect();
    for server in &servers {
        server.until("all servers", |t| t.len() == servers.len() - 1);
    }
    // Answers by unicast come at once; other tests run beside it, so one newcomer of some is not held up.
    let client = (100..140).find_map(|n| {
        let start = Instant::now();
        let client = Plan { port: 0, ..Plan::on(hub.join(ip(n))) }.start();
        client.until("all servers", |t| t.len() == servers.len());
        println!("all servers are known after {:?}", start.elapsed());
        (start.elapsed() < AT_ONCE).then_some(client)
    });
    let client = client.expect("a newcomer that knows all at once");
    for server in &servers {
        assert!(client.knows(server));
        server.until("the client as a node", |t| t.nodes() == servers.len() + 1);
        assert_eq!(server.table.read(|t| t.len()), servers.len() - 1, "a client that serves nothing is no peer");
    }
    let addr = client.table.read(|t| t.peer(NodeId::new(servers[0].id, servers[0].instance)).unwrap().addrs[0]);
    assert_eq!(addr, SocketAddr::new(ip(1), 4000), "the source of the datagram and the announced port");
}

/// A beacon with a defect.
struct Ill(HubBeacon);

impl Beacon for Ill {
    fn send(&mut self, bytes: &[u8], to: To) {
        self.0.send(bytes, to);
    }

    fn receive(&mut self, _: &mut [u8], _: Instant) -> Option<gpb::internals::net::Datagram> {
        panic!("for the test")
    }

    fn waker(&self) -> gpb::internals::net::Waker {
        self.0.waker()
    }

    fn links(&self) -> Vec<gpb::internals::net::Link> {
        self.0.links()
    }

    fn links_up(&self) -> u64 {
        self.0.links_up()
    }
}

/// Cause: a panic ended `gpb-listen` alone. Effect: the node ran on, and no other one found it. Mend: it ends the node,
/// with the name of the thread.
#[test]
fn a_service_that_panics_ends_its_node() {
    let node = Plan::on(Ill(Hub::new().join(ip(1)))).start();
    assert!(node.shutdown.wait(WAIT));
    assert_eq!(node.shutdown.defect().as_deref(), Some("gpb-listen"));
}

/// A closed group does not answer strangers, but they hear its announces; one that starts long after the group did must
/// not wait for the next of them by chance.
#[test]
fn a_stranger_soon_hears_of_a_closed_group_but_is_not_let_in() {
    let hub = Hub::new();
    let keys = tempfile::NamedTempFile::new().unwrap();
    let keypair = Keypair::generate();
    let trust = TrustView::closed(keys.path(), keypair.peer_id()).unwrap();
    let closed = Plan { keypair, trust, ..Plan::on(hub.join(ip(1))) }.start();
    let end = Instant::now() + WAIT;
    while hub.sent() < BURST_MS.len() as u64 {
        assert!(Instant::now() < end, "the burst never ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let stranger = Plan::on(hub.join(ip(2))).start();
    stranger.until_within("the closed group", ANNOUNCE_INTERVAL / 2, |t| {
        t.peer(NodeId::new(closed.id, closed.instance)).is_some()
    });
    assert!(!closed.knows(&stranger));
}

/// Cause: a query whose time was far off got no answer. Effect: the asker heard of the group when an announce was due
/// anyway, which `list` did not wait for, and did not say that a clock was wrong. Mend: it brings that announce forward.
#[test]
fn a_node_whose_clock_is_wrong_soon_hears_of_the_group() {
    let hub = Hub::new();
    let node = Plan::on(hub.join(ip(1))).start();
    let wait_sent = |sent: u64, within: Duration| {
        let end = Instant::now() + within;
        while hub.sent() < sent {
            assert!(Instant::now() < end, "{} of {sent} datagrams", hub.sent());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_sent(BURST_MS.len() as u64, WAIT);
    let (mut asker, day) = (Stranger::join(&hub, 2), CLOCK_SKEW_MAX.as_millis() as u64);
    let before = hub.sent();
    asker.say(&Announce { seq: unix_ms() - day - 60_000, flags: Flags::QUERY, ..asker.announce() });
    wait_sent(before + 2, ANNOUNCE_INTERVAL / 2);
    assert!(!asker.knows(&node));
    // Its clock is set right: it is answered as any other.
    asker.say(&Announce { flags: Flags::QUERY, ..asker.announce() });
    wait_sent(before + 4, ANNOUNCE_INTERVAL / 2);
}

#[test]
fn a_lossy_lan_is_no_obstacle() {
    let seed = rand::random();
    println!("seed {seed}");
    let hub = Hub::lossy(0.3, seed);
    let nodes: Vec<_> = (1..=5).map(|n| Plan::on(hub.join(ip(n))).start()).collect();
    // A node may lose all seven or so announces of another's first seconds, and the next one comes after an interval.
    for node in &nodes {
        node.until_within("all others", 6 * ANNOUNCE_INTERVAL, |t| t.len() == nodes.len() - 1);
    }
}

/// Only about 32 answer a query; whom they know makes up for the rest.
#[test]
fn a_newcomer_to_a_large_group_soon_knows_it() {
    let hub = Hub::new();
    let bounds = ServerBounds { workers: 1, ..ServerBounds::default() };
    let start = |n: u8| Plan { serve: Some(loopback(n, 0)), bounds, ..Plan::on(hub.join(loopback(n, 0).ip())) }.start();
    let servers: Vec<_> = (1..=100).map(start).collect();
    for server in &servers {
        server.until("nearly all servers", |t| t.len() >= 95);
    }
    // All of it is computed on this machine, which may be busy with other things; one newcomer of some is not held up.
    let is_soon = (200..204).any(|n| {
        let begin = Instant::now();
        let client = Plan { port: 0, ..Plan::on(hub.join(loopback(n, 0).ip())) }.start();
        client.until("nearly all servers", |t| t.len() >= 95);
        let took = begin.elapsed();
        println!("{} of {} servers known after {took:?}", client.table.read(|t| t.len()), servers.len());
        took < ANNOUNCE_INTERVAL / 2
    });
    assert!(is_soon);
}

#[test]
fn what_is_false_is_counted_and_never_in_the_table() {
    let hub = Hub::new();
    let node = Plan::on(hub.join(ip(1))).start();
    let mut marker = Stranger::join(&hub, 2);
    let mut said = unix_ms();
    let mut settle = || {
        // What was said before this was heard before this.
        said = unix_ms().max(said + 1);
        let announce = Announce { seq: said, ..marker.announce() };
        marker.say(&announce);
        let sealed = SignedAnnounce::seal(&announce, &marker.keypair);
        node.until("the marker", |t| {
            t.peer(NodeId::new(announce.peer, announce.instance)).is_some_and(|p| p.announce == sealed)
        });
    };
    settle();
    let day = CLOCK_SKEW_MAX.as_millis() as u64;
    type Bad = Box<dyn Fn(&mut Stranger)>;
    let cases: Vec<(Dropped, Bad)> = vec![
        (Dropped::Oversized, Box::new(|s| s.say_bytes(&[0; ANNOUNCE_LEN_MAX + 1]))),
        (Dropped::Oversized, Box::new(|s| s.say_bytes(&[0; 60_000]))),
        (Dropped::Malformed, Box::new(|s| s.say_bytes(b""))),
        (Dropped::Malformed, Box::new(|s| s.say_bytes(&[0x5a; 300]))),
        (Dropped::Network, Box::new(|s| s.say(&Announce { network: "other".into(), ..s.announce() }))),
        (Dropped::Stale, Box::new(move |s| s.say(&Announce { seq: unix_ms() - day - 60_000, ..s.announce() }))),
        (Dropped::Future, Box::new(move |s| s.say(&Announce { seq: unix_ms() + day + 60_000, ..s.announce() }))),
        (
            // Signed by another key than it names.
            Dropped::Forged,
            Box::new(|s| {
                let sealed = SignedAnnounce::seal(&s.announce(), &Keypair::generate());
                s.say_bytes(sealed.as_bytes());
            }),
        ),
        (
            // Altered on the way: the last byte is in its flags.
            Dropped::Forged,
            Box::new(|s| {
                let mut bytes = SignedAnnounce::seal(&s.announce(), &s.keypair).as_bytes().to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                s.say_bytes(&bytes);
            }),
        ),
        (
            Dropped::Version,
            Box::new(|s| {
                let mut bytes = SignedAnnounce::seal(&s.announce(), &s.keypair).as_bytes().to_vec();
                bytes[68] = 9;
                s.say_bytes(&bytes);
            }),
        ),
    ];
    for (n, (reason, bad)) in cases.into_iter().enumerate() {
        let mut stranger = Stranger::join(&hub, 10 + n as u8);
        let before = node.stats();
        bad(&mut stranger);
        settle();
        let after = node.stats();
        assert_eq!(after.dropped(reason), before.dropped(reason) + 1, "case {n}, {reason}");
        assert_eq!(after.dropped_all(), before.dropped_all() + 1, "case {n}, {reason}");
        assert!(!stranger.knows(&node), "case {n}, {reason}");
    }
    assert_eq!(node.table.read(|t| t.nodes()), 2, "the marker and the node itself");

    // A replay from another address, too late for an echo or with an older number, changes nothing.
    let mut honest = Stranger::join(&hub, 3);
    let first = honest.announce();
    let second = Announce { seq: first.seq + 1, ..first.clone() };
    honest.say(&first);
    honest.say(&second);
    let mut thief = Stranger::join(&hub, 4);
    thief.say_bytes(SignedAnnounce::seal(&first, &honest.keypair).as_bytes());
    settle();
    assert_eq!(node.stats().dropped(Dropped::Replayed), 1);
    let addrs = node.table.read(|t| t.peer(NodeId::new(honest.keypair.peer_id(), 7)).unwrap().addrs);
    assert_eq!(addrs, [SocketAddr::new(ip(3), 5000)]);
}

#[test]
fn a_flood_is_held_back() {
    let hub = Hub::new();
    let node = Plan::on(hub.join(ip(1))).start();
    let (mut flooder, mut honest) = (Stranger::join(&hub, 2), Stranger::join(&hub, 3));
    for n in 0..1000 {
        flooder.say(&Announce { instance: n, ..flooder.announce() });
    }
    honest.say(&honest.announce());
    node.until("the honest neighbour", |t| t.peer(NodeId::new(honest.keypair.peer_id(), 7)).is_some());
    assert!(node.stats().dropped(Dropped::Flood) > 700, "{:?}", node.stats());
    assert!(node.table.read(|t| t.len()) <= 9, "eight instances of one key and the honest one");
}

#[test]
fn a_closed_group_hears_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (file, friend) = (dir.path().join("trusted"), Keypair::generate());
    std::fs::write(&file, format!("{} friend\n", friend.peer_id())).unwrap();
    let own = Keypair::generate();
    let trust = TrustView::closed(&file, own.peer_id()).unwrap();
    let hub = Hub::new();
    let node = Plan { keypair: own, trust, ..Plan::on(hub.join(ip(1))) }.start();
    let stranger = Plan::on(hub.join(ip(2))).start();
    let friend = Plan { keypair: friend, ..Plan::on(hub.join(ip(3))) }.start();
    node.until_knows(&friend);
    friend.until_knows(&node);
    let end = Instant::now() + WAIT;
    while node.stats().dropped(Dropped::Untrusted) == 0 {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    assert!(!node.knows(&stranger));
}

#[test]
fn leaving_is_heard_and_silence_expires() {
    let hub = Hub::new();
    let (stays, leaves) = (Plan::on(hub.join(ip(1))).start(), Plan::on(hub.join(ip(2))).start());
    let left = leaves.id;
    stays.until_knows(&leaves);
    stays.event(|e| matches!(e, Event::PeerJoined { node, .. } if node.peer == left));
    drop(leaves);
    stays.event(|e| matches!(e, Event::PeerLeft { node } if node.peer == left));
    assert!(stays.table.read(|t| t.is_empty()));

    let mut silent = Stranger::join(&hub, 3);
    silent.say(&Announce { ttl_s: 1, ..silent.announce() });
    let id = silent.keypair.peer_id();
    stays.event(|e| matches!(e, Event::PeerJoined { node, .. } if node.peer == id));
    stays.event(|e| matches!(e, Event::PeerLeft { node } if node.peer == id));
}

#[test]
fn a_discovery_that_is_dropped_ends_by_itself() {
    let (hub, (tell, told)) = (Hub::new(), std::sync::mpsc::channel());
    let mut node = Plan::on(hub.join(ip(1))).start();
    let discovery = node.discovery.take();
    std::thread::spawn(move || {
        drop(discovery);
        tell.send(()).unwrap();
    });
    // As when another part of the node does not start.
    told.recv_timeout(WAIT).expect("its threads never ended");
    assert!(node.shutdown.has_begun());
}

#[test]
fn a_new_revision_is_told_at_once() {
    let hub = Hub::new();
    let (node, other) = (Plan::on(hub.join(ip(1))).start(), Plan::on(hub.join(ip(2))).start());
    node.until_knows(&other);
    let start = Instant::now();
    for revision in 2..=4 {
        other.catalogue.publish(Catalogue::new(revision, vec![]));
        node.until("the revision", |t| {
            t.peer(NodeId::new(other.id, other.instance)).is_some_and(|p| p.revision == revision)
        });
    }
    assert!(start.elapsed() < ANNOUNCE_INTERVAL, "{:?}", start.elapsed());
    node.event(|e| *e == Event::PeerChanged { node: NodeId::new(other.id, other.instance), revision: 4 });
}

#[test]
fn a_quiet_group_stays_quiet() {
    let (hub, begun) = (Hub::new(), Instant::now());
    let nodes: Vec<_> = (1..=8).map(|n| Plan::on(hub.join(ip(n))).start()).collect();
    for node in &nodes {
        node.until("all others", |t| t.len() == nodes.len() - 1);
    }
    // Four queries a node and as many announces, and each may be answered once a second by each.
    let (sent, seconds) = (hub.sent(), 1 + begun.elapsed().as_secs());
    assert!(sent <= 8 * (4 + 8 * seconds + 4), "{sent} datagrams in {seconds} s");
}

/// On this host other nodes may be at work on the same port, so the network has a name of its own.
#[test]
fn nodes_of_one_host_find_each_other_by_real_multicast() {
    let network = format!("test-{:016x}", rand::random::<u64>());
    let on_loopback = || {
        let options =
            LinkOptions { interfaces: vec!["127.0.0.1".parse().unwrap()], bind: Ipv6Addr::UNSPECIFIED.into(), hops: 1 };
        Plan { network: network.clone(), ..Plan::on(Multicast::open(options).unwrap()) }
    };
    let (a, b) = (on_loopback().start(), on_loopback().start());
    a.until_knows(&b);
    b.until_knows(&a);
    let client = (0..40).find_map(|_| {
        let start = Instant::now();
        let client = Plan { port: 0, ..on_loopback() }.start();
        client.until("both", |t| t.len() == 2);
        println!("both are known after {:?}", start.elapsed());
        (start.elapsed() < AT_ONCE).then_some(client)
    });
    let client = client.expect("a newcomer that knows both at once");
    let links = client.discovery.as_ref().unwrap().links();
    assert!(links.len() == 1 && links[0].error.is_none(), "{links:?}");
    let id = a.id;
    // What comes and goes between two reads is not told.
    b.event(|e| matches!(e, Event::PeerJoined { node, .. } if node.peer == id));
    drop(a);
    b.event(|e| matches!(e, Event::PeerLeft { node } if node.peer == id));
}

#[test]
fn without_multicast_one_peer_leads_to_all() {
    let first = Plan { serve: Some(loopback(1, 0)), ..Plan::alone() }.start();
    let named = || Plan { peers: vec![first.addr().to_string()], ..Plan::alone() };
    let others: Vec<_> = (0..3).map(|_| Plan { serve: Some(loopback(1, 0)), ..named() }.start()).collect();
    first.until("all others", |t| t.len() == others.len());
    let client = Plan { port: 0, ..named() }.start();
    client.until("everyone", |t| t.len() == others.len() + 1);
    for other in &others {
        let addrs = client.table.read(|t| t.peer(NodeId::new(other.id, other.instance)).unwrap().addrs);
        assert_eq!(addrs, [other.addr()]);
        other.until("everyone", |t| t.len() == others.len());
    }
}

#[test]
fn a_peer_that_refuses_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trusted");
    std::fs::write(&file, "# nobody\n").unwrap();
    let own = Keypair::generate();
    let trust = TrustView::closed(&file, own.peer_id()).unwrap();
    let closed = Plan { serve: Some(loopback(1, 0)), keypair: own, trust, ..Plan::alone() }.start();
    let client = Plan { port: 0, peers: vec![closed.addr().to_string()], ..Plan::alone() }.start();
    client.until("the refusal", |t| t.refusals().count() == 1);
    assert!(client.table.read(|t| t.is_empty()) && closed.table.read(|t| t.nodes() == 1));
}

#[test]
fn a_peer_can_be_named_by_name_and_may_come_later() {
    let port = free_port();
    let client = Plan { port: 0, peers: vec![format!("localhost:{port}")], ..Plan::alone() }.start();
    // Wherever the first contact finds it, it is found in the end.
    let server = Plan { serve: Some(loopback(1, port)), ..Plan::alone() }.start();
    client.until_knows(&server);
}

/// A peer that comes by contact only is first met by its `Hello`, and another such one by its answer.
#[test]
fn a_wrong_clock_is_reported_of_peers_that_contacts_bring() {
    let server = Plan { serve: Some(loopback(1, 0)), ..Plan::alone() }.start();
    let keypair = Keypair::generate();
    assert_eq!(warnings("clocks differ", keypair.peer_id()), 0);
    let (late, tls) = (unix_ms() - 5 * CLOCK_SKEW_LOGGED.as_millis() as u64, Tls::new(&keypair).unwrap());
    for n in 0..2 {
        let mut session = Dialed::dial(server.addr(), Some(server.id), &tls, WAIT).unwrap();
        let announce = Announce { seq: late + n, network: "test".into(), ..announce(&keypair, 7, loopback(1, 9)) };
        let hello = Hello {
            version: WIRE_VERSION,
            network: "test".into(),
            instance: 7,
            announce: SignedAnnounce::seal(&announce, &keypair).as_bytes().to_vec(),
            agent: "test".into(),
        };
        let (mut frame, mut header) = (Vec::new(), Vec::new());
        encode_request(&Request::Hello(hello), &mut frame);
        session.send(&frame, Instant::now() + WAIT).unwrap();
        let answer = session.read_head(&mut header, Instant::now() + WAIT).unwrap();
        assert_eq!(answer.status, Status::Ok as u8);
    }
    assert_eq!(warnings("clocks differ", keypair.peer_id()), 1);
}
