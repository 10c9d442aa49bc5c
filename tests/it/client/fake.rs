//! A peer in this process that serves files from memory, well or badly.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown as Close, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gpb::internals::content::{Bitfield, FileId, Geometry, Pattern, RelPath, Root, merkle};
use gpb::internals::identity::{Keypair, PeerId};
use gpb::internals::limits::{FRAME_HEADER_LEN_MAX, WIRE_VERSION};
use gpb::internals::net::{Channel, Outbox, Tls};
use gpb::internals::peers::Directory;
use gpb::internals::proto::{
    Announce, ChunkAsk, ChunkHeader, ChunkRef, Delta, Flags, FramePrefix, Holding, Kind, Listed, PageHead, PeerHint,
    Problem, Request, SignedAnnounce, Since, Status, Welcome, encode_body, encode_frame,
};

use crate::directory::{announce, hear};

/// What a peer does with those who ask it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Every chunk is wrong, with the trailer that says it is good.
    Lies,
    /// Every list of digests is wrong.
    LiesInLists,
    /// Says hello and what it holds, and then nothing.
    Stalls,
    Refuses,
    /// Says hello, and then nothing.
    Mute,
    /// Accepts connections, and says nothing.
    Deaf,
    /// Every chunk changes while it is read.
    Changes,
    /// Closes the connection after so many chunks, and is never reached again.
    Dies(u64),
    /// Takes so many ms for a chunk.
    Slow(u64),
    /// Holds only every second chunk.
    Half,
    /// Sends no list and no chunk before it was asked for so many times, and says who else fetches: the peers told of
    /// with [`Fake::tell_of`].
    Crowded(u64),
}

/// A file in memory and its name.
#[derive(Clone)]
pub struct File {
    pub path: RelPath,
    pub id: FileId,
    pub bytes: Arc<Vec<u8>>,
    pub layer: Arc<Vec<u8>>,
}

/// Bytes that differ by `seed`, and everywhere.
pub fn file(path: &str, len: usize, seed: u64) -> File {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word.copy_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    with_bytes(path, bytes)
}

pub fn with_bytes(path: &str, bytes: Vec<u8>) -> File {
    let g = Geometry::new(bytes.len() as u64);
    let height = g.chunk_height();
    let layer: Vec<_> = match g.needs_layer() {
        true => bytes.chunks(g.chunk_len() as usize).map(|c| merkle::chunk_digest(c, height)).collect(),
        false => Vec::new(),
    };
    let root = if layer.is_empty() { merkle::root_of_bytes(&bytes) } else { merkle::root_of_layer(&layer, height) };
    let id = FileId { root: Root(root), len: bytes.len() as u64 };
    let layer = layer.iter().flat_map(|d| d.0).collect();
    File { path: RelPath::new(path).unwrap(), id, bytes: Arc::new(bytes), layer: Arc::new(layer) }
}

/// A peer; dropping it closes everything.
pub struct Fake {
    pub keypair: Keypair,
    pub instance: u64,
    pub addr: SocketAddr,
    inner: Arc<Inner>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

struct Inner {
    tls: Tls,
    manner: Manner,
    instance: u64,
    files: BTreeMap<FileId, File>,
    listed: Vec<Listed>,
    chunks: AtomicU64,
    bad: AtomicU64,
    connections: AtomicU64,
    /// Requests that it put off.
    put_off: AtomicU64,
    dead: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
    /// What it tells of others.
    hints: Mutex<Vec<PeerHint>>,
    /// What it says of itself in `Welcome`.
    announce: Mutex<Vec<u8>>,
}

impl Fake {
    pub fn start(manner: Manner, files: &[File]) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(1000);
        let keypair = Keypair::generate();
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut listed: Vec<Listed> = files.iter().map(|f| Listed { path: f.path.clone(), id: f.id }).collect();
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let inner = Arc::new(Inner {
            tls: Tls::new(&keypair).unwrap(),
            manner,
            instance,
            files: files.iter().map(|f| (f.id, f.clone())).collect(),
            listed,
            chunks: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            sockets: Mutex::default(),
            hints: Mutex::default(),
            announce: Mutex::default(),
        });
        let accept = inner.clone();
        let accepting = std::thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((socket, _)) = listener.accept() {
                if accept.dead.load(Ordering::SeqCst) {
                    break;
                }
                accept.connections.fetch_add(1, Ordering::SeqCst);
                accept.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let inner = accept.clone();
                serving.push(std::thread::spawn(move || inner.serve(socket).unwrap_or_default()));
            }
            serving.into_iter().for_each(|t| drop(t.join()));
        });
        Fake { keypair, instance, addr, inner, accepting: Some(accepting) }
    }

    pub fn id(&self) -> PeerId {
        self.keypair.peer_id()
    }

    /// Chunks that it sent.
    pub fn chunks(&self) -> u64 {
        self.inner.chunks.load(Ordering::SeqCst)
    }

    /// Times that it was told of a bad chunk.
    pub fn told_bad(&self) -> u64 {
        self.inner.bad.load(Ordering::SeqCst)
    }

    /// Requests that it put off.
    pub fn put_off(&self) -> u64 {
        self.inner.put_off.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Makes it known.
    pub fn join(&self, peers: &Directory) {
        hear(peers, &announce(&self.keypair, self.instance, self.addr), &self.keypair, self.addr);
    }

    /// Has it tell of `other`.
    pub fn tell_of(&self, other: &Fake) {
        let announce = announce(&other.keypair, other.instance, other.addr);
        let announce = SignedAnnounce::seal(&announce, &other.keypair).as_bytes().to_vec();
        self.inner.hints.lock().unwrap().push(PeerHint { announce, addrs: vec![other.addr] });
    }

    /// Has it say this of itself in `Welcome`.
    pub fn say(&self, announce: &Announce) {
        *self.inner.announce.lock().unwrap() = SignedAnnounce::seal(announce, &self.keypair).as_bytes().to_vec();
    }

    /// Says goodbye.
    pub fn leave(&self, peers: &Directory) {
        let announce = announce(&self.keypair, self.instance, self.addr);
        hear(peers, &Announce { flags: Flags::GOODBYE, ..announce }, &self.keypair, self.addr);
    }

    pub fn kill(&self) {
        self.inner.dead.store(true, Ordering::SeqCst);
        for socket in self.inner.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Close::Both);
        }
        // Wakes the accepting thread, which then closes the listener.
        drop(TcpStream::connect(self.addr));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
        let _ = self.accepting.take().map(std::thread::JoinHandle::join);
    }
}

/// The accepting end of a session, blocking.
struct Wire {
    socket: TcpStream,
    channel: Channel,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    out: Outbox,
}

impl Wire {
    fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.plain.len() < len {
            let (plain, mut used) = (&mut self.plain, 0);
            loop {
                let (n, opened) = self
                    .channel
                    .open(&mut self.sealed[used..], &mut self.out, &mut |p| plain.extend_from_slice(p))
                    .ok()?;
                used += n;
                match opened {
                    gpb::internals::net::Opened::Data => {}
                    gpb::internals::net::Opened::Starved => break,
                    gpb::internals::net::Opened::Ended => return None,
                }
            }
            self.sealed.drain(..used);
            self.flush()?;
            if self.plain.len() >= len {
                break;
            }
            let mut buf = [0; 65536];
            let n = self.socket.read(&mut buf).ok().filter(|&n| n > 0)?;
            self.sealed.extend_from_slice(&buf[..n]);
        }
        Some(self.plain.drain(..len).collect())
    }

    fn flush(&mut self) -> Option<()> {
        self.socket.write_all(self.out.data()).ok()?;
        self.out.clear();
        Some(())
    }

    fn send(&mut self, frame: &[u8]) -> Option<()> {
        self.channel.seal(frame, &mut self.out).ok()?;
        self.flush()
    }
}

impl Inner {
    fn serve(&self, mut socket: TcpStream) -> Option<()> {
        if self.manner == Manner::Deaf {
            while socket.read(&mut [0; 1024]).ok()? > 0 {}
        }
        socket.set_nodelay(true).ok()?;
        let channel = Channel::accept(&self.tls).ok()?;
        let mut wire = Wire { socket, channel, sealed: Vec::new(), plain: Vec::new(), out: Outbox::new() };
        loop {
            let prefix = FramePrefix::from_bytes(wire.read(8)?.try_into().ok()?);
            assert!(prefix.header_len as usize <= FRAME_HEADER_LEN_MAX);
            let header = wire.read(prefix.header_len as usize)?;
            let body = wire.read(prefix.body_len as usize)?;
            let request = Request::decode(prefix.kind, &header, &body).unwrap();
            let mut frame = Vec::new();
            self.answer(request, &mut frame)?;
            wire.send(&frame)?;
        }
    }

    fn puts_off(&self) -> bool {
        let Manner::Crowded(times) = self.manner else { return false };
        self.put_off.fetch_add(1, Ordering::SeqCst) % (times + 1) < times
    }

    fn answer_chunk(&self, kind: Kind, chunk: ChunkRef, out: &mut Vec<u8>) -> Option<()> {
        let nth = self.chunks.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            Manner::Dies(after) if nth >= after => {
                self.dead.store(true, Ordering::SeqCst);
                for socket in self.sockets.lock().unwrap().drain(..) {
                    let _ = socket.shutdown(Close::Both);
                }
                return None;
            }
            Manner::Slow(ms) => std::thread::sleep(Duration::from_millis(ms)),
            _ => {}
        }
        let Some(file) = self.files.get(&chunk.file) else {
            encode_frame(kind, Status::NotFound, &Problem::default(), &[], out);
            return Some(());
        };
        let geometry = Geometry::new(file.id.len);
        let span = geometry.span(geometry.chunk(chunk.index)?);
        let at = span.offset as usize;
        let mut body = file.bytes[at..at + span.len as usize].to_vec();
        if self.manner == Manner::Lies {
            body[0] ^= 1;
        }
        body.push(if self.manner == Manner::Changes { Request::GONE } else { Request::GOOD });
        encode_frame(kind, Status::Ok, &ChunkHeader { chunk, new_haves: None }, &body, out);
        Some(())
    }

    fn answer(&self, request: Request, out: &mut Vec<u8>) -> Option<()> {
        let kind = request.kind();
        let problem = |status: Status, out: &mut Vec<u8>| encode_frame(kind, status, &Problem::default(), &[], out);
        match request {
            Request::Hello(_) if self.manner == Manner::Refuses => problem(Status::Refused, out),
            Request::Hello(_) => {
                let welcome = Welcome {
                    version: WIRE_VERSION,
                    instance: self.instance,
                    revision: 1,
                    files: self.listed.len() as u64,
                    bytes: self.listed.iter().map(|l| l.id.len).sum(),
                    announce: self.announce.lock().unwrap().clone(),
                    agent: "fake".into(),
                };
                encode_frame(kind, Status::Ok, &welcome, &[], out);
            }
            _ if self.manner == Manner::Mute => {}
            Request::List(from) => {
                let pattern = (!from.pattern.is_empty()).then(|| Pattern::parse(&from.pattern).unwrap());
                let meant = |l: &&Listed| {
                    l.path.as_str() > from.after.as_str()
                        && pattern.as_ref().is_none_or(|p| p.matches(l.path.as_str(), &l.id))
                };
                let mut rest = self.listed.iter().filter(meant);
                let page: Vec<&Listed> = rest.by_ref().take(2000).collect();
                let head = PageHead { revision: 1, more: rest.next().is_some() };
                encode_frame(kind, Status::Ok, &head, &encode_body(&page), out);
            }
            Request::Locate(ids) => {
                let held = |id: &FileId| match self.files.get(id) {
                    None => Holding::None,
                    Some(_) if self.manner == Manner::Half => Holding::Partial(1),
                    Some(_) => Holding::Whole,
                };
                encode_frame(kind, Status::Ok, &(), &encode_body(&ids.iter().map(held).collect::<Vec<_>>()), out);
            }
            Request::Have(since) => {
                let geometry = Geometry::new(since.file.len);
                let mut bits = Bitfield::empty(geometry.chunk_count());
                geometry.chunks().filter(|c| c.get() % 2 == 0).for_each(|c| assert!(bits.insert(c)));
                let delta = Delta::Full { revision: 1, bits: bits.as_bytes().to_vec() };
                encode_frame(kind, Status::Ok, &(), &encode_body(&delta), out);
            }
            Request::Bad(_) => {
                self.bad.fetch_add(1, Ordering::SeqCst);
                encode_frame(kind, Status::Ok, &(), &[], out);
            }
            _ if self.manner == Manner::Stalls => {}
            Request::Layer(_) if self.puts_off() => {
                let problem = Problem { retry_after_ms: 10, reason: String::new() };
                encode_frame(kind, Status::Busy, &problem, &[], out);
            }
            Request::AnyOf(..) | Request::Chunk(_) if self.puts_off() => problem(Status::NotModified, out),
            Request::Peers(Some(_)) if matches!(self.manner, Manner::Crowded(_)) => {
                encode_frame(kind, Status::Ok, &(), &encode_body(&*self.hints.lock().unwrap()), out);
            }
            Request::Layer(range) => {
                let Some(file) = self.files.get(&range.file) else {
                    problem(Status::NotFound, out);
                    return Some(());
                };
                let at = range.first as usize * 32;
                let mut digests = file.layer[at..at + range.count as usize * 32].to_vec();
                if self.manner == Manner::LiesInLists {
                    digests[0] ^= 1;
                }
                encode_frame(kind, Status::Ok, &(), &digests, out);
            }
            Request::AnyOf(Since { file, .. }, chunks) => {
                let chunk = ChunkRef { file, index: *chunks.first()? };
                return self.answer_chunk(Kind::AnyOf, chunk, out);
            }
            Request::Chunk(ChunkAsk { chunk, .. }) => return self.answer_chunk(Kind::Chunk, chunk, out),
            Request::Peers(_) => problem(Status::Unsupported, out),
        }
        Some(())
    }
}
