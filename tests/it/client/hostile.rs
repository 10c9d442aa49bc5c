//! A client beside peers that misbehave in each way that the library knows, and among them alone.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use gpb::internals::client::{AskScope, FetchError};
use gpb::internals::identity::PeerId;
use gpb::internals::swarm::Event;
use gpb::testing::{Fault, FaultyPeer, TestFile};

use super::fake::{fake, file};
use super::{Client, LONG, MIB, code, target};

/// Every manner, with parameters that a test can wait for.
const MANNERS: &[Fault] = &[
    Fault::WrongChunks,
    Fault::WrongLayers,
    Fault::ShortChunks,
    Fault::LongChunks,
    Fault::ChangingChunks,
    Fault::Stall,
    Fault::DripLayers,
    Fault::DripChunks,
    Fault::Mute,
    Fault::Deaf,
    Fault::Refuse,
    Fault::CutAfter(3),
    Fault::Delay(Duration::from_millis(400)),
    Fault::HalfHeld,
    Fault::Busy(u64::MAX),
    Fault::Busy(3),
    Fault::WrongSome { percent: 30, seed: 1 },
    Fault::CutSome { percent: 30, seed: 2 },
    Fault::StallSome { percent: 30, seed: 3 },
    Fault::OtherChunks,
    Fault::ShortLayers,
    Fault::WrongLengths,
    Fault::Empty,
    Fault::EndAfter { bytes: 0, sessions: u64::MAX },
    Fault::EndAfter { bytes: 300, sessions: u64::MAX },
    Fault::EndAfter { bytes: 100_000, sessions: u64::MAX },
    Fault::HalfFrames,
    Fault::Twice,
    Fault::Garbage(4),
    Fault::DripLists,
    Fault::DripAll,
    Fault::SlowChunks(10),
    Fault::SlowLists(Duration::from_millis(300)),
    Fault::Names { below: "x", count: u64::MAX, len: 1024 },
    Fault::Names { below: "made-up", count: 1_000_000, len: 40 },
    Fault::HostileNames,
    Fault::Full(u64::MAX),
    Fault::Full(2),
    Fault::FatAnswers(16 << 20),
    Fault::MadeUpPeers,
];

/// Those that send bytes which are not what they say: the client names them.
fn lies(fault: Fault) -> bool {
    use Fault::{OtherChunks, WrongChunks, WrongLayers, WrongSome};
    matches!(fault, WrongChunks | WrongLayers | WrongSome { .. } | OtherChunks)
}

/// Runs `test` for each of `cases`, several at once.
fn each<T: Copy + Sync>(cases: &[T], test: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    test(*case);
                }
            });
        }
    });
}

/// The peers that the client named as liars since the last call.
fn named(c: &Client) -> BTreeSet<PeerId> {
    let lied = |event| if let Event::PeerLied { peer, .. } = event { Some(peer) } else { None };
    c.events.try_iter().filter_map(lied).collect()
}

#[test]
fn no_manner_of_a_peer_stops_a_download_that_another_one_can_serve() {
    let f = file("x", 6 * MIB, 81);
    each(MANNERS, |fault| {
        let faulty = [0; 2].map(|_| fake(fault, std::slice::from_ref(&f)));
        let honest = fake(Fault::Delay(Duration::from_millis(40)), std::slice::from_ref(&f));
        let c = Client::new();
        c.meet(&[&faulty[0], &faulty[1], &honest]);
        let begin = Instant::now();
        let report = c.start(vec![target(&f)]).wait().unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        println!("{fault:?}: {:?} wasted={} retries={}", begin.elapsed(), report.wasted, report.retries);
        assert!(c.content("x") == *f.bytes, "{fault:?}");
        assert!(begin.elapsed() < LONG, "{fault:?}: {:?}", begin.elapsed());
        let named = named(&c);
        assert!(!named.contains(&honest.id()), "{fault:?}: the honest one is named");
        assert!(lies(fault) || named.is_empty(), "{fault:?}: {named:?} did not lie");
    });
}

#[test]
fn no_manner_of_a_peer_hides_the_names_of_another_one() {
    let (f, g) = (file("x", 1000, 82), file("dir/y", 2000, 83));
    each(MANNERS, |fault| {
        let faulty = [0; 2].map(|_| fake(fault, std::slice::from_ref(&f)));
        let honest = fake(None, std::slice::from_ref(&g));
        let c = Client::new();
        c.meet(&[&faulty[0], &faulty[1], &honest]);
        let begin = Instant::now();
        c.get(&["dir/y"]).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert!(c.content("dir/y") == *g.bytes && begin.elapsed() < LONG, "{fault:?}");
    });
}

#[test]
fn peers_that_all_misbehave_end_a_download_with_an_error_or_the_right_bytes() {
    let f = file("x", MIB, 84);
    // A peer that always defers keeps a download alive for minutes, see `client::limits::DEFERRED_MAX`.
    let manners: Vec<Fault> = MANNERS.iter().copied().filter(|fault| *fault != Fault::Busy(u64::MAX)).collect();
    each(&manners, |fault| {
        let faulty = [0; 3].map(|_| fake(fault, std::slice::from_ref(&f)));
        let c = Client::with(Duration::from_secs(4), None);
        c.meet(&faulty.iter().collect::<Vec<_>>());
        let begin = Instant::now();
        let result = c.start(vec![target(&f)]).wait();
        let is_named = named(&c);
        println!("{fault:?}: {:?} {:?}", begin.elapsed(), result.as_ref().map(|_| ()));
        match result {
            Ok(_) => assert!(c.content("x") == *f.bytes, "{fault:?}"),
            Err(e) => {
                assert!(matches!(code(&e), 3 | 4 | 6 | 8 | 9), "{fault:?}: {e}");
                assert!(!c.dir.path().join("x").exists(), "{fault:?}");
                assert_eq!(matches!(*e, FetchError::OnlyLiars { .. }), lies(fault), "{fault:?}: {e}");
            }
        }
        assert!(lies(fault) || is_named.is_empty(), "{fault:?}: {is_named:?} did not lie");
        assert!(begin.elapsed() < LONG, "{fault:?}: {:?}", begin.elapsed());
    });
}

/// Chunks that never come to their end were progress for ever: what was verified last is what counts in the end.
#[test]
fn peers_that_bring_bytes_and_never_a_chunk_are_silent() {
    let f = file("x", MIB, 90);
    each(&[Fault::CutSome { percent: 100, seed: 1 }, Fault::ChangingChunks], |fault| {
        let faulty = [0; 2].map(|_| fake(fault, std::slice::from_ref(&f)));
        // Longer than the longest time between two dials, so that there is always something that comes.
        let c = Client::with(Duration::from_secs(6), None);
        c.meet(&[&faulty[0], &faulty[1]]);
        let begin = Instant::now();
        let e = c.start(vec![target(&f)]).wait().unwrap_err();
        println!("{fault:?}: {:?} {e}", begin.elapsed());
        assert!(matches!(code(&e), 4 | 8), "{fault:?}: {e}");
        assert!(begin.elapsed() < LONG, "{fault:?}: {:?}", begin.elapsed());
    });
}

/// The first requests waited for `Welcome`, which costs a round trip on each connection.
#[test]
fn what_is_asked_first_goes_out_with_hello() {
    let f = file("x", MIB, 91);
    let peer = fake(Fault::LateWelcome, std::slice::from_ref(&f));
    let [searching, fetching] = [0; 2].map(|_| Client::with(Duration::from_secs(20), None));
    searching.meet(&[&peer]);
    assert_eq!(searching.resolve(&["x"]).unwrap().len(), 1);
    fetching.meet(&[&peer]);
    fetching.start(vec![target(&f)]).wait().unwrap();
    assert!(fetching.content("x") == *f.bytes);
}

#[test]
fn hostile_names_leave_the_directory_alone() {
    let f = file("good", 1000, 85);
    let peer = fake(Fault::HostileNames, std::slice::from_ref(&f));
    let c = Client::new();
    c.meet(&[&peer]);
    let listed = c.client.list(&[], &AskScope::default(), LONG).unwrap();
    let paths: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    println!("{paths:?}");
    for path in &paths {
        let parts: Vec<&str> = path.split('/').collect();
        assert!(!path.contains('\0') && parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{path:?}");
        assert!(path.len() <= 1024 && parts.iter().all(|part| part.len() <= 255), "{path:?}");
    }
    assert!(paths.contains(&"good"), "the peer's other names are as good as before");
    // All of them have one content, which is fetched once.
    let texts: Vec<String> = paths.iter().map(|path| format!("./{path}")).collect();
    let result = c.get(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    println!("{result:?}");
    let below = walk(c.dir.path());
    assert!(below.iter().all(|path| path.starts_with(c.dir.path())), "{below:?}");
    for outside in ["/tmp/escaped", "/escaped"] {
        assert!(!std::path::Path::new(outside).exists());
    }
    assert!(!c.dir.path().parent().unwrap().join("escaped").exists());
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.canonicalize().unwrap()] }).collect()
}

/// Bytes that a peer sends for the whole of `f`, listing included.
fn bytes_of(f: &TestFile) -> u64 {
    let peer = fake(None, std::slice::from_ref(f));
    let c = Client::new();
    c.meet(&[&peer]);
    c.get(&["x"]).unwrap();
    assert_eq!(peer.connections(), 1);
    peer.sent()
}

/// The first session ends after that number of bytes; the second one brings the rest.
fn end_after(f: &TestFile, bytes: u64) {
    let peer = fake(Fault::EndAfter { bytes, sessions: 1 }, std::slice::from_ref(f));
    let c = Client::new();
    c.meet(&[&peer]);
    let report = c.get(&["x"]).unwrap_or_else(|e| panic!("{bytes} bytes: {e}"));
    assert!(c.content("x") == *f.bytes, "{bytes} bytes");
    assert_eq!(report.bytes, f.id.len, "{bytes} bytes: nothing is counted twice");
    assert!(named(&c).is_empty() && peer.reported_bad() == 0, "{bytes} bytes: no lie");
}

/// Sessions that end after each `step`th number of bytes, from a random one on.
fn ends_of_a_small_file(step: u64) {
    let f = file("x", 100, 86);
    let (all, first) = (bytes_of(&f), rand::random::<u64>() % step);
    let ends: Vec<u64> = (first..=all).step_by(step as usize).collect();
    let begin = Instant::now();
    each(&ends, |bytes| end_after(&f, bytes));
    println!("{} of {all} ends, from {first} on, in {:?}", ends.len(), begin.elapsed());
}

#[test]
fn a_session_may_end_at_any_byte_of_a_small_file() {
    ends_of_a_small_file(3);
}

#[test]
#[ignore = "takes half a minute"]
fn a_session_may_end_at_each_byte_of_a_small_file() {
    ends_of_a_small_file(1);
}

/// As above, for a file with a layer and chunks: all bytes but those in the middle of a chunk.
fn ends_around_layer_and_chunks(step: u64) {
    let f = file("x", (256 << 10) + 5, 87);
    let all = bytes_of(&f);
    let small = bytes_of(&file("x", 100, 86));
    // Where the layer, the heads of the chunks and their trailers lie; and every few bytes of the rest.
    let near = |bytes: &u64| (small..small + 400).contains(bytes) || bytes + 400 > all || bytes.is_multiple_of(4099);
    let first = rand::random::<u64>() % step;
    let ends: Vec<u64> = (small..=all).filter(near).skip(first as usize).step_by(step as usize).collect();
    let begin = Instant::now();
    each(&ends, |bytes| end_after(&f, bytes));
    println!("{} of {all} ends, from {first} on, in {:?}", ends.len(), begin.elapsed());
}

#[test]
fn a_session_may_end_at_any_byte_around_layer_and_chunks() {
    ends_around_layer_and_chunks(3);
}

#[test]
#[ignore = "takes half a minute"]
fn a_session_may_end_at_each_byte_around_layer_and_chunks() {
    ends_around_layer_and_chunks(1);
}

/// A download of `len` bytes from 32 peers of which half are at fault, for each seed.
fn half_at_fault(len: usize, seeds: std::ops::Range<u64>) {
    let f = file("x", len, 88);
    let file = std::slice::from_ref(&f);
    for seed in seeds {
        let begin = Instant::now();
        let faults = |i: u64| match i % 4 {
            0 => vec![Fault::CutSome { percent: 5, seed: seed << 8 | i }],
            1 => vec![Fault::WrongSome { percent: 5, seed: seed << 8 | i }],
            2 => vec![Fault::StallSome { percent: 5, seed: seed << 8 | i }],
            _ => vec![
                Fault::CutSome { percent: 5, seed: seed << 8 | i },
                Fault::WrongSome { percent: 5, seed: seed << 9 | i },
                Fault::StallSome { percent: 5, seed: seed << 10 | i },
            ],
        };
        let faulty: Vec<_> = (0..16).map(|i| FaultyPeer::start(file, &faults(i)).unwrap()).collect();
        let honest: Vec<_> = (0..16).map(|_| fake(None, file)).collect();
        let c = Client::new();
        c.meet(&faulty.iter().chain(&honest).collect::<Vec<_>>());
        let report = c.get(&["x"]).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let named = named(&c);
        println!(
            "seed {seed}: {:?} named={} wasted={} retries={} gave={}",
            begin.elapsed(),
            named.len(),
            report.wasted,
            report.retries,
            report.peers.len()
        );
        assert!(c.content("x") == *f.bytes, "seed {seed}");
        assert_eq!(report.bytes, f.id.len, "seed {seed}");
        for (i, peer) in faulty.iter().enumerate() {
            let may_lie = i % 4 == 1 || i % 4 == 3;
            assert!(may_lie || !named.contains(&peer.id()), "seed {seed}: peer {i} did not lie");
            assert!(peer.reported_bad() == 0 || named.contains(&peer.id()), "seed {seed}: liar {i} is not named");
        }
        assert!(honest.iter().all(|peer| !named.contains(&peer.id())), "seed {seed}: an honest peer is named");
        assert!(honest.iter().all(|peer| peer.connections() <= 8), "seed {seed}: an honest peer is dropped");
    }
}

#[test]
fn half_of_32_peers_may_be_at_fault() {
    half_at_fault(24 * MIB, 0..3);
}

/// The whole of it; run with `--ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn half_of_32_peers_may_be_at_fault_for_50_seeds() {
    half_at_fault(256 * MIB, 0..50);
}

/// Tests of one manner that run at once: most of their time is waiting.
const AT_ONCE: usize = 10;
