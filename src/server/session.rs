//! One accepted connection: a state machine over a nonblocking socket, served in bounded turns.
//!
//! Between turns it holds no more than what is half read and half written, so an idle session costs little memory.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::event::PollFlags;

use crate::identity::PeerId;
use crate::limits::{CHUNK_PATIENCE, CLOSE_DRAIN, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, TURN_LEN_MAX, UNANSWERED_LEN_MAX};
use crate::net::{Channel, Opened, Outbox, SecureError, Tls, WIRE_RECORD_LEN_MAX, wait_for};
use crate::proto::{FRAME_PREFIX_LEN, FrameError, FramePrefix, Kind, MessageError};
use crate::runtime::keystore::Trust;
use crate::server::body::Body;
use crate::server::handler::{Asker, Handler, Next, Refusal};
use crate::server::limits::{
    ANY_FRESH, DRAIN_READS_MAX, LINGER_STEP, PARK_AFTER, REPLY_FIRST_LEN, REPLY_LEN, REQUESTS_KEPT_LEN,
    TURN_REQUESTS_MAX, UNSENT_LEN_MAX, UPLOAD_LEN_MIN,
};
use crate::server::listing::Listing;
use crate::server::seats::Key;
use crate::server::worker::{Context, Scratch};
use crate::swarm::Upload;
use crate::swarm::upload::limits::TURN_TIME_MAX;

/// An accepted connection.
pub(crate) struct Session {
    pub(crate) socket: TcpStream,
    pub(crate) addr: SocketAddr,
    /// On whose account it is served.
    pub(crate) key: Key,
    /// It ends when this passes without a turn.
    pub(crate) deadline: Instant,
    /// Since when something is held for a peer that neither takes nor completes it.
    pub(crate) stalled_since: Option<Instant>,
    channel: Channel,
    phase: Phase,
    /// Ciphertext of a record that is not whole yet.
    held: Vec<u8>,
    /// Plaintext of requests that are not answered yet.
    requests: Vec<u8>,
    /// The answer whose page is being made.
    listing: Option<Box<Listing>>,
    /// The answer whose body is being sent.
    body: Option<Body>,
    /// The chunk that is under way, until the socket took all of it, and so the list of digests.
    upload: Option<Upload>,
    list: Option<Upload>,
    /// The upload that it was granted for the next turn.
    granted: Option<Upload>,
    /// Since when the first request waits for its upload to begin, and for how long it may.
    waits: Option<(Instant, Duration)>,
    out: Outbox,
    /// Plaintext that goes out at once; small after the peer was slow, so that little is parked.
    reply_len: usize,
    trust_generation: u64,
    began: Instant,
    sent: u64,
}

enum Phase {
    /// TLS.
    Handshake,
    /// Requests are answered; refused without a seat.
    Open(Box<Asker>),
    /// The last answer is on its way; after it, what the peer still sends is read and dropped until this time.
    Closing { until: Instant, shut: bool },
}

/// What a session wants after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Wait until there is something to read.
    Read,
    /// Wait until the peer takes what is to be sent.
    Write,
    /// Another turn.
    Again,
    /// Another turn, not before that time.
    Delay(Instant),
    /// Another turn once it is granted an upload.
    Wait,
    /// Nothing more; it is over, for this reason.
    Close(&'static str),
}

/// Why a session ended without an answer.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Secure(#[from] SecureError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Message(#[from] MessageError),
    /// Said goodbye, or just closed between two requests.
    #[error("closed by peer")]
    Ended,
}

/// What one turn has used up.
struct Turn {
    began: Instant,
    sent: usize,
    requests: u32,
    /// Requests and bytes sent when the session last waited for a request.
    lingered: (u32, usize),
}

impl Session {
    pub(crate) fn new(socket: TcpStream, addr: SocketAddr, tls: &Tls, now: Instant) -> Result<Self, SecureError> {
        let _ = socket.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_LEN_MAX as u32);
        Ok(Session {
            socket,
            addr,
            key: Key::Addr(addr.ip().to_canonical()),
            deadline: now + HANDSHAKE_TIMEOUT,
            stalled_since: None,
            channel: Channel::accept(tls)?,
            phase: Phase::Handshake,
            held: Vec::new(),
            requests: Vec::new(),
            listing: None,
            body: None,
            upload: None,
            list: None,
            granted: None,
            waits: None,
            out: Outbox::new(),
            reply_len: REPLY_FIRST_LEN,
            trust_generation: 0,
            began: now,
            sent: 0,
        })
    }

    /// The key that it proved, once it has.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.channel.peer()
    }

    /// Whether it said `Hello` and was let in.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(&self.phase, Phase::Open(asker) if asker.seat.is_some())
    }

    /// Whether the last answer is given, and it ends.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Memory in bytes that grows with what the peer sent and does not take.
    pub(crate) fn parked(&self) -> usize {
        let body = self.body.as_ref().map_or(0, Body::memory) + self.listing.as_ref().map_or(0, |l| l.len());
        self.out.len() + self.requests.len() + self.held.len() + body
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The chunk that it waits with may begin in the next turn.
    pub(crate) fn grant(&mut self, upload: Upload) {
        self.granted = Some(upload);
    }

    /// Whether a chunk is under way.
    pub(crate) fn is_uploading(&self) -> bool {
        self.upload.is_some()
    }

    /// Whether it waits with what should be asked anew by now.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        is_stale(self.waits, now)
    }

    /// Serves it for one turn.
    pub(crate) fn turn(&mut self, scratch: &mut Scratch, context: &Context) -> Outcome {
        // The big buffer of the worker is used during the turn; what is left in it afterwards is copied out.
        let mut out = std::mem::take(&mut scratch.out);
        out.clear();
        out.push(self.out.data());
        self.out = out;

        let mut turn = Turn { began: Instant::now(), sent: 0, requests: 0, lingered: (0, 0) };
        let outcome = match self.serve(scratch, context, &mut turn) {
            Ok(outcome) => outcome,
            Err(e) => self.fail(&e, context),
        };
        if matches!(outcome, Outcome::Close(_)) {
            self.listing = None;
        }
        context.end_upload(self.granted.take(), false);
        if turn.sent > 0 || turn.requests > 0 {
            self.extend_deadline();
        }
        self.stalled_since = match (outcome, self.stalled_since) {
            (Outcome::Read, _) if self.parked_input() == 0 => None,
            (Outcome::Read, Some(since)) if turn.requests == 0 => Some(since),
            (Outcome::Write, Some(since)) if turn.sent == 0 => Some(since),
            (Outcome::Read | Outcome::Write | Outcome::Delay(_) | Outcome::Wait, _) => Some(Instant::now()),
            _ => None,
        };

        let mut kept = Outbox::new();
        kept.push(self.out.data());
        scratch.out = std::mem::replace(&mut self.out, kept);
        self.requests.shrink_to(REQUESTS_KEPT_LEN);
        self.held.shrink_to_fit();
        outcome
    }

    /// Gives back what it held of the server, and logs the end; call it once, when the session is dropped.
    pub(crate) fn end(&self, why: &str, context: &Context) {
        context.end_upload(self.upload, false);
        context.end_upload(self.granted, false);
        context.handler.end_list(self.list, false);
        if let (Phase::Open(asker), true) = (&self.phase, self.is_admitted()) {
            context.told(format_args!(
                "disconnected peer={} addr={} bytes={} seconds={:.3} reason=\"{why}\"",
                asker.peer,
                self.addr,
                self.sent,
                self.began.elapsed().as_secs_f64()
            ));
        }
    }

    fn parked_input(&self) -> usize {
        self.requests.len() + self.held.len()
    }

    fn serve(&mut self, scratch: &mut Scratch, context: &Context, turn: &mut Turn) -> Result<Outcome, SessionError> {
        if self.listing.is_some() {
            // Nobody needs the page if the peer is gone.
            self.receive(scratch, context)?;
        }
        loop {
            if context.shutdown.has_begun() {
                return Ok(Outcome::Close("server stops"));
            }
            if self.is_revoked(&context.handler.trust) {
                return Ok(Outcome::Close(REVOKED));
            }
            if !self.flush(turn)? {
                if self.linger(PollFlags::OUT, context)? {
                    continue;
                }
                self.reply_len = REPLY_FIRST_LEN;
                return Ok(Outcome::Write);
            }
            if let Phase::Closing { until, shut } = &mut self.phase {
                if !std::mem::replace(shut, true) {
                    *until = Instant::now() + CLOSE_DRAIN;
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                let until = *until;
                return self.drain(scratch, until);
            }
            if turn.is_over() {
                return Ok(Outcome::Again);
            }
            match self.produce(scratch, context, turn)? {
                Produced::Some | Produced::Unfinished => continue,
                Produced::Throttled(until) => return Ok(Outcome::Delay(until)),
                Produced::Waits => return Ok(Outcome::Wait),
                Produced::Nothing => (),
            }
            if !self.receive(scratch, context)? && !(self.may_linger(turn) && self.linger(PollFlags::IN, context)?) {
                return Ok(Outcome::Read);
            }
        }
    }

    /// Writes what is to be sent; false when the peer does not take it all now.
    fn flush(&mut self, turn: &mut Turn) -> Result<bool, SessionError> {
        let some = !self.out.is_empty();
        while !self.out.is_empty() {
            match self.socket.write(self.out.data()) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(n) => {
                    self.out.sent(n);
                    turn.sent += n;
                    self.sent += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
        if some {
            self.reply_len = (self.reply_len * 2).min(REPLY_LEN);
        }
        Ok(true)
    }

    /// Gathers answers and bodies, and seals them.
    fn produce(&mut self, scratch: &mut Scratch, context: &Context, turn: &mut Turn) -> Result<Produced, SessionError> {
        let Phase::Open(asker) = &mut self.phase else { return Ok(Produced::Nothing) };
        let target = if context.is_memory_scarce() { REPLY_FIRST_LEN } else { self.reply_len };
        let plain = &mut scratch.plain;
        plain.clear();
        let (mut at, mut throttled, mut waits, mut refused) = (0, None, false, None);
        let had_seat = asker.seat.is_some();
        if self.body.is_none()
            && let Some(upload) = self.upload.take()
        {
            context.end_upload(Some(upload), true);
        }
        if self.body.is_none() {
            context.handler.end_list(self.list.take(), true);
        }
        while plain.len() < target && refused.is_none() {
            if let Some(body) = &mut self.body {
                let want = body.left().min(target - plain.len());
                match context.upload.take(want, body.left(), Instant::now()) {
                    Err(wait) => {
                        throttled = Some(Instant::now() + wait);
                        break;
                    }
                    Ok(granted) => {
                        let (n, complete) = body.fill(plain.room(granted));
                        plain.added(n);
                        context.upload.put_back(granted - n);
                        if complete {
                            self.body = None;
                        }
                    }
                }
                continue;
            }
            scratch.head.clear();
            let mut is_begun = false;
            let next = match self.listing.take() {
                Some(mut listing) => {
                    if !listing.go_on(turn.end()) {
                        self.listing = Some(listing);
                        break;
                    }
                    context.handler.listed(*listing, &mut scratch.head)
                }
                None => {
                    let Some((kind, header, body, len)) = whole_frame(&self.requests[at..])? else {
                        self.waits = None;
                        break;
                    };
                    // Before `Hello` nothing waits: everything else is refused.
                    let is_any = kind == Kind::AnyOf as u8 && asker.seat.is_some();
                    let is_chunk = is_any || (kind == Kind::Chunk as u8 && asker.seat.is_some());
                    if self.upload.is_some() || self.list.is_some() {
                        // What comes before it is to be sent first.
                        break;
                    }
                    let now = Instant::now();
                    if is_chunk {
                        self.upload = self.granted.take().or_else(|| context.begin_upload(self.key, now));
                        if self.upload.is_none() {
                            let (since, _) = self.waits.unwrap_or((now, ANY_FRESH));
                            self.waits = Some((since, if is_any { ANY_FRESH } else { CHUNK_PATIENCE }));
                            if !is_stale(self.waits, now) {
                                waits = true;
                                break;
                            }
                            at += len;
                            turn.requests += 1;
                            Handler::stale(if is_any { Kind::AnyOf } else { Kind::Chunk }, &mut scratch.head);
                            plain.push(&scratch.head);
                            continue;
                        }
                    }
                    self.waits = None;
                    is_begun = is_chunk;
                    at += len;
                    turn.requests += 1;
                    context.handler.answer(asker, (kind, header, body), now, &mut scratch.head)?
                }
            };
            plain.push(&scratch.head);
            if is_begun && !matches!(&next, Next::Body(body) if body.left() >= UPLOAD_LEN_MIN) {
                context.end_upload(self.upload.take(), false);
            }
            match next {
                Next::Done => (),
                Next::Body(body) => self.body = Some(body),
                Next::List(body, list) => (self.body, self.list) = (Some(body), Some(list)),
                Next::Listing(listing) => self.listing = Some(listing),
                Next::Close(why) => refused = Some(why),
            }
            if turn.is_over() {
                break;
            }
        }
        if !had_seat && asker.seat.is_some() {
            self.key = context.handler.key(asker);
            context.told(format_args!("connected peer={} addr={} agent=\"{}\"", asker.peer, self.addr, asker.agent));
        }
        self.requests.drain(..at);
        if !plain.is_empty() {
            self.channel.seal(plain.data(), &mut self.out)?;
        }
        if let Some(why) = refused {
            self.refuse(why, context)?;
            return Ok(Produced::Some);
        }
        Ok(match throttled {
            Some(until) if self.out.is_empty() => Produced::Throttled(until),
            _ if self.out.is_empty() && waits => Produced::Waits,
            _ if self.out.is_empty() && self.listing.is_some() => Produced::Unfinished,
            _ if self.out.is_empty() => Produced::Nothing,
            _ => Produced::Some,
        })
    }

    /// Takes what the peer sent; false when there is nothing now.
    fn receive(&mut self, scratch: &mut Scratch, context: &Context) -> Result<bool, SessionError> {
        let from = self.held.len();
        scratch.incoming[..from].copy_from_slice(&self.held);
        let n = match self.socket.read(&mut scratch.incoming[from..]) {
            Ok(0) if self.channel.peer().is_some() => return Err(SessionError::Ended),
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        let bytes = &mut scratch.incoming[..from + n];
        let (mut used, requests) = (0, &mut self.requests);
        loop {
            let (n, opened) = self.channel.open(&mut bytes[used..], &mut self.out, &mut |plain| {
                requests.extend_from_slice(plain);
            })?;
            used += n;
            match opened {
                Opened::Data => (),
                Opened::Starved => break,
                Opened::Ended => return Err(SessionError::Ended),
            }
        }
        self.held.clear();
        self.held.extend_from_slice(&bytes[used..]);
        if self.held.len() > HELD_LEN_MAX || self.requests.len() > 2 * UNANSWERED_LEN_MAX {
            return Err(FrameError::BodyTooLong(self.held.len().max(self.requests.len())).into());
        }
        if let (Phase::Handshake, Some(peer)) = (&self.phase, self.channel.peer()) {
            let asker = Box::new(Asker::new(peer, self.addr));
            self.trust_generation = context.handler.trust.generation();
            self.phase = Phase::Open(asker);
        }
        Ok(true)
    }

    /// Reads and drops what the peer still sends, so that its kernel does not throw away the last answer.
    fn drain(&mut self, scratch: &mut Scratch, until: Instant) -> Result<Outcome, SessionError> {
        for _ in 0..DRAIN_READS_MAX {
            match self.socket.read(&mut scratch.incoming) {
                Ok(0) => return Ok(Outcome::Close(CLOSED)),
                Ok(_) => (),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.deadline = until;
                    return Ok(Outcome::Read);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(_) => return Ok(Outcome::Close(CLOSED)),
            }
        }
        Ok(if Instant::now() < until { Outcome::Again } else { Outcome::Close(CLOSED) })
    }

    /// Whether the next request is worth waiting for: the peer was admitted, and since the last wait it sent a whole
    /// request or took something. A peer that trickles, or has not said `Hello`, must not keep a worker with a few bytes.
    fn may_linger(&self, turn: &mut Turn) -> bool {
        let done = (turn.requests, turn.sent);
        let progress = std::mem::replace(&mut turn.lingered, done) != done;
        progress && self.is_admitted() && self.parked_input() == 0
    }

    /// Waits a moment for the socket, until another session needs this worker.
    fn linger(&self, what: PollFlags, context: &Context) -> Result<bool, SessionError> {
        let Some(_place) = context.linger() else { return Ok(false) };
        let end = Instant::now() + PARK_AFTER;
        loop {
            let now = Instant::now();
            if wait_for(&self.socket, what, end.min(now + LINGER_STEP))? {
                return Ok(true);
            }
            if now + LINGER_STEP >= end || context.is_wanted() {
                return Ok(false);
            }
        }
    }

    /// Whether it was let in by a trust that has ended since.
    pub(crate) fn is_revoked(&mut self, trust: &Trust) -> bool {
        let Phase::Open(asker) = &self.phase else { return false };
        let generation = trust.generation();
        if asker.seat.is_none() || generation == self.trust_generation {
            return false;
        }
        let revoked = !trust.allows(&asker.peer);
        if !revoked {
            self.trust_generation = generation;
        }
        revoked
    }

    fn refuse(&mut self, why: Refusal, context: &Context) -> Result<(), SessionError> {
        self.channel.seal_close(&mut self.out)?;
        if let Phase::Open(asker) = &self.phase {
            context.refused(asker, why);
        }
        self.phase = Phase::Closing { until: Instant::now() + CLOSE_DRAIN, shut: false };
        self.deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        Ok(())
    }

    fn fail(&mut self, e: &SessionError, context: &Context) -> Outcome {
        match e {
            SessionError::Ended => {
                // Whoever ends a session has no use for answers that are on their way.
                let _ = self.channel.seal_close(&mut self.out);
            }
            _ if self.is_admitted() => log::debug!("session failed addr={} error=\"{e}\"", self.addr),
            _ => context.rejected(self.addr, e),
        }
        // An alert may be in there, which tells the peer more than a closed connection.
        let _ = self.socket.write(self.out.data());
        Outcome::Close(match e {
            SessionError::Ended => CLOSED,
            SessionError::Io(_) => "connection lost",
            SessionError::Secure(_) | SessionError::Frame(_) | SessionError::Message(_) => "protocol violated",
        })
    }

    fn extend_deadline(&mut self) {
        match &self.phase {
            Phase::Open(asker) if asker.seat.is_some() => self.deadline = Instant::now() + IDLE_TIMEOUT,
            _ => (),
        }
    }
}

/// What gathering came to.
enum Produced {
    /// There is something to write.
    Some,
    /// No request is waiting.
    Nothing,
    /// An answer needs another turn.
    Unfinished,
    /// The rate limit lets nothing pass before that time.
    Throttled(Instant),
    /// A chunk may not begin before others are sent.
    Waits,
}

impl Turn {
    fn end(&self) -> Instant {
        self.began + TURN_TIME_MAX
    }

    fn is_over(&self) -> bool {
        self.sent >= TURN_LEN_MAX || self.requests >= TURN_REQUESTS_MAX || Instant::now() >= self.end()
    }
}

/// Whether something waits since then for as long as it may, so that it should be asked anew.
fn is_stale(waits: Option<(Instant, Duration)>, now: Instant) -> bool {
    waits.is_some_and(|(since, patience)| now.saturating_duration_since(since) >= patience)
}

/// Kind, header and body of the request that `bytes` begin with, and its length, if it is whole.
type WholeFrame<'a> = (u8, &'a [u8], &'a [u8], usize);

fn whole_frame(bytes: &[u8]) -> Result<Option<WholeFrame<'_>>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<FRAME_PREFIX_LEN>() else { return Ok(None) };
    let prefix = FramePrefix::from_bytes(*prefix).check_request()?;
    let (header_len, body_len) = (prefix.header_len as usize, prefix.body_len as usize);
    if rest.len() < header_len + body_len {
        return Ok(None);
    }
    let (header, body) = rest[..header_len + body_len].split_at(header_len);
    Ok(Some((prefix.kind, header, body, FRAME_PREFIX_LEN + header_len + body_len)))
}

/// Ciphertext that is kept of a record that is not whole.
const HELD_LEN_MAX: usize = WIRE_RECORD_LEN_MAX;
/// Why a session ended whose peer had enough.
const CLOSED: &str = "closed";
/// Why a session ended that was let in and would not be any more.
pub(crate) const REVOKED: &str = "key is no longer trusted";
