//! In which order the peers of a survey are asked.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use rand::seq::SliceRandom as _;

use crate::client::limits::{ASK_THREADS_MAX, ASKED_PER_ADDR_MAX};
use crate::swarm::PeerRecord;

/// The peers that wait to be asked, by their addresses.
///
/// Many keys on one host take turns, so that they hold up no peer elsewhere. Once more peers wait
/// than there are threads for, made-up ones may be among them at any number of addresses, which take
/// connections and say nothing. Then each address where nobody has been asked gets one short try, in
/// no order that a peer decides, and all others, also those that were silent, share half of the
/// threads: a peer that does answer is reached however many do not.
#[derive(Default)]
pub(super) struct AskOrder {
    at: HashMap<Option<IpAddr>, AddrQueue>,
    asked: usize,
    waiting: usize,
}

/// The peers at one address.
#[derive(Default)]
struct AddrQueue {
    asked: usize,
    waiting: VecDeque<PeerRecord>,
    /// Somebody answered there last, or nobody did; `None` before the first try.
    answers: Option<bool>,
}

/// A peer that is to be asked now.
pub(super) struct DuePeer {
    pub(super) record: PeerRecord,
    /// It gets a short try.
    pub(super) hurried: bool,
}

impl AskOrder {
    /// A peer waits to be asked.
    pub(super) fn push(&mut self, record: PeerRecord) {
        self.waiting += 1;
        self.at.entry(addr_of(&record)).or_default().waiting.push_back(record);
    }

    /// The peer of `record` was asked, and said something or not.
    pub(super) fn ended(&mut self, record: &PeerRecord, answered: bool) {
        if let Some(queue) = self.at.get_mut(&addr_of(record)) {
            queue.asked -= 1;
            self.asked -= 1;
            queue.answers = Some(answered || queue.answers == Some(true));
        }
    }

    /// The peers whose turn it is.
    pub(super) fn due(&mut self) -> Vec<DuePeer> {
        let mut due = Vec::new();
        if self.asked + self.waiting <= CROWD {
            for queue in self.at.values_mut() {
                let free = ASKED_PER_ADDR_MAX.saturating_sub(queue.asked).min(queue.waiting.len());
                queue.asked += free;
                due.extend(queue.waiting.drain(..free).map(|record| DuePeer { record, hurried: false }));
            }
        } else if self.asked < ASK_THREADS_MAX {
            let mut open: Vec<&mut AddrQueue> = self.at.values_mut().filter(|queue| queue.has_turn()).collect();
            open.shuffle(&mut rand::rng());
            open.sort_by_key(|queue| !queue.is_new());
            for queue in open {
                let hurried = queue.is_new();
                let threads = if hurried { ASK_THREADS_MAX } else { CROWD };
                if self.asked + due.len() >= threads {
                    continue;
                }
                queue.asked += 1;
                due.extend(queue.waiting.pop_front().map(|record| DuePeer { record, hurried }));
            }
        }
        self.asked += due.len();
        self.waiting -= due.len();
        due
    }
}

impl AddrQueue {
    fn is_new(&self) -> bool {
        self.answers.is_none() && self.asked == 0
    }

    fn has_turn(&self) -> bool {
        let most = if self.answers == Some(true) { ASKED_PER_ADDR_MAX } else { 1 };
        !self.waiting.is_empty() && self.asked < most
    }
}

/// Where a peer is asked: the address that is dialed first.
fn addr_of(record: &PeerRecord) -> Option<IpAddr> {
    record.addrs.first().map(|addr| addr.ip().to_canonical())
}

/// Peers from which on they are a crowd.
const CROWD: usize = ASK_THREADS_MAX / 2;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Instant;

    use super::*;
    use crate::identity::{Keypair, PeerId};
    use crate::peers::fake::said;
    use crate::proto::SignedAnnounce;

    fn peer(n: u16) -> PeerRecord {
        static ANNOUNCE: LazyLock<SignedAnnounce> = LazyLock::new(|| said(&Keypair::generate(), 1, 1));
        let ([a, b], announce) = (n.to_be_bytes(), ANNOUNCE.clone());
        let (peer, addrs, last_seen) = (PeerId([a ^ b; 32]), vec![([10, 0, a, b], 1).into()], Instant::now());
        PeerRecord { peer, instance: 1, revision: 1, addrs, last_seen, offers: 0, announce }
    }

    #[test]
    fn a_crowd_that_says_nothing_hides_nobody_for_long() {
        let mut order = AskOrder::default();
        (0..1000).for_each(|n| order.push(peer(n)));
        let (mut rounds, mut asked) = (0, 0);
        // Nobody answers, each asks to be asked again, and others come all the time.
        while asked < 1000 {
            let due = order.due();
            let is_first = |due: &&DuePeer| due.hurried;
            asked += due.iter().filter(is_first).count();
            assert!(!due.is_empty() && due.len() <= ASK_THREADS_MAX);
            for DuePeer { record, .. } in due {
                order.ended(&record, false);
                order.push(record);
            }
            rounds += 1;
        }
        assert!(rounds <= 1000 / ASK_THREADS_MAX + 1, "{rounds} rounds");
        let due = order.due();
        assert!(due.len() == CROWD && due.iter().all(|due| !due.hurried), "then half of the threads, and in full");
        order.push(peer(2000));
        assert!(order.due().iter().any(|due| due.hurried && due.record.addrs == peer(2000).addrs), "a new one is next");
    }

    #[test]
    fn a_few_are_asked_at_once_and_one_address_takes_turns() {
        let mut order = AskOrder::default();
        (0..5).for_each(|n| order.push(peer(n)));
        (0..25).for_each(|_| order.push(peer(7)));
        let due = order.due();
        assert_eq!(due.len(), 5 + ASKED_PER_ADDR_MAX);
        assert!(due.iter().all(|due| !due.hurried) && order.due().is_empty());
        order.ended(&due.iter().find(|due| due.record.addrs == peer(7).addrs).unwrap().record, true);
        assert_eq!(order.due().len(), 1);
    }
}
