//! What the accepting thread, the workers and their sessions share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::net::Outbox;
use crate::runtime::{EventSender, LimitedLog, Shutdown, Throttle};
use crate::server::handler::Handler;
use crate::server::limits::INCOMING_LEN;
use crate::server::remote_peer::RemotePeer;
use crate::server::reply::Refusal;
use crate::server::unsent::UnsentSum;
use crate::swarm::{Event, UploadSlot};

/// What all sessions of a server are served with.
pub(crate) struct Context {
    pub(crate) handler: Handler,
    /// Limits the rate of what is sent.
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) events: EventSender,
    pub(crate) shutdown: Shutdown,
    /// Lines about connections that never became sessions.
    pub(crate) log: LimitedLog,
    /// Whether sessions wait for a worker; kept by the accepting thread.
    pub(crate) wanted: AtomicBool,
    /// Sessions that are handed over and that no worker has taken.
    pub(crate) handed_over: AtomicUsize,
    /// Workers that wait for a socket of their session.
    pub(crate) lingering: AtomicUsize,
    pub(crate) lingering_max: usize,
    /// What waits in sockets of far peers.
    pub(crate) unsent: Arc<UnsentSum>,
}

impl Context {
    /// The right to wait for a socket, if no session wants this worker and half of the workers stay
    /// free for new work.
    pub(crate) fn linger(&self) -> Option<Lingering<'_>> {
        if self.is_wanted() {
            return None;
        }
        let before = self.lingering.fetch_add(1, Ordering::Relaxed);
        let lingering = Lingering { context: self };
        (before < self.lingering_max).then_some(lingering)
    }

    /// Whether sessions wait for a worker, even if they have to let others catch up.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) || self.handed_over.load(Ordering::Relaxed) > 0
    }

    /// A chunk or layer is sent, or its session ends; `whole`: the peer took all of it.
    pub(crate) fn end_slot(&self, slot: Option<UploadSlot>, whole: bool) {
        if let Some(slot) = slot {
            self.handler.gate().ended(slot, whole, Instant::now());
        }
    }

    /// Logs that a session was ended with an answer, and emits the event.
    pub(crate) fn log_refused(&self, peer: &RemotePeer, why: Refusal) {
        let tag = self.handler.directory.own().tag();
        let line = format_args!("refused peer={} addr={} reason=\"{}\"{tag}", peer.id, peer.addr, why.reason());
        self.log.log(log::Level::Warn, Instant::now(), line);
        if why != Refusal::Full {
            self.events.emit(Event::Refused { peer: peer.id, addr: peer.addr });
        }
    }

    /// Logs what a session did. Strangers cause such lines at will, so they are limited.
    pub(crate) fn log_session(&self, line: fmt::Arguments<'_>) {
        let tag = self.handler.directory.own().tag();
        self.handler.log.log(log::Level::Info, Instant::now(), format_args!("{line}{tag}"));
    }

    /// Logs that a connection never became a session.
    pub(crate) fn log_rejected(&self, addr: SocketAddr, why: &dyn fmt::Display) {
        let tag = self.handler.directory.own().tag();
        self.log.log(log::Level::Info, Instant::now(), format_args!("rejected addr={addr} reason=\"{why}\"{tag}"));
    }
}

/// Counts a worker that waits for a socket.
pub(crate) struct Lingering<'a> {
    context: &'a Context,
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.context.lingering.fetch_sub(1, Ordering::Relaxed);
    }
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
        Scratch { incoming: vec![0; INCOMING_LEN], head: Vec::new(), plain: Outbox::new(), out: Outbox::new() }
    }
}
