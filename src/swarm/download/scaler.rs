//! How many connections to a peer help.

use std::time::{Duration, Instant};

use crate::limits::{CONNECTIONS_PER_PEER_MAX, MIB};
use crate::swarm::download::window::FAR;

/// Finds the number of connections to one peer by hill climbing.
///
/// It measures the rate of the peer, adds a connection, and drops it again if the rate did not grow
/// by `GAIN`. A connection that brings nothing does harm: several connections share the link of a
/// peer unfairly, and a chunk on one of them may take a hundred times as long as on another.
///
/// On a long path, `FAR` or more, a trial costs a second of the rate, as both connections lose packets while
/// the further one finds its rate. So none is made while the rate of the first one still grows, which would be credited
/// to the second. Nor is one made for `PAUSE` when the rate then stays the same, as it does where the path is full or the
/// peer limits what it sends, and losses do not let it. A rate that a send buffer bounds stays the same, too; it is
/// `BUFFER` in a round trip or more.
///
/// All times grow with the round trip, since a connection needs some of them: three to be opened,
/// and then TCP's slow start and the search of the [`Window`](crate::swarm::Window) until it has
/// its rate. On a long path a further connection helps where the socket buffers of the system are
/// smaller than bandwidth times delay, and where a loss costs each of them part of its rate.
#[derive(Debug, Clone)]
pub struct ConnectionScaler {
    /// Begin of the present measurement.
    since: Instant,
    /// Bytes that had come by then.
    read: u64,
    connections: usize,
    /// Bytes a second before the connection on trial was added.
    before: Option<f64>,
    /// Until when a connection that was just added does not have its rate.
    begins_until: Option<Instant>,
    settled_until: Option<Instant>,
    /// Whether the beginning, in which little or nothing comes, is over.
    steady: bool,
    /// Bytes a second in the measurement before, of a lone connection on a long path, and how often it has been the same.
    last: Option<f64>,
    same: u32,
}

/// What to do about a peer's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalerAdvice {
    /// Nothing.
    Keep,
    /// Open another one.
    Add,
    /// End the one that was opened last.
    Drop,
}

impl ConnectionScaler {
    /// A peer without a connection.
    pub fn new(now: Instant) -> Self {
        ConnectionScaler {
            since: now,
            read: 0,
            connections: 0,
            before: None,
            begins_until: None,
            settled_until: None,
            steady: false,
            last: None,
            same: 0,
        }
    }

    /// The peer at the end of a path with that `round_trip` has that number of `connections`, which
    /// have `read` that number of bytes by now. `worthwhile` says whether enough is left to fetch
    /// for a further one.
    pub fn advise(
        &mut self,
        connections: usize,
        round_trip: Duration,
        read: u64,
        worthwhile: impl FnOnce() -> bool,
        now: Instant,
    ) -> ScalerAdvice {
        if connections != self.connections {
            // One has failed, or could not be opened: the trial is over.
            (self.before, self.last, self.same) = (None, None, 0);
            self.connections = connections;
            self.steady = connections > 1;
            self.restart(read, now);
        }
        if self.begins_until.is_some_and(|until| now < until) {
            self.restart(read, now);
            return ScalerAdvice::Keep;
        }
        let (elapsed, came) = (now.saturating_duration_since(self.since), read - self.read);
        let span = match connections {
            0 | 1 if self.last.is_none() => FIRST + round_trip * BEGIN_ROUND_TRIPS,
            _ => SPAN + round_trip * SPAN_ROUND_TRIPS,
        };
        if connections == 0 || elapsed < span {
            return ScalerAdvice::Keep;
        }
        if came < SAMPLE && elapsed < SPAN_MAX.max(span) {
            if !self.steady {
                self.steady = came > 0;
                self.restart(read, now);
            }
            return ScalerAdvice::Keep;
        }
        self.restart(read, now);
        if came == 0 {
            return ScalerAdvice::Keep;
        }
        let rate = came as f64 / elapsed.as_secs_f64();
        let is_far = round_trip >= FAR;
        let gain = if is_far && connections == 2 { GAIN_FAR } else { GAIN };
        if self.before.take().is_some_and(|before| rate < before * gain) {
            self.settled_until = Some(now + if is_far { PAUSE_FAR } else { PAUSE });
            return ScalerAdvice::Drop;
        }
        let settled = self.settled_until.is_some_and(|until| now < until);
        if came < ADD_MIN || settled || connections >= CONNECTIONS_PER_PEER_MAX || !worthwhile() {
            return ScalerAdvice::Keep;
        }
        if is_far && connections == 1 && !self.may_try(rate, round_trip, now) {
            return ScalerAdvice::Keep;
        }
        (self.before, self.last, self.same) = (Some(rate), None, 0);
        self.begins_until = Some(now + round_trip * BEGIN_ROUND_TRIPS);
        self.connections += 1;
        ScalerAdvice::Add
    }

    /// Whether a second connection is worth a trial on a long path, where the first one had that `rate` in the measurement.
    fn may_try(&mut self, rate: f64, round_trip: Duration, now: Instant) -> bool {
        let last = self.last.replace(rate);
        if rate * round_trip.as_secs_f64() >= BUFFER || self.same >= SAME_TIMES {
            return true;
        }
        // The first measurement has the slow start in it.
        let Some(change) = last.map(|last| rate / last) else { return false };
        if change > 1.0 + SAME {
            self.same = 0;
            return false;
        }
        self.same = if change >= 1.0 - SAME { self.same + 1 } else { 0 };
        if self.same >= SAME_TIMES {
            // Then one is tried all the same: the buffer may be a small one.
            self.settled_until = Some(now + PAUSE);
        }
        self.same == 0
    }

    /// A further connection could not be opened: none is tried for a while.
    pub fn could_not_add(&mut self, now: Instant) {
        (self.before, self.settled_until) = (None, Some(now + PAUSE));
    }

    /// A further connection can be had that could not be had before.
    pub fn may_add(&mut self) {
        self.settled_until = None;
    }

    fn restart(&mut self, read: u64, now: Instant) {
        (self.since, self.read) = (now, read);
    }
}

/// A second connection is tried after this time.
const FIRST: Duration = Duration::from_millis(50);
/// Time over which the rate of a peer is measured before a further one is tried.
const SPAN: Duration = Duration::from_millis(250);
/// What the path adds to that in round trips.
const SPAN_ROUND_TRIPS: u32 = 4;
/// Round trips after which a connection that is opened has its rate.
const BEGIN_ROUND_TRIPS: u32 = 10;
/// Bytes that make a rate: less is noise, as a link delivers in bursts.
const SAMPLE: u64 = 8 << 20;
/// A peer that gives less in a measurement gets no further connection: it takes a place of the set.
const ADD_MIN: u64 = 1 << 20;
/// After this time any number of bytes makes a rate.
const SPAN_MAX: Duration = Duration::from_secs(2);
/// Factor by which a further connection must raise the rate to stay.
const GAIN: f64 = 1.1;
/// The same of the second one on a long path, where the repair of losses lets the rate vary.
const GAIN_FAR: f64 = 1.25;
/// Pause after a connection that did not help.
const PAUSE: Duration = Duration::from_secs(30);
/// The same on a long path.
const PAUSE_FAR: Duration = Duration::from_secs(90);
/// By which part rates differ that count as the same.
const SAME: f64 = 0.04;
/// How often a rate is to be the same until the path counts as full.
const SAME_TIMES: u32 = 2;
/// Bytes that travel at once where the send buffer of the peer may be what bounds the rate: Linux lets it grow to 4 MiB, of
/// which two thirds or more travel.
const BUFFER: f64 = 2.5 * MIB as f64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that gives as many bytes a second as `rate` says of its connections, looked at every
    /// 50 ms.
    struct Lab {
        scaler: ConnectionScaler,
        now: Instant,
        connections: usize,
        read: u64,
        tried: u32,
        round_trip: Duration,
        /// How long a connection needs until it brings something.
        begins_after: Duration,
        begun: Vec<Instant>,
    }

    impl Lab {
        fn new() -> Self {
            let now = Instant::now();
            Lab {
                scaler: ConnectionScaler::new(now),
                now,
                connections: 1,
                read: 0,
                tried: 0,
                round_trip: Duration::from_micros(200),
                begins_after: Duration::ZERO,
                begun: vec![now],
            }
        }

        fn run(&mut self, time: Duration, rate: impl Fn(usize) -> u64) {
            for _ in 0..time.as_millis() / 50 {
                match self.scaler.advise(self.connections, self.round_trip, self.read, || true, self.now) {
                    ScalerAdvice::Keep => {}
                    ScalerAdvice::Add => {
                        self.connections += 1;
                        self.tried += 1;
                        self.begun.push(self.now);
                    }
                    ScalerAdvice::Drop => {
                        self.connections -= 1;
                        self.begun.pop();
                    }
                }
                let at_rate = self.begun.iter().filter(|&&at| self.now - at >= self.begins_after).count();
                self.read += rate(at_rate) / 20;
                self.now += Duration::from_millis(50);
            }
        }
    }

    #[test]
    fn connections_are_added_as_long_as_each_helps() {
        let mut lab = Lab::new();
        lab.run(Duration::from_secs(2), |n| 500_000_000 * n.min(3) as u64);
        assert_eq!((lab.connections, lab.tried), (3, 3), "the fourth was tried and let go");
    }

    #[test]
    fn a_full_link_keeps_one_connection_and_is_seldom_tried() {
        let mut lab = Lab::new();
        lab.run(Duration::from_secs(20), |_| 12_000_000);
        assert_eq!((lab.connections, lab.tried), (1, 1));
        lab.run(Duration::from_secs(40), |_| 12_000_000);
        assert_eq!((lab.connections, lab.tried), (1, 2));
    }

    #[test]
    fn the_beginning_of_a_slow_connection_is_not_its_rate() {
        let mut lab = Lab::new();
        // Nothing for a while, then the full rate: a second connection must not look like the
        // cause.
        lab.run(Duration::from_millis(50), |_| 0);
        lab.run(Duration::from_millis(50), |_| 1_000_000);
        lab.run(Duration::from_secs(3), |_| 60_000_000);
        assert_eq!((lab.connections, lab.tried), (1, 1));
    }

    #[test]
    fn a_peer_that_gives_little_gets_its_chance_too() {
        let mut lab = Lab::new();
        lab.run(Duration::from_secs(20), |n| 600_000 * n as u64);
        assert_eq!(lab.connections, CONNECTIONS_PER_PEER_MAX);
    }

    /// Peers that dripped grew to all connections of a download, so that no other was dialed.
    #[test]
    fn a_peer_that_gives_next_to_nothing_keeps_one_connection() {
        for rate in [0, 20, 1000, 400_000] {
            let mut lab = Lab::new();
            lab.run(Duration::from_secs(20), |n| rate * n as u64);
            assert_eq!((lab.connections, lab.tried), (1, 0), "{rate}");
        }
    }

    /// Each had its dial and its slow start before it; the trial was over by then, and none was kept.
    #[test]
    fn on_a_long_path_a_connection_is_judged_once_it_has_its_rate() {
        for round_trip_ms in [50, 100, 200, 300] {
            let mut lab = Lab::new();
            lab.round_trip = Duration::from_millis(round_trip_ms);
            lab.begins_after = lab.round_trip * 9;
            lab.run(Duration::from_secs(25), |n| 2_750_000 * 1000 / round_trip_ms * n.min(4) as u64);
            assert_eq!((lab.connections, lab.tried), (4, 4), "{round_trip_ms} ms");
        }
    }

    /// Cause: the first measurement was the slow start. Effect: the second connection seemed to bring what the first one brought
    /// a moment later, and stayed; over 100 Mbit/s and 200 ms both lost 15 % of their packets, and the rate went up and down by
    /// half. Mend: none is tried while the rate grows.
    #[test]
    fn the_slow_start_of_a_long_path_is_not_what_a_second_connection_brings() {
        for round_trip_ms in [50, 100, 200] {
            let mut lab = Lab::new();
            lab.round_trip = Duration::from_millis(round_trip_ms);
            for (round_trips, rate) in [(6, 20_000), (2, 1_500_000), (3, 7_000_000), (150, 12_000_000)] {
                lab.run(lab.round_trip * round_trips, |_| rate);
            }
            assert_eq!((lab.connections, lab.tried), (1, 0), "{round_trip_ms} ms");
            // A small buffer may be what bounds the rate, so one is tried all the same.
            lab.run(PAUSE, |_| 12_000_000);
            assert_eq!((lab.connections, lab.tried), (1, 1), "{round_trip_ms} ms");
        }
    }

    /// A lone connection loses half of its rate, and has it again, over and over.
    #[test]
    fn a_rate_that_losses_bound_is_soon_shared_by_connections() {
        let mut lab = Lab::new();
        lab.round_trip = Duration::from_millis(100);
        for second in 0..40 {
            let part = [70, 80, 90, 100, 60][second % 5];
            lab.run(Duration::from_secs(1), |n| 12_000 * part * n.min(4) as u64);
        }
        assert_eq!(lab.connections, 4);
    }

    #[test]
    fn none_is_added_when_little_is_left_and_none_is_let_go_for_one_that_failed() {
        let mut lab = Lab::new();
        let mut look = |n, read, ms, more| {
            lab.scaler.advise(n, Duration::ZERO, read, || more, lab.now + Duration::from_millis(ms))
        };
        assert_eq!(look(1, 0, 0, true), ScalerAdvice::Keep);
        assert_eq!(look(1, 100 << 20, 50, false), ScalerAdvice::Keep);
        assert_eq!(look(1, 200 << 20, 100, true), ScalerAdvice::Add);
        assert_eq!(look(2, 200 << 20, 110, true), ScalerAdvice::Keep);
        assert_eq!(look(1, 300 << 20, 400, true), ScalerAdvice::Keep, "the added one is gone by itself");
        assert_eq!(look(1, 400 << 20, 450, true), ScalerAdvice::Add);
    }

    /// A peer behind a NAT cannot be dialed: each trial would fail, several times a second.
    #[test]
    fn a_connection_that_cannot_be_opened_is_not_tried_again_and_again() {
        let mut lab = Lab::new();
        lab.run(Duration::from_secs(2), |_| 100 << 20);
        assert!(lab.tried > 0);
        let tried = lab.tried;
        (lab.connections, lab.begun) = (1, vec![lab.now]);
        lab.scaler.could_not_add(lab.now);
        lab.run(PAUSE - Duration::from_secs(1), |_| 100 << 20);
        assert_eq!(lab.tried, tried);
        lab.scaler.may_add();
        lab.run(Duration::from_secs(2), |_| 100 << 20);
        assert!(lab.tried > tried, "it offers another one");
    }
}
