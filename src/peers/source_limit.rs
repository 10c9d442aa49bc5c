//! A rate limit of datagrams for each source address: token buckets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::{DATAGRAMS_PER_SOURCE_BURST, DATAGRAMS_PER_SOURCE_PER_S, SOURCES_TRACKED_MAX};

/// One token bucket per source address, at most [`SOURCES_TRACKED_MAX`].
#[derive(Debug, Default)]
pub(super) struct SourceLimit {
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl SourceLimit {
    /// Whether another datagram of `source` may be read.
    pub(super) fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= SOURCES_TRACKED_MAX && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| bucket.refilled(now) < BURST);
            if self.buckets.len() >= SOURCES_TRACKED_MAX {
                // A LAN has fewer sources, so these are forged and no limit per source holds them
                // back. All buckets start full again.
                self.buckets.clear();
            }
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { left: BURST, at: now });
        bucket.left = bucket.refilled(now);
        bucket.at = now;
        let allowed = bucket.left >= 1.0;
        if allowed {
            bucket.left -= 1.0;
        }
        allowed
    }
}

impl Bucket {
    fn refilled(&self, now: Instant) -> f64 {
        let since_s = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since_s * f64::from(DATAGRAMS_PER_SOURCE_PER_S)).min(BURST)
    }
}

const BURST: f64 = DATAGRAMS_PER_SOURCE_BURST as f64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_flood_is_held_back_and_its_neighbours_are_not() {
        let (mut sources, t) = (SourceLimit::default(), Instant::now());
        let allowed = (0..10_000).filter(|ms| sources.allows(ip(1), t + Duration::from_millis(*ms))).count();
        let most = DATAGRAMS_PER_SOURCE_BURST + 10 * DATAGRAMS_PER_SOURCE_PER_S;
        assert!((most as usize - 2..=most as usize).contains(&allowed), "{allowed}");
        assert!(sources.allows(ip(2), t + Duration::from_secs(10)));
    }

    #[test]
    fn made_up_sources_take_no_memory() {
        let (mut sources, t) = (SourceLimit::default(), Instant::now());
        for n in 0..3 * SOURCES_TRACKED_MAX as u32 {
            assert!(sources.allows(ip(n), t));
        }
        assert!(sources.buckets.len() <= SOURCES_TRACKED_MAX);
    }
}
