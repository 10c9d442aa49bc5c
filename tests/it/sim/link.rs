//! Bytes on their way: requests, and answers in blocks over uplinks and downlinks, one after the other.

use std::time::Duration;

use super::content::RECORD_LEN;
use super::peer::{Ask, State};
use super::world::{Event, World};

impl World {
    /// `conn` has `len` bytes more to send.
    pub(super) fn send(&mut self, conn: u32, len: u64) {
        let c = &mut self.conns[conn as usize];
        c.out += len;
        let server = c.server;
        self.queue(conn);
        self.transmit(server);
    }

    /// Takes its place among those that send, if there is something that may be sent now.
    fn queue(&mut self, conn: u32) {
        let is_long = self.is_long(conn);
        let c = &mut self.conns[conn as usize];
        let may_send = if is_long { c.flying < c.congestion as u64 } else { c.unacknowledged < BLOCKS_ON_THE_WAY };
        if c.out > 0 && !c.is_queued && may_send {
            c.is_queued = true;
            self.peers[c.server as usize].sending.push_back(conn);
        }
    }

    /// Whether the path takes longer than a block.
    fn is_long(&self, conn: u32) -> bool {
        let c = &self.conns[conn as usize];
        c.delay > time(BLOCK_LEN, self.peers[c.server as usize].up)
    }

    fn transmit(&mut self, peer: u32) {
        let host = &mut self.peers[peer as usize];
        if host.is_sending || host.frozen || !host.here {
            return;
        }
        while let Some(conn) = host.sending.pop_front() {
            let c = &mut self.conns[conn as usize];
            c.is_queued = false;
            if c.state != State::Open || c.out == 0 || c.server != peer {
                continue;
            }
            let len = c.out.min(BLOCK_LEN);
            c.out -= len;
            c.unacknowledged += 1;
            c.flying += len;
            host.is_sending = true;
            let (generation, took) = (c.generation, time(len, host.up));
            self.after(took, Event::Sent(peer, conn, generation, len as u32));
            return;
        }
    }

    pub(super) fn sent(&mut self, peer: u32, conn: u32, generation: u32, len: u32) {
        let now_ns = self.now_ns();
        self.peers[peer as usize].is_sending = false;
        if self.is_current(conn, generation) {
            let late = self.config.loss > 0.0 && self.rng.unit() < self.config.loss;
            let is_long = self.is_long(conn);
            let c = &mut self.conns[conn as usize];
            let wait = c.delay + if late { RETRANSMISSION } else { Duration::ZERO };
            if late && is_long {
                c.congestion = (c.congestion * BACK_OFF).max(BLOCK_LEN as f64);
                c.slow_start = false;
            }
            // What follows on the connection is not delivered before it; what comes on others is.
            let arrives = (now_ns + wait.as_nanos() as u64).max(c.held_up_ns);
            let in_turn = !late && arrives > c.held_up_ns;
            c.held_up_ns = arrives;
            let all_sent = c.out == 0;
            if self.config.places.is_empty() {
                // All paths are equally long: blocks arrive in the order in which they are sent.
                self.arrived((conn, generation), len, in_turn, arrives);
            } else {
                self.at(arrives, Event::Arrived(conn, generation, len, in_turn));
            }
            if all_sent {
                self.all_sent(conn);
            }
            self.queue(conn);
        }
        self.transmit(peer);
    }

    /// A block arrives at the downlink, and takes it for its time if it comes in turn.
    pub(super) fn arrived(&mut self, (conn, generation): (u32, u32), len: u32, in_turn: bool, arrives_ns: u64) {
        let client = &mut self.peers[self.conns[conn as usize].client as usize];
        let at = arrives_ns.max(client.receives_until_ns) + time(len.into(), client.down).as_nanos() as u64;
        if in_turn {
            client.receives_until_ns = at;
        }
        self.at(at, Event::Received(conn, generation, len));
    }

    pub(super) fn received(&mut self, conn: u32, len: u32) {
        let c = &mut self.conns[conn as usize];
        if self.peers[c.client as usize].frozen {
            return;
        }
        let (generation, delay) = (c.generation, c.delay);
        if self.is_long(conn) {
            self.after(delay, Event::Acknowledged(conn, generation, len));
        } else {
            self.acknowledged(conn, len);
        }
        self.take_answer(conn, len.into());
    }

    /// The sender of a block learns that it was received.
    pub(super) fn acknowledged(&mut self, conn: u32, len: u32) {
        let c = &mut self.conns[conn as usize];
        c.unacknowledged -= 1;
        c.flying -= u64::from(len);
        let (server, up) = (c.server, self.peers[c.server as usize].up);
        let full = up as f64 * c.delay.as_secs_f64() * 2.0 + BLOCK_LEN as f64;
        let more = f64::from(len) * if c.slow_start { 1.0 } else { BLOCK_LEN as f64 / c.congestion };
        c.congestion = (c.congestion + more).min(full * 2.0);
        self.queue(conn);
        self.transmit(server);
    }

    /// Puts what the requester asks for on the way, each request in a record of its own.
    pub(super) fn send_requests(&mut self, conn: u32) {
        let mut frames = Vec::new();
        let c = &mut self.conns[conn as usize];
        let _ = c.requester.send(|bytes| {
            frames.extend_from_slice(bytes);
            Ok::<(), ()>(())
        });
        for (ask, len) in Ask::all_in(&frames) {
            let c = &mut self.conns[conn as usize];
            c.requests.push_back(ask);
            let (generation, delay) = (c.generation, c.delay);
            let tally = &mut self.peers[c.client as usize].tally;
            tally.control += len + RECORD_LEN;
            tally.messages += 1;
            self.after(delay, Event::Requested(conn, generation));
        }
    }

    /// `len` bytes of answers came.
    fn take_answer(&mut self, conn: u32, mut len: u64) {
        let (now, now_ns) = (self.now(), self.now_ns());
        self.conns[conn as usize].heard_ns = now_ns;
        while len > 0 && self.conns[conn as usize].state == State::Open {
            let c = &mut self.conns[conn as usize];
            let Some(answer) = c.answers.front_mut() else { return };
            let n = len.min(answer.head);
            answer.head -= n;
            len -= n;
            let tally = &mut self.peers[c.client as usize].tally;
            tally.control += n;
            if !std::mem::replace(&mut answer.begun, true) {
                tally.messages += u64::from(answer.body == 0);
                self.head_came(conn);
            }
            let c = &mut self.conns[conn as usize];
            let Some(answer) = c.answers.front_mut() else { return };
            let n = if answer.head > 0 { 0 } else { len.min(answer.body) };
            let p = &mut self.peers[c.client as usize];
            if n > 0 {
                answer.body -= n;
                len -= n;
                c.requester.on_bytes(n, now);
                p.read[c.dial.peer.0 as usize] += n;
                p.progress_ns = now_ns;
            }
            if answer.head == 0 && answer.body == 0 {
                self.answered(conn);
            } else if c.requester.excess() == 0
                && !c.surplus
                && let Some(download) = &mut p.download
            {
                // More is asked for on the way, once that is needed.
                c.requester.fill(download, now);
                self.send_requests(conn);
            }
        }
    }
}

fn time(len: u64, rate: u64) -> Duration {
    Duration::from_nanos(len * 1_000_000_000 / rate.max(1))
}

/// Longest block.
pub(super) const BLOCK_LEN: u64 = 64 << 10;
/// Blocks of a connection that are sent before the first of them is received.
const BLOCKS_ON_THE_WAY: u32 = 4;
/// What is left of the bytes on the way when one of them is lost.
const BACK_OFF: f64 = 0.7;
/// What a lost block costs.
const RETRANSMISSION: Duration = Duration::from_millis(200);
