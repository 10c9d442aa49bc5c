//! Which session a free worker takes next.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::limits::TURN_LEN_MAX;
use crate::swarm::upload::limits::SERVED_LEAD_MAX;
use crate::swarm::upload::{TurnCost, TurnPrice};

/// Sessions that want a worker, drawn fairly over keys and, within a key, in turn.
///
/// This is start-time fair queueing (Goyal, Vin, Cheng 1996) over keys, with [`TurnPrice`] as the
/// length of a turn. The key that was served least comes first. A key is live while a session of it
/// waits here or has a worker; a key that comes back starts level with the least served, without
/// credit or debt.
///
/// Order is not enough when workers are many: one connection keeps one worker, and ten connections
/// of another key take the rest. So a key that is more than [`SERVED_LEAD_MAX`] ahead of a key that
/// is being sent to is not drawn even if a worker is free. A key whose turns cost time instead of
/// bytes, because it trickles or lets the server compute, holds no other back: an idle worker would
/// not help it. A turn under way counts by the time that it has taken.
#[derive(Debug)]
pub struct FairQueue<K> {
    keys: HashMap<K, Live>,
    /// Keys with waiting sessions: (served, last drawn, key).
    ready: BTreeSet<(u64, u64, K)>,
    /// All live keys: (served, key).
    live: BTreeSet<(u64, K)>,
    /// Where a key starts when no other is live.
    floor: u64,
    draws: u64,
    tickets: u64,
}

/// Where a session waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePosition {
    ticket: u64,
    drawn: u64,
}

impl QueuePosition {
    /// What the session waits with there.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }
}

#[derive(Debug, Default)]
struct Live {
    /// Sessions by the tickets that they wait with.
    waiting: BTreeSet<(u64, usize)>,
    /// Sessions that a worker has, and since when.
    active: Vec<(usize, Instant)>,
    /// Whether its last turn cost what it sent.
    sends: bool,
    served: u64,
    drawn: u64,
}

impl<K: Copy + Ord + std::hash::Hash> Default for FairQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Ord + std::hash::Hash> FairQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        FairQueue {
            keys: HashMap::new(),
            ready: BTreeSet::new(),
            live: BTreeSet::new(),
            floor: 0,
            draws: 0,
            tickets: 0,
        }
    }

    /// `session` of `key` wants a worker, behind the others of its key. A session is in the queue
    /// at most once. Returns its ticket.
    pub fn push(&mut self, key: K, session: usize) -> u64 {
        self.tickets += 1;
        self.push_again(key, session, self.tickets);
        self.tickets
    }

    /// `session` of `key` was drawn and got nothing: it keeps its position. Otherwise sessions that
    /// are drawn together and served in that order would come in the same order for ever.
    pub fn push_again(&mut self, key: K, session: usize, ticket: u64) {
        let state = self.live_mut(key);
        state.waiting.insert((ticket, session));
        let place = (state.served, state.drawn, key);
        self.ready.insert(place);
    }

    /// `session` of `key`, which waits with `ticket`, leaves for now. It can
    /// [return](Self::push_to) to its position.
    pub fn remove(&mut self, key: K, session: usize, ticket: u64) -> QueuePosition {
        let mut place = QueuePosition { ticket, drawn: self.draws };
        if let Some(state) = self.keys.get_mut(&key)
            && state.waiting.remove(&(ticket, session))
        {
            place.drawn = state.drawn;
            self.ready.remove(&(state.served, state.drawn, key));
            self.charge(key, |served| served);
        }
        place
    }

    /// `session` of `key` returns to `place`: it stands among the sessions of its key, and the key
    /// among equals, as if it had never left.
    pub fn push_to(&mut self, place: QueuePosition, key: K, session: usize) {
        if !self.keys.contains_key(&key) {
            self.live_mut(key).drawn = place.drawn;
        }
        self.push_again(key, session, place.ticket);
    }

    fn live_mut(&mut self, key: K) -> &mut Live {
        // Turns under way are charged beforehand; a key that begins at such a level would owe what
        // was not served yet.
        let least = self.live.first().and_then(|l| self.keys.get(&l.1));
        let level = least.map_or(self.floor, |k| k.served.saturating_sub(k.active.len() as u64 * PROVISION));
        self.keys.entry(key).or_insert_with(|| {
            self.live.insert((level, key));
            // Among equals the key that waits longest comes first, or one that comes and goes would
            // always be first.
            self.draws += 1;
            Live { served: level, drawn: self.draws, ..Live::default() }
        })
    }

    /// The session that a worker should take now; [`done`](Self::done) must follow. `None` also
    /// when all that wait are too far ahead, which ends as turns end or take time.
    pub fn pop(&mut self, price: &TurnPrice, now: Instant) -> Option<(K, usize)> {
        if !self.has_next(price, now) {
            return None;
        }
        let &(served, _, key) = self.ready.first()?;
        self.ready.pop_first();
        self.floor = served;
        let state = self.keys.get_mut(&key)?;
        let (_, session) = state.waiting.pop_first()?;
        state.active.push((session, now));
        self.draws += 1;
        state.drawn = self.draws;
        self.charge(key, |served| served + PROVISION);
        Some((key, session))
    }

    /// Whether there is a session that a worker should take now.
    pub fn has_next(&self, price: &TurnPrice, now: Instant) -> bool {
        let Some(&(served, ..)) = self.ready.first() else { return false };
        served <= self.least(price, now).saturating_add(SERVED_LEAD_MAX)
    }

    /// Whether any session waits, even if it has to let others catch up.
    pub fn is_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What the least served key has had, of the keys that hold others back. Turns under way count
    /// as far as they have come.
    fn least(&self, price: &TurnPrice, now: Instant) -> u64 {
        let mut least = u64::MAX;
        for (served, key) in &self.live {
            if *served >= least {
                break;
            }
            let Some(state) = self.keys.get(key).filter(|state| state.sends || !state.waiting.is_empty()) else {
                continue;
            };
            let beyond = |(_, began): &(usize, Instant)| {
                price.of_time(now.saturating_duration_since(*began)).saturating_sub(PROVISION)
            };
            least = least.min(served.saturating_add(state.active.iter().map(beyond).sum()));
        }
        least
    }

    /// A turn of `session` of `key` is over. If the session waits again at once, push it before.
    pub fn done(&mut self, key: K, session: usize, cost: TurnCost) {
        if let Some(state) = self.keys.get_mut(&key) {
            self.ready.remove(&(state.served, state.drawn, key));
            if let Some(at) = state.active.iter().position(|(active, _)| *active == session) {
                state.active.swap_remove(at);
            }
            if cost != TurnCost::NOTHING {
                state.sends = cost.sends;
            }
        }
        self.charge(key, |served| (served + cost.bytes).saturating_sub(PROVISION));
    }

    /// Changes what `key` was served, and its places in the orders; takes it out if it is no longer
    /// live.
    fn charge(&mut self, key: K, change: impl FnOnce(u64) -> u64) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        self.live.remove(&(state.served, key));
        state.served = change(state.served);
        if !state.waiting.is_empty() {
            self.ready.insert((state.served, state.drawn, key));
        }
        if state.waiting.is_empty() && state.active.is_empty() {
            self.keys.remove(&key);
        } else {
            self.live.insert((state.served, key));
        }
    }

    /// Number of live keys.
    #[cfg(test)]
    fn live(&self) -> usize {
        self.live.len()
    }
}

/// What a turn is taken to cost until it is over.
const PROVISION: u64 = TURN_LEN_MAX as u64;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;
    use crate::swarm::upload::limits::{TURN_COST, TURN_TIME_MAX};

    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn sent(bytes: u64) -> TurnCost {
        TurnCost { bytes, sends: bytes > 0 }
    }

    /// Draws a session while no time passes.
    fn pop<K: Copy + Ord + std::hash::Hash>(queue: &mut FairQueue<K>) -> Option<(K, usize)> {
        queue.pop(&TurnPrice::new(*NOW), *NOW)
    }

    /// Serves with `workers` until 1 GiB is given; sessions always want more, at once or after they
    /// were parked for a moment. Returns bytes by key.
    fn run(connections: &[(char, usize)], workers: usize, turn: u64, comes_and_goes: bool) -> HashMap<char, u64> {
        let mut queue = FairQueue::new();
        let mut session = 0;
        for &(key, n) in connections {
            for _ in 0..n {
                queue.push(key, session);
                session += 1;
            }
        }
        let (mut active, mut bytes) = (VecDeque::new(), HashMap::new());
        while bytes.values().sum::<u64>() < 1 << 30 {
            while active.len() < workers {
                let Some(drawn) = pop(&mut queue) else { break };
                active.push_back(drawn);
            }
            let (key, session) = active.pop_front().expect("somebody is always served");
            *bytes.entry(key).or_default() += turn;
            if comes_and_goes {
                queue.done(key, session, sent(turn));
                queue.push(key, session);
            } else {
                queue.push(key, session);
                queue.done(key, session, sent(turn));
            }
        }
        bytes
    }

    #[test]
    fn ten_connections_get_no_more_than_one() {
        for workers in [1, 2, 4, 16] {
            for turn in [16 << 10, 1 << 20, 4 << 20] {
                for comes_and_goes in [false, true] {
                    let bytes = run(&[('a', 10), ('b', 1)], workers, turn, comes_and_goes);
                    let ratio = bytes[&'a'] as f64 / bytes[&'b'] as f64;
                    // A turn under way is provided for at the price of a full one, so with tiny
                    // turns others get a little more; and no key is kept from a worker while the
                    // one is away.
                    let most = match comes_and_goes {
                        true => workers as f64 + 0.1,
                        false if turn == 4 << 20 => 1.05,
                        false => 3.1,
                    };
                    let what = format!("{workers} workers, turn {turn}, {comes_and_goes}: {ratio}");
                    assert!((0.95..=most).contains(&ratio), "{what}");
                }
            }
        }
    }

    #[test]
    fn who_leaves_for_a_moment_finds_its_place_again() {
        let mut queue = FairQueue::new();
        let tickets: Vec<u64> = (0..6).map(|n| queue.push(n, n)).collect();
        let place = queue.remove(2, 2, tickets[2]);
        queue.remove(4, 4, tickets[4]);
        assert_eq!(queue.live(), 4);
        for next in [0, 1] {
            assert_eq!(pop(&mut queue), Some((next, next)));
            queue.done(next, next, sent(0));
        }
        queue.push(4, 4);
        queue.push_to(place, 2, 2);
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).map(|(key, _)| key).collect();
        assert_eq!(order, [2, 3, 5, 4], "the other one starts anew");
    }

    #[test]
    fn connections_of_a_key_take_turns() {
        let mut queue = FairQueue::new();
        (0..3).for_each(|s| {
            let _ = queue.push('a', s);
        });
        let mut order = vec![];
        for _ in 0..6 {
            let (key, session) = pop(&mut queue).unwrap();
            order.push(session);
            queue.done(key, session, sent(1));
            queue.push(key, session);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_newcomer_has_neither_credit_nor_debt() {
        let mut queue = FairQueue::new();
        queue.push('a', 0);
        for _ in 0..1000 {
            let (key, session) = pop(&mut queue).unwrap();
            queue.push(key, session);
            queue.done(key, session, sent(1 << 20));
        }
        queue.push('b', 1);
        let mut drawn = HashMap::<char, u32>::new();
        for _ in 0..100 {
            let (key, session) = pop(&mut queue).unwrap();
            *drawn.entry(key).or_default() += 1;
            queue.push(key, session);
            queue.done(key, session, sent(1 << 20));
        }
        assert!(drawn[&'a'] >= 49 && drawn[&'b'] >= 49, "{drawn:?}");
    }

    #[test]
    fn a_newcomer_owes_nothing_for_the_turns_of_others_that_are_under_way() {
        let mut queue = FairQueue::new();
        (0..8).for_each(|s| {
            let _ = queue.push('a', s);
        });
        let mut active: VecDeque<_> = (0..4).map(|_| pop(&mut queue).unwrap()).collect();
        queue.push('b', 8);
        let mut drawn = HashMap::<char, u32>::new();
        for _ in 0..100 {
            let (key, session) = active.pop_front().unwrap();
            queue.push(key, session);
            queue.done(key, session, sent(64 << 10));
            let next = pop(&mut queue).unwrap();
            *drawn.entry(next.0).or_default() += 1;
            active.push_back(next);
        }
        assert!(drawn[&'b'] >= 20, "one of nine sessions, half of the keys: {drawn:?}");
    }

    #[test]
    fn turns_that_got_nothing_cost_nothing() {
        let mut queue = FairQueue::new();
        (0..11).for_each(|s| {
            let _ = queue.push(if s == 0 { 'b' } else { 'a' }, s);
        });
        let mut bytes = HashMap::<char, u64>::new();
        for _ in 0..1000 {
            // The first one takes all that a rate limit lets pass, and all wait again.
            let drawn: Vec<_> = (0..4).map_while(|_| pop(&mut queue)).collect();
            *bytes.entry(drawn[0].0).or_default() += 1;
            for (i, (key, session)) in drawn.into_iter().enumerate() {
                queue.push(key, session);
                queue.done(key, session, sent(if i == 0 { 100_000 } else { 0 }));
            }
        }
        assert!((490..=510).contains(&bytes[&'a']), "{bytes:?}");
    }

    #[test]
    fn whoever_gets_nothing_comes_before_those_that_got_something() {
        let mut queue = FairQueue::new();
        let mut tickets: Vec<u64> = (0..5).map(|s| queue.push('a', s)).collect();
        let mut times = [0; 5];
        for _ in 0..1000 {
            let drawn: Vec<_> = (0..4).map_while(|_| pop(&mut queue)).collect();
            for (i, (key, session)) in drawn.into_iter().enumerate() {
                if i == 0 {
                    times[session] += 1;
                    tickets[session] = queue.push(key, session);
                } else {
                    queue.push_again(key, session, tickets[session]);
                }
                queue.done(key, session, sent(0));
            }
        }
        assert_eq!(times, [200; 5]);
    }

    #[test]
    fn who_is_alone_is_never_held_back_and_leaves_nothing() {
        let mut queue = FairQueue::new();
        (0..50).for_each(|s| {
            let _ = queue.push('a', s);
        });
        let drawn: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(drawn.len(), 50);
        drawn.into_iter().for_each(|(key, session)| queue.done(key, session, sent(5)));
        assert_eq!((queue.live(), queue.ready.len()), (0, 0));
    }

    /// Serves for two virtual seconds with `workers`: the sessions of `good` send a full turn in
    /// `FULL`, those of `bad` keep their worker for `turn` and send nothing. All are back
    /// `pause` after a turn. Returns turns of `good`.
    fn beside(good: usize, bad: usize, turn: Duration, pause: Duration, workers: usize) -> u32 {
        let (start, mut served) = (*NOW, 0);
        let mut now = start;
        let (mut queue, mut price) = (FairQueue::new(), TurnPrice::new(now));
        (0..good + bad).for_each(|s| {
            let _ = queue.push(s < good, s);
        });
        let mut active: Vec<(Instant, Instant, bool, usize)> = Vec::new();
        let mut parked: Vec<(Instant, bool, usize)> = Vec::new();
        while now < start + Duration::from_secs(2) {
            for at in (0..active.len()).rev() {
                if active[at].0 <= now {
                    let (_, began, key, session) = active.swap_remove(at);
                    served += u32::from(key);
                    let sent = if key { TURN_LEN_MAX as u64 } else { 0 };
                    let cost = price.of_turn(sent, now - began, now);
                    match key || pause.is_zero() {
                        true => _ = queue.push(key, session),
                        false => parked.push((now + pause, key, session)),
                    }
                    queue.done(key, session, cost);
                }
            }
            parked.retain(|(until, key, session)| {
                let back = *until <= now;
                if back {
                    queue.push(*key, *session);
                }
                !back
            });
            while active.len() < workers
                && let Some((key, session)) = queue.pop(&price, now)
            {
                active.push((now + if key { FULL } else { turn }, now, key, session));
            }
            now += Duration::from_micros(100);
        }
        served
    }

    const FULL: Duration = Duration::from_millis(5);

    #[test]
    fn a_key_that_keeps_a_worker_and_sends_nothing_holds_no_other_back() {
        let ms = Duration::from_millis;
        for good in [1, 2, 4] {
            let alone = beside(good, 0, ms(0), ms(0), 4);
            for (bad, turn, pause) in [
                (1, TURN_TIME_MAX, ms(0)),
                (2, TURN_TIME_MAX, ms(0)),
                (1, ms(2), ms(1)),
                (2, ms(1), ms(1)),
                (2, Duration::from_micros(300), Duration::from_micros(200)),
                (8, ms(40), ms(0)),
                (8, ms(1), ms(0)),
            ] {
                let share = f64::from(beside(good, bad, turn, pause, 4)) / f64::from(alone);
                assert!(share > 0.45, "{good} beside {bad} with {turn:?} and {pause:?}: {share}");
            }
        }
    }

    #[test]
    fn turns_under_way_count_as_far_as_they_have_come() {
        let (mut now, mut queue) = (*NOW, FairQueue::new());
        let price = TurnPrice::new(now);
        queue.push('a', 0);
        queue.push('b', 1);
        assert_eq!(queue.pop(&price, now), Some(('a', 0)));
        queue.push('a', 0);
        queue.done('a', 0, sent(1));
        assert_eq!(queue.pop(&price, now), Some(('b', 1)));
        queue.push('b', 1);
        queue.done('b', 1, sent(1));
        assert_eq!(queue.pop(&price, now), Some(('a', 0)));
        for _ in 0..3 {
            assert_eq!(queue.pop(&price, now), Some(('b', 1)));
            queue.push('b', 1);
            queue.done('b', 1, sent(TURN_COST + TURN_LEN_MAX as u64));
        }
        assert!(!queue.has_next(&price, now) && queue.is_waiting(), "it is ahead of the other");
        now += TURN_TIME_MAX;
        assert!(!queue.has_next(&price, now), "the other has had what was provided for");
        now += TURN_TIME_MAX;
        assert_eq!(queue.pop(&price, now), Some(('b', 1)));
    }
}
