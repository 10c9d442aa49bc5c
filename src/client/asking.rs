//! How one peer is asked by a survey.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::limits::HURRIED_TIME;
use crate::peers::{AskError, Opening};

/// What each peer of a survey is asked.
#[derive(Clone)]
pub(crate) struct Inquiry<A> {
    /// What `ask` asks first, if it is the same for all: it goes out together with `Hello`.
    pub(crate) opening: Opening,
    /// Asks on a session.
    pub(crate) ask: A,
}

/// How a peer is asked.
pub(crate) struct Asking {
    /// The question is answered: an answer that is still being read ends at its next page.
    pub(crate) over: Arc<AtomicBool>,
    /// When a short try ends, whatever has come.
    until: Option<Instant>,
}

impl Asking {
    /// Asks until the question is `over`, and a short time at most if `hurried`.
    pub(crate) fn new(over: Arc<AtomicBool>, hurried: bool) -> Self {
        Asking { over, until: hurried.then(|| Instant::now() + HURRIED_TIME) }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// For how long a page is waited for: `patience`, or what is left of a short try.
    ///
    /// # Errors
    /// [`AskError::Slow`]: nothing is left.
    pub(crate) fn patience(&self, patience: Duration) -> Result<Duration, AskError> {
        let Some(until) = self.until else { return Ok(patience) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(AskError::Slow) } else { Ok(patience.min(left)) }
    }
}
