//! A dialed session that has said `Hello`: ask, and get the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::identity::{NodeId, PeerId};
use crate::limits::{HANDSHAKE_TIMEOUT, REASON_SHOWN_MAX};
use crate::net::{Dialed, StreamError, Tls};
use crate::peers::directory::{Directory, Presence};
use crate::peers::handover::{Handover, HandoverOffer};
use crate::peers::limits::BODY_STEP;
use crate::peers::opening::Opening;
use crate::peers::turned::{Lease, SessionGuards};
use crate::proto::{FramePrefix, Kind, Problem, Request, Status, Welcome, decode_header, encode_request};
use crate::runtime::{OnBegin, Shutdown};
use crate::swarm::{Dropped, RefusalCause};

mod ahead;
mod error;
mod turned;

pub use ahead::Ahead;
pub use error::AskError;
pub use turned::TurnAnswer;

/// Opens sessions: dials, says `Hello`, and takes the answer into the [`Directory`].
#[derive(Clone)]
pub struct Dialer {
    directory: Arc<Directory>,
    tls: Tls,
    shutdown: Shutdown,
    handover: Arc<Handover<Session>>,
    /// Whether its sessions are left for a survey in the end.
    hands_over: bool,
}

/// How to open a session.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The address to dial.
    pub addr: SocketAddr,
    /// The key that must answer there; any trusted key without one.
    pub expect: Option<PeerId>,
    /// Longest time for connecting and the TLS handshake.
    pub dial_timeout: Duration,
    /// When `Welcome` must be there; [`HANDSHAKE_TIMEOUT`] after the dial without one.
    pub welcome_by: Option<Instant>,
}

/// A dialed session that has said `Hello` and was welcomed. Beginning of the shutdown cuts it off, and
/// so does the end of the trust in its peer.
pub struct Session {
    /// The stream.
    pub dialed: Dialed,
    /// The key that TLS proved.
    pub peer: PeerId,
    /// The peer's instance, as `Welcome` names it.
    pub instance: u64,
    /// The address that was dialed, or that a turned session came from.
    pub addr: SocketAddr,
    /// What the peer says of itself.
    pub welcome: Welcome,
    /// Whether the peer's announce was taken in.
    pub announced: Result<(), Dropped>,
    /// How long a question and its answer took, at most: the shorter one of handshake and `Hello`.
    pub round_trip: Duration,
    /// Whether the session served an earlier task, so that the peer may have closed it since.
    pub reused: bool,
    offer: Option<HandoverOffer<Session>>,
    _presence: Presence,
    /// Cut the session off at the end of the node, and of the trust in the peer; the place of a turned one.
    _held: (SessionGuards, Option<Box<dyn Lease>>),
    frames: Frames,
}

/// The buffers of a session, and what is known to be on its way.
#[derive(Default)]
struct Frames {
    /// The header of the last answer.
    header: Vec<u8>,
    out: Vec<u8>,
    /// What was sent together with `Hello` and is still to be asked for.
    asked: Opening,
}

impl Dialer {
    /// A dialer for the node of `directory`, with the identity `tls`. Beginning of `shutdown` cuts
    /// off its sessions.
    pub fn new(directory: Arc<Directory>, tls: Tls, shutdown: Shutdown) -> Self {
        Dialer { directory, tls, shutdown, handover: Handover::new(), hands_over: false }
    }

    /// The directory that it takes answers into.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The same dialer for contacts, whose sessions end with [`Session::hand_over`].
    pub fn handing_over(self) -> Self {
        Dialer { hands_over: true, ..self }
    }

    /// Where contacts leave their sessions for surveys.
    pub fn handover(&self) -> &Arc<Handover<Session>> {
        &self.handover
    }

    /// The signal that ends the node.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Dials, says `Hello` and reads `Welcome`. The directory learns that the key is proved at the
    /// address, what the peer says of itself, and a refusal by either side. The answers to what `ahead` sends are left
    /// for the caller.
    ///
    /// # Errors
    /// [`AskError`]: all but [`AskError::NoAddress`].
    pub fn open(&self, call: &Call, ahead: Ahead<'_>) -> Result<Session, AskError> {
        let hold = |socket| self.shutdown.cuts(socket);
        let dialed = Dialed::dial_held(call.addr, call.expect, &self.tls, call.dial_timeout, hold);
        self.directory.dialed(dialed.as_ref().err());
        let (dialed, held) = dialed?;
        self.greet(dialed, held, call, ahead)
    }

    /// As [`open`](Self::open), over a connection that is dialed already; `held` cuts it off.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn greet(&self, mut dialed: Dialed, held: OnBegin, call: &Call, ahead: Ahead<'_>) -> Result<Session, AskError> {
        let &Call { addr, welcome_by, .. } = call;
        let peer = dialed.peer();
        let trust = self.directory.trust();
        // Before the look, so that a key which is removed after it is cut off.
        let revoked = match trust.is_open() {
            true => None,
            false => trust.cuts(peer, dialed.closer().map_err(StreamError::from)?),
        };
        if !trust.allows(&peer) {
            self.directory.refused(peer, RefusalCause::NotTrustedHere);
            dialed.close();
            return Err(AskError::Untrusted(peer));
        }
        let deadline = welcome_by.unwrap_or_else(|| Instant::now() + HANDSHAKE_TIMEOUT);
        let mut frames = Frames::default();
        encode_request(&Request::Hello(self.directory.own().hello()), &mut frames.out);
        ahead(peer, dialed.handshake(), &mut frames.out);
        dialed.send(&frames.out, deadline)?;
        let sent = Instant::now();
        let welcome: Welcome = match frames.welcome(&mut dialed, deadline) {
            Err(AskError::Refused(reason)) => {
                self.directory.refused(peer, RefusalCause::of_reason(&reason));
                return Err(AskError::Refused(reason));
            }
            Err(e @ AskError::Busy(_)) => {
                self.directory.was_full(peer, Instant::now());
                return Err(e);
            }
            welcome => welcome?,
        };
        let round_trip = dialed.handshake().min(sent.elapsed());
        let node = NodeId::new(peer, welcome.instance);
        // Before the peer becomes known: a survey then waits for this session.
        let offer = if self.hands_over { self.handover.offer(node) } else { None };
        let announced = match dialed.is_turned() {
            // Nothing was reached at that address.
            true => self.directory.said(node, &welcome.announce, addr).map(drop),
            false => self.directory.welcome(node, &welcome.announce, addr, Instant::now()),
        };
        let presence = self.directory.hold(node);
        let instance = welcome.instance;
        let (reused, _presence, _held) = (false, presence, ((held, revoked), None));
        Ok(Session {
            dialed,
            peer,
            instance,
            addr,
            welcome,
            announced,
            round_trip,
            reused,
            offer,
            _presence,
            _held,
            frames,
        })
    }
}

impl Frames {
    /// Reads the beginning of the next answer, which must be of `kind`, up to its body.
    fn head(
        &mut self,
        dialed: &mut Dialed,
        kind: Kind,
        body_max: usize,
        deadline: Instant,
    ) -> Result<(Status, u32), AskError> {
        let prefix: FramePrefix = dialed.read_head(&mut self.header, deadline)?;
        let status = prefix.check_response(body_max).map_err(StreamError::from)?;
        if prefix.kind != kind as u8 {
            return Err(AskError::Protocol(format!("answer of kind {} to {kind:?}", prefix.kind)));
        }
        Ok((status, prefix.body_len))
    }

    fn welcome(&mut self, dialed: &mut Dialed, deadline: Instant) -> Result<Welcome, AskError> {
        match self.head(dialed, Kind::Hello, 0, deadline)? {
            (Status::Ok, _) => Ok(decode_header(&self.header, "Welcome")?),
            (status, _) => Err(self.problem(status)),
        }
    }

    /// What an answer other than `Ok` means.
    fn problem(&self, status: Status) -> AskError {
        let problem: Problem = decode_header(&self.header, "Problem").unwrap_or_default();
        match status {
            Status::Refused => {
                let shown = problem.reason.chars().filter(|c| !c.is_control()).take(REASON_SHOWN_MAX);
                AskError::Refused(shown.collect())
            }
            Status::Busy => AskError::Busy(Duration::from_millis(problem.retry_after_ms as u64)),
            other => AskError::Protocol(format!("unexpected answer {other:?}")),
        }
    }
}

impl Session {
    /// The peer: its key and instance.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.peer, self.instance)
    }

    /// Sends `requests`; their answers come in the same order.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn send(&mut self, requests: &[Request], deadline: Instant) -> Result<(), AskError> {
        let out = &mut self.frames.out;
        out.clear();
        requests.iter().for_each(|request| encode_request(request, out));
        Ok(self.dialed.send(out, deadline)?)
    }

    /// Sends whole frames.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn send_frames(&mut self, frames: &[u8], deadline: Instant) -> Result<(), AskError> {
        Ok(self.dialed.send(frames, deadline)?)
    }

    /// Reads the beginning of the next answer, which must be of `kind`. Returns its status and the
    /// length of its body, at most `body_max` bytes, which is still to be read.
    ///
    /// # Errors
    /// [`AskError::Stream`], [`AskError::Protocol`]
    pub fn receive_head(&mut self, kind: Kind, body_max: usize, deadline: Instant) -> Result<(Status, u32), AskError> {
        self.frames.head(&mut self.dialed, kind, body_max, deadline)
    }

    /// Reads a body of `len` bytes, which was compared with its bound. Memory grows with what
    /// really comes.
    ///
    /// # Errors
    /// [`AskError::Stream`]
    pub fn body(&mut self, len: u32, deadline: Instant) -> Result<Vec<u8>, AskError> {
        let mut body = Vec::new();
        while body.len() < len as usize {
            let at = body.len();
            body.resize((at + BODY_STEP).min(len as usize), 0);
            self.dialed.read_until(&mut body[at..], deadline)?;
        }
        Ok(body)
    }

    /// The header of the last answer, in postcard form.
    pub fn header_bytes(&self) -> &[u8] {
        &self.frames.header
    }

    /// The header of the last answer; `what` names it in the error.
    ///
    /// # Errors
    /// [`AskError::Protocol`]
    pub fn header<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, AskError> {
        Ok(decode_header(&self.frames.header, what)?)
    }

    /// What an answer other than `Ok` means.
    pub fn problem(&self, status: Status) -> AskError {
        self.frames.problem(status)
    }

    /// Leaves the session, on which nothing but the question of a survey is unanswered, for a survey if there is one; otherwise
    /// as [`close`](Self::close).
    pub fn hand_over(mut self) {
        match self.offer.take() {
            Some(offer) => offer.leave(self),
            None => self.close(),
        }
    }

    /// Says goodbye and closes. Does not wait.
    pub fn close(self) {
        self.dialed.close();
    }
}
