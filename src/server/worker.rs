//! The threads that serve: each takes a session, gives it one turn, and hands it back.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};

use crate::limits::PARKED_OUTPUT_MAX;
use crate::net::Outbox;
use crate::runtime::LimitedLog;
use crate::runtime::{EventSender, Shutdown, Throttle};
use crate::server::handler::{Asker, Handler, Refusal};
use crate::server::limits::{INCOMING_LEN, REPLY_LEN};
use crate::server::seats::Key;
use crate::server::session::{Outcome, Session};
use crate::swarm::{Event, Upload, Uploads};

/// What all workers share.
pub(crate) struct Context {
    pub(crate) handler: Handler,
    pub(crate) upload: Arc<Throttle>,
    pub(crate) uploads: Mutex<Uploads<Key>>,
    pub(crate) events: EventSender,
    pub(crate) shutdown: Shutdown,
    pub(crate) noise: LimitedLog,
    pub(crate) jobs: Receiver<Job>,
    /// Whether sessions wait for a worker; kept by the accepting thread.
    pub(crate) wanted: AtomicBool,
    /// Workers that wait for a socket of their session.
    pub(crate) lingering: AtomicUsize,
    pub(crate) lingering_max: usize,
    /// What all sessions hold that no worker has, in bytes; kept by the accepting thread.
    pub(crate) parked: AtomicUsize,
}

/// A session that is to get a turn.
pub(crate) struct Job {
    pub(crate) slot: usize,
    pub(crate) session: Box<Session>,
}

/// A session that had a turn.
pub(crate) struct Done {
    pub(crate) slot: usize,
    pub(crate) session: Box<Session>,
    pub(crate) outcome: Outcome,
}

/// Buffers of a worker, used by one session after the other.
pub(crate) struct Scratch {
    /// Ciphertext as it comes.
    pub(crate) incoming: Vec<u8>,
    /// Heads of answers.
    pub(crate) head: Vec<u8>,
    /// Answers before they are sealed.
    pub(crate) plain: Outbox,
    /// Ciphertext to be written.
    pub(crate) out: Outbox,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let mut plain = Outbox::new();
        plain.room(REPLY_LEN);
        Scratch { incoming: vec![0; INCOMING_LEN], head: Vec::new(), plain, out: Outbox::new() }
    }
}

/// Serves until no more jobs can come.
pub(crate) fn work(context: &Context, done: &Sender<Done>, wake: impl Fn()) {
    let mut scratch = Scratch::new();
    for Job { slot, mut session } in &context.jobs {
        let turn = catch_unwind(AssertUnwindSafe(|| session.turn(&mut scratch, context)));
        let outcome = turn.unwrap_or_else(|_| {
            log::error!("session ended by a defect addr={}", session.addr);
            scratch = Scratch::new();
            Outcome::Close("defect")
        });
        if done.send(Done { slot, session, outcome }).is_err() {
            return;
        }
        wake();
    }
}

impl Context {
    /// A place to wait for a socket, if no other session needs a worker and others are left for those that come.
    pub(crate) fn linger(&self) -> Option<Lingering<'_>> {
        if self.is_wanted() {
            return None;
        }
        let before = self.lingering.fetch_add(1, Ordering::Relaxed);
        let place = Lingering { context: self };
        (before < self.lingering_max).then_some(place)
    }

    /// Whether sessions wait for a worker, even if they have to let others catch up.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) || !self.jobs.is_empty()
    }

    /// Begins to send a chunk, unless enough are under way; see [`Uploads::begin`].
    pub(crate) fn begin_upload(&self, key: Key, now: Instant) -> Option<Upload> {
        self.uploads().begin(key, now)
    }

    /// Those under way, for whoever looks after the sessions that wait.
    pub(crate) fn uploads(&self) -> MutexGuard<'_, Uploads<Key>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk is sent, or its session ends.
    pub(crate) fn end_upload(&self, upload: Option<Upload>, whole: bool) {
        if let Some(upload) = upload {
            self.uploads().end(upload, whole, Instant::now());
        }
    }

    /// Whether so much is parked that sessions should produce little at once.
    pub(crate) fn is_memory_scarce(&self) -> bool {
        self.parked.load(Ordering::Relaxed) > PARKED_OUTPUT_MAX / 2
    }

    /// Tells that a connection was ended with an answer.
    pub(crate) fn refused(&self, asker: &Asker, why: Refusal) {
        self.noise.log(
            log::Level::Warn,
            Instant::now(),
            format_args!("refused peer={} addr={} reason=\"{}\"", asker.peer, asker.addr, why.reason()),
        );
        if why != Refusal::Full {
            self.events.emit(Event::Refused { peer: asker.peer, addr: asker.addr });
        }
    }

    /// Tells what a session did; strangers can cause that as often as they like.
    pub(crate) fn told(&self, line: fmt::Arguments<'_>) {
        self.handler.noise.log(log::Level::Info, Instant::now(), line);
    }

    /// Tells that a connection never became a session.
    pub(crate) fn rejected(&self, addr: SocketAddr, why: &dyn fmt::Display) {
        self.noise.log(log::Level::Info, Instant::now(), format_args!("rejected addr={addr} reason=\"{why}\""));
    }
}

/// Counts a worker that waits.
pub(crate) struct Lingering<'a> {
    context: &'a Context,
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.context.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}
