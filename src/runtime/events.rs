//! Events of the services, on their way to the program that watches the node and to the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::runtime::limits::{EVENTS_MAX, JOINS_LOGGED_PER_S};
use crate::swarm::Event;
use crate::sync::lock;

/// Takes events without blocking: while [`EVENTS_MAX`] wait for a reader, new ones are dropped and
/// counted.
///
/// Joins and leaves of peers are logged here, at most [`JOINS_LOGGED_PER_S`], so that a stranger
/// with many keys cannot fill the log.
#[derive(Debug, Clone)]
pub struct EventSender {
    sender: Sender<Event>,
    dropped: Arc<AtomicU64>,
    lines: Arc<Mutex<JoinLines>>,
}

/// Log lines of the running second.
#[derive(Debug, Default)]
struct JoinLines {
    begun: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl EventSender {
    /// A sender of events and the receiver to watch.
    pub fn channel() -> (Self, Receiver<Event>) {
        let (sender, receiver) = bounded(EVENTS_MAX);
        (EventSender { sender, dropped: Arc::default(), lines: Arc::default() }, receiver)
    }

    /// Sends `event`.
    pub fn emit(&self, event: Event) {
        self.log(&event);
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends several events in order.
    pub fn emit_all(&self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|e| self.emit(e));
    }

    /// Logs the number of joins and leaves that were left out, once their second is over. To be
    /// called about once a second.
    pub fn log_left_out(&self) {
        let left_out = lock(&self.lines).turn(Instant::now());
        log_count(left_out);
    }

    fn log(&self, event: &Event) {
        let (joined, peer) = match event {
            Event::PeerJoined { peer, addr } => (Some(addr), peer),
            Event::PeerLeft { peer } => (None, peer),
            Event::PeerChanged { peer, revision } => {
                return log::debug!("peer changed peer={peer} revision={revision}");
            }
            _ => return,
        };
        let (left_out, may) = lock(&self.lines).next(Instant::now());
        log_count(left_out);
        match joined {
            _ if !may => {}
            Some(addr) => log::info!("peer joined peer={peer} addr={addr}"),
            None => log::info!("peer left peer={peer}"),
        }
    }

    /// The number of events that were dropped because the queue was full, which grows.
    pub fn drop_count(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl JoinLines {
    /// The number of lines that the last second left out, if it is over, and whether one more may
    /// be logged now.
    fn next(&mut self, now: Instant) -> (u64, bool) {
        let left_out = self.turn(now);
        let may = self.logged < JOINS_LOGGED_PER_S;
        if may {
            self.logged += 1;
        } else {
            self.left_out += 1;
        }
        (left_out, may)
    }

    /// Begins a new second if the last one is over, and returns the number of lines that that one
    /// left out.
    fn turn(&mut self, now: Instant) -> u64 {
        if self.begun.is_some_and(|at| now.saturating_duration_since(at) < SECOND) {
            return 0;
        }
        (self.begun, self.logged) = (Some(now), 0);
        std::mem::take(&mut self.left_out)
    }
}

fn log_count(count: u64) {
    if count > 0 {
        log::info!("joins and leaves of peers not logged count={count}");
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_strangers_does_not_fill_the_log() {
        let (mut lines, t) = (JoinLines::default(), Instant::now());
        let logged = (0..10_000).filter(|_| lines.next(t) == (0, true)).count();
        assert_eq!(logged, JOINS_LOGGED_PER_S as usize);
        assert_eq!(lines.turn(t + SECOND / 2), 0);
        assert_eq!(lines.next(t + SECOND), (10_000 - logged as u64, true), "what is left out is told once");
        assert_eq!(lines.next(t + SECOND), (0, true));
    }
}
