//! The thread that waits: for connections, for idle and stalled sessions, and for workers. It
//! blocks on nothing but `poll`: sessions are handed over only while there is room for them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};

use crate::limits::SERVER_TICK;
use crate::net::Tls;
use crate::server::connection_slots::HandshakeSlots;
use crate::server::context::Context;
use crate::server::limits::{ACCEPTS_AT_ONCE, UPLOAD_LOOK_MIN};
use crate::server::listen::{canonical, is_of_one_connection};
use crate::server::parked::ParkedMemory;
use crate::server::queues::{Line, Queues};
use crate::server::session::{AcceptedSession, GAVE_WAY, REVOKED};
use crate::server::slots::{SessionSlots, SlotState};
use crate::server::turn::TurnOutcome;
use crate::server::worker::{TurnDone, TurnJob, WorkerChannels};
use crate::swarm::TurnCost;

mod turning;
mod upkeep;

/// All sessions that no worker has, and the lines in which they wait for one.
pub(crate) struct Acceptor {
    poll: Poll,
    listeners: Vec<TcpListener>,
    tls: Tls,
    context: Arc<Context>,
    workers: WorkerChannels,
    slots: SessionSlots,
    queues: Queues,
    parked: ParkedMemory,
    handshakes: HandshakeSlots,
    /// When to accept again: a listener may hold connections of which no further event comes.
    accept_at: Option<Instant>,
    trust_generation: u64,
    next_tick: Instant,
}

/// The token that workers and the shutdown wake with; listeners follow, then slots.
pub(crate) const WAKE: Token = Token(0);

impl Acceptor {
    /// # Errors
    /// The system cannot wait for the listeners.
    pub(crate) fn new(
        poll: Poll,
        listeners: Vec<std::net::TcpListener>,
        tls: Tls,
        context: Arc<Context>,
        workers: WorkerChannels,
        handshakes: HandshakeSlots,
    ) -> io::Result<Self> {
        let mut registered = Vec::new();
        for (i, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(1 + i), Interest::READABLE)?;
            registered.push(listener);
        }
        let (trust_generation, now) = (context.handler.trust.generation(), Instant::now());
        Ok(Acceptor {
            poll,
            listeners: registered,
            tls,
            context,
            workers,
            slots: SessionSlots::default(),
            queues: Queues::new(now),
            parked: ParkedMemory::default(),
            handshakes,
            accept_at: None,
            trust_generation,
            next_tick: now + SERVER_TICK,
        })
    }

    /// Runs until the shutdown begins.
    pub(crate) fn run(mut self) {
        let mut events = mio::Events::with_capacity(1024);
        while !self.context.shutdown.has_begun() {
            let wait = self.wait_at_most();
            if let Err(e) = self.poll.poll(&mut events, wait)
                && e.kind() != ErrorKind::Interrupted
            {
                log::error!("server stops: cannot wait for connections error=\"{e}\"");
                self.context.handler.directory.turned().close();
                return;
            }
            for event in &events {
                match event.token().0.checked_sub(1) {
                    None => (),
                    Some(i) if i < self.listeners.len() => self.accept_at = Some(Instant::now()),
                    Some(i) => self.wake(i - self.listeners.len()),
                }
            }
            while let Ok(done) = self.workers.done.try_recv() {
                self.take_back(done);
            }
            let now = Instant::now();
            self.take_over();
            self.revoke();
            if self.accept_at.is_some_and(|at| now >= at) {
                self.accept(now);
            }
            if now >= self.next_tick {
                self.next_tick = now + SERVER_TICK;
                self.tick(now);
            }
            self.dispatch(now);
        }
        self.context.handler.directory.turned().close();
        for slot in self.slots.iter_mut() {
            if let Some(session) = &mut slot.session {
                session.end("server stops", &self.context);
            }
        }
    }

    fn wait_at_most(&self) -> Option<Duration> {
        let now = Instant::now();
        let keeps = !self.slots.is_empty() || self.context.handler.directory.turned().offered() > 0;
        let tick = keeps.then_some(self.next_tick);
        let mut lines = [None; 2];
        if !self.workers.jobs.is_full() {
            let for_slot = self.context.handler.gate().next_look(now);
            lines = [self.queues.next_due(now), for_slot.map(|at| at.max(now + UPLOAD_LOOK_MIN))];
        }
        let next = lines.into_iter().chain([tick, self.accept_at]).flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for i in 0..self.listeners.len() {
            for left in (0..ACCEPTS_AT_ONCE).rev() {
                match self.listeners[i].accept() {
                    Ok((socket, addr)) => self.admit(socket, addr, now),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if is_of_one_connection(&e) => (),
                    Err(e) => {
                        // Out of descriptors or memory: the open connections stay, and it is tried
                        // again.
                        let line = format_args!("cannot accept connections error=\"{e}\"");
                        self.context.log.log(log::Level::Warn, now, line);
                        self.accept_at = self.accept_at.or(Some(now + SERVER_TICK));
                        break;
                    }
                }
                if left == 0 {
                    self.accept_at = Some(now);
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, addr: SocketAddr, now: Instant) {
        let addr = canonical(addr);
        let ip = addr.ip();
        // A silent connection gives way, so that neither one host nor the others behind one address
        // are locked out.
        let crowded = self.handshakes.is_crowded(ip).then_some(ip);
        if !self.handshakes.has_room(ip) && !self.make_room(crowded) {
            return self.context.log_rejected(addr, &"too many handshakes");
        }
        let at = self.slots.take();
        let token = self.token(at);
        let session = AcceptedSession::new(at, socket, addr, &self.tls, now).map_err(|e| e.to_string());
        let registered = session.and_then(|mut session| {
            let registered = self.poll.registry().register(&mut session.socket, token, Interest::READABLE);
            registered.map(|()| session).map_err(|e| e.to_string())
        });
        match registered {
            Ok(session) => {
                self.handshakes.enter(ip, at);
                let slot = self.slots.at(at);
                slot.account = session.account();
                slot.greeting = Some(ip);
                slot.state = SlotState::Parked;
                slot.session = Some(Box::new(session));
            }
            Err(e) => {
                self.slots.release(at);
                self.context.log_rejected(addr, &e);
            }
        }
    }

    /// Ends the connection without `Hello` that waits longest, of `ip` or else of the address that
    /// has the most. False if workers have all of them.
    fn make_room(&mut self, ip: Option<IpAddr>) -> bool {
        let deadline = |at: usize| {
            let slot = self.slots.get(at)?;
            let is_here = matches!(slot.state, SlotState::Parked | SlotState::Queued(_));
            slot.session.as_ref().filter(|_| is_here).map(|session| session.deadline)
        };
        let found = self.handshakes.oldest(ip, deadline);
        if let Some(at) = found {
            self.close(at, "gave way to newer connections");
        }
        found.is_some()
    }

    /// The socket of a session can do something.
    fn wake(&mut self, at: usize) {
        if self.slots.get(at).is_some_and(|slot| slot.state == SlotState::Parked) {
            self.enqueue(at, Line::Ready);
        }
    }

    fn enqueue(&mut self, at: usize, line: Line) {
        let slot = self.slots.at(at);
        slot.state = SlotState::Queued(line);
        let (account, ticket) = (slot.account, slot.ticket.take());
        match line {
            Line::Ready => self.queues.push_ready(account, at),
            Line::Paced => slot.ticket = Some(self.queues.push_paced(account, at, ticket)),
            Line::Waiting => self.context.handler.gate().wait(at),
        }
    }

    /// Hands sessions to workers while there is room. Sessions with something to read or write come
    /// first, then sessions that wait for an upload slot, then sessions that wait for the rate
    /// limit.
    fn dispatch(&mut self, now: Instant) {
        while !self.workers.jobs.is_full() {
            let drawn = self.queues.pop_ready(now);
            let drawn = drawn.or_else(|| self.context.handler.gate().next(&self.queues.price, now));
            let Some(at) = drawn.or_else(|| self.queues.pop_paced(now)) else { break };
            let slot = self.slots.at(at);
            slot.drawn = now;
            match (slot.session.take(), slot.state) {
                (Some(mut session), SlotState::Queued(line)) => {
                    slot.state = SlotState::Active(line);
                    self.parked.remove(slot.account, std::mem::take(&mut slot.parked));
                    session.be_brief(self.parked.is_scarce_for(slot.account));
                    self.context.handed_over.fetch_add(1, Ordering::Relaxed);
                    // Never full here, since no other thread puts jobs in; gone only when the
                    // server ends.
                    if self.workers.jobs.try_send(TurnJob { slot: at, session }).is_err() {
                        return;
                    }
                }
                (_, SlotState::Doomed(line)) => {
                    let account = slot.account;
                    self.queues.done(line, account, at, TurnCost::NOTHING);
                    self.slots.release(at);
                }
                _ => (),
            }
        }
        self.context.wanted.store(self.queues.is_wanted(), Ordering::Relaxed);
    }

    fn take_back(&mut self, TurnDone { slot: at, mut session, outcome }: TurnDone) {
        let (now, token) = (Instant::now(), self.token(at));
        let slot = self.slots.at(at);
        let SlotState::Active(line) = slot.state else { return };
        let sent = session.sent() - slot.sent;
        let cost = match outcome {
            // A turn in which neither the rate limit nor others left it anything is no service.
            TurnOutcome::Delay(_) | TurnOutcome::Wait if sent == 0 => TurnCost::NOTHING,
            _ => self.queues.price.of_turn(sent, now.saturating_duration_since(slot.drawn), now),
        };
        if cost != TurnCost::NOTHING || line != Line::Paced {
            slot.ticket = None;
        }
        slot.sent += sent;
        if let (Some(peer), true, 1..) = (session.peer(), session.is_admitted(), sent) {
            self.context.handler.directory.traffic().sent(peer, sent);
        }
        let account = std::mem::replace(&mut slot.account, session.account());
        if session.is_admitted()
            && let Some(ip) = slot.greeting.take()
        {
            self.handshakes.leave(ip, at);
        }
        let why = match (self.rearm(&mut session, outcome, token), outcome) {
            (Err(_), _) => Some("cannot wait for its socket"),
            (Ok(()), TurnOutcome::Close(why)) => Some(why),
            // Trust may have changed after the worker looked at it and before it is looked at here
            // again.
            (Ok(()), _) if session.is_revoked(&self.context.handler.trust) => Some(REVOKED),
            (Ok(()), _) => session.lost_slot().then_some(GAVE_WAY),
        };
        match why {
            Some(why) => self.end(at, &mut session, why),
            None if session.is_offered() && outcome == TurnOutcome::Read => self.hand_over(at, session),
            None => self.park(at, session, outcome),
        }
        // After it is in a line again, so that what its account was served is not forgotten.
        self.queues.done(line, account, at, cost);
        self.context.handler.gate().turn_done(at, cost, now);
        self.oust();
        self.evict();
    }

    /// Waits for the socket of a session. If that can be used already, the event comes at once, so
    /// nothing that happened meanwhile is missed.
    fn rearm(&self, session: &mut AcceptedSession, outcome: TurnOutcome, token: Token) -> io::Result<()> {
        let interest = match outcome {
            TurnOutcome::Read => Interest::READABLE,
            TurnOutcome::Write => Interest::WRITABLE,
            _ => return Ok(()),
        };
        self.poll.registry().reregister(&mut session.socket, token, interest)
    }

    /// A session waits for what it wants after its turn.
    fn park(&mut self, at: usize, session: Box<AcceptedSession>, outcome: TurnOutcome) {
        let slot = self.slots.at(at);
        slot.parked = session.parked();
        self.parked.add(slot.account, slot.parked);
        slot.session = Some(session);
        slot.state = SlotState::Parked;
        match outcome {
            TurnOutcome::Again => self.enqueue(at, Line::Ready),
            TurnOutcome::Wait => self.enqueue(at, Line::Waiting),
            TurnOutcome::Delay(until) => {
                self.queues.delay(until);
                self.enqueue(at, Line::Paced);
            }
            _ => (),
        }
    }

    /// Closes the sessions whose slots went to newcomers. A worker may have one: then it ends after
    /// that turn.
    fn oust(&mut self) {
        for at in self.context.handler.connections.ousted() {
            let session = self.slots.get(at).and_then(|slot| slot.session.as_ref());
            if session.is_some_and(|session| session.lost_slot()) {
                self.close(at, GAVE_WAY);
            }
        }
    }

    /// Ends a session that no worker has.
    fn close(&mut self, at: usize, why: &str) {
        if let Some(mut session) = self.slots.at(at).session.take() {
            // A refusal is logged already.
            if !session.is_admitted() && !session.is_closing() {
                self.context.log_rejected(session.addr, &why);
            }
            self.end(at, &mut session, why);
        }
    }

    fn end(&mut self, at: usize, session: &mut AcceptedSession, why: &str) {
        if why == REVOKED {
            session.abort();
        }
        session.end(why, &self.context);
        self.context.handler.gate().leave(at);
        let slot = self.slots.at(at);
        self.parked.remove(slot.account, std::mem::take(&mut slot.parked));
        if let Some(ip) = slot.greeting.take() {
            self.handshakes.leave(ip, at);
        }
        match slot.state {
            SlotState::Queued(line @ (Line::Ready | Line::Paced)) => slot.state = SlotState::Doomed(line),
            _ => self.slots.release(at),
        }
    }

    fn token(&self, at: usize) -> Token {
        Token(1 + self.listeners.len() + at)
    }
}
