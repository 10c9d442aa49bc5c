//! One connection of a download: keeps a window of requests in flight, verifies what comes, writes it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use log::debug;

use crate::client::limits::{LATE_MAX, LOCATE_AHEAD, LOOK_AGAIN, VERIFY_FILES_MAX, VERIFY_LEN_MAX};
use crate::client::shared::{Lane, Shared};
use crate::content::{Digest, FileId, Geometry};
use crate::limits::{
    CLOSE_DRAIN, LAYER_DIGESTS_PER_ANSWER_MAX, LOCATE_FILES_MAX, PEERS_ANSWER_LEN_MAX, RESPONSE_BODY_LEN_MAX,
    UNANSWERED_LEN_MAX, WINDOW_MAX,
};
use crate::peers::{AskError, Session};
use crate::proto::{ChunkAsk, ChunkRef, Kind, LayerRange, Request, Since, Status, encode_request};
use crate::store::PartialFile;
use crate::swarm::{FileNo, Work};
use crate::swarm::{PeerHandle, Window};

mod answers;

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
    pending: VecDeque<Asked>,
    /// Bytes of the bodies that were asked for.
    in_flight: u64,
    /// Bytes of the requests that are unanswered.
    unanswered: usize,
    window: Window,
    /// One-chunk files that came and are not verified yet: together they are hashed several times as fast.
    unverified: Vec<(Work<Arc<PartialFile>>, Vec<u8>)>,
    /// Lists of digests that are coming in.
    layers: HashMap<FileNo, Vec<Digest>>,
    /// The next files to ask about, in requests of [`LOCATE_FILES_MAX`].
    locate: VecDeque<Vec<(FileNo, FileId)>>,
    /// Where those go on, as long as the peer was not asked about all: there may be millions.
    locate_from: Option<FileNo>,
    frames: Vec<u8>,
    useful: bool,
    /// The peer sent back what waited too long: it is left alone for a moment.
    rests: bool,
    /// Whether it turned out not to have what it said.
    lost: bool,
    /// The chunk that showed that the peer lies.
    bad: Option<ChunkRef>,
}

/// A request without an answer so far.
struct Asked {
    what: What,
    request_len: usize,
    sent: Instant,
    /// Whether nothing else was in flight, so that the wait for the answer is the delay of the path.
    alone: bool,
}

enum What {
    Work(Work<Arc<PartialFile>>),
    /// Part of a list.
    Layer(FileNo, LayerRange),
    Locate(Vec<(FileNo, FileId)>),
}

impl<'a> Fetcher<'a> {
    /// Takes over a session. With `locate`, asks first which of the pending files the peer holds.
    pub(crate) fn new(
        shared: &'a Shared,
        session: Session,
        (handle, lane): (PeerHandle, &'a Lane),
        locate: bool,
    ) -> Self {
        Fetcher {
            shared,
            session,
            handle,
            lane,
            pending: VecDeque::new(),
            in_flight: 0,
            unanswered: 0,
            window: Window::new(Instant::now()),
            unverified: Vec::new(),
            layers: HashMap::new(),
            locate: VecDeque::new(),
            locate_from: locate.then_some(0),
            frames: Vec::new(),
            useful: false,
            rests: false,
            lost: false,
            bad: None,
        }
    }

    /// Works until nothing is left for this peer, it fails, or the download is over. Whatever it was asked for and did
    /// not give is free for others afterwards. True if it gave anything useful.
    pub(crate) fn run(mut self, connection: u64) -> (End, bool) {
        let begun = match self.session.dialed.closer() {
            Ok(socket) => {
                if !self.shared.register(connection, self.session.peer, socket) {
                    self.shared.pool.checkin(self.session);
                    return (End::Stopped, false);
                }
                // Cutting off the revoked finds what is registered; what was revoked before is found here.
                if self.shared.ctx.trust.allows(&self.session.peer) {
                    Ok(())
                } else {
                    Err(AskError::Untrusted(self.session.peer))
                }
            }
            Err(e) => Err(AskError::Stream(e.into())),
        };
        let end = begun.and_then(|()| self.work(connection));
        // However it ended, what came whole is good, or shows a lie.
        let end = self.verify_small().map_or(end, Ok);
        let end = match end {
            _ if self.shared.is_stopped() => End::Stopped,
            Ok(end) => end,
            Err(e) => End::Failed(e),
        };
        let unanswered = self.pending.len();
        self.give_back_all();
        let (shared, useful) = (self.shared, self.useful);
        match end {
            End::Idle | End::Lost => {
                shared.unregister(connection);
                shared.pool.checkin(self.session);
            }
            End::Lied => self.tell_bad(unanswered),
            _ => {}
        }
        shared.unregister(connection);
        (end, useful)
    }

    fn work(&mut self, connection: u64) -> Result<End, AskError> {
        loop {
            if self.shared.is_stopped() {
                return Ok(End::Stopped);
            }
            if (self.pending.is_empty() || self.is_verifying_due())
                && let Some(end) = self.verify_small()
            {
                return Ok(end);
            }
            let surplus = self.lane.surplus.load(Ordering::Relaxed) == connection && !self.is_locating();
            if surplus && self.pending.is_empty() {
                return Ok(End::Idle);
            }
            if !surplus {
                self.ask()?;
            }
            if self.pending.is_empty() {
                let state = self.shared.state();
                if state.useful(self.handle) == 0 {
                    return Ok(if self.lost { End::Lost } else { End::Idle });
                }
                // Time alone can bring work too: what others have kept back for too long.
                drop(self.shared.work.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner));
                self.window.pause(Instant::now());
                self.rests = false;
                continue;
            }
            if let Some(end) = self.receive()? {
                return Ok(end);
            }
        }
    }

    /// Whether to verify before anything more is received: nothing more is here, or it is enough.
    fn is_verifying_due(&self) -> bool {
        !self.session.dialed.has_input()
            || self.unverified.len() >= VERIFY_FILES_MAX
            || self.unverified.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= VERIFY_LEN_MAX
    }

    /// How many more bytes are on the way than there need to be.
    fn excess(&self) -> u64 {
        self.window.excess(self.in_flight)
    }

    /// Whether there are files that the peer is still to be asked about.
    fn is_locating(&self) -> bool {
        self.locate_from.is_some() || !self.locate.is_empty()
    }

    /// Fills the window.
    fn ask(&mut self) -> Result<(), AskError> {
        // Many small requests go out together, not one by one as answers come.
        if self.rests || (self.pending.len() > WINDOW_MAX as usize / 2 && !self.is_locating()) {
            return Ok(());
        }
        let now = Instant::now();
        let mut works = Vec::new();
        let alone = self.pending.is_empty() && self.in_flight == 0;
        let mut request_len = self.unanswered;
        {
            let mut state = self.shared.state();
            match self.locate_from {
                Some(from) if self.locate.is_empty() => {
                    let files: Vec<_> = state.pending_from(from).take(LOCATE_AHEAD * LOCATE_FILES_MAX).collect();
                    self.locate_from = files.last().map(|(last, _)| last + 1);
                    self.locate.extend(files.chunks(LOCATE_FILES_MAX).map(<[_]>::to_vec));
                }
                None if self.locate.is_empty() => self.locate.extend(state.relocate(self.handle, now)),
                _ => {}
            }
            while self.pending.len() + works.len() < WINDOW_MAX as usize
                && (self.in_flight == 0 || self.excess() == 0)
                && request_len + REQUEST_LEN < UNANSWERED_LEN_MAX
            {
                // Work of others is taken piece by piece, as it may still come from them.
                let late = self.pending.len() + works.len() < LATE_MAX;
                let Some(work) = state.next_work(self.handle, now, late) else { break };
                self.in_flight += self.window.asked(&work);
                request_len += REQUEST_LEN;
                works.push(work);
            }
        }
        self.frames.clear();
        for work in works {
            self.push_work(work, now, alone);
        }
        while let Some(files) = self.locate.front() {
            if self.unanswered + files.len() * FILE_ID_LEN_MAX + REQUEST_LEN > UNANSWERED_LEN_MAX {
                break;
            }
            let request = Request::Locate(files.iter().map(|f| f.1).collect());
            if let Some(files) = self.locate.pop_front() {
                self.push(&request, What::Locate(files), now, false);
            }
        }
        if !self.frames.is_empty() {
            let deadline = now + self.shared.idle();
            self.session.send_frames(&self.frames, deadline)?;
        }
        Ok(())
    }

    fn push_work(&mut self, work: Work<Arc<PartialFile>>, now: Instant, alone: bool) {
        match &work {
            Work::Chunk { id, index, since, .. } => {
                let chunk = ChunkRef { file: *id, index: index.get() };
                self.push(&Request::Chunk(ChunkAsk { chunk, since: *since }), What::Work(work), now, alone);
            }
            Work::Small { id, index, .. } => {
                let chunk = ChunkRef { file: *id, index: index.get() };
                self.push(&Request::Chunk(ChunkAsk { chunk, since: 0 }), What::Work(work), now, alone);
            }
            Work::Any { id, chunks, .. } => {
                let request = Request::Any(Since { file: *id, revision: 0 }, chunks.clone());
                self.push(&request, What::Work(work), now, alone);
            }
            Work::Peers { id, .. } => self.push(&Request::Peers(Some(*id)), What::Work(work), now, alone),
            Work::Have { id, revision, .. } => {
                let request = Request::Have(Since { file: *id, revision: *revision });
                self.push(&request, What::Work(work), now, alone);
            }
            Work::Layer { file, id } => {
                self.layers.insert(*file, Vec::with_capacity(Geometry::new(id.len).chunk_count() as usize));
                self.push_layer(*file, *id, 0, now, alone);
            }
        }
    }

    /// Asks for the part of a list of digests that begins with `first`. The next one is asked for when it has come: a peer
    /// that sends others their lists answers the first one with `Busy`.
    fn push_layer(&mut self, file: FileNo, id: FileId, first: u32, now: Instant, alone: bool) {
        let count = LAYER_DIGESTS_PER_ANSWER_MAX.min(Geometry::new(id.len).chunk_count() - first);
        let range = LayerRange { file: id, first, count };
        self.push(&Request::Layer(range), What::Layer(file, range), now, alone);
    }

    fn push(&mut self, request: &Request, what: What, sent: Instant, alone: bool) {
        let at = self.frames.len();
        encode_request(request, &mut self.frames);
        let request_len = self.frames.len() - at;
        self.unanswered += request_len;
        self.pending.push_back(Asked { what, request_len, sent, alone: alone && at == 0 });
    }

    /// Takes the next answer. `Some` when the connection is to end.
    fn receive(&mut self) -> Result<Option<End>, AskError> {
        let Some(front) = self.pending.front() else { return Ok(None) };
        let (kind, body_max) = match &front.what {
            What::Work(Work::Chunk { len, .. } | Work::Small { len, .. }) => (Kind::Chunk, *len as usize + 1),
            What::Work(Work::Any { id, .. }) => (Kind::Any, Geometry::new(id.len).chunk_len() as usize + 1),
            What::Work(Work::Have { .. }) => (Kind::Have, RESPONSE_BODY_LEN_MAX),
            What::Work(Work::Layer { .. }) => (Kind::Layer, 0),
            What::Work(Work::Peers { .. }) => (Kind::Peers, PEERS_ANSWER_LEN_MAX),
            What::Layer(_, range) => (Kind::Layer, range.count as usize * 32),
            What::Locate(_) => (Kind::Locate, LOCATE_FILES_MAX * HOLDING_LEN_MAX + 8),
        };
        let idle = self.shared.idle();
        let (status, body_len) = self.session.receive_head(kind, body_max, Instant::now() + idle)?;
        // Whoever is put off is in a line that moves, and may wait there for longer than it would for a silent peer.
        let is_later = match status {
            Status::Busy => matches!(front.what, What::Layer(..)),
            Status::NotModified => matches!(kind, Kind::Any | Kind::Chunk),
            _ => false,
        };
        if is_later {
            self.shared.tally.put_off();
        } else if status == Status::Ok && matches!(kind, Kind::Chunk | Kind::Any | Kind::Layer) {
            self.shared.tally.heard();
        }
        if front.alone {
            self.window.delay(front.sent.elapsed());
        }
        if matches!(status, Status::Busy | Status::Refused) && !is_later {
            return Err(self.session.problem(status));
        }
        // From here on the request is answered; whatever goes wrong below gives its work back by itself.
        let Some(asked) = self.pending.pop_front() else { return Ok(None) };
        self.unanswered -= asked.request_len;
        match asked.what {
            What::Work(work @ (Work::Chunk { .. } | Work::Small { .. })) => {
                let outcome = self.receive_chunk(&work, status, body_len);
                if !matches!(outcome, Ok(None)) {
                    self.shared.state().give_back(&work, self.handle);
                }
                outcome
            }
            What::Work(work @ Work::Any { .. }) => {
                let chosen = self.receive_chosen(&work, status, body_len, asked.sent);
                let Ok(Some(work)) = chosen else {
                    self.shared.state().give_back(&work, self.handle);
                    return chosen.map(|_| None);
                };
                let outcome = self.receive_chunk(&work, status, body_len);
                if !matches!(outcome, Ok(None)) {
                    self.shared.state().give_back(&work, self.handle);
                }
                outcome
            }
            What::Work(Work::Have { file, id, .. }) => self.receive_have(file, id, status, body_len).map(|()| None),
            What::Work(Work::Layer { .. }) => Ok(None),
            What::Work(Work::Peers { file, .. }) => self.receive_peers(file, status, body_len).map(|()| None),
            What::Layer(file, range) => {
                let outcome = self.receive_layer(file, range, status, body_len);
                if outcome.is_err() {
                    self.shared.state().give_back(&Work::Layer { file, id: range.file }, self.handle);
                }
                outcome.map(|()| None)
            }
            What::Locate(files) => self.receive_holdings(&files, status, body_len).map(|()| None),
        }
    }

    /// Tells a liar which chunk was bad. The answers that are still on their way are read first: closing with them
    /// unread would reset the connection, and with it lose the word.
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

    fn give_back_all(&mut self) {
        let mut state = self.shared.state();
        let mut redirected = 0;
        for asked in self.pending.drain(..) {
            match asked.what {
                What::Work(work) => {
                    redirected += matches!(work, Work::Chunk { .. } | Work::Any { .. } | Work::Small { .. }) as u64;
                    state.give_back(&work, self.handle);
                }
                What::Layer(file, range) => state.give_back(&Work::Layer { file, id: range.file }, self.handle),
                What::Locate(_) => {}
            }
        }
        drop(state);
        if redirected > 0 && !self.shared.is_stopped() {
            self.shared.tally.redirects.fetch_add(redirected, Ordering::Relaxed);
            debug!("redirected peer={} requests={redirected}", self.session.peer);
        }
        self.shared.wake(false);
    }
}

/// No request but `Locate` is longer.
const REQUEST_LEN: usize = 256;
/// The longest postcard form of a `FileId`.
const FILE_ID_LEN_MAX: usize = 44;
/// The longest postcard form of a `Holding`.
const HOLDING_LEN_MAX: usize = 6;
