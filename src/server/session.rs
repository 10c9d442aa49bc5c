//! One accepted connection: a state machine over a nonblocking socket, served in bounded turns.
//!
//! Between turns a session holds no more than what is half read and half written, so an idle one
//! costs little memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::event::PollFlags;

use crate::identity::PeerId;
use crate::limits::{CLOSE_DRAIN, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT};
use crate::net::{Channel, SecureError, Tls, wait_for};
use crate::runtime::keystore::TrustView;
use crate::server::connection_slots::{Account, ConnectionSlot};
use crate::server::context::{Context, Scratch};
use crate::server::input::{SessionError, SessionInput};
use crate::server::limits::{DRAIN_READS_MAX, LINGER_STEP, PARK_AFTER, UNSENT_FIRST_LEN};
use crate::server::output::{Pause, SessionOutput, set_unsent_max};
use crate::server::remote_peer::RemotePeer;
use crate::server::reply::Refusal;
use crate::server::turn::{TurnBudget, TurnOutcome};

mod turned;

/// An accepted connection.
pub(crate) struct AcceptedSession {
    /// Its number: that of its slot.
    id: usize,
    pub(crate) socket: TcpStream,
    pub(crate) addr: SocketAddr,
    /// It ends when this passes without a turn.
    pub(crate) deadline: Instant,
    /// Since when something is held for a peer that neither takes nor completes it.
    pub(crate) stalled_since: Option<Instant>,
    channel: Channel,
    phase: SessionPhase,
    input: SessionInput,
    output: SessionOutput,
    began: Instant,
    /// Bytes sent on this session.
    sent: u64,
}

enum SessionPhase {
    /// TLS.
    Handshake,
    /// Requests are answered, or refused before `Hello`.
    Open(Box<RemotePeer>),
    /// The last answer is on its way; after it, what the peer still sends is read and dropped until
    /// this time.
    Closing { until: Instant, shut: bool },
}

/// What a session can do next in its turn.
enum SessionStep {
    /// Write what is gathered, or gather more.
    More,
    /// Read.
    Starved,
    /// Nothing before a certain time or event.
    Ends(TurnOutcome),
}

impl AcceptedSession {
    pub(crate) fn new(
        id: usize,
        socket: TcpStream,
        addr: SocketAddr,
        tls: &Tls,
        now: Instant,
    ) -> Result<Self, SecureError> {
        let _ = socket.set_nodelay(true);
        // What a peer that reads nothing is sent is lost to the others.
        set_unsent_max(&socket, UNSENT_FIRST_LEN);
        Ok(AcceptedSession {
            id,
            socket,
            addr,
            deadline: now + HANDSHAKE_TIMEOUT,
            stalled_since: None,
            channel: Channel::accept(tls)?,
            phase: SessionPhase::Handshake,
            input: SessionInput::default(),
            output: SessionOutput::new(now),
            began: now,
            sent: 0,
        })
    }

    /// The key that the peer proved, once it has.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.channel.peer()
    }

    /// Whether the peer said `Hello` and was let in.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(&self.phase, SessionPhase::Open(peer) if peer.is_admitted())
    }

    /// Whether the last answer is given, and the session ends.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, SessionPhase::Closing { .. })
    }

    /// Whether the peer was let in by a trust that has ended since.
    pub(crate) fn is_revoked(&mut self, trust: &TrustView) -> bool {
        match &mut self.phase {
            SessionPhase::Open(peer) => peer.is_revoked(trust),
            _ => false,
        }
    }

    /// Whether its slot went to a newcomer.
    pub(crate) fn lost_slot(&self) -> bool {
        self.slot().is_some_and(ConnectionSlot::is_lost)
    }

    fn slot(&self) -> Option<&ConnectionSlot> {
        match &self.phase {
            SessionPhase::Open(peer) => peer.slot.as_ref(),
            _ => None,
        }
    }

    /// What it is served on.
    pub(crate) fn account(&self) -> Account {
        self.slot().map_or(Account::Addr(self.addr.ip().to_canonical()), ConnectionSlot::account)
    }

    /// Makes the end of the session drop what its socket has not sent yet.
    pub(crate) fn abort(&self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Memory in bytes that grows with what the peer sent and does not take.
    pub(crate) fn parked(&self) -> usize {
        self.input.len() + self.output.memory()
    }

    /// Bytes sent on this session.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The requests for chunks that have come waited too long: they are deferred in the next turn.
    pub(crate) fn defer(&mut self) {
        if let SessionPhase::Open(peer) = &mut self.phase {
            peer.is_deferred = true;
        }
    }

    /// Makes it produce little at once, or not: its account has much of the memory.
    pub(crate) fn be_brief(&mut self, brief: bool) {
        self.output.is_brief = brief;
    }

    /// Serves the session for one turn.
    pub(crate) fn turn(&mut self, scratch: &mut Scratch, context: &Context) -> TurnOutcome {
        self.output.lend(&mut scratch.out);
        let mut turn = TurnBudget::new();
        let idle_since = self.slot().and_then(ConnectionSlot::begin_turn);
        let outcome = match self.serve(scratch, context, &mut turn) {
            Ok(outcome) => outcome,
            Err(e) => self.fail(&e, context),
        };
        self.sent += turn.sent as u64;
        let account = self.account();
        if turn.sent > 0
            && let Some(len) = self.output.unsent.sent(turn.sent, account, &context.unsent, Instant::now())
        {
            set_unsent_max(&self.socket, len);
        }
        let has_progressed = turn.sent > 0 || turn.requests > 0;
        if has_progressed && self.is_admitted() {
            self.deadline = Instant::now() + IDLE_TIMEOUT;
        }
        if let (Some(slot), TurnOutcome::Read | TurnOutcome::Write) = (self.slot(), outcome) {
            slot.end_turn(idle_since.filter(|_| !has_progressed), Instant::now());
        }
        self.stalled_since = match (outcome, self.stalled_since) {
            (TurnOutcome::Read, _) if self.input.len() == 0 => None,
            (TurnOutcome::Read, Some(since)) if turn.requests == 0 => Some(since),
            (TurnOutcome::Write, Some(since)) if turn.sent == 0 => Some(since),
            (TurnOutcome::Again | TurnOutcome::Close(_), _) => None,
            _ => Some(Instant::now()),
        };
        self.output.give_back(&mut scratch.out);
        self.input.shrink();
        outcome
    }

    /// Gives back what the session held of the server, and logs its end; call it once, when the
    /// session is dropped.
    pub(crate) fn end(&mut self, why: &str, context: &Context) {
        self.output.end(context);
        if let (SessionPhase::Open(peer), true) = (&self.phase, self.is_admitted()) {
            context.log_session(format_args!(
                "disconnected peer={} addr={} bytes={} seconds={:.3} reason=\"{why}\"",
                peer.id,
                self.addr,
                self.sent,
                self.began.elapsed().as_secs_f64()
            ));
        }
    }

    fn serve(
        &mut self,
        scratch: &mut Scratch,
        context: &Context,
        turn: &mut TurnBudget,
    ) -> Result<TurnOutcome, SessionError> {
        if self.output.is_listing() {
            // If the peer is gone, the page need not be made.
            self.receive(scratch, context)?;
        }
        loop {
            if context.shutdown.has_begun() {
                return Ok(TurnOutcome::Close("server stops"));
            }
            if self.is_revoked(&context.handler.trust) {
                return Ok(TurnOutcome::Close(REVOKED));
            }
            if self.lost_slot() {
                return Ok(TurnOutcome::Close(GAVE_WAY));
            }
            if !self.output.flush(&mut self.socket, turn)? {
                if self.linger(PollFlags::OUT, context)? {
                    continue;
                }
                self.output.slow_down();
                return Ok(TurnOutcome::Write);
            }
            if self.is_closing() {
                return self.drain(scratch);
            }
            if turn.is_over() {
                return Ok(TurnOutcome::Again);
            }
            match self.produce(scratch, context, turn)? {
                SessionStep::More => continue,
                SessionStep::Starved => (),
                SessionStep::Ends(outcome) => return Ok(outcome),
            }
            if self.is_offered() {
                return self.rest();
            }
            if !self.receive(scratch, context)? && !self.awaits_request(context, turn)? {
                return Ok(TurnOutcome::Read);
            }
        }
    }

    /// Gathers answers and seals them.
    fn produce(
        &mut self,
        scratch: &mut Scratch,
        context: &Context,
        turn: &mut TurnBudget,
    ) -> Result<SessionStep, SessionError> {
        let SessionPhase::Open(peer) = &mut self.phase else { return Ok(SessionStep::Starved) };
        let was_admitted = peer.is_admitted();
        let pause = self.output.gather(peer, &mut self.input, scratch, context, turn)?;
        if !was_admitted && peer.is_admitted() {
            let (addr, agent) = (self.addr, std::mem::take(&mut peer.agent));
            context.log_session(format_args!("connected peer={} addr={addr} agent={agent:?}", peer.id));
        }
        if !scratch.plain.is_empty() {
            self.channel.seal(scratch.plain.data(), &mut self.output.sealed)?;
        }
        Ok(match pause {
            Pause::Refused(why) => {
                self.refuse(why, context)?;
                SessionStep::More
            }
            _ if !self.output.sealed.is_empty() => SessionStep::More,
            Pause::Throttled(until) => SessionStep::Ends(TurnOutcome::Delay(until)),
            Pause::Waits => SessionStep::Ends(TurnOutcome::Wait),
            // A session that is sent data is ready for its next turn much sooner than a page is whole.
            Pause::Unfinished if context.is_wanted() => SessionStep::Ends(TurnOutcome::Again),
            Pause::Unfinished => SessionStep::More,
            Pause::Full | Pause::Idle => SessionStep::Starved,
        })
    }

    /// Takes what the peer sent; false when there is nothing now.
    fn receive(&mut self, scratch: &mut Scratch, context: &Context) -> Result<bool, SessionError> {
        let out = &mut self.output.sealed;
        let some = self.input.receive(&mut self.socket, &mut self.channel, &mut scratch.incoming, out)?;
        if let (SessionPhase::Handshake, Some(id)) = (&self.phase, self.channel.peer()) {
            self.output.unsent.answered(Instant::now());
            let mut peer = RemotePeer::new(self.id, id, self.addr, &context.handler.trust);
            peer.is_local |= self.socket.local_addr().is_ok_and(|own| own.ip() == self.addr.ip());
            self.phase = SessionPhase::Open(Box::new(peer));
        }
        Ok(some)
    }

    /// Reads and drops what the peer still sends, so that its kernel does not throw away the last
    /// answer.
    fn drain(&mut self, scratch: &mut Scratch) -> Result<TurnOutcome, SessionError> {
        let SessionPhase::Closing { until, shut } = &mut self.phase else { return Ok(TurnOutcome::Again) };
        if !std::mem::replace(shut, true) {
            *until = Instant::now() + CLOSE_DRAIN;
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        let until = *until;
        for _ in 0..DRAIN_READS_MAX {
            match self.socket.read(&mut scratch.incoming) {
                Ok(0) => return Ok(TurnOutcome::Close(CLOSED)),
                Ok(_) => (),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.deadline = until;
                    return Ok(TurnOutcome::Read);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(_) => return Ok(TurnOutcome::Close(CLOSED)),
            }
        }
        Ok(if Instant::now() < until { TurnOutcome::Again } else { TurnOutcome::Close(CLOSED) })
    }

    /// Waits a moment for the next request if one is likely; true when something came. Before
    /// `Hello`, and while a request is incomplete, the worker does not wait.
    fn awaits_request(&mut self, context: &Context, turn: &mut TurnBudget) -> Result<bool, SessionError> {
        Ok(turn.has_progressed()
            && self.is_admitted()
            && self.input.len() == 0
            && self.linger(PollFlags::IN, context)?)
    }

    /// Waits a moment for the socket, until another session needs this worker.
    fn linger(&self, what: PollFlags, context: &Context) -> Result<bool, SessionError> {
        let Some(_lingering) = context.linger() else { return Ok(false) };
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

    fn refuse(&mut self, why: Refusal, context: &Context) -> Result<(), SessionError> {
        self.channel.seal_close(&mut self.output.sealed)?;
        if let SessionPhase::Open(peer) = &self.phase {
            context.log_refused(peer, why);
        }
        self.phase = SessionPhase::Closing { until: Instant::now() + CLOSE_DRAIN, shut: false };
        self.deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        Ok(())
    }

    fn fail(&mut self, e: &SessionError, context: &Context) -> TurnOutcome {
        match e {
            SessionError::Ended => {
                // A peer that ends its session has no use for answers that are on their way.
                let _ = self.channel.seal_close(&mut self.output.sealed);
            }
            _ if self.is_admitted() || self.is_turned() => {
                log::debug!("session failed addr={} error=\"{e}\"", self.addr);
            }
            _ => context.log_rejected(self.addr, e),
        }
        // An alert may be in there, which says more than a closed connection.
        let _ = self.socket.write(self.output.sealed.data());
        TurnOutcome::Close(match e {
            SessionError::Ended => CLOSED,
            SessionError::Io(_) => "connection lost",
            SessionError::Secure(_) | SessionError::Frame(_) | SessionError::Message(_) => "protocol violated",
        })
    }
}

/// Why a session ended that its peer closed.
const CLOSED: &str = "closed";
/// Why a session ended whose key was let in and would not be now.
pub(crate) const REVOKED: &str = "key is no longer trusted";
/// Why a session ended whose slot went to a newcomer.
pub(crate) const GAVE_WAY: &str = "idle while others need the slot";
