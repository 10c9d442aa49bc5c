//! A server over real files, asked through the public session type.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gpb::internals::content::{Catalogue, Digest, Entry, FileId, Geometry, Marks, RelPath, Root, merkle};
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::limits::WIRE_VERSION;
use gpb::internals::net::{Dialed, Tls};
use gpb::internals::proto::{ChunkAsk, ChunkRef, Hello, LayerRange, Request, Status, encode_request};
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Shutdown, Throttle, Watch};
use gpb::internals::server::{FileDoubt, Server, ServerBounds, ServerConfig, listen};
use gpb::internals::store::{FetchedFiles, Hashed, Index, Indexed, Reader, SharedRoot, SharedRoots, stamp_of};

use crate::directory::{directory, identity, lines, warnings};

const SOON: Duration = Duration::from_secs(60);

struct Rig {
    server: Server,
    peer: PeerId,
    doubted: Arc<Mutex<Vec<(String, FileDoubt)>>>,
    dir: tempfile::TempDir,
    _state: tempfile::TempDir,
}

impl Rig {
    fn start(files: &[(&str, Vec<u8>)]) -> (Self, Vec<FileId>) {
        Self::start_over(files, |_, _| ())
    }

    /// `falsify` changes the files behind the back of the catalogue, before their state is taken down.
    fn start_over(files: &[(&str, Vec<u8>)], falsify: impl Fn(&Path, &str)) -> (Self, Vec<FileId>) {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut entries, mut hashed) = (vec![], vec![]);
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
            falsify(dir.path(), name);
            let (entry, layer) = hash(dir.path(), name, bytes);
            let indexed = Indexed { id: entry.id, stamp: entry.stamp };
            hashed.push(Hashed { path: entry.path.clone(), indexed, marks: Marks::default(), layer });
            entries.push(entry);
        }
        let ids = entries.iter().map(|e| e.id).collect();
        let index = Index::open(state.path(), dir.path()).unwrap();
        assert!(index.record(&hashed));
        let keypair = Keypair::generate();
        let (peer, tls) = (keypair.peer_id(), Tls::new(&keypair).unwrap());
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::new(1, entries))));
        let events = EventSender::channel().0;
        let doubted = Arc::new(Mutex::new(vec![]));
        let report = doubted.clone();
        let config = ServerConfig {
            listeners: vec![listen(Some([127, 0, 0, 1].into()), 0).unwrap()],
            tls,
            directory: directory(identity(&keypair, 1), &catalogue, TrustView::open(), &events),
            catalogue,
            roots: SharedRoots::new(vec![SharedRoot {
                name: None,
                reader: Arc::new(Reader::open(dir.path()).unwrap()),
                index: Arc::new(index),
            }]),
            offered: Default::default(),
            fetched: Arc::new(FetchedFiles::new()),
            report: Arc::new(move |entry: &Entry, why| report.lock().unwrap().push((entry.path.to_string(), why))),
            upload: Arc::new(Throttle::new(None)),
            events,
            shutdown: Shutdown::new(),
            bounds: ServerBounds::default(),
        };
        let server = Server::start(config).unwrap();
        (Rig { server, peer, doubted, dir, _state: state }, ids)
    }

    fn dial(&self) -> Dialed {
        self.dial_as(&Keypair::generate(), "test")
    }

    fn dial_as(&self, keypair: &Keypair, agent: &str) -> Dialed {
        let tls = Tls::new(keypair).unwrap();
        let mut session = Dialed::dial(self.server.addrs()[0], Some(self.peer), &tls, SOON).unwrap();
        let hello =
            Hello { version: WIRE_VERSION, network: "gpb".into(), instance: 2, announce: vec![], agent: agent.into() };
        assert_eq!(ask(&mut session, &Request::Hello(hello)).0, Status::Ok);
        session
    }
}

fn ask(session: &mut Dialed, request: &Request) -> (Status, Vec<u8>) {
    let (mut frame, mut header) = (vec![], vec![]);
    encode_request(request, &mut frame);
    session.send(&frame, Instant::now() + SOON).unwrap();
    let prefix = session.read_head(&mut header, Instant::now() + SOON).unwrap();
    let mut body = vec![0; prefix.body_len as usize];
    session.read_body(&mut body, SOON, &mut |_| true).unwrap();
    (Status::from_u8(prefix.status).unwrap(), body)
}

fn hash(dir: &Path, name: &str, bytes: &[u8]) -> (Entry, Vec<Digest>) {
    let geometry = Geometry::new(bytes.len() as u64);
    let (root, layer) = match geometry.needs_layer() {
        false => (merkle::root_of_bytes(bytes), vec![]),
        true => {
            let chunks = bytes.chunks(geometry.chunk_len() as usize);
            let layer: Vec<_> = chunks.map(|c| merkle::chunk_digest(c, geometry.chunk_height())).collect();
            (merkle::root_of_layer(&layer, geometry.chunk_height()), layer)
        }
    };
    let id = FileId { root: Root(root), len: bytes.len() as u64 };
    let stamp = stamp_of(&fs::metadata(dir.join(name)).unwrap());
    (Entry { path: RelPath::new(name).unwrap(), id, stamp, marks: Marks::default() }, layer)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

#[test]
fn real_files_arrive_with_their_layer() {
    let data = bytes(3 * 256 * 1024 + 77);
    let (rig, ids) = Rig::start(&[("a.bin", data.clone()), ("small", bytes(100))]);
    let mut session = rig.dial();
    let layer = Request::Layer(LayerRange { file: ids[0], first: 0, count: 4 });
    let (status, layer) = ask(&mut session, &layer);
    assert_eq!((status, layer.len()), (Status::Ok, 4 * 32));
    let mut got = vec![];
    for index in 0..4 {
        let (status, mut body) =
            ask(&mut session, &Request::Chunk(ChunkAsk { chunk: ChunkRef { file: ids[0], index }, since: 0 }));
        assert_eq!((status, body.pop()), (Status::Ok, Some(Request::GOOD)));
        got.extend(body);
    }
    assert!(got == data);
    let (status, body) =
        ask(&mut session, &Request::Chunk(ChunkAsk { chunk: ChunkRef { file: ids[1], index: 0 }, since: 0 }));
    assert_eq!((status, &body[..100]), (Status::Ok, &bytes(100)[..]));
}

#[test]
fn the_agent_of_a_peer_forges_no_field_of_a_log_line() {
    let keypair = Keypair::generate();
    assert_eq!(warnings("connected", keypair.peer_id()), 0);
    let (rig, _) = Rig::start(&[]);
    drop(rig.dial_as(&keypair, "x\" reason=\"ok\" peer=forged \u{202e}"));
    let connected = lines("connected", keypair.peer_id());
    assert!(connected[0].contains(r#" agent="x\" reason=\"ok\" peer=forged \u{202e}""#), "{connected:?}");
}

#[test]
fn a_changed_or_removed_file_is_gone() {
    let (rig, ids) = Rig::start(&[("a", bytes(1000)), ("b", bytes(2000))]);
    let mut session = rig.dial();
    fs::write(rig.dir.path().join("a"), bytes(1001)).unwrap();
    fs::remove_file(rig.dir.path().join("b")).unwrap();
    for id in ids {
        assert_eq!(
            ask(&mut session, &Request::Chunk(ChunkAsk { chunk: ChunkRef { file: id, index: 0 }, since: 0 })).0,
            Status::Gone
        );
    }
    let doubted = [("a".to_string(), FileDoubt::Changed), ("b".to_string(), FileDoubt::Changed)];
    assert_eq!(rig.doubted.lock().unwrap().as_slice(), doubted, "the indexer looks at them");
}

#[test]
fn a_reported_chunk_is_hashed_again_and_what_the_disk_falsified_is_withdrawn() {
    // Any write shows in ctime, so what a failing disk does is played by a state taken down after it.
    let (rig, ids) = Rig::start_over(&[("x", bytes(600 * 1024))], |dir, name| {
        File::options().write(true).open(dir.join(name)).unwrap().write_all_at(&[0xaa, 0x55], 300 * 1024).unwrap();
    });
    let mut session = rig.dial();
    let chunk = |index| ChunkRef { file: ids[0], index };
    for index in 0..2 {
        assert_eq!(ask(&mut session, &Request::Chunk(ChunkAsk { chunk: chunk(index), since: 0 })).0, Status::Ok);
    }
    assert_eq!(ask(&mut session, &Request::Bad(chunk(0))).0, Status::Ok);
    assert!(rig.doubted.lock().unwrap().is_empty(), "chunk 0 is as it was hashed");
    assert_eq!(ask(&mut session, &Request::Bad(chunk(2))).0, Status::NotFound);
    assert_eq!(ask(&mut session, &Request::Bad(chunk(1))).0, Status::Ok);
    assert_eq!(rig.doubted.lock().unwrap().as_slice(), [("x".to_string(), FileDoubt::Falsified)]);
}

/// Prints numbers; run it in a release build: `cargo test --release --test it speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed_of_one_connection() {
    let data = bytes(512 << 20);
    let (rig, ids) = Rig::start(&[("a.bin", data)]);
    let chunk_len = Geometry::new(ids[0].len).chunk_len();
    let count = Geometry::new(ids[0].len).chunk_count();
    for round in 0..3 {
        let mut session = rig.dial();
        let began = Instant::now();
        let (mut asked, mut header) = (0, vec![]);
        let mut body = vec![0; chunk_len as usize + 1];
        for answered in 0..count {
            let mut frames = vec![];
            while asked < count && asked < answered + 16 {
                encode_request(
                    &Request::Chunk(ChunkAsk { chunk: ChunkRef { file: ids[0], index: asked }, since: 0 }),
                    &mut frames,
                );
                asked += 1;
            }
            session.send(&frames, Instant::now() + SOON).unwrap();
            let prefix = session.read_head(&mut header, Instant::now() + SOON).unwrap();
            session.read_body(&mut body[..prefix.body_len as usize], SOON, &mut |_| true).unwrap();
        }
        let rate = ids[0].len as f64 / began.elapsed().as_secs_f64() / 1e6;
        println!("round {round}: {rate:.0} MB/s, chunks of {} KiB", chunk_len / 1024);
    }
}
