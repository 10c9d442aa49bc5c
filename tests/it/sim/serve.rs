//! The side of a connection that answers: [`UploadGate`] says when, and `content` what it is.

use gpb::internals::limits::SERVER_TICK;
use gpb::internals::proto::{Kind, Status};
use gpb::internals::server::limits::UPLOAD_LOOK_MIN;
use gpb::internals::swarm::{Admission, TurnCost, TurnPrice, UploadKind};

use super::peer::{Ask, State, Told};
use super::world::{Event, World};

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
}
