//! The answers of a faulty peer: what an honest one would say, and what its faults make of that.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::content::{Bitfield, FileId, Geometry};
use crate::limits::WIRE_VERSION;
use crate::net::{Tls, TurnedEnd};
use crate::proto::{
    ChunkAsk, ChunkHeader, ChunkRef, Delta, FramePrefix, Holding, Kind, LayerRange, PeerHint, Problem, Request, Since,
    Status, Welcome, encode_body, encode_frame,
};
use crate::sync::lock;
use crate::testing::announces::made_up_peer;
use crate::testing::delivery::Delivery;
use crate::testing::dice::hits;
use crate::testing::fault::Fault;
use crate::testing::file::TestFile;
use crate::testing::listing::FaultyListing;
use crate::testing::wire::Wire;

/// What the connections of one faulty peer have in common.
pub(super) struct FaultyServer {
    pub(super) tls: Tls,
    pub(super) faults: Vec<Fault>,
    pub(super) instance: u64,
    /// Its files, by the identity under which it holds them.
    pub(super) files: BTreeMap<FileId, TestFile>,
    pub(super) listing: FaultyListing,
    /// The announce in `Welcome`.
    pub(super) announce: Mutex<Vec<u8>>,
    /// The other peers that it names.
    pub(super) hints: Mutex<Vec<PeerHint>>,
    pub(super) is_dead: AtomicBool,
    pub(super) sockets: Mutex<Vec<TcpStream>>,
    pub(super) counts: Counts,
}

/// What a faulty peer counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    /// Requests for chunks that were not deferred.
    pub(super) chunks: AtomicU64,
    pub(super) deferred: AtomicU64,
    /// `Hello`s that were answered with `Busy`.
    pub(super) turned_away: AtomicU64,
    pub(super) reported_bad: AtomicU64,
    /// Bytes sent, TLS included.
    pub(super) sent: AtomicU64,
}

impl FaultyServer {
    /// Answers the `nth` connection until it ends.
    pub(super) fn serve(&self, mut socket: TcpStream, nth: u64) -> Option<()> {
        if self.has(Fault::Deaf) {
            while socket.read(&mut [0; 1024]).ok()? > 0 {}
            return None;
        }
        let end_after = |fault: &Fault| match *fault {
            Fault::EndAfter { bytes, sessions } if nth < sessions => Some(bytes),
            _ => None,
        };
        let left = self.faults.iter().find_map(end_after).unwrap_or(u64::MAX);
        if left == 0 {
            return None;
        }
        self.answer_all(Wire::accept(socket, &self.tls, left, &self.counts.sent)?)
    }

    /// Answers on a connection that this peer opened, and offered to answer on.
    pub(super) fn serve_turned(&self, end: TurnedEnd) -> Option<()> {
        self.answer_all(Wire::turned(end, &self.counts.sent)?)
    }

    fn answer_all(&self, mut wire: Wire<'_>) -> Option<()> {
        let mut next = None;
        loop {
            let request = match next.take() {
                Some(request) => request,
                None => wire.receive()?,
            };
            if self.has(Fault::LateWelcome) && matches!(request, Request::Hello(_)) {
                next = Some(wire.receive()?);
            }
            let manner = self.manner(&request);
            let mut frame = Vec::new();
            let mut delivery = self.answer(request, &mut frame)?;
            let has_body = frame.first_chunk().is_some_and(|&prefix| FramePrefix::from_bytes(prefix).body_len > 0);
            if delivery == Delivery::Whole && (has_body || manner != Delivery::Half) {
                delivery = manner;
            }
            delivery.send(&mut wire, &frame)?;
        }
    }

    /// How a good answer to `request` goes out.
    fn manner(&self, request: &Request) -> Delivery {
        if matches!(request, Request::Hello(_)) {
            return Delivery::Whole;
        }
        let is_list = matches!(request, Request::List(_));
        let is_layer = matches!(request, Request::Layer(_));
        let is_chunk = matches!(request, Request::Chunk(_) | Request::AnyOf(..));
        let manner = |fault: &Fault| match *fault {
            Fault::DripLayers if is_layer => Some(Delivery::DripBody),
            Fault::DripChunks if is_chunk => Some(Delivery::DripBody),
            Fault::DripLists if is_list => Some(Delivery::DripBody),
            Fault::DripAll => Some(Delivery::Drip),
            Fault::SlowChunks(len) if is_chunk => Some(Delivery::Steps(len)),
            Fault::HalfFrames if is_layer || is_chunk => Some(Delivery::Half),
            Fault::Twice => Some(Delivery::Twice),
            Fault::Garbage(seed) => Some(Delivery::Garbage { seed }),
            _ => None,
        };
        self.faults.iter().find_map(manner).unwrap_or(Delivery::Whole)
    }

    /// Cuts all connections; new ones are closed at once.
    pub(super) fn cut(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        for socket in lock(&self.sockets).drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Puts the answer into `out`; nothing where a fault keeps it back.
    fn answer(&self, request: Request, out: &mut Vec<u8>) -> Option<Delivery> {
        let kind = request.kind();
        match request {
            Request::Hello(_) if self.has(Fault::Refuse) => return Some(self.problem(kind, Status::Refused, out)),
            Request::Hello(_) if self.turns_away() => return Some(self.busy_for(kind, out)),
            Request::Hello(_) => return Some(self.welcome(out)),
            _ if self.has(Fault::Mute) => {}
            Request::List(from) => {
                self.faults.iter().for_each(|fault| {
                    if let Fault::SlowLists(time) = fault {
                        std::thread::sleep(*time);
                    }
                });
                self.listing.page(&from, out)?;
            }
            Request::Locate(ids) => {
                let holdings: Vec<Holding> = ids.iter().map(|id| self.holding(id)).collect();
                encode_frame(kind, Status::Ok, &(), &encode_body(&holdings), out);
            }
            Request::Have(since) => return Some(self.have(since, out)),
            Request::Bad(_) => {
                self.counts.reported_bad.fetch_add(1, Ordering::SeqCst);
                encode_frame(kind, Status::Ok, &(), &[], out);
            }
            _ if self.has(Fault::Stall) => {}
            Request::Layer(_) if self.defers() => return Some(self.busy_for(kind, out)),
            Request::AnyOf(..) | Request::Chunk(_) if self.defers() => {
                return Some(self.problem(kind, Status::NotModified, out));
            }
            Request::Layer(_) | Request::AnyOf(..) | Request::Chunk(_) if self.has(Fault::Empty) => {
                return Some(self.problem(kind, Status::NotFound, out));
            }
            Request::Peers(file) => return Some(self.peers(file, out)),
            Request::Turn => return Some(self.problem(kind, Status::Unsupported, out)),
            Request::Reach => return Some(self.problem(kind, Status::Unsupported, out)),
            Request::Layer(range) => return self.layer(&range, out),
            Request::AnyOf(Since { file, .. }, chunks) => {
                return self.chunk(kind, ChunkRef { file, index: *chunks.first()? }, out);
            }
            Request::Chunk(ChunkAsk { chunk, .. }) => return self.chunk(kind, chunk, out),
        }
        Some(Delivery::Whole)
    }

    fn welcome(&self, out: &mut Vec<u8>) -> Delivery {
        let welcome = Welcome {
            version: WIRE_VERSION,
            instance: self.instance,
            revision: 1,
            files: self.files.len() as u64,
            bytes: self.files.keys().map(|id| id.len).sum(),
            announce: lock(&self.announce).clone(),
            agent: "gpb-testing".into(),
        };
        encode_frame(Kind::Hello, Status::Ok, &welcome, &[], out);
        self.fat().map_or(Delivery::Whole, Delivery::Fat)
    }

    fn holding(&self, id: &FileId) -> Holding {
        match self.files.get(id) {
            None => Holding::None,
            Some(_) if self.has(Fault::HalfHeld) => Holding::Partial(1),
            Some(_) => Holding::Whole,
        }
    }

    fn have(&self, since: Since, out: &mut Vec<u8>) -> Delivery {
        let geometry = Geometry::new(since.file.len);
        let mut bits = Bitfield::empty(geometry.chunk_count());
        for chunk in geometry.chunks().filter(|c| c.get() % 2 == 0) {
            bits.insert(chunk);
        }
        let delta = Delta::Full { revision: 1, bits: bits.as_bytes().to_vec() };
        encode_frame(Kind::Have, Status::Ok, &(), &encode_body(&delta), out);
        self.fat().map_or(Delivery::Whole, Delivery::Fat)
    }

    fn peers(&self, file: Option<FileId>, out: &mut Vec<u8>) -> Delivery {
        if self.has(Fault::MadeUpPeers) {
            let hints: Vec<PeerHint> = (0..HINTS).map(|_| made_up_peer()).collect();
            encode_frame(Kind::Peers, Status::Ok, &(), &encode_body(&hints), out);
            return Delivery::Whole;
        }
        if file.is_some() && self.busy().is_some() {
            encode_frame(Kind::Peers, Status::Ok, &(), &encode_body(&*lock(&self.hints)), out);
            return Delivery::Whole;
        }
        self.problem(Kind::Peers, Status::Unsupported, out)
    }

    fn layer(&self, range: &LayerRange, out: &mut Vec<u8>) -> Option<Delivery> {
        let Some(file) = self.files.get(&range.file) else {
            return Some(self.problem(Kind::Layer, Status::NotFound, out));
        };
        let at = range.first as usize * 32;
        // Of a file whose length is a lie, the layer may be longer than the true one.
        let mut digests = file.layer.get(at..)?.to_vec();
        digests.resize(range.count as usize * 32, 0);
        if self.has(Fault::WrongLayers) {
            flip(&mut digests);
        }
        if self.has(Fault::ShortLayers) {
            digests.truncate(digests.len().saturating_sub(32));
        }
        encode_frame(Kind::Layer, Status::Ok, &(), &digests, out);
        Some(Delivery::Whole)
    }

    fn chunk(&self, kind: Kind, chunk: ChunkRef, out: &mut Vec<u8>) -> Option<Delivery> {
        let nth = self.counts.chunks.fetch_add(1, Ordering::SeqCst);
        let (mut wrong, mut delivery) = (self.has(Fault::WrongChunks), Delivery::Whole);
        for fault in &self.faults {
            match *fault {
                Fault::CutAfter(count) if nth >= count => {
                    self.cut();
                    return None;
                }
                Fault::Delay(time) => std::thread::sleep(time),
                Fault::WrongSome { percent, seed } => wrong |= hits(percent, seed, nth),
                Fault::CutSome { percent, seed } if hits(percent, seed, nth) => delivery = Delivery::HalfAndEnd,
                Fault::StallSome { percent, seed } if hits(percent, seed, nth) => return Some(Delivery::Never),
                _ => {}
            }
        }
        let Some(file) = self.files.get(&chunk.file) else {
            return Some(self.problem(kind, Status::NotFound, out));
        };
        let geometry = Geometry::new(chunk.file.len);
        let other = (chunk.index + 1) % geometry.chunk_count();
        let sent = if self.has(Fault::OtherChunks) { other } else { chunk.index };
        let (span, wanted) = (geometry.span(geometry.chunk(sent)?), geometry.span(geometry.chunk(chunk.index)?));
        let at = span.offset as usize;
        let mut body = file.bytes.get(at..(at + span.len as usize).min(file.bytes.len()))?.to_vec();
        body.resize(wanted.len as usize, 0);
        if wrong {
            flip(&mut body);
        }
        if self.has(Fault::ShortChunks) {
            body.pop();
        }
        if self.has(Fault::LongChunks) {
            body.push(0);
        }
        body.push(if self.has(Fault::ChangingChunks) { Request::GONE } else { Request::GOOD });
        encode_frame(kind, Status::Ok, &ChunkHeader { chunk, new_haves: None }, &body, out);
        Some(delivery)
    }

    /// A status other than `Ok`.
    fn problem(&self, kind: Kind, status: Status, out: &mut Vec<u8>) -> Delivery {
        encode_frame(kind, status, &Problem::default(), &[], out);
        self.fat().map_or(Delivery::Whole, Delivery::Fat)
    }

    fn busy_for(&self, kind: Kind, out: &mut Vec<u8>) -> Delivery {
        let problem = Problem { retry_after_ms: 10, reason: String::new() };
        encode_frame(kind, Status::Busy, &problem, &[], out);
        self.fat().map_or(Delivery::Whole, Delivery::Fat)
    }

    fn fat(&self) -> Option<u32> {
        self.faults.iter().find_map(|fault| if let Fault::FatAnswers(len) = *fault { Some(len) } else { None })
    }

    /// Whether this `Hello` is answered with `Busy`: all but each `times + 1`st.
    fn turns_away(&self) -> bool {
        let full = |fault: &Fault| if let Fault::Full(times) = *fault { Some(times) } else { None };
        let Some(times) = self.faults.iter().find_map(full) else { return false };
        is_put_off(self.counts.turned_away.fetch_add(1, Ordering::SeqCst), times)
    }

    fn busy(&self) -> Option<u64> {
        self.faults.iter().find_map(|f| match f {
            Fault::Busy(times) => Some(*times),
            _ => None,
        })
    }

    /// Whether this request is deferred: all but each `times + 1`st.
    fn defers(&self) -> bool {
        let Some(times) = self.busy() else { return false };
        is_put_off(self.counts.deferred.fetch_add(1, Ordering::SeqCst), times)
    }
}

/// Whether the `nth` request is one of `times` that are put off, before one that is not.
fn is_put_off(nth: u64, times: u64) -> bool {
    nth.checked_rem(times.saturating_add(1)).is_none_or(|at| at < times)
}

fn flip(bytes: &mut [u8]) {
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
}

/// Peers that an answer makes up.
const HINTS: usize = 16;
