//! In which order the peers of a survey are asked.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use rand::RngExt as _;

use crate::client::limits::{ASK_THREADS_MAX, ASKED_PER_ADDR_MAX, ASKED_PER_SILENT_ADDR_MAX};
use crate::limits::PEERS_MAX;
use crate::swarm::PeerRecord;

/// The peers that wait to be asked, by their addresses.
///
/// Many keys on one host take turns, known ones too, so that they hold up no peer elsewhere. Once more than half as
/// many peers as there are threads wait or are asked, made-up ones may be among them at any number of
/// addresses, which take connections and say nothing. Then half of the threads are for short tries, one
/// at each address where no peer has been asked, in no order that a peer decides. The other half is
/// for peers that are asked in full: first those known to be there, and all that were silent.
/// So a peer that does answer is reached however many do not. What one half does not use the other
/// takes.
#[derive(Default)]
pub(super) struct AskOrder {
    at: HashMap<Option<IpAddr>, AddrQueue>,
    /// Addresses where a peer waits, each in one of both: addresses without a try, and the others.
    new: Vec<Option<IpAddr>>,
    tried: Vec<Option<IpAddr>>,
    /// Addresses where somebody waits who is known to be there, in turn.
    proved: VecDeque<Option<IpAddr>>,
    /// Peers that are asked in a short try, and in full.
    hurried: usize,
    full: usize,
    waiting: usize,
}

/// The peers at one address.
#[derive(Default)]
struct AddrQueue {
    asked: usize,
    waiting: VecDeque<PeerRecord>,
    /// Those that are known to be there.
    proved: VecDeque<PeerRecord>,
    /// Whether a peer ever answered there; `None` before the first answer or silence.
    answers: Option<bool>,
    /// Whether it stands in one of the lists of addresses without known peers.
    is_listed: bool,
    /// Whether it stands in the list of those with known peers.
    is_proved_listed: bool,
}

/// A peer that is to be asked now.
pub(super) struct DuePeer {
    pub(super) record: PeerRecord,
    /// It gets a short try.
    pub(super) hurried: bool,
}

impl AskOrder {
    /// Whether one more may wait: as many as the table of peers holds.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < PEERS_MAX
    }

    /// A peer waits to be asked; `proved` if it is known to be where it says.
    pub(super) fn push(&mut self, record: PeerRecord, proved: bool) {
        self.waiting += 1;
        let addr = addr_of(&record);
        let queue = self.at.entry(addr).or_default();
        if proved { &mut queue.proved } else { &mut queue.waiting }.push_back(record);
        self.list(addr);
    }

    /// The peer of `record` was asked, and said something or not.
    pub(super) fn ended(&mut self, record: &PeerRecord, answered: bool, hurried: bool) {
        let (addr, many) = (addr_of(record), self.at.len() > PEERS_MAX);
        let class = if hurried { &mut self.hurried } else { &mut self.full };
        *class = class.saturating_sub(1);
        let Some(queue) = self.at.get_mut(&addr) else { return };
        queue.asked = queue.asked.saturating_sub(1);
        queue.answers = Some(answered || queue.answers == Some(true));
        if many && queue.is_done() {
            self.at.remove(&addr);
        } else {
            self.list(addr);
        }
    }

    /// The peers whose turn it is.
    pub(super) fn due(&mut self) -> Vec<DuePeer> {
        let mut due = Vec::new();
        let is_crowd = self.hurried + self.full + self.waiting > CROWD;
        while let Some(record) = self.next_full(is_crowd) {
            self.full += 1;
            due.push(DuePeer { record, hurried: false });
        }
        while is_crowd && self.has_thread(self.hurried, self.full, self.waits_in_full()) {
            let Some(record) = self.draw(true) else { break };
            self.hurried += 1;
            due.push(DuePeer { record, hurried: true });
        }
        self.waiting -= due.len();
        due
    }

    /// The next peer to ask in full, taken out.
    fn next_full(&mut self, is_crowd: bool) -> Option<PeerRecord> {
        let others_wait = is_crowd && !self.new.is_empty();
        if is_crowd && !self.has_thread(self.full, self.hurried, others_wait) {
            return None;
        }
        self.next_proved().or_else(|| self.draw(false)).or_else(|| if is_crowd { None } else { self.draw(true) })
    }

    /// Takes out a known peer at the address that waits longest.
    fn next_proved(&mut self) -> Option<PeerRecord> {
        loop {
            let addr = self.proved.pop_front()?;
            let queue = self.at.get_mut(&addr)?;
            queue.is_proved_listed = false;
            let record = if queue.has_room() { queue.proved.pop_front() } else { None };
            queue.asked += usize::from(record.is_some());
            self.list(addr);
            if record.is_some() {
                return record;
            }
        }
    }

    /// Whether a class that has `own` threads may have one more beside the `others`, of which some wait
    /// if `others_wait`.
    fn has_thread(&self, own: usize, others: usize, others_wait: bool) -> bool {
        own + others < ASK_THREADS_MAX && (own < CROWD || !others_wait)
    }

    fn waits_in_full(&self) -> bool {
        !self.proved.is_empty() || !self.tried.is_empty()
    }

    /// Takes out a peer at a random address: one without a try if `new`, else one of the others.
    fn draw(&mut self, new: bool) -> Option<PeerRecord> {
        loop {
            let list = if new { &mut self.new } else { &mut self.tried };
            if list.is_empty() {
                return None;
            }
            let addr = list.swap_remove(rand::rng().random_range(0..list.len()));
            let queue = self.at.get_mut(&addr)?;
            queue.is_listed = false;
            let is_due = queue.is_new() == new && queue.has_room();
            let record = if is_due { queue.waiting.pop_front() } else { None };
            queue.asked += usize::from(record.is_some());
            self.list(addr);
            if record.is_some() {
                return record;
            }
        }
    }

    /// Lists an address where a peer may be asked.
    fn list(&mut self, addr: Option<IpAddr>) {
        let Some(queue) = self.at.get_mut(&addr).filter(|queue| queue.has_room()) else { return };
        if !queue.proved.is_empty() && !std::mem::replace(&mut queue.is_proved_listed, true) {
            self.proved.push_back(addr);
        }
        if !queue.waiting.is_empty() && !std::mem::replace(&mut queue.is_listed, true) {
            if queue.is_new() { self.new.push(addr) } else { self.tried.push(addr) }
        }
    }
}

impl AddrQueue {
    fn is_new(&self) -> bool {
        self.answers.is_none() && self.asked == 0
    }

    /// Whether one more may be asked.
    fn has_room(&self) -> bool {
        self.asked < if self.answers == Some(false) { ASKED_PER_SILENT_ADDR_MAX } else { ASKED_PER_ADDR_MAX }
    }

    /// Whether nobody is asked or waits, and no list has it.
    fn is_done(&self) -> bool {
        self.asked == 0 && self.waiting.len() + self.proved.len() == 0 && !self.is_listed && !self.is_proved_listed
    }
}

/// Where a peer is asked: the address that is dialed first.
fn addr_of(record: &PeerRecord) -> Option<IpAddr> {
    record.addrs.first().map(|addr| addr.ip().to_canonical())
}

/// Peers from which on they are a crowd, and the threads of each half then.
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

    /// Ends each of `due` without an answer, after which it waits again.
    fn silent(order: &mut AskOrder, due: Vec<DuePeer>) -> Vec<PeerRecord> {
        let again = |DuePeer { record, hurried }: DuePeer| {
            order.ended(&record, false, hurried);
            order.push(record.clone(), false);
            record
        };
        due.into_iter().map(again).collect()
    }

    #[test]
    fn a_crowd_that_says_nothing_hides_nobody_for_long() {
        let mut order = AskOrder::default();
        (0..1000).for_each(|n| order.push(peer(n), false));
        let (mut rounds, mut asked) = (0, 0);
        while asked < 1000 {
            let due = order.due();
            assert!(!due.is_empty() && due.len() <= ASK_THREADS_MAX);
            asked += due.iter().filter(|due| due.hurried).count();
            silent(&mut order, due);
            rounds += 1;
        }
        assert!(rounds <= 1000 / CROWD + 1, "{rounds} rounds");
        order.push(peer(2000), false);
        let is_new = |due: &DuePeer| due.hurried && due.record.addrs == peer(2000).addrs;
        assert!(order.due().iter().any(is_new), "a new one is next");
    }

    #[test]
    fn whoever_was_silent_once_or_is_known_has_its_turn_while_new_ones_come() {
        let (mut order, mut next) = (AskOrder::default(), 1000);
        (0..500).for_each(|n| order.push(peer(n), false));
        let first = order.due();
        let slow = first.iter().find(|due| due.hurried).unwrap().record.clone();
        silent(&mut order, first);
        let mut rounds = 0;
        loop {
            // As many new ones as there are threads.
            (0..ASK_THREADS_MAX).for_each(|_| {
                order.push(peer(next), false);
                next += 1;
            });
            order.push(peer(9), true);
            let due = order.due();
            assert!(due.len() <= ASK_THREADS_MAX);
            assert!(due.iter().any(|due| !due.hurried && due.record.addrs == peer(9).addrs), "the known one is first");
            let again = due.iter().any(|due| !due.hurried && due.record.addrs == slow.addrs);
            for DuePeer { record, hurried } in due {
                order.ended(&record, false, hurried);
            }
            if again {
                break;
            }
            rounds += 1;
            assert!(rounds < 10, "it is never asked again");
        }
    }

    /// Keys that were known to be there went before all others, however many of them one host had.
    #[test]
    fn many_known_keys_on_one_host_take_turns() {
        let mut order = AskOrder::default();
        (0..500).for_each(|_| order.push(peer(7), true));
        order.push(peer(8), true);
        let due = order.due();
        assert!(due.iter().any(|due| due.record.addrs == peer(8).addrs), "it waits behind the others");
        assert_eq!(due.len(), 1 + ASKED_PER_ADDR_MAX);
        let mut asked = due.len();
        silent(&mut order, due);
        while asked < 501 {
            let due = order.due();
            assert!(!due.is_empty() && due.len() <= 1 + ASKED_PER_SILENT_ADDR_MAX);
            asked += due.len();
            due.into_iter().for_each(|DuePeer { record, hurried }| order.ended(&record, false, hurried));
        }
    }

    #[test]
    fn a_few_are_asked_at_once_and_one_address_takes_turns() {
        let mut order = AskOrder::default();
        (0..5).for_each(|n| order.push(peer(n), false));
        (0..25).for_each(|_| order.push(peer(7), false));
        let due = order.due();
        assert_eq!(due.len(), 5 + ASKED_PER_ADDR_MAX);
        assert!(due.iter().all(|due| !due.hurried) && order.due().is_empty());
        order.ended(&due.iter().find(|due| due.record.addrs == peer(7).addrs).unwrap().record, true, false);
        assert_eq!(order.due().len(), 1);
    }
}
