//! What happens in a fetch, for a program that waits for it rather than polls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{FileReport, Phase, Progress};
use crate::limits::WAIT_MAX;
use crate::node::fetch_state::FetchState;
use crate::node::limits::UPDATE_FILES;
use crate::runtime::deadline;

/// News of a [`Fetch`](crate::Fetch), from [`Updates`].
///
/// ```
/// use gpb::Update;
///
/// fn shown(update: &Update) -> String {
///     match update {
///         Update::Progress(at) => format!("{} of {} bytes", at.bytes_done, at.bytes),
///         Update::File(file) => format!("{} is there", file.out),
///         // Later versions may tell more.
///         _ => String::new(),
///     }
/// }
/// # assert_eq!(shown(&Update::Ended), "");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Update {
    /// The fetch is further, or in another phase. Only the newest state is reported: a slow reader
    /// skips the ones before it.
    Progress(Progress),
    /// A file is in place. Every one is reported.
    File(FileReport),
    /// It is over: [`Fetch::wait`](crate::Fetch::wait) returns at once.
    Ended,
}

/// The news of a [`Fetch`](crate::Fetch) since it began; see
/// [`Fetch::updates`](crate::Fetch::updates).
///
/// An iterator that blocks until there is news, and ends behind [`Update::Ended`]. Nothing is
/// queued for it, so a reader may be slow or stop: files are read from the report of the fetch, and
/// of the progress only the newest state is returned. It does not keep the fetch alive.
///
/// ```
/// use gpb::Update;
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("d/a", b"a"), ("d/b", b"b")])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch("d")?;
/// let mut files = 0;
/// for update in fetch.updates() {
///     match update {
///         Update::Progress(at) => println!("{:?}: {} of {} bytes", at.phase, at.bytes_done, at.bytes),
///         Update::File(_) => files += 1,
///         _ => {}
///     }
/// }
/// assert_eq!(files, fetch.wait()?.files);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Updates {
    state: Arc<FetchState>,
    /// Number of the change that was reported last; `None` before the first.
    seen: Option<u64>,
    /// Number of files read from the fetch, and those of them that are still to be reported.
    read: usize,
    files: VecDeque<FileReport>,
    last: Option<Progress>,
    ended: bool,
}

impl Updates {
    pub(super) fn new(state: Arc<FetchState>) -> Self {
        Updates { state, seen: None, read: 0, files: VecDeque::new(), last: None, ended: false }
    }

    /// Waits for news, at most for `time`; `None` when none came. Behind the last news it returns
    /// [`Update::Ended`] again and again.
    pub fn recv_timeout(&mut self, time: Duration) -> Option<Update> {
        let until = deadline(time);
        loop {
            if let Some(update) = self.ready() {
                return Some(update);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.state.wait_beyond(self.seen.unwrap_or(0), left);
        }
    }

    /// News that is there already, if there is any. Does not block.
    pub fn try_recv(&mut self) -> Option<Update> {
        self.ready()
    }

    fn ready(&mut self) -> Option<Update> {
        // The end and the number of changes are read first: what follows them is reported next time.
        let (ended, changes) = (self.state.has_ended(), self.state.changes());
        if self.files.is_empty() {
            self.files.extend(self.state.files_after(self.read, UPDATE_FILES));
            self.read += self.files.len();
        }
        if let Some(file) = self.files.pop_front() {
            return Some(Update::File(file));
        }
        if self.seen.replace(changes) != Some(changes) {
            let progress = self.state.progress();
            let shown = Progress { seconds: 0.0, ..progress };
            if self.last.replace(shown) != Some(shown) {
                return Some(Update::Progress(progress));
            }
        }
        self.ended |= ended && self.last.is_some_and(|last| last.phase == Phase::Ended);
        self.ended.then_some(Update::Ended)
    }
}

impl Iterator for Updates {
    type Item = Update;

    /// Blocks until there is news; `None` behind [`Update::Ended`].
    fn next(&mut self) -> Option<Update> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(update) = self.recv_timeout(WAIT_MAX) {
                return Some(update);
            }
        }
    }
}
