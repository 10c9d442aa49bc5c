//! One connection of a download: a loop of socket, buffer, verification and disk.
//!
//! The [`Requester`] decides what is asked and what each answer means; this file moves the bytes,
//! and `chunks` verifies and writes the chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::debug;

use crate::client::disk_queues::DiskJob;
use crate::client::limits::LOOK_AGAIN;
use crate::client::shared::DownloadShared;
use crate::limits::CLOSE_DRAIN;
use crate::net::StreamError;
use crate::peers::{AskError, Session};
use crate::proto::{ChunkRef, PeerHint, Request, Status};
use crate::store::PartialFile;
use crate::swarm::{
    Answer, AnswerError, AnswerPace, AnswerStep, ConnectionEnd, ConnectionTurn, Dial, FileNo, Head, PeerHandle,
    Requester,
};

mod chunks;
mod early;

pub(crate) use early::EarlyRequests;

/// What the connections to one peer share.
#[derive(Default)]
pub(crate) struct PeerConnections {
    /// Bytes of chunks that came on them, good or not.
    pub(crate) read: AtomicU64,
    /// The number of a connection that is no longer needed.
    pub(crate) surplus: AtomicU64,
}

impl PeerConnections {
    fn is_surplus(&self, number: u64) -> bool {
        self.surplus.load(Ordering::Relaxed) == number
    }
}

/// A connection of a download.
pub(crate) struct Fetcher<'a> {
    shared: &'a DownloadShared,
    session: Session,
    handle: PeerHandle,
    connections: &'a PeerConnections,
    /// Number of the connection in the download.
    number: u64,
    requester: Requester<Arc<PartialFile>>,
    /// One-chunk files that came and are not verified yet, in the order in which they came.
    unverified: Vec<Vec<u8>>,
    /// Until then the first requests wait for others.
    gathers_until: Instant,
    pace: AnswerPace,
    /// The answer that was being read came too slowly.
    is_slow: bool,
    /// The chunk that showed that the peer lies.
    bad: Option<ChunkRef>,
}

impl<'a> Fetcher<'a> {
    /// Takes over the session that `dial` led to, as connection `number` of the download; what was asked `early` is
    /// unanswered on it.
    pub(crate) fn new(
        shared: &'a DownloadShared,
        session: Session,
        connections: &'a PeerConnections,
        number: u64,
        dial: Dial,
        early: &mut EarlyRequests,
    ) -> Self {
        let now = Instant::now();
        let begin = || Requester::new(dial.peer, dial.locate, session.round_trip, now);
        let mut requester = early.take().unwrap_or_else(begin);
        requester.path_is_at_most(session.round_trip);
        Fetcher {
            shared,
            session,
            handle: dial.peer,
            connections,
            number,
            gathers_until: requester.gathers_until(now),
            requester,
            unverified: Vec::new(),
            pace: AnswerPace::new(dial.failures, now),
            is_slow: false,
            bad: None,
        }
    }

    /// Works until nothing is left for this peer, the connection fails, or the download is over.
    /// Afterwards, everything that the peer was asked for and did not send is free for others. Also
    /// returns whether anything useful came.
    pub(crate) fn run(mut self) -> (Result<ConnectionEnd, AskError>, bool) {
        let begun = match self.session.dialed.closer() {
            Ok(socket) => {
                let is_stopped = || self.shared.is_stopped();
                if !self.shared.sessions.begin(self.number, self.session.peer, socket, is_stopped) {
                    let rests = self.requester.pending() == 0;
                    self.requester.end(&mut self.shared.state());
                    if rests {
                        self.shared.pool.checkin(self.session);
                    }
                    return (Ok(ConnectionEnd::Stopped), false);
                }
                // Revoking a key cuts off the sessions at work; a key that was revoked before is
                // found here.
                match self.shared.ctx.trust.allows(&self.session.peer) {
                    true => Ok(()),
                    false => Err(AskError::Untrusted(self.session.peer)),
                }
            }
            Err(e) => Err(AskError::Stream(e.into())),
        };
        let mut end = begun.and_then(|()| self.work());
        if self.is_slow {
            end = Err(AskError::Slow);
        }
        if end.is_err() && self.pace.overstays(self.connections.is_surplus(self.number), Instant::now()) {
            end = Ok(ConnectionEnd::Cut);
        }
        // However the connection ended, the files that came whole are good, or show a lie.
        let end = self.verify_small().map_or(end, Ok);
        let is_idle = matches!(end, Ok(ConnectionEnd::Idle { .. }));
        let end = if self.shared.is_stopped() { Ok(ConnectionEnd::Stopped) } else { end };
        let unanswered = self.requester.pending();
        let redirected = self.requester.end(&mut self.shared.state());
        if redirected > 0 && !self.shared.is_stopped() {
            self.shared.stats.redirects.fetch_add(redirected, Ordering::Relaxed);
            debug!("redirected peer={} requests={redirected}", self.session.peer);
        }
        self.shared.wake_connections();
        let (shared, number, useful) = (self.shared, self.number, self.requester.is_useful());
        match end {
            // The end of a download is none of a session that waits for work.
            _ if is_idle && shared.sessions.end(number) => shared.pool.checkin(self.session),
            Ok(ConnectionEnd::Lied) => self.tell_bad(unanswered),
            _ => {}
        }
        shared.sessions.end(number);
        (end, useful)
    }

    fn work(&mut self) -> Result<ConnectionEnd, AskError> {
        loop {
            if self.shared.is_stopped() {
                let rests = self.requester.pending() == 0;
                return Ok(if rests { ConnectionEnd::Idle { lost: false } } else { ConnectionEnd::Stopped });
            }
            if (self.requester.pending() == 0 || self.is_verifying_due())
                && let Some(end) = self.verify_small()
            {
                return Ok(end);
            }
            let surplus = self.connections.is_surplus(self.number);
            if !self.requester.is_locating() && self.pace.overstays(surplus, Instant::now()) {
                return Ok(ConnectionEnd::Cut);
            }
            let mut state = self.shared.state();
            let now = Instant::now();
            match self.requester.turn(&mut state, surplus, now) {
                ConnectionTurn::Receive
                    if now < self.gathers_until && state.is_checking() && self.requester.gathers() =>
                {
                    self.shared.wait_for_work(state, self.gathers_until - now);
                    continue;
                }
                ConnectionTurn::Receive => drop(state),
                ConnectionTurn::Wait => {
                    // Time alone can bring work, too: chunks that another peer has kept back for
                    // too long.
                    self.shared.sessions.set_rests(self.number, true);
                    self.shared.wait_for_work(state, LOOK_AGAIN);
                    self.shared.sessions.set_rests(self.number, false);
                    self.requester.resume(Instant::now());
                    continue;
                }
                ConnectionTurn::End { lost } => return Ok(ConnectionEnd::Idle { lost }),
            }
            self.send()?;
            if let Some(end) = self.receive()? {
                return Ok(end);
            }
        }
    }

    /// Sends what the requester asks for.
    fn send(&mut self) -> Result<(), AskError> {
        let (session, idle) = (&mut self.session, self.shared.idle());
        self.requester.send(|frames| session.send_frames(frames, Instant::now() + idle))
    }

    /// Takes the next answer. `Some` when the connection is to end.
    fn receive(&mut self) -> Result<Option<ConnectionEnd>, AskError> {
        let Some((kind, body_max)) = self.requester.expects() else { return Ok(None) };
        let (status, body_len) = self.session.receive_head(kind, body_max, Instant::now() + self.shared.idle())?;
        let head = Head { status, header: self.session.header_bytes(), body_len };
        let now = Instant::now();
        self.pace.begin(now);
        let step = self.requester.on_head(&mut self.shared.state(), head, now)?;
        match step {
            AnswerStep::Chunk(task) => return self.receive_chunk(&task),
            AnswerStep::Small(task) => self.receive_small(&task)?,
            AnswerStep::Layer { file, len } => self.receive_layer(file, len)?,
            AnswerStep::Body(len) => {
                let body = self.session.body(len, Instant::now() + self.shared.idle())?;
                self.take_body(&body)?;
            }
            AnswerStep::Settled => {}
            AnswerStep::Deferred => {
                self.shared.stats.deferred();
                self.shared.wake_connections();
            }
            AnswerStep::NotHeld(file) => self.redirect(file, status),
            AnswerStep::Refused => return Err(self.session.problem(status)),
        }
        Ok(None)
    }

    /// Reads part of a layer, within a time in all if another peer could be asked for it.
    fn receive_layer(&mut self, file: FileNo, len: u32) -> Result<(), AskError> {
        let shared = self.shared;
        let mut buffer = shared.buffers.take(len as usize, self.requester.is_useful()).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..len as usize];
        let (pace, connections, number, handle) = (&mut self.pace, self.connections, self.number, self.handle);
        let is_slow = &mut self.is_slow;
        self.session.dialed.read_body(bytes, shared.idle(), &mut |n| {
            shared.stats.arrived(n as u64);
            let now = Instant::now();
            *is_slow = pace.is_layer_late(len, now) && shared.state().is_held_elsewhere(file, None, handle);
            !*is_slow && !pace.overstays(connections.is_surplus(number), now)
        })?;
        self.requester.add_layer_part(bytes);
        drop(buffer);
        let answer = self.requester.on_layer_part(&mut shared.state(), Instant::now());
        self.take_answer(answer);
        // The next part is asked for even on a surplus connection.
        self.send()
    }

    fn take_body(&mut self, body: &[u8]) -> Result<(), AskError> {
        let body = self.requester.read_body(body)?;
        let answer = self.requester.on_body(&mut self.shared.state(), body);
        self.take_answer(answer);
        Ok(())
    }

    fn take_answer(&self, answer: Answer) {
        match answer {
            Answer::Done => {}
            // A peer that holds something no longer counts as only asked, so that the next one can
            // be.
            Answer::Located => self.shared.wake_all(),
            Answer::Layer { file, digests } => {
                let job = DiskJob::Open { file, layer: digests, from: self.handle, peer: self.session.peer };
                let _ = self.shared.queues.jobs.send(job);
            }
            Answer::Peers { file, hints } => self.introduce(file, &hints),
        }
    }

    /// The peer named others that fetch a file, too.
    fn introduce(&self, file: FileNo, hints: &[PeerHint]) {
        let mut named = self.shared.ctx.peers.hints(hints, self.session.addr.ip(), Instant::now());
        let liars = self.shared.liars();
        named.retain(|node| !liars.contains(&node.peer));
        debug!("named peer={} file={} others={}", self.session.peer, self.shared.files[file as usize].id, named.len());
        let mut state = self.shared.state();
        for node in named {
            if let Some(handle) = state.peer(node) {
                state.named(file, handle);
            }
        }
        drop(state);
        self.shared.wake_all();
    }

    /// The peer does not hold what it had said; others are asked for it.
    fn redirect(&self, file: Option<FileNo>, status: Status) {
        if let (Some(file), Status::Gone) = (file, status) {
            self.shared.changed_at_source(file);
        }
        debug!("not held peer={} status={status:?}", self.session.peer);
        self.shared.stats.redirects.fetch_add(1, Ordering::Relaxed);
        self.shared.wake_all();
    }

    /// Tells a liar which chunk was bad. The answers that are still on their way are read first:
    /// closing with them unread would reset the connection, and the message would be lost with it.
    fn tell_bad(mut self, unanswered: usize) {
        let deadline = Instant::now() + CLOSE_DRAIN;
        let Some(bad) = self.bad else { return };
        if self.session.send(&[Request::Bad(bad)], deadline).is_err() {
            return;
        }
        for _ in 0..=unanswered {
            match self.session.skip(deadline) {
                Ok(len) if Instant::now() < deadline => self.shared.waste(len),
                _ => break,
            }
        }
        self.session.dialed.close();
    }
}

impl From<AnswerError> for AskError {
    fn from(e: AnswerError) -> Self {
        AskError::Protocol(e.to_string())
    }
}
