//! The client against peers in this process that serve well or badly.

mod fake;
mod hostile;
mod real;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpb::internals::cli::Exit;
use gpb::internals::client::limits::{RESOLVE_ALL_MAX, RESOLVE_MAX, RESOLVE_QUIET};
use gpb::internals::client::{
    self, AskScope, ClientContext, Download, DownloadOptions, DownloadPlan, FailedFile, FetchError, Report, Selection,
    SharedContents, Target,
};
use gpb::internals::content::{Catalogue, FileId, RelPath, Root};
use gpb::internals::identity::{Keypair, NodeId, PeerId};
use gpb::internals::net::Tls;
use gpb::internals::peers::limits::DIAL_TIMEOUT;
use gpb::internals::peers::{Dialer, Opening};
use gpb::internals::proto::Announce;
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Events, Shutdown, Throttle, Watch};
use gpb::internals::store::{Disk, FetchedFile, FetchedFiles, SharedRoots};
use gpb::internals::swarm::Event;
use gpb::internals::swarm::membership::limits::CLOCK_SKEW_LOGGED;
use gpb::testing::{Fault, FaultyPeer, TestFile};

use crate::directory::{directory, identity, warnings};

use fake::{ByHand, fake, file, with_bytes};

const MIB: usize = 1 << 20;
/// A bound of what would else go on for ever, which a loaded machine meets as well.
const LONG: Duration = Duration::from_secs(60);

/// The exit code of a program that ends with this error.
fn code(error: &FetchError) -> u8 {
    Exit::from(error).code()
}

/// A client with a directory of its own.
struct Client {
    client: client::Client,
    ctx: Arc<ClientContext>,
    disk: Arc<Disk>,
    dir: tempfile::TempDir,
    events: Events,
}

impl Client {
    fn new() -> Self {
        Self::with(Duration::from_secs(30), None)
    }

    fn with(timeout: Duration, limit: Option<u64>) -> Self {
        Self::trusting(TrustView::open(), timeout, limit)
    }

    fn trusting(trust: TrustView, timeout: Duration, limit: Option<u64>) -> Self {
        let keypair = Keypair::generate();
        let (events, receiver) = EventSender::channel();
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let peers = directory(identity(&keypair, 7), &catalogue, trust, &events);
        let (tls, shutdown) = (Tls::new(&keypair).unwrap(), Shutdown::new());
        let dialer = Dialer::new(peers.clone(), tls, shutdown.clone());
        let ctx = ClientContext {
            hears: true,
            trust: peers.trust().clone(),
            peers,
            shared: SharedContents { catalogue: catalogue.clone(), roots: SharedRoots::default() },
            fetched: Some(Arc::new(FetchedFiles::new())),
            throttle: Arc::new(Throttle::new(limit)),
            events,
            shutdown,
            timeout,
        };
        let client = client::Client::new(ctx, dialer);
        let disk = Disk::open(dir.path(), false).unwrap();
        Client { ctx: client.ctx.clone(), client, disk, dir, events: receiver }
    }

    fn meet(&self, peers: &[&FaultyPeer]) {
        peers.iter().for_each(|p| p.join(&self.ctx.peers));
    }

    /// Looks for a name that nobody has, in `scope`, and returns what contacts send together with `Hello` meanwhile.
    fn opening_while_resolving(&self, scope: &AskScope) -> Opening {
        let handover = self.client.pool.handover();
        std::thread::scope(|s| {
            s.spawn(|| self.client.resolve(&["x".into()], &Selection::default(), scope, Duration::from_secs(60)));
            // From when the question is known.
            while handover.offer(NodeId::new(PeerId([1; 32]), 1)).is_none() {
                std::thread::yield_now();
            }
            let opening = handover.opening();
            scope.canceller.cancel();
            opening
        })
    }

    fn resolve(&self, texts: &[&str]) -> Result<Vec<client::FoundFile>, FetchError> {
        let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
        let found = self.client.resolve(&texts, &Selection::default(), &AskScope::default(), self.ctx.timeout)?;
        match found.failed.into_iter().next() {
            Some(FailedFile { error, .. }) => Err(Arc::into_inner(error).unwrap()),
            None => Ok(found.files),
        }
    }

    fn start(&self, targets: Vec<Target>) -> Download {
        let plan = DownloadPlan::new(targets, self.disk.clone(), DownloadOptions::default());
        Download::start(plan, &self.client).unwrap()
    }

    /// Resolves and fetches, as `get` does.
    fn get(&self, texts: &[&str]) -> Result<Report, Arc<FetchError>> {
        let found = self.resolve(texts)?;
        let target = |f: client::FoundFile| Target { out: f.path.clone(), path: f.path, id: f.id, holders: f.holders };
        self.start(found.into_iter().map(target).collect()).wait()
    }

    fn content(&self, path: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(path)).unwrap()
    }
}

fn target(f: &TestFile) -> Target {
    Target { path: f.path.clone(), id: f.id, out: f.path.clone(), holders: [].into() }
}

/// Waits for what must come true soon.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !test() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_file_comes_from_all_holders() {
    let f = file("a/big.bin", 48 * MIB + 7, 1);
    let peers: Vec<_> =
        (0..3).map(|_| fake(Fault::Delay(Duration::from_millis(2)), std::slice::from_ref(&f))).collect();
    // It takes two seconds, so that each gives its part even if its session comes late.
    let c = Client::with(Duration::from_secs(30), Some(24 * MIB as u64));
    c.meet(&peers.iter().collect::<Vec<_>>());
    let report = c.get(&["a/big.bin"]).unwrap();
    assert!(c.content("a/big.bin") == *f.bytes);
    assert_eq!((report.files, report.bytes, report.peers.len()), (1, f.id.len, 3), "{report:?}");
    assert!(report.peers.iter().all(|p| p.1 > f.id.len / 6), "{:?}", report.peers);
    assert!(matches!(c.ctx.fetched.as_ref().unwrap().get(&f.id), Some(FetchedFile::Whole(..))));
    let again = c.get(&["a/big.bin"]).unwrap();
    assert_eq!((again.bytes, again.skipped), (0, 1));
}

#[test]
fn a_liar_is_named_told_and_dropped() {
    let f = file("x", 20 * MIB, 2);
    let (good, liar) = (
        fake(Fault::Delay(Duration::from_millis(3)), std::slice::from_ref(&f)),
        fake(Fault::WrongChunks, std::slice::from_ref(&f)),
    );
    let c = Client::new();
    // Beside one that gives all of it, a liar may come too late to be asked.
    c.meet(&[&liar]);
    let download = c.start(vec![target(&f)]);
    until("the lie is found", || c.events.try_iter().any(|e| e == Event::PeerLied { peer: liar.id(), id: f.id }));
    c.meet(&[&good]);
    let report = download.wait().unwrap();
    assert!(c.content("x") == *f.bytes);
    assert!(report.wasted > 0 && report.peers == [(good.id(), f.id.len)], "{report:?}");
    until("the liar is told", || liar.reported_bad() > 0);
    assert!(liar.chunks() <= 64, "asked again: {}", liar.chunks());
}

#[test]
fn a_wrong_list_is_a_lie_too() {
    let f = file("x", 3 * MIB, 3);
    let (good, liar) = (fake(None, std::slice::from_ref(&f)), fake(Fault::WrongLayers, std::slice::from_ref(&f)));
    let c = Client::new();
    c.meet(&[&liar]);
    let download = c.start(vec![target(&f)]);
    until("the lie is found", || c.events.try_iter().any(|e| matches!(e, Event::PeerLied { .. })));
    c.meet(&[&good]);
    assert_eq!(download.wait().unwrap().peers, [(good.id(), f.id.len)]);
}

#[test]
fn only_liars_left_is_an_error_of_its_own() {
    for (len, fault) in [(MIB, Fault::WrongChunks), (1000, Fault::WrongChunks), (MIB, Fault::WrongLayers)] {
        let f = file("x", len, 4);
        let liars = [fake(fault, std::slice::from_ref(&f)), fake(fault, std::slice::from_ref(&f))];
        let c = Client::with(Duration::from_secs(2), None);
        c.meet(&[&liars[0], &liars[1]]);
        let e = c.get(&["x"]).unwrap_err();
        assert_eq!(code(&e), 6, "{e}");
        assert!(liars.iter().all(|l| e.to_string().contains(&l.id().to_string())), "{e}");
        assert!(!c.dir.path().join("x").exists());
    }
}

#[test]
fn a_silent_peer_does_not_hold_up_the_others() {
    let f = file("x", 16 * MIB, 5);
    let (good, mute) = (fake(None, std::slice::from_ref(&f)), fake(Fault::Stall, std::slice::from_ref(&f)));
    let c = Client::new();
    c.meet(&[&mute, &good]);
    let begin = Instant::now();
    c.get(&["x"]).unwrap();
    assert!(c.content("x") == *f.bytes);
    assert!(begin.elapsed() < c.ctx.timeout / 2, "{:?}", begin.elapsed());
}

/// A chunk of a wrong length breaks the protocol: the session ends, and the other holder gives the file.
#[test]
fn chunks_of_a_wrong_length_do_no_harm() {
    for fault in [Fault::ShortChunks, Fault::LongChunks] {
        let f = file("x", 4 * MIB, 61);
        let (faulty, honest) = (fake(fault, std::slice::from_ref(&f)), fake(None, std::slice::from_ref(&f)));
        let c = Client::new();
        c.meet(&[&faulty, &honest]);
        let report = c.get(&["x"]).unwrap();
        assert!(c.content("x") == *f.bytes);
        assert!(report.peers.iter().all(|(peer, _)| *peer == honest.id()), "{fault:?}: {report:?}");
    }
}

#[test]
fn what_went_wrong_has_its_exit_code() {
    let f = file("x", MIB, 6);
    for (fault, exit) in [(Fault::Stall, 8), (Fault::ChangingChunks, 4), (Fault::Refuse, 9)] {
        let peer = fake(fault, std::slice::from_ref(&f));
        let c = Client::with(Duration::from_secs(3), None);
        c.meet(&[&peer]);
        let begin = Instant::now();
        let e = c.start(vec![target(&f)]).wait().unwrap_err();
        assert_eq!(code(&e), exit, "{fault:?}: {e}");
        assert!(begin.elapsed() < LONG, "{fault:?}: {:?}", begin.elapsed());
    }
    let c = Client::with(Duration::from_millis(300), None);
    assert_eq!(code(&c.resolve(&["x"]).unwrap_err()), 3);
    assert_eq!(code(&c.start(vec![target(&f)]).wait().unwrap_err()), 3);
}

#[test]
fn a_refusal_is_known_soon_and_shows_no_name() {
    let peer = fake(Fault::Refuse, &[file("x", 10, 7)]);
    let c = Client::new();
    c.meet(&[&peer]);
    let begin = Instant::now();
    assert_eq!(code(&c.resolve(&["x"]).unwrap_err()), 9);
    assert!(begin.elapsed() < c.ctx.timeout / 2, "not the timeout, but {:?}", begin.elapsed());
}

#[test]
fn small_equal_and_empty_files_arrive_in_bulk() {
    let mut files: Vec<TestFile> =
        (0..600).map(|i| file(&format!("t/{}/{i}", i % 7), 1 + i * 37 % 9000, i as u64)).collect();
    files.push(with_bytes("t/empty", Vec::new()));
    files.push(TestFile { path: RelPath::new("t/twin").unwrap(), ..files[5].clone() });
    files.push(file("t/large", 700_000, 8));
    let peers = [fake(None, &files), fake(None, &files)];
    let c = Client::new();
    c.meet(&[&peers[0], &peers[1]]);
    let report = c.get(&["t"]).unwrap();
    assert_eq!(report.files, files.len());
    for f in &files {
        assert!(c.content(f.path.as_str()) == *f.bytes, "{}", f.path);
    }
    let different: u64 = files.iter().filter(|f| f.path.as_str() != "t/twin").map(|f| f.id.len).sum();
    assert_eq!(report.bytes, different, "equal contents are fetched once");
    assert_eq!(c.get(&["t"]).unwrap().skipped, files.len());
}

/// The writer takes what has come up to a bound. It once took one file more out of its queue than it wrote, and the
/// download waited for that file for ever.
#[test]
fn no_small_file_is_lost_when_more_come_than_are_written_at_once() {
    let files: Vec<TestFile> = (0..600).map(|i| file(&format!("t/{i}"), 64 << 10, i as u64)).collect();
    let peer = fake(None, &files);
    let c = Client::new();
    c.meet(&[&peer]);
    assert_eq!(c.get(&["t"]).unwrap().files, files.len());
}

#[test]
fn a_peer_is_asked_about_all_files_however_many() {
    let files: Vec<TestFile> = (0..5000).map(|i| file(&format!("t/{i}"), 8, i)).collect();
    let peer = fake(None, &files);
    let c = Client::new();
    c.meet(&[&peer]);
    assert_eq!(c.start(files.iter().map(target).collect()).wait().unwrap().files, files.len());
}

#[test]
fn a_content_of_many_names_is_fetched_once() {
    let files: Vec<TestFile> = (0..300).map(|i| file(&format!("t/{i}"), 64 << 10, i % 2)).collect();
    let peer = fake(None, &files);
    let c = Client::new();
    c.meet(&[&peer]);
    let report = c.get(&["t"]).unwrap();
    assert_eq!((report.files, report.bytes), (files.len(), 2 * (64 << 10)));
    assert!(files.iter().all(|f| c.content(f.path.as_str()) == *f.bytes));
}

#[test]
fn peers_that_appear_join_and_those_that_die_are_replaced() {
    let f = file("x", 24 * MIB, 9);
    let dying = fake(Fault::CutAfter(20), std::slice::from_ref(&f));
    let c = Client::new();
    c.meet(&[&dying]);
    let download = c.start(vec![target(&f)]);
    until("it died", || dying.chunks() > 20);
    let (a, b) = (fake(None, std::slice::from_ref(&f)), fake(Fault::HalfHeld, std::slice::from_ref(&f)));
    // Whoever comes when all is there gives nothing: the one that has half gives before the one that has the rest.
    c.meet(&[&b]);
    until("the half comes", || b.chunks() > 4);
    c.meet(&[&a]);
    let report = download.wait().unwrap();
    assert!(c.content("x") == *f.bytes);
    let of = |p: &FaultyPeer| report.peers.iter().find(|r| r.0 == p.id()).map_or(0, |r| r.1);
    assert!(of(&dying) > 0 && of(&a) > 0 && of(&b) > 0, "{report:?}");
    assert_eq!(report.bytes, f.id.len);
}

#[test]
fn a_crowded_peer_is_asked_again_and_whom_it_names_is_taken_in() {
    let (f, g) = (file("x", MIB, 31), file("y", 8 * MIB, 32));
    let crowded = fake(Fault::Busy(2), &[f.clone(), g.clone()]);
    let other = fake(None, &[]);
    crowded.name_peer(&other);
    let c = Client::new();
    c.meet(&[&crowded]);
    let report = c.get(&["x"]).unwrap();
    assert_eq!((c.content("x") == *f.bytes, report.retries, crowded.connections()), (true, 0, 1), "none is given up");
    assert_eq!(
        crowded.deferred(),
        3 * (1 + 4),
        "its list and each of the chunks, which it chooses, came at the third time"
    );
    assert!(c.ctx.peers.read(|t| t.peer(other.node()).is_some()), "it is known now");

    // What it puts off comes from others meanwhile.
    let half = fake(Fault::HalfHeld, std::slice::from_ref(&g));
    c.meet(&[&half]);
    let report = c.get(&["y"]).unwrap();
    // In the end a machine that is slow asks for a chunk twice.
    assert!(c.content("y") == *g.bytes && report.retries == 0 && report.wasted <= MIB as u64, "{report:?}");
}

#[test]
fn whoever_is_put_off_waits_in_a_line_and_not_in_silence() {
    // Put off every 50 ms for the list, and two at a time every 20 ms for each of the two chunks: longer than the timeout.
    let f = file("x", 300 << 10, 33);
    let crowded = fake(Fault::Busy(100), std::slice::from_ref(&f));
    let timeout = Duration::from_millis(700);
    let c = Client::with(timeout, None);
    c.meet(&[&crowded]);
    let download = c.start(vec![target(&f)]);
    // The time in which no chunk came, once the list was there.
    let (mut since, mut chunks, mut longest) = (None, 0, Duration::ZERO);
    while !download.wait_for(Duration::from_millis(5)) {
        if since.is_none() && crowded.deferred() > 101 || crowded.chunks() > chunks {
            longest =
                longest.max(since.replace(Instant::now()).map_or(Duration::ZERO, |since: Instant| since.elapsed()));
            chunks = crowded.chunks();
        }
    }
    download.wait().unwrap();
    assert!(longest > timeout, "{longest:?} at most: no chunk was put off for long");
    assert!(c.content("x") == *f.bytes);
}

#[test]
fn what_several_put_off_is_asked_of_each_again() {
    // Where several have all of it, each chunk is asked of one of them.
    let f = file("x", MIB, 34);
    let crowded = [0; 2].map(|_| fake(Fault::Busy(20), std::slice::from_ref(&f)));
    let c = Client::with(Duration::from_secs(5), None);
    c.meet(&[&crowded[0], &crowded[1]]);
    let report = c.get(&["x"]).unwrap();
    assert_eq!((c.content("x") == *f.bytes, report.retries), (true, 0));
    assert!(crowded.iter().all(|peer| peer.deferred() > 20), "both put off more than a list");
}

#[test]
fn what_came_before_an_end_is_not_fetched_again() {
    let f = file("x", 24 * MIB, 10);
    let c = Client::with(Duration::from_secs(3), None);
    let dying = fake(Fault::CutAfter(40), std::slice::from_ref(&f));
    c.meet(&[&dying]);
    let found = c.start(vec![target(&f)]).wait().unwrap_err();
    assert!(matches!(code(&found), 3 | 4 | 8), "{found}");
    let slow = fake(Fault::Delay(Duration::from_millis(5)), std::slice::from_ref(&f));
    c.meet(&[&slow]);
    // It is far from its end when it is cancelled.
    c.ctx.throttle.set(Some(4 * MIB as u64));
    let download = c.start(vec![target(&f)]);
    until("some more came", || download.progress().bytes_fetched > 2 * MIB as u64);
    // Not all that the first one sent before its end need have arrived.
    let had = download.progress().bytes_done;
    assert!(had > 6 * MIB as u64, "{:?}", download.progress());
    download.cancel();
    assert_eq!(code(&download.wait().unwrap_err()), 130);
    c.ctx.throttle.set(None);
    let report = c.get(&["x"]).unwrap();
    assert!(report.bytes <= f.id.len - had, "{had} bytes were there: {report:?}");
    assert_eq!((c.content("x") == *f.bytes, report.local.rehashed), (true, 0));
}

#[test]
fn what_was_touched_between_two_runs_is_verified_and_what_is_wrong_fetched_again() {
    let f = file("x", 24 * MIB, 16);
    let c = Client::with(Duration::from_secs(3), None);
    let dying = fake(Fault::CutAfter(40), std::slice::from_ref(&f));
    c.meet(&[&dying]);
    c.start(vec![target(&f)]).wait().unwrap_err();
    let own = fs::read_dir(c.dir.path().join(".gpb")).unwrap().map(|e| e.unwrap().path());
    let part = own.into_iter().find(|p| p.extension().is_some_and(|e| e == "part")).unwrap();
    let mut bytes = fs::read(&part).unwrap();
    let there: u64 = bytes.chunks(256 << 10).filter(|c| c.iter().any(|b| *b != 0)).map(|c| c.len() as u64).sum();
    let at = bytes.iter().position(|b| *b != 0).unwrap();
    bytes[at] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let honest = fake(None, std::slice::from_ref(&f));
    c.meet(&[&honest]);
    let report = c.get(&["x"]).unwrap();
    assert!(c.content("x") == *f.bytes);
    let missing = f.id.len - there;
    assert_eq!((report.local.rehashed, report.bytes), (there, missing + (256 << 10)));
}

#[test]
fn the_forged_twin_of_a_root_is_never_fetched() {
    let real = file("real", 32 << 10, 11);
    let halves: Vec<u8> =
        real.bytes.chunks(16 << 10).flat_map(|b| gpb::internals::content::merkle::root_of_bytes(b).0).collect();
    let twin = with_bytes("twin", halves);
    let forged = TestFile { id: FileId { root: real.id.root, len: 64 }, ..twin };
    let root: Root = real.id.root;
    for real_first in [true, false] {
        let (a, b) = (fake(None, std::slice::from_ref(&real)), fake(None, std::slice::from_ref(&forged)));
        let c = Client::new();
        c.meet(&[if real_first { &a } else { &b }]);
        std::thread::scope(|s| {
            let got = s.spawn(|| c.get(&[&root.to_string()]));
            until("the first is asked", || if real_first { a.connections() > 0 } else { b.connections() > 0 });
            c.meet(&[&a, &b]);
            got.join().unwrap().unwrap();
        });
        assert!(c.content("real") == *real.bytes);
        assert!(!c.dir.path().join("twin").exists());
    }
}

#[test]
fn one_name_with_two_contents_is_for_the_user_to_decide() {
    let (one, two) = (file("n", 100, 12), file("n", 200, 13));
    let (a, b) = (fake(None, std::slice::from_ref(&one)), fake(None, std::slice::from_ref(&two)));
    let c = Client::new();
    c.meet(&[&a, &b]);
    // The first answer to a name is soon enough, so that on a loaded machine the other one may come too late.
    let mut error = None;
    until("both answer in time", || {
        error = c.resolve(&["n"]).err();
        error.is_some()
    });
    let e = error.unwrap();
    assert_eq!(code(&e), 5);
    for part in [one.id.to_string(), two.id.to_string(), a.id().to_string(), b.id().to_string()] {
        assert!(e.to_string().contains(&part), "{e}");
    }
    c.get(&[&two.id.root.to_string()]).unwrap();
    assert!(c.content("n") == *two.bytes);
}

/// Cause: whatever was meant, 50 ms without a new answer were the end of the search. Effect: of a directory, what a peer far
/// away has alone did not come, and nothing said so.
#[test]
fn a_directory_is_found_when_all_known_peers_have_answered() {
    let (near, far) = (file("d/near", 100, 15), file("d/far", 100, 16));
    let quick = fake(None, std::slice::from_ref(&near));
    let slow = fake(Fault::SlowLists(8 * RESOLVE_QUIET), std::slice::from_ref(&far));
    let c = Client::new();
    c.meet(&[&quick, &slow]);
    for texts in [&["d"], &["d/*"], &["**"]] {
        let found = c.resolve(texts).unwrap();
        let names: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["d/far", "d/near"], "{texts:?}");
    }
}

#[test]
fn what_nobody_else_has_is_waited_for_while_a_named_peer_is_still_sought() {
    let f = file("n", 100, 15);
    let (without, with) = (fake(None, &[]), fake(None, std::slice::from_ref(&f)));
    let c = Client::new();
    c.ctx.peers.expect(1);
    c.meet(&[&without]);
    std::thread::scope(|scope| {
        let found = scope.spawn(|| c.resolve(&["n"]));
        // Longer than a name is sought once somebody has answered.
        std::thread::sleep(RESOLVE_MAX + Duration::from_millis(500));
        c.meet(&[&with]);
        c.ctx.peers.expected_came();
        assert_eq!(found.join().unwrap().unwrap()[0].id, f.id);
    });
    // Once nobody is awaited any more, the answer is soon no.
    let begin = Instant::now();
    assert_eq!(code(&c.resolve(&["other"]).unwrap_err()), 4);
    assert!(begin.elapsed() < RESOLVE_ALL_MAX, "{:?}", begin.elapsed());
}

/// The names that few are asked for went to each peer that was contacted meanwhile.
#[test]
fn contacts_ask_for_no_name_that_only_some_are_asked_for() {
    let all = AskScope::default();
    assert_eq!(Client::new().opening_while_resolving(&all).len(), 1);
    let nodes: Option<Arc<[NodeId]>> = Some([NodeId::new(PeerId([2; 32]), 1)].into());
    let some = AskScope { nodes, ..AskScope::default() };
    assert!(Client::new().opening_while_resolving(&some).is_empty());
}

#[test]
fn the_download_limit_holds() {
    let f = file("x", 12 * MIB, 14);
    let peer = fake(None, std::slice::from_ref(&f));
    let c = Client::with(Duration::from_secs(10), Some(4 * MIB as u64));
    c.meet(&[&peer]);
    let report = c.get(&["x"]).unwrap();
    // A machine that is loaded takes longer, and none may be faster.
    assert!(report.seconds > 2.7, "{report:?}");
}

#[test]
fn twenty_thousand_names_are_listed_soon() {
    let one = file("q", 5, 15);
    let files: Vec<TestFile> = (0..20_000)
        .map(|i| {
            let mut f = one.clone();
            f.path = RelPath::new(&format!("dir{:03}/file-with-a-name-{i}", i % 200)).unwrap();
            f.id.len = 5 + i;
            f
        })
        .collect();
    let peers = [fake(None, &files), fake(None, &files)];
    let c = Client::new();
    c.meet(&[&peers[0], &peers[1]]);
    // Other tests run beside it: one try of some is not held up.
    let is_quick = (0..10).any(|_| {
        let begin = Instant::now();
        let found = c.client.list(&[], &AskScope::default(), LONG).unwrap();
        println!("listed in {:?}", begin.elapsed());
        assert_eq!(found.len(), 20_000);
        assert!(found.iter().all(|f| f.holders.len() == 2));
        begin.elapsed() < LONG / 4
    });
    assert!(is_quick);
    let all = c.client.peers(&AskScope::default(), LONG).unwrap();
    assert!(all.len() == 2 && all.iter().all(|p| p.files == 20_000));
    assert_eq!(peers[0].connections(), 1, "the session is used again");
}

#[test]
fn whoever_is_not_trusted_any_more_gives_nothing_more() {
    let f = file("x", 24 * MIB, 16);
    let revoked = fake(Fault::Delay(Duration::from_millis(300)), std::slice::from_ref(&f));
    let kept = fake(None, &[file("y", 10, 17)]);
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("trusted");
    fs::write(&trusted, format!("{}\n{}\n", revoked.id(), kept.id())).unwrap();
    let trust = TrustView::closed(&trusted, Keypair::generate().peer_id()).unwrap();
    let c = Client::trusting(trust, Duration::from_secs(2), None);
    c.meet(&[&revoked, &kept]);
    let download = c.start(vec![target(&f)]);
    until("it gives something", || download.progress().bytes_fetched > 0);
    fs::write(&trusted, format!("{}\n", kept.id())).unwrap();
    until("the file is read", || c.ctx.trust.reload());
    let begin = Instant::now();
    let (before, e) = (download.progress().bytes_fetched, download.wait().unwrap_err());
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
    assert_eq!(code(&e), 4, "the other has it not: {e}");
    assert!(before < f.id.len && revoked.chunks() < 80, "{before} {}", revoked.chunks());
}

#[test]
fn a_holder_that_is_gone_holds_nothing() {
    let f = file("x", 8 * MIB, 18);
    let holder = fake(Fault::CutAfter(4), std::slice::from_ref(&f));
    let other = fake(None, &[file("y", 10, 19)]);
    let c = Client::with(Duration::from_secs(3), None);
    c.meet(&[&holder, &other]);
    let e = c.start(vec![target(&f)]).wait().unwrap_err();
    assert_eq!(code(&e), 4, "{e}");
    let leaving = fake(Fault::Delay(Duration::from_millis(500)), std::slice::from_ref(&f));
    c.meet(&[&leaving]);
    let download = c.start(vec![target(&f)]);
    until("it gives something", || download.progress().bytes_fetched > 0);
    leaving.kill();
    leaving.leave(&c.ctx.peers);
    holder.leave(&c.ctx.peers);
    let e = download.wait().unwrap_err();
    assert_eq!(code(&e), 4, "{e}");
}

#[test]
fn a_peer_that_says_hello_and_then_nothing_is_silent() {
    let peer = fake(Fault::Mute, &[file("x", 10, 20)]);
    let c = Client::with(Duration::from_secs(2), None);
    c.meet(&[&peer]);
    let begin = Instant::now();
    let e = c.resolve(&["x"]).unwrap_err();
    assert_eq!(code(&e), 8, "{e}");
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
}

#[test]
fn the_end_does_not_wait_for_who_is_still_being_dialed() {
    let f = file("x", MIB, 21);
    // A machine that is busy may hold one try of some up for as long, and an end that waits comes late in each.
    let is_quick = (0..10).any(|_| {
        let (deaf, good) = (fake(Fault::Deaf, std::slice::from_ref(&f)), fake(None, std::slice::from_ref(&f)));
        let c = Client::new();
        c.meet(&[&deaf, &good]);
        let begin = Instant::now();
        c.start(vec![target(&f)]).wait().unwrap();
        let fetched = begin.elapsed();
        // Nor does the end of the node, which joins the threads that dial.
        c.ctx.shutdown.begin();
        drop(c);
        println!("fetched after {fetched:?}, and ended after {:?}", begin.elapsed());
        deaf.kill();
        begin.elapsed() < DIAL_TIMEOUT
    });
    assert!(is_quick);
}

/// A peer that multicast did not bring is first met when it welcomes this node.
#[test]
fn a_wrong_clock_is_reported_of_a_peer_that_a_session_brings() {
    let peer = fake(None, &[file("x", 10, 22)]);
    let c = Client::new();
    assert_eq!(warnings("clocks differ", peer.id()), 0);
    c.meet(&[&peer]);
    let good = peer.says();
    peer.say(&Announce { seq: good.seq + 5 * CLOCK_SKEW_LOGGED.as_millis() as u64, ..good });
    c.resolve(&["x"]).unwrap();
    assert_eq!(warnings("clocks differ", peer.id()), 1);
}

/// Each survey would else read the whole table once for each of its answers.
#[test]
fn an_answer_to_a_survey_is_no_change_of_the_peer_table() {
    let peers: Vec<_> = (0..5).map(|n| fake(None, &[file("x", 10, 40 + n)])).collect();
    let c = Client::new();
    c.meet(&peers.iter().collect::<Vec<_>>());
    let before = c.ctx.peers.changes();
    assert_eq!(c.client.peers(&AskScope::default(), LONG).unwrap().len(), peers.len());
    assert_eq!(c.client.list(&[], &AskScope::default(), LONG).unwrap().len(), peers.len());
    assert_eq!(c.ctx.peers.changes(), before);
}

/// Each download and survey would else read the whole table for every file that another download finishes.
#[test]
fn what_a_download_does_is_no_change_of_the_peer_table() {
    let files: Vec<TestFile> = (0..50).map(|n| file(&format!("d/{n}"), 1000 + n, n as u64)).collect();
    let peer = fake(None, &files);
    let c = Client::new();
    c.meet(&[&peer]);
    let before = c.ctx.peers.changes();
    let report = c.get(&["d/**"]).unwrap();
    assert_eq!(report.files, files.len());
    assert_eq!(c.ctx.peers.changes(), before, "the session is no change: the peer was known");
}

/// A download beside `count` peers with `fault`, which all come before the only honest one.
fn beside(fault: Fault, count: usize) {
    let f = file("x", 8 * MIB, 31);
    let bad: Vec<_> = (0..count).map(|_| fake(fault, std::slice::from_ref(&f))).collect();
    let honest = fake(None, std::slice::from_ref(&f));
    let c = Client::new();
    c.meet(&bad.iter().chain([&honest]).collect::<Vec<_>>());
    let begin = Instant::now();
    let report = c.get(&["x"]).unwrap();
    println!("{count} {fault:?}: {:?} {report:?}", begin.elapsed());
    assert!(c.content("x") == *f.bytes);
    assert!(begin.elapsed() < LONG, "{count} {fault:?}: {:?}", begin.elapsed());
}

/// Two holders that sent a byte a second of a layer stopped its file for ever: a third one was never
/// asked, and each byte counted as progress.
#[test]
fn peers_that_drip_a_layer_do_not_hold_it_up() {
    beside(Fault::DripLayers, 5);
    beside(Fault::DripLayers, 20);
}

/// Peers that sent a byte a second of their chunks took each connection, and kept it.
#[test]
fn peers_that_drip_chunks_do_not_hold_them_up() {
    beside(Fault::DripChunks, 5);
    beside(Fault::DripChunks, 20);
}

/// Each byte of a peer that drips was progress, so that the timeout never came.
#[test]
fn peers_that_only_drip_are_silent() {
    for fault in [Fault::DripLayers, Fault::DripChunks] {
        let f = file("x", 8 * MIB, 32);
        let bad: Vec<_> = (0..20).map(|_| fake(fault, std::slice::from_ref(&f))).collect();
        let c = Client::with(Duration::from_secs(3), None);
        c.meet(&bad.iter().collect::<Vec<_>>());
        let begin = Instant::now();
        let e = c.get(&["x"]).unwrap_err();
        assert!(matches!(*e, FetchError::Silent { .. }) && code(&e) == 8, "{e:?}");
        assert!(begin.elapsed() < LONG, "{fault:?}: {:?}", begin.elapsed());
    }
}
