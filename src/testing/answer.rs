//! The answers of a faulty peer: what an honest one would say, and what its faults make of that.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::content::{Bitfield, FileId, Geometry, Pattern};
use crate::limits::WIRE_VERSION;
use crate::net::Tls;
use crate::proto::{
    ChunkAsk, ChunkHeader, ChunkRef, Delta, FramePrefix, Holding, Kind, LayerRange, ListFrom, Listed, PageHead,
    PeerHint, Problem, Request, Since, Status, Welcome, encode_body, encode_frame,
};
use crate::sync::lock;
use crate::testing::fault::Fault;
use crate::testing::file::TestFile;
use crate::testing::wire::Wire;

/// What the connections of one faulty peer have in common.
pub(super) struct FaultyServer {
    pub(super) tls: Tls,
    pub(super) faults: Vec<Fault>,
    pub(super) instance: u64,
    pub(super) files: BTreeMap<FileId, TestFile>,
    /// Sorted by path.
    pub(super) listed: Vec<Listed>,
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
    pub(super) reported_bad: AtomicU64,
}

/// Entries in one page of a listing.
const PAGE_LEN: usize = 2000;

impl FaultyServer {
    /// Answers one connection until it ends.
    pub(super) fn serve(&self, mut socket: TcpStream) -> Option<()> {
        if self.has(Fault::Deaf) {
            while socket.read(&mut [0; 1024]).ok()? > 0 {}
            return None;
        }
        let mut wire = Wire::accept(socket, &self.tls)?;
        loop {
            let request = wire.receive()?;
            let drips = match request {
                Request::Layer(_) => self.has(Fault::DripLayers),
                Request::Chunk(_) | Request::AnyOf(..) => self.has(Fault::DripChunks),
                _ => false,
            };
            let mut frame = Vec::new();
            self.answer(request, &mut frame)?;
            if drips {
                drip(&mut wire, &frame)?;
            } else {
                wire.send(&frame)?;
            }
        }
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
    fn answer(&self, request: Request, out: &mut Vec<u8>) -> Option<()> {
        let kind = request.kind();
        match request {
            Request::Hello(_) if self.has(Fault::Refuse) => problem(kind, Status::Refused, out),
            Request::Hello(_) => self.welcome(out),
            _ if self.has(Fault::Mute) => {}
            Request::List(from) => self.list(&from, out)?,
            Request::Locate(ids) => {
                let held = |id: &FileId| match self.files.get(id) {
                    None => Holding::None,
                    Some(_) if self.has(Fault::HalfHeld) => Holding::Partial(1),
                    Some(_) => Holding::Whole,
                };
                encode_frame(kind, Status::Ok, &(), &encode_body(&ids.iter().map(held).collect::<Vec<_>>()), out);
            }
            Request::Have(since) => {
                let geometry = Geometry::new(since.file.len);
                let mut bits = Bitfield::empty(geometry.chunk_count());
                for chunk in geometry.chunks().filter(|c| c.get() % 2 == 0) {
                    bits.insert(chunk);
                }
                let delta = Delta::Full { revision: 1, bits: bits.as_bytes().to_vec() };
                encode_frame(kind, Status::Ok, &(), &encode_body(&delta), out);
            }
            Request::Bad(_) => {
                self.counts.reported_bad.fetch_add(1, Ordering::SeqCst);
                encode_frame(kind, Status::Ok, &(), &[], out);
            }
            _ if self.has(Fault::Stall) => {}
            Request::Layer(_) if self.defers() => {
                let problem = Problem { retry_after_ms: 10, reason: String::new() };
                encode_frame(kind, Status::Busy, &problem, &[], out);
            }
            Request::AnyOf(..) | Request::Chunk(_) if self.defers() => problem(kind, Status::NotModified, out),
            Request::Peers(Some(_)) if self.busy().is_some() => {
                encode_frame(kind, Status::Ok, &(), &encode_body(&*lock(&self.hints)), out);
            }
            Request::Peers(_) => problem(kind, Status::Unsupported, out),
            Request::Layer(range) => self.layer(&range, out)?,
            Request::AnyOf(Since { file, .. }, chunks) => {
                return self.chunk(kind, ChunkRef { file, index: *chunks.first()? }, out);
            }
            Request::Chunk(ChunkAsk { chunk, .. }) => return self.chunk(kind, chunk, out),
        }
        Some(())
    }

    fn welcome(&self, out: &mut Vec<u8>) {
        let welcome = Welcome {
            version: WIRE_VERSION,
            instance: self.instance,
            revision: 1,
            files: self.listed.len() as u64,
            bytes: self.listed.iter().map(|l| l.id.len).sum(),
            announce: lock(&self.announce).clone(),
            agent: "gpb-testing".into(),
        };
        encode_frame(Kind::Hello, Status::Ok, &welcome, &[], out);
    }

    fn list(&self, from: &ListFrom, out: &mut Vec<u8>) -> Option<()> {
        let pattern = match from.pattern.as_str() {
            "" => None,
            text => Some(Pattern::parse(text).ok()?),
        };
        let meant = |l: &&Listed| {
            l.path.as_str() > from.after.as_str() && pattern.as_ref().is_none_or(|p| p.matches(l.path.as_str(), &l.id))
        };
        let mut rest = self.listed.iter().filter(meant);
        let page: Vec<&Listed> = rest.by_ref().take(PAGE_LEN).collect();
        let head = PageHead { revision: 1, more: rest.next().is_some() };
        encode_frame(Kind::List, Status::Ok, &head, &encode_body(&page), out);
        Some(())
    }

    fn layer(&self, range: &LayerRange, out: &mut Vec<u8>) -> Option<()> {
        let Some(file) = self.files.get(&range.file) else {
            problem(Kind::Layer, Status::NotFound, out);
            return Some(());
        };
        let at = range.first as usize * 32;
        let mut digests = file.layer.get(at..at + range.count as usize * 32)?.to_vec();
        if self.has(Fault::WrongLayers) {
            flip(&mut digests);
        }
        encode_frame(Kind::Layer, Status::Ok, &(), &digests, out);
        Some(())
    }

    fn chunk(&self, kind: Kind, chunk: ChunkRef, out: &mut Vec<u8>) -> Option<()> {
        let nth = self.counts.chunks.fetch_add(1, Ordering::SeqCst);
        for fault in &self.faults {
            match fault {
                Fault::CutAfter(count) if nth >= *count => {
                    self.cut();
                    return None;
                }
                Fault::Delay(time) => std::thread::sleep(*time),
                _ => {}
            }
        }
        let Some(file) = self.files.get(&chunk.file) else {
            problem(kind, Status::NotFound, out);
            return Some(());
        };
        let geometry = Geometry::new(file.id.len);
        let span = geometry.span(geometry.chunk(chunk.index)?);
        let at = span.offset as usize;
        let mut body = file.bytes.get(at..at + span.len as usize)?.to_vec();
        if self.has(Fault::WrongChunks) {
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
        Some(())
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
        self.counts.deferred.fetch_add(1, Ordering::SeqCst) % (times + 1) < times
    }
}

/// Sends all but the body of `frame` at once, and then a byte a second.
fn drip(wire: &mut Wire, frame: &[u8]) -> Option<()> {
    let prefix = FramePrefix::from_bytes(*frame.first_chunk()?);
    let (head, body) = frame.split_at(frame.len() - prefix.body_len as usize);
    wire.send(head)?;
    body.chunks(1).try_for_each(|byte| {
        std::thread::sleep(Duration::from_secs(1));
        wire.send(byte)
    })
}

fn problem(kind: Kind, status: Status, out: &mut Vec<u8>) {
    encode_frame(kind, status, &Problem::default(), &[], out);
}

fn flip(bytes: &mut [u8]) {
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
}
