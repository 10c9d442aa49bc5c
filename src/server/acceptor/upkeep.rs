//! What the accepting thread looks at again and again: trust, deadlines, waits that are too long.

use std::time::Instant;

use super::Acceptor;
use crate::server::queues::Line;
use crate::server::session::{AcceptedSession, REVOKED};
use crate::server::slots::SessionSlot;

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
        let overdue = self.context.handler.gate().overdue(now);
        for at in overdue {
            if let Some(session) = &mut self.slots.at(at).session {
                session.defer();
                self.enqueue(at, Line::Ready);
            }
        }
    }
}
