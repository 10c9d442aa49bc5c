//! The side of a connection that answers, as `server::session` and `server::handler` do.

use std::time::Duration;

use gpb::internals::limits::{CHUNK_PATIENCE, FETCHERS_PER_ANSWER_MAX, NEW_HAVES_MAX, SERVER_TICK};
use gpb::internals::proto::{
    ChunkHeader, ChunkRef, Delta, Holding, Kind, Problem, Status, encode_body, encode_frame, encode_head,
};
use gpb::internals::server::limits::{ANY_FRESH, LIST_RETRY};
use gpb::internals::swarm::{TurnCost, TurnPrice};

use super::peer::{Answer, Ask, Fault, Has, State, Told};
use super::world::{Event, World, host_of, key_of};

impl World {
    /// A request has come.
    pub(super) fn requested(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        if c.state != State::Open {
            return;
        }
        c.arrived += 1;
        let idle = c.out == 0 && !c.is_waiting && c.upload.is_none();
        if idle && !self.peers[c.server as usize].frozen {
            self.serve(conn);
        }
    }

    /// The present answer has left this host.
    pub(super) fn all_sent(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        let (uploaded, listed) = (c.upload.take(), c.list.take());
        let server = c.server;
        if let Some(listed) = listed {
            self.peers[server as usize].lists.end(listed, true, now);
        }
        if let Some(upload) = uploaded {
            self.peers[server as usize].uploads.end(upload, true, now);
        }
        // Those who wait come first.
        self.serve_waiting(server);
        self.serve(conn);
    }

    /// Begins the next answer.
    fn serve(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        if c.arrived == 0 || c.out > 0 {
            return;
        }
        let Some(front) = c.requests.front() else { return };
        if matches!(front, Ask::Chunk { .. } | Ask::Any(_)) && c.upload.is_none() {
            let host = &mut self.peers[c.server as usize];
            let Some(upload) = host.uploads.begin(c.client, now) else {
                c.is_waiting = true;
                c.waits_since.get_or_insert(now);
                host.waiting += 1;
                host.uploads.wait(c.client);
                c.ticket = match c.place.take() {
                    Some(place) => {
                        host.queue.push_to(place, c.client, conn as usize);
                        place.ticket()
                    }
                    None => host.queue.push(c.client, conn as usize),
                };
                let server = c.server;
                self.arm(server);
                return;
            };
            (c.upload, c.place) = (Some(upload), None);
        }
        c.waits_since = None;
        c.arrived -= 1;
        if let Some(ask) = c.requests.pop_front() {
            self.answer(conn, ask);
        }
    }

    /// Lets those who wait for an upload begin, as many as may.
    fn serve_waiting(&mut self, peer: u32) {
        let now = self.now();
        let price = TurnPrice::new(now);
        // One whose turn it is not does not keep the others from theirs.
        let mut refused = Vec::new();
        loop {
            let host = &mut self.peers[peer as usize];
            if host.uploads.free(now) == 0 || host.frozen || !host.here {
                break;
            }
            let Some((key, conn)) = host.queue.pop(&price, now) else { break };
            let Some(upload) = host.uploads.grant(key, now) else {
                refused.push((key, conn));
                continue;
            };
            host.waiting -= 1;
            host.queue.done(key, conn, TurnCost::of_bytes(self.geometry.chunk_len()));
            let c = &mut self.conns[conn];
            (c.is_waiting, c.place) = (false, None);
            c.upload = Some(upload);
            self.serve(conn as u32);
        }
        for (key, conn) in refused {
            let queue = &mut self.peers[peer as usize].queue;
            queue.push_again(key, conn, self.conns[conn].ticket);
            queue.done(key, conn, TurnCost::NOTHING);
        }
    }

    /// A connection does not wait for an upload any more.
    pub(super) fn leave_waiting(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        if std::mem::take(&mut c.is_waiting) {
            let host = &mut self.peers[c.server as usize];
            c.place = Some(host.queue.remove(c.client, conn as usize, c.ticket));
            host.uploads.gone(c.client);
            host.waiting -= 1;
        }
    }

    /// Whether what waits first on a connection waited too long.
    fn is_stale(&self, conn: u32) -> bool {
        let c = &self.conns[conn as usize];
        let patience = match c.requests.front() {
            Some(Ask::Any(_)) => ANY_FRESH,
            Some(Ask::Chunk { .. }) => CHUNK_PATIENCE,
            _ => return false,
        };
        c.is_waiting && c.waits_since.is_some_and(|at| self.now().saturating_duration_since(at) >= patience)
    }

    /// Sends back all that waited too long.
    fn send_back(&mut self, conn: u32) {
        self.leave_waiting(conn);
        self.conns[conn as usize].waits_since = None;
        while self.conns[conn as usize].arrived > 0
            && let Some(kind) = match self.conns[conn as usize].requests.front() {
                Some(Ask::Any(_)) => Some(Kind::AnyOf),
                Some(Ask::Chunk { .. }) => Some(Kind::Chunk),
                _ => None,
            }
        {
            let c = &mut self.conns[conn as usize];
            c.requests.pop_front();
            c.arrived -= 1;
            let head = self.problem(kind, Status::NotModified);
            self.tell(conn, Told::Stale, head, 0);
        }
    }

    /// Looks again when one of those under way does not count any more.
    fn arm(&mut self, peer: u32) {
        let now = self.now();
        let host = &mut self.peers[peer as usize];
        if !std::mem::replace(&mut host.retries, true) {
            let wait = host.uploads.next_free(now).saturating_duration_since(now).max(LOOK_MIN);
            self.after(wait.min(SERVER_TICK), Event::Retry(peer));
        }
    }

    pub(super) fn retry(&mut self, peer: u32) {
        self.peers[peer as usize].retries = false;
        for conn in self.peers[peer as usize].incoming.clone() {
            if self.is_stale(conn) {
                self.send_back(conn);
            }
        }
        self.serve_waiting(peer);
        if self.peers[peer as usize].waiting > 0 && self.peers[peer as usize].here {
            self.arm(peer);
        }
    }

    fn answer(&mut self, conn: u32, ask: Ask) {
        let (now, id, count) = (self.now(), self.id, self.geometry.chunk_count());
        let server = self.conns[conn as usize].server;
        let random = self.rng.next();
        let host = &mut self.peers[server as usize];
        let is_held = |has: &Has, index: u32| match has {
            Has::Nothing => false,
            Has::Some(arrivals) => arrivals.have().bit(index),
            Has::All => true,
        };
        match ask {
            Ask::Chunk { index, since } if is_held(&host.has, index) => {
                host.sent.count(&id, count, index);
                self.give(conn, Kind::Chunk, index, since);
            }
            Ask::Any(chunks) => {
                let candidates = chunks.iter().copied().filter(|&i| is_held(&host.has, i));
                match host.sent.choose(&id, count, candidates, random) {
                    Some(index) => self.give(conn, Kind::AnyOf, index, 0),
                    None => self.tell_not_held(conn, Kind::AnyOf),
                }
            }
            Ask::Chunk { .. } => self.tell_not_held(conn, Kind::Chunk),
            Ask::Have(since) => {
                let delta = match &host.has {
                    Has::All => Some(Delta::Whole),
                    Has::Some(arrivals) => arrivals.delta(since),
                    Has::Nothing => return self.tell_not_held(conn, Kind::Have),
                };
                let head = match &delta {
                    Some(delta) => {
                        self.measure(|out| encode_frame(Kind::Have, Status::Ok, &(), &encode_body(delta), out))
                    }
                    None => self.problem(Kind::Have, Status::NotModified),
                };
                self.tell(conn, Told::Have(delta), head, 0);
            }
            Ask::Layer => match host.has {
                Has::Nothing => self.tell_not_held(conn, Kind::Layer),
                _ => {
                    let client = self.conns[conn as usize].client;
                    match host.lists.begin(client, now) {
                        Some(list) => {
                            self.conns[conn as usize].list = Some(list);
                            self.tell(conn, Told::Layer, 64 + u64::from(count) * 32, 0);
                        }
                        None => {
                            let wait = LIST_RETRY / 2 + LIST_RETRY.mul_f64((random >> 32) as f64 / (1u64 << 32) as f64);
                            let head = self.problem(Kind::Layer, Status::Busy);
                            self.tell(conn, Told::Busy(wait), head, 0);
                        }
                    }
                }
            },
            Ask::Peers => {
                let client = self.conns[conn as usize].client;
                let named = host
                    .fetchers
                    .some_of(&id, FETCHERS_PER_ANSWER_MAX, random)
                    .into_iter()
                    .map(host_of)
                    .filter(|&host| host != client);
                let named: Vec<u32> = named.collect();
                let len = 16 + named.len() as u64 * (self.group.hello_len + HINT_ADDR_LEN);
                self.tell(conn, Told::Peers(named), len, 0);
            }
            Ask::Locate => {
                let (held, whole) = match &host.has {
                    Has::Nothing => (Holding::None, false),
                    Has::Some(arrivals) => (Holding::Partial(arrivals.have().count()), false),
                    Has::All => (Holding::Whole, true),
                };
                let body = encode_body(&[held]);
                let head = self.measure(|out| encode_frame(Kind::Locate, Status::Ok, &(), &body, out));
                self.tell(conn, Told::Located(held != Holding::None, whole), head, 0);
            }
        }
    }

    fn give(&mut self, conn: u32, kind: Kind, index: u32, since: u64) {
        let id = self.id;
        let c = &self.conns[conn as usize];
        let (server, client) = (c.server as usize, c.client);
        let host = &mut self.peers[server];
        host.fetchers.note(&id, key_of(client));
        let news = match &host.has {
            Has::Some(arrivals) if since > 0 => arrivals.news(since, NEW_HAVES_MAX),
            Has::All if since > 0 => Some(Delta::Whole),
            _ => None,
        };
        let len = self.geometry.chunk(index).map_or(0, |i| self.geometry.span(i).len);
        let host = &mut self.peers[server];
        host.tally.given += u64::from(len);
        let given = ChunkHeader { chunk: ChunkRef { file: id, index }, new_haves: news };
        let head = self.measure(|out| encode_head(kind, Status::Ok, &given, len + 1, out));
        // The trailer is one more.
        self.tell(conn, Told::Chunk(index, given.new_haves), head + 1, len.into());
    }

    fn tell_not_held(&mut self, conn: u32, kind: Kind) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        if let Some(upload) = c.upload.take() {
            self.peers[c.server as usize].uploads.end(upload, false, now);
        }
        let head = self.problem(kind, Status::NotFound);
        self.tell(conn, Told::NotHeld, head, 0);
    }

    fn problem(&mut self, kind: Kind, status: Status) -> u64 {
        self.measure(|out| encode_frame(kind, status, &Problem::default(), &[], out))
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

/// Those that wait are not looked at more often than this without a reason.
const LOOK_MIN: Duration = Duration::from_millis(3);
/// What a TLS record adds to a small message.
pub(super) const RECORD_LEN: u64 = 22;
/// What an address adds to an announce in the answer to `Peers`.
const HINT_ADDR_LEN: u64 = 8;
