//! How many connections there may be: in all, of one account, before `Hello`, and by the system's
//! limit of open files.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::identity::PeerId;
use crate::limits::HANDSHAKES_PER_ADDR_MAX;
use crate::server::limits::{CONNECTIONS_MIN, DESCRIPTORS_RESERVED};
use crate::sync::lock;

/// What a connection is served on: shares and bounds are by account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Account {
    /// The source address: before a peer is known, and in an open group, where keys cost nothing.
    Addr(IpAddr),
    /// The key, in a closed group.
    Key(PeerId),
}

/// Counts the connections that said `Hello` and are not over.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    max: usize,
    max_per_account: usize,
    taken: Mutex<TakenSlots>,
}

#[derive(Debug, Default)]
struct TakenSlots {
    all: usize,
    by_account: HashMap<Account, usize>,
}

/// A counted connection; dropped when it ends.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    account: Account,
}

impl ConnectionSlots {
    pub(crate) fn new(max: usize, max_per_account: usize) -> Arc<Self> {
        Arc::new(ConnectionSlots { max, max_per_account, taken: Mutex::default() })
    }

    /// A slot for one more connection of `account`, unless its slots or all are taken.
    pub(crate) fn take(self: &Arc<Self>, account: Account) -> Option<ConnectionSlot> {
        let mut taken = lock(&self.taken);
        let of_account = taken.by_account.get(&account).copied().unwrap_or(0);
        if taken.all >= self.max || of_account >= self.max_per_account {
            return None;
        }
        taken.all += 1;
        taken.by_account.insert(account, of_account + 1);
        Some(ConnectionSlot { slots: self.clone(), account })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        taken.all = taken.all.saturating_sub(1);
        if let Entry::Occupied(mut count) = taken.by_account.entry(self.account) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The connections that have not said `Hello`, in all and by source address. Sessions are numbers
/// here.
#[derive(Debug)]
pub(crate) struct HandshakeSlots {
    max: usize,
    count: usize,
    /// The oldest of each address is at the front.
    by_addr: HashMap<IpAddr, VecDeque<usize>>,
}

impl HandshakeSlots {
    pub(crate) fn new(max: usize) -> Self {
        HandshakeSlots { max, count: 0, by_addr: HashMap::new() }
    }

    /// Whether `ip` has as many as one address may have.
    pub(crate) fn is_crowded(&self, ip: IpAddr) -> bool {
        self.by_addr.get(&ip).is_some_and(|sessions| sessions.len() >= HANDSHAKES_PER_ADDR_MAX)
    }

    /// Whether one more of `ip` may enter.
    pub(crate) fn has_room(&self, ip: IpAddr) -> bool {
        self.count < self.max && !self.is_crowded(ip)
    }

    pub(crate) fn enter(&mut self, ip: IpAddr, session: usize) {
        self.count += 1;
        self.by_addr.entry(ip).or_default().push_back(session);
    }

    /// `session` of `ip` said `Hello` or is over.
    pub(crate) fn leave(&mut self, ip: IpAddr, session: usize) {
        let Some(sessions) = self.by_addr.get_mut(&ip) else { return };
        self.count -= 1;
        sessions.retain(|other| *other != session);
        if sessions.is_empty() {
            self.by_addr.remove(&ip);
        }
    }

    /// The oldest of `ip`, or else of the address that has the most. `deadline` is `None` for a
    /// session that cannot be ended now.
    pub(crate) fn oldest(&self, ip: Option<IpAddr>, deadline: impl Fn(usize) -> Option<Instant>) -> Option<usize> {
        let oldest = |sessions: &VecDeque<usize>| {
            let (at, deadline) = sessions.iter().find_map(|&at| Some((at, deadline(at)?)))?;
            Some((sessions.len(), Reverse(deadline), at))
        };
        let found = match ip {
            Some(ip) => self.by_addr.get(&ip).and_then(oldest),
            None => self.by_addr.values().filter_map(oldest).max(),
        };
        found.map(|(.., at)| at)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.count
    }
}

/// Raises the limit of open files as far as the system lets a process do that, and returns how many
/// connections fit. The usual soft limit of 1,024 is for programs that cannot count further; one
/// host could use it up.
pub(crate) fn connections_that_fit() -> usize {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
        if let Err(e) = raised {
            log::debug!("limit of open files stays as it is error=\"{e}\"");
        }
    }
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    log::debug!("limit of open files was={} is={files}", before.current.unwrap_or(u64::MAX));
    files.saturating_sub(DESCRIPTORS_RESERVED).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_all_and_by_account_and_come_back() {
        let slots = ConnectionSlots::new(3, 2);
        let (a, b) = (Account::Key(PeerId([1; 32])), Account::Addr([127, 0, 0, 1].into()));
        let first = slots.take(a).unwrap();
        let _second = slots.take(a).unwrap();
        assert!(slots.take(a).is_none());
        let _third = slots.take(b).unwrap();
        assert!(slots.take(b).is_none());
        drop(first);
        let again = slots.take(a).unwrap();
        assert!(slots.take(b).is_none());
        drop(again);
        assert_eq!(slots.taken.lock().unwrap().by_account.len(), 2);
    }

    #[test]
    fn the_limit_is_as_high_as_it_can_be_and_leaves_room_for_files() {
        let fit = connections_that_fit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(limit.current.is_none_or(|n| fit == CONNECTIONS_MIN || fit as u64 + DESCRIPTORS_RESERVED as u64 == n));
    }

    #[test]
    fn the_oldest_handshake_of_the_fullest_address_is_found() {
        let (mut handshakes, now) = (HandshakeSlots::new(4), Instant::now());
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        [(a, 0), (b, 1), (a, 2)].into_iter().for_each(|(ip, session)| handshakes.enter(ip, session));
        assert!(handshakes.has_room(a) && handshakes.count() == 3);
        let all = |_: usize| Some(now);
        assert_eq!((handshakes.oldest(None, all), handshakes.oldest(Some(b), all)), (Some(0), Some(1)));
        assert_eq!(handshakes.oldest(None, |session| (session != 0).then_some(now)), Some(2), "workers have the other");
        handshakes.enter(b, 3);
        assert!(!handshakes.has_room(a));
        handshakes.leave(a, 0);
        handshakes.leave(a, 2);
        assert!(handshakes.has_room(a) && handshakes.oldest(Some(a), all).is_none());
    }
}
