use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::identity::PeerId;
use crate::limits::UNICAST_ANSWERS_TRACKED_MAX;
use crate::swarm::membership::limits::GROUP_PACKETS_PER_S;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn node(n: u16) -> NodeId {
    NodeId::new(PeerId([1; 32]), n.into())
}

/// The address of another host, a different one each time.
fn other() -> IpAddr {
    static LAST: AtomicU32 = AtomicU32::new(0);
    IpAddr::from(LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes())
}

fn question(asker: NodeId, seq: u64, unicast: bool) -> Question {
    Question { asker, seq, unicast }
}

/// What one undisturbed node sends until `end`, with the times in ms.
fn run(schedule: &mut AnnounceSchedule, nodes: usize, start: Instant, end: Duration) -> Vec<(u128, Outgoing)> {
    let mut sent = Vec::new();
    while schedule.next_due() < start + end {
        let now = schedule.next_due().max(start);
        while let Some(what) = schedule.due(nodes, now) {
            sent.push(((now - start).as_millis(), what));
        }
    }
    sent
}

#[test]
fn a_lone_node_asks_by_every_means() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(1, t);
    let sent = run(&mut schedule, 1, t, 13 * S);
    use Outgoing::*;
    let burst = [(0, QueryUnicast), (100, Query), (500, Query), (500, Broadcast), (2000, Query), (2000, Broadcast)];
    assert_eq!(sent[..6], burst);
    assert_eq!((sent[6].1, sent[7].1), (Query, Broadcast), "and goes on so");
    assert!((9500..=12_000).contains(&sent[6].0), "{sent:?}");
    assert_eq!(schedule.ttl_s(), 30);
}

#[test]
fn a_network_that_comes_up_is_asked_as_at_start() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(8, t);
    run(&mut schedule, 1, t, 5 * S);
    schedule.restart(t + 5 * S);
    let sent = run(&mut schedule, 1, t + 5 * S, S);
    assert_eq!(sent[..3].iter().map(|s| s.0).collect::<Vec<_>>(), [0, 100, 500]);
    assert_eq!(sent[0].1, Outgoing::QueryUnicast);
}

#[test]
fn a_network_that_comes_and_goes_is_asked_once_an_interval() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(10, t);
    schedule.due(2, t);
    schedule.received(Way::Group, other(), true, t);
    let mut sent = Vec::new();
    for n in 0..400 {
        schedule.restart(t + n * 100 * MS);
        schedule.received(Way::Unicast, other(), true, t + n * 100 * MS);
        while let Some(what) = schedule.due(2, t + n * 100 * MS) {
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
    let mut schedule = AnnounceSchedule::new(2, t);
    assert_eq!(schedule.due(1, t), Some(Outgoing::QueryUnicast));
    schedule.received(Way::Unicast, other(), true, t + MS);
    let mut sent = run(&mut schedule, 2, t, 3 * S);
    assert_eq!(sent, [(100, Outgoing::Query), (500, Outgoing::Query), (2000, Outgoing::Query)]);
    schedule.received(Way::Group, other(), true, t + 3 * S);
    sent = run(&mut schedule, 2, t, 30 * S);
    assert!(sent.iter().all(|(_, what)| *what == Outgoing::Announce), "{sent:?}");
    assert!((2..=3).contains(&sent.len()), "{sent:?}");
    sent = run(&mut schedule, 2, t, 100 * S);
    assert!(sent.iter().any(|(_, what)| *what == Outgoing::Broadcast), "the group fell silent: {sent:?}");
}

#[test]
fn the_burst_ends_once_enough_answered() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(3, t);
    assert_eq!(schedule.due(1, t), Some(Outgoing::QueryUnicast));
    schedule.received(Way::Unicast, other(), true, t + MS);
    schedule.received(Way::Group, other(), true, t + MS);
    assert_eq!(run(&mut schedule, 33, t, 5 * S), []);
    assert!(schedule.next_due() < t + 11 * S);
}

#[test]
fn news_go_out_at_once_but_not_more_than_once_a_second() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(4, t);
    run(&mut schedule, 2, t, 3 * S);
    schedule.received(Way::Group, other(), true, t + 3 * S);
    schedule.changed(t + 4 * S);
    assert_eq!(schedule.due(2, t + 4 * S), Some(Outgoing::Announce));
    for ms in (0..1000).step_by(100) {
        schedule.changed(t + 4 * S + ms * MS);
        assert_eq!(schedule.due(2, t + 4 * S + ms * MS), None);
    }
    assert_eq!(schedule.next_due(), t + 5 * S);
    assert_eq!(schedule.due(2, t + 5 * S), Some(Outgoing::Announce));
    assert_eq!(schedule.due(2, t + 6 * S), None);
}

#[test]
fn a_busy_group_is_spared_but_not_to_death() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(7, t);
    run(&mut schedule, 5000, t, 3 * S);
    let promised = t + S * schedule.ttl_s().into();
    (0..80).for_each(|n| schedule.received(Way::Group, other(), true, t + S + n * 25 * MS));
    schedule.changed(t + 3 * S);
    let sent = (0..).map(|n| t + 3 * S + n * 25 * MS).find(|&now| {
        schedule.received(Way::Group, other(), true, now);
        schedule.due(5000, now).is_some()
    });
    assert!(sent.is_some_and(|at| at > t + 100 * S && at < promised), "{:?}", sent.map(|at| at - t));
}

#[test]
fn unicast_answers_go_at_once_and_once_a_second_an_asker() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(5, t - S);
    assert!(schedule.asked(&question(node(1), 1, true), 2, || None, t));
    assert!(!schedule.asked(&question(node(1), 2, true), 2, || None, t + 999 * MS));
    assert!(schedule.asked(&question(node(2), 1, true), 2, || None, t + 999 * MS));
    assert!(schedule.asked(&question(node(1), 3, true), 2, || None, t + S));
    let flood = (0..5000).filter(|&n| schedule.asked(&question(node(n), 9, true), 2, || None, t + 2 * S)).count();
    assert!((1000..=UNICAST_ANSWERS_TRACKED_MAX).contains(&flood), "{flood}");
    assert!(schedule.askers.len() <= UNICAST_ANSWERS_TRACKED_MAX);
}

#[test]
fn when_many_come_at_once_few_answer() {
    let t = Instant::now();
    let mut new = AnnounceSchedule::new(1, t);
    assert!(new.asked(&question(node(1), 1, true), 2, || Some(1), t));
    (0..8).for_each(|_| new.received(Way::Group, other(), true, t + 20 * MS));
    assert!(!new.asked(&question(node(2), 1, true), 9, || None, t + 20 * MS), "it offers nothing");
    assert!(new.asked(&question(node(3), 1, true), 9, || Some(1), t + 20 * MS), "it does");
    assert!(new.asked(&question(node(2), 2, true), 9, || None, t + 100 * MS));
    let next_question = |asked: bool, nodes| {
        let mut schedule = AnnounceSchedule::new(1, t);
        assert_eq!(schedule.due(2, t), Some(Outgoing::QueryUnicast));
        (0..20).for_each(|_| schedule.received(Way::Group, other(), true, t + 90 * MS));
        assert!(!(asked && schedule.asked(&question(node(3), 1, true), nodes, || None, t + 90 * MS)));
        schedule.due(nodes, t + 100 * MS)
    };
    assert_eq!(next_question(true, 20), Some(Outgoing::Query), "busy or not");
    assert_eq!((next_question(false, 20), next_question(true, 1000)), (None, None));
    let answers = |offering: Option<usize>| {
        let busy = |seed| {
            let mut schedule = AnnounceSchedule::new(seed, t - S);
            (0..40).for_each(|_| schedule.received(Way::Group, other(), true, t));
            schedule.asked(&question(node(1), 1, true), 1000, || offering, t)
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
    let mut schedule = AnnounceSchedule::new(9, t);
    run(&mut schedule, 3, t, 3 * S);
    assert!(schedule.asked(&question(node(1), 5, true), 2, || None, t + 3 * S));
    assert!(!schedule.asked(&question(node(1), 5, true), 2, || None, t + 5 * S), "the same, later");
    assert!(!schedule.asked(&question(node(1), 4, true), 2, || None, t + 5 * S), "older");
    assert!(!schedule.asked(&question(node(1), 5, false), 2, || None, t + 5 * S));
    assert_eq!(schedule.pending.answer_at, None);
    // In a large group the dice are thrown once a question.
    let lucky = |copies: u64| {
        (0..2000)
            .filter(|&seed| {
                let mut schedule = AnnounceSchedule::new(seed, t - S);
                (0..copies).any(|_| schedule.asked(&question(node(1), 1, true), 64, || None, t))
            })
            .count()
    };
    assert_eq!(lucky(1), lucky(3));
}

#[test]
fn answers_to_the_group_are_soon_and_shared() {
    let t = Instant::now();
    let mut schedule = AnnounceSchedule::new(6, t);
    run(&mut schedule, 3, t, 3 * S);
    schedule.received(Way::Group, other(), true, t + 3 * S);
    let asked = t + 4 * S;
    assert!(
        !schedule.asked(&question(node(1), 1, false), 3, || None, asked)
            && !schedule.asked(&question(node(2), 1, false), 3, || None, asked)
    );
    let at = schedule.next_due();
    assert!(at >= asked && at <= asked + 100 * MS);
    assert_eq!(schedule.due(3, at), Some(Outgoing::Announce));
    assert!(!schedule.asked(&question(node(3), 1, false), 3, || None, at));
    assert!(schedule.next_due() >= at + S, "one a second");
}

#[test]
fn a_large_group_is_answered_by_about_32() {
    let t = Instant::now();
    for nodes in [40, 1000, 10_000] {
        let answers = (0..nodes as u64)
            .filter(|&seed| AnnounceSchedule::new(seed, t - S).asked(&question(node(1), 1, true), nodes, || None, t))
            .count();
        assert!((12..=60).contains(&answers), "{answers} of {nodes}");
    }
}

/// Nodes that join over `join`, hear each other, ask, answer and announce, under a virtual clock.
struct Group {
    schedules: Vec<AnnounceSchedule>,
    /// Up to where each has heard what was sent.
    heard_to: Vec<usize>,
    /// When each last announced itself, and until when it is taken to be alive.
    alive_until: Vec<Instant>,
    sent: Vec<(Instant, usize)>,
}

impl Group {
    fn run(count: usize, join: Duration, length: Duration) -> (Vec<f64>, usize) {
        let t = Instant::now();
        let mut g = Group { schedules: vec![], heard_to: vec![], alive_until: vec![], sent: vec![] };
        let mut queue = BinaryHeap::new();
        let mut late = 0;
        let joins = |n: usize| t + join.mul_f64(n as f64 / count as f64);
        queue.push(Reverse((t, 0)));
        while let Some(Reverse((now, n))) = queue.pop() {
            if now > t + length {
                break;
            }
            if n == g.schedules.len() {
                g.schedules.push(AnnounceSchedule::new(n as u64, now));
                g.heard_to.push(g.sent.len());
                g.alive_until.push(now + S);
                if n + 1 < count {
                    queue.push(Reverse((joins(n + 1), n + 1)));
                }
            }
            g.catch_up(n, now);
            let nodes = g.schedules.len();
            while let Some(what) = g.schedules[n].due(nodes, now) {
                late += usize::from(now > g.alive_until[n]);
                g.alive_until[n] = now + S * g.schedules[n].ttl_s().into();
                g.sent.push((now, n));
                let seq = g.sent.len() as u64;
                if what == Outgoing::Query || what == Outgoing::QueryUnicast {
                    for other in 0..nodes {
                        if other != n && what == Outgoing::Query {
                            g.schedules[other].asked(&question(node(n as u16), seq, false), nodes, || None, now);
                            let due = g.schedules[other].next_due().max(now);
                            queue.push(Reverse((due, other)));
                        }
                    }
                }
            }
            queue.push(Reverse((g.schedules[n].next_due().max(now + MS), n)));
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

    /// Tells node `n` what it heard. What is older than three seconds only counts as the last that
    /// it heard.
    fn catch_up(&mut self, n: usize, now: Instant) {
        let recent = self.sent.partition_point(|(at, _)| *at + 3 * S < now);
        let from = self.heard_to[n].max(recent.saturating_sub(1));
        for &(at, who) in self.sent[from..].iter().filter(|(_, who)| *who != n) {
            debug_assert_ne!(who, n);
            let source = IpAddr::from([10, 0, 0, who as u8]);
            self.schedules[n].received(Way::Group, source, true, at);
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
