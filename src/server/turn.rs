//! A turn of a session: what it may use up, and what the session wants after it.

use std::time::Instant;

use crate::limits::TURN_LEN_MAX;
use crate::server::limits::TURN_REQUESTS_MAX;
use crate::swarm::upload::limits::TURN_TIME_MAX;

/// What one turn has used up of the bytes, requests and time that a turn may take.
pub(crate) struct TurnBudget {
    began: Instant,
    pub(crate) sent: usize,
    pub(crate) requests: u32,
    /// Nothing more begins in it.
    is_ended: bool,
    /// Requests and bytes sent when the session last waited for a request.
    lingered: (u32, usize),
}

/// What a session wants after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnOutcome {
    /// Wait until there is something to read.
    Read,
    /// Wait until the peer takes what is to be sent.
    Write,
    /// Another turn.
    Again,
    /// Another turn, not before that time.
    Delay(Instant),
    /// Another turn once it is given an upload slot.
    Wait,
    /// Nothing more; it is over, for this reason.
    Close(&'static str),
}

impl TurnBudget {
    pub(crate) fn new() -> Self {
        TurnBudget { began: Instant::now(), sent: 0, requests: 0, is_ended: false, lingered: (0, 0) }
    }

    /// When the turn ends.
    pub(crate) fn end(&self) -> Instant {
        self.began + TURN_TIME_MAX
    }

    /// What is made by now is the last of it.
    pub(crate) fn finish(&mut self) {
        self.is_ended = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_ended || self.sent >= TURN_LEN_MAX || self.requests >= TURN_REQUESTS_MAX || Instant::now() >= self.end()
    }

    /// Whether the peer has sent a whole request or taken something since the last call. A worker
    /// waits for the next request only then: a peer that trickles must not keep it with a few
    /// bytes.
    pub(crate) fn has_progressed(&mut self) -> bool {
        let now = (self.requests, self.sent);
        std::mem::replace(&mut self.lingered, now) != now
    }
}
