//! The way that facts take from services to whoever watches the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::limits::EVENTS_MAX;
use crate::swarm::Event;

/// Takes events without ever blocking: when [`EVENTS_MAX`] wait for a reader, the newest are dropped and counted.
#[derive(Debug, Clone)]
pub struct Events {
    sender: Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// A sender of events and the receiver to watch.
    pub fn channel() -> (Self, Receiver<Event>) {
        let (sender, receiver) = bounded(EVENTS_MAX);
        (Events { sender, dropped: Arc::default() }, receiver)
    }

    /// Tells `event`.
    pub fn emit(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells several events in order.
    pub fn emit_all(&self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|e| self.emit(e));
    }

    /// How many events were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
