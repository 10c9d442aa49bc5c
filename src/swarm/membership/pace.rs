//! When to announce, ask and answer, so that newcomers are found at once and a group of any size stays quiet.
//!
//! Pure: the caller says what was heard and when, and asks what is due. Packets to the group are counted twice, as
//! each goes out over IPv4 and IPv6.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::identity::NodeId;
use crate::limits::{ANNOUNCE_INTERVAL, ANSWERERS, TTL_INTERVALS, TTL_MAX, UNICAST_ANSWERS_TRACKED_MAX};
use crate::swarm::membership::limits::{
    ANSWERERS_BUSY, BROADCAST_AFTER, BURST_MS, GROUP_ANNOUNCES_PER_S, GROUP_ANSWER_MIN, GROUP_ANSWERS_PER_S,
    GROUP_PACKETS_PER_S, REVISION_ANNOUNCE_MIN, UNICAST_ANSWER_MIN,
};

/// When one node sends what.
///
/// At start a burst of queries; then an announce an interval, slower as the group grows; in between answers and news.
/// What can wait, waits or is left out while the group is busy.
#[derive(Debug)]
pub struct Pace {
    rng: StdRng,
    started: Instant,
    /// Queries of the burst that went out or were left out.
    burst: usize,
    /// When the next query of the burst or the next regular announce is due.
    next: Instant,
    /// The interval that the last announce promised to keep.
    interval: Duration,
    /// Whether `next` was put off once because the group was busy.
    postponed: bool,
    /// When news are due.
    news: Option<Instant>,
    /// When an answer to the group is due.
    answer: Option<Instant>,
    /// Whether it left answers to its own next question, which goes to all.
    owes_answer: bool,
    /// The broadcast that follows the query just given out.
    broadcast: bool,
    last_to_group: Option<Instant>,
    heard_any: bool,
    heard_group: Option<Instant>,
    busy: Busy,
    /// Who asked lately.
    askers: BTreeMap<NodeId, Asker>,
    /// When it last asked as at start because a network came up, and when it is to do so again.
    restarted: Option<Instant>,
    restart: Option<Instant>,
}

/// A node that asked.
#[derive(Debug)]
struct Asker {
    /// Its last question: it is heard once per link and address family, and is one question all the same.
    seq: u64,
    heard: Instant,
    /// When it was last answered at its own address.
    answered: Option<Instant>,
}

/// Something to send. Each carries the node's announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// To the group: announce yourselves, to my address.
    QueryUnicast,
    /// To the group: announce yourselves, to the group.
    Query,
    /// To everyone on the wire, since nobody seems to hear the group: announce yourselves, to my address.
    Broadcast,
    /// To the group: this is me.
    Announce,
}

/// How a datagram of another host came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the group.
    Group,
    /// To everyone on the wire.
    Broadcast,
    /// To this node.
    Unicast,
}

impl Pace {
    /// A node that starts now: its first query is due at once. `seed` makes its random choices.
    pub fn new(seed: u64, now: Instant) -> Self {
        Pace {
            rng: StdRng::seed_from_u64(seed),
            started: now,
            burst: 0,
            next: now,
            interval: ANNOUNCE_INTERVAL,
            postponed: false,
            news: None,
            answer: None,
            owes_answer: false,
            broadcast: false,
            last_to_group: None,
            heard_any: false,
            heard_group: None,
            busy: Busy { level: 0.0, at: now },
            askers: BTreeMap::new(),
            restarted: None,
            restart: None,
        }
    }

    /// When something is due next, unless more happens.
    pub fn next_due(&self) -> Instant {
        let soonest =
            [Some(self.next), self.news, self.answer, self.restart].into_iter().flatten().min().unwrap_or(self.next);
        if self.broadcast { soonest.min(self.started) } else { soonest }
    }

    /// The time to live to announce, in seconds: three of the current intervals.
    pub fn ttl_s(&self) -> u16 {
        let ttl = (self.interval * TTL_INTERVALS).min(TTL_MAX);
        u16::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(u16::MAX)
    }

    /// What is due now, in a group of `nodes` with this one; call until nothing is. [`ttl_s`](Self::ttl_s) is up to
    /// date when this returns.
    pub fn due(&mut self, nodes: usize, now: Instant) -> Option<Outgoing> {
        if std::mem::take(&mut self.broadcast) {
            return Some(Outgoing::Broadcast);
        }
        if self.restart.is_some_and(|at| at <= now) {
            self.ask_anew(now);
        }
        if self.burst < BURST_MS.len()
            && self.next <= now
            && let Some(query) = self.burst_query(nodes, now)
        {
            return Some(query);
        }
        let busy = self.busy.is_now(now);
        if self.next <= now {
            // A busy group is waited for, but once only, or this node would expire.
            if busy && !std::mem::replace(&mut self.postponed, true) {
                self.next = now + self.interval.mul_f64(self.rng.random_range(0.1..0.5));
            } else {
                let lonely = self.heard_group.is_none_or(|at| now.saturating_duration_since(at) > self.ttl());
                self.broadcast = lonely;
                return Some(self.tell_group(if lonely { Outgoing::Query } else { Outgoing::Announce }, nodes, now));
            }
        }
        if self.news.is_some_and(|at| at <= now) {
            if !busy {
                return Some(self.tell_group(Outgoing::Announce, nodes, now));
            }
            self.news = Some(now + REVISION_ANNOUNCE_MIN.mul_f64(self.rng.random_range(0.2..1.0)));
        }
        if self.answer.is_some_and(|at| at <= now) {
            self.answer = None;
            if !busy {
                return Some(self.tell_group(Outgoing::Announce, nodes, now));
            }
        }
        None
    }

    /// The catalogue changed: others are told at once, but not more often than once a second.
    pub fn changed(&mut self, now: Instant) {
        let soonest = self.last_to_group.map_or(now, |last| now.max(last + REVISION_ANNOUNCE_MIN));
        self.news = Some(self.news.map_or(soonest, |at| at.min(soonest)));
    }

    /// There may be new neighbours, since a network came up: asks as at start. At most once an [`ANNOUNCE_INTERVAL`],
    /// if need be later, since a bad cable goes up and down all the time.
    pub fn restart(&mut self, now: Instant) {
        self.restart = Some(self.restarted.map_or(now, |last| now.max(last + ANNOUNCE_INTERVAL)));
    }

    fn ask_anew(&mut self, now: Instant) {
        (self.restarted, self.restart) = (Some(now), None);
        (self.started, self.burst, self.next, self.heard_any) = (now, 0, now, false);
    }

    /// An announce of another host was heard.
    pub fn heard(&mut self, way: Way, now: Instant) {
        self.heard_any = true;
        if way == Way::Group {
            self.heard_group = Some(now);
            self.busy.add(now);
        }
    }

    /// `asker` asked in its announce `seq`, for an answer to its own address if `unicast`, in a group of `nodes` with
    /// this one. True if such an answer is to be sent now; one to the group becomes due by itself. `offering`: how many of
    /// the nodes offer files, if this one does.
    ///
    /// When many come at the same time, as in a classroom that is switched on, their questions show them to each other. So
    /// a node that has just come with others and offers nothing leaves the answer to its own next question, unless the group
    /// is so large that exchange tells of it. While questions flood the group only a few of those that offer something
    /// answer.
    pub fn asked(
        &mut self,
        asker: NodeId,
        seq: u64,
        unicast: bool,
        nodes: usize,
        offering: impl FnOnce() -> Option<usize>,
        now: Instant,
    ) -> bool {
        if !self.is_new(asker, seq, now) {
            return false;
        }
        let others = nodes.saturating_sub(1).max(1) as f64;
        let mut chance = f64::from(ANSWERERS) / others;
        let is_new = now.saturating_duration_since(self.started) < Duration::from_millis(BURST_MS[1]);
        let level = if unicast { self.busy.now(now) } else { 0.0 };
        let in_company = is_new && level >= Busy::COMPANY;
        self.owes_answer |= in_company;
        if level >= Busy::FLOOD || in_company {
            chance = offering().map_or(0.0, |n| f64::from(ANSWERERS_BUSY) / n.max(1) as f64);
        }
        if !self.rng.random_bool(chance.min(1.0)) {
            return false;
        }
        if unicast {
            return self.may_answer(asker, now);
        }
        if self.answer.is_none() {
            // As many as may answer spread out so that the group stays quiet.
            let spread_s = others.min(f64::from(ANSWERERS)) / f64::from(GROUP_ANSWERS_PER_S);
            let at = now + Duration::from_secs_f64(self.rng.random_range(0.0..spread_s));
            self.answer = Some(self.last_to_group.map_or(at, |last| at.max(last + GROUP_ANSWER_MIN)));
        }
        false
    }

    /// The query of the burst that is due. The burst ends early once enough answered: exchange tells the rest.
    fn burst_query(&mut self, nodes: usize, now: Instant) -> Option<Outgoing> {
        let first = self.burst == 0;
        let elapsed = now.saturating_duration_since(self.started);
        self.burst = BURST_MS.partition_point(|&ms| Duration::from_millis(ms) <= elapsed);
        let is_busy = self.busy.is_now(now) && !self.owes_answer;
        if !first && (nodes > ANSWERERS as usize || is_busy) {
            self.burst = BURST_MS.len();
            self.rest(nodes, now);
            return None;
        }
        self.broadcast = elapsed >= BROADCAST_AFTER && !self.heard_any;
        let query = self.tell_group(if first { Outgoing::QueryUnicast } else { Outgoing::Query }, nodes, now);
        if let Some(&ms) = BURST_MS.get(self.burst) {
            self.next = self.started + Duration::from_millis(ms);
        }
        Some(query)
    }

    /// Notes that `what` goes to the group now. It says all that news or an answer would say.
    fn tell_group(&mut self, what: Outgoing, nodes: usize, now: Instant) -> Outgoing {
        self.last_to_group = Some(now);
        self.busy.add(now);
        (self.news, self.answer, self.postponed, self.owes_answer) = (None, None, false, false);
        self.rest(nodes, now);
        what
    }

    /// Sets the interval for a group of that size, and the end of this one: somewhat early, never late, so that two
    /// lost announces do not end this node.
    fn rest(&mut self, nodes: usize, now: Instant) {
        self.interval = interval(nodes);
        if self.burst >= BURST_MS.len() {
            self.next = now + self.interval.mul_f64(self.rng.random_range(0.75..1.0));
        }
    }

    fn ttl(&self) -> Duration {
        self.interval * TTL_INTERVALS
    }

    /// Whether that question was not heard before; too many askers at once are not heard.
    fn is_new(&mut self, asker: NodeId, seq: u64, now: Instant) -> bool {
        if let Some(known) = self.askers.get_mut(&asker) {
            let new = seq > known.seq;
            (known.seq, known.heard) = (seq.max(known.seq), now);
            return new;
        }
        if self.askers.len() >= UNICAST_ANSWERS_TRACKED_MAX {
            // A question's copies come within moments.
            self.askers.retain(|_, asker| now.saturating_duration_since(asker.heard) < UNICAST_ANSWER_MIN);
        }
        let room = self.askers.len() < UNICAST_ANSWERS_TRACKED_MAX;
        if room {
            self.askers.insert(asker, Asker { seq, heard: now, answered: None });
        }
        room
    }

    fn may_answer(&mut self, asker: NodeId, now: Instant) -> bool {
        let Some(asker) = self.askers.get_mut(&asker) else { return false };
        let may = asker.answered.is_none_or(|at| now.saturating_duration_since(at) >= UNICAST_ANSWER_MIN);
        if may {
            asker.answered = Some(now);
        }
        may
    }
}

/// Time between two announces of one node in a group of `nodes`.
fn interval(nodes: usize) -> Duration {
    ANNOUNCE_INTERVAL.max(Duration::from_secs_f64(nodes as f64 / f64::from(GROUP_ANNOUNCES_PER_S)))
}

/// How busy the group is: a bucket that each announce fills and time drains.
#[derive(Debug)]
struct Busy {
    level: f64,
    at: Instant,
}

impl Busy {
    /// Announces a second that the bucket lets through: half of the packets, since each is two, and one less to be
    /// under the bound.
    const DRAIN_PER_S: f64 = (GROUP_PACKETS_PER_S / 2 - 1) as f64;
    /// The level from which the group is busy. Below it are the usual coincidences.
    const FULL: f64 = Self::DRAIN_PER_S / 2.0;

    /// The level from which many have come together with a node that has just come.
    const COMPANY: f64 = 4.0;
    /// The level that only many who come at the same time reach.
    const FLOOD: f64 = Self::DRAIN_PER_S * 1.5;

    fn add(&mut self, now: Instant) {
        // Bounded, so that a flood is forgotten two seconds after its end.
        self.level = (self.now(now) + 1.0).min(2.0 * Self::DRAIN_PER_S);
        self.at = now;
    }

    fn is_now(&self, now: Instant) -> bool {
        self.now(now) >= Self::FULL
    }

    fn now(&self, now: Instant) -> f64 {
        (self.level - now.saturating_duration_since(self.at).as_secs_f64() * Self::DRAIN_PER_S).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;
    use crate::identity::PeerId;

    const S: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn node(n: u16) -> NodeId {
        NodeId::new(PeerId([1; 32]), n.into())
    }

    /// What one undisturbed node sends until `end`, with the times in ms.
    fn run(pace: &mut Pace, nodes: usize, start: Instant, end: Duration) -> Vec<(u128, Outgoing)> {
        let mut sent = Vec::new();
        while pace.next_due() < start + end {
            let now = pace.next_due().max(start);
            while let Some(what) = pace.due(nodes, now) {
                sent.push(((now - start).as_millis(), what));
            }
        }
        sent
    }

    #[test]
    fn a_lone_node_asks_by_every_means() {
        let t = Instant::now();
        let mut pace = Pace::new(1, t);
        let sent = run(&mut pace, 1, t, 13 * S);
        use Outgoing::*;
        let burst = [(0, QueryUnicast), (100, Query), (500, Query), (500, Broadcast), (2000, Query), (2000, Broadcast)];
        assert_eq!(sent[..6], burst);
        assert_eq!((sent[6].1, sent[7].1), (Query, Broadcast), "and goes on so");
        assert!((9500..=12_000).contains(&sent[6].0), "{sent:?}");
        assert_eq!(pace.ttl_s(), 30);
    }

    #[test]
    fn a_network_that_comes_up_is_asked_as_at_start() {
        let t = Instant::now();
        let mut pace = Pace::new(8, t);
        run(&mut pace, 1, t, 5 * S);
        pace.restart(t + 5 * S);
        let sent = run(&mut pace, 1, t + 5 * S, S);
        assert_eq!(sent[..3].iter().map(|s| s.0).collect::<Vec<_>>(), [0, 100, 500]);
        assert_eq!(sent[0].1, Outgoing::QueryUnicast);
    }

    #[test]
    fn a_network_that_comes_and_goes_is_asked_once_an_interval() {
        let t = Instant::now();
        let mut pace = Pace::new(10, t);
        pace.due(2, t);
        pace.heard(Way::Group, t);
        let mut sent = Vec::new();
        for n in 0..400 {
            pace.restart(t + n * 100 * MS);
            pace.heard(Way::Unicast, t + n * 100 * MS);
            while let Some(what) = pace.due(2, t + n * 100 * MS) {
                sent.push(what);
            }
        }
        let asked = sent.iter().filter(|what| **what == Outgoing::QueryUnicast).count();
        assert!((4..=5).contains(&asked), "{asked} times in 40 s: {sent:?}");
        assert!(sent.len() <= 25, "{sent:?}");
    }

    #[test]
    fn answers_end_the_broadcasts() {
        let t = Instant::now();
        let mut pace = Pace::new(2, t);
        assert_eq!(pace.due(1, t), Some(Outgoing::QueryUnicast));
        pace.heard(Way::Unicast, t + MS);
        let mut sent = run(&mut pace, 2, t, 3 * S);
        assert_eq!(sent, [(100, Outgoing::Query), (500, Outgoing::Query), (2000, Outgoing::Query)]);
        pace.heard(Way::Group, t + 3 * S);
        sent = run(&mut pace, 2, t, 30 * S);
        assert!(sent.iter().all(|(_, what)| *what == Outgoing::Announce), "{sent:?}");
        assert!((2..=3).contains(&sent.len()), "{sent:?}");
        sent = run(&mut pace, 2, t, 100 * S);
        assert!(sent.iter().any(|(_, what)| *what == Outgoing::Broadcast), "the group fell silent: {sent:?}");
    }

    #[test]
    fn the_burst_ends_once_enough_answered() {
        let t = Instant::now();
        let mut pace = Pace::new(3, t);
        assert_eq!(pace.due(1, t), Some(Outgoing::QueryUnicast));
        pace.heard(Way::Unicast, t + MS);
        pace.heard(Way::Group, t + MS);
        assert_eq!(run(&mut pace, 33, t, 5 * S), []);
        assert!(pace.next_due() < t + 11 * S);
    }

    #[test]
    fn news_go_out_at_once_but_not_more_than_once_a_second() {
        let t = Instant::now();
        let mut pace = Pace::new(4, t);
        run(&mut pace, 2, t, 3 * S);
        pace.heard(Way::Group, t + 3 * S);
        pace.changed(t + 4 * S);
        assert_eq!(pace.due(2, t + 4 * S), Some(Outgoing::Announce));
        for ms in (0..1000).step_by(100) {
            pace.changed(t + 4 * S + ms * MS);
            assert_eq!(pace.due(2, t + 4 * S + ms * MS), None);
        }
        assert_eq!(pace.next_due(), t + 5 * S);
        assert_eq!(pace.due(2, t + 5 * S), Some(Outgoing::Announce));
        assert_eq!(pace.due(2, t + 6 * S), None);
    }

    #[test]
    fn a_busy_group_is_spared_but_not_to_death() {
        let t = Instant::now();
        let mut pace = Pace::new(7, t);
        run(&mut pace, 5000, t, 3 * S);
        let promised = t + S * pace.ttl_s().into();
        (0..80).for_each(|n| pace.heard(Way::Group, t + S + n * 25 * MS));
        pace.changed(t + 3 * S);
        let sent = (0..).map(|n| t + 3 * S + n * 25 * MS).find(|&now| {
            pace.heard(Way::Group, now);
            pace.due(5000, now).is_some()
        });
        assert!(sent.is_some_and(|at| at > t + 100 * S && at < promised), "{:?}", sent.map(|at| at - t));
    }

    #[test]
    fn unicast_answers_go_at_once_and_once_a_second_an_asker() {
        let t = Instant::now();
        let mut pace = Pace::new(5, t - S);
        assert!(pace.asked(node(1), 1, true, 2, || None, t));
        assert!(!pace.asked(node(1), 2, true, 2, || None, t + 999 * MS));
        assert!(pace.asked(node(2), 1, true, 2, || None, t + 999 * MS));
        assert!(pace.asked(node(1), 3, true, 2, || None, t + S));
        let flood = (0..5000).filter(|&n| pace.asked(node(n), 9, true, 2, || None, t + 2 * S)).count();
        assert!((1000..=UNICAST_ANSWERS_TRACKED_MAX).contains(&flood), "{flood}");
        assert!(pace.askers.len() <= UNICAST_ANSWERS_TRACKED_MAX);
    }

    #[test]
    fn when_many_come_at_once_few_answer() {
        let t = Instant::now();
        let mut new = Pace::new(1, t);
        assert!(new.asked(node(1), 1, true, 2, || Some(1), t));
        (0..8).for_each(|_| new.heard(Way::Group, t + 20 * MS));
        assert!(!new.asked(node(2), 1, true, 9, || None, t + 20 * MS), "it offers nothing");
        assert!(new.asked(node(3), 1, true, 9, || Some(1), t + 20 * MS), "it does");
        assert!(new.asked(node(2), 2, true, 9, || None, t + 100 * MS));
        let next_question = |asked: bool, nodes| {
            let mut pace = Pace::new(1, t);
            assert_eq!(pace.due(2, t), Some(Outgoing::QueryUnicast));
            (0..20).for_each(|_| pace.heard(Way::Group, t + 90 * MS));
            assert!(!(asked && pace.asked(node(3), 1, true, nodes, || None, t + 90 * MS)));
            pace.due(nodes, t + 100 * MS)
        };
        assert_eq!(next_question(true, 20), Some(Outgoing::Query), "busy or not");
        assert_eq!((next_question(false, 20), next_question(true, 1000)), (None, None));
        let answers = |offering: Option<usize>| {
            let busy = |seed| {
                let mut pace = Pace::new(seed, t - S);
                (0..40).for_each(|_| pace.heard(Way::Group, t));
                pace.asked(node(1), 1, true, 1000, || offering, t)
            };
            (0..1000).filter(|&seed| busy(seed)).count()
        };
        assert_eq!(answers(None), 0);
        assert_eq!(answers(Some(3)), 1000, "the few that offer something all do");
        let few = answers(Some(100)) / 10;
        assert!((5..=12).contains(&few), "{few} of 100");
    }

    #[test]
    fn a_question_that_is_heard_twice_is_answered_once() {
        let t = Instant::now();
        let mut pace = Pace::new(9, t);
        run(&mut pace, 3, t, 3 * S);
        assert!(pace.asked(node(1), 5, true, 2, || None, t + 3 * S));
        assert!(!pace.asked(node(1), 5, true, 2, || None, t + 5 * S), "the same, later");
        assert!(!pace.asked(node(1), 4, true, 2, || None, t + 5 * S), "older");
        assert!(!pace.asked(node(1), 5, false, 2, || None, t + 5 * S));
        assert_eq!(pace.answer, None);
        // In a large group the dice are thrown once a question.
        let lucky = |copies: u64| {
            (0..2000)
                .filter(|&seed| {
                    let mut pace = Pace::new(seed, t - S);
                    (0..copies).any(|_| pace.asked(node(1), 1, true, 64, || None, t))
                })
                .count()
        };
        assert_eq!(lucky(1), lucky(3));
    }

    #[test]
    fn answers_to_the_group_are_soon_and_shared() {
        let t = Instant::now();
        let mut pace = Pace::new(6, t);
        run(&mut pace, 3, t, 3 * S);
        pace.heard(Way::Group, t + 3 * S);
        let asked = t + 4 * S;
        assert!(!pace.asked(node(1), 1, false, 3, || None, asked) && !pace.asked(node(2), 1, false, 3, || None, asked));
        let at = pace.next_due();
        assert!(at >= asked && at <= asked + 100 * MS);
        assert_eq!(pace.due(3, at), Some(Outgoing::Announce));
        assert!(!pace.asked(node(3), 1, false, 3, || None, at));
        assert!(pace.next_due() >= at + S, "one a second");
    }

    #[test]
    fn a_large_group_is_answered_by_about_32() {
        let t = Instant::now();
        for nodes in [40, 1000, 10_000] {
            let answers = (0..nodes as u64)
                .filter(|&seed| Pace::new(seed, t - S).asked(node(1), 1, true, nodes, || None, t))
                .count();
            assert!((12..=60).contains(&answers), "{answers} of {nodes}");
        }
    }

    /// Nodes that join over `join`, hear each other, ask, answer and announce, under a virtual clock.
    struct Group {
        paces: Vec<Pace>,
        /// Up to where each has heard what was sent.
        heard_to: Vec<usize>,
        /// When each last announced itself, and until when it is taken to be alive.
        alive_until: Vec<Instant>,
        sent: Vec<(Instant, usize)>,
    }

    impl Group {
        fn run(count: usize, join: Duration, length: Duration) -> (Vec<f64>, usize) {
            let t = Instant::now();
            let mut g = Group { paces: vec![], heard_to: vec![], alive_until: vec![], sent: vec![] };
            let mut queue = BinaryHeap::new();
            let mut late = 0;
            let joins = |n: usize| t + join.mul_f64(n as f64 / count as f64);
            queue.push(Reverse((t, 0)));
            while let Some(Reverse((now, n))) = queue.pop() {
                if now > t + length {
                    break;
                }
                if n == g.paces.len() {
                    g.paces.push(Pace::new(n as u64, now));
                    g.heard_to.push(g.sent.len());
                    g.alive_until.push(now + S);
                    if n + 1 < count {
                        queue.push(Reverse((joins(n + 1), n + 1)));
                    }
                }
                g.catch_up(n, now);
                let nodes = g.paces.len();
                while let Some(what) = g.paces[n].due(nodes, now) {
                    late += usize::from(now > g.alive_until[n]);
                    g.alive_until[n] = now + S * g.paces[n].ttl_s().into();
                    g.sent.push((now, n));
                    let seq = g.sent.len() as u64;
                    if what == Outgoing::Query || what == Outgoing::QueryUnicast {
                        for other in 0..nodes {
                            if other != n && what == Outgoing::Query {
                                g.paces[other].asked(node(n as u16), seq, false, nodes, || None, now);
                                let due = g.paces[other].next_due().max(now);
                                queue.push(Reverse((due, other)));
                            }
                        }
                    }
                }
                queue.push(Reverse((g.paces[n].next_due().max(now + MS), n)));
                // One entry a node is enough; the earliest counts, and later ones find nothing due.
                if queue.len() > 20 * count + 1000 {
                    let mut first = vec![None; count];
                    for Reverse((at, n)) in queue.drain() {
                        first[n] = Some(first[n].map_or(at, |f: Instant| f.min(at)));
                    }
                    queue.extend(first.into_iter().enumerate().filter_map(|(n, at)| Some(Reverse((at?, n)))));
                }
            }
            (g.rates(t, length), late)
        }

        /// Tells node `n` what it heard. What is older than three seconds only counts as the last that it heard.
        fn catch_up(&mut self, n: usize, now: Instant) {
            let recent = self.sent.partition_point(|(at, _)| *at + 3 * S < now);
            let from = self.heard_to[n].max(recent.saturating_sub(1));
            for &(at, who) in self.sent[from..].iter().filter(|(_, who)| *who != n) {
                debug_assert_ne!(who, n);
                self.paces[n].heard(Way::Group, at);
            }
            self.heard_to[n] = self.sent.len();
        }

        /// Packets a second, each sending being two, averaged over ten seconds each.
        fn rates(&self, t: Instant, length: Duration) -> Vec<f64> {
            let mut counts = VecDeque::from(vec![0.0; length.as_secs() as usize / 10 + 1]);
            for (at, _) in &self.sent {
                counts[(*at - t).as_secs() as usize / 10] += 2.0 / 10.0;
            }
            counts.pop_back();
            counts.into()
        }
    }

    fn check(count: usize, join: Duration, length: Duration) {
        let (rates, late) = Group::run(count, join, length);
        let most = rates.iter().copied().fold(0.0, f64::max);
        assert!(most < f64::from(GROUP_PACKETS_PER_S), "{count} nodes sent {most} packets/s: {rates:?}");
        assert_eq!(late, 0, "of {count} nodes some were taken for dead");
        assert!(rates.last().is_some_and(|r| *r > 0.5), "{count} nodes fell silent: {rates:?}");
    }

    #[test]
    fn ten_nodes_stay_alive_and_quiet() {
        check(10, 10 * S, 300 * S);
    }

    #[test]
    fn a_thousand_nodes_stay_alive_and_quiet() {
        check(1000, 200 * S, 600 * S);
    }

    #[test]
    fn ten_thousand_nodes_stay_alive_and_quiet() {
        check(10_000, 2000 * S, 4000 * S);
    }
}
