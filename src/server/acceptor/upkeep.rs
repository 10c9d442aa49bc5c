//! What the accepting thread looks at again and again: trust, deadlines, memory, waits that are too
//! long.

use std::cmp::Reverse;
use std::time::Instant;

use super::Acceptor;
use crate::server::queues::Line;
use crate::server::session::{AcceptedSession, REVOKED};
use crate::server::slots::{SessionSlot, SlotState};

impl Acceptor {
    /// Ends the sessions whose key has lost trust. A worker that has one ends its turn, and
    /// [`take_back`](Self::take_back) the session.
    pub(super) fn revoke(&mut self) {
        let trust = &self.context.handler.trust;
        let generation = trust.generation();
        if std::mem::replace(&mut self.trust_generation, generation) == generation {
            return;
        }
        let is_revoked = |s: &AcceptedSession| s.is_admitted() && s.peer().is_some_and(|peer| !trust.allows(&peer));
        let of = |(at, slot): (usize, &SessionSlot)| slot.session.as_ref().is_some_and(|s| is_revoked(s)).then_some(at);
        let over: Vec<_> = self.slots.iter().filter_map(of).collect();
        over.into_iter().for_each(|at| self.close(at, REVOKED));
    }

    /// Closes sessions until no more is parked than may be: of the account that has most, the one that
    /// was stalled longest first.
    pub(super) fn evict(&mut self) {
        while self.parked.is_over() {
            let can_end = |s: &SessionSlot| s.state == SlotState::Parked || s.is_held_up();
            let holding = self.slots.iter().filter(|(_, slot)| slot.parked > 0 && can_end(slot));
            let since = |s: &SessionSlot| s.session.as_ref().and_then(|session| session.stalled_since);
            let rank = |s: &SessionSlot| Some((s.is_held_up(), Reverse(self.parked.of(s.account)), since(s)?));
            let first = holding.filter_map(|(at, slot)| Some((rank(slot)?, at))).min();
            let Some((_, at)) = first else { return };
            self.close(at, "stalled while others need the memory");
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let ends = |session: &AcceptedSession| {
            (now >= session.deadline).then_some(match session.is_admitted() {
                true => "idle",
                false if session.is_closing() => "refused",
                false => "no Hello in time",
            })
        };
        let over: Vec<_> =
            self.slots.iter().filter_map(|(at, slot)| Some((at, ends(slot.session.as_ref()?)?))).collect();
        for (at, why) in over {
            self.close(at, why);
        }
        let directory = &self.context.handler.directory;
        let mut reached = directory.turned().offering();
        directory.read(|t| reached.retain(|node| t.was_reached(*node)));
        directory.turned().sweep(&reached);
        let overdue = self.context.handler.gate().overdue(now);
        for at in overdue {
            if let Some(session) = &mut self.slots.at(at).session {
                session.defer();
                self.enqueue(at, Line::Ready);
            }
        }
    }
}
