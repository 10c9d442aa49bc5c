//! How fetches failed since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::FetchError;

/// Counts failed fetches by kind.
#[derive(Debug, Default)]
pub(crate) struct FailureCounts([AtomicU64; FetchError::KINDS.len()]);

impl FailureCounts {
    pub(crate) fn count(&self, error: &FetchError) {
        if let Some(count) = self.0.get(usize::from(error.rank())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The kinds that came, and how often.
    pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        FetchError::KINDS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}
