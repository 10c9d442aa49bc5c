//! One connection of a download: a loop of socket, buffer, verification and disk.
//!
//! The [`Requester`] decides what is asked and what each answer means; this file moves the bytes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use log::{debug, error, trace};

use crate::client::limits::{ASK_STEP, LOOK_AGAIN, THROTTLE_NAP, VERIFY_FILES_MAX, VERIFY_LEN_MAX};
use crate::client::shared::{Lane, Shared};
use crate::client::storing::Job;
use crate::content::{FileId, merkle};
use crate::limits::CLOSE_DRAIN;
use crate::net::StreamError;
use crate::peers::{AskError, Session};
use crate::proto::{ChunkRef, PeerHint, Request, Status};
use crate::store::PartialFile;
use crate::swarm::{
    Answer, AnswerError, AnswerStep, Arrival, ChunkTask, ConnectionTurn, FileNo, Head, PeerHandle, Requester,
    SmallArrival, SmallTask,
};

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Nothing is left to ask this peer, or others of its connections do as well; the session goes back to the pool.
    Idle,
    /// The same, and the peer did not have what it said it had.
    Lost,
    /// The download is over.
    Stopped,
    /// It sent wrong bytes.
    Lied,
    /// It failed.
    Failed(AskError),
}

/// A connection of a download.
pub(crate) struct Fetcher<'a> {
    shared: &'a Shared,
    session: Session,
    handle: PeerHandle,
    lane: &'a Lane,
    /// Number of the connection in the download.
    number: u64,
    requester: Requester<Arc<PartialFile>>,
    /// One-chunk files that came and are not verified yet, in the order in which they came.
    unverified: Vec<Vec<u8>>,
    /// The chunk that showed that the peer lies.
    bad: Option<ChunkRef>,
}

impl<'a> Fetcher<'a> {
    /// Takes over a session for connection `number`. With `locate`, the peer is first asked which of the unfinished files
    /// it holds.
    pub(crate) fn new(
        shared: &'a Shared,
        session: Session,
        (handle, lane): (PeerHandle, &'a Lane),
        number: u64,
        locate: bool,
    ) -> Self {
        let requester = Requester::new(handle, locate, Instant::now());
        Fetcher { shared, session, handle, lane, number, requester, unverified: Vec::new(), bad: None }
    }

    /// Works until nothing is left for this peer, it fails, or the download is over. What it was asked for and did not
    /// give is free for others afterwards. True if it gave anything useful.
    pub(crate) fn run(mut self) -> (End, bool) {
        let begun = match self.session.dialed.closer() {
            Ok(socket) => {
                if !self.shared.register(self.number, self.session.peer, socket) {
                    self.shared.pool.checkin(self.session);
                    return (End::Stopped, false);
                }
                // Revoking a key cuts off what is registered; what was revoked before is found here.
                if self.shared.ctx.trust.allows(&self.session.peer) {
                    Ok(())
                } else {
                    Err(AskError::Untrusted(self.session.peer))
                }
            }
            Err(e) => Err(AskError::Stream(e.into())),
        };
        let end = begun.and_then(|()| self.work());
        // However the connection ended, the files that came whole are good, or show a lie.
        let end = self.verify_small().map_or(end, Ok);
        let end = match end {
            _ if self.shared.is_stopped() => End::Stopped,
            Ok(end) => end,
            Err(e) => End::Failed(e),
        };
        let unanswered = self.requester.pending();
        let redirected = self.requester.end(&mut self.shared.state());
        if redirected > 0 && !self.shared.is_stopped() {
            self.shared.tally.redirects.fetch_add(redirected, Ordering::Relaxed);
            debug!("redirected peer={} requests={redirected}", self.session.peer);
        }
        self.shared.wake(false);
        let (shared, number, useful) = (self.shared, self.number, self.requester.is_useful());
        match end {
            End::Idle | End::Lost => {
                shared.unregister(number);
                shared.pool.checkin(self.session);
            }
            End::Lied => self.tell_bad(unanswered),
            _ => {}
        }
        shared.unregister(number);
        (end, useful)
    }

    fn work(&mut self) -> Result<End, AskError> {
        loop {
            if self.shared.is_stopped() {
                return Ok(End::Stopped);
            }
            if (self.requester.pending() == 0 || self.is_verifying_due())
                && let Some(end) = self.verify_small()
            {
                return Ok(end);
            }
            let surplus = self.lane.surplus.load(Ordering::Relaxed) == self.number;
            let mut state = self.shared.state();
            match self.requester.turn(&mut state, surplus, Instant::now()) {
                ConnectionTurn::Receive => drop(state),
                ConnectionTurn::Wait => {
                    // Time alone can bring work, too: what others have kept back for too long.
                    drop(self.shared.work.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner));
                    self.requester.resume(Instant::now());
                    continue;
                }
                ConnectionTurn::End { lost: false } => return Ok(End::Idle),
                ConnectionTurn::End { lost: true } => return Ok(End::Lost),
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
    fn receive(&mut self) -> Result<Option<End>, AskError> {
        let Some((kind, body_max)) = self.requester.expects() else { return Ok(None) };
        let (status, body_len) = self.session.receive_head(kind, body_max, Instant::now() + self.shared.idle())?;
        let head = Head { status, header: self.session.header_bytes(), body_len };
        let step = self.requester.on_head(&mut self.shared.state(), head, Instant::now())?;
        match step {
            AnswerStep::Chunk(task) => {
                self.shared.tally.heard();
                return self.receive_chunk(&task);
            }
            AnswerStep::Small(task) => {
                self.shared.tally.heard();
                self.receive_small(&task)?;
            }
            AnswerStep::Layer(len) => {
                self.shared.tally.heard();
                self.receive_layer(len)?;
            }
            AnswerStep::Body(len) => {
                let body = self.session.body(len, Instant::now() + self.shared.idle())?;
                self.take_body(&body)?;
            }
            AnswerStep::Drain(len) => self.drain(len)?,
            AnswerStep::Deferred(len) => {
                self.shared.tally.put_off();
                self.drain(len)?;
                self.shared.wake(false);
            }
            AnswerStep::NotHeld(len) => {
                self.drain(len)?;
                self.redirect(status);
            }
            AnswerStep::Refused => return Err(self.session.problem(status)),
        }
        Ok(None)
    }

    fn receive_chunk(&mut self, task: &ChunkTask<Arc<PartialFile>>) -> Result<Option<End>, AskError> {
        let shared = self.shared;
        let mut buffer = shared.buffers.take(task.len as usize).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..task.len as usize];
        let trailer = self.read_chunk(bytes)?;
        let arrival = self.requester.on_trailer(&mut shared.state(), trailer, Instant::now());
        match arrival {
            Arrival::Verify => {}
            Arrival::Surplus => {
                self.waste(task.len);
                return Ok(None);
            }
            Arrival::NotHeld => {
                self.redirect(Status::Gone);
                return Ok(None);
            }
        }
        if !task.open.manifest().verify(task.index, bytes) {
            drop(buffer);
            return Ok(Some(self.lied(task.id, task.index.get(), task.len)));
        }
        if let Err(e) = shared.while_writing(|| task.open.write(task.index, bytes)) {
            shared.fail(e.into());
            return Ok(Some(End::Stopped));
        }
        drop(buffer);
        let came = self.requester.on_chunk(&mut shared.state(), Instant::now());
        trace!("chunk peer={} file={} chunk={} fresh={}", self.session.peer, task.id, task.index.get(), came.fresh);
        if came.fresh {
            self.credit(task.len)
        } else {
            self.waste(task.len)
        }
        if came.whole {
            let _ = shared.jobs.send(Job::Finish { file: task.file, open: task.open.clone() });
            shared.wake(false);
        }
        Ok(None)
    }

    fn receive_small(&mut self, task: &SmallTask) -> Result<(), AskError> {
        let mut bytes = vec![0; task.len as usize];
        let trailer = self.read_chunk(&mut bytes)?;
        let arrival = self.requester.on_trailer(&mut self.shared.state(), trailer, Instant::now());
        match arrival {
            Arrival::Verify => self.unverified.push(bytes),
            Arrival::Surplus => self.waste(task.len),
            Arrival::NotHeld => self.redirect(Status::Gone),
        }
        Ok(())
    }

    /// Reads the bytes of a chunk as fast as the limit allows, and returns its trailer. More is asked for on the way, once
    /// that is needed to keep the connection busy: not earlier, since another connection may be quicker by then.
    fn read_chunk(&mut self, into: &mut [u8]) -> Result<u8, AskError> {
        let shared = self.shared;
        let idle = shared.idle();
        let mut at = 0;
        while at < into.len() {
            let left = into.len() - at;
            let excess = self.requester.excess() as usize;
            let step = if excess > 0 { excess.max(ASK_STEP).min(left) } else { left };
            match shared.ctx.throttle.take(step, left, Instant::now()) {
                Ok(n) => {
                    let n = n.clamp(1, step);
                    let (requester, lane) = (&mut self.requester, self.lane);
                    self.session.dialed.read_body(&mut into[at..at + n], idle, &mut |n| {
                        shared.tally.heard();
                        lane.read.fetch_add(n as u64, Ordering::Relaxed);
                        requester.on_bytes(n as u64, Instant::now());
                    })?;
                    at += n;
                    if excess > 0 && at < into.len() {
                        self.requester.fill(&mut shared.state(), Instant::now());
                        self.send()?;
                    }
                }
                Err(wait) => {
                    // Held back by the own limit is not silence of the peer.
                    shared.tally.heard();
                    if shared.is_stopped() || shared.ctx.shutdown.wait(wait.min(THROTTLE_NAP)) {
                        return Err(AskError::Stream(StreamError::Closed));
                    }
                }
            }
        }
        let mut trailer = [0];
        self.session.dialed.read_body(&mut trailer, idle, &mut |_| ())?;
        Ok(trailer[0])
    }

    /// Whether to verify before anything more is received: nothing more is here, or it is enough.
    fn is_verifying_due(&self) -> bool {
        !self.session.dialed.has_input()
            || self.unverified.len() >= VERIFY_FILES_MAX
            || self.unverified.iter().map(Vec::len).sum::<usize>() >= VERIFY_LEN_MAX
    }

    /// Verifies the one-chunk files that came, and hands the good ones to the threads that write them.
    fn verify_small(&mut self) -> Option<End> {
        let came = std::mem::take(&mut self.unverified);
        if came.is_empty() {
            return None;
        }
        let roots = merkle::roots_of(&came.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let judged = self.requester.on_roots(&mut self.shared.state(), &roots, Instant::now());
        let mut lie = None;
        for ((task, arrival), bytes) in judged.into_iter().zip(came) {
            match arrival {
                SmallArrival::Fresh => {
                    self.credit(task.len);
                    // The channel is as long as all bytes that are allowed: it never blocks while the writer lives.
                    let _ = self.shared.small.send(Some((task.file, bytes)));
                }
                SmallArrival::Surplus => self.waste(task.len),
                SmallArrival::Bad => lie = Some(task),
            }
        }
        lie.map(|task| self.lied(task.id, task.index.get(), task.len))
    }

    fn receive_layer(&mut self, len: u32) -> Result<(), AskError> {
        let shared = self.shared;
        let mut buffer = shared.buffers.take(len as usize).ok_or(StreamError::Closed)?;
        let bytes = &mut buffer[..len as usize];
        self.session.dialed.read_body(bytes, shared.idle(), &mut |_| shared.tally.heard())?;
        self.take_body(bytes)?;
        drop(buffer);
        // The next part is asked for even on a surplus connection.
        self.send()
    }

    fn take_body(&mut self, body: &[u8]) -> Result<(), AskError> {
        let answer = self.requester.on_body(&mut self.shared.state(), body, Instant::now())?;
        match answer {
            Answer::Done => {}
            // A peer that holds something no longer counts as only asked, so that the next one can be.
            Answer::Located => self.shared.wake(true),
            Answer::Layer { file, digests } => {
                let job = Job::Open { file, layer: digests, from: self.handle, peer: self.session.peer };
                let _ = self.shared.jobs.send(job);
            }
            Answer::Peers { file, hints } => self.introduce(file, &hints),
        }
        Ok(())
    }

    /// The peer named others that fetch a file, too.
    fn introduce(&self, file: FileNo, hints: &[PeerHint]) {
        let mut named = self.shared.ctx.peers.hints(hints, self.session.addr.ip(), Instant::now());
        let liars = self.shared.liars();
        named.retain(|node| !liars.contains(&node.peer));
        debug!("named peer={} id={} others={}", self.session.peer, self.shared.files[file as usize].id, named.len());
        let mut state = self.shared.state();
        for node in named {
            if let Some(handle) = state.peer(node) {
                state.named(file, handle);
            }
        }
        drop(state);
        self.shared.wake(true);
    }

    fn credit(&self, len: u32) {
        self.shared.tally.credit(self.handle, self.session.peer, len as u64);
    }

    fn waste(&self, len: u32) {
        self.shared.tally.wasted.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// The peer does not hold what it had said; others are asked for it.
    fn redirect(&self, status: Status) {
        debug!("not held peer={} status={status:?}", self.session.peer);
        self.shared.tally.redirects.fetch_add(1, Ordering::Relaxed);
        self.shared.wake(true);
    }

    /// Bytes with the trailer *good* are not what was asked for.
    fn lied(&mut self, id: FileId, index: u32, len: u32) -> End {
        self.waste(len);
        let (peer, addr) = (self.session.peer, self.session.addr);
        error!("bad chunk peer={peer} addr={addr} id={id} chunk={index}: digest differs; not asked again");
        self.shared.strike(self.handle, peer, id);
        self.bad = Some(ChunkRef { file: id, index });
        End::Lied
    }

    /// Tells a liar which chunk was bad. The answers that are still on their way are read first: closing with them
    /// unread would reset the connection, and the message would be lost with it.
    fn tell_bad(mut self, unanswered: usize) {
        let deadline = Instant::now() + CLOSE_DRAIN;
        let Some(bad) = self.bad else { return };
        if self.session.send(&[Request::Bad(bad)], deadline).is_err() {
            return;
        }
        for _ in 0..=unanswered {
            match self.session.skip(deadline) {
                Ok(len) if Instant::now() < deadline => self.waste(len),
                _ => break,
            }
        }
        self.session.dialed.close();
    }

    fn drain(&mut self, len: u32) -> Result<(), AskError> {
        self.session.body(len, Instant::now() + self.shared.idle()).map(drop)
    }
}

impl From<AnswerError> for AskError {
    fn from(e: AnswerError) -> Self {
        AskError::Protocol(e.to_string())
    }
}
