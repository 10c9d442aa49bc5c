//! The download around the connections, as `client::coordinator`: whom to dial, when to look, when to end.

use std::time::Duration;

use gpb::internals::client::limits::{COORDINATE_EVERY, LOOK_AGAIN};
use gpb::internals::peers::limits::DIAL_TIMEOUT;
use gpb::internals::swarm::{ConnectionEnd, Dial, Extent, PeerHandle};

use super::peer::{Conn, State};
use super::world::{Event, World, key_of};

impl World {
    /// `peer` hears that `host` is there.
    pub(super) fn meet(&mut self, peer: u32, host: u32, is_known_to_hold: bool) {
        let now = self.now();
        let p = &mut self.peers[peer as usize];
        let Some(download) = &mut p.download else { return };
        if peer == host || p.known.contains_key(&host) {
            return;
        }
        let Some(handle) = download.peer(key_of(host)) else { return };
        p.known.insert(host, handle);
        p.hosts.push(host);
        p.read.push(0);
        p.outgoing.push(None);
        if is_known_to_hold {
            download.set_held(0, handle, Extent::Whole);
        }
        p.mesh.meet(handle, 0, is_known_to_hold, now);
        download.grows(handle, now);
    }

    /// `peer` is told that `host` fetches the file.
    pub(super) fn named(&mut self, peer: u32, host: u32) {
        self.meet(peer, host, false);
        let p = &mut self.peers[peer as usize];
        if let (Some(download), Some(&handle)) = (&mut p.download, p.known.get(&host)) {
            download.named(0, handle);
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
        let Some(download) = &p.download else { return };
        let holds = |handle: PeerHandle| download.useful(handle) > 0;
        let dials = p.mesh.dial(holds, now);
        let read = &p.read;
        let poor = p.mesh.rotate(|h| read[h.0 as usize], |h| download.backlog(h), holds, now);
        for dial in dials {
            self.dial(peer, dial);
        }
        for conn in
            poor.into_iter().filter_map(|h| self.peers[peer as usize].outgoing[h.0 as usize]).collect::<Vec<_>>()
        {
            self.conns[conn as usize].surplus = true;
            self.go_on(conn);
        }
        self.drive_after(peer, COORDINATE_EVERY);
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
        let path = self.config.path(peer, host);
        let conn = match self.free.pop() {
            Some(conn) => {
                let generation = self.conns[conn as usize].generation + 1;
                self.conns[conn as usize] = Conn::new(generation, (peer, host), dial, path, (now, now_ns));
                conn
            }
            None => {
                self.conns.push(Conn::new(0, (peer, host), dial, path, (now, now_ns)));
                self.conns.len() as u32 - 1
            }
        };
        self.peers[peer as usize].outgoing[dial.peer.0 as usize] = Some(conn);
        let generation = self.conns[conn as usize].generation;
        let there = &self.peers[host as usize];
        if there.here && !there.frozen {
            let wait = self.conns[conn as usize].delay * 2 * SETUP_ROUND_TRIPS;
            self.after(wait, Event::Dialed(conn, generation));
        } else {
            self.after(DIAL_TIMEOUT, Event::Broken(conn, generation));
        }
    }

    pub(super) fn dialed(&mut self, conn: u32) {
        let c = &self.conns[conn as usize];
        let (client, server, generation) = (c.client, c.server, c.generation);
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
        self.go_on(conn);
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
                c.requester.resume(now);
                self.go_on(conn);
            }
        }
    }

    /// Something came up for those without work.
    pub(super) fn wake(&mut self, peer: u32) {
        if !self.peers[peer as usize].idle.is_empty() {
            self.look_after(peer, Duration::ZERO);
        }
    }

    /// A connection has no work: it looks again in a while.
    pub(super) fn rest(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        let client = c.client;
        if !std::mem::replace(&mut c.is_idle, true) {
            self.peers[client as usize].idle.push(conn);
        }
        self.look_after(client, LOOK_AGAIN);
    }

    fn look_after(&mut self, peer: u32, wait: Duration) {
        let at = self.now_ns() + wait.as_nanos() as u64;
        let due = &mut self.peers[peer as usize].look_ns;
        if at < *due {
            *due = at;
            self.at(at, Event::Look(peer));
        }
    }

    /// `peer` has the whole file: its connections are not needed any more.
    pub(super) fn finish(&mut self, peer: u32) {
        self.peers[peer as usize].done_ns = Some(self.now_ns());
        for conn in self.outgoing_of(peer) {
            self.close(conn, ConnectionEnd::Stopped);
        }
        let p = &mut self.peers[peer as usize];
        if let Some(download) = &mut p.download {
            download.finished(0);
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
    pub(super) fn close(&mut self, conn: u32, ending: ConnectionEnd) {
        let now = self.now();
        let c = &mut self.conns[conn as usize];
        if c.state == State::Closed {
            return;
        }
        c.state = State::Closed;
        c.is_idle = false;
        let (client, server, dial) = (c.client, c.server, c.dial);
        let uploads = c.slot.is_some();
        c.requests = Default::default();
        c.answers = Default::default();
        let host = &mut self.peers[server as usize];
        host.incoming.retain(|&i| i != conn);
        host.gate.leave(conn as usize);
        self.end_slot(conn, false);
        let p = &mut self.peers[client as usize];
        p.outgoing[dial.peer.0 as usize] = None;
        let jitter = self.rng.unit();
        let Some(download) = &mut p.download else { return };
        let requester = &mut self.conns[conn as usize].requester;
        let gives_back = requester.pending() > 0;
        requester.end(download);
        let useful = requester.is_useful();
        let holds = download.useful(dial.peer) > 0;
        p.mesh.ended(dial, ending, (useful, holds), now, jitter);
        self.free.push(conn);
        if gives_back {
            self.wake(client);
        }
        if uploads {
            self.after(Duration::ZERO, Event::Retry(server));
        }
        if ending != ConnectionEnd::Stopped {
            self.drive_now(client);
        }
    }

    /// The thread that watches over a download is woken.
    pub(super) fn drive_now(&mut self, peer: u32) {
        self.drive_after(peer, Duration::ZERO);
    }

    /// The dialer notices that nothing comes.
    pub(super) fn broken(&mut self, conn: u32) {
        self.close(conn, ConnectionEnd::Failed);
    }
}

/// TCP and TLS; requests go out together with `Hello`.
const SETUP_ROUND_TRIPS: u32 = 2;
/// Bytes of a mutual TLS 1.3 handshake with raw public keys, both ways, as measured on a socket.
const SETUP_LEN: u64 = 1200;
