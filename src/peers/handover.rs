//! Sessions that one service has opened and another one takes over.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::identity::NodeId;
use crate::peers::limits::HANDOVERS_MAX;
use crate::peers::opening::Opening;
use crate::sync::{lock, wait_timeout};

/// Where a contact leaves its session for a survey.
///
/// A peer becomes known by the contact that exchanges peers with it, and the survey asks it at once.
/// On a long path a session of its own would cost the survey three round trips. So a contact
/// announces its session before the peer becomes known, and leaves it here when it is through. What the
/// survey will ask on it goes out with the contact's own requests.
/// Without a survey nothing is kept.
#[derive(Debug)]
pub struct Handover<T> {
    state: Mutex<HandoverState<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct HandoverState<T> {
    /// What each taker asks on each session.
    takers: Vec<Opening>,
    /// Sessions that are still used, or left here.
    open: Vec<(NodeId, Option<T>)>,
}

/// Keeps sessions coming for as long as it lives.
#[derive(Debug)]
pub struct HandoverTaker<T> {
    from: Arc<Handover<T>>,
    opening: Opening,
}

/// A session that will be left, unless this is dropped.
#[derive(Debug)]
pub struct HandoverOffer<T> {
    to: Arc<Handover<T>>,
    node: NodeId,
}

impl<T> Handover<T> {
    /// Without sessions and takers.
    pub fn new() -> Arc<Self> {
        Arc::new(Handover {
            state: Mutex::new(HandoverState { takers: Vec::new(), open: Vec::new() }),
            changed: Condvar::new(),
        })
    }

    /// From now on sessions are kept, on each of which `opening` will be asked.
    pub fn taker(self: &Arc<Self>, opening: Opening) -> HandoverTaker<T> {
        lock(&self.state).takers.push(opening.clone());
        HandoverTaker { from: self.clone(), opening }
    }

    /// What a session that is left here will be asked first, as far as that is known and there is room for one.
    pub fn opening(&self) -> Opening {
        let state = lock(&self.state);
        let mut asked = state.takers.iter().filter(|opening| !opening.is_empty() && state.open.len() < HANDOVERS_MAX);
        asked.next().cloned().unwrap_or_default()
    }

    /// A session with `node` is open and will be left here; `None` if nothing would take it.
    pub fn offer(self: &Arc<Self>, node: NodeId) -> Option<HandoverOffer<T>> {
        let mut state = lock(&self.state);
        let is_wanted = !state.takers.is_empty() && state.open.len() < HANDOVERS_MAX;
        if !is_wanted || state.open.iter().any(|(other, _)| *other == node) {
            return None;
        }
        state.open.push((node, None));
        Some(HandoverOffer { to: self.clone(), node })
    }

    /// The session that was left for `node`. Waits at most `patience` for one that is offered.
    pub fn take(&self, node: &NodeId, patience: Duration) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        loop {
            let at = state.open.iter().position(|(other, _)| other == node)?;
            if state.open[at].1.is_some() {
                return state.open.swap_remove(at).1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = wait_timeout(&self.changed, state, left);
        }
    }

    /// What `change` takes out is dropped without the lock: a session that ends takes others.
    fn change<R>(&self, change: impl FnOnce(&mut HandoverState<T>) -> R) {
        let out = {
            let mut state = lock(&self.state);
            change(&mut state)
        };
        drop(out);
        self.changed.notify_all();
    }
}

impl<T> HandoverOffer<T> {
    /// Leaves the session.
    pub fn leave(self, session: T) {
        self.to.change(|state| {
            let place = state.open.iter_mut().find(|(node, _)| *node == self.node && !state.takers.is_empty());
            match place {
                Some((_, place)) => place.replace(session),
                None => Some(session),
            }
        });
    }
}

impl<T> Drop for HandoverOffer<T> {
    fn drop(&mut self) {
        // A session that was left stays.
        self.to.change(|state| state.open.retain(|(node, session)| *node != self.node || session.is_some()));
    }
}

impl<T> Drop for HandoverTaker<T> {
    fn drop(&mut self) {
        self.from.change(|state| {
            if let Some(at) = state.takers.iter().position(|opening| Arc::ptr_eq(opening, &self.opening)) {
                state.takers.swap_remove(at);
            }
            if state.takers.is_empty() { std::mem::take(&mut state.open) } else { Vec::new() }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;
    use crate::proto::Request;

    const LONG: Duration = Duration::from_secs(20);

    fn node(n: u8) -> NodeId {
        NodeId::new(PeerId([n; 32]), 1)
    }

    #[test]
    fn a_session_is_kept_for_a_taker_only() {
        let handover = Handover::new();
        assert!(handover.offer(node(1)).is_none());
        let taker = handover.taker(Opening::default());
        handover.offer(node(1)).unwrap().leave("one");
        assert!(handover.offer(node(1)).is_none(), "there is one already");
        assert_eq!(handover.take(&node(2), LONG), None);
        assert_eq!(handover.take(&node(1), LONG), Some("one"));
        assert_eq!(handover.take(&node(1), LONG), None);
        let late = handover.offer(node(3)).unwrap();
        handover.offer(node(4)).unwrap().leave("four");
        drop(taker);
        late.leave("three");
        assert!(lock(&handover.state).open.is_empty());
    }

    #[test]
    fn a_taker_waits_for_what_is_offered_and_not_for_what_is_withdrawn() {
        let handover = Handover::new();
        let _taker = handover.taker(Opening::default());
        let offers = [1, 2].map(|n| handover.offer(node(n)).unwrap());
        std::thread::scope(|s| {
            let waiting = [1, 2].map(|n| {
                let handover = &handover;
                s.spawn(move || handover.take(&node(n), LONG))
            });
            let [left, withdrawn] = offers;
            left.leave("session");
            drop(withdrawn);
            assert_eq!(waiting.map(|w| w.join().unwrap()), [Some("session"), None]);
        });
        let _used_for_long = handover.offer(node(3)).unwrap();
        assert_eq!(handover.take(&node(3), Duration::from_millis(10)), None);
    }

    #[test]
    fn what_is_asked_on_a_session_is_known_while_its_taker_lives() {
        let handover = Handover::<()>::new();
        let opening: Opening = [Request::Peers(None)].into();
        assert!(handover.opening().is_empty());
        let _asks_nothing = handover.taker(Opening::default());
        let takers = [opening.clone(), [Request::Reach].into()].map(|opening| handover.taker(opening));
        assert_eq!(*handover.opening(), *opening, "of the first one that asks something");
        let [first, second] = takers;
        drop(first);
        assert_eq!(*handover.opening(), [Request::Reach]);
        let offers: Vec<_> = (0..HANDOVERS_MAX).filter_map(|n| handover.offer(node(n as u8))).collect();
        assert!(offers.len() == HANDOVERS_MAX && handover.opening().is_empty(), "there is no room");
        drop(offers);
        assert_eq!(*handover.opening(), [Request::Reach]);
        drop(second);
        assert!(handover.opening().is_empty());
    }

    #[test]
    fn few_are_kept() {
        let handover = Handover::new();
        let _taker = handover.taker(Opening::default());
        let offers: Vec<_> = (0..=u8::MAX).filter_map(|n| handover.offer(node(n))).collect();
        assert_eq!(offers.len(), HANDOVERS_MAX);
        offers.into_iter().for_each(|offer| offer.leave(()));
        assert_eq!(lock(&handover.state).open.len(), HANDOVERS_MAX);
    }
}
