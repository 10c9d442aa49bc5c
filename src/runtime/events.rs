//! Events of the services, on their way to the programs that watch the node and to the log.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::runtime::deadline;
use crate::runtime::limits::{JOINS_LOGGED_PER_S, LINES_DUE_MAX};
use crate::swarm::{Event, KnownPeer};
use crate::sync::{lock, wait_timeout};
use queue::EventQueue;

mod queue;

/// The events of a [`Node`](crate::Node) from the call of [`Node::events`](crate::Node::events) on,
/// oldest first: an iterator that blocks until the next one, and ends when the node and its fetches
/// are dropped.
///
/// Each call of `Node::events` makes a queue of its own, which begins with [`Event::Known`]: the peers
/// that are there. A reader that then applies joins and leaves always ends with the peers that
/// are there, however late it reads: of a peer that comes and goes meanwhile, the net effect waits.
/// Of files, and of refusals and lies, at most 1,024 events each wait; [`Event::Missed`] stands where
/// further ones were dropped.
///
/// ```
/// use std::time::Duration;
/// use gpb::{Event, Node, Share, error::EventsError};
///
/// # let dir = std::env::temp_dir().join(format!("gpb-doc-events-{}", std::process::id()));
/// let node = Node::builder().share(Share::Nothing).multicast(false).state(&dir).start()?;
/// let mut events = node.events();
/// assert_eq!(events.next(), Some(Event::Known(vec![])));
/// assert_eq!(events.recv_timeout(Duration::from_millis(10)), Err(EventsError::Empty));
/// drop(node);
/// assert_eq!(events.try_recv(), Err(EventsError::Ended));
/// assert_eq!(events.count(), 0);
/// # std::fs::remove_dir_all(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the queue"]
pub struct Events {
    mailbox: Arc<Mailbox>,
}

/// Why [`Events`] returned none.
///
/// ```no_run
/// use std::time::Duration;
/// use gpb::error::EventsError;
///
/// # let node = gpb::Node::builder().start()?;
/// let events = node.events();
/// match events.recv_timeout(Duration::from_secs(1)) {
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

/// Takes events without blocking, for all subscribers.
///
/// Joins and leaves of peers are logged here, at most [`JOINS_LOGGED_PER_S`], so that a stranger
/// with many keys cannot fill the log.
#[derive(Debug, Clone, Default)]
pub struct EventSender {
    subscribers: Arc<EventQueues>,
    lines: Arc<Mutex<JoinLines>>,
    /// What becomes of each event before it is sent.
    map: Option<EventMap>,
}

/// Makes another event of one.
#[derive(Clone)]
struct EventMap(Arc<dyn Fn(Event) -> Event + Send + Sync>);

impl fmt::Debug for EventMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventMap")
    }
}

/// The queues that are read; ended when no further event can come.
#[derive(Debug, Default)]
struct EventQueues(Mutex<Vec<Weak<Mailbox>>>);

#[derive(Debug)]
struct Mailbox {
    state: Mutex<MailboxState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct MailboxState {
    queue: EventQueue,
    has_ended: bool,
}

impl Events {
    /// Waits for the next event, at most for `time`.
    ///
    /// # Errors
    /// [`EventsError::Empty`] when none came in time, [`EventsError::Ended`] when none can come.
    pub fn recv_timeout(&self, time: Duration) -> Result<Event, EventsError> {
        let end = deadline(time);
        let mut state = lock(&self.mailbox.state);
        loop {
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            match (state.take(), left) {
                (Err(EventsError::Empty), Some(left)) => state = wait_timeout(&self.mailbox.arrived, state, left),
                (taken, _) => return taken,
            }
        }
    }

    /// The next event, if one waits already. Does not block.
    ///
    /// # Errors
    /// [`EventsError::Empty`] when none waits, [`EventsError::Ended`] when none can come.
    pub fn try_recv(&self) -> Result<Event, EventsError> {
        lock(&self.mailbox.state).take()
    }

    /// The events that wait already, without blocking.
    pub fn try_iter(&self) -> impl Iterator<Item = Event> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Blocks until the next event; `None` when the node and its fetches are dropped.
    fn next(&mut self) -> Option<Event> {
        loop {
            match self.recv_timeout(Duration::MAX) {
                Ok(event) => return Some(event),
                Err(EventsError::Ended) => return None,
                Err(EventsError::Empty) => {}
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = lock(&self.mailbox.state).queue.len();
        f.debug_struct("Events").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl MailboxState {
    fn take(&mut self) -> Result<Event, EventsError> {
        let none = if self.has_ended { EventsError::Ended } else { EventsError::Empty };
        self.queue.pop().ok_or(none)
    }
}

impl Mailbox {
    fn change(&self, change: impl FnOnce(&mut MailboxState)) {
        change(&mut lock(&self.state));
        self.arrived.notify_all();
    }
}

impl Drop for EventQueues {
    fn drop(&mut self) {
        let mailboxes = lock(&self.0);
        mailboxes.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.change(|state| state.has_ended = true));
    }
}

/// Log lines of the running second.
#[derive(Debug, Default)]
struct JoinLines {
    begun: Option<Instant>,
    logged: u32,
    left_out: u64,
    /// Lines that wait for [`EventSender::log_peers`].
    due: Vec<(log::Level, String)>,
}

impl EventSender {
    /// A sender without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sender to the same subscribers, of which each event goes through `map` first.
    pub fn mapped(&self, map: impl Fn(Event) -> Event + Send + Sync + 'static) -> Self {
        EventSender { map: Some(EventMap(Arc::new(map))), ..self.clone() }
    }

    /// A sender, and the events that it sends.
    pub fn channel() -> (Self, Events) {
        let sender = Self::new();
        let events = sender.watch(EventQueue::default());
        (sender, events)
    }

    /// The events from now on, behind the peers that are `known`. No join or leave is lost in between
    /// if the caller keeps them from being sent meanwhile.
    pub fn subscribe(&self, known: Vec<KnownPeer>) -> Events {
        self.watch(EventQueue::begin(known))
    }

    fn watch(&self, queue: EventQueue) -> Events {
        let state = Mutex::new(MailboxState { queue, has_ended: false });
        let mailbox = Arc::new(Mailbox { state, arrived: Condvar::new() });
        let mut all = lock(&self.subscribers.0);
        all.retain(|mailbox| mailbox.strong_count() > 0);
        all.push(Arc::downgrade(&mailbox));
        Events { mailbox }
    }

    /// Sends `event`. It may be called with a lock held: what there is to log of peers waits for
    /// [`log_peers`](Self::log_peers).
    pub fn emit(&self, event: Event) {
        let event = self.map.iter().fold(event, |event, EventMap(map)| map(event));
        self.note(&event);
        let all = lock(&self.subscribers.0);
        for mailbox in all.iter().filter_map(Weak::upgrade) {
            mailbox.change(|state| state.queue.push(event.clone()));
        }
    }

    /// Sends several events in order; true if there were any.
    pub fn emit_all(&self, events: impl IntoIterator<Item = Event>) -> bool {
        events.into_iter().map(|event| self.emit(event)).count() > 0
    }

    /// Logs what was sent of peers since the last call. To be called without a lock, since a log may
    /// block.
    /// Each line ends with `tag`.
    pub fn log_peers(&self, tag: impl fmt::Display) {
        let due = std::mem::take(&mut lock(&self.lines).due);
        due.into_iter().for_each(|(level, line)| log::log!(level, "{line}{tag}"));
    }

    /// Logs the number of joins and leaves that were left out, once their second is over. To be
    /// called about once a second.
    pub fn log_left_out(&self, tag: impl fmt::Display) {
        lock(&self.lines).turn(Instant::now());
        self.log_peers(tag);
    }

    fn note(&self, event: &Event) {
        let line = match event {
            Event::PeerJoined { node, addr } => format!("peer joined peer={} addr={addr}", node.peer),
            Event::PeerLeft { node } => format!("peer left peer={}", node.peer),
            Event::PeerChanged { node, revision } if log::log_enabled!(log::Level::Debug) => {
                let line = format!("peer changed peer={} revision={revision}", node.peer);
                return lock(&self.lines).push(log::Level::Debug, line);
            }
            _ => return,
        };
        let mut lines = lock(&self.lines);
        if lines.next(Instant::now()) {
            lines.push(log::Level::Info, line);
        }
    }
}

impl JoinLines {
    /// Whether one more line may be logged now.
    fn next(&mut self, now: Instant) -> bool {
        self.turn(now);
        let may = self.logged < JOINS_LOGGED_PER_S;
        if may {
            self.logged += 1;
        } else {
            self.left_out += 1;
        }
        may
    }

    /// Begins a new second if the last one is over, with a line about what that one left out.
    fn turn(&mut self, now: Instant) {
        if self.begun.is_some_and(|at| now.saturating_duration_since(at) < SECOND) {
            return;
        }
        (self.begun, self.logged) = (Some(now), 0);
        let count = std::mem::take(&mut self.left_out);
        if count > 0 {
            self.push(log::Level::Info, format!("joins and leaves of peers not logged count={count}"));
        }
    }

    fn push(&mut self, level: log::Level, line: String) {
        if self.due.len() < LINES_DUE_MAX {
            self.due.push((level, line));
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NodeId, PeerId};

    #[test]
    fn each_subscriber_has_all_events_and_the_end() {
        let (sender, first) = EventSender::channel();
        let second = sender.subscribe(Vec::new());
        drop(sender.subscribe(Vec::new()));
        let left = Event::Refused { peer: PeerId([1; 32]), addr: ([10, 0, 0, 1], 7).into() };
        assert!(sender.emit_all([left.clone()]));
        assert_eq!((first.try_recv(), first.try_recv()), (Ok(left.clone()), Err(EventsError::Empty)));
        let waiting = std::thread::spawn(move || first.recv_timeout(Duration::from_secs(60)));
        drop(sender);
        assert_eq!(waiting.join().unwrap(), Err(EventsError::Ended));
        assert_eq!(second.collect::<Vec<_>>(), [Event::Known(vec![]), left]);
    }

    #[test]
    fn what_no_subscriber_reads_takes_no_memory() {
        let (sender, events) = EventSender::channel();
        drop(events);
        let node = NodeId::new(PeerId([1; 32]), 1);
        sender.emit(Event::PeerLeft { node });
        drop(sender.subscribe(Vec::new()));
        assert_eq!(lock(&sender.subscribers.0).len(), 1, "the last one goes with the next one");
    }

    #[test]
    fn a_crowd_of_strangers_does_not_fill_the_log() {
        let (mut lines, t) = (JoinLines::default(), Instant::now());
        let logged = (0..10_000).filter(|_| lines.next(t)).count();
        assert_eq!(logged, JOINS_LOGGED_PER_S as usize);
        lines.turn(t + SECOND / 2);
        assert!(lines.due.is_empty());
        assert!(lines.next(t + SECOND) && lines.next(t + SECOND));
        let count = format!("joins and leaves of peers not logged count={}", 10_000 - logged);
        assert_eq!(lines.due, [(log::Level::Info, count)], "what is left out is told once");
        (0..1000).for_each(|_| lines.push(log::Level::Debug, "peer changed".into()));
        assert_eq!(lines.due.len(), LINES_DUE_MAX);
    }
}
