//! Nodes that find each other by a DHT alone: one of 20 nodes on loopback, which the crate brings for tests.
#![expect(deprecated, reason = "the calls that block; those that came in their place need an executor")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use gpb::internals::proto::{Announce, DhtNames, Flags, SignedAnnounce, encode_dht_value};
use gpb::{DhtOptions, DhtSecret, Keypair, Node, NodeBuilder, Share, State, Trust};
use mainline::{Dht, MutableItem, Testnet};

use crate::directory::unix_ms;

const WAIT: Duration = Duration::from_secs(60);

fn testnet() -> Testnet {
    Testnet::builder(20).build().unwrap()
}

fn options(net: &Testnet, secret: Option<&str>) -> DhtOptions {
    let bootstrap = net.bootstrap.iter().take(3).map(|node| node.parse().unwrap()).collect();
    DhtOptions { secret: secret.map(|s| s.parse::<DhtSecret>().unwrap()), bootstrap }
}

/// A node that finds no other but by the DHT.
fn alone(net: &Testnet, secret: Option<&str>) -> NodeBuilder {
    Node::builder().state(State::Memory).bind("127.0.0.1").multicast(false).dht(options(net, secret))
}

fn giving(builder: NodeBuilder, dir: &Path) -> Node {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("a.bin"), [7; 300_000]).unwrap();
    builder.dir(dir).share(Share::Directory).start().unwrap()
}

fn until(what: &str, node: &Node, is: impl Fn(&Node) -> bool) {
    let end = Instant::now() + WAIT;
    while !is(node) {
        let stats = node.stats();
        assert!(Instant::now() < end, "never: {what}; {:?} {:?}", stats.dht, stats.announces);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A node of the DHT that is none of a group.
fn stranger(net: &Testnet) -> Dht {
    let mut stranger = Dht::builder();
    stranger.bootstrap(&net.bootstrap).bind_address(Ipv4Addr::LOCALHOST).port(0).server_mode().build().unwrap()
}

/// Has `stranger` put an item of a key there that says these addresses.
fn put(stranger: &Dht, whose: (&Keypair, Option<&str>), announce: &Announce, addrs: &[&str]) {
    put_numbered(stranger, unix_ms() as i64, whose, announce, addrs);
}

/// The same with this sequence number.
fn put_numbered(stranger: &Dht, seq: i64, whose: (&Keypair, Option<&str>), announce: &Announce, addrs: &[&str]) {
    let (keypair, secret) = whose;
    let names = DhtNames::new("gpb", secret.map(|s| s.parse().unwrap()).as_ref());
    let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let value = encode_dht_value(&SignedAnnounce::seal(announce, keypair), &addrs);
    let signature = keypair.sign(&names.signed_part(seq, &value));
    let item =
        MutableItem::new_signed_unchecked(keypair.peer_id().0, signature, &value, seq, Some(names.salt.as_slice()));
    stranger.put_mutable(item, None).unwrap();
}

fn announce(keypair: &Keypair, network: &str) -> Announce {
    Announce {
        version: Announce::VERSION,
        network: network.into(),
        peer: keypair.peer_id(),
        instance: 7,
        seq: unix_ms(),
        ttl_s: 30,
        port: 27420,
        revision: 1,
        flags: Flags::default(),
    }
}

#[test]
fn nodes_of_a_closed_group_find_each_other_by_their_keys() {
    let (net, home) = (testnet(), tempfile::tempdir().unwrap());
    let (giver, taker) = (Keypair::generate(), Keypair::generate());
    let trust = Trust::keys([giver.peer_id(), taker.peer_id()]).unwrap();
    let (giver, taker) = (alone(&net, None).key(giver), alone(&net, None).key(taker));
    let giver = giving(giver.trust(trust.clone()), &home.path().join("giver"));
    until("the item is published", &giver, |node| node.stats().dht.published);
    let taker = taker.trust(trust).dir(home.path().join("taker")).create_dir(true).timeout(WAIT).start().unwrap();
    let report = taker.fetch("a.bin").unwrap().wait().unwrap();
    assert_eq!(report.bytes, 300_000);
    let stats = taker.stats();
    assert_eq!((stats.dht.keys, stats.dht.found, stats.announces.hints_proved), (1, 1, 1));
    assert!(stats.dht.nodes > 3 && !stats.dht.published, "who shares nothing publishes nothing: {:?}", stats.dht);
    let findings = taker.diagnose(Duration::from_millis(100)).unwrap();
    let dht = findings.iter().find(|finding| finding.check == "DHT").unwrap();
    assert!(dht.detail.contains("found 1 of 1 keys") && dht.problem.is_none(), "{dht:?}");
}

#[test]
fn a_closed_group_with_a_secret_is_found_by_who_has_it_alone() {
    let (net, home) = (testnet(), tempfile::tempdir().unwrap());
    let [giver, friend, decoy] = [(); 3].map(|()| Keypair::generate());
    let secret = "a secret of this group";
    let (id, decoy_id) = (giver.peer_id(), decoy.peer_id());
    let trusting = alone(&net, Some(secret)).key(giver).trust(Trust::keys([friend.peer_id()]).unwrap());
    let giver = giving(trusting, &home.path().join("giver"));
    until("the item is published", &giver, |node| node.stats().dht.published);
    let taker = |secret, key| {
        let trust = Trust::keys([id, decoy_id]).unwrap();
        alone(&net, secret).key(key).share(Share::Nothing).trust(trust).start().unwrap()
    };
    let friend = taker(Some(secret), friend);
    until("it is found", &friend, |node| node.stats().announces.hints_proved == 1);
    let (stranger, mut others) = (stranger(&net), Vec::new());
    for secret in [None, Some("another secret, as long")] {
        // Both keys are looked up together, and the item of one has no address that is dialed.
        put(&stranger, (&decoy, secret), &announce(&decoy, "gpb"), &["10.1.2.3:27420"]);
        let taker = taker(secret, Keypair::generate());
        until("both are looked up", &taker, |node| node.stats().announces.hints_dropped >= 1);
        assert_eq!((taker.stats().dht.found, taker.stats().announces.hints_dialed), (0, 0), "{secret:?}");
        // A node of the DHT that is gone costs each later lookup two seconds.
        others.push(taker);
    }
}

#[test]
fn an_open_group_meets_under_its_secret() {
    let (net, home) = (testnet(), tempfile::tempdir().unwrap());
    let [same, other] = ["the secret of the group", "another secret than that"];
    let giver = giving(alone(&net, Some(same)), &home.path().join("giver"));
    until("the address is announced", &giver, |node| node.stats().dht.published);
    // It announces itself once it has looked for others.
    let stranger = giving(alone(&net, Some(other)), &home.path().join("stranger"));
    until("the stranger has looked", &stranger, |node| node.stats().dht.published);
    assert_eq!((stranger.stats().dht.found, stranger.stats().peers.known), (0, 0));
    let taker = alone(&net, Some(same)).dir(home.path().join("taker")).create_dir(true).timeout(WAIT).start().unwrap();
    assert_eq!(taker.fetch("a.bin").unwrap().wait().unwrap().bytes, 300_000);
    assert_eq!((taker.stats().dht.found, taker.stats().peers.known), (1, 1));
}

#[test]
fn items_that_are_forged_old_or_of_private_addresses_are_not_dialed() {
    let net = testnet();
    let keys: Vec<Keypair> = (0..5).map(|_| Keypair::generate()).collect();
    let [private, low, other, old, forged] = keys.as_slice() else { unreachable!() };
    let stranger = stranger(&net);
    put(&stranger, (private, None), &announce(private, "gpb"), &["10.1.2.3:27420", "192.168.1.1:27420"]);
    put(&stranger, (low, None), &announce(low, "gpb"), &["127.0.0.1:80"]);
    put(&stranger, (other, None), &announce(other, "other"), &["127.0.0.1:27420"]);
    let two_days_ago = unix_ms() - 2 * 24 * 3600 * 1000;
    put(&stranger, (old, None), &Announce { seq: two_days_ago, ..announce(old, "gpb") }, &["127.0.0.1:27420"]);
    // An item of this key with the announce of another one.
    put(&stranger, (forged, None), &announce(private, "gpb"), &["127.0.0.1:27420"]);
    let trust = Trust::keys(keys.iter().map(Keypair::peer_id)).unwrap();
    let node = alone(&net, None).share(Share::Nothing).trust(trust).start().unwrap();
    until("all are dropped", &node, |node| node.stats().announces.hints_dropped >= 5);
    let stats = node.stats();
    assert_eq!((stats.dht.keys, stats.dht.found, stats.announces.hints_dialed), (5, 0, 0));
}

/// What is there may be of a run whose clock was ahead, or of one that ended a moment ago.
#[test]
fn each_start_replaces_what_an_earlier_one_left_there_whatever_the_clock_says() {
    let (net, home) = (testnet(), tempfile::tempdir().unwrap());
    let [giver, friend] = [(); 2].map(|()| Keypair::generate());
    let stranger = stranger(&net);
    let ahead = unix_ms() as i64 + 24 * 3600 * 1000;
    put_numbered(&stranger, ahead, (&giver, None), &announce(&giver, "gpb"), &["127.0.0.1:2000"]);
    let salt = DhtNames::new("gpb", None).salt;
    let newest = || {
        let all = stranger.get_mutable(&giver.peer_id().0, Some(salt.as_slice()), None);
        all.map(|item| (item.seq(), item.value().to_vec())).max().unwrap()
    };
    let mut last = newest();
    assert_eq!(last.0, ahead);
    for _ in 0..2 {
        let trusting = alone(&net, None).key(giver.clone()).trust(Trust::keys([friend.peer_id()]).unwrap());
        let node = giving(trusting, home.path());
        until("the item is published", &node, |node| node.stats().dht.published);
        drop(node);
        let now = newest();
        assert!(now.0 > last.0 && now.1 != last.1, "{} {}", now.0, last.0);
        last = now;
    }
}

#[test]
fn a_node_ends_at_once_while_the_dht_does_not_answer() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dht = DhtOptions { bootstrap: vec![silent.local_addr().unwrap().into()], ..DhtOptions::default() };
    let trust = Trust::keys([Keypair::generate().peer_id()]).unwrap();
    let node = Node::builder().state(State::Memory).bind("127.0.0.1").multicast(false).share(Share::Nothing);
    let node = node.trust(trust).dht(dht).start().unwrap();
    let mut asked = [0; 2048];
    silent.recv(&mut asked).unwrap();
    let findings = node.diagnose(Duration::from_millis(100)).unwrap();
    let problem = findings.iter().find(|finding| finding.check == "DHT").unwrap().problem;
    assert_eq!(problem, Some(gpb::DiscoveryProblem::DhtSilent));
    drop(node);
}

#[test]
fn an_open_group_without_a_secret_is_refused() {
    let error = Node::builder().state(State::Memory).dht(DhtOptions::default()).start().unwrap_err();
    assert!(matches!(error, gpb::StartError::Config(gpb::error::ConfigError::DhtOpen)), "{error}");
}
