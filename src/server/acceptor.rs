//! The thread that waits: for connections, for idle and stalled sessions, and for workers. It never blocks on anything
//! but `poll`: jobs are handed over only while there is room for them.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};

use crate::limits::{HANDSHAKES_PER_ADDR_MAX, PARKED_OUTPUT_MAX, SERVER_TICK};
use crate::net::Tls;
use crate::server::limits::{ACCEPTS_AT_ONCE, HELD_BACK_LOOK, UPLOAD_LOOK_MIN};
use crate::server::seats::Key;
use crate::server::session::{Outcome, REVOKED, Session};
use crate::server::worker::{Context, Done, Job};
use crate::swarm::{FairQueue, Place, TurnCost, TurnPrice};

/// All sessions that no worker has, and the order in which they get one.
pub(crate) struct Acceptor {
    poll: Poll,
    listeners: Vec<TcpListener>,
    tls: Tls,
    context: Arc<Context>,
    jobs: Sender<Job>,
    done: Receiver<Done>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// What turns cost.
    price: TurnPrice,
    /// Sessions with something to read or write.
    ready: FairQueue<Key>,
    /// Sessions that wait for the rate limit, which has nothing to give before `paced_until`.
    paced: FairQueue<Key>,
    paced_until: Instant,
    /// Sessions whose next answer is a chunk that may not begin yet. That is looked at whenever a worker has ended a turn,
    /// and at this time.
    waiting: FairQueue<Key>,
    waiting_until: Instant,
    /// Connections without `Hello` so far, in all and by source address, the oldest at the front. The others are
    /// bounded by their seats.
    greeting: usize,
    greeting_max: usize,
    greeting_by_addr: HashMap<IpAddr, VecDeque<usize>>,
    sessions: usize,
    /// When to accept again: a listener may hold connections that no event will tell of again.
    accept_at: Option<Instant>,
    trust_generation: u64,
    next_tick: Instant,
}

/// A place for a session.
struct Slot {
    session: Option<Box<Session>>,
    state: State,
    key: Key,
    /// Set until it said `Hello`: the address that it counts for.
    greeting: Option<IpAddr>,
    /// Which queue it waits in, or was drawn from.
    line: Line,
    /// What it waits with in its queue, or waited with if it got nothing since.
    ticket: Option<u64>,
    /// When it was drawn last.
    drawn: Instant,
    /// Where it waited for an upload when what it waited with was sent back.
    place: Option<Place>,
    sent: u64,
    parked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Ready,
    /// For the rate limit.
    Paced,
    /// For an upload.
    Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Waits for its socket.
    Parked,
    /// Waits for a worker, for the rate limit or for an upload.
    Queued,
    /// Was ended while it waited for a worker; the slot is free when the queue gives it out.
    Doomed,
    /// A worker has it.
    Active,
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
        (jobs, done): (Sender<Job>, Receiver<Done>),
        greeting_max: usize,
    ) -> io::Result<Self> {
        let mut registered = Vec::new();
        for (i, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(1 + i), Interest::READABLE)?;
            registered.push(listener);
        }
        let trust_generation = context.handler.trust.generation();
        Ok(Acceptor {
            poll,
            listeners: registered,
            tls,
            context,
            jobs,
            done,
            slots: Vec::new(),
            free: Vec::new(),
            price: TurnPrice::new(Instant::now()),
            ready: FairQueue::new(),
            paced: FairQueue::new(),
            paced_until: Instant::now(),
            waiting: FairQueue::new(),
            waiting_until: Instant::now(),
            greeting: 0,
            greeting_max,
            greeting_by_addr: HashMap::new(),
            sessions: 0,
            accept_at: None,
            trust_generation,
            next_tick: Instant::now() + SERVER_TICK,
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
                return;
            }
            for event in &events {
                match event.token().0.checked_sub(1) {
                    None => (),
                    Some(i) if i < self.listeners.len() => self.accept_at = Some(Instant::now()),
                    Some(i) => self.wake(i - self.listeners.len()),
                }
            }
            while let Ok(done) = self.done.try_recv() {
                self.take_back(done);
            }
            let now = Instant::now();
            if self.accept_at.is_some_and(|at| now >= at) {
                self.accept(now);
            }
            if now >= self.next_tick {
                self.next_tick = now + SERVER_TICK;
                self.tick(now);
            }
            self.dispatch(now);
        }
        for slot in &self.slots {
            if let Some(session) = &slot.session {
                session.end("server stops", &self.context);
            }
        }
    }

    fn wait_at_most(&self) -> Option<Duration> {
        let tick = (self.sessions > 0).then_some(self.next_tick);
        let (now, is_full) = (Instant::now(), self.jobs.is_full());
        let due = |queue: &FairQueue<Key>, at: Instant| {
            // One that has to let others catch up may be drawn as time passes.
            let at = if queue.has_next(&self.price, now) { at } else { at.max(now + HELD_BACK_LOOK) };
            (queue.is_waiting() && !is_full).then_some(at)
        };
        let lines = [due(&self.ready, now), due(&self.paced, self.paced_until), due(&self.waiting, self.waiting_until)];
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
                        // Out of descriptors or memory: those that are open go on, and it is tried again.
                        let line = format_args!("cannot accept connections error=\"{e}\"");
                        self.context.noise.log(log::Level::Warn, now, line);
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
        // Whoever is silent gives way, so that neither one host nor the others behind one address are locked out.
        let crowded = self.greeting_by_addr.get(&ip).is_some_and(|slots| slots.len() >= HANDSHAKES_PER_ADDR_MAX);
        let room = match crowded {
            true => self.make_room(Some(ip)),
            false => self.greeting < self.greeting_max || self.make_room(None),
        };
        if !room {
            return self.context.rejected(addr, &"too many handshakes");
        }
        let mut session = match Session::new(socket, addr, &self.tls, now) {
            Ok(session) => Box::new(session),
            Err(e) => return self.context.rejected(addr, &e),
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            self.slots.len() - 1
        });
        let token = self.token(at);
        if let Err(e) = self.poll.registry().register(&mut session.socket, token, Interest::READABLE) {
            self.free.push(at);
            return self.context.rejected(addr, &e);
        }
        self.sessions += 1;
        self.greeting += 1;
        self.greeting_by_addr.entry(ip).or_default().push_back(at);
        let slot = &mut self.slots[at];
        slot.key = session.key;
        slot.greeting = Some(ip);
        slot.state = State::Parked;
        slot.session = Some(session);
    }

    /// Ends the connection without `Hello` that waits longest, of `ip` or else of the address that has the most. False
    /// if workers have all of them.
    fn make_room(&mut self, ip: Option<IpAddr>) -> bool {
        let oldest = |slots: &VecDeque<usize>| {
            let at = *slots.iter().find(|at| matches!(self.slots[**at].state, State::Parked | State::Queued))?;
            let deadline = self.slots[at].session.as_ref()?.deadline;
            Some((slots.len(), Reverse(deadline), at))
        };
        let found = match ip {
            Some(ip) => self.greeting_by_addr.get(&ip).and_then(oldest),
            None => self.greeting_by_addr.values().filter_map(oldest).max(),
        };
        if let Some((.., at)) = found {
            self.close(at, "gave way to newer connections");
        }
        found.is_some()
    }

    /// The socket of a session can do something.
    fn wake(&mut self, at: usize) {
        if self.slots.get(at).is_some_and(|s| s.state == State::Parked) {
            self.enqueue(at, Line::Ready);
        }
    }

    fn enqueue(&mut self, at: usize, line: Line) {
        let slot = &mut self.slots[at];
        let ticket = slot.ticket.take().filter(|_| slot.line == line && line != Line::Ready);
        (slot.state, slot.line) = (State::Queued, line);
        let key = slot.key;
        if line == Line::Waiting {
            self.context.uploads().wait(key);
        }
        let place = if line == Line::Waiting { slot.place.take() } else { None };
        let queue = self.queue(line);
        let ticket = match (place, ticket) {
            (Some(place), _) => {
                queue.push_to(place, key, at);
                place.ticket()
            }
            (None, Some(ticket)) => {
                queue.push_again(key, at, ticket);
                ticket
            }
            (None, None) => queue.push(key, at),
        };
        self.slots[at].ticket = Some(ticket);
    }

    fn queue(&mut self, line: Line) -> &mut FairQueue<Key> {
        match line {
            Line::Ready => &mut self.ready,
            Line::Paced => &mut self.paced,
            Line::Waiting => &mut self.waiting,
        }
    }

    fn dispatch(&mut self, now: Instant) {
        while !self.jobs.is_full() {
            let drawn = self.ready.pop(&self.price, now).or_else(|| self.draw_waiting(now));
            let paced = || (now >= self.paced_until).then(|| self.paced.pop(&self.price, now)).flatten();
            let Some((key, at)) = drawn.or_else(paced) else { break };
            let slot = &mut self.slots[at];
            slot.drawn = now;
            match slot.session.take() {
                Some(session) if slot.state == State::Queued => {
                    slot.state = State::Active;
                    let parked = std::mem::take(&mut slot.parked);
                    self.context.parked.fetch_sub(parked, Ordering::Relaxed);
                    // Never full here, since nobody else puts jobs in; gone only when the server ends.
                    if self.jobs.try_send(Job { slot: at, session }).is_err() {
                        return;
                    }
                }
                _ => {
                    let line = slot.line;
                    self.queue(line).done(key, at, TurnCost::NOTHING);
                    self.release(at);
                }
            }
        }
        self.context.wanted.store(self.ready.is_waiting(), Ordering::Relaxed);
    }

    /// One of the sessions that wait for an upload, with it.
    fn draw_waiting(&mut self, now: Instant) -> Option<(Key, usize)> {
        if !self.waiting.has_next(&self.price, now) {
            return None;
        }
        let context = self.context.clone();
        let mut uploads = context.uploads();
        self.waiting_until = uploads.next_free(now).max(now + UPLOAD_LOOK_MIN);
        let mut refused = Vec::new();
        let drawn = loop {
            if uploads.free(now) == 0 {
                break None;
            }
            let Some((key, at)) = self.waiting.pop(&self.price, now) else { break None };
            let Some(session) = &mut self.slots[at].session else { break Some((key, at)) };
            match uploads.grant(key, now) {
                Some(upload) => {
                    session.grant(upload);
                    break Some((key, at));
                }
                None => refused.push((key, at)),
            }
        };
        for (key, at) in refused {
            if let Some(ticket) = self.slots[at].ticket {
                self.waiting.push_again(key, at, ticket);
            }
            self.waiting.done(key, at, TurnCost::NOTHING);
        }
        drawn
    }

    fn take_back(&mut self, Done { slot: at, mut session, outcome }: Done) {
        let now = Instant::now();
        let token = self.token(at);
        let slot = &mut self.slots[at];
        let sent = session.sent() - slot.sent;
        // A turn in which neither the rate limit nor others left it anything is no service.
        let cost = match outcome {
            Outcome::Delay(_) | Outcome::Wait if sent == 0 => TurnCost::NOTHING,
            _ => self.price.of_turn(sent, now.saturating_duration_since(slot.drawn), now),
        };
        let (key, line) = (slot.key, slot.line);
        if cost != TurnCost::NOTHING {
            slot.ticket = None;
        }
        if session.is_uploading() {
            slot.place = None;
        }
        slot.sent += sent;
        slot.key = session.key;
        if session.is_admitted()
            && let Some(ip) = slot.greeting.take()
        {
            self.end_greeting(ip, at);
        }
        let park = |session: &mut Session, interest| {
            // Tells at once if that is possible already, so nothing that happened meanwhile is missed.
            self.poll.registry().reregister(&mut session.socket, token, interest)
        };
        let parked = match outcome {
            Outcome::Read => park(&mut session, Interest::READABLE),
            Outcome::Write => park(&mut session, Interest::WRITABLE),
            _ => Ok(()),
        };
        let why = match (parked, outcome) {
            (Err(_), _) => Some("cannot wait for its socket"),
            (Ok(()), Outcome::Close(why)) => Some(why),
            // Trust may have changed after the worker looked at it and before it is looked at here again.
            (Ok(()), _) => session.is_revoked(&self.context.handler.trust).then_some(REVOKED),
        };
        if let Some(why) = why {
            self.queue(line).done(key, at, cost);
            return self.end(at, &session, why);
        }
        let slot = &mut self.slots[at];
        let pending = session.parked();
        slot.session = Some(session);
        slot.state = State::Parked;
        slot.parked = pending;
        self.context.parked.fetch_add(pending, Ordering::Relaxed);
        match outcome {
            Outcome::Again => self.enqueue(at, Line::Ready),
            Outcome::Wait => self.enqueue(at, Line::Waiting),
            Outcome::Delay(until) => {
                self.paced_until = until;
                self.enqueue(at, Line::Paced);
            }
            _ => (),
        }
        // After it is in a queue again, so that what its key was served is not forgotten.
        self.queue(line).done(key, at, cost);
        self.evict();
    }

    /// Closes the sessions that were stalled longest, until no more is parked than may be.
    fn evict(&mut self) {
        while self.context.parked.load(Ordering::Relaxed) > PARKED_OUTPUT_MAX {
            // Those that wait for the rate limit or an upload come last: it is not their fault.
            let waits = |s: &Slot| match s.state {
                State::Parked => Some(false),
                State::Queued if s.line != Line::Ready => Some(true),
                _ => None,
            };
            let holding = self.slots.iter().enumerate().filter(|(_, s)| s.parked > 0);
            let since = |s: &Slot| s.session.as_ref().and_then(|session| session.stalled_since);
            let Some((.., at)) = holding.filter_map(|(i, s)| Some((waits(s)?, since(s)?, i))).min() else { return };
            self.close(at, "stalled while others need the memory");
        }
    }

    fn tick(&mut self, now: Instant) {
        let trust = &self.context.handler.trust;
        let generation = trust.generation();
        let trust_changed = std::mem::replace(&mut self.trust_generation, generation) != generation;
        let ends = |session: &Session| {
            if trust_changed && session.is_admitted() && session.peer().is_some_and(|p| !trust.allows(&p)) {
                return Some(REVOKED);
            }
            (now >= session.deadline).then_some(match session.is_admitted() {
                true => "idle",
                false if session.is_closing() => "refused",
                false => "no Hello in time",
            })
        };
        let over: Vec<_> =
            (self.slots.iter().enumerate()).filter_map(|(i, slot)| Some((i, ends(slot.session.as_ref()?)?))).collect();
        for (at, why) in over {
            self.close(at, why);
        }
        let waits = |slot: &Slot| slot.state == State::Queued && slot.line == Line::Waiting;
        let stale = |slot: &Slot| waits(slot) && slot.session.as_ref().is_some_and(|s| s.is_stale(now));
        let stale: Vec<_> = self.slots.iter().enumerate().filter(|(_, s)| stale(s)).map(|(at, _)| at).collect();
        for at in stale {
            // It comes back at once with a request that is up to date, and has not waited in vain.
            self.slots[at].place = self.leave_waiting(at);
            self.enqueue(at, Line::Ready);
        }
    }

    /// Ends a session that no worker has.
    fn close(&mut self, at: usize, why: &str) {
        if let Some(session) = self.slots[at].session.take() {
            // Who was refused was told of already.
            if !session.is_admitted() && !session.is_closing() {
                self.context.rejected(session.addr, &why);
            }
            self.end(at, &session, why);
        }
    }

    fn end(&mut self, at: usize, session: &Session, why: &str) {
        session.end(why, &self.context);
        let slot = &mut self.slots[at];
        let parked = std::mem::take(&mut slot.parked);
        self.context.parked.fetch_sub(parked, Ordering::Relaxed);
        self.sessions -= 1;
        if let Some(ip) = slot.greeting.take() {
            self.end_greeting(ip, at);
        }
        match self.slots[at].state {
            State::Queued if self.slots[at].line == Line::Waiting => {
                self.leave_waiting(at);
                self.release(at);
            }
            State::Queued => self.slots[at].state = State::Doomed,
            _ => self.release(at),
        }
    }

    /// A session does not wait for an upload any more.
    fn leave_waiting(&mut self, at: usize) -> Option<Place> {
        let slot = &mut self.slots[at];
        self.context.uploads().gone(slot.key);
        slot.ticket.take().map(|ticket| self.waiting.remove(slot.key, at, ticket))
    }

    fn end_greeting(&mut self, ip: IpAddr, at: usize) {
        self.greeting -= 1;
        if let Some(slots) = self.greeting_by_addr.get_mut(&ip) {
            slots.retain(|slot| *slot != at);
            if slots.is_empty() {
                self.greeting_by_addr.remove(&ip);
            }
        }
    }

    fn release(&mut self, at: usize) {
        self.slots[at] = Slot::new();
        self.free.push(at);
    }

    fn token(&self, at: usize) -> Token {
        Token(1 + self.listeners.len() + at)
    }
}

impl Slot {
    fn new() -> Self {
        Slot {
            session: None,
            state: State::Free,
            key: Key::Addr(IpAddr::from([0; 4])),
            greeting: None,
            line: Line::Ready,
            ticket: None,
            drawn: Instant::now(),
            place: None,
            sent: 0,
            parked: 0,
        }
    }
}

/// IPv4 addresses as such, not as a dual-stack socket gives them.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Whether an error of `accept` concerns only the connection that it would have given.
fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::PermissionDenied
    )
}
