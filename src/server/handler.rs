//! A request becomes an answer. No sockets and no TLS here.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::content::{ChunkIndex, Geometry, Pattern};
use crate::limits::{FETCHERS_PER_ANSWER_MAX, LAYER_DIGESTS_PER_ANSWER_MAX, NEW_HAVES_MAX, WIRE_VERSION};
use crate::peers::Directory;
use crate::proto::{
    ChunkAsk, ChunkHeader, ChunkRef, Hello, Holding, Kind, LayerRange, ListFrom, MessageError, Request, Since, Status,
    Welcome, encode_body, encode_head,
};
use crate::runtime::LimitedLog;
use crate::runtime::keystore::TrustView;
use crate::server::bad_reports::{BadReports, MINUTE};
use crate::server::body::Body;
use crate::server::connection_slots::{Account, ConnectionSlots};
use crate::server::content::{Absent, Content, Held};
use crate::server::dial_back::DialBacks;
use crate::server::input::RequestFrame;
use crate::server::limits::{ANSWER_RETRY, LAYER_RETRY};
use crate::server::listing::Listing;
use crate::server::remote_peer::{RemotePeer, SessionRole};
use crate::server::reply::{Refusal, Reply, busy, large, problem, refuse, small, unsupported};
use crate::swarm::{Admission, AnyOfChoice, Fetchers, Sent, SentTo, UploadGate, UploadKind, UploadSlot};
use crate::sync::lock;

mod reach;

/// What all sessions of a server answer from.
pub(crate) struct Handler {
    pub(crate) content: Arc<dyn Content>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) trust: Arc<TrustView>,
    pub(crate) connections: Arc<ConnectionSlots>,
    pub(crate) gate: Mutex<UploadGate<Account>>,
    pub(crate) sent: Mutex<Sent>,
    pub(crate) fetchers: Mutex<Fetchers>,
    pub(crate) bad_reports: Mutex<BadReports>,
    pub(crate) dial_backs: DialBacks,
    /// Lines about sessions, which any host can cause in an open group.
    pub(crate) log: LimitedLog,
}

impl Handler {
    /// Answers one request: appends the head of the answer, and its body if that is small, to
    /// `out`.
    ///
    /// # Errors
    /// The request is malformed; the session ends without an answer.
    pub(crate) fn answer(
        &self,
        peer: &mut RemotePeer,
        frame: &RequestFrame<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Reply, MessageError> {
        if !peer.is_admitted() && frame.kind != Kind::Hello as u8 {
            let kind = Kind::from_u8(frame.kind).unwrap_or(Kind::Hello);
            return Ok(refuse(kind, Refusal::NoHello, out));
        }
        if matches!(peer.role, SessionRole::Answers) {
            return Err(MessageError::Malformed("Turn"));
        }
        let request = match Request::decode(frame.kind, frame.header, frame.body) {
            Ok(request) => request,
            Err(MessageError::Unknown(kind)) => return Ok(unsupported(kind, out)),
            Err(e) => return Err(e),
        };
        peer.is_deferred &= matches!(request, Request::Chunk(_) | Request::AnyOf(..));
        Ok(match request {
            Request::Hello(hello) => self.hello(peer, &hello, now, out),
            Request::List(from) => self.list(&from, out),
            Request::Locate(files) => {
                let holdings: Vec<_> = files.iter().map(|id| holding(&self.content.held(id))).collect();
                small(Kind::Locate, &(), &encode_body(&holdings), out)
            }
            Request::Layer(range) => self.layer(peer, range, now, out),
            Request::Chunk(chunk) => self.chunk(peer, chunk, now, out),
            Request::AnyOf(since, chunks) => self.any_of(peer, since, &chunks, now, out),
            Request::Have(since) => self.have(since, out),
            Request::Bad(chunk) => self.bad(peer, chunk, now, out),
            Request::Turn => self.turn(peer, now, out),
            Request::Reach => self.reach(peer, now, out),
            Request::Peers(file) => {
                let some = |file| lock(&self.fetchers).some_of(&file, FETCHERS_PER_ANSWER_MAX, rand::random());
                let among = file.map(some);
                let hints = self.directory.hints_for(peer.node(), peer.addr, among.as_deref());
                small(Kind::Peers, &(), &encode_body(&hints), out)
            }
        })
    }

    /// The gate that all uploads pass.
    pub(crate) fn gate(&self) -> MutexGuard<'_, UploadGate<Account>> {
        lock(&self.gate)
    }

    /// What the connections of `peer` are served on.
    pub(crate) fn account(&self, peer: &RemotePeer) -> Account {
        if self.trust.is_open() { Account::Addr(peer.addr.ip()) } else { Account::Key(peer.id) }
    }

    fn hello(&self, peer: &mut RemotePeer, hello: &Hello, now: Instant, out: &mut Vec<u8>) -> Reply {
        if !self.trust.allows(&peer.id) {
            return refuse(Kind::Hello, Refusal::Untrusted, out);
        }
        if hello.network != self.directory.own().network() {
            return refuse(Kind::Hello, Refusal::OtherNetwork, out);
        }
        if hello.version == 0 {
            return refuse(Kind::Hello, Refusal::Version, out);
        }
        if !peer.is_admitted() {
            let Some(slot) = self.connections.take(self.account(peer), peer.session, now) else {
                return refuse(Kind::Hello, Refusal::Full, out);
            };
            peer.slot = Some(slot);
            peer.agent = hello.agent.chars().filter(|c| !c.is_control()).collect();
            peer.instance = hello.instance;
            peer.presence = self.directory.hello(peer.id, hello, peer.addr);
            match &mut peer.role {
                SessionRole::AsksTurned(ticket) => ticket.begin(),
                // A firewall is not in the way of this host itself.
                _ if peer.is_local => {}
                _ => self.directory.dialed_here(peer.node()),
            }
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

    fn list(&self, from: &ListFrom, out: &mut Vec<u8>) -> Reply {
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
        Reply::Listing(Box::new(Listing::new(catalogue, pattern, &from.after)))
    }

    /// The answer to `List`, once its page is whole.
    pub(crate) fn listed(&self, listing: Listing, out: &mut Vec<u8>) -> Reply {
        let (head, body) = listing.finish();
        large(Kind::List, &head, body, out)
    }

    fn layer(&self, peer: &RemotePeer, range: LayerRange, now: Instant, out: &mut Vec<u8>) -> Reply {
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
        // A peer that has the first part gets the rest. The slot is taken before anything is read.
        let mut slot = None;
        if range.first == 0 {
            slot = match self.gate().request(peer.session, self.account(peer), UploadKind::Layer, now) {
                Admission::Begin(slot) => Some(slot),
                Admission::Wait | Admission::Deferred => {
                    let wait = LAYER_RETRY.mul_f64(rand::random_range(0.5..1.5));
                    return busy(Kind::Layer, wait, "others are sent theirs", out);
                }
            };
        }
        match self.content.layer(&range.file, range.first, range.count) {
            Some(digests) if digests.len() == range.count as usize => {
                let body: Vec<u8> = digests.iter().flat_map(|d| d.0).collect();
                encode_head(Kind::Layer, Status::Ok, &range, body.len() as u32, out);
                Reply::Body(Body::bytes(body), slot)
            }
            _ => {
                self.drop_slot(slot, now);
                problem(Kind::Layer, Status::NotFound, "", out)
            }
        }
    }

    fn chunk(
        &self,
        peer: &mut RemotePeer,
        ChunkAsk { chunk, since }: ChunkAsk,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Reply {
        let slot = match self.admit(peer, UploadKind::Chunk, now, out) {
            Ok(slot) => slot,
            Err(reply) => return reply,
        };
        let geometry = Geometry::new(chunk.file.len);
        let body = match geometry.chunk(chunk.index) {
            Some(index) => self.open(Kind::Chunk, peer, Since { file: chunk.file, revision: since }, index, out),
            None => Err(problem(Kind::Chunk, Status::NotFound, "", out)),
        };
        if body.is_ok() {
            lock(&self.sent).count(&chunk.file, geometry.chunk_count(), chunk.index, &sent_to(peer, now));
        }
        self.send(body, slot, now)
    }

    /// Super-seeding (BEP 16): of the chunks that the peer lacks, the one that was sent least. What comes to it on
    /// another session it does not lack.
    fn any_of(&self, peer: &mut RemotePeer, since: Since, chunks: &[u32], now: Instant, out: &mut Vec<u8>) -> Reply {
        let slot = match self.admit(peer, UploadKind::AnyOf, now, out) {
            Ok(slot) => slot,
            Err(reply) => return reply,
        };
        let geometry = Geometry::new(since.file.len);
        let (held, random) = (self.content.held(&since.file), rand::random());
        let is_held = |index: &u32| match &held {
            Held::Nothing => false,
            Held::Whole => *index < geometry.chunk_count(),
            Held::Partly(have) => have.bit(*index),
        };
        let candidates = peer.lacking(since.file, chunks.iter().copied().filter(is_held));
        let (count, to) = (geometry.chunk_count(), sent_to(peer, now));
        let choice = match held {
            Held::Nothing => AnyOfChoice::Nothing,
            _ => lock(&self.sent).choose(&since.file, count, candidates.into_iter(), &to, random),
        };
        let body = match choice {
            AnyOfChoice::Chunk(index) => geometry.chunk(index).ok_or(Status::NotFound),
            AnyOfChoice::OnTheirWay => Err(Status::NotModified),
            AnyOfChoice::Nothing => Err(Status::NotFound),
        };
        let body = match body {
            Ok(index) => self.open(Kind::AnyOf, peer, since, index, out),
            Err(status) => Err(problem(Kind::AnyOf, status, "", out)),
        };
        self.send(body, slot, now)
    }

    /// A slot for a chunk, or the answer without one.
    fn admit(&self, peer: &RemotePeer, kind: UploadKind, now: Instant, out: &mut Vec<u8>) -> Result<UploadSlot, Reply> {
        let admission = match peer.is_deferred {
            true => Admission::Deferred,
            false => self.gate().request(peer.session, self.account(peer), kind, now),
        };
        match admission {
            Admission::Begin(slot) => Ok(slot),
            Admission::Wait => Err(Reply::Wait),
            Admission::Deferred => {
                let kind = if kind == UploadKind::AnyOf { Kind::AnyOf } else { Kind::Chunk };
                Err(problem(kind, Status::NotModified, "", out))
            }
        }
    }

    fn send(&self, body: Result<Body, Reply>, slot: UploadSlot, now: Instant) -> Reply {
        match body {
            Ok(body) => Reply::Body(body, Some(slot)),
            Err(reply) => {
                self.drop_slot(Some(slot), now);
                reply
            }
        }
    }

    fn drop_slot(&self, slot: Option<UploadSlot>, now: Instant) {
        if let Some(slot) = slot {
            self.gate().ended(slot, false, now);
        }
    }

    /// Begins to read a chunk; without it, the answer that says why.
    fn open(
        &self,
        kind: Kind,
        peer: &mut RemotePeer,
        since: Since,
        index: ChunkIndex,
        out: &mut Vec<u8>,
    ) -> Result<Body, Reply> {
        let chunk = ChunkRef { file: since.file, index: index.get() };
        let source = self.content.open(&chunk.file, index).map_err(|why| match why {
            Absent::NotFound => problem(kind, Status::NotFound, "", out),
            Absent::Gone => problem(kind, Status::Gone, "changed on disk", out),
            Absent::Unreadable => busy(kind, ANSWER_RETRY, "cannot be read now", out),
        })?;
        let geometry = Geometry::new(chunk.file.len);
        let len = geometry.span(index).len;
        peer.note_served(chunk);
        // For a file of one chunk, no peer needs to find another one.
        if geometry.needs_layer() {
            lock(&self.fetchers).note(&chunk.file, peer.node());
        }
        let asks = since.revision > 0;
        let new_haves = asks.then(|| self.content.news(&since.file, since.revision, NEW_HAVES_MAX)).flatten();
        encode_head(kind, Status::Ok, &ChunkHeader { chunk, new_haves }, len + 1, out);
        Ok(Body::chunk(source, len as usize))
    }

    fn have(&self, since: Since, out: &mut Vec<u8>) -> Reply {
        match self.content.delta(&since.file, since.revision) {
            Some(delta) => large(Kind::Have, &(), encode_body(&delta), out),
            None if matches!(self.content.held(&since.file), Held::Nothing) => {
                problem(Kind::Have, Status::NotFound, "", out)
            }
            None => problem(Kind::Have, Status::NotModified, "", out),
        }
    }

    fn bad(&self, peer: &mut RemotePeer, chunk: ChunkRef, now: Instant, out: &mut Vec<u8>) -> Reply {
        let index = Geometry::new(chunk.file.len).chunk(chunk.index);
        let (Some(index), true) = (index, peer.was_served(&chunk)) else {
            return problem(Kind::Bad, Status::NotFound, "not served on this connection", out);
        };
        if !lock(&self.bad_reports).may_report(self.account(peer), now) {
            return busy(Kind::Bad, MINUTE, "too many reports", out);
        }
        let withdrawn = self.content.audit(&chunk.file, index);
        let tag = self.directory.own().tag();
        let line = format_args!(
            "chunk reported bad peer={} addr={} file={} chunk={} withdrawn={withdrawn}{tag}",
            peer.id, peer.addr, chunk.file, chunk.index
        );
        self.log.log(log::Level::Warn, now, line);
        small(Kind::Bad, &(), &[], out)
    }
}

fn sent_to(peer: &RemotePeer, now: Instant) -> SentTo {
    SentTo { node: peer.node(), session: peer.session, at: now }
}

fn holding(held: &Held) -> Holding {
    match held {
        Held::Nothing => Holding::None,
        Held::Whole => Holding::Whole,
        Held::Partly(have) => Holding::Partial(have.count()),
    }
}

#[cfg(test)]
mod tests;
