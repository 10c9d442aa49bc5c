//! Counts of the announces that arrived and were dropped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::discovery::limits::DROPS_LOGGED_EVERY;
use crate::identity::PeerId;
use crate::swarm::Dropped;
use crate::sync::lock;

/// Counters that all threads add to.
#[derive(Debug, Default)]
pub(super) struct Drops {
    sent: AtomicU64,
    heard: AtomicU64,
    admitted: AtomicU64,
    hints: [AtomicU64; 2],
    hints_dropped: AtomicU64,
    by_reason: [AtomicU64; Dropped::ALL.len()],
    untrusted: Mutex<Option<PeerId>>,
    /// When the drops were last logged, and the numbers at that time.
    logged: Mutex<(Option<Instant>, DiscoveryStats)>,
}

/// Numbers of announces that arrived, were taken in, and were dropped.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let nodes = lan.nodes(2)?;
/// # nodes[0].peers(std::time::Duration::from_secs(5))?;
/// let stats = nodes[0].discovery_stats();
/// assert!(stats.heard > 0 && stats.dropped_all() <= stats.heard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryStats {
    /// Announces that were sent, to the group or to one node.
    pub sent: u64,
    /// Datagrams that arrived, without the node's own.
    pub heard: u64,
    /// Datagrams that were taken in.
    pub admitted: u64,
    /// Dials of places that DNS-SD or the DHT named, and how many of them proved the key that was named.
    pub hints_dialed: u64,
    /// See [`hints_dialed`](Self::hints_dialed).
    pub hints_proved: u64,
    /// What DNS-SD or the DHT named and was not dialed: of another network or version, malformed, forged,
    /// old, untrusted, or too much.
    pub hints_dropped: u64,
    /// The first key whose announces were dropped as untrusted. That it is there is not proved.
    pub untrusted: Option<PeerId>,
    by_reason: [u64; Dropped::ALL.len()],
}

impl Drops {
    pub(super) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, reason: Dropped) {
        self.by_reason[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes which key is not trusted.
    pub(super) fn note_untrusted(&self, peer: PeerId) {
        lock(&self.untrusted).get_or_insert(peer);
    }

    /// Counts the dial of a place that strangers named.
    #[cfg(any(feature = "dns-sd", feature = "dht"))]
    pub(super) fn count_hint(&self, proved: bool) {
        self.hints[usize::from(proved)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what strangers named and is not dialed.
    #[cfg(any(feature = "dns-sd", feature = "dht"))]
    pub(super) fn count_hint_dropped(&self, reason: Dropped) {
        log::trace!("hint dropped error=\"{reason}\"");
        self.hints_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> DiscoveryStats {
        let [failed, proved] = [0, 1].map(|n: usize| self.hints[n].load(Ordering::Relaxed));
        DiscoveryStats {
            hints_dialed: failed + proved,
            hints_proved: proved,
            hints_dropped: self.hints_dropped.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            heard: self.heard.load(Ordering::Relaxed),
            admitted: self.admitted.load(Ordering::Relaxed),
            untrusted: *lock(&self.untrusted),
            by_reason: std::array::from_fn(|i| self.by_reason[i].load(Ordering::Relaxed)),
        }
    }

    /// Logs what was dropped since the last time, at most once per [`DROPS_LOGGED_EVERY`].
    pub(super) fn log(&self, now: Instant) {
        let mut logged = lock(&self.logged);
        let (at, before) = *logged;
        let Some(at) = at else {
            logged.0 = Some(now);
            return;
        };
        if now.saturating_duration_since(at) < DROPS_LOGGED_EVERY {
            return;
        }
        let stats = self.stats();
        *logged = (Some(now), stats);
        for reason in Dropped::ALL {
            // Another network on the same link is no fault.
            let new = stats.dropped(reason) - before.dropped(reason);
            let level = if reason == Dropped::Network { log::Level::Debug } else { log::Level::Warn };
            if new > 0 {
                log::log!(level, "announces dropped error=\"{reason}\" count={new}");
            }
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for DiscoveryStats {
    /// The counters by name; what was dropped is a map from the reason to its number.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let dropped: std::collections::BTreeMap<_, _> =
            Dropped::ALL.iter().map(|reason| (reason.to_string(), self.dropped(*reason))).collect();
        let mut fields = to.serialize_struct("DiscoveryStats", 7)?;
        fields.serialize_field("sent", &self.sent)?;
        fields.serialize_field("heard", &self.heard)?;
        fields.serialize_field("admitted", &self.admitted)?;
        fields.serialize_field("dropped", &dropped)?;
        fields.serialize_field("hints_dialed", &self.hints_dialed)?;
        fields.serialize_field("hints_proved", &self.hints_proved)?;
        fields.serialize_field("hints_dropped", &self.hints_dropped)?;
        fields.end()
    }
}

impl DiscoveryStats {
    /// Announces that were dropped for that reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.by_reason[reason as usize]
    }

    /// Announces that were dropped for any reason.
    pub fn dropped_all(&self) -> u64 {
        self.by_reason.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let drops = Drops::default();
        drops.count(Dropped::Forged);
        drops.count(Dropped::Forged);
        drops.count(Dropped::Full);
        let stats = drops.stats();
        assert_eq!((stats.dropped(Dropped::Forged), stats.dropped(Dropped::Full)), (2, 1));
        assert_eq!((stats.dropped(Dropped::Oversized), stats.dropped_all()), (0, 3));
    }
}
