//! The lines in which sessions wait for a worker.

use std::time::{Duration, Instant};

use crate::server::connection_slots::Account;
use crate::server::limits::HELD_BACK_LOOK;
use crate::swarm::{FairQueue, TurnCost, TurnPrice};

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// A worker.
    Ready,
    /// The rate limit.
    Paced,
    /// An upload slot; the line is in the gate.
    Waiting,
}

/// The lines for a worker and for the rate limit, both fair over accounts.
pub(crate) struct Queues {
    /// What turns cost.
    pub(crate) price: TurnPrice,
    ready: FairQueue<Account>,
    paced: FairQueue<Account>,
    /// The rate limit has nothing to give before this time.
    paced_until: Instant,
}

impl Queues {
    pub(crate) fn new(now: Instant) -> Self {
        Queues { price: TurnPrice::new(now), ready: FairQueue::new(), paced: FairQueue::new(), paced_until: now }
    }

    /// `session` wants a worker.
    pub(crate) fn push_ready(&mut self, account: Account, session: usize) {
        self.ready.push(account, session);
    }

    /// `session` wants a worker when the rate limit allows it. With the `ticket` of the last time
    /// it keeps its position. Returns its ticket.
    pub(crate) fn push_paced(&mut self, account: Account, session: usize, ticket: Option<u64>) -> u64 {
        match ticket {
            Some(ticket) => {
                self.paced.push_again(account, session, ticket);
                ticket
            }
            None => self.paced.push(account, session),
        }
    }

    /// The rate limit has nothing to give before `until`.
    pub(crate) fn delay(&mut self, until: Instant) {
        self.paced_until = until;
    }

    /// The session that a worker should take now.
    pub(crate) fn pop_ready(&mut self, now: Instant) -> Option<usize> {
        self.ready.pop(&self.price, now).map(|(_, session)| session)
    }

    /// The session that should try the rate limit now.
    pub(crate) fn pop_paced(&mut self, now: Instant) -> Option<usize> {
        let is_due = now >= self.paced_until;
        is_due.then(|| self.paced.pop(&self.price, now)).flatten().map(|(_, session)| session)
    }

    /// The turn of a session that was drawn from `line` is over. If the session waits again at
    /// once, push it before.
    pub(crate) fn done(&mut self, line: Line, account: Account, session: usize, cost: TurnCost) {
        match line {
            Line::Ready => self.ready.done(account, session, cost),
            Line::Paced => self.paced.done(account, session, cost),
            Line::Waiting => (),
        }
    }

    /// Whether any session wants a worker, even if it has to let others catch up.
    pub(crate) fn is_wanted(&self) -> bool {
        self.ready.is_waiting()
    }

    /// When a session can be drawn next, if there are any that only time keeps waiting.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = |queue: &FairQueue<Account>, at: Instant| {
            let wait = if queue.has_next(&self.price, now) { Duration::ZERO } else { HELD_BACK_LOOK };
            queue.is_waiting().then(|| at.max(now + wait))
        };
        due(&self.ready, now).into_iter().chain(due(&self.paced, self.paced_until)).min()
    }
}
