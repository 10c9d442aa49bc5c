//! The sessions that no worker has, by number.

use std::net::IpAddr;
use std::time::Instant;

use crate::server::connection_slots::Account;
use crate::server::queues::Line;
use crate::server::session::AcceptedSession;

/// All sessions of a server, by the numbers of their slots, which are used again.
#[derive(Default)]
pub(crate) struct SessionSlots {
    slots: Vec<SessionSlot>,
    free: Vec<usize>,
}

/// The place of a session.
pub(crate) struct SessionSlot {
    /// `None` while a worker has it.
    pub(crate) session: Option<Box<AcceptedSession>>,
    pub(crate) state: SlotState,
    pub(crate) account: Account,
    /// Set until the session said `Hello`: the address that it counts for.
    pub(crate) greeting: Option<IpAddr>,
    /// What it waits with for the rate limit, or waited with if it got nothing since.
    pub(crate) ticket: Option<u64>,
    /// When it was drawn last.
    pub(crate) drawn: Instant,
    /// Bytes that it had sent when it was drawn.
    pub(crate) sent: u64,
    /// Memory in bytes that it takes while no worker has it.
    pub(crate) parked: usize,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    /// It waits for its socket.
    Parked,
    /// It waits in a line.
    Queued(Line),
    /// It was ended while it waited in a line; the slot is free when it is drawn.
    Doomed(Line),
    /// A worker has it; it was drawn from this line.
    Active(Line),
}

impl SessionSlots {
    /// A free number.
    pub(crate) fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(SessionSlot::new());
            self.slots.len() - 1
        })
    }

    /// `at` is free.
    pub(crate) fn release(&mut self, at: usize) {
        self.slots[at] = SessionSlot::new();
        self.free.push(at);
    }

    pub(crate) fn get(&self, at: usize) -> Option<&SessionSlot> {
        self.slots.get(at)
    }

    pub(crate) fn at(&mut self, at: usize) -> &mut SessionSlot {
        &mut self.slots[at]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &SessionSlot)> {
        self.slots.iter().enumerate()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SessionSlot> {
        self.slots.iter_mut()
    }

    /// Whether there is no session.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

impl SessionSlot {
    fn new() -> Self {
        SessionSlot {
            session: None,
            state: SlotState::Free,
            account: Account::Addr(IpAddr::from([0; 4])),
            greeting: None,
            ticket: None,
            drawn: Instant::now(),
            sent: 0,
            parked: 0,
        }
    }

    /// Whether it waits for the rate limit or for an upload slot, which is not the fault of its
    /// peer.
    pub(crate) fn is_held_up(&self) -> bool {
        matches!(self.state, SlotState::Queued(Line::Paced | Line::Waiting))
    }
}
