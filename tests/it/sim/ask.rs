//! The side of a connection that asks: what the [`Requester`] that runs in production makes of each answer.
//!
//! [`Requester`]: gpb::internals::swarm::Requester

use gpb::internals::content::Bitfield;
use gpb::internals::proto::{PeerHint, Request};
use gpb::internals::swarm::{Answer as Short, AnswerStep, Arrival, ChunkTask, ConnectionEnd, ConnectionTurn, Head};

use super::peer::{Fault, State};
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

    /// An answer begins.
    pub(super) fn head_came(&mut self, conn: u32) {
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
    pub(super) fn answered(&mut self, conn: u32) {
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
            AnswerStep::Layer { len, .. } => {
                c.requester.add_layer_part(&vec![0; len as usize]);
                let whole = c.requester.on_layer_part(download, now);
                if let Short::Layer { digests, .. } = whole {
                    let count = digests.len() as u32;
                    download.opened(0, (), &Bitfield::empty(count), &Bitfield::empty(count));
                    self.peers[client as usize].opens(count);
                    self.wake(client);
                }
                self.send_requests(conn);
            }
            AnswerStep::Body(_) => {
                let short = c.requester.on_body(download, c.requester.read_body(&answer.body()).unwrap());
                if let Short::Peers { hints, .. } = &short {
                    let host = |hint: &PeerHint| hint.announce[..].try_into().map(u32::from_le_bytes).unwrap();
                    hints.iter().map(host).for_each(|host| self.named(client, host));
                }
                if short != Short::Done {
                    self.drive_now(client);
                }
            }
            AnswerStep::Deferred | AnswerStep::NotHeld(_) => self.wake(client),
            AnswerStep::Small(_) | AnswerStep::Settled | AnswerStep::Refused => {}
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
