//! The side of a connection that answers: [`UploadGate`] says when, and this what and how long it is.

use gpb::internals::limits::{FETCHERS_PER_ANSWER_MAX, NEW_HAVES_MAX, SERVER_TICK};
use gpb::internals::proto::{ChunkHeader, ChunkRef, Kind, Problem, Status, encode_body, encode_frame, encode_head};
use gpb::internals::server::limits::{LAYER_RETRY, UPLOAD_LOOK_MIN};
use gpb::internals::swarm::{Admission, TurnCost, TurnPrice, UploadKind};

use super::peer::{Answer, Ask, Fault, Has, State, Told};
use super::world::{Event, World, host_of, key_of};

impl World {
    /// A request has come.
    pub(super) fn requested(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        if c.state == State::Open {
            c.arrived += 1;
            let idle = c.out == 0 && !c.waits && c.slot.is_none();
            if idle && !self.peers[c.server as usize].frozen {
                self.serve(conn);
            }
        }
    }

    /// The present answer has left this host.
    pub(super) fn all_sent(&mut self, conn: u32) {
        let server = self.conns[conn as usize].server;
        self.end_slot(conn, true);
        // Those who wait come first.
        self.serve_waiting(server);
        self.serve(conn);
    }

    /// Begins the next answer.
    fn serve(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        let (0, 1.., Some(front)) = (c.out, c.arrived, c.requests.front()) else { return };
        if let Some(kind) = front.upload() {
            let gate = &mut self.peers[c.server as usize].gate;
            match gate.request(conn as usize, c.client, kind, now) {
                Admission::Begin(slot) => c.slot = Some(slot),
                Admission::Wait => {
                    gate.wait(conn as usize);
                    c.waits = true;
                    let server = c.server;
                    return self.arm(server);
                }
                Admission::Deferred => (),
            }
        }
        c.arrived -= 1;
        if let Some(ask) = c.requests.pop_front() {
            self.answer(conn, ask);
        }
    }

    /// Lets those who wait for an upload begin, as many as may.
    fn serve_waiting(&mut self, peer: u32) {
        let (now, chunk_len) = (self.now(), self.geometry.chunk_len());
        let price = TurnPrice::new(now);
        while let host = &mut self.peers[peer as usize]
            && !host.frozen
            && host.here
            && let Some(conn) = host.gate.next(&price, now)
        {
            self.conns[conn].waits = false;
            self.serve(conn as u32);
            self.peers[peer as usize].gate.turn_done(conn, TurnCost::of_bytes(chunk_len), now);
        }
    }

    /// What was being sent is sent, or its connection is over.
    pub(super) fn end_slot(&mut self, conn: u32, whole: bool) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        if let Some(slot) = c.slot.take() {
            self.peers[c.server as usize].gate.ended(slot, whole, now);
        }
    }

    /// Looks again when one of those under way does not count any more.
    fn arm(&mut self, peer: u32) {
        let now = self.now();
        let host = &mut self.peers[peer as usize];
        if let Some(at) = host.gate.next_look(now)
            && !std::mem::replace(&mut host.retries, true)
        {
            let wait = at.saturating_duration_since(now).max(UPLOAD_LOOK_MIN);
            self.after(wait.min(SERVER_TICK), Event::Retry(peer));
        }
    }

    pub(super) fn retry(&mut self, peer: u32) {
        let now = self.now();
        let host = &mut self.peers[peer as usize];
        host.retries = false;
        for conn in host.gate.overdue(now) {
            self.conns[conn].waits = false;
            while let c = &mut self.conns[conn]
                && c.arrived > 0
                && let Some(kind @ (UploadKind::Chunk | UploadKind::AnyOf)) = c.requests.front().and_then(Ask::upload)
            {
                c.requests.pop_front();
                c.arrived -= 1;
                let kind = if kind == UploadKind::Chunk { Kind::Chunk } else { Kind::AnyOf };
                self.refuse(conn as u32, kind, Status::NotModified, Told::Stale);
            }
        }
        self.serve_waiting(peer);
        if self.peers[peer as usize].here {
            self.arm(peer);
        }
    }

    fn answer(&mut self, conn: u32, ask: Ask) {
        let (id, count, random) = (self.id, self.geometry.chunk_count(), self.rng.next());
        let c = &self.conns[conn as usize];
        let (client, has_slot) = (c.client, c.slot.is_some());
        let host = &mut self.peers[c.server as usize];
        match ask {
            Ask::Chunk { index, since } if host.has.holds(index) => {
                host.sent.count(&id, count, index);
                self.give(conn, Kind::Chunk, index, since);
            }
            Ask::Chunk { .. } => self.not_held(conn, Kind::Chunk),
            Ask::Any(chunks) => {
                let candidates = chunks.iter().copied().filter(|&i| host.has.holds(i));
                match host.sent.choose(&id, count, candidates, random) {
                    Some(index) => self.give(conn, Kind::AnyOf, index, 0),
                    None => self.not_held(conn, Kind::AnyOf),
                }
            }
            Ask::Have(_) | Ask::Layer if matches!(host.has, Has::Nothing) => self.not_held(conn, Kind::Have),
            Ask::Have(since) => match host.has.delta(since) {
                Some(delta) => {
                    let body = encode_body(&delta);
                    let head = self.measure(|out| encode_frame(Kind::Have, Status::Ok, &(), &body, out));
                    self.tell(conn, Told::Have(Some(delta)), head, 0);
                }
                None => self.refuse(conn, Kind::Have, Status::NotModified, Told::Have(None)),
            },
            Ask::Layer if has_slot => self.tell(conn, Told::Layer, 64 + u64::from(count) * 32, 0),
            Ask::Layer => {
                let wait = LAYER_RETRY / 2 + LAYER_RETRY.mul_f64((random >> 32) as f64 / (1u64 << 32) as f64);
                self.refuse(conn, Kind::Layer, Status::Busy, Told::Busy(wait));
            }
            Ask::Peers => {
                let some = host.fetchers.some_of(&id, FETCHERS_PER_ANSWER_MAX, random);
                let hosts: Vec<u32> = some.into_iter().map(host_of).filter(|&host| host != client).collect();
                let len = 16 + hosts.len() as u64 * (self.group.hello_len + HINT_ADDR_LEN);
                self.tell(conn, Told::Peers(hosts), len, 0);
            }
            Ask::Locate => {
                let (holding, whole) = (host.has.holding(), matches!(host.has, Has::All));
                let some = !matches!(host.has, Has::Nothing);
                let body = encode_body(&[holding]);
                let head = self.measure(|out| encode_frame(Kind::Locate, Status::Ok, &(), &body, out));
                self.tell(conn, Told::Located(some, whole), head, 0);
            }
        }
    }

    fn give(&mut self, conn: u32, kind: Kind, index: u32, since: u64) {
        let chunk = ChunkRef { file: self.id, index };
        let len = self.geometry.chunk(index).map_or(0, |i| self.geometry.span(i).len);
        let c = &self.conns[conn as usize];
        let host = &mut self.peers[c.server as usize];
        host.fetchers.note(&chunk.file, key_of(c.client));
        host.tally.given += u64::from(len);
        let given = ChunkHeader { chunk, new_haves: host.has.news(since, NEW_HAVES_MAX) };
        let head = self.measure(|out| encode_head(kind, Status::Ok, &given, len + 1, out));
        // The trailer is one more.
        self.tell(conn, Told::Chunk(index, given.new_haves), head + 1, len.into());
    }

    fn not_held(&mut self, conn: u32, kind: Kind) {
        self.end_slot(conn, false);
        self.refuse(conn, kind, Status::NotFound, Told::NotHeld);
    }

    fn refuse(&mut self, conn: u32, kind: Kind, status: Status, told: Told) {
        let head = self.measure(|out| encode_frame(kind, status, &Problem::default(), &[], out));
        self.tell(conn, told, head, 0);
    }

    fn tell(&mut self, conn: u32, told: Told, head: u64, body: u64) {
        let head = head + if body == 0 { RECORD_LEN } else { 0 };
        self.conns[conn as usize].answers.push_back(Answer { told, head, body, begun: false });
        self.send(conn, head + body);
    }

    /// Whether what this host sends is wrong.
    pub(super) fn lies(&self, host: u32) -> bool {
        self.peers[host as usize].fault == Fault::Lies
    }
}

/// What a TLS record adds to a small message.
pub(super) const RECORD_LEN: u64 = 22;
/// What an address adds to an announce in the answer to `Peers`.
const HINT_ADDR_LEN: u64 = 8;
