//! What a host answers: how long it is, by the real encoders, and what it says of the file.

use gpb::internals::limits::{FETCHERS_PER_ANSWER_MAX, NEW_HAVES_MAX};
use gpb::internals::proto::{
    ChunkHeader, ChunkRef, Delta, Holding, Kind, Problem, Status, encode_body, encode_frame, encode_head,
};
use gpb::internals::server::limits::LAYER_RETRY;
use gpb::internals::swarm::{AnyOfChoice, SentTo};

use super::peer::{Answer, Ask, Fault, Has, Told};
use super::world::{World, host_of, key_of};

impl Has {
    pub(super) fn holds(&self, index: u32) -> bool {
        match self {
            Has::Nothing => false,
            Has::Some(arrivals) => arrivals.have().bit(index),
            Has::All => true,
        }
    }

    pub(super) fn holding(&self) -> Holding {
        match self {
            Has::Nothing => Holding::None,
            Has::Some(arrivals) => Holding::Partial(arrivals.have().count()),
            Has::All => Holding::Whole,
        }
    }

    pub(super) fn delta(&self, since: u64) -> Option<Delta> {
        match self {
            Has::Nothing => None,
            Has::Some(arrivals) => arrivals.delta(since),
            Has::All => Some(Delta::Whole),
        }
    }

    pub(super) fn news(&self, since: u64, max: usize) -> Option<Delta> {
        match self {
            Has::Some(arrivals) if since > 0 => arrivals.news(since, max),
            Has::All if since > 0 => Some(Delta::Whole),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn answer(&mut self, conn: u32, ask: Ask) {
        let (id, count, random) = (self.id, self.geometry.chunk_count(), self.rng.next());
        let c = &self.conns[conn as usize];
        let (client, has_slot) = (c.client, c.slot.is_some());
        let to = SentTo { node: key_of(client), session: conn as usize, at: self.now() };
        let host = &mut self.peers[c.server as usize];
        match ask {
            Ask::Chunk { index, since } if host.has.holds(index) => {
                host.sent.count(&id, count, index, &to);
                self.give(conn, Kind::Chunk, index, since);
            }
            Ask::Chunk { .. } => self.not_held(conn, Kind::Chunk),
            Ask::Any(chunks) => {
                let candidates = chunks.iter().copied().filter(|&i| host.has.holds(i));
                match host.sent.choose(&id, count, candidates, &to, random) {
                    AnyOfChoice::Chunk(index) => self.give(conn, Kind::AnyOf, index, 0),
                    AnyOfChoice::OnTheirWay => {
                        self.end_slot(conn, false);
                        self.refuse(conn, Kind::AnyOf, Status::NotModified, Told::Stale);
                    }
                    AnyOfChoice::Nothing => self.not_held(conn, Kind::AnyOf),
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

    pub(super) fn refuse(&mut self, conn: u32, kind: Kind, status: Status, told: Told) {
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
