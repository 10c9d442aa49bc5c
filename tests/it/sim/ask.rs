//! The side of a connection that asks: carries bytes to and from the [`Requester`] that runs in production.
//!
//! [`Requester`]: gpb::internals::swarm::Requester

use gpb::internals::content::Bitfield;
use gpb::internals::proto::{PeerHint, Request};
use gpb::internals::swarm::{Answer as Short, AnswerStep, Arrival, ChunkTask, ConnectionEnd, ConnectionTurn, Head};

use super::content::RECORD_LEN;
use super::peer::{Ask, Fault, State};
use super::world::{Event, World};

impl World {
    /// What a connection does after each answer: asks for more, waits for work, or ends.
    pub(super) fn go_on(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        let p = &mut self.peers[c.client as usize];
        let Some(download) = &mut p.download else { return };
        if c.state != State::Open || p.frozen || !p.here {
            return;
        }
        let turn = c.requester.turn(download, c.surplus, now);
        self.send_requests(conn);
        match turn {
            ConnectionTurn::Receive => {}
            ConnectionTurn::Wait => self.rest(conn),
            ConnectionTurn::End { lost } => self.close(conn, ConnectionEnd::Idle { lost }),
        }
    }

    /// Puts what the requester asks for on the way, each request in a record of its own.
    fn send_requests(&mut self, conn: u32) {
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
    pub(super) fn take_answer(&mut self, conn: u32, mut len: u64) {
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

    fn head_came(&mut self, conn: u32) {
        let (now, file) = (self.now(), self.id);
        let c = &mut self.conns[conn as usize];
        let Some(download) = &mut self.peers[c.client as usize].download else { return };
        let (Some(answer), Some((_, len))) = (c.answers.front(), c.requester.expects()) else { return };
        let len = if answer.body > 0 { answer.body as usize + 1 } else { len };
        let (status, header, len) = answer.head(file, len);
        let head = Head { status, header: &header, body_len: len as u32 };
        c.step = Some(c.requester.on_head(download, head, now).unwrap());
    }

    /// The first answer is whole.
    fn answered(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        let client = c.client;
        let (Some(answer), Some(step)) = (c.answers.pop_front(), c.step.take()) else { return };
        let Some(download) = &mut self.peers[client as usize].download else { return };
        match step {
            AnswerStep::Chunk(task) => {
                let arrival = c.requester.on_trailer(download, Request::GOOD, now);
                if !self.chunk_came(conn, &task, arrival) {
                    return;
                }
            }
            AnswerStep::Layer(len) => {
                let whole = c.requester.on_body(download, &vec![0; len as usize], now).unwrap();
                if let Short::Layer { digests, .. } = whole {
                    let count = digests.len() as u32;
                    download.opened(0, (), &Bitfield::empty(count), &Bitfield::empty(count));
                    self.peers[client as usize].opens(count);
                    self.wake(client);
                }
                self.send_requests(conn);
            }
            AnswerStep::Body(_) => {
                let short = c.requester.on_body(download, &answer.body(), now).unwrap();
                if let Short::Peers { hints, .. } = &short {
                    let host = |hint: &PeerHint| hint.announce[..].try_into().map(u32::from_le_bytes).unwrap();
                    hints.iter().map(host).for_each(|host| self.named(client, host));
                }
                if short != Short::Done {
                    self.drive_now(client);
                }
            }
            AnswerStep::Deferred(_) | AnswerStep::NotHeld(_) => self.wake(client),
            AnswerStep::Small(_) | AnswerStep::Drain(_) | AnswerStep::Refused => {}
        }
        self.go_on(conn);
    }

    /// A chunk is whole. False if that ended the connection.
    fn chunk_came(&mut self, conn: u32, task: &ChunkTask<()>, arrival: Arrival) -> bool {
        let now = self.now();
        let lies = self.lies(self.conns[conn as usize].server);
        let c = &mut self.conns[conn as usize];
        let client = c.client;
        let p = &mut self.peers[client as usize];
        let Some(download) = &mut p.download else { return false };
        if arrival != Arrival::Verify || lies {
            p.tally.wasted += u64::from(task.len);
        }
        if arrival == Arrival::Verify && lies {
            download.forget(c.dial.peer);
            self.wake(client);
            self.close(conn, ConnectionEnd::Lied);
            return false;
        }
        if arrival != Arrival::Verify {
            return true;
        }
        let came = c.requester.on_chunk(download, now);
        let leaves = p.takes(&self.geometry, task.index.get()) && matches!(p.fault, Fault::Leaves | Fault::Freezes);
        if came.whole {
            self.finish(client);
        } else if leaves {
            self.at(self.now_ns(), Event::Leave(client));
        }
        !came.whole && !leaves
    }
}
