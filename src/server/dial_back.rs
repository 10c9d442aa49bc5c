//! Whether an asker can be dialed: this node tries it, from outside of the asker.
//!
//! Only the source address of the session and the port that the asker announced are tried, and the address where the
//! asker's key was proved before: so a peer has its own address dialed, and no other one. Each account has one try a minute, and one thread
//! makes them all; requests only look at the result.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::identity::NodeId;
use crate::peers::{AskError, Call, Dialer};
use crate::proto::DialState;
use crate::server::bad_reports::MINUTE;
use crate::server::connection_slots::Account;
use crate::server::limits::{DIAL_BACK_TIMEOUT, DIAL_BACKS_MAX, DIAL_BACKS_WAITING_MAX};
use crate::sync::lock;

/// The tries of the last minute, at most [`DIAL_BACKS_MAX`].
pub(crate) struct DialBacks {
    tries: Arc<Mutex<Tries>>,
    queue: Sender<(Account, DialBackTo)>,
}

type Tries = HashMap<Account, Try>;

/// A node, and where it is said to serve.
pub(crate) type DialBackTo = (NodeId, SocketAddr);

struct Try {
    begun: Instant,
    target: DialBackTo,
    state: DialState,
}

/// Makes the tries; the other end of [`DialBacks`].
pub(crate) struct DialBackWork {
    tries: Arc<Mutex<Tries>>,
    pub(crate) queue: Receiver<(Account, DialBackTo)>,
}

impl DialBacks {
    /// Both ends.
    pub(crate) fn new() -> (Self, DialBackWork) {
        let (tries, (to, queue)) = (Arc::default(), bounded(DIAL_BACKS_WAITING_MAX));
        (DialBacks { tries: Arc::clone(&tries), queue: to }, DialBackWork { tries, queue })
    }

    /// What is known of `target`, asked by `account`. The first question begins a try, unless the
    /// account had one in the last minute or too many wait.
    pub(crate) fn ask(&self, account: Account, target: DialBackTo, now: Instant) -> DialState {
        let mut tries = lock(&self.tries);
        let is_recent = |one: &Try| now.saturating_duration_since(one.begun) < MINUTE;
        match tries.get(&account).filter(|one| is_recent(one)) {
            Some(one) if one.target == target => return one.state,
            Some(_) => return DialState::NotTried,
            None => {}
        }
        if tries.len() >= DIAL_BACKS_MAX {
            tries.retain(|_, one| is_recent(one));
        }
        if tries.len() >= DIAL_BACKS_MAX || self.queue.try_send((account, target)).is_err() {
            return DialState::NotTried;
        }
        tries.insert(account, Try { begun: now, target, state: DialState::Trying });
        DialState::Trying
    }
}

impl DialBackWork {
    /// Tries until the queue ends; the body of a thread.
    pub(crate) fn run(self, dialer: &Dialer) {
        for (account, (node, addr)) in &self.queue {
            if dialer.shutdown().has_begun() {
                return;
            }
            let welcome_by = Some(Instant::now() + DIAL_BACK_TIMEOUT);
            let call = Call { addr, expect: Some(node.peer), dial_timeout: DIAL_BACK_TIMEOUT, welcome_by };
            let opened = dialer.open(&call, &mut |_, _, _| ());
            let state = match &opened {
                Ok(session) if session.node() != node => DialState::Failed,
                // An answer came, and it is that of the key.
                Ok(_) | Err(AskError::Refused(_) | AskError::Busy(_) | AskError::Untrusted(_)) => DialState::Reached,
                Err(_) => DialState::Failed,
            };
            log::debug!("dialed back peer={} addr={addr} state={state:?}", node.peer);
            if let Ok(session) = opened {
                session.close();
            }
            if state == DialState::Failed {
                dialer.directory().failed(node, addr, Instant::now());
            }
            self.note(account, (node, addr), state);
        }
    }

    /// A try ended.
    pub(crate) fn note(&self, account: Account, target: DialBackTo, state: DialState) {
        if let Some(one) = lock(&self.tries).get_mut(&account).filter(|one| one.target == target) {
            one.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    fn account(n: u32) -> Account {
        Account::Addr(n.to_be_bytes().into())
    }

    fn target(port: u16) -> DialBackTo {
        (NodeId::new(Keypair::generate().peer_id(), 1), SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn an_account_has_one_try_a_minute() {
        let ((backs, work), t) = (DialBacks::new(), Instant::now());
        let (one, other) = (target(1), target(2));
        assert_eq!(backs.ask(account(1), one, t), DialState::Trying);
        assert_eq!(backs.ask(account(1), one, t + MINUTE / 2), DialState::Trying, "no second try");
        assert_eq!(backs.ask(account(1), other, t + MINUTE / 2), DialState::NotTried);
        assert_eq!(backs.ask(account(2), other, t), DialState::Trying, "another account has its own");
        assert_eq!(work.queue.len(), 2);
        assert_eq!(backs.ask(account(1), other, t + MINUTE), DialState::Trying);
        assert_eq!(work.queue.len(), 3);
    }

    #[test]
    fn tries_that_wait_and_that_are_remembered_are_bounded() {
        let ((backs, work), t) = (DialBacks::new(), Instant::now());
        let begun = |n| backs.ask(account(n), target(1), t) == DialState::Trying;
        let waiting = (0..1000).filter(|n| begun(*n)).count();
        assert_eq!(waiting, DIAL_BACKS_WAITING_MAX);
        let mut all = waiting;
        for n in 1000..3000 {
            work.queue.try_iter().for_each(drop);
            all += usize::from(begun(n));
        }
        assert_eq!(all, DIAL_BACKS_MAX);
        assert_eq!(backs.ask(account(9), target(1), t + MINUTE), DialState::Trying, "a minute later all is forgotten");
    }
}
