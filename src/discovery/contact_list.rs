//! The peers that are named, and when each is contacted. Pure: `now` is an argument.
//!
//! A name may have several addresses, which may be as many hosts: each of them is contacted, and the
//! name answers if one of them does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::discovery::limits::{CONTACT_AGAIN_S, CONTACT_RETRY_FIRST, SELF_CONTACT_EVERY};
use crate::identity::PeerId;
use crate::limits::{ANNOUNCE_INTERVAL, STATIC_PEERS_MAX};
use crate::net::PeerAddr;
use crate::swarm::ContactSource;

/// The named peers: at most [`STATIC_PEERS_MAX`] that the user named, and as many of the peer file.
#[derive(Debug, Default)]
pub(super) struct ContactList {
    peers: BTreeMap<u64, NamedPeer>,
    next_id: u64,
    /// The key of this node, which a file that all hosts have names, too.
    own: Option<PeerId>,
}

/// A peer that the user or the peer file named.
#[derive(Debug)]
struct NamedPeer {
    peer: PeerAddr,
    /// Whether the user named it.
    is_typed: bool,
    /// Whether the peer file names it.
    in_file: bool,
    /// When to contact it again; `None` while it is being contacted.
    next: Option<Instant>,
    retry: Duration,
    /// Contacts that succeeded.
    successes: usize,
    /// Addresses that are being contacted, and what came of the others.
    left: usize,
    reached: Option<PeerId>,
    cause: String,
    /// Whether the last contact failed, which is logged once.
    failed: bool,
    /// Whether it was neither reached nor given up, so that a search may wait for it.
    awaited: bool,
    name: NameLookUp,
}

/// What is known of the addresses of a name.
#[derive(Debug, Default)]
struct NameLookUp {
    /// The last ones that were found.
    addrs: Vec<SocketAddr>,
    /// Whether they are being looked up.
    runs: bool,
}

/// What another content of the peer file changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PeerFileChange {
    /// Peers that were not named before, and peers that no longer are.
    pub(super) added: usize,
    pub(super) removed: usize,
    /// The removed ones for which a search may have waited.
    pub(super) came: usize,
}

/// What came of the contact of a named peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContactOutcome {
    pub(super) peer: PeerAddr,
    pub(super) result: Result<PeerId, String>,
    /// Whether the contact before failed, too.
    pub(super) failed_before: bool,
    /// Whether a search no longer needs to wait for it.
    pub(super) came: bool,
}

impl ContactList {
    /// Nothing yet, for the node of this key.
    pub(super) fn of(own: PeerId) -> Self {
        ContactList { own: Some(own), ..ContactList::default() }
    }

    /// Has `peer` contacted now, and from then on at each interval. True if it was not named before.
    pub(super) fn add(&mut self, peer: PeerAddr, now: Instant) -> bool {
        if let Some(named) = self.peers.values_mut().find(|named| named.peer == peer) {
            named.is_typed = true;
            // One that is being contacted has no time of its next contact.
            named.next = named.next.map(|_| now);
            return false;
        }
        let fits = self.peers.values().filter(|named| named.is_typed).count() < STATIC_PEERS_MAX;
        if fits {
            self.insert(NamedPeer { is_typed: true, ..NamedPeer::new(peer, now) });
        }
        fits
    }

    /// Has exactly these `peers` of the peer file contacted from now on, besides those that the user
    /// named.
    pub(super) fn set_file(&mut self, peers: Vec<PeerAddr>, now: Instant) -> PeerFileChange {
        let mut change = PeerFileChange::default();
        self.peers.values_mut().for_each(|named| named.in_file = false);
        for peer in peers.into_iter().take(STATIC_PEERS_MAX) {
            if let Some(named) = self.peers.values_mut().find(|named| named.peer == peer) {
                named.in_file = true;
            } else {
                self.insert(NamedPeer { in_file: true, ..NamedPeer::new(peer, now) });
                change.added += 1;
            }
        }
        self.peers.retain(|_, named| {
            let stays = named.is_typed || named.in_file;
            change.removed += usize::from(!stays);
            change.came += usize::from(!stays && named.awaited);
            stays
        });
        change
    }

    fn insert(&mut self, named: NamedPeer) {
        self.peers.insert(self.next_id, named);
        self.next_id += 1;
    }

    /// Number of peers.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Number of peers that the peer file names.
    pub(super) fn in_file(&self) -> usize {
        self.peers.values().filter(|named| named.in_file).count()
    }

    /// Whether any of them is a name that is looked up.
    pub(super) fn names_hosts(&self) -> bool {
        self.peers.values().any(|named| named.peer.literal().is_none())
    }

    /// Why the peer of this number is contacted.
    pub(super) fn source(&self, id: u64) -> ContactSource {
        self.peers.get(&id).map_or(ContactSource::Named, NamedPeer::source)
    }

    /// How loudly a failure of this peer is told: once, and low if a file names it, as many of its hosts may be off.
    pub(super) fn failure_level(&self, id: u64, failed_before: bool) -> log::Level {
        match self.source(id) {
            _ if failed_before => log::Level::Debug,
            ContactSource::Named => log::Level::Warn,
            _ => log::Level::Info,
        }
    }

    /// The peers to contact now, each with its number and the reason, until [`begun`](Self::begun) or
    /// [`ended`](Self::ended) is called for it.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(u64, PeerAddr, ContactSource)> {
        let is_due = |named: &NamedPeer| named.next.is_some_and(|at| at <= now);
        let due = self.peers.iter_mut().filter(|(_, named)| is_due(named));
        due.map(|(id, named)| {
            (named.next, named.left, named.reached) = (None, 1, None);
            named.cause.clear();
            (*id, named.peer.clone(), named.source())
        })
        .collect()
    }

    /// The contact of a name begins: the addresses that it had last, which are contacted without a
    /// wait, and whether to look it up. Without addresses the contact waits for
    /// [`resolved`](Self::resolved).
    pub(super) fn look_up(&mut self, id: u64) -> (Vec<SocketAddr>, bool) {
        let Some(named) = self.peers.get_mut(&id) else { return (Vec::new(), false) };
        let is_new = !std::mem::replace(&mut named.name.runs, true);
        (named.name.addrs.clone(), is_new)
    }

    /// A name was looked up; no addresses are none that could be found. True if its contact waits for
    /// them. Other addresses than before are contacted soon.
    pub(super) fn resolved(&mut self, id: u64, addrs: &[SocketAddr], now: Instant) -> bool {
        let Some(named) = self.peers.get_mut(&id) else { return false };
        named.name.runs = false;
        let waits = named.name.addrs.is_empty();
        if !addrs.is_empty() && named.name.addrs != addrs {
            named.name.addrs = addrs.to_vec();
            named.next = named.next.map(|_| now);
        }
        waits
    }

    /// The contact of a peer has begun at this number of addresses, at least one.
    pub(super) fn begun(&mut self, id: u64, addrs: usize) {
        if let Some(named) = self.peers.get_mut(&id) {
            named.left = addrs.max(1);
        }
    }

    /// The contact of a peer at one address has ended. Returns what came of the peer with the last
    /// one. In a `small` group it is soon contacted again: two peers that have only this one in
    /// common learn of each other by its next answer.
    pub(super) fn ended(
        &mut self,
        id: u64,
        result: Result<PeerId, String>,
        small: bool,
        now: Instant,
    ) -> Option<ContactOutcome> {
        let named = self.peers.get_mut(&id)?;
        match result {
            Ok(peer) => named.reached = Some(peer),
            Err(cause) => named.cause = cause,
        }
        named.left = named.left.saturating_sub(1);
        if named.left > 0 {
            return None;
        }
        let result = named.reached.ok_or_else(|| std::mem::take(&mut named.cause));
        let failed_before = std::mem::replace(&mut named.failed, result.is_err());
        // A full link may lose one packet, so only the second failure counts.
        let came = named.awaited && (result.is_ok() || failed_before);
        named.awaited &= !came;
        named.rest(result.is_ok(), small, now);
        if result.is_ok() && named.reached == self.own {
            // The name may be another host's later.
            named.next = Some(now + SELF_CONTACT_EVERY);
        }
        Some(ContactOutcome { peer: named.peer.clone(), result, failed_before, came })
    }

    /// The peer is contacted again by that time.
    pub(super) fn hasten(&mut self, id: u64, by: Instant) {
        if let Some(named) = self.peers.get_mut(&id) {
            named.next = named.next.map(|at| at.min(by));
        }
    }

    /// The same of the peers that this key answered at, at their last contact.
    pub(super) fn hasten_key(&mut self, key: PeerId, by: Instant) {
        for named in self.peers.values_mut().filter(|named| named.reached == Some(key)) {
            named.next = named.next.map(|at| at.min(by));
        }
    }

    /// When the next peer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.peers.values().filter_map(|named| named.next).min()
    }
}

impl NamedPeer {
    fn new(peer: PeerAddr, now: Instant) -> Self {
        NamedPeer {
            peer,
            is_typed: false,
            in_file: false,
            next: Some(now),
            retry: CONTACT_RETRY_FIRST,
            successes: 0,
            left: 0,
            reached: None,
            cause: String::new(),
            failed: false,
            awaited: true,
            name: NameLookUp::default(),
        }
    }

    fn source(&self) -> ContactSource {
        if self.is_typed { ContactSource::Named } else { ContactSource::File }
    }

    /// Sets when it is contacted again: an interval after success, a back-off after failure.
    fn rest(&mut self, succeeded: bool, small: bool, now: Instant) {
        let wait = if succeeded {
            let soon = CONTACT_AGAIN_S.get(self.successes).filter(|_| small);
            self.successes += 1;
            self.retry = CONTACT_RETRY_FIRST;
            soon.map_or(ANNOUNCE_INTERVAL, |&s| Duration::from_secs(s))
        } else {
            let wait = self.retry;
            self.retry = (2 * wait).min(ANNOUNCE_INTERVAL);
            wait
        };
        self.next = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PeerId = PeerId([7; 32]);

    fn list(names: &[&str], now: Instant) -> ContactList {
        let mut list = ContactList::default();
        for name in names {
            assert!(list.add(name.parse().unwrap(), now), "{name}");
        }
        list
    }

    fn failed(text: &str) -> Result<PeerId, String> {
        Err(text.into())
    }

    #[test]
    fn a_name_answers_if_one_of_its_addresses_does() {
        let now = Instant::now();
        for order in [[Ok(ID), failed("a"), failed("b")], [failed("a"), failed("b"), Ok(ID)]] {
            let mut list = list(&["pods.example"], now);
            let due = list.take_due(now);
            assert_eq!(due.len(), 1);
            assert!(list.take_due(now).is_empty(), "it is being contacted");
            list.begun(due[0].0, 3);
            let [first, second, third] = order;
            assert_eq!(list.ended(due[0].0, first, true, now), None);
            assert_eq!(list.ended(due[0].0, second, true, now), None);
            let outcome = list.ended(due[0].0, third, true, now).unwrap();
            assert_eq!((outcome.result, outcome.came, outcome.failed_before), (Ok(ID), true, false));
        }
    }

    #[test]
    fn what_answers_is_soon_asked_again_and_then_at_each_interval() {
        let mut now = Instant::now();
        let mut small = list(&["a"], now);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let (id, ..) = small.take_due(now).pop().unwrap();
            assert!(small.ended(id, Ok(ID), true, now).is_some());
            let next = small.next_due().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 10, 10]);
        let mut large = list(&["a"], now);
        let (id, ..) = large.take_due(now).pop().unwrap();
        large.ended(id, Ok(ID), false, now);
        assert_eq!(large.next_due(), Some(now + ANNOUNCE_INTERVAL), "a large group is not asked more often");
    }

    /// While a name server was gone, hosts whose addresses had just been known were not contacted.
    #[test]
    fn a_name_keeps_its_last_addresses_while_it_is_looked_up() {
        let mut now = Instant::now();
        let mut list = list(&["pods.example"], now);
        let addrs: Vec<SocketAddr> = vec!["10.0.0.1:9".parse().unwrap(), "10.0.0.2:9".parse().unwrap()];
        let (id, ..) = list.take_due(now).pop().unwrap();
        assert_eq!(list.look_up(id), (vec![], true));
        assert!(list.resolved(id, &addrs, now), "the contact waits for it");
        list.ended(id, Ok(ID), true, now);
        for first in [true, false] {
            now = list.next_due().unwrap();
            list.take_due(now);
            assert_eq!(list.look_up(id), (addrs.clone(), first), "asked for once");
            list.ended(id, Ok(ID), true, now);
        }
        assert!(!list.resolved(id, &[], now), "the name server does not answer");
        now = list.next_due().unwrap();
        list.take_due(now);
        assert_eq!(list.look_up(id), (addrs.clone(), true));
        list.ended(id, Ok(ID), true, now);
        assert!(!list.resolved(id, &addrs[..1], now));
        assert_eq!(list.next_due(), Some(now), "other addresses are contacted at once");
    }

    /// Cause: the node itself counted as a peer. Effect: where one file names all hosts, each dialed itself after 1, 2 and 4 s, then
    /// each 10 s, and logged it. Mend: it rests for longer.
    #[test]
    fn the_node_itself_is_seldom_contacted() {
        let now = Instant::now();
        let mut list = list(&["a"], now);
        list.own = Some(ID);
        let (id, ..) = list.take_due(now).pop().unwrap();
        assert!(list.ended(id, Ok(ID), true, now).unwrap().came, "nobody waits for it");
        assert_eq!(list.next_due(), Some(now + SELF_CONTACT_EVERY));
    }

    /// Cause: only the end of a contact looked at it. Effect: who asked in the ten seconds after the first offer was not heard of
    /// in time. Mend: the offer itself brings the next contact forward.
    #[test]
    fn the_key_that_answered_is_contacted_sooner_when_it_takes_an_offer() {
        let now = Instant::now();
        let mut list = list(&["a", "b"], now);
        let due = list.take_due(now);
        list.ended(due[0].0, Ok(ID), false, now);
        list.ended(due[1].0, Ok(PeerId([8; 32])), false, now);
        let soon = now + ANNOUNCE_INTERVAL / 5;
        list.hasten_key(ID, soon);
        assert_eq!(list.next_due(), Some(soon));
        assert_eq!(list.take_due(soon).len(), 1);
        list.hasten_key(ID, now);
        assert!(list.take_due(soon).is_empty(), "it is being contacted");
    }

    #[test]
    fn what_fails_backs_off_and_is_awaited_twice() {
        let mut now = Instant::now();
        let mut list = list(&["a"], now);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let (id, ..) = list.take_due(now).pop().unwrap();
            let outcome = list.ended(id, failed("no route"), true, now).unwrap();
            assert_eq!(outcome.result, failed("no route"));
            let next = list.next_due().unwrap();
            seen.push(((next - now).as_secs(), outcome.came));
            now = next;
        }
        assert_eq!(seen, [(1, false), (2, true), (4, false), (8, false), (10, false), (10, false)]);
    }

    #[test]
    fn one_that_is_named_again_is_contacted_now_and_the_list_is_bounded() {
        let now = Instant::now();
        let mut list = list(&["a"], now);
        let (id, ..) = list.take_due(now).pop().unwrap();
        assert!(!list.add("a".parse().unwrap(), now) && list.take_due(now).is_empty(), "it is being contacted");
        list.ended(id, Ok(ID), true, now);
        assert!(list.take_due(now).is_empty());
        assert!(!list.add("a".parse().unwrap(), now));
        assert_eq!(list.take_due(now).len(), 1);
        for n in 0..2 * STATIC_PEERS_MAX {
            list.add(format!("h{n}").parse().unwrap(), now);
        }
        assert_eq!(list.peers.len(), STATIC_PEERS_MAX);
        assert_eq!(list.ended(99_999, Ok(ID), true, now), None, "no such peer");
    }

    #[test]
    fn the_peer_file_adds_and_removes_its_own_peers_only() {
        let now = Instant::now();
        let peers = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<PeerAddr>>();
        let mut list = list(&["a"], now);
        let change = list.set_file(peers(&["a", "b", "c"]), now);
        assert_eq!(
            (change, list.len(), list.in_file()),
            (PeerFileChange { added: 2, ..PeerFileChange::default() }, 3, 3)
        );
        let due = list.take_due(now);
        let levels: Vec<_> = due.iter().map(|(id, ..)| list.failure_level(*id, false)).collect();
        assert_eq!(levels, [log::Level::Warn, log::Level::Info, log::Level::Info]);
        let sources: Vec<_> = due.iter().map(|(_, _, source)| *source).collect();
        assert_eq!(sources, [ContactSource::Named, ContactSource::File, ContactSource::File]);
        assert!(list.ended(due[1].0, Ok(ID), true, now).is_some());
        assert_eq!(list.set_file(peers(&["a", "b", "c"]), now), PeerFileChange::default(), "nothing is contacted anew");
        assert!(list.take_due(now).is_empty());
        let change = list.set_file(peers(&["d"]), now);
        assert_eq!(change, PeerFileChange { added: 1, removed: 2, came: 1 }, "one of the removed had answered");
        assert_eq!(list.ended(due[2].0, Ok(ID), true, now), None, "it is gone");
        assert_eq!((list.len(), list.in_file()), (2, 1), "what the user named stays");
        list.set_file((0..2 * STATIC_PEERS_MAX).map(|n| format!("h{n}").parse().unwrap()).collect(), now);
        assert_eq!((list.len(), list.in_file()), (STATIC_PEERS_MAX + 1, STATIC_PEERS_MAX));
    }
}
