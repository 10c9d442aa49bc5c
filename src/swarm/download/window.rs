//! How much to ask for at once on a connection.

use std::time::{Duration, Instant};

use crate::content::Geometry;
use crate::limits::{WINDOW_LEN_MAX, WINDOW_LEN_MIN};
use crate::swarm::download::meter::Meter;
use crate::swarm::download::round_trip::RoundTrip;
use crate::swarm::download::task::{AnyOfTask, ChunkTask, Task};

/// How many bytes to keep in flight on a connection: the bandwidth-delay product, and a little
/// more.
///
/// A window that is too small leaves the link idle for a round trip. One that is too large queues
/// chunks behind a slow peer that a quick one could have delivered. Congestion is the business of
/// TCP below; the window is what a receiver grants, as TCP's own receive window
/// (RFC 9293; its size by Fisk and Feng, *Dynamic Right-Sizing*, 2001), but counted in requests.
///
/// The two quantities are measured apart, as in BBR (Cardwell et al., *BBR: Congestion-Based
/// Congestion Control*, 2016; draft-cardwell-iccrg-bbr-congestion-control):
/// * the round trip is a windowed minimum of answers that nothing held up, see [`RoundTrip`];
/// * the rate is what arrives, see [`Meter`].
///
/// **Search** (BBR's `Startup`, TCP's slow start). A rate below the window over the round trip says
/// what the peer can give; a rate equal to it says only how small the window is. So at first the
/// window is `SEARCH_ROUND_TRIPS` of the best rate. In its slow start TCP sends twice as much in each
/// round trip; what the next two rounds bring must be asked for while only the one before them is
/// measured, and that is six times as much. With less, the slow start waits for requests, and BBR as
/// a sender does not leave its start-up while it does.
/// When the rate has not grown by a quarter in three rounds, the path is full.
///
/// **Cruise**. Then the window is `CRUISE_ROUND_TRIPS` of the mean rate. The shortest round trip is
/// one of them. A narrow place that queues as much as travels, which is usual, makes it two; and a
/// packet that is lost there arrives after another two, in which TCP holds back what follows.
/// `QUEUE_TIME` is added, so that the peer has a request at hand; on a local network that is nearly
/// all of it. A peer that gives less, since its own queue grew or it shares its link with others, is
/// asked for less. Since the window exceeds what is travelling, a rate that may grow does.
///
/// When the mean falls to half of its best, either the peer became slower or the path longer. The
/// first needs nothing; the second would leave the window too small for good. So the round trip is
/// measured again and the search runs again, which costs a peer that became slower three rounds
/// with half a window more.
///
/// **Short paths**, below `FAR`, take half as many round trips in both: no queue there is worth more,
/// and what is asked for ahead costs time in the caches of the processors.
///
/// **End**. When less is left to ask for than a window and a nearer peer gives, too, a far one is asked
/// for `END_ROUND_TRIPS` only: the nearer one would bring the rest sooner, and both would send it.
///
/// **One-chunk files** need one request each. Before a rate is known `START_SMALL` of them are asked
/// for, on a long path `START_SMALL_FAR`: as much as seven rounds
/// of TCP's slow start bring from an initial window of 14,480 bytes (RFC 6928).
#[derive(Debug, Clone)]
pub struct Window {
    round_trip: RoundTrip,
    meter: Meter,
    phase: WindowPhase,
    /// Bytes that are asked for before a rate is known.
    start: u64,
    /// Whether the last task was a one-chunk file: then the window never falls below `start`.
    small: bool,
    /// Little is left to ask for.
    ends: bool,
}

#[derive(Debug, Clone, Copy)]
enum WindowPhase {
    /// The path is not known to be full.
    Search {
        /// Bytes a second of the round that was better by [`GROWTH`] last.
        best: Option<f64>,
        /// Rounds since then, and the sum of their rates.
        stale: (u32, f64),
        /// When it began.
        since: Instant,
    },
    /// It is.
    Cruise {
        /// The best mean rate since then.
        best: f64,
        /// When the search before it began.
        since: Instant,
    },
}

impl Window {
    /// A connection that was just opened, which took `round_trip` for a question and its answer.
    pub fn new(round_trip: Duration, now: Instant) -> Self {
        Window {
            round_trip: RoundTrip::new(round_trip, now),
            meter: Meter::new(now),
            phase: WindowPhase::Search { best: None, stale: (0, 0.0), since: now },
            start: START_SMALL,
            small: true,
            ends: false,
        }
    }

    /// A request that found nothing in flight was answered after `time`. With `waits`, an upload
    /// slot may have been waited for meanwhile.
    pub fn answered(&mut self, time: Duration, waits: bool) {
        if waits { self.round_trip.is_at_most(time) } else { self.round_trip.measured(time) }
    }

    /// `bytes` of chunks came.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        let Some(fresh) = self.meter.add(bytes, self.round_trip.min(), now) else { return };
        self.round_trip.tick(now);
        let mean = self.meter.rate().unwrap_or(fresh);
        match &mut self.phase {
            WindowPhase::Search { best: Some(best), stale, since } if fresh < *best * GROWTH => {
                *stale = (stale.0 + 1, stale.1 + fresh);
                if stale.0 >= STALE_ROUNDS {
                    let (found, since) = (stale.1 / f64::from(stale.0), *since);
                    self.meter.set_rate(found);
                    self.phase = WindowPhase::Cruise { best: found, since };
                }
            }
            WindowPhase::Search { best, stale, .. } => (*best, *stale) = (Some(fresh), (0, 0.0)),
            WindowPhase::Cruise { best, since }
                if mean < *best * FALL && now.saturating_duration_since(*since) >= SEARCH_PAUSE =>
            {
                self.round_trip.doubt();
                self.phase = WindowPhase::Search { best: Some(mean), stale: (0, 0.0), since: now };
            }
            WindowPhase::Cruise { best, .. } => *best = best.max(mean),
        }
    }

    /// The connection had nothing to do.
    pub fn pause(&mut self, now: Instant) {
        self.meter.pause(now);
    }

    /// The window in bytes: less in flight is a reason to ask for more. `None` before the first
    /// measurement.
    pub fn target(&self) -> Option<u64> {
        let (rate, round_trips) = match self.phase {
            WindowPhase::Search { best, .. } => (best?, self.of_path(SEARCH_ROUND_TRIPS)),
            WindowPhase::Cruise { .. } => (self.meter.rate()?, self.of_path(CRUISE_ROUND_TRIPS)),
        };
        Some(self.len(rate, if self.ends { END_ROUND_TRIPS } else { round_trips }))
    }

    /// For so many round trips is asked ahead on this path.
    fn of_path(&self, round_trips: u32) -> u32 {
        if self.is_far() { round_trips } else { round_trips / 2 }
    }

    fn len(&self, rate: f64, round_trips: u32) -> u64 {
        let flying = rate * (self.round_trip.min() * round_trips + QUEUE_TIME).as_secs_f64();
        (flying as u64).clamp(WINDOW_LEN_MIN, WINDOW_LEN_MAX)
    }

    /// `left` is what nearer peers could be asked for in place of this one, in bytes; `None` if there is none or more will
    /// come. It is looked up only for a peer that is far away.
    pub fn note_left(&mut self, left: impl FnOnce() -> Option<u64>) {
        let usual = self.meter.rate().filter(|_| self.is_far()).map(|rate| self.len(rate, CRUISE_ROUND_TRIPS));
        self.ends = usual.is_some_and(|usual| left().is_some_and(|left| left < usual));
    }

    /// Whether the last task was a one-chunk file.
    pub fn is_small(&self) -> bool {
        self.small
    }

    /// Whether a round trip costs more than what is asked for too early.
    pub fn is_far(&self) -> bool {
        self.round_trip.min() >= FAR
    }

    /// At most that many bytes may be in flight before a request that is to measure the round trip;
    /// `None` while no measurement is due.
    pub fn clear_len(&self) -> Option<u64> {
        let half = self.meter.rate().unwrap_or_default() * self.round_trip.min().as_secs_f64() / 2.0;
        self.round_trip.wants().then_some(half as u64)
    }

    /// A request that measures the round trip is on its way.
    pub fn measures(&mut self) {
        self.round_trip.asked();
    }

    /// `task` is asked for.
    pub fn asked<F>(&mut self, task: &Task<F>) {
        match task {
            Task::Chunk(ChunkTask { id, .. }) | Task::AnyOf(AnyOfTask { id, .. }) => {
                (self.start, self.small) = (START_CHUNKS * Geometry::new(id.len).chunk_len(), false);
            }
            Task::Small(_) => {
                (self.start, self.small) = (if self.is_far() { START_SMALL_FAR } else { START_SMALL }, true);
            }
            Task::Layer(_) | Task::Peers { .. } | Task::Have { .. } | Task::Locate(_) => {}
        }
    }

    /// Whether so much of the window is free that a request is worth being sent. One-chunk files are
    /// asked for together, not one by one as answers come.
    pub fn has_room(&self, in_flight: u64) -> bool {
        let together = if self.small { SMALL_TOGETHER } else { 0 };
        in_flight == 0 || self.excess(in_flight + together) == 0
    }

    /// How far the `in_flight` bytes exceed the window.
    pub fn excess(&self, in_flight: u64) -> u64 {
        let len = self.target().map_or(self.start, |len| if self.small { len.max(self.start) } else { len });
        in_flight.saturating_sub(self.clear_len().map_or(len, |clear| clear.min(len)))
    }

    /// Bytes a second on this connection.
    pub fn rate(&self) -> Option<f64> {
        self.meter.rate()
    }

    /// The shortest round trip that was measured lately.
    pub fn round_trip(&self) -> Duration {
        self.round_trip.min()
    }
}

/// Chunks that are asked for before a rate is known.
const START_CHUNKS: u64 = 2;
/// The same for one-chunk files, in bytes; later it is the least, since each of them comes within
/// moments.
const START_SMALL: u64 = 512 << 10;
/// The same on a path whose round trip is [`FAR`] or more.
const START_SMALL_FAR: u64 = 2 << 20;
/// A round trip that costs more than what is asked for too early.
pub(super) const FAR: Duration = Duration::from_millis(20);
/// Bytes of the window that are free when further one-chunk files are asked for.
const SMALL_TOGETHER: u64 = START_SMALL / 8;
/// Time for which a peer has requests at hand beyond the round trips.
const QUEUE_TIME: Duration = Duration::from_millis(30);
/// Round trips for which a search asks ahead: the next two rounds of a slow start.
const SEARCH_ROUND_TRIPS: u32 = 6;
/// Round trips for which is asked ahead afterwards: a full queue, and the repair of a loss behind it.
const CRUISE_ROUND_TRIPS: u32 = 4;
/// The same when little is left to ask for.
const END_ROUND_TRIPS: u32 = 2;
/// Factor by which a round must be better to show that the path is not full.
const GROWTH: f64 = 1.25;
/// Rounds without such growth that end the search.
const STALE_ROUNDS: u32 = 3;
/// Part of the best mean rate below which something has changed.
const FALL: f64 = 0.5;
/// Shortest time between the beginnings of two searches.
const SEARCH_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
