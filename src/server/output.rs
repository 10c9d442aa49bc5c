//! The answers of a session on their way to its peer.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use mio::net::TcpStream;

use crate::net::Outbox;
use crate::server::body::Body;
use crate::server::context::{Context, Scratch};
use crate::server::input::{SessionError, SessionInput};
use crate::server::limits::{LIST_SLICE, REPLY_FIRST_LEN, REPLY_LEN, UPLOAD_LEN_MIN};
use crate::server::listing::Listing;
use crate::server::remote_peer::RemotePeer;
use crate::server::reply::{Refusal, Reply};
use crate::server::turn::TurnBudget;
use crate::server::unsent::UnsentBound;
use crate::swarm::UploadSlot;

/// The answer that is being made, and what is to be written.
///
/// A session gathers answers as plaintext, at most [`REPLY_LEN`] bytes, seals and writes them, and
/// gathers more only when the socket took all. A chunk keeps its upload slot until then, and no
/// further answer begins meanwhile.
pub(crate) struct SessionOutput {
    /// Ciphertext to be written.
    pub(crate) sealed: Outbox,
    /// The listing whose page is being made.
    listing: Option<Box<Listing>>,
    /// The body that is being sent. Boxed, as most sessions are idle and have none.
    body: Option<Box<Body>>,
    /// The slot of the chunk or layer that is being sent.
    slot: Option<UploadSlot>,
    /// Plaintext in bytes that is gathered at once; small after the peer was slow, so that little
    /// is parked.
    reply_len: usize,
    /// What may wait in the socket.
    pub(crate) unsent: UnsentBound,
    /// Its account has much of the memory: no more than at first is gathered.
    pub(crate) is_brief: bool,
}

/// Why gathering ended.
pub(crate) enum Pause {
    /// Enough is gathered, or what comes before is to be written first.
    Full,
    /// No request is left.
    Idle,
    /// The rate limit lets nothing pass before this time.
    Throttled(Instant),
    /// The next answer needs an upload slot.
    Waits,
    /// The page of a listing needs another turn.
    Unfinished,
    /// The last answer ends the session.
    Refused(Refusal),
}

/// Bounds what waits in a socket before it is on the wire.
pub(crate) fn set_unsent_max(socket: &TcpStream, len: usize) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(len as u32);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (socket, len);
}

impl SessionOutput {
    pub(crate) fn new(now: Instant) -> Self {
        let (sealed, unsent) = (Outbox::new(), UnsentBound::new(now));
        let reply_len = REPLY_FIRST_LEN;
        SessionOutput { sealed, listing: None, body: None, slot: None, reply_len, unsent, is_brief: false }
    }

    /// Appends answers to `scratch.plain` until there is enough, or nothing to answer.
    ///
    /// # Errors
    /// A request is malformed.
    pub(crate) fn gather(
        &mut self,
        peer: &mut RemotePeer,
        input: &mut SessionInput,
        scratch: &mut Scratch,
        context: &Context,
        turn: &mut TurnBudget,
    ) -> Result<Pause, SessionError> {
        scratch.plain.clear();
        if self.body.is_none() {
            context.end_slot(self.slot.take(), true);
        }
        let target = if self.is_brief { REPLY_FIRST_LEN } else { self.reply_len };
        let mut pause = None;
        while pause.is_none() && scratch.plain.len() < target {
            pause = match self.body {
                Some(_) => self.fill(target, &mut scratch.plain, context),
                None => self.answer_next(peer, input, scratch, context, turn)?,
            };
        }
        input.compact();
        Ok(pause.unwrap_or(Pause::Full))
    }

    /// Appends what fits of the body and passes the rate limit.
    fn fill(&mut self, target: usize, plain: &mut Outbox, context: &Context) -> Option<Pause> {
        let body = self.body.as_mut()?;
        let (now, want) = (Instant::now(), body.left().min(target - plain.len()));
        match context.throttle.take(want, body.left(), now) {
            Err(wait) => Some(Pause::Throttled(Instant::now() + wait)),
            Ok(granted) => {
                let (n, complete) = body.fill(plain.room(granted));
                plain.added(n);
                context.throttle.put_back(granted - n);
                if complete {
                    self.body = None;
                }
                None
            }
        }
    }

    /// Appends the head of the next answer, and its body if that is small.
    fn answer_next(
        &mut self,
        peer: &mut RemotePeer,
        input: &mut SessionInput,
        scratch: &mut Scratch,
        context: &Context,
        turn: &mut TurnBudget,
    ) -> Result<Option<Pause>, SessionError> {
        scratch.head.clear();
        let reply = match self.listing.take() {
            Some(mut listing) => {
                if !listing.go_on(turn.end().min(Instant::now() + LIST_SLICE)) {
                    self.listing = Some(listing);
                    return Ok(Some(Pause::Unfinished));
                }
                context.handler.listed(*listing, &mut scratch.head)
            }
            None => {
                let Some((frame, len)) = input.first()? else {
                    peer.is_deferred = false;
                    return Ok(Some(Pause::Idle));
                };
                if self.slot.is_some() {
                    return Ok(Some(Pause::Full));
                }
                let was_admitted = peer.is_admitted();
                let reply = context.handler.answer(peer, &frame, Instant::now(), &mut scratch.head)?;
                if matches!(reply, Reply::Wait) {
                    return Ok(Some(Pause::Waits));
                }
                input.answered(len);
                turn.requests += 1;
                if peer.is_admitted() != was_admitted && input.first()?.is_some() {
                    // `Welcome` waits for no disk, and what follows it is charged to the peer.
                    turn.finish();
                }
                reply
            }
        };
        scratch.plain.push(&scratch.head);
        match reply {
            Reply::Done | Reply::Wait => (),
            Reply::Body(body, slot) => {
                let is_upload = body.left() >= UPLOAD_LEN_MIN || slot.is_some_and(|slot| slot.is_layer());
                self.slot = slot.filter(|_| is_upload);
                context.end_slot(slot.filter(|_| !is_upload), false);
                self.body = Some(Box::new(body));
            }
            Reply::Listing(listing) => self.listing = Some(listing),
            Reply::Close(why) => return Ok(Some(Pause::Refused(why))),
        }
        Ok(turn.is_over().then_some(Pause::Full))
    }

    /// Writes what is sealed; false when the peer does not take it all now.
    pub(crate) fn flush(&mut self, socket: &mut TcpStream, turn: &mut TurnBudget) -> Result<bool, SessionError> {
        let some = !self.sealed.is_empty();
        while !self.sealed.is_empty() {
            match socket.write(self.sealed.data()) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(n) => {
                    self.sealed.sent(n);
                    turn.sent += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
        if some {
            self.unsent.flushed();
        }
        if some && self.reply_len < REPLY_LEN {
            self.reply_len = (self.reply_len * 2).min(REPLY_LEN);
            if self.reply_len == REPLY_LEN
                && let Some(len) = self.unsent.takes_much(Instant::now())
            {
                set_unsent_max(socket, len);
            }
        }
        Ok(true)
    }

    /// The peer is slow: little is gathered for it next.
    pub(crate) fn slow_down(&mut self) {
        self.reply_len = REPLY_FIRST_LEN;
    }

    /// Whether the page of a listing is being made.
    pub(crate) fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// The session is over: nothing more is made, and the slot is free again.
    pub(crate) fn end(&mut self, context: &Context) {
        self.listing = None;
        context.end_slot(self.slot.take(), false);
    }

    /// Uses the buffer of the worker for what is to be written.
    pub(crate) fn lend(&mut self, buffer: &mut Outbox) {
        let mut sealed = std::mem::take(buffer);
        sealed.clear();
        sealed.push(self.sealed.data());
        self.sealed = sealed;
    }

    /// Gives the buffer back to the worker and copies out what is left in it.
    pub(crate) fn give_back(&mut self, buffer: &mut Outbox) {
        let mut kept = Outbox::new();
        kept.push(self.sealed.data());
        *buffer = std::mem::replace(&mut self.sealed, kept);
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let body = self.body.as_ref().map_or(0, |body| body.memory());
        self.sealed.len() + body + self.listing.as_ref().map_or(0, |listing| listing.len())
    }
}
