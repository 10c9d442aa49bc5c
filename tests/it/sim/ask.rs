//! The side of a connection that asks, as `client::fetcher` does, and the download around it, as `client::driver`.

use std::time::Duration;

use gpb::internals::client::limits::{GROWTH_LOOK, LATE_MAX, LOOK_AGAIN};
use gpb::internals::content::{Bitfield, Geometry};
use gpb::internals::limits::WINDOW_MAX;
use gpb::internals::peers::limits::DIAL_TIMEOUT;
use gpb::internals::proto::{ChunkAsk, ChunkRef, Delta, LayerRange, Request, Since, encode_request};
use gpb::internals::swarm::{Chunks, Dial, Ending, Held, PeerHandle, Work};

use super::peer::{Answer, Ask, Asked, Conn, Fault, State, Told, What};
use super::serve::RECORD_LEN;
use super::world::{Event, World, key_of};

impl World {
    /// `peer` hears that `host` is there.
    pub(super) fn meet(&mut self, peer: u32, host: u32, is_known_to_hold: bool) {
        let now = self.now();
        let p = &mut self.peers[peer as usize];
        let Some(schedule) = &mut p.schedule else { return };
        if peer == host || p.known.contains_key(&host) {
            return;
        }
        let Some(handle) = schedule.peer(key_of(host)) else { return };
        p.known.insert(host, handle);
        p.hosts.push(host);
        p.read.push(0);
        p.outgoing.push(None);
        if is_known_to_hold {
            schedule.set_held(0, handle, Held::Whole);
        }
        p.mesh.meet(handle, 0, is_known_to_hold, now);
        schedule.grows(handle, now);
    }

    /// `peer` is told that `host` fetches the file.
    fn named(&mut self, peer: u32, host: u32) {
        self.meet(peer, host, false);
        let p = &mut self.peers[peer as usize];
        if let (Some(schedule), Some(&handle)) = (&mut p.schedule, p.known.get(&host)) {
            schedule.named(0, handle);
        }
    }

    /// Looks after the connections of a download, and does so again in a while.
    pub(super) fn drive(&mut self, peer: u32) {
        let (now, now_ns) = (self.now(), self.now_ns());
        let p = &mut self.peers[peer as usize];
        if p.drive_ns != now_ns {
            return;
        }
        p.drive_ns = u64::MAX;
        if !p.fetches() {
            return;
        }
        let Some(schedule) = &p.schedule else { return };
        let holds = |handle: PeerHandle| schedule.useful(handle) > 0;
        let dials = p.mesh.dial(holds, now);
        let read = &p.read;
        let poor = p.mesh.review(|h| read[h.0 as usize], |h| schedule.backlog(h), holds, now);
        for dial in dials {
            self.dial(peer, dial);
        }
        for conn in
            poor.into_iter().filter_map(|h| self.peers[peer as usize].outgoing[h.0 as usize]).collect::<Vec<_>>()
        {
            self.conns[conn as usize].surplus = true;
            self.go_on(conn);
        }
        self.drive_after(peer, GROWTH_LOOK);
    }

    fn drive_after(&mut self, peer: u32, wait: Duration) {
        let at = self.now_ns() + wait.as_nanos() as u64;
        let due = &mut self.peers[peer as usize].drive_ns;
        if at < *due {
            *due = at;
            self.at(at, Event::Drive(peer));
        }
    }

    fn dial(&mut self, peer: u32, dial: Dial) {
        let (now, now_ns) = (self.now(), self.now_ns());
        let p = &mut self.peers[peer as usize];
        let host = p.hosts[dial.peer.0 as usize];
        p.tally.dials += 1;
        let conn = match self.free.pop() {
            Some(conn) => {
                let generation = self.conns[conn as usize].generation + 1;
                self.conns[conn as usize] = Conn::new(generation, peer, host, dial, now, now_ns);
                conn
            }
            None => {
                self.conns.push(Conn::new(0, peer, host, dial, now, now_ns));
                self.conns.len() as u32 - 1
            }
        };
        self.peers[peer as usize].outgoing[dial.peer.0 as usize] = Some(conn);
        let generation = self.conns[conn as usize].generation;
        let there = &self.peers[host as usize];
        if there.here && !there.frozen {
            let wait = self.config.delay * 2 * SETUP_ROUND_TRIPS;
            self.after(wait, Event::Dialed(conn, generation));
        } else {
            self.after(DIAL_TIMEOUT, Event::Broken(conn, generation));
        }
    }

    pub(super) fn dialed(&mut self, conn: u32) {
        let c = &self.conns[conn as usize];
        let (client, server, generation, locate) = (c.client, c.server, c.generation, c.dial.locate);
        if !self.peers[server as usize].here || self.peers[server as usize].frozen {
            self.after(DIAL_TIMEOUT, Event::Broken(conn, generation));
            return;
        }
        self.peers[server as usize].incoming.push(conn);
        let setup = SETUP_LEN + self.group.hello_len * 2;
        let p = &mut self.peers[client as usize];
        p.tally.control += setup;
        p.tally.messages += 2;
        self.conns[conn as usize].state = State::Open;
        if locate {
            self.request(conn, &Request::Locate(vec![self.id]), What::Locate, false);
        }
        self.go_on(conn);
    }

    /// What a connection does after each answer: asks for more, waits for work, or ends.
    pub(super) fn go_on(&mut self, conn: u32) {
        if self.conns[conn as usize].state != State::Open {
            return;
        }
        if !self.conns[conn as usize].surplus && !self.conns[conn as usize].rests {
            self.ask(conn);
        }
        let c = &mut self.conns[conn as usize];
        if !c.pending.is_empty() {
            return;
        }
        let p = &mut self.peers[c.client as usize];
        let useful = p.schedule.as_ref().is_some_and(|s| s.useful(c.dial.peer) > 0);
        if c.surplus || !useful {
            let lost = c.lost;
            return self.close(conn, Ending::Idle { lost });
        }
        let client = c.client;
        if !std::mem::replace(&mut c.is_idle, true) {
            p.idle.push(conn);
        }
        self.look_after(client, LOOK_AGAIN);
    }

    /// Connections without work look whether there is some by now.
    pub(super) fn look(&mut self, peer: u32) {
        let (now, now_ns) = (self.now(), self.now_ns());
        let due = &mut self.peers[peer as usize].look_ns;
        if *due != now_ns {
            return;
        }
        *due = u64::MAX;
        for conn in std::mem::take(&mut self.peers[peer as usize].idle) {
            let c = &mut self.conns[conn as usize];
            if c.client == peer && std::mem::take(&mut c.is_idle) && c.state == State::Open {
                c.window.pause(now);
                c.rests = false;
                self.go_on(conn);
            }
        }
    }

    /// Something came up for those without work.
    fn wake(&mut self, peer: u32) {
        if !self.peers[peer as usize].idle.is_empty() {
            self.look_after(peer, Duration::ZERO);
        }
    }

    fn look_after(&mut self, peer: u32, wait: Duration) {
        let at = self.now_ns() + wait.as_nanos() as u64;
        let due = &mut self.peers[peer as usize].look_ns;
        if at < *due {
            *due = at;
            self.at(at, Event::Look(peer));
        }
    }

    /// Fills the window.
    fn ask(&mut self, conn: u32) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        let p = &mut self.peers[c.client as usize];
        if p.frozen || !p.here {
            return;
        }
        let Some(schedule) = &mut p.schedule else { return };
        let handle = c.dial.peer;
        let alone = c.pending.is_empty() && c.in_flight == 0;
        let relocate = schedule.relocate(handle, now).is_some();
        let mut works = Vec::new();
        while c.pending.len() + works.len() < WINDOW_MAX as usize
            && (c.in_flight == 0 || c.window.excess(c.in_flight) == 0)
        {
            let late = c.pending.len() + works.len() < LATE_MAX;
            let Some(work) = schedule.next_work(handle, now, late) else { break };
            c.in_flight += c.window.asked(&work);
            works.push(work);
        }
        for (n, work) in works.into_iter().enumerate() {
            let (id, file) = (self.id, self.id);
            let request = match &work {
                Work::Chunk { index, since, .. } => {
                    Request::Chunk(ChunkAsk { chunk: ChunkRef { file, index: index.get() }, since: *since })
                }
                Work::Small { index, .. } => {
                    Request::Chunk(ChunkAsk { chunk: ChunkRef { file, index: index.get() }, since: 0 })
                }
                Work::Any { chunks, .. } => Request::Any(Since { file, revision: 0 }, chunks.clone()),
                Work::Have { revision, .. } => Request::Have(Since { file, revision: *revision }),
                Work::Peers { .. } => Request::Peers(Some(file)),
                Work::Layer { .. } => {
                    Request::Layer(LayerRange { file, first: 0, count: Geometry::new(id.len).chunk_count() })
                }
            };
            self.request(conn, &request, What::Work(work), alone && n == 0);
        }
        if relocate {
            self.request(conn, &Request::Locate(vec![self.id]), What::Locate, false);
        }
    }

    fn request(&mut self, conn: u32, request: &Request, what: What, alone: bool) {
        let now = self.now();
        let len = self.measure(|out| encode_request(request, out)) + RECORD_LEN;
        let ask = match request {
            Request::Chunk(ask) => Ask::Chunk { index: ask.chunk.index, since: ask.since },
            Request::Any(_, chunks) => Ask::Any(chunks.clone()),
            Request::Have(since) => Ask::Have(since.revision),
            Request::Layer(_) => Ask::Layer,
            Request::Peers(_) => Ask::Peers,
            _ => Ask::Locate,
        };
        let c = &mut self.conns[conn as usize];
        c.pending.push_back(Asked { what, sent: now, alone });
        c.requests.push_back(ask);
        let generation = c.generation;
        let tally = &mut self.peers[c.client as usize].tally;
        tally.control += len;
        tally.messages += 1;
        self.after(self.config.delay, Event::Requested(conn, generation));
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
                if let Some(asked) = c.pending.front()
                    && asked.alone
                {
                    c.window.delay(now.saturating_duration_since(asked.sent));
                }
                tally.messages += u64::from(answer.body == 0);
                self.head_came(conn);
            }
            let c = &mut self.conns[conn as usize];
            let Some(answer) = c.answers.front_mut() else { return };
            let n = if answer.head > 0 { 0 } else { len.min(answer.body) };
            if n > 0 {
                answer.body -= n;
                len -= n;
                c.window.add(n, now);
                c.in_flight -= n;
                let p = &mut self.peers[c.client as usize];
                p.read[c.dial.peer.0 as usize] += n;
                p.progress_ns = now_ns;
            }
            if answer.head > 0 || answer.body > 0 {
                // More is asked for on the way, once that is needed.
                if c.window.excess(c.in_flight) == 0 && !c.surplus && !c.rests {
                    self.ask(conn);
                }
                continue;
            }
            self.answered(conn);
        }
    }

    /// The head of a chunk tells news, and which one it is.
    fn head_came(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        let (client, handle) = (c.client, c.dial.peer);
        let Some(Answer { told: Told::Chunk(index, news), .. }) = c.answers.front_mut() else { return };
        let (index, news) = (*index, news.take());
        let Some(schedule) = &mut self.peers[client as usize].schedule else { return };
        if let Some(asked) = c.pending.front_mut()
            && let What::Work(work @ Work::Any { .. }) = &mut asked.what
        {
            let Some(chosen) = schedule.chosen(work, index, handle, asked.sent) else {
                panic!("chunk {index} was not asked for");
            };
            c.in_flight -= self.geometry.chunk_len();
            if let Work::Chunk { len, .. } = &chosen {
                c.in_flight += u64::from(*len);
            }
            *work = chosen;
        }
        if let Some(delta) = news {
            self.take_delta(client, handle, &delta);
        }
    }

    fn take_delta(&mut self, client: u32, handle: PeerHandle, delta: &Delta) {
        let count = self.geometry.chunk_count();
        let Some(schedule) = &mut self.peers[client as usize].schedule else { return };
        match delta {
            Delta::Whole => schedule.set_chunks(0, handle, 0, Chunks::All),
            Delta::Full { revision, bits } => {
                if let Some(bits) = Bitfield::from_bytes(bits, count) {
                    schedule.set_chunks(0, handle, *revision, Chunks::These(&bits));
                }
            }
            Delta::New { revision, chunks } => schedule.set_chunks(0, handle, *revision, Chunks::More(chunks)),
        }
    }

    /// The first answer is whole.
    fn answered(&mut self, conn: u32) {
        let now = self.now();
        let lies = self.lies(self.conns[conn as usize].server);
        let c = &mut self.conns[conn as usize];
        let (client, handle) = (c.client, c.dial.peer);
        let (Some(answer), Some(asked)) = (c.answers.pop_front(), c.pending.pop_front()) else { return };
        let Some(schedule) = &mut self.peers[client as usize].schedule else { return };
        match (answer.told, asked.what) {
            (Told::NotHeld, What::Work(work)) => {
                c.in_flight -= match &work {
                    Work::Chunk { len, .. } | Work::Small { len, .. } => u64::from(*len),
                    Work::Any { .. } => self.geometry.chunk_len(),
                    _ => 0,
                };
                c.lost = true;
                schedule.give_back(&work, handle);
                schedule.not_held(0, handle);
                self.wake(client);
            }
            (Told::Stale, What::Work(work)) => {
                c.in_flight -= match &work {
                    Work::Chunk { len, .. } => u64::from(*len),
                    _ => self.geometry.chunk_len(),
                };
                c.rests = true;
                schedule.give_back(&work, handle);
                self.wake(client);
            }
            (Told::Chunk(..), What::Work(Work::Chunk { index, len, .. })) => {
                if !schedule.is_wanted(0, index.get()) {
                    schedule.chunk_came(0, index.get(), handle, now);
                    self.peers[client as usize].tally.wasted += u64::from(len);
                } else if lies {
                    schedule.forget(handle);
                    self.peers[client as usize].tally.wasted += u64::from(len);
                    self.wake(client);
                    return self.close(conn, Ending::Lied);
                } else {
                    c.useful = true;
                    let (_, whole) = schedule.chunk_came(0, index.get(), handle, now);
                    let p = &mut self.peers[client as usize];
                    let half = p.takes(&self.geometry, index.get());
                    if whole {
                        return self.finish(client);
                    }
                    if half && matches!(p.fault, Fault::Leaves | Fault::Freezes) {
                        return self.after(Duration::ZERO, Event::Leave(client));
                    }
                }
            }
            (Told::Have(delta), _) => {
                if let Some(delta) = delta {
                    self.take_delta(client, handle, &delta);
                }
            }
            (Told::Layer, _) => {
                if schedule.layer_came(0) {
                    let count = self.geometry.chunk_count();
                    schedule.opened(0, (), &Bitfield::empty(count), &Bitfield::empty(count));
                    self.peers[client as usize].opens(count);
                    self.wake(client);
                }
            }
            (Told::Busy(wait), _) => schedule.list_busy(0, handle, wait, now),
            (Told::Peers(hosts), _) => {
                for host in hosts {
                    self.named(client, host);
                }
                self.drive_now(client);
            }
            (Told::Located(some, whole), _) => {
                match (some, whole) {
                    (false, _) => schedule.not_held(0, handle),
                    (true, true) => schedule.set_held(0, handle, Held::Whole),
                    (true, false) => schedule.set_held(0, handle, Held::Partial),
                }
                self.drive_now(client);
            }
            (Told::NotHeld | Told::Stale, What::Locate) | (Told::Chunk(..), _) => {}
        }
        self.go_on(conn);
    }

    /// `peer` has the whole file: its connections are not needed any more.
    fn finish(&mut self, peer: u32) {
        self.peers[peer as usize].done_ns = Some(self.now_ns());
        for conn in self.outgoing_of(peer) {
            self.close(conn, Ending::Stopped);
        }
        let p = &mut self.peers[peer as usize];
        if let Some(schedule) = &mut p.schedule {
            schedule.finished(0);
        }
        p.has = super::peer::Has::All;
        self.waiting -= u32::from(self.peers[peer as usize].is_to_fetch());
        if let Some(stay) = self.config.stay {
            self.after(stay, Event::Leave(peer));
        }
        self.changed(peer);
    }

    pub(super) fn outgoing_of(&self, peer: u32) -> Vec<u32> {
        self.peers[peer as usize].outgoing.iter().flatten().copied().collect()
    }

    /// A connection ends; what was asked on it is free for others.
    pub(super) fn close(&mut self, conn: u32, ending: Ending) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        if c.state == State::Closed {
            return;
        }
        c.state = State::Closed;
        c.is_idle = false;
        let (client, server, dial, useful) = (c.client, c.server, c.dial, c.useful);
        let (upload, list) = (c.upload.take(), c.list.take());
        self.leave_waiting(conn);
        let c = &mut self.conns[conn as usize];
        let pending = std::mem::take(&mut c.pending);
        c.requests = Default::default();
        c.answers = Default::default();
        let host = &mut self.peers[server as usize];
        host.incoming.retain(|&i| i != conn);
        if let Some(upload) = upload {
            host.uploads.end(upload, false, now);
        }
        if let Some(list) = list {
            host.lists.end(list, false, now);
        }
        let p = &mut self.peers[client as usize];
        p.outgoing[dial.peer.0 as usize] = None;
        let jitter = self.rng.unit();
        let Some(schedule) = &mut p.schedule else { return };
        let gives_back = !pending.is_empty();
        for asked in pending {
            if let What::Work(work) = asked.what {
                schedule.give_back(&work, dial.peer);
            }
        }
        let holds = schedule.useful(dial.peer) > 0;
        p.mesh.ended(dial, ending, (useful, holds), now, jitter);
        self.free.push(conn);
        if gives_back {
            self.wake(client);
        }
        if upload.is_some() {
            self.after(Duration::ZERO, Event::Retry(server));
        }
        if ending != Ending::Stopped {
            self.drive_now(client);
        }
    }

    /// The thread that watches over a download is woken.
    pub(super) fn drive_now(&mut self, peer: u32) {
        self.drive_after(peer, Duration::ZERO);
    }

    /// The dialer notices that nothing comes.
    pub(super) fn broken(&mut self, conn: u32) {
        self.close(conn, Ending::Failed);
    }
}

/// TCP, TLS, `Hello`.
const SETUP_ROUND_TRIPS: u32 = 3;
/// Bytes of a mutual TLS 1.3 handshake with raw public keys, both ways, as measured on a socket.
const SETUP_LEN: u64 = 1200;
