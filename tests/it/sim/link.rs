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
        let c = &mut self.conns[conn as usize];
        if c.out > 0 && !c.is_queued && c.unacknowledged < BLOCKS_ON_THE_WAY {
            c.is_queued = true;
            self.peers[c.server as usize].sending.push_back(conn);
        }
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
            let wait = self.config.delay + if late { RETRANSMISSION } else { Duration::ZERO };
            let c = &mut self.conns[conn as usize];
            let client = &mut self.peers[c.client as usize];
            // What follows on the connection is not delivered before it; what comes on others is.
            let arrives = (now_ns + wait.as_nanos() as u64).max(c.held_up_ns);
            let begins = arrives.max(client.receives_until_ns);
            let at = begins + time(len.into(), client.down).as_nanos() as u64;
            if !late && arrives > c.held_up_ns {
                client.receives_until_ns = at;
            }
            c.held_up_ns = arrives;
            let all_sent = c.out == 0;
            self.at(at, Event::Received(conn, generation, len));
            if all_sent {
                self.all_sent(conn);
            }
            self.queue(conn);
        }
        self.transmit(peer);
    }

    pub(super) fn received(&mut self, conn: u32, len: u32) {
        let c = &mut self.conns[conn as usize];
        if self.peers[c.client as usize].frozen {
            return;
        }
        c.unacknowledged -= 1;
        let server = c.server;
        self.queue(conn);
        self.transmit(server);
        self.take_answer(conn, len.into());
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
            let generation = c.generation;
            let tally = &mut self.peers[c.client as usize].tally;
            tally.control += len + RECORD_LEN;
            tally.messages += 1;
            self.after(self.config.delay, Event::Requested(conn, generation));
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
const BLOCK_LEN: u64 = 64 << 10;
/// Blocks of a connection that are sent before the first of them is received.
const BLOCKS_ON_THE_WAY: u32 = 4;
/// What a lost block costs.
const RETRANSMISSION: Duration = Duration::from_millis(200);
