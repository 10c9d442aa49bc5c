//! Which session may send a chunk or a layer now, which waits, and which is to ask again.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::limits::CHUNK_PATIENCE;
use crate::swarm::upload::limits::{ANY_OF_PATIENCE, LAYERS_PER_KEY_MAX};
use crate::swarm::upload::upload_slots::SlotId;
use crate::swarm::upload::{FairQueue, QueuePosition, TurnCost, TurnPrice, UploadSlots};

/// Hands out upload slots to sessions, which are numbers here; `K` is the key on whose account a
/// session is served.
///
/// A session asks with [`request`](Self::request) before it sends a chunk. Without a free slot it
/// waits in a line that is fair over keys ([`FairQueue`]) until [`next`](Self::next) draws it,
/// which keeps a slot for it; or it waits longer than the request is worth, and
/// [`overdue`](Self::overdue) says so. The holder then answers `NotModified`, the requester
/// brings its request up to date, and the session keeps its position in the line. This is the
/// choking of BitTorrent (BEP 3), by the chunk instead of every ten seconds.
///
/// Layers have slots of their own and no line. When a thousand peers begin together, all want the
/// same layer before anything else: a few get it at once and pass it on, and the others ask again,
/// here or there.
#[derive(Debug)]
pub struct UploadGate<K> {
    chunks: UploadSlots<K>,
    layers: UploadSlots<K>,
    line: FairQueue<K>,
    /// Sessions whose first request is for a chunk that has not begun.
    waiting: BTreeMap<usize, Waiter<K>>,
    /// Sessions that were drawn and have not had their turn: key, and the slot that is kept for it.
    drawn: BTreeMap<usize, (K, Option<UploadSlot>)>,
}

/// What a session wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadKind {
    /// The chunk that was asked for.
    Chunk,
    /// One of several chunks, which the holder chooses.
    AnyOf,
    /// The first part of a layer. The further parts need no slot.
    Layer,
}

/// The answer to a session that wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may; [`UploadGate::ended`] must follow.
    Begin(UploadSlot),
    /// Not yet: [`UploadGate::wait`] for it.
    Wait,
    /// Not now: the requester is to ask again.
    Deferred,
}

/// The right to send one chunk or layer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadSlot {
    is_layer: bool,
    id: SlotId,
}

impl UploadSlot {
    /// Whether it is for a layer, not for a chunk.
    pub fn is_layer(&self) -> bool {
        self.is_layer
    }
}

#[derive(Debug)]
struct Waiter<K> {
    key: K,
    since: Instant,
    patience: Duration,
    position: WaitPosition,
}

#[derive(Debug, Clone, Copy)]
enum WaitPosition {
    /// It has not been in the line.
    New,
    /// In the line, with this ticket.
    InLine(u64),
    /// It was deferred, and has this position when it waits again.
    Kept(QueuePosition),
    /// It was drawn.
    Drawn,
}

impl<K> Default for UploadGate<K>
where
    K: Copy + Ord + Hash,
{
    fn default() -> Self {
        UploadGate {
            chunks: UploadSlots::default(),
            layers: UploadSlots::default(),
            line: FairQueue::new(),
            waiting: BTreeMap::new(),
            drawn: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash> UploadGate<K> {
    /// `session` of `key` wants to send.
    pub fn request(&mut self, session: usize, key: K, kind: UploadKind, now: Instant) -> Admission {
        let patience = match kind {
            UploadKind::Layer => return self.request_layer(key, now),
            UploadKind::Chunk => CHUNK_PATIENCE,
            UploadKind::AnyOf => ANY_OF_PATIENCE,
        };
        let kept = self.drawn.get_mut(&session).and_then(|(_, slot)| slot.take());
        let begins = || self.chunks.begin(key, now).map(|id| UploadSlot { is_layer: false, id });
        if let Some(slot) = kept.or_else(begins) {
            self.waiting.remove(&session);
            return Admission::Begin(slot);
        }
        let new = Waiter { key, since: now, patience, position: WaitPosition::New };
        let waiter = self.waiting.entry(session).or_insert(new);
        (waiter.since, waiter.patience) = (now, patience);
        Admission::Wait
    }

    fn request_layer(&mut self, key: K, now: Instant) -> Admission {
        let is_free = self.layers.of(key, now) < LAYERS_PER_KEY_MAX;
        match is_free.then(|| self.layers.begin(key, now)).flatten() {
            Some(id) => Admission::Begin(UploadSlot { is_layer: true, id }),
            None => Admission::Deferred,
        }
    }

    /// `session`, which got [`Admission::Wait`], can be drawn from now on.
    pub fn wait(&mut self, session: usize) {
        let Some(waiter) = self.waiting.get_mut(&session) else { return };
        let ticket = match waiter.position {
            WaitPosition::InLine(_) => return,
            WaitPosition::Kept(position) => {
                self.line.push_to(position, waiter.key, session);
                position.ticket()
            }
            WaitPosition::New | WaitPosition::Drawn => self.line.push(waiter.key, session),
        };
        waiter.position = WaitPosition::InLine(ticket);
        self.chunks.wait(waiter.key);
    }

    /// The session that may begin now, if there is one: its next request for a chunk gets the slot.
    /// [`turn_done`](Self::turn_done) must follow.
    pub fn next(&mut self, price: &TurnPrice, now: Instant) -> Option<usize> {
        let mut passed_over = Vec::new();
        let mut drawn = None;
        while drawn.is_none()
            && self.chunks.free(now) > 0
            && let Some((key, session)) = self.line.pop(price, now)
        {
            match self.chunks.grant(key, now) {
                Some(id) => drawn = Some((session, key, UploadSlot { is_layer: false, id })),
                None => passed_over.push((key, session)),
            }
        }
        for (key, session) in passed_over {
            if let Some(Waiter { position: WaitPosition::InLine(ticket), .. }) = self.waiting.get(&session) {
                self.line.push_again(key, session, *ticket);
            }
            self.line.done(key, session, TurnCost::NOTHING);
        }
        let (session, key, slot) = drawn?;
        if let Some(waiter) = self.waiting.get_mut(&session) {
            waiter.position = WaitPosition::Drawn;
        }
        self.drawn.insert(session, (key, Some(slot)));
        Some(session)
    }

    /// The turn of a session that was drawn is over. Does nothing for others.
    pub fn turn_done(&mut self, session: usize, cost: TurnCost, now: Instant) {
        let Some((key, unused)) = self.drawn.remove(&session) else { return };
        if let Some(slot) = unused {
            self.ended(slot, false, now);
        }
        self.line.done(key, session, cost);
    }

    /// What a slot was for is sent, or its session is over; `whole`: the peer took all of it.
    pub fn ended(&mut self, slot: UploadSlot, whole: bool, now: Instant) {
        if slot.is_layer { &mut self.layers } else { &mut self.chunks }.end(slot.id, whole, now);
    }

    /// The sessions in the line that have waited longer than their request is worth. They leave the
    /// line; all requests for chunks that they have received are to be deferred.
    pub fn overdue(&mut self, now: Instant) -> Vec<usize> {
        let is_overdue = |w: &Waiter<K>| now.saturating_duration_since(w.since) >= w.patience;
        let mut overdue = Vec::new();
        for (&session, waiter) in self.waiting.iter_mut().filter(|(_, w)| is_overdue(w)) {
            if let WaitPosition::InLine(ticket) = waiter.position {
                waiter.position = WaitPosition::Kept(self.line.remove(waiter.key, session, ticket));
                self.chunks.leave(waiter.key);
                overdue.push(session);
            }
        }
        overdue
    }

    /// `session` is over. If it was drawn, [`turn_done`](Self::turn_done) is still to follow.
    pub fn leave(&mut self, session: usize) {
        if let Some(Waiter { key, position: WaitPosition::InLine(ticket), .. }) = self.waiting.remove(&session) {
            self.line.remove(key, session, ticket);
            self.chunks.leave(key);
        }
    }

    /// When [`next`](Self::next) may have a session although no upload ends: uploads that take too
    /// long stop counting. `None` while no session waits.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        self.line.is_waiting().then(|| self.chunks.next_free(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UPLOADS_MAX;

    const MS: Duration = Duration::from_millis(1);

    struct Rig {
        gate: UploadGate<char>,
        price: TurnPrice,
        now: Instant,
    }

    impl Rig {
        /// A gate whose chunk slots are all taken by sessions from 100 on, and their slots.
        fn full() -> (Self, Vec<UploadSlot>) {
            let mut now = Instant::now();
            let mut rig = Rig { gate: UploadGate::default(), price: TurnPrice::new(now), now };
            // Chunks take seconds, so that no slot stops counting meanwhile.
            let Admission::Begin(slow) = rig.gate.request(99, 'z', UploadKind::Chunk, now) else {
                panic!("a free slot")
            };
            now += 10_000 * MS;
            rig.gate.ended(slow, true, now);
            rig.now = now;
            let mut taken = Vec::new();
            while let Admission::Begin(slot) = rig.gate.request(100 + taken.len(), 'z', UploadKind::Chunk, now) {
                taken.push(slot);
            }
            assert!((1..=UPLOADS_MAX).contains(&taken.len()));
            rig.gate.leave(100 + taken.len());
            (rig, taken)
        }

        fn waits(&mut self, session: usize, key: char, kind: UploadKind) {
            assert_eq!(self.gate.request(session, key, kind, self.now), Admission::Wait);
            self.gate.wait(session);
        }

        fn next(&mut self) -> Option<usize> {
            self.gate.next(&self.price, self.now)
        }

        /// The session that was drawn begins and has its turn.
        fn begins(&mut self, session: usize, key: char) -> UploadSlot {
            let Admission::Begin(slot) = self.gate.request(session, key, UploadKind::Chunk, self.now) else {
                panic!("{session} was drawn and does not begin")
            };
            self.gate.turn_done(session, TurnCost::of_bytes(1), self.now);
            slot
        }
    }

    #[test]
    fn sessions_wait_in_a_line_that_is_fair_over_keys() {
        let (mut rig, mut taken) = Rig::full();
        for session in 0..4 {
            rig.waits(session, 'a', UploadKind::Chunk);
        }
        rig.waits(9, 'b', UploadKind::Chunk);
        assert_eq!((rig.next(), rig.gate.next_look(rig.now).is_some()), (None, true));
        let mut order = Vec::new();
        while let Some(slot) = taken.pop()
            && order.len() < 5
        {
            rig.gate.ended(slot, true, rig.now);
            let session = rig.next().expect("a slot is free");
            rig.begins(session, if session == 9 { 'b' } else { 'a' });
            order.push(session);
        }
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!((rig.gate.next_look(rig.now), rig.gate.waiting.len(), rig.gate.drawn.len()), (None, 0, 0));
    }

    #[test]
    fn a_session_that_waits_too_long_is_deferred_and_keeps_its_place() {
        let (mut rig, mut taken) = Rig::full();
        for (session, key) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            let kind = if session == 1 { UploadKind::AnyOf } else { UploadKind::Chunk };
            rig.waits(session, key, kind);
        }
        rig.now += ANY_OF_PATIENCE;
        assert_eq!((rig.gate.overdue(rig.now), rig.gate.overdue(rig.now)), (vec![1], vec![]));
        rig.waits(1, 'a', UploadKind::AnyOf);
        rig.now += CHUNK_PATIENCE - ANY_OF_PATIENCE;
        assert_eq!(rig.gate.overdue(rig.now), [2, 3]);
        rig.gate.ended(taken.pop().unwrap(), true, rig.now);
        assert_eq!(rig.next(), Some(1), "the place that it had");
        rig.begins(1, 'a');
        rig.waits(3, 'c', UploadKind::Chunk);
        rig.waits(2, 'b', UploadKind::Chunk);
        rig.gate.ended(taken.pop().unwrap(), true, rig.now);
        assert_eq!(rig.next(), Some(2));
    }

    #[test]
    fn what_a_session_leaves_unused_is_free_again() {
        let (mut rig, mut taken) = Rig::full();
        rig.waits(1, 'a', UploadKind::Chunk);
        rig.waits(2, 'b', UploadKind::Chunk);
        rig.gate.leave(1);
        rig.gate.ended(taken.pop().unwrap(), true, rig.now);
        assert_eq!(rig.next(), Some(2));
        assert_eq!(rig.next(), None);
        rig.gate.leave(2);
        rig.gate.turn_done(2, TurnCost::NOTHING, rig.now);
        assert!(matches!(rig.gate.request(3, 'c', UploadKind::Chunk, rig.now), Admission::Begin(_)));
        assert!(rig.gate.waiting.is_empty() && rig.gate.drawn.is_empty());
    }

    #[test]
    fn few_layers_are_under_way_and_few_of_one_key() {
        let mut rig = Rig::full().0;
        let of_one = |rig: &mut Rig, key| {
            std::iter::from_fn(|| match rig.gate.request(1, key, UploadKind::Layer, rig.now) {
                Admission::Begin(slot) => Some(slot),
                other => {
                    assert_eq!(other, Admission::Deferred);
                    None
                }
            })
            .collect::<Vec<_>>()
        };
        let first = of_one(&mut rig, 'a');
        assert_eq!(first.len(), LAYERS_PER_KEY_MAX);
        let others: usize = ('b'..='y').map(|key| of_one(&mut rig, key).len()).sum();
        assert!((1..=UPLOADS_MAX).contains(&others), "{others}");
        rig.now += MS;
        rig.gate.ended(first[0], true, rig.now);
        assert_eq!(of_one(&mut rig, 'a').len(), 1);
    }
}
