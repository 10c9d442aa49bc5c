//! The thread that waits: for connections, for idle and stalled sessions, and for workers. It never blocks on anything
//! but `poll`: jobs are handed over only while there is room for them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};

use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_PER_ADDR_MAX, PARKED_OUTPUT_MAX, SERVER_TICK, TURN_COST};
use crate::net::Tls;
use crate::server::queue::FairQueue;
use crate::server::seats::Key;
use crate::server::session::{Outcome, Session};
use crate::server::worker::{Context, Done, Job};

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
    queue: FairQueue<Key>,
    delayed: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Connections without `Hello` so far, in all and by source address.
    greeting: usize,
    greeting_by_addr: HashMap<IpAddr, usize>,
    sessions: usize,
    sessions_max: usize,
    /// A listener may hold connections that no event will tell of again.
    accept_again: bool,
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
    /// Differs for every use of the slot, so that a late timer is recognized.
    serial: u64,
    sent: u64,
    parked_output: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Waits for its socket.
    Parked,
    /// Waits for the rate limit.
    Delayed,
    /// Waits for a worker.
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
        connections_max: usize,
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
            queue: FairQueue::new(),
            delayed: BinaryHeap::new(),
            greeting: 0,
            greeting_by_addr: HashMap::new(),
            sessions: 0,
            // Beyond the seats, those that are to be told that there is none.
            sessions_max: connections_max + HANDSHAKES_MAX,
            accept_again: false,
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
                    Some(i) if i < self.listeners.len() => self.accept_again = true,
                    Some(i) => self.wake(i - self.listeners.len()),
                }
            }
            while let Ok(done) = self.done.try_recv() {
                self.take_back(done);
            }
            if self.accept_again {
                self.accept();
            }
            let now = Instant::now();
            self.end_delays(now);
            if now >= self.next_tick {
                self.next_tick = now + SERVER_TICK;
                self.tick(now);
            }
            self.dispatch();
        }
        for slot in &self.slots {
            if let Some(session) = &slot.session {
                session.log_end("server stops");
            }
        }
    }

    fn wait_at_most(&self) -> Option<std::time::Duration> {
        let tick = (self.sessions > 0 || self.accept_again).then_some(self.next_tick);
        let delay = self.delayed.peek().map(|Reverse((at, ..))| *at);
        let next = [tick, delay].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self) {
        self.accept_again = false;
        for i in 0..self.listeners.len() {
            loop {
                if self.greeting >= HANDSHAKES_MAX || self.sessions >= self.sessions_max {
                    // They wait in the listener's queue until there is room.
                    self.accept_again = true;
                    return;
                }
                match self.listeners[i].accept() {
                    Ok((socket, addr)) => self.admit(socket, addr),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if is_of_one_connection(&e) => (),
                    Err(e) => {
                        // Out of descriptors or memory: those that are open go on, and it is tried again.
                        let line = format_args!("cannot accept connections error=\"{e}\"");
                        self.context.noise.log(log::Level::Warn, Instant::now(), line);
                        self.accept_again = true;
                        break;
                    }
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, addr: SocketAddr) {
        let (ip, now) = (addr.ip().to_canonical(), Instant::now());
        if self.greeting_by_addr.get(&ip).is_some_and(|n| *n >= HANDSHAKES_PER_ADDR_MAX) {
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
        *self.greeting_by_addr.entry(ip).or_default() += 1;
        let slot = &mut self.slots[at];
        slot.key = session.key;
        slot.greeting = Some(ip);
        slot.state = State::Parked;
        slot.session = Some(session);
    }

    /// The socket of a session can do something.
    fn wake(&mut self, at: usize) {
        if self.slots.get(at).is_some_and(|s| s.state == State::Parked) {
            self.enqueue(at);
        }
    }

    fn enqueue(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        slot.state = State::Queued;
        let parked = std::mem::take(&mut slot.parked_output);
        self.context.parked_output.fetch_sub(parked, Ordering::Relaxed);
        self.queue.push(slot.key, at);
    }

    fn dispatch(&mut self) {
        while !self.jobs.is_full() {
            let Some((key, at)) = self.queue.pop() else { return };
            let slot = &mut self.slots[at];
            match slot.session.take() {
                Some(session) if slot.state == State::Queued => {
                    slot.state = State::Active;
                    // Never full here, since nobody else puts jobs in; gone only when the server ends.
                    if self.jobs.try_send(Job { slot: at, session }).is_err() {
                        return;
                    }
                }
                _ => {
                    self.queue.done(key, 0);
                    self.release(at);
                }
            }
        }
    }

    fn take_back(&mut self, Done { slot: at, mut session, outcome }: Done) {
        let token = self.token(at);
        let slot = &mut self.slots[at];
        let sent = session.sent();
        let (key, cost) = (slot.key, TURN_COST + (sent - slot.sent));
        slot.sent = sent;
        slot.key = session.key;
        if session.is_admitted()
            && let Some(ip) = slot.greeting.take()
        {
            self.end_greeting(ip);
        }
        let slot = &mut self.slots[at];
        let park = |session: &mut Session, interest| {
            // Tells at once if that is possible already, so nothing that happened meanwhile is missed.
            self.poll.registry().reregister(&mut session.socket, token, interest)
        };
        let (parked, state) = match outcome {
            Outcome::Close => (Ok(()), State::Free),
            Outcome::Again => (Ok(()), State::Queued),
            Outcome::Delay(_) => (Ok(()), State::Delayed),
            Outcome::Read => (park(&mut session, Interest::READABLE), State::Parked),
            Outcome::Write => (park(&mut session, Interest::WRITABLE), State::Parked),
        };
        if parked.is_err() || state == State::Free {
            self.queue.done(key, cost);
            return self.end(at, &session, if parked.is_ok() { "closed" } else { "cannot wait for its socket" });
        }
        let pending = session.parked_output();
        slot.session = Some(session);
        slot.state = state;
        slot.parked_output = pending;
        self.context.parked_output.fetch_add(pending, Ordering::Relaxed);
        match outcome {
            Outcome::Again => self.enqueue(at),
            Outcome::Delay(until) => self.delayed.push(Reverse((until, at, slot.serial))),
            _ => (),
        }
        // After it is in the queue again, so that its key stays what it is there: served so much.
        self.queue.done(key, cost);
        self.evict();
    }

    /// Closes the sessions that were stalled longest, until no more output is parked than may be.
    fn evict(&mut self) {
        while self.context.parked_output.load(Ordering::Relaxed) > PARKED_OUTPUT_MAX {
            let stalled = self.slots.iter().enumerate().filter(|(_, s)| s.state == State::Parked);
            let since = |s: &Slot| s.session.as_ref().and_then(|session| session.stalled_since);
            let longest = stalled.filter_map(|(i, s)| Some((since(s)?, i))).min();
            let Some((_, at)) = longest else { return };
            self.close(at, "stalled while others need the memory");
        }
    }

    fn end_delays(&mut self, now: Instant) {
        while let Some(&Reverse((until, at, serial))) = self.delayed.peek() {
            if until > now {
                return;
            }
            self.delayed.pop();
            if self.slots.get(at).is_some_and(|s| s.serial == serial && s.state == State::Delayed) {
                self.enqueue(at);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        let trust = &self.context.handler.trust;
        let generation = trust.generation();
        let trust_changed = std::mem::replace(&mut self.trust_generation, generation) != generation;
        let ends = |session: &Session| {
            if trust_changed && session.is_admitted() && session.peer().is_some_and(|p| !trust.allows(&p)) {
                return Some("key is no longer trusted");
            }
            (now >= session.deadline).then_some(if session.is_admitted() { "idle" } else { "no Hello in time" })
        };
        let over: Vec<_> = (self.slots.iter().enumerate())
            .filter_map(|(i, slot)| Some((i, ends(slot.session.as_ref()?)?)))
            .collect();
        for (at, why) in over {
            self.close(at, why);
        }
    }

    /// Ends a session that no worker has.
    fn close(&mut self, at: usize, why: &str) {
        if let Some(session) = self.slots[at].session.take() {
            if !session.is_admitted() {
                self.context.rejected(session.addr, &why);
            }
            self.end(at, &session, why);
        }
    }

    fn end(&mut self, at: usize, session: &Session, why: &str) {
        session.log_end(why);
        let slot = &mut self.slots[at];
        let parked = std::mem::take(&mut slot.parked_output);
        self.context.parked_output.fetch_sub(parked, Ordering::Relaxed);
        self.sessions -= 1;
        if let Some(ip) = slot.greeting.take() {
            self.end_greeting(ip);
        }
        match self.slots[at].state {
            State::Queued => self.slots[at].state = State::Doomed,
            _ => self.release(at),
        }
    }

    fn end_greeting(&mut self, ip: IpAddr) {
        self.greeting -= 1;
        if let Some(n) = self.greeting_by_addr.get_mut(&ip) {
            *n -= 1;
            if *n == 0 {
                self.greeting_by_addr.remove(&ip);
            }
        }
    }

    fn release(&mut self, at: usize) {
        let serial = self.slots[at].serial + 1;
        self.slots[at] = Slot { serial, ..Slot::new() };
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
            serial: 0,
            sent: 0,
            parked_output: 0,
        }
    }
}

/// Whether an error of `accept` concerns only the connection that it would have given.
fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted | ErrorKind::PermissionDenied
    )
}
