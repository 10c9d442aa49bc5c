//! What happens in a node, as a queue that its user reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::limits::WAIT_MAX;
use crate::swarm::Event;

/// The events of a [`Node`](crate::Node), oldest first: an iterator that blocks until the next one.
///
/// At most 1,024 events wait to be read; while the queue is full, new ones are dropped and
/// [counted](Self::dropped). Clones and repeated calls of [`Node::events`](crate::Node::events)
/// share the queue: each event is returned once, by one of them. The iterator ends when the node
/// and its fetches are dropped.
///
/// ```
/// use std::time::Duration;
/// use gpb::{Node, Share, error::EventsError};
///
/// # let dir = std::env::temp_dir().join(format!("gpb-doc-events-{}", std::process::id()));
/// let node = Node::builder().share(Share::Nothing).multicast(false).state(&dir).start()?;
/// let events = node.events();
/// assert_eq!(events.recv_timeout(Duration::from_millis(10)), Err(EventsError::Empty));
/// drop(node);
/// assert_eq!(events.try_recv(), Err(EventsError::Ended));
/// assert_eq!(events.count(), 0);
/// # std::fs::remove_dir_all(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Events {
    queue: Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

/// Why [`Events`] returned none.
///
/// ```no_run
/// use std::time::Duration;
/// use gpb::error::EventsError;
///
/// # let node = gpb::Node::builder().start()?;
/// match node.events().recv_timeout(Duration::from_secs(1)) {
///     Ok(event) => println!("{event:?}"),
///     Err(EventsError::Empty) => println!("a quiet second"),
///     Err(EventsError::Ended) => println!("the node is gone"),
/// }
/// # Ok::<(), gpb::StartError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// No event came in the given time.
    #[error("no event came in time")]
    Empty,
    /// The node and its fetches are dropped, and all of their events are read.
    #[error("the node has ended")]
    Ended,
}

impl Events {
    pub(super) fn new(queue: Receiver<Event>, dropped: Arc<AtomicU64>) -> Self {
        Events { queue, dropped }
    }

    /// Waits for the next event, at most for `time`.
    ///
    /// # Errors
    /// [`EventsError::Empty`] when none came in time, [`EventsError::Ended`] when none can come.
    pub fn recv_timeout(&self, time: Duration) -> Result<Event, EventsError> {
        self.queue.recv_timeout(time.min(WAIT_MAX)).map_err(|e| match e {
            RecvTimeoutError::Timeout => EventsError::Empty,
            RecvTimeoutError::Disconnected => EventsError::Ended,
        })
    }

    /// The next event, if one waits already. Does not block.
    ///
    /// # Errors
    /// [`EventsError::Empty`] when none waits, [`EventsError::Ended`] when none can come.
    pub fn try_recv(&self) -> Result<Event, EventsError> {
        self.queue.try_recv().map_err(|e| match e {
            TryRecvError::Empty => EventsError::Empty,
            TryRecvError::Disconnected => EventsError::Ended,
        })
    }

    /// Number of events that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Blocks until the next event; `None` when the node and its fetches are dropped.
    fn next(&mut self) -> Option<Event> {
        self.queue.recv().ok()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("waiting", &self.queue.len())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;
    use crate::runtime::EventSender;
    use crate::runtime::limits::EVENTS_MAX;

    #[test]
    fn a_full_queue_drops_the_newest_and_counts() {
        let (sender, queue) = EventSender::channel();
        let events = Events::new(queue, sender.drop_count());
        let event = |n| Event::PeerChanged { peer: PeerId([0; 32]), revision: n };
        sender.emit_all((0..EVENTS_MAX as u64 + 3).map(event));
        assert_eq!((events.dropped(), events.try_recv()), (3, Ok(event(0))));
        drop(sender);
        assert_eq!(events.last(), Some(event(EVENTS_MAX as u64 - 1)));
    }
}
