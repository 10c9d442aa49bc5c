//! Targets: both ends of a session, with a hostile peer before, in and after the handshake.
//!
//! The session runs over a pair of sockets in memory, in the thread of the target. The hostile side takes its turn when
//! the other one has done all that it can, so that nothing waits and no clock matters.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpb::Trust;
use gpb::internals::content::{Catalogue, Digest, Entry, FileId, Geometry, Marks, RelPath, Root, merkle};
use gpb::internals::identity::Keypair;
use gpb::internals::limits::{
    FRAME_HEADER_LEN_MAX, LIST_PAGE_LEN, LOCATE_FILES_MAX, PEERS_ANSWER_LEN_MAX, RESPONSE_BODY_LEN_MAX,
    UNANSWERED_LEN_MAX, WIRE_VERSION,
};
use gpb::internals::net::{Channel, Greeting, Opened, Outbox, Tls};
use gpb::internals::peers::{Call, Dialer, Directory, OwnAnnounce, OwnIdentity};
use gpb::internals::proto::{
    FRAME_PREFIX_LEN, FramePrefix, Hello, Holding, Kind, ListFrom, ListPage, PageHead, PeerHint, Request, Status,
    Welcome, decode_body, encode_frame, encode_request,
};
use gpb::internals::runtime::keystore::TrustView;
use gpb::internals::runtime::{EventSender, Shutdown, Throttle, Watch};
use gpb::internals::server::{PipedSession, ServerBounds, ServerConfig};
use gpb::internals::store::{FetchedFiles, Hashed, Index, Indexed, Reader, SharedRoot, SharedRoots, stamp_of};

use super::input::Input;
use super::scratch::Scratch;
use super::wire::{KINDS, request};

/// A server's end. The group is open, or closed and without the key of the peer: then nothing is told.
pub fn server_session(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let world = WORLD.with(Rc::clone);
    let (hostile, served) = pipe();
    let is_closed = how & 0x80 != 0;
    let trust = if is_closed { Trust::keys([]).expect("none is not too many") } else { Trust::open() };
    let config = world.config(trust);
    let mut session = Served { session: PipedSession::new(&config, served, ADDR).unwrap(), ended: false };
    let mut peer = Hostile::new(hostile, Channel::dial(&world.client_tls, None).unwrap());
    if how & 3 == 0 {
        // It never speaks TLS.
        while !input.is_empty() && !session.ended {
            peer.write(input.slice(4000));
            session.serve();
        }
        peer.hang_up();
        session.serve();
        assert!(session.ended && !session.session.is_admitted());
        return;
    }
    let edits = how & 3 == 1;
    peer.begin();
    for _ in 0..4 {
        peer.flush(|bytes| {
            if edits {
                edit(bytes, &mut input);
            }
        });
        session.serve();
        peer.read();
    }
    if peer.channel.peer().is_some() {
        let mut said_hello = false;
        while !input.is_empty() && !session.ended {
            said_hello |= act(&mut peer, &mut input);
            peer.flush(|_| ());
            session.serve();
            assert!(!session.session.is_admitted() || (said_hello && !is_closed), "let in without Hello, or a key");
        }
    }
    peer.read();
    peer.hang_up();
    for _ in 0..3 {
        session.serve();
        peer.read();
    }
    assert!(session.ended, "the peer is gone");
    check_answers(&peer.plain, is_closed);
}

/// Whatever was asked: the answers are well formed and within their bounds, and a peer that is not trusted learns no
/// more than that.
fn check_answers(mut plain: &[u8], is_closed: bool) {
    let mut first = true;
    while let Some((prefix, rest)) = plain.split_first_chunk::<FRAME_PREFIX_LEN>() {
        let prefix = FramePrefix::from_bytes(*prefix);
        let status = prefix.check_response(RESPONSE_BODY_LEN_MAX).expect("an answer within its bounds");
        if first && status == Status::Ok {
            assert_eq!(prefix.kind, Kind::Hello as u8, "an answer before Hello");
        }
        first = false;
        assert!(!is_closed || status != Status::Ok, "{prefix:?}");
        let Some(rest) = rest.get(prefix.header_len as usize..) else { break };
        let Some(rest) = rest.get(prefix.body_len as usize..) else { break };
        plain = rest;
    }
    let tells = |secret: &[u8]| plain.windows(secret.len()).any(|w| w == secret);
    assert!(!is_closed || (!tells(b"secret") && !tells(&world_id(0).root.0.0)));
}

/// The server's end, until it is over.
struct Served {
    session: PipedSession,
    ended: bool,
}

impl Served {
    fn serve(&mut self) {
        for turns in 0.. {
            if self.ended {
                return;
            }
            match self.session.turn() {
                Ok(true) => assert!(turns < 10_000, "work without an end"),
                Ok(false) => break,
                Err(_) => self.ended = true,
            }
        }
        // Requests, a record that is not whole, and what the peer has not taken: a page at most.
        let bound = 2 * UNANSWERED_LEN_MAX + 20_000 + 3 * LIST_PAGE_LEN + (1 << 20);
        assert!(self.session.held() <= bound, "{} bytes are held", self.session.held());
    }
}

/// One act of a peer whose handshake is over. True if it said `Hello`.
fn act(peer: &mut Hostile, input: &mut Input<'_>) -> bool {
    match input.byte() % 16 {
        0..=2 => {
            let announce = if input.flag() { input.slice(600).to_vec() } else { vec![] };
            let hello = Hello {
                version: WIRE_VERSION,
                network: "gpb".into(),
                instance: input.number(),
                announce,
                agent: input.text(20),
            };
            peer.ask(&Request::Hello(hello));
            return true;
        }
        3..=6 => {
            let request = request(input);
            peer.ask(&request);
            return matches!(request, Request::Hello(_));
        }
        7..=10 => peer.ask(&sensible(input)),
        11 => {
            // A frame with any lengths, and perhaps less behind it than they say.
            let prefix = FramePrefix {
                kind: input.byte(),
                status: input.byte(),
                header_len: input.number() as u16,
                body_len: input.number() as u32,
            };
            let frame = [&prefix.to_bytes(), input.slice(3000)].concat();
            peer.seal(&frame);
            return true;
        }
        12 => {
            peer.seal(input.slice(3000));
            return true;
        }
        13 => {
            // A record that is cut, or bytes that are none.
            peer.flush(|_| ());
            if input.flag() {
                peer.seal(input.slice(100));
            }
            let len = peer.out.len();
            let mut bytes = peer.out.data()[..len - input.below(len + 1).min(len)].to_vec();
            peer.out.clear();
            bytes.extend_from_slice(input.slice(100));
            peer.write(&bytes);
        }
        14 => drop(peer.channel.seal_close(&mut peer.out)),
        _ => peer.read(),
    }
    false
}

/// A request about what is there.
fn sensible(input: &mut Input<'_>) -> Request {
    use gpb::internals::proto::{ChunkAsk, ChunkRef, LayerRange, Since};
    let file = world_id(input.below(3));
    let index = input.number() as u32;
    match input.byte() % 8 {
        0 => Request::Chunk(ChunkAsk { chunk: ChunkRef { file, index: index % 4 }, since: input.number() }),
        1 => Request::AnyOf(Since { file, revision: input.number() }, (0..input.below(65) as u32).collect()),
        2 => Request::Layer(LayerRange { file, first: index % 4, count: input.number() as u32 % 5 }),
        3 => Request::Have(Since { file, revision: input.number() }),
        4 => Request::Bad(ChunkRef { file, index: index % 4 }),
        5 => Request::Peers(input.flag().then_some(file)),
        6 => Request::Locate((0..input.below(6)).map(world_id).collect()),
        _ => {
            let patterns = ["", "*", "**", "secret", "secret/*", "./secret", "{a,{b,*}}", "[!a]*/?ig*"];
            let pattern = if input.flag() { patterns[input.below(8)].into() } else { input.text(300) };
            Request::List(ListFrom { pattern, after: input.text(30), revision: input.number() })
        }
    }
}

/// A client's end: it dials, says `Hello`, and asks for a listing, peers, a layer and more.
pub fn client_session(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let world = WORLD.with(Rc::clone);
    let (hostile, dialing) = pipe();
    let expect = (how & 0x40 == 0).then(|| world.server.peer_id());
    let greeting = Greeting::begin(dialing.try_clone().unwrap(), ADDR, expect, &world.client_tls).unwrap();
    let mut peer = Hostile::new(hostile, Channel::accept(&world.server_tls).unwrap());
    let deadline = || Instant::now() + SOON;
    if how & 3 == 0 {
        peer.write(input.rest());
        peer.hang_up();
        assert!(greeting.finish(deadline()).is_err(), "no key was proved");
        return;
    }
    peer.read();
    let edits = how & 3 == 1;
    peer.flush(|bytes| {
        if edits {
            edit(bytes, &mut input);
        }
    });
    if edits {
        peer.hang_up();
    }
    let Ok(dialed) = greeting.finish(deadline()) else { return };
    peer.read();
    if peer.channel.peer().is_none() {
        return;
    }
    answer(&mut peer, &mut input);
    peer.flush(|_| ());
    peer.hang_up();

    let shutdown = Shutdown::new();
    let (trust, events) = (Arc::new(TrustView::open()), EventSender::channel().0);
    let directory = Directory::new(world.own(&world.client, 2), trust, events);
    let dialer = Dialer::new(directory.clone(), world.client_tls.clone(), shutdown.clone());
    let asked = asked();
    let welcome_by = Some(deadline());
    let call = Call { addr: ADDR, expect, dial_timeout: SOON, welcome_by };
    let mut ahead = |_, _, out: &mut Vec<u8>| asked.iter().for_each(|request| encode_request(request, out));
    let Ok(mut session) = dialer.greet(dialed, shutdown.cuts(dialing), &call, &mut ahead) else { return };
    assert!(expect.is_none_or(|key| key == session.peer));
    for request in &asked {
        let kind = request.kind();
        let body_max = match kind {
            Kind::List => LIST_PAGE_LEN * 2,
            Kind::Peers => PEERS_ANSWER_LEN_MAX,
            Kind::Locate => LOCATE_FILES_MAX * 6 + 8,
            _ => 1 << 19,
        };
        if how & 4 == 4 {
            let Ok(len) = session.skip(deadline()) else { return };
            assert!(len as usize <= RESPONSE_BODY_LEN_MAX.max(64 << 20) + 1);
            continue;
        }
        let Ok((status, len)) = session.receive_head(kind, body_max, deadline()) else { return };
        assert!(len as usize <= body_max && (status == Status::Ok || len == 0));
        assert!(session.header_bytes().len() <= FRAME_HEADER_LEN_MAX);
        let Ok(body) = session.body(len, deadline()) else { return };
        assert_eq!(body.len(), len as usize);
        if status != Status::Ok {
            let said = session.problem(status).to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
            continue;
        }
        match kind {
            Kind::List => {
                let _: Result<PageHead, _> = session.header("List");
                let _ = ListPage::read(&body).map(|entries| entries.map_while(Result::ok).count());
            }
            Kind::Peers => {
                if let Ok(hints) = decode_body::<Vec<PeerHint>>(&body, "Peers") {
                    let named = directory.hints(&hints, ADDR.ip(), Instant::now());
                    assert!(named.len() <= hints.len());
                }
            }
            _ => drop(decode_body::<Vec<Holding>>(&body, "Locate")),
        }
    }
    session.close();
}

fn asked() -> Vec<Request> {
    let list = ListFrom { pattern: "*".into(), after: String::new(), revision: 0 };
    vec![
        Request::List(list.clone()),
        Request::Peers(None),
        Request::Locate(vec![world_id(0), world_id(1)]),
        Request::List(list),
        Request::Bad(gpb::internals::proto::ChunkRef { file: world_id(1), index: 1 }),
    ]
}

/// What a hostile server answers: mostly `Welcome` first, and then anything.
fn answer(peer: &mut Hostile, input: &mut Input<'_>) {
    let mut plain = Vec::new();
    if input.byte() < 0xe0 {
        let announce = if input.flag() { input.slice(600).to_vec() } else { vec![] };
        let welcome = Welcome {
            version: input.number() as u16,
            instance: input.number(),
            revision: input.number(),
            files: input.number(),
            bytes: input.number(),
            announce,
            agent: input.text(300),
        };
        encode_frame(Kind::Hello, Status::Ok, &welcome, &[], &mut plain);
    }
    for _ in 0..20 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 8 {
            0 | 1 => {
                let kind = KINDS[input.below(KINDS.len())];
                let status = Status::from_u8(input.byte() % 8).unwrap();
                let (header, body) = (input.slice(600), input.slice(3000));
                raw(
                    FramePrefix { kind: kind as u8, status: status as u8, header_len: 0, body_len: 0 },
                    header,
                    body,
                    &mut plain,
                );
            }
            2..=4 => {
                // As the requests go.
                let kind = [Kind::List, Kind::Peers, Kind::Locate, Kind::List, Kind::Bad][input.below(5)];
                let header = if input.flag() { vec![1, input.byte() & 1] } else { input.slice(100).to_vec() };
                let body = input.slice(3000);
                raw(FramePrefix { kind: kind as u8, status: 0, header_len: 0, body_len: 0 }, &header, body, &mut plain);
            }
            5 => {
                let prefix = FramePrefix {
                    kind: input.byte(),
                    status: input.byte(),
                    header_len: input.number() as u16,
                    body_len: input.number() as u32,
                };
                plain.extend_from_slice(&prefix.to_bytes());
                plain.extend_from_slice(input.slice(3000));
            }
            6 => plain.extend_from_slice(input.slice(3000)),
            _ => {
                peer.seal(&plain);
                plain.clear();
                if input.byte() == 0 {
                    let _ = peer.channel.seal_close(&mut peer.out);
                }
                if input.byte() == 0 {
                    peer.flush(|_| ());
                    peer.write(input.slice(100));
                }
            }
        }
    }
    peer.seal(&plain);
}

fn raw(prefix: FramePrefix, header: &[u8], body: &[u8], out: &mut Vec<u8>) {
    let prefix = FramePrefix { header_len: header.len() as u16, body_len: body.len() as u32, ..prefix };
    out.extend_from_slice(&prefix.to_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(body);
}

/// The end of a session that keeps to no rule. It may speak TLS.
struct Hostile {
    socket: TcpStream,
    channel: Channel,
    out: Outbox,
    held: Vec<u8>,
    plain: Vec<u8>,
}

impl Hostile {
    fn new(socket: TcpStream, channel: Channel) -> Self {
        Hostile { socket, channel, out: Outbox::new(), held: vec![], plain: vec![] }
    }

    fn begin(&mut self) {
        self.channel.open(&mut [], &mut self.out, &mut |_| ()).unwrap();
    }

    fn ask(&mut self, request: &Request) {
        let mut frame = Vec::new();
        encode_request(request, &mut frame);
        self.seal(&frame);
    }

    fn seal(&mut self, plain: &[u8]) {
        // After its own goodbye it can say no more.
        let _ = self.channel.seal(plain, &mut self.out);
    }

    fn flush(&mut self, alter: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.out.data().to_vec();
        self.out.clear();
        alter(&mut bytes);
        self.write(&bytes);
    }

    /// Writes what the socket takes; the rest is lost.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(n) if n > 0 => bytes = &bytes[n..],
                _ => return,
            }
        }
    }

    /// Reads all that is there, and decrypts it as far as that goes.
    fn read(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(n) if n > 0 => self.held.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                _ => break,
            }
        }
        let plain = &mut self.plain;
        loop {
            let opened = self.channel.open(&mut self.held, &mut self.out, &mut |p| plain.extend_from_slice(p));
            let Ok((used, opened)) = opened else {
                self.held.clear();
                return;
            };
            self.held.drain(..used);
            if opened != Opened::Data {
                return;
            }
        }
    }

    fn hang_up(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }
}

/// Alters a flight of the handshake.
fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.byte() % 4 {
        let at = input.number() as usize % (bytes.len() + 1);
        match input.byte() % 4 {
            0 if at < bytes.len() => bytes[at] ^= input.byte(),
            1 => bytes.truncate(at),
            2 => {
                let new = input.slice(64).to_vec();
                bytes.splice(at..at, new);
            }
            _ => {
                let new = input.slice(64);
                let end = bytes.len().min(at + new.len());
                bytes.splice(at..end, new.iter().copied());
            }
        }
    }
}

/// Two ends of a connection that needs no network and does not block.
fn pipe() -> (TcpStream, TcpStream) {
    let (a, b) = UnixStream::pair().unwrap();
    let [a, b] = [a, b].map(|end| {
        end.set_nonblocking(true).unwrap();
        TcpStream::from(OwnedFd::from(end))
    });
    (a, b)
}

/// A directory with files, shared by the server of each run.
struct World {
    server: Keypair,
    client: Keypair,
    server_tls: Tls,
    client_tls: Tls,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    reader: Arc<Reader>,
    index: Arc<Index>,
    ids: Vec<FileId>,
    _scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.path();
        let shared = dir.join("shared");
        std::fs::create_dir_all(shared.join("secret")).unwrap();
        let index = Index::open(&dir.join("state"), &shared).unwrap();
        let mut entries = vec![];
        for (name, len) in [("secret/small.txt", 100), ("secret/big.bin", 600 << 10), ("a [b] {c", 0)] {
            let content: Vec<u8> = (0..len).map(|i: usize| (i * 7 + len) as u8).collect();
            std::fs::write(shared.join(name), &content).unwrap();
            let stamp = stamp_of(&std::fs::metadata(shared.join(name)).unwrap());
            let (geometry, path) = (Geometry::new(len as u64), RelPath::new(name).unwrap());
            let digest = |c: &[u8]| merkle::chunk_digest(c, geometry.chunk_height());
            let layer: Vec<Digest> = match geometry.needs_layer() {
                true => content.chunks(geometry.chunk_len() as usize).map(digest).collect(),
                false => vec![],
            };
            let id = FileId { root: Root(merkle::root_of_bytes(&content)), len: len as u64 };
            assert!(index.record(&[Hashed {
                path: path.clone(),
                indexed: Indexed { id, stamp },
                marks: Marks::default(),
                layer
            }]));
            entries.push(Entry { path, id, stamp, marks: Marks::default() });
        }
        let ids = entries.iter().map(|e| e.id).collect();
        let (server, client) = (Keypair::generate(), Keypair::generate());
        World {
            server_tls: Tls::new(&server).unwrap(),
            client_tls: Tls::new(&client).unwrap(),
            server,
            client,
            catalogue: Arc::new(Watch::new(Arc::new(Catalogue::new(3, entries)))),
            reader: Arc::new(Reader::open(&shared).unwrap()),
            index: Arc::new(index),
            ids,
            _scratch: scratch,
        }
    }

    fn own(&self, key: &Keypair, instance: u64) -> OwnAnnounce {
        let (keypair, network) = (Arc::new(key.clone()), "gpb".into());
        let identity = OwnIdentity { keypair, instance, network, agent: "fuzz".into(), port: 4000 };
        OwnAnnounce::new(identity, self.catalogue.clone())
    }

    fn config(&self, trust: Trust) -> ServerConfig {
        let events = EventSender::channel().0;
        ServerConfig {
            listeners: vec![],
            tls: self.server_tls.clone(),
            directory: Directory::new(
                self.own(&self.server, 1),
                Arc::new(TrustView::new(trust, self.server.peer_id())),
                events.clone(),
            ),
            catalogue: self.catalogue.clone(),
            roots: SharedRoots::new(vec![SharedRoot {
                name: None,
                reader: self.reader.clone(),
                index: self.index.clone(),
            }]),
            offered: Default::default(),
            fetched: Arc::new(FetchedFiles::new()),
            report: Arc::new(|_, _| ()),
            upload: Arc::new(Throttle::new(None)),
            events,
            shutdown: Shutdown::new(),
            bounds: ServerBounds::default(),
        }
    }
}

/// The identity of a file that is there, or of one that is not.
fn world_id(n: usize) -> FileId {
    let unknown = FileId { root: Root(Digest([n as u8; 32])), len: 1 << 40 };
    WORLD.with(|world| world.ids.get(n).copied()).unwrap_or(unknown)
}

thread_local! {
    static WORLD: Rc<World> = Rc::new(World::new());
}
const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 9)), 4001);
const SOON: Duration = Duration::from_secs(2);
