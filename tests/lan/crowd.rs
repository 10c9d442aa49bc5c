//! Many keys on one host, each of which misbehaves, beside one honest server; and what they cost in memory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use gpb::internals::proto::{Announce, Flags, SignedAnnounce};
use gpb::testing::{Fault, FaultyPeer, TestFile};

use crate::group::{Got, MIB, Server, assert_same, client, copies, get, list, sample};
use crate::net::{Host, Lan, secs, until};

/// Faulty peers on one host, which announce themselves as often as one source may.
struct Crowd<'a> {
    host: &'a Host,
    peers: Vec<FaultyPeer>,
    is_over: Arc<AtomicBool>,
    announcing: Option<JoinHandle<()>>,
}

impl<'a> Crowd<'a> {
    /// The keys take turns at `manners`.
    fn new(host: &'a Host, count: usize, files: &[TestFile], manners: &[&[Fault]]) -> Self {
        host.sh("ip route replace 224.0.0.0/4 dev eth0");
        let ip = host.ip.parse().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (peers, announcing) = host.inside(|| {
            let peers: Vec<_> = {
                let all = (0..count).map(|n| FaultyPeer::start_at(ip, files, manners[n % manners.len()]).unwrap());
                all.collect()
            };
            let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
            let announces: Vec<_> = peers.iter().map(announce).collect();
            let is_over = is_over.clone();
            let announcing = std::thread::spawn(move || {
                for announce in announces.iter().cycle() {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    // Each time as of now, as a replay is dropped.
                    let sealed = SignedAnnounce::seal(&Announce { seq: unix_ms(), ..announce.0.clone() }, &announce.1);
                    let _ = socket.send_to(sealed.as_bytes(), (Ipv4Addr::new(239, 255, 71, 80), 27420));
                    sleep(Duration::from_millis(40));
                }
            });
            (peers, announcing)
        });
        Crowd { host, peers, is_over, announcing: Some(announcing) }
    }

    /// Peers that a client has connected to.
    fn met(&self) -> usize {
        self.peers.iter().filter(|peer| peer.connections() > 0).count()
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.announcing.take() {
            let _ = thread.join();
        }
        // A peer wakes its thread by a connection to itself.
        let peers = std::mem::take(&mut self.peers);
        self.host.inside(|| drop(peers));
    }
}

fn announce(peer: &FaultyPeer) -> (Announce, gpb::internals::identity::Keypair) {
    let announce = Announce {
        version: Announce::VERSION,
        network: "gpb".into(),
        peer: peer.id(),
        instance: peer.node().instance,
        seq: 0,
        ttl_s: 120,
        port: peer.addr().port(),
        revision: 1,
        flags: Flags::default(),
    };
    (announce, peer.keypair().clone())
}

fn unix_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// A file in a directory, and in memory for those who misbehave.
fn content(lan: &Lan, len: u64) -> (PathBuf, TestFile) {
    let [dir] = copies(lan, ["d"], "big.bin", len, 301);
    let file = TestFile::new("big.bin", fs::read(dir.join("big.bin")).unwrap()).unwrap();
    (dir, file)
}

/// What each of many keys does.
const MANNERS: &[(&str, &[Fault])] = &[
    ("mute", &[Fault::Mute]),
    ("drip in layers", &[Fault::DripLayers]),
    ("drip in chunks", &[Fault::DripChunks]),
    ("drip in all", &[Fault::DripAll]),
    ("slow list", &[Fault::SlowLists(Duration::from_secs(4)), Fault::Stall]),
    ("endless list", &[Fault::Names { below: "big.bin.d", count: u64::MAX, len: 1000 }, Fault::Stall]),
    ("fat answers", &[Fault::FatAnswers(16 << 20)]),
    ("fat haves", &[Fault::HalfHeld, Fault::FatAnswers(16 << 20)]),
    ("lies", &[Fault::WrongChunks]),
    ("lies in layers", &[Fault::WrongLayers]),
    ("just not slow", &[Fault::SlowChunks(200)]),
    ("busy", &[Fault::Busy(u64::MAX)]),
    ("full", &[Fault::Full(u64::MAX)]),
    ("empty", &[Fault::Empty]),
    ("cut", &[Fault::CutSome { percent: 50, seed: 1 }]),
];

/// Fetches a file of `len` bytes beside `keys` keys of each manner, and compares the time with that without them.
fn beside_many_keys(keys: usize, len: u64, which: &[&str]) {
    // Each on a network of its own, since the keys that were announced before are known for minutes.
    for (name, faults) in MANNERS.iter().filter(|(name, _)| which.is_empty() || which.contains(name)) {
        beside(keys, len, name, &[faults]);
    }
}

fn beside(keys: usize, len: u64, name: &str, manners: &[&[Fault]]) {
    let lan = lan_or_skip!();
    let (dir, file) = content(&lan, len);
    let (s, e, c) = (lan.host("s", None), lan.host("enemy", None), lan.host("c", None));
    let server = Server::start(&s, &dir, &[]);
    let fetch = |name: &str| {
        let out = lan.new_dir(&name.replace(' ', "-"));
        let begin = Instant::now();
        let (ended, peak) = get(&c, "big.bin", &out, &["--log-level", "info"]).wait_measured(secs(180));
        let took = begin.elapsed().as_secs_f64();
        let got = Got::of(ended).expect(0);
        assert_same(&out.join("big.bin"), &dir.join("big.bin"));
        fs::remove_dir_all(&out).unwrap();
        println!("{name}: {took:.2} s, {} MiB of memory, {} MiB wasted", peak >> 20, wasted(&got) >> 20);
        (took, peak, got)
    };
    let (alone, ..) = fetch("alone");
    let crowd = Crowd::new(&e, keys, std::slice::from_ref(&file), manners);
    sleep(CROWD_GATHERS);
    let (took, peak, got) = fetch(name);
    println!("{name}: {:.1} times as long as alone, {} of {keys} keys met", took / alone, crowd.met());
    assert!(took <= (alone * TIMES).max(SHORT_S), "{name}: {took:.1} s instead of {alone:.1}");
    assert!(peak < 400 * MIB, "{name}: {} MiB", peak >> 20);
    let text = got.ended.text();
    assert!(!text.lines().any(|l| l.contains("bad chunk") && l.contains(&server.id)), "the honest one is named");
}

fn wasted(got: &Got) -> u64 {
    got.done()["wasted"].as_u64().unwrap()
}

/// How many times as long as without them a download may take.
const TIMES: f64 = 5.0;
/// What a short download may take on a loaded machine; one that is stopped takes minutes.
const SHORT_S: f64 = 25.0;
/// The keys announce themselves for so long before.
const CROWD_GATHERS: Duration = Duration::from_millis(500);

#[test]
fn many_keys_on_one_host_do_not_stop_a_download() {
    // All connections of one download are taken by one manner; the others come together.
    beside_many_keys(70, 32 * MIB, &["drip in chunks", "drip in layers"]);
    let some = ["mute", "slow list", "endless list", "fat answers", "lies"];
    let manners: Vec<_> = MANNERS.iter().filter(|(name, _)| some.contains(name)).map(|(_, faults)| *faults).collect();
    beside(70, 32 * MIB, "all sorts", &manners);
}

/// The whole of it; run with `--ignored --nocapture`.
#[test]
#[ignore = "takes minutes and 3 GiB of memory"]
fn a_hundred_and_thirty_keys_on_one_host_do_not_stop_a_download_of_a_gibibyte() {
    beside_many_keys(130, 1024 * MIB, &[]);
}

#[test]
fn peers_that_only_drip_end_a_download_in_time() {
    let lan = lan_or_skip!();
    let file = TestFile::random("big.bin", 8 << 20, 302).unwrap();
    let (e, c) = (lan.host("enemy", None), lan.host("c", None));
    for faults in [[Fault::DripLayers], [Fault::DripChunks], [Fault::DripAll]] {
        let crowd = Crowd::new(&e, 70, std::slice::from_ref(&file), &[&faults]);
        until("all keys are announced", secs(20), || {
            // The listing may drip, too: whether they are known is all that is asked.
            (crate::group::peers(&c, &["--wait", "4"]).len() > 60).then_some(())
        });
        let root = file.id.root.to_string();
        let got = Got::wait(get(&c, &root, &lan.new_dir("out"), &["--timeout", "3"]), secs(30)).expect(8);
        println!("{faults:?}: {:?}", got.ended.took);
        assert!(got.ended.took < secs(60), "{faults:?}: {:?}", got.ended.took);
        drop(crowd);
    }
}

/// Memory of a client that asks for one name, and of one that lists, beside a peer that lists `names` names.
fn beside_a_long_list(below: &'static str, names: u64, wait: &str, get_max: u64, list_max: u64) {
    let lan = lan_or_skip!();
    let dir = lan.new_dir("d");
    sample(&dir.join("f1"), MIB, 303);
    let (s, e, c) = (lan.host("s", None), lan.host("enemy", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let file = TestFile::random("other", 100, 304).unwrap();
    let _crowd = Crowd::new(&e, 1, &[file], &[&[Fault::Names { below, count: names, len: 1024 }]]);
    let out = lan.new_dir("out");
    let mut running = client(&c, &["get", "f1", "--seed", "2", "--dir", out.to_str().unwrap()]);
    running.wait_line(&["\"event\":\"done\""], secs(60));
    let (ended, peak) = running.wait_measured(secs(60));
    println!("{below}: get {} MiB, {:?}", peak >> 20, ended.took);
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    assert!(peak < get_max * MIB, "get: {} MiB", peak >> 20);
    // A name that could be meant, and that no other peer has: the list is read for as long as a name is sought.
    let args = ["get", below, "--timeout", wait, "--dir", out.to_str().unwrap()];
    let (ended, peak) = client(&c, &args).wait_measured(secs(60));
    println!("{below}: get {below} {} MiB, {:?}, {:?} {:?}", peak >> 20, ended.took, ended.code, ended.out.last());
    assert!(peak < get_max * MIB, "get: {} MiB", peak >> 20);
    let (ended, peak) = client(&c, &["list", "--wait", wait]).wait_measured(secs(120));
    println!("{below}: list {} MiB, {:?}, {} lines, {:?}", peak >> 20, ended.took, ended.out.len(), ended.code);
    assert!(peak < list_max * MIB, "list: {} MiB", peak >> 20);
}

#[test]
fn a_long_list_takes_little_memory_of_a_client_that_asks_for_one_name() {
    beside_a_long_list("made-up", 5000, "3", 100, 100);
}

#[test]
#[ignore = "takes minutes and gigabytes of memory"]
fn four_million_long_names_take_little_memory() {
    // Also names that could be meant: `f1` may be a directory.
    for below in ["made-up", "f1"] {
        beside_a_long_list(below, 4_000_000, "20", 256, 256);
    }
}

#[test]
fn names_that_are_listed_by_many_do_not_hide_others() {
    let lan = lan_or_skip!();
    let dir = lan.new_dir("d");
    sample(&dir.join("f1"), MIB, 305);
    let (s, e, c) = (lan.host("s", None), lan.host("enemy", None), lan.host("c", None));
    let _server = Server::start(&s, &dir, &[]);
    let file = TestFile::random("other", 100, 306).unwrap();
    let _crowd = Crowd::new(&e, 40, &[file], &[&[Fault::Names { below: "made-up", count: u64::MAX, len: 1000 }]]);
    let listed = list(&c, &["f1", "--wait", "4"]);
    assert_eq!(listed.len(), 1, "{listed:?}");
}
