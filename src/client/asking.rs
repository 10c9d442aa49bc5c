//! How one peer is asked by a survey.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::limits::HURRIED_PAGE;

/// How a peer is asked.
pub(crate) struct Asking {
    /// The question is answered: an answer that goes on ends at its next page.
    pub(crate) over: Arc<AtomicBool>,
    /// It gets a short try, as many others wait.
    pub(crate) hurried: bool,
}

impl Asking {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// For how long a page is waited for: `patience`, or less in a hurry.
    pub(crate) fn patience(&self, patience: Duration) -> Duration {
        if self.hurried { patience.min(HURRIED_PAGE) } else { patience }
    }
}
