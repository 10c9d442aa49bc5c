//! A request becomes an answer. No sockets and no TLS here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::content::{ChunkIndex, Geometry, Pattern};
use crate::identity::NodeId;
use crate::identity::PeerId;
use crate::limits::{
    BAD_REPORTS_PER_MIN, FETCHERS_PER_ANSWER_MAX, LAYER_DIGESTS_PER_ANSWER_MAX, NEW_HAVES_MAX, SERVED_REMEMBERED,
    WIRE_VERSION,
};
use crate::peers::{Directory, Presence};
use crate::proto::{
    ChunkAsk, ChunkHeader, ChunkRef, FRAME_PREFIX_LEN, FramePrefix, Hello, Holding, Kind, LayerRange, ListFrom,
    MessageError, Problem, Request, Since, Status, Welcome, encode_body, encode_frame, encode_head,
};
use crate::runtime::LimitedLog;
use crate::runtime::keystore::Trust;
use crate::server::body::Body;
use crate::server::content::{Absent, Content, Held};
use crate::server::limits::{BUSY_RETRY, LIST_RETRY, LISTS_PER_KEY_MAX};
use crate::server::listing::Listing;
use crate::server::seats::{Key, Seat, Seats};
use crate::swarm::{Fetchers, Sent, Upload, Uploads};

/// What all sessions of a server answer from.
pub(crate) struct Handler {
    pub(crate) content: Arc<dyn Content>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) sent: Mutex<Sent>,
    /// Lists of digests that are under way. A thousand peers that begin together all want the same list before anything
    /// else: a few get it at once and pass it on, the others ask again, or them.
    pub(crate) lists: Mutex<Uploads<Key>>,
    pub(crate) fetchers: Mutex<Fetchers>,
    /// Log lines about sessions, which anybody in an open group can cause.
    pub(crate) noise: LimitedLog,
}

/// What is known of the one who asks on a session.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) peer: PeerId,
    pub(crate) addr: SocketAddr,
    /// Taken by `Hello`; without it every other request is refused.
    pub(crate) seat: Option<Seat>,
    /// Set by `Hello`: random per start of the asker.
    instance: u64,
    /// Set by a `Hello` with an announce: others hear of the asker as long as it is here.
    presence: Option<Presence>,
    pub(crate) agent: String,
    /// The chunks sent last, which may be reported as bad.
    served: VecDeque<ChunkRef>,
    /// Reports since when, and how many.
    bad_reports: (Option<Instant>, u32),
}

/// What follows the head of an answer.
pub(crate) enum Next {
    /// Nothing.
    Done,
    /// A body.
    Body(Body),
    /// A list of digests, which counts as under way until [`Handler::end_list`].
    List(Body, Upload),
    /// Nothing of the answer is there yet: its page must be made.
    Listing(Box<Listing>),
    /// The session ends, for this reason.
    Close(Refusal),
}

/// Why a session is ended with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Untrusted,
    OtherNetwork,
    NoHello,
    Version,
    Full,
}

impl Asker {
    pub(crate) fn new(peer: PeerId, addr: SocketAddr) -> Self {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Asker {
            peer,
            addr,
            seat: None,
            instance: 0,
            presence: None,
            agent: String::new(),
            served: VecDeque::new(),
            bad_reports: (None, 0),
        }
    }

    fn served(&mut self, chunk: ChunkRef) {
        if self.served.len() == SERVED_REMEMBERED {
            self.served.pop_front();
        }
        self.served.push_back(chunk);
    }

    /// Whether one more `Bad` may be looked into.
    fn may_report(&mut self, now: Instant) -> bool {
        let (began, count) = &mut self.bad_reports;
        if began.is_none_or(|b| now.saturating_duration_since(b) >= MINUTE) {
            (*began, *count) = (Some(now), 0);
        }
        *count += 1;
        *count <= BAD_REPORTS_PER_MIN
    }
}

impl Handler {
    /// Answers one request: appends the head of the answer, and its body if that is small, to `out`.
    ///
    /// # Errors
    /// The request is malformed; the session ends without an answer.
    pub(crate) fn answer(
        &self,
        asker: &mut Asker,
        (kind, header, body): (u8, &[u8], &[u8]),
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Next, MessageError> {
        if asker.seat.is_none() && kind != Kind::Hello as u8 {
            let kind = Kind::from_u8(kind).unwrap_or(Kind::Hello);
            return Ok(refuse(kind, Refusal::NoHello, out));
        }
        let request = match Request::decode(kind, header, body) {
            Ok(request) => request,
            Err(MessageError::Unknown(kind)) => {
                unsupported(kind, out);
                return Ok(Next::Done);
            }
            Err(e) => return Err(e),
        };
        Ok(match request {
            Request::Hello(hello) => self.hello(asker, &hello, out),
            Request::List(from) => self.list(&from, out),
            Request::Locate(files) => {
                let holdings: Vec<_> = files.iter().map(|id| holding(&self.content.held(id))).collect();
                small(Kind::Locate, &(), &encode_body(&holdings), out)
            }
            Request::Layer(range) => self.layer(asker, range, now, out),
            Request::Chunk(chunk) => self.chunk(asker, chunk, out),
            Request::AnyOf(since, chunks) => self.any(asker, since, &chunks, out),
            Request::Have(since) => self.have(since, out),
            Request::Bad(chunk) => self.bad(asker, chunk, now, out),
            Request::Peers(file) => {
                let some = |file| locked(&self.fetchers).some_of(&file, FETCHERS_PER_ANSWER_MAX, rand::random());
                let among = file.map(some);
                let hints =
                    self.directory.hints_for(NodeId::new(asker.peer, asker.instance), asker.addr, among.as_deref());
                small(Kind::Peers, &(), &encode_body(&hints), out)
            }
        })
    }

    /// A list of digests was sent, or its session ends.
    pub(crate) fn end_list(&self, list: Option<Upload>, whole: bool) {
        if let Some(list) = list {
            locked(&self.lists).end(list, whole, Instant::now());
        }
    }

    /// The answer to what asks for a chunk and waited so long that it should be asked anew.
    pub(crate) fn stale(kind: Kind, out: &mut Vec<u8>) {
        problem(kind, Status::NotModified, "", out);
    }

    /// On whose account the connections of `asker` go.
    pub(crate) fn key(&self, asker: &Asker) -> Key {
        if self.trust.is_open() { Key::Addr(asker.addr.ip()) } else { Key::Peer(asker.peer) }
    }

    fn hello(&self, asker: &mut Asker, hello: &Hello, out: &mut Vec<u8>) -> Next {
        if !self.trust.allows(&asker.peer) {
            return refuse(Kind::Hello, Refusal::Untrusted, out);
        }
        if hello.network != self.directory.own().network() {
            return refuse(Kind::Hello, Refusal::OtherNetwork, out);
        }
        if hello.version == 0 {
            return refuse(Kind::Hello, Refusal::Version, out);
        }
        if asker.seat.is_none() {
            let Some(seat) = self.seats.take(self.key(asker)) else {
                return refuse(Kind::Hello, Refusal::Full, out);
            };
            asker.seat = Some(seat);
            asker.agent = hello.agent.chars().filter(|c| !c.is_control()).collect();
            asker.instance = hello.instance;
            asker.presence = self.directory.hello(asker.peer, hello, asker.addr);
        }
        let (catalogue, own) = (self.content.catalogue(), self.directory.own());
        let welcome = Welcome {
            version: WIRE_VERSION,
            instance: own.node().instance,
            revision: catalogue.revision(),
            files: catalogue.len() as u64,
            bytes: catalogue.bytes(),
            announce: own.current().as_bytes().to_vec(),
            agent: own.agent().into(),
        };
        small(Kind::Hello, &welcome, &[], out)
    }

    fn list(&self, from: &ListFrom, out: &mut Vec<u8>) -> Next {
        let catalogue = self.content.catalogue();
        if from.after.is_empty() && from.revision != 0 && from.revision == catalogue.revision() {
            return problem(Kind::List, Status::NotModified, "", out);
        }
        let pattern = match from.pattern.as_str() {
            "" => None,
            text => match Pattern::parse(text) {
                Ok(pattern) => Some(pattern),
                Err(e) => return problem(Kind::List, Status::NotFound, &e.to_string(), out),
            },
        };
        Next::Listing(Box::new(Listing::new(catalogue, pattern, &from.after)))
    }

    /// The answer to `List`, once its page is whole.
    pub(crate) fn listed(&self, listing: Listing, out: &mut Vec<u8>) -> Next {
        let (head, body) = listing.finish();
        large(Kind::List, &head, body, out)
    }

    fn layer(&self, asker: &Asker, range: LayerRange, now: Instant, out: &mut Vec<u8>) -> Next {
        let geometry = Geometry::new(range.file.len);
        if range.count > LAYER_DIGESTS_PER_ANSWER_MAX {
            return problem(Kind::Layer, Status::TooLarge, "too many digests", out);
        }
        let within = range.first.checked_add(range.count).is_some_and(|end| end <= geometry.chunk_count());
        if !geometry.needs_layer() || !within {
            return problem(Kind::Layer, Status::NotFound, "no such digests", out);
        }
        if matches!(self.content.held(&range.file), Held::Nothing) {
            return problem(Kind::Layer, Status::NotFound, "", out);
        }
        // Whoever has the first part gets the rest. The place is taken before anything is read.
        let mut list = None;
        if range.first == 0 {
            let (key, mut lists) = (self.key(asker), locked(&self.lists));
            list = if lists.of(key, now) < LISTS_PER_KEY_MAX { lists.begin(key, now) } else { None };
            if list.is_none() {
                let wait = LIST_RETRY.mul_f64(rand::random_range(0.5..1.5));
                return busy(Kind::Layer, wait, "others are sent theirs", out);
            }
        }
        match self.content.layer(&range.file, range.first, range.count) {
            Some(digests) if digests.len() == range.count as usize => {
                let body: Vec<u8> = digests.iter().flat_map(|d| d.0).collect();
                encode_head(Kind::Layer, Status::Ok, &range, body.len() as u32, out);
                match list {
                    Some(list) => Next::List(Body::bytes(body), list),
                    None => Next::Body(Body::bytes(body)),
                }
            }
            _ => {
                self.end_list(list, false);
                problem(Kind::Layer, Status::NotFound, "", out)
            }
        }
    }

    fn chunk(&self, asker: &mut Asker, ChunkAsk { chunk, since }: ChunkAsk, out: &mut Vec<u8>) -> Next {
        let geometry = Geometry::new(chunk.file.len);
        let Some(index) = geometry.chunk(chunk.index) else {
            return problem(Kind::Chunk, Status::NotFound, "", out);
        };
        let next = self.send(Kind::Chunk, asker, Since { file: chunk.file, revision: since }, index, out);
        if matches!(next, Next::Body(_)) {
            locked(&self.sent).count(&chunk.file, geometry.chunk_count(), chunk.index);
        }
        next
    }

    fn any(&self, asker: &mut Asker, since: Since, chunks: &[u32], out: &mut Vec<u8>) -> Next {
        let geometry = Geometry::new(since.file.len);
        let have = match self.content.held(&since.file) {
            Held::Nothing => return problem(Kind::AnyOf, Status::NotFound, "", out),
            Held::Whole => None,
            Held::Partly(have) => Some(have),
        };
        let held = |index: &u32| have.as_ref().map_or(*index < geometry.chunk_count(), |have| have.bit(*index));
        let candidates = chunks.iter().copied().filter(held);
        let chosen = locked(&self.sent).choose(&since.file, geometry.chunk_count(), candidates, rand::random());
        match chosen.and_then(|i| geometry.chunk(i)) {
            Some(index) => self.send(Kind::AnyOf, asker, since, index, out),
            None => problem(Kind::AnyOf, Status::NotFound, "", out),
        }
    }

    fn send(&self, kind: Kind, asker: &mut Asker, since: Since, index: ChunkIndex, out: &mut Vec<u8>) -> Next {
        let chunk = ChunkRef { file: since.file, index: index.get() };
        match self.content.open(&chunk.file, index) {
            Ok(source) => {
                let len = Geometry::new(chunk.file.len).span(index).len;
                asker.served(chunk);
                // Nobody needs to find others for what one answer brings.
                if Geometry::new(chunk.file.len).needs_layer() {
                    locked(&self.fetchers).note(&chunk.file, NodeId::new(asker.peer, asker.instance));
                }
                let news = (since.revision > 0)
                    .then(|| self.content.news(&since.file, since.revision, NEW_HAVES_MAX))
                    .flatten();
                encode_head(kind, Status::Ok, &ChunkHeader { chunk, new_haves: news }, len + 1, out);
                Next::Body(Body::chunk(source, len as usize))
            }
            Err(Absent::NotFound) => problem(kind, Status::NotFound, "", out),
            Err(Absent::Gone) => problem(kind, Status::Gone, "changed on disk", out),
            Err(Absent::Unreadable) => busy(kind, BUSY_RETRY, "cannot be read now", out),
        }
    }

    fn have(&self, since: Since, out: &mut Vec<u8>) -> Next {
        match self.content.delta(&since.file, since.revision) {
            Some(delta) => large(Kind::Have, &(), encode_body(&delta), out),
            None if matches!(self.content.held(&since.file), Held::Nothing) => {
                problem(Kind::Have, Status::NotFound, "", out)
            }
            None => problem(Kind::Have, Status::NotModified, "", out),
        }
    }

    fn bad(&self, asker: &mut Asker, chunk: ChunkRef, now: Instant, out: &mut Vec<u8>) -> Next {
        let index = Geometry::new(chunk.file.len).chunk(chunk.index);
        let (Some(index), true) = (index, asker.served.contains(&chunk)) else {
            return problem(Kind::Bad, Status::NotFound, "not served on this connection", out);
        };
        if !asker.may_report(now) {
            return busy(Kind::Bad, MINUTE, "too many reports", out);
        }
        let withdrawn = self.content.audit(&chunk.file, index);
        let line = format_args!(
            "chunk reported bad peer={} addr={} file={} chunk={} withdrawn={withdrawn}",
            asker.peer, asker.addr, chunk.file, chunk.index
        );
        self.noise.log(log::Level::Warn, now, line);
        small(Kind::Bad, &(), &[], out)
    }
}

impl Refusal {
    /// For people on the other side.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Untrusted => Problem::UNTRUSTED,
            Refusal::OtherNetwork => Problem::OTHER_NETWORK,
            Refusal::NoHello => "Hello comes first",
            Refusal::Version => Problem::UNKNOWN_VERSION,
            Refusal::Full => "too many connections",
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn holding(held: &Held) -> Holding {
    match held {
        Held::Nothing => Holding::None,
        Held::Whole => Holding::Whole,
        Held::Partly(have) => Holding::Partial(have.count()),
    }
}

fn refuse(kind: Kind, why: Refusal, out: &mut Vec<u8>) -> Next {
    match why {
        Refusal::Full => busy(kind, BUSY_RETRY, why.reason(), out),
        _ => problem(kind, Status::Refused, why.reason(), out),
    };
    Next::Close(why)
}

fn problem(kind: Kind, status: Status, reason: &str, out: &mut Vec<u8>) -> Next {
    encode_frame(kind, status, &Problem { retry_after_ms: 0, reason: reason.into() }, &[], out);
    Next::Done
}

fn busy(kind: Kind, retry: Duration, reason: &str, out: &mut Vec<u8>) -> Next {
    let problem = Problem { retry_after_ms: retry.as_millis() as u32, reason: reason.into() };
    encode_frame(kind, Status::Busy, &problem, &[], out);
    Next::Done
}

/// An answer whose body goes along with its head.
fn small<H: serde::Serialize>(kind: Kind, header: &H, body: &[u8], out: &mut Vec<u8>) -> Next {
    encode_frame(kind, Status::Ok, header, body, out);
    Next::Done
}

/// An answer whose body is sent bit by bit and counts against the rate limit.
fn large<H: serde::Serialize>(kind: Kind, header: &H, body: Vec<u8>, out: &mut Vec<u8>) -> Next {
    encode_head(kind, Status::Ok, header, body.len() as u32, out);
    Next::Body(Body::bytes(body))
}

/// The answer to a kind of request that this version does not know; it carries that kind.
fn unsupported(kind: u8, out: &mut Vec<u8>) {
    let at = out.len();
    problem(Kind::Hello, Status::Unsupported, "unknown request", out);
    if let Some(prefix) = out[at..].first_chunk::<FRAME_PREFIX_LEN>() {
        let prefix = FramePrefix { kind, ..FramePrefix::from_bytes(*prefix) };
        out[at..at + FRAME_PREFIX_LEN].copy_from_slice(&prefix.to_bytes());
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
