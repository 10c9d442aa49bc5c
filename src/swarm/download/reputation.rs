//! What a download has learned about a peer: whether and when to dial it again.

use std::time::{Duration, Instant};

use crate::limits::RETRY_MIN;
use crate::swarm::download::limits::RETRY_MAX;

/// Lies and failures of a peer in one download.
#[derive(Debug, Clone, Default)]
pub struct Reputation {
    strikes: u32,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Reputation {
    /// The peer sent bytes that it said are right and are not. It is not asked again in this
    /// download.
    pub fn strike(&mut self) {
        self.strikes += 1;
    }

    /// Whether the peer has lied.
    pub fn is_banned(&self) -> bool {
        self.strikes > 0
    }

    /// A connection failed: returns when to dial again. The back-off doubles from [`RETRY_MIN`] to
    /// [`RETRY_MAX`] (RFC 8961); `jitter` in `0..1` takes off up to a quarter, so that peers do not
    /// dial again together.
    pub fn failed(&mut self, now: Instant, jitter: f64) -> Instant {
        let full = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures += 1;
        let at = now + full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
        self.retry_at = Some(at);
        at
    }

    /// The peer is full and asks for a pause of `wait`, of which at most [`RETRY_MAX`] is kept.
    pub fn busy(&mut self, now: Instant, wait: Duration) -> Instant {
        let at = now + wait.clamp(RETRY_MIN, RETRY_MAX);
        self.retry_at = Some(at);
        at
    }

    /// The peer was of use: earlier failures are forgotten.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the peer may be dialed now.
    pub fn may_try(&self, now: Instant) -> bool {
        !self.is_banned() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// When the peer may be dialed again; `None` after a success.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let now = Instant::now();
        let mut r = Reputation::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(r.failed(now, 0.0) - now);
        }
        assert_eq!(waits[0], RETRY_MIN);
        assert_eq!(waits[1], RETRY_MIN * 2);
        assert_eq!(*waits.last().unwrap(), RETRY_MAX);
        assert!(!r.may_try(now) && r.may_try(now + RETRY_MAX));
        let jittered = r.failed(now, 1.0) - now;
        assert!(jittered >= RETRY_MAX * 3 / 4 - Duration::from_millis(1) && jittered < RETRY_MAX);
        r.succeeded();
        assert!(r.may_try(now) && r.failures() == 0);
    }

    #[test]
    fn a_liar_stays_banned_and_busy_is_believed_within_bounds() {
        let now = Instant::now();
        let mut r = Reputation::default();
        assert_eq!(r.busy(now, Duration::from_secs(9999)) - now, RETRY_MAX);
        assert_eq!(r.busy(now, Duration::ZERO) - now, RETRY_MIN);
        r.strike();
        r.succeeded();
        assert!(r.is_banned() && !r.may_try(now + Duration::from_secs(9999)));
    }
}
