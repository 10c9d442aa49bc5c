//! When to announce, query and answer, so that newcomers are found at once and a group of any size
//! stays quiet.
//!
//! The ideas come from multicast DNS (RFC 6762: a burst of queries, unicast answers, random
//! delays) and Trickle (RFC 6206: what others have sent already need not be sent). Pure: the
//! caller says what arrived and when, and asks what is due. Packets to the group count twice, as
//! each is sent over IPv4 and IPv6.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::identity::NodeId;
use crate::limits::{ANNOUNCE_INTERVAL, ANSWERERS, PEERS_MAX, TTL_INTERVALS, TTL_MAX};
use crate::swarm::membership::group_size::{GroupSize, announce_interval};
use crate::swarm::membership::limits::{
    ANSWERERS_BUSY, BROADCAST_AFTER, BURST_MS, BUSY_GROUP_RETRY, GROUP_ANSWER_MIN, GROUP_ANSWERS_PER_S,
    POSTPONED_INTERVALS, POSTPONED_MAX, REVISION_ANNOUNCE_MIN, UNANSWERED_AFTER, UNANSWERED_SPREAD,
    UNPROVED_COUNTED_MAX,
};

mod askers;
mod load;
mod sources;

use askers::RecentAskers;
use load::GroupLoad;
use sources::SourceShares;

/// When one node sends what.
///
/// At start it sends a burst of queries, then one announce per interval, and the interval grows
/// with the group. In between it answers queries and announces new revisions. While the group is
/// busy, what can wait is postponed. An answer waits for a few seconds at most, and is left out only
/// if another node answers meanwhile.
///
/// One host can announce any number of nodes that are not there. So the interval, and the chance to
/// answer an asker's own address, follow the members, which have proved themselves. A newcomer to a
/// large group has seen few of them prove it; it would announce too often, and its group would be
/// crowded. In a crowded group all known nodes count. So made-up nodes slow the others only while
/// they fill the group with packets, not for as long as they claim to live. A few hosts cannot fill
/// it: see `SourceShares`.
#[derive(Debug)]
pub struct AnnounceSchedule {
    rng: StdRng,
    burst: Burst,
    /// When the next query of the burst or the next regular announce is due.
    next: Instant,
    /// The interval that the last announce promised to keep.
    interval: Duration,
    /// Until when `next` may be postponed because the group is busy, once it was.
    postponed_until: Option<Instant>,
    pending: PendingAnnounces,
    last_to_group: Option<Instant>,
    arrived: Arrived,
    load: GroupLoad,
    askers: RecentAskers,
    sources: SourceShares,
}

/// The burst of queries at start, which is repeated when a network comes up.
#[derive(Debug)]
struct Burst {
    begun: Instant,
    /// Number of queries that were sent or left out.
    done: usize,
    /// When it was last repeated, and when it is to be repeated.
    repeated: Option<Instant>,
    repeat_at: Option<Instant>,
}

/// What is to be sent besides regular announces.
#[derive(Debug, Default)]
struct PendingAnnounces {
    /// When a new revision is to be announced.
    revision_at: Option<Instant>,
    /// When the group is to be answered.
    answer_at: Option<Instant>,
    /// When the group is to be answered unless another node answers before.
    unanswered_at: Option<Instant>,
    /// Whether the next query goes out even if the group is busy, because it stands for answers
    /// that were left out.
    owes_answer: bool,
    /// How often an answer was postponed because the group was busy.
    postponed: u8,
    /// Whether the query that was just returned is to be broadcast, too.
    broadcast: bool,
}

/// What arrived from other hosts.
#[derive(Debug, Default)]
struct Arrived {
    /// Whether anything did since the burst began.
    any: bool,
    /// When the last announce to the group did.
    group: Option<Instant>,
}

/// A query of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The node that asks.
    pub asker: NodeId,
    /// The number of its announce, which is the query.
    pub seq: u64,
    /// Whether the answer goes to its own address.
    pub unicast: bool,
}

/// A packet to send. Each carries the node's announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// To the group: a query whose answers go to this node's address.
    QueryUnicast,
    /// To the group: a query whose answers go to the group.
    Query,
    /// To all hosts of the link, since none seems to receive the group: a query whose answers go to
    /// this node's address.
    Broadcast,
    /// To the group: the announce alone.
    Announce,
}

/// How a datagram of another host came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the group.
    Group,
    /// To all hosts of the link.
    Broadcast,
    /// To this node.
    Unicast,
}

impl AnnounceSchedule {
    /// The schedule of a node that starts now: its first query is due at once. `seed` makes its
    /// random choices.
    pub fn new(seed: u64, now: Instant) -> Self {
        AnnounceSchedule {
            rng: StdRng::seed_from_u64(seed),
            burst: Burst { begun: now, done: 0, repeated: None, repeat_at: None },
            next: now,
            interval: ANNOUNCE_INTERVAL,
            postponed_until: None,
            pending: PendingAnnounces::default(),
            last_to_group: None,
            arrived: Arrived::default(),
            load: GroupLoad::new(now),
            askers: RecentAskers::default(),
            sources: SourceShares::default(),
        }
    }

    /// When the next packet is due, unless more happens before.
    pub fn next_due(&self) -> Instant {
        let PendingAnnounces { revision_at, answer_at, unanswered_at, broadcast, .. } = self.pending;
        let all = [Some(self.next), revision_at, answer_at, unanswered_at, self.burst.repeat_at];
        let soonest = all.into_iter().flatten().min().unwrap_or(self.next);
        if broadcast { soonest.min(self.burst.begun) } else { soonest }
    }

    /// The time to live to announce, in seconds: three of the current intervals.
    pub fn ttl_s(&self) -> u16 {
        let ttl = (self.interval * TTL_INTERVALS).min(TTL_MAX);
        u16::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(u16::MAX)
    }

    /// The next packet that is due now, in a group of `nodes` with this one; call it until it
    /// returns `None`. [`ttl_s`](Self::ttl_s) is up to date when it returns.
    pub fn due(&mut self, nodes: impl Into<GroupSize>, now: Instant) -> Option<Outgoing> {
        let nodes = nodes.into();
        if std::mem::take(&mut self.pending.broadcast) {
            return Some(Outgoing::Broadcast);
        }
        if self.burst.repeat_at.is_some_and(|at| at <= now) {
            self.burst = Burst { begun: now, done: 0, repeated: Some(now), repeat_at: None };
            (self.next, self.arrived.any) = (now, false);
        }
        if self.burst.done < BURST_MS.len()
            && self.next <= now
            && let Some(query) = self.burst_query(nodes, now)
        {
            return Some(query);
        }
        let busy = self.load.is_busy(now);
        if self.next <= now {
            let longest = self.interval.mul_f64(POSTPONED_INTERVALS);
            // A busy group is spared for a while, but then this node would expire.
            if busy && now < *self.postponed_until.get_or_insert(now + longest) {
                self.next = now + BUSY_GROUP_RETRY.mul_f64(self.rng.random_range(0.2..1.0));
            } else {
                let ttl = self.interval * TTL_INTERVALS;
                let lonely = self.arrived.group.is_none_or(|at| now.saturating_duration_since(at) > ttl);
                self.pending.broadcast = lonely;
                return Some(self.send(if lonely { Outgoing::Query } else { Outgoing::Announce }, nodes, now));
            }
        }
        if self.pending.revision_at.is_some_and(|at| at <= now) {
            if !busy {
                return Some(self.send(Outgoing::Announce, nodes, now));
            }
            let later = BUSY_GROUP_RETRY.mul_f64(self.rng.random_range(0.2..1.0));
            self.pending.revision_at = Some(now + later);
        }
        let PendingAnnounces { answer_at, unanswered_at, .. } = &mut self.pending;
        let answers = [answer_at, unanswered_at].map(|at| at.take_if(|at| *at <= now).is_some());
        if answers.contains(&true) {
            if !busy || !self.may_postpone() {
                return Some(self.send(Outgoing::Announce, nodes, now));
            }
            self.pending.unanswered_at = Some(now + UNANSWERED_AFTER + self.suppression_delay());
        }
        None
    }

    /// Whether the answer that is due may wait once more because the group is busy.
    fn may_postpone(&mut self) -> bool {
        self.pending.postponed += 1;
        self.pending.postponed <= POSTPONED_MAX
    }

    /// The catalogue has a new revision, which is announced at once, but at most once per
    /// [`REVISION_ANNOUNCE_MIN`].
    pub fn changed(&mut self, now: Instant) {
        let soonest = self.last_to_group.map_or(now, |last| now.max(last + REVISION_ANNOUNCE_MIN));
        self.pending.revision_at = Some(self.pending.revision_at.map_or(soonest, |at| at.min(soonest)));
    }

    /// A network came up, so there may be new neighbours: repeats the burst, at most once per
    /// [`ANNOUNCE_INTERVAL`] as a bad cable goes up and down all the time.
    pub fn restart(&mut self, now: Instant) {
        let soonest = self.burst.repeated.map_or(now, |last| now.max(last + ANNOUNCE_INTERVAL));
        self.burst.repeat_at = Some(soonest);
    }

    /// An announce of another host, `source`, arrived. One that is not `is_new` is another copy of
    /// what came over another link or address family: it counts once for the load of the group.
    pub fn received(&mut self, way: Way, source: IpAddr, is_new: bool, now: Instant) {
        self.arrived.any = true;
        if way == Way::Group {
            self.arrived.group = Some(now);
            if is_new && self.sources.counts(source, now) {
                self.load.add(now);
            }
        }
    }

    /// An announce to the group arrived from a node at `source` that offers files, which answers all
    /// queries that came before. `member` says whether that node has proved itself; others count only
    /// in a crowded group.
    pub fn answered(&mut self, member: bool, source: IpAddr, now: Instant) {
        if self.pending.unanswered_at.is_some()
            && (member || self.load.is_crowded(now))
            && self.sources.may_silence(source, now)
        {
            self.pending.unanswered_at = None;
        }
    }

    /// A query arrived, in a group of `nodes` with this one. True if an answer to the asker's own
    /// address is to be sent now; an answer to the group becomes due later. `offering` returns the
    /// number of nodes that offer files, or `None` if this one does not.
    ///
    /// A query is answered with a probability that lets about [`ANSWERERS`] nodes answer. When many
    /// nodes start together, as in a classroom that is switched on, their queries show them to each
    /// other. So a node that has just started with others and offers nothing leaves the answer to
    /// its own next query, unless the group is large enough for exchange. While queries flood the
    /// group, only about [`ANSWERERS_BUSY`] of the nodes that offer something answer.
    ///
    /// A node that offers files and does not answer at once waits for [`UNANSWERED_AFTER`] and a
    /// random time more. Unless a member that offers files was seen by then, it answers to the
    /// group. The random times follow feedback suppression (RFC 5401, 3.2.1): truncated
    /// exponential, so that in a group of any size a few come first and hold the others back.
    pub fn asked(
        &mut self,
        question: &Question,
        nodes: impl Into<GroupSize>,
        offering: impl Fn() -> Option<usize>,
        now: Instant,
    ) -> bool {
        let &Question { asker, seq, unicast } = question;
        if !self.askers.is_new(asker, seq, now) {
            return false;
        }
        let nodes = nodes.into();
        // The group hears its answers: a query that all left to others is answered later. The answers to
        // an asker's own address arrive there alone, so made-up nodes must not count for them.
        let counted = if unicast { self.counted(nodes, now) } else { nodes.known };
        let others = counted.saturating_sub(1).max(1) as f64;
        let mut chance = f64::from(ANSWERERS) / others;
        let is_new = now.saturating_duration_since(self.burst.begun) < Duration::from_millis(BURST_MS[1]);
        let level = if unicast { self.load.level(now) } else { 0.0 };
        let in_company = is_new && level >= GroupLoad::COMPANY;
        self.pending.owes_answer |= in_company;
        if level >= GroupLoad::FLOOD || in_company {
            chance = offering().map_or(0.0, |n| f64::from(ANSWERERS_BUSY) / n.max(1) as f64);
        }
        if !self.rng.random_bool(chance.min(1.0)) {
            if offering().is_some() && self.pending.unanswered_at.is_none() {
                self.pending.unanswered_at = Some(now + UNANSWERED_AFTER + self.suppression_delay());
            }
            return false;
        }
        if unicast {
            return self.askers.may_answer(asker, now);
        }
        if self.pending.answer_at.is_none() {
            // The answers of all nodes that may answer spread over a time in which the group stays
            // quiet.
            let spread_s = others.min(f64::from(ANSWERERS)) / f64::from(GROUP_ANSWERS_PER_S);
            let at = now + Duration::from_secs_f64(self.rng.random_range(0.0..spread_s));
            self.pending.answer_at = Some(self.last_to_group.map_or(at, |last| at.max(last + GROUP_ANSWER_MIN)));
        }
        false
    }

    /// The number of nodes that sets the chance of a unicast answer.
    fn counted(&self, nodes: GroupSize, now: Instant) -> usize {
        if self.load.is_crowded(now) { nodes.known } else { nodes.proved }
    }

    /// A random time up to [`UNANSWERED_SPREAD`], of which short ones are rare.
    fn suppression_delay(&mut self) -> Duration {
        let uniform = self.rng.random_range(0.0..1.0) + f64::MIN_POSITIVE;
        UNANSWERED_SPREAD.mul_f64((1.0 + uniform.ln() / (PEERS_MAX as f64).ln()).clamp(0.0, 1.0))
    }

    /// The query of the burst that is due. The burst ends early once enough nodes answered, as
    /// exchange finds the rest, or when the group is busy.
    fn burst_query(&mut self, nodes: GroupSize, now: Instant) -> Option<Outgoing> {
        let first = self.burst.done == 0;
        let elapsed = now.saturating_duration_since(self.burst.begun);
        self.burst.done = BURST_MS.partition_point(|&ms| Duration::from_millis(ms) <= elapsed);
        let is_busy = self.load.is_busy(now) && !self.pending.owes_answer;
        if !first && (nodes.known > ANSWERERS as usize || is_busy) {
            self.burst.done = BURST_MS.len();
            self.begin_interval(nodes, now);
            return None;
        }
        self.pending.broadcast = elapsed >= BROADCAST_AFTER && !self.arrived.any;
        let query = self.send(if first { Outgoing::QueryUnicast } else { Outgoing::Query }, nodes, now);
        if let Some(&ms) = BURST_MS.get(self.burst.done) {
            self.next = self.burst.begun + Duration::from_millis(ms);
        }
        Some(query)
    }

    /// Notes that `what` goes to the group now. Its announce says all that a pending one would say.
    fn send(&mut self, what: Outgoing, nodes: GroupSize, now: Instant) -> Outgoing {
        self.last_to_group = Some(now);
        self.load.add(now);
        self.pending = PendingAnnounces { broadcast: self.pending.broadcast, ..PendingAnnounces::default() };
        self.postponed_until = None;
        self.begin_interval(nodes, now);
        what
    }

    /// Sets the interval for a group of that size, and its end: somewhat early and never late, so
    /// that two lost announces do not end this node.
    fn begin_interval(&mut self, nodes: GroupSize, now: Instant) {
        self.interval = announce_interval(self.counted(nodes, now).max(nodes.known.min(UNPROVED_COUNTED_MAX)));
        if self.burst.done >= BURST_MS.len() {
            self.next = now + self.interval.mul_f64(self.rng.random_range(0.75..1.0));
        }
    }
}

#[cfg(test)]
mod tests;
