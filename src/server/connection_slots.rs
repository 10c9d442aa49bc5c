//! How many connections there may be: in all, of one account, before `Hello`, and by the system's
//! limit of open files.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::identity::PeerId;
use crate::limits::HANDSHAKES_PER_ADDR_MAX;
use crate::peers::Lease;
use crate::server::limits::{CONNECTIONS_MIN, DESCRIPTORS_RESERVED, GIVES_WAY_AFTER};
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
///
/// When all slots are taken, the connection that has been idle longest gives its slot to a newcomer:
/// of the network prefix that has the most slots, and there of the account that has the most. So a
/// host, or a network of them, that takes all slots locks no other one out. A connection of an
/// account or prefix that has as many as the newcomer's gives way only after [`GIVES_WAY_AFTER`], so
/// that equals do not take slots from each other without end; one that has fewer never does. A
/// connection that is served gives way only in a prefix that has more than half of all slots and more
/// than an account may have: else connections that never rest would lock out all others.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    max: usize,
    max_per_account: usize,
    /// What the times of [`SlotUse`] count from.
    began: Instant,
    taken: Mutex<TakenSlots>,
}

#[derive(Debug, Default)]
struct TakenSlots {
    all: usize,
    /// Slots that were ever taken.
    count: u64,
    by_prefix: HashMap<IpAddr, PrefixSlots>,
    /// Sessions that lost their slot since they were last asked for.
    ousted: Vec<usize>,
}

/// The slots of one network prefix.
#[derive(Debug, Default)]
struct PrefixSlots {
    count: usize,
    by_account: HashMap<Account, Vec<Arc<SlotUse>>>,
}

/// How a slot is used.
#[derive(Debug)]
struct SlotUse {
    session: usize,
    /// Later ones have higher numbers.
    number: u64,
    /// Since when the peer has neither asked for nor taken anything, in ms; [`IN_USE`] while the
    /// server has work for it.
    idle_since_ms: AtomicU64,
    is_lost: AtomicBool,
}

/// A counted connection; dropped when it ends.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    account: Account,
    usage: Arc<SlotUse>,
}

impl Account {
    /// The account for what a host may have in all: it has all addresses of an IPv6 network (/64).
    pub(crate) fn of_host(self) -> Self {
        match self {
            Account::Addr(ip) if ip.to_canonical().is_ipv6() => Account::Addr(prefix_of(ip)),
            Account::Addr(ip) => Account::Addr(ip.to_canonical()),
            Account::Key(_) => self,
        }
    }

    /// The network prefix that it counts to. A key is its own wherever it connects from: else it
    /// would have all slots of an account in each prefix.
    fn prefix(self) -> IpAddr {
        match self {
            Account::Addr(ip) => prefix_of(ip),
            Account::Key(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

impl ConnectionSlots {
    pub(crate) fn new(max: usize, max_per_account: usize) -> Arc<Self> {
        Arc::new(ConnectionSlots { max, max_per_account, began: Instant::now(), taken: Mutex::default() })
    }

    /// A slot for one more connection of `account`, which is `session`. `None` if the slots of the account or all are
    /// taken and no connection gives way.
    pub(crate) fn take(self: &Arc<Self>, account: Account, session: usize, now: Instant) -> Option<ConnectionSlot> {
        let mut taken = lock(&self.taken);
        let of_account = taken.of_account(account);
        let idle_before = self.ms(now).saturating_sub(GIVES_WAY_AFTER.as_millis() as u64);
        let victim = if of_account >= self.max_per_account {
            Some(taken.idle_of(account, idle_before)?)
        } else if taken.all >= self.max {
            let idle = taken.idle_of_most(account, idle_before);
            Some(idle.or_else(|| taken.served_of_most(account, self.max_per_account.max(self.max / 2)))?)
        } else {
            None
        };
        if let Some((account, usage)) = victim {
            taken.remove(account, &usage);
            usage.is_lost.store(true, Ordering::Release);
            taken.ousted.push(usage.session);
        }
        taken.count += 1;
        let (number, idle_since_ms) = (taken.count, AtomicU64::new(IN_USE));
        let usage = SlotUse { session, number, idle_since_ms, is_lost: AtomicBool::new(false) };
        let usage = Arc::new(usage);
        taken.add(account, usage.clone());
        Some(ConnectionSlot { slots: self.clone(), account, usage })
    }

    /// The sessions that lost their slots since the last call. A session that ended meanwhile may
    /// have left its number to another one, whose slot [`is_lost`](ConnectionSlot::is_lost) says no.
    pub(crate) fn ousted(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.taken).ousted)
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64
    }
}

impl TakenSlots {
    fn of_account(&self, account: Account) -> usize {
        self.by_prefix.get(&account.prefix()).and_then(|p| p.by_account.get(&account)).map_or(0, Vec::len)
    }

    /// The slot of `account` that has been idle longest, if that is since before `idle_before`.
    fn idle_of(&self, account: Account, idle_before: u64) -> Option<(Account, Arc<SlotUse>)> {
        let slots = self.by_prefix.get(&account.prefix())?.by_account.get(&account)?;
        let (since, usage) = longest_idle(slots)?;
        (since <= idle_before).then(|| (account, usage.clone()))
    }

    /// The slot that gives way to a newcomer of `account`.
    fn idle_of_most(&self, account: Account, idle_before: u64) -> Option<(Account, Arc<SlotUse>)> {
        let prefix = account.prefix();
        let own_prefix = self.by_prefix.get(&prefix).map_or(0, |p| p.count);
        let own = self.of_account(account);
        let all =
            self.by_prefix.iter().flat_map(|(at, p)| p.by_account.iter().map(move |(a, slots)| (*at, p, *a, slots)));
        let candidates = all.filter_map(|(at, p, holder, slots)| {
            let (theirs, ours) = if at == prefix { (slots.len(), own) } else { (p.count, own_prefix) };
            let (has_more, has_as_many) = (theirs > ours + 1, theirs >= ours);
            let (since, usage) = longest_idle(slots)?;
            let rank = (p.count, slots.len(), Reverse(since));
            (has_more || (has_as_many && since <= idle_before)).then_some((rank, holder, usage))
        });
        candidates.max_by_key(|(rank, ..)| *rank).map(|(_, holder, usage)| (holder, usage.clone()))
    }

    /// The slot that was taken last of the account that has most, in the prefix that has most, if that
    /// has more than `fair` of them and is not the one of `own`.
    fn served_of_most(&self, own: Account, fair: usize) -> Option<(Account, Arc<SlotUse>)> {
        let (prefix, most) = self.by_prefix.iter().max_by_key(|(_, p)| p.count)?;
        if most.count <= fair || *prefix == own.prefix() {
            return None;
        }
        let (account, slots) = most.by_account.iter().max_by_key(|(_, slots)| slots.len())?;
        Some((*account, slots.iter().max_by_key(|usage| usage.number)?.clone()))
    }

    fn add(&mut self, account: Account, usage: Arc<SlotUse>) {
        let slots = self.by_prefix.entry(account.prefix()).or_default();
        slots.by_account.entry(account).or_default().push(usage);
        slots.count += 1;
        self.all += 1;
    }

    /// Does nothing for a slot that was lost.
    fn remove(&mut self, account: Account, usage: &Arc<SlotUse>) {
        let prefix = account.prefix();
        let Some(slots) = self.by_prefix.get_mut(&prefix) else { return };
        let Some(of_account) = slots.by_account.get_mut(&account) else { return };
        let Some(at) = of_account.iter().position(|other| Arc::ptr_eq(other, usage)) else { return };
        of_account.swap_remove(at);
        slots.count -= 1;
        self.all -= 1;
        if of_account.is_empty() {
            slots.by_account.remove(&account);
        }
        if slots.count == 0 {
            self.by_prefix.remove(&prefix);
        }
    }
}

impl ConnectionSlot {
    /// What its session is served on.
    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// A turn of the session begins. Returns since when it was idle, for
    /// [`end_turn`](Self::end_turn).
    pub(crate) fn begin_turn(&self) -> Option<u64> {
        let since = self.usage.idle_since_ms.swap(IN_USE, Ordering::Relaxed);
        (since != IN_USE).then_some(since)
    }

    /// The session waits for its peer: still `since`, or from `now` on without that.
    pub(crate) fn end_turn(&self, since: Option<u64>, now: Instant) {
        self.usage.idle_since_ms.store(since.unwrap_or_else(|| self.slots.ms(now)), Ordering::Relaxed);
    }

    /// Whether it went to a newcomer: the session must end.
    pub(crate) fn is_lost(&self) -> bool {
        self.usage.is_lost.load(Ordering::Acquire)
    }
}

impl Lease for ConnectionSlot {
    fn is_lost(&self) -> bool {
        ConnectionSlot::is_lost(self)
    }

    fn take_up(&self) {
        self.begin_turn();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        lock(&self.slots.taken).remove(self.account, &self.usage);
    }
}

/// The slot that has been idle longest, and since when.
fn longest_idle(slots: &[Arc<SlotUse>]) -> Option<(u64, &Arc<SlotUse>)> {
    let since = |usage: &Arc<SlotUse>| usage.idle_since_ms.load(Ordering::Relaxed);
    slots.iter().map(|usage| (since(usage), usage)).filter(|(at, _)| *at != IN_USE).min_by_key(|(at, _)| *at)
}

/// What hosts of one network share of their addresses: /24 of IPv4, /64 of IPv6.
fn prefix_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The time of a slot that is in use.
const IN_USE: u64 = u64::MAX;

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

/// How many connections fit into the limit of open files. The usual soft limit of 1,024 is for
/// programs that cannot count further; one host could use it up.
pub(crate) fn connections_that_fit() -> usize {
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    files.saturating_sub(DESCRIPTORS_RESERVED).max(CONNECTIONS_MIN)
}

/// Raises the soft limit of open files of this process to the hard one, for good. So more connections
/// fit; processes that this one starts inherit it.
pub fn raise_file_limit() {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
        let (was, is) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
        match raised {
            Ok(()) => log::debug!("limit of open files was={was} is={is}"),
            Err(e) => log::debug!("limit of open files stays as it is error=\"{e}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Slots of an open group, where accounts are addresses. Sessions are numbered as they come.
    struct Lab {
        slots: Arc<ConnectionSlots>,
        held: Vec<Option<ConnectionSlot>>,
    }

    impl Lab {
        fn new(max: usize, max_per_account: usize) -> Self {
            Lab { slots: ConnectionSlots::new(max, max_per_account), held: vec![] }
        }

        /// A connection of `addr` that has been idle for this time when the next one comes.
        fn take(&mut self, addr: &str, idle: Duration) -> bool {
            let (session, now) = (self.held.len(), self.slots.began + NOW);
            let slot = self.slots.take(Account::Addr(ip(addr)), session, now);
            if let Some(slot) = &slot {
                assert!(slot.begin_turn().is_none(), "it is in use");
                slot.end_turn(None, now - idle);
            }
            self.held.push(slot);
            self.held[session].is_some()
        }

        /// The session that gave way to a newcomer from `addr`.
        fn gave_way(&mut self, addr: &str) -> Option<usize> {
            if !self.take(addr, Duration::ZERO) {
                return None;
            }
            let ousted = self.slots.ousted();
            assert_eq!(ousted.len(), 1);
            assert!(self.held[ousted[0]].take().unwrap().is_lost());
            Some(ousted[0])
        }
    }

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn connections_are_limited_in_all_and_by_account_and_come_back() {
        let mut lab = Lab::new(3, 2);
        let (a, b) = ("10.0.0.1", "10.0.0.2");
        assert!(lab.take(a, Duration::ZERO) && lab.take(a, Duration::ZERO));
        assert!(!lab.take(a, Duration::ZERO), "its slots are taken");
        assert!(lab.take(b, Duration::ZERO) && !lab.take(b, Duration::ZERO), "all slots are taken");
        lab.held[0] = None;
        assert!(lab.take(b, Duration::ZERO) && !lab.take(a, Duration::ZERO));
        assert_eq!(lab.slots.taken.lock().unwrap().all, 3);
        lab.held.clear();
        assert!(lab.slots.taken.lock().unwrap().by_prefix.is_empty());
    }

    /// Without this, one host with enough addresses took all slots with idle connections, and every other host was
    /// refused, as the server was full, for as long as that lasted.
    #[test]
    fn the_longest_idle_connection_of_the_address_and_prefix_with_most_gives_way() {
        let s = Duration::from_secs;
        let mut lab = Lab::new(5, 3);
        for (addr, idle) in
            [("10.0.0.1", s(9)), ("10.0.1.1", s(0)), ("10.0.1.2", s(3)), ("10.0.1.2", s(1)), ("10.0.2.1", s(99))]
        {
            assert!(lab.take(addr, idle));
        }
        assert_eq!(lab.gave_way("10.0.3.1"), Some(2), "10.0.1.2 has most of 10.0.1, which has most");
        assert_eq!(lab.gave_way("10.0.1.1"), None, "none that has as many was idle for long");
        assert_eq!(lab.gave_way("10.0.2.1"), Some(4), "the longest idle one of those that have as many");
    }

    #[test]
    fn addresses_of_one_prefix_count_together() {
        for prefix in ["10.9.9.", "fd00::1:"] {
            let mut lab = Lab::new(8, 8);
            (1..9).for_each(|n| assert!(lab.take(&format!("{prefix}{n}"), Duration::from_millis(n))));
            assert_eq!(lab.gave_way("fd00:0:0:1::1"), Some(7), "{prefix}");
            assert_eq!(
                lab.gave_way(&format!("{prefix}77")),
                None,
                "none of its own prefix has more than it would have"
            );
        }
    }

    /// Idle for two seconds, a lone session gave way to each of the thousands of a network whose own were all in use.
    #[test]
    fn a_connection_never_gives_way_to_one_of_an_account_that_has_more() {
        let mut lab = Lab::new(4, 4);
        assert!(lab.take("10.0.0.1", LONG) && (1..4).all(|n| lab.take(&format!("10.1.0.{n}"), LONG)));
        let busy: Vec<_> = lab.held[1..].iter().map(|slot| slot.as_ref().unwrap().begin_turn()).collect();
        assert_eq!((busy.len(), lab.gave_way("10.1.0.9")), (3, None));
    }

    /// With a count for each prefix, one key had all slots of an account in each network that it connects from.
    #[test]
    fn a_key_is_one_account_wherever_it_connects_from() {
        let slots = ConnectionSlots::new(9, 2);
        let (key, now) = (Account::Key(PeerId([1; 32])), slots.began + NOW);
        let took: Vec<_> = (1..5).map(|n| slots.take(key, n, now)).collect();
        assert_eq!(took.iter().flatten().count(), 2);
    }

    #[test]
    fn equals_give_way_only_when_they_were_idle_for_long() {
        let mut lab = Lab::new(2, 2);
        assert!(lab.take("10.0.0.1", GIVES_WAY_AFTER / 2) && lab.take("10.1.0.1", Duration::ZERO));
        assert_eq!(lab.gave_way("10.2.0.1"), None);
        lab.held[0].as_ref().unwrap().end_turn(None, lab.slots.began + NOW - GIVES_WAY_AFTER);
        assert_eq!(lab.gave_way("10.2.0.1"), Some(0));
        // An account that has all that one may have gets room only of its own.
        let mut lab = Lab::new(9, 2);
        assert!(lab.take("10.0.0.1", LONG) && lab.take("10.0.0.2", LONG) && lab.take("10.0.0.1", Duration::ZERO));
        assert_eq!(lab.gave_way("10.0.0.1"), Some(0));
        assert_eq!(lab.gave_way("10.0.0.1"), None);
    }

    #[test]
    fn a_connection_that_is_served_never_gives_way() {
        let mut lab = Lab::new(2, 2);
        assert!(lab.take("10.0.0.1", LONG) && lab.take("10.0.0.1", LONG));
        let since: Vec<_> = lab.held.iter().map(|slot| slot.as_ref().unwrap().begin_turn()).collect();
        assert_eq!(lab.gave_way("10.2.0.1"), None);
        // A turn in which nothing happened leaves the time as it was.
        lab.held[1].as_ref().unwrap().end_turn(since[1], lab.slots.began + NOW);
        assert_eq!(lab.gave_way("10.2.0.1"), Some(1));
    }

    /// Cause: only idle connections gave way. Effect: a network that took all slots and kept each busy, with chunks that
    /// wait for the rate limit, locked all others out. Mend: where one network has more than half, one that is served
    /// gives way to another network.
    #[test]
    fn a_network_with_most_slots_keeps_others_out_by_no_amount_of_work() {
        let mut lab = Lab::new(8, 2);
        (0..7).for_each(|n| assert!(lab.take(&format!("10.0.0.{}", n / 2), Duration::ZERO)));
        assert!(lab.take("10.1.0.1", Duration::ZERO));
        lab.held.iter().flatten().for_each(|slot| _ = slot.begin_turn());
        assert_eq!(lab.gave_way("10.0.0.9"), None, "its own network has most");
        for n in 1..4 {
            let given = lab.gave_way(&format!("10.2.0.{n}")).expect("the network with most makes room");
            assert!(given < 7, "the lone connection of 10.1.0 stays");
            lab.held.iter().flatten().for_each(|slot| _ = slot.begin_turn());
        }
        assert_eq!(lab.gave_way("10.3.0.1"), None, "nobody has more than half any more");
    }

    #[test]
    fn the_limit_is_as_high_as_it_can_be_and_leaves_room_for_files() {
        let before = getrlimit(Resource::Nofile);
        let _ = connections_that_fit();
        assert_eq!(getrlimit(Resource::Nofile), before, "it is raised only on request");
        raise_file_limit();
        let (fit, limit) = (connections_that_fit(), getrlimit(Resource::Nofile));
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
