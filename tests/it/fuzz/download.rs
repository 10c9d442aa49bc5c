//! Target: a download and its conversations, under any answers in any order at any time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gpb::internals::content::{Bitfield, Digest, FileId, Geometry, Root};
use gpb::internals::identity::{NodeId, PeerId};
use gpb::internals::limits::{CHUNK_LEN_MIN, FETCHERS_PER_ANSWER_MAX, UNANSWERED_LEN_MAX, WINDOW_LEN_MAX, WINDOW_MAX};
use gpb::internals::proto::{
    ChunkHeader, ChunkRef, Delta, FRAME_PREFIX_LEN, FramePrefix, Holding, Kind, Problem, Request, Status, encode_body,
};
use gpb::internals::swarm::{
    Answer, AnswerStep, Arrival, ChunkTask, ConnectionTurn, DownloadState, Extent, FileNo, Head, PeerHandle, Requester,
    SmallArrival,
};

use super::input::Input;

/// A download whose peers answer anything. In the end they are gone, one honest peer comes, and with it the download
/// ends well: nothing that came before has left a file, a chunk or a layer to nobody.
pub fn download(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut lab = Lab::new(&mut input);
    for _ in 0..3000 {
        if input.is_empty() {
            break;
        }
        lab.step(&mut input);
        assert!(lab.state.unfinished() <= lab.ids.len());
    }
    lab.end_well();
}

struct Lab {
    ids: Vec<FileId>,
    state: DownloadState<()>,
    peers: Vec<PeerHandle>,
    /// The connections, some of them to the same peer.
    conns: Vec<Option<Conn>>,
    now: Instant,
}

struct Conn {
    peer: PeerHandle,
    requester: Requester<()>,
    /// The requests that are not answered.
    asked: VecDeque<Request>,
}

impl Conn {
    fn new(peer: PeerHandle, locate: bool, now: Instant) -> Self {
        Conn { peer, requester: Requester::new(peer, locate, Duration::from_millis(1), now), asked: VecDeque::new() }
    }
}

/// A connection that broke the rules is over.
struct Ended;

impl Lab {
    fn new(input: &mut Input<'_>) -> Self {
        let lens = (0..1 + input.below(5)).map(|_| match input.byte() {
            // A layer of two parts; rare, as it takes thousands of chunks.
            0xff if input.byte() == 0xff => 8193 * (2 << 20),
            other => {
                [0, 1, 100, CHUNK_LEN_MIN, CHUNK_LEN_MIN + 1, 5 * CHUNK_LEN_MIN, 40 * CHUNK_LEN_MIN][other as usize % 7]
            }
        });
        let ids: Vec<FileId> = (1..).zip(lens).map(|(n, len)| FileId { root: Root(Digest([n; 32])), len }).collect();
        let mut state = DownloadState::new(&ids, input.number());
        let peers: Vec<_> = (0..3).map(|n| state.peer(NodeId::new(PeerId([n; 32]), 1)).unwrap()).collect();
        let now = Instant::now();
        let mut lab = Lab { ids, state, peers, conns: vec![None, None, None, None], now };
        for file in 0..lab.ids.len() as FileNo {
            let how = input.byte();
            for (n, &peer) in lab.peers.iter().enumerate() {
                match how >> (2 * n) & 3 {
                    0 => (),
                    1 => lab.state.set_held(file, peer, Extent::Partial),
                    _ => lab.state.set_held(file, peer, Extent::Whole),
                }
            }
            lab.checked(file, how >= 0xc0);
        }
        lab
    }

    fn checked(&mut self, file: FileNo, here: bool) {
        self.state.checked(file, here);
        if !here && self.ids[file as usize].len == 0 {
            self.state.small_written(file);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let at = (what >> 6) as usize;
        if matches!(what & 15, 0..=11) && self.conns[at].is_none() {
            let peer = self.peers[input.below(self.peers.len())];
            let locate = input.flag();
            if input.flag() {
                self.state.grows(peer, self.now);
            }
            self.conns[at] = Some(Conn::new(peer, locate, self.now));
            return;
        }
        match what & 15 {
            0..=2 => {
                let is_surplus = input.byte() == 0xff;
                self.turn(at, is_surplus);
            }
            3..=10 => {
                let Some(mut conn) = self.conns[at].take() else { return };
                match self.answer(&mut conn, input) {
                    Ok(()) => self.conns[at] = Some(conn),
                    Err(Ended) => self.end(conn),
                }
            }
            11 => {
                if let Some(conn) = self.conns[at].take() {
                    self.end(conn);
                }
            }
            12 | 13 => {
                self.now += Duration::from_millis(input.number() % 20_000);
                let now = self.now;
                self.conns.iter_mut().flatten().for_each(|conn| conn.requester.resume(now));
            }
            14 => {
                let (file, peer) = (input.below(self.ids.len()) as FileNo, self.peers[input.below(self.peers.len())]);
                match input.byte() % 4 {
                    0 => self.state.set_held(file, peer, Extent::Whole),
                    1 => self.state.set_held(file, peer, Extent::Partial),
                    2 => self.state.not_held(file, peer),
                    _ => self.state.named(file, peer),
                }
            }
            _ => {
                let peer = self.peers[input.below(self.peers.len())];
                assert!(self.state.backlog(peer) < 1 << 50 && self.state.useful(peer) as usize <= self.ids.len());
            }
        }
    }

    /// Asks for more. What is asked is well-formed and within its bounds.
    fn turn(&mut self, at: usize, is_surplus: bool) -> Option<ConnectionTurn> {
        let conn = self.conns[at].as_mut()?;
        let turn = conn.requester.turn(&mut self.state, is_surplus, self.now);
        let mut sent = Vec::new();
        let sending = conn.requester.send(|frames| {
            sent.extend_from_slice(frames);
            Ok::<(), ()>(())
        });
        assert!(sending.is_ok() && sent.len() <= UNANSWERED_LEN_MAX);
        let mut rest = sent.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<FRAME_PREFIX_LEN>() {
            let prefix = FramePrefix::from_bytes(*prefix).check_request().expect("within its bounds");
            let (header, after) = after.split_at(prefix.header_len as usize);
            let (body, after) = after.split_at(prefix.body_len as usize);
            conn.asked.push_back(Request::decode(prefix.kind, header, body).expect("well formed"));
            rest = after;
        }
        assert!(rest.is_empty() && conn.requester.pending() <= 2 * WINDOW_MAX as usize);
        assert!(conn.requester.excess() <= WINDOW_LEN_MAX + (64 << 20));
        Some(turn)
    }

    /// An answer to what the connection asked first, within the bounds that its reader checks.
    fn answer(&mut self, conn: &mut Conn, input: &mut Input<'_>) -> Result<(), Ended> {
        let Some((kind, body_max)) = conn.requester.expects() else {
            let head = Head { status: Status::Ok, header: &[], body_len: 0 };
            assert!(conn.requester.on_head(&mut self.state, head, self.now).is_err(), "nothing was asked");
            return Ok(());
        };
        // The rest of a layer may be asked for and not sent yet: no peer answers that.
        if conn.asked.is_empty() {
            return Ok(());
        }
        let how = input.byte();
        let status = if how < 0xd0 { Status::Ok } else { Status::from_u8(how & 7).unwrap() };
        let body = self.body(kind, body_max, input);
        let body_len = match (status, kind) {
            (Status::Ok, Kind::Chunk | Kind::AnyOf | Kind::Layer) if how < 0xc0 => match conn.asked.front() {
                Some(Request::AnyOf(since, chunks)) => chunk_len(since.file, chunks[how as usize % chunks.len()]) + 1,
                _ => body_max as u32,
            },
            (Status::Ok, _) => body.len().min(body_max) as u32,
            _ => 0,
        };
        let asked = conn.asked.pop_front().expect("sent before it is answered");
        assert_eq!(asked.kind(), kind);
        let header = match status {
            Status::Ok if how & 3 == 0 => self.chunk_header(input),
            Status::Ok if how & 3 == 1 => chosen_of(&asked, input.byte()),
            Status::Ok => input.slice(400).to_vec(),
            _ => encode_body(&Problem { retry_after_ms: input.number() as u32, reason: input.text(20) }),
        };
        let head = Head { status, header: &header, body_len };
        match conn.requester.on_head(&mut self.state, head, self.now).map_err(|_| Ended)? {
            AnswerStep::Chunk(task) => self.chunk(conn, &task, input),
            AnswerStep::Small(task) => {
                conn.requester.on_bytes(u64::from(task.len), self.now);
                let trailer = if input.byte() < 0xe0 { Request::GOOD } else { input.byte() };
                conn.requester.on_trailer(&mut self.state, trailer, self.now);
                self.roots(conn, |id| if input.byte() < 0xe0 { id.root.0 } else { Digest([0xee; 32]) })
            }
            AnswerStep::Layer { len, .. } => {
                let good = input.byte() < 0xe0;
                let mut layer = vec![u8::from(good); len as usize];
                layer.iter_mut().zip(input.slice(40)).filter(|_| !good).for_each(|(to, from)| *to = *from);
                self.layer(conn, &layer);
                Ok(())
            }
            AnswerStep::Body(len) => self.take(conn, &body[..len as usize]),
            AnswerStep::Settled | AnswerStep::Deferred | AnswerStep::NotHeld(_) => Ok(()),
            AnswerStep::Refused => Err(Ended),
        }
    }

    /// A short body as its kind has it, or anything.
    fn body(&self, kind: Kind, body_max: usize, input: &mut Input<'_>) -> Vec<u8> {
        let mut body = match kind {
            Kind::Chunk | Kind::AnyOf | Kind::Layer => return vec![0; input.number() as usize % (body_max + 1)],
            Kind::Locate if input.flag() => {
                let one = |n: u64| match n % 3 {
                    0 => Holding::None,
                    1 => Holding::Whole,
                    _ => Holding::Partial(n as u32),
                };
                encode_body(&(0..input.below(9)).map(|_| one(input.number())).collect::<Vec<_>>())
            }
            Kind::Have if input.flag() => encode_body(&delta(input)),
            _ => input.slice(2000).to_vec(),
        };
        body.truncate(body_max);
        body
    }

    fn chunk_header(&self, input: &mut Input<'_>) -> Vec<u8> {
        let file = self.ids[input.below(self.ids.len())];
        let chunk = ChunkRef { file, index: input.number() as u32 };
        encode_body(&ChunkHeader { chunk, new_haves: input.flag().then(|| delta(input)) })
    }

    fn chunk(&mut self, conn: &mut Conn, task: &ChunkTask<()>, input: &mut Input<'_>) -> Result<(), Ended> {
        let came = if input.byte() < 0xf0 { task.len } else { task.len / 2 };
        conn.requester.on_bytes(came.into(), self.now);
        if came < task.len {
            return Err(Ended);
        }
        let trailer = if input.byte() < 0xe0 { Request::GOOD } else { input.byte() };
        if conn.requester.on_trailer(&mut self.state, trailer, self.now) == Arrival::Verify {
            if input.byte() >= 0xe0 {
                return Err(Ended);
            }
            self.came(conn, task.file);
        }
        Ok(())
    }

    fn came(&mut self, conn: &mut Conn, file: FileNo) {
        if conn.requester.on_chunk(&mut self.state, self.now).whole {
            self.state.finished(file);
        }
    }

    /// The one-chunk files that came are hashed, and these are their roots.
    fn roots(&mut self, conn: &mut Conn, mut root: impl FnMut(FileId) -> Digest) -> Result<(), Ended> {
        // Only the requester knows which file it is: the wrong root is a lie, and the files are small.
        let hashed: Vec<Digest> = self.ids.iter().map(|id| root(*id)).collect();
        for (n, digest) in hashed.iter().enumerate() {
            for (task, arrival) in conn.requester.on_roots(&mut self.state, &[*digest], self.now) {
                match arrival {
                    SmallArrival::Fresh => self.state.small_written(task.file),
                    SmallArrival::Surplus => (),
                    SmallArrival::Bad => return Err(Ended),
                }
            }
            assert!(n < self.ids.len());
        }
        Ok(())
    }

    fn take(&mut self, conn: &mut Conn, body: &[u8]) -> Result<(), Ended> {
        let body = conn.requester.read_body(body).map_err(|_| Ended)?;
        match conn.requester.on_body(&mut self.state, body) {
            Answer::Peers { hints, .. } => assert!(hints.len() <= FETCHERS_PER_ANSWER_MAX),
            Answer::Done | Answer::Located | Answer::Layer { .. } => (),
        }
        Ok(())
    }

    /// Part of a layer came; only one of ones is right.
    fn layer(&mut self, conn: &mut Conn, part: &[u8]) {
        conn.requester.add_layer_part(part);
        let Answer::Layer { file, digests } = conn.requester.on_layer_part(&mut self.state, self.now) else { return };
        let count = Geometry::new(self.ids[file as usize].len).chunk_count();
        assert_eq!(digests.len(), count as usize);
        if digests.iter().all(|d| d.0 == [1; 32]) {
            let none = Bitfield::empty(count);
            assert!(!self.state.opened(file, (), &none, &none));
        } else {
            self.state.layer_was_wrong(file);
        }
    }

    /// A connection ends; its peer is one of liars or of luckless ones.
    fn end(&mut self, mut conn: Conn) {
        conn.requester.end(&mut self.state);
        assert_eq!(conn.requester.pending(), 0);
        for file in 0..self.ids.len() as FileNo {
            self.state.not_held(file, conn.peer);
        }
    }

    fn end_well(mut self) {
        for conn in self.conns.iter_mut().filter_map(Option::take).collect::<Vec<_>>() {
            self.end(conn);
        }
        let honest = self.state.peer(NodeId::new(PeerId([99; 32]), 1)).unwrap();
        for file in 0..self.ids.len() as FileNo {
            self.peers.iter().for_each(|&peer| self.state.not_held(file, peer));
            self.state.set_held(file, honest, Extent::Whole);
        }
        self.conns[0] = Some(Conn::new(honest, false, self.now));
        let mut waits = 0;
        while self.state.unfinished() > 0 {
            match self.turn(0, false) {
                Some(ConnectionTurn::Receive) => {
                    let mut conn = self.conns[0].take().unwrap();
                    assert!(self.honest_answer(&mut conn).is_ok(), "an honest answer is taken");
                    self.conns[0] = Some(conn);
                }
                _ => {
                    waits += 1;
                    let left: Vec<_> = self.state.pending().collect();
                    assert!(waits < 2000, "stuck with {left:?}");
                    self.now += Duration::from_millis(100);
                    self.conns[0].as_mut().unwrap().requester.resume(self.now);
                }
            }
        }
        assert!(self.state.holders().is_empty() && !self.state.disk_is_busy());
    }

    fn honest_answer(&mut self, conn: &mut Conn) -> Result<(), Ended> {
        let (kind, len) = conn.requester.expects().unwrap();
        let asked = conn.asked.pop_front().unwrap();
        let (status, body_len) = match (kind, &asked) {
            (Kind::Chunk | Kind::Layer, _) => (Status::Ok, len as u32),
            (_, Request::AnyOf(since, chunks)) => (Status::Ok, chunk_len(since.file, chunks[0]) + 1),
            _ => (Status::NotFound, 0),
        };
        let header = chosen_of(&asked, 0);
        let head = Head { status, header: &header, body_len };
        match conn.requester.on_head(&mut self.state, head, self.now).map_err(|_| Ended)? {
            AnswerStep::Chunk(task) => {
                conn.requester.on_bytes(task.len.into(), self.now);
                if conn.requester.on_trailer(&mut self.state, Request::GOOD, self.now) == Arrival::Verify {
                    self.came(conn, task.file);
                }
                Ok(())
            }
            AnswerStep::Small(task) => {
                conn.requester.on_bytes(task.len.into(), self.now);
                conn.requester.on_trailer(&mut self.state, Request::GOOD, self.now);
                for (task, arrival) in conn.requester.on_roots(&mut self.state, &[task.id.root.0], self.now) {
                    match arrival {
                        SmallArrival::Fresh => self.state.small_written(task.file),
                        SmallArrival::Surplus => (),
                        SmallArrival::Bad => return Err(Ended),
                    }
                }
                Ok(())
            }
            AnswerStep::Layer { len, .. } => {
                self.layer(conn, &vec![1; len as usize]);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The head of a chunk that was asked for; of several, the one with that number.
fn chosen_of(asked: &Request, which: u8) -> Vec<u8> {
    match asked {
        Request::AnyOf(since, chunks) => {
            let chunk = ChunkRef { file: since.file, index: chunks[which as usize % chunks.len()] };
            encode_body(&ChunkHeader { chunk, new_haves: None })
        }
        Request::Chunk(ask) => encode_body(&ChunkHeader { chunk: ask.chunk, new_haves: None }),
        _ => vec![],
    }
}

fn chunk_len(file: FileId, chunk: u32) -> u32 {
    let geometry = Geometry::new(file.len);
    geometry.span(geometry.chunk(chunk).expect("asked for")).len
}

fn delta(input: &mut Input<'_>) -> Delta {
    match input.byte() % 3 {
        0 => Delta::Whole,
        1 => Delta::Full { revision: input.number(), bits: input.slice(2000).to_vec() },
        _ => {
            let chunks = (0..input.below(300)).map(|_| input.number() as u32).collect();
            Delta::New { revision: input.number(), chunks }
        }
    }
}
