//! What a fetch is at: shared by its thread, its handles and its watchers.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::{Canceller, Failed, FetchError, FileReport, Phase, Progress, Report, Stats};
use crate::runtime::{Watch, deadline};
use crate::sync::lock;

/// The state of a fetch. Each change wakes all that wait for it.
pub(super) struct FetchState {
    /// What was asked for, as shown in messages.
    pub(super) what: String,
    /// The directory that the places of the files lie below.
    pub(super) dir: PathBuf,
    pub(super) canceller: Canceller,
    pub(super) stats: Arc<Stats>,
    status: Watch<FetchStatus>,
    /// Called by the thread of the fetch.
    callbacks: Mutex<Vec<Callback>>,
}

type Callback = Box<dyn FnMut(Progress) + Send>;

/// The end of a fetch, which all that wait for it get.
pub(super) type FetchEnd = Result<Arc<Report>, Failed>;

#[derive(Default)]
struct FetchStatus {
    phase: Phase,
    /// Whether it is to rest.
    pause: bool,
    /// Number of places, and bytes of all contents.
    size: (usize, u64),
    /// The most bytes that were shown as there: a bar never goes back.
    bytes_shown: u64,
    end: Option<FetchEnd>,
}

impl FetchState {
    pub(super) fn new(what: String, dir: PathBuf) -> Self {
        FetchState {
            what,
            dir,
            canceller: Canceller::new(),
            stats: Arc::new(Stats::new()),
            status: Watch::new(FetchStatus::default()),
            callbacks: Mutex::default(),
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.status.changes()
    }

    /// Waits for a change beyond `seen`, at most for `time`.
    pub(super) fn wait_beyond(&self, seen: u64, time: Duration) -> u64 {
        self.status.wait_beyond(seen, time)
    }

    /// Something is different: all that wait look again.
    pub(super) fn wake(&self) {
        self.status.update(|_| ());
    }

    pub(super) fn is_paused(&self) -> bool {
        self.status.read(|status| status.pause)
    }

    pub(super) fn set_paused(&self, pause: bool) {
        self.status.update(|status| status.pause = pause);
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.status.update(|status| status.phase = phase);
    }

    /// What is fetched is known: this many places and bytes.
    pub(super) fn found(&self, files: usize, bytes: u64) {
        self.status.update(|status| (status.phase, status.size) = (Phase::Fetching, (files, bytes)));
    }

    pub(super) fn progress(&self) -> Progress {
        self.status.touch(|status| {
            let mut progress = self.stats.progress(status.phase, status.size.0, status.size.1);
            status.bytes_shown = status.bytes_shown.max(progress.bytes_done);
            progress.bytes_done = status.bytes_shown;
            progress
        })
    }

    /// At most `max` of the files that were put in place, without the first `seen`.
    pub(super) fn files_after(&self, seen: usize, max: usize) -> Vec<FileReport> {
        lock(&self.stats.reports).iter().skip(seen).take(max).cloned().collect()
    }

    /// The end, if it has come.
    pub(super) fn end(&self) -> Option<FetchEnd> {
        self.status.read(|status| status.end.clone())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status.read(|status| status.end.is_some())
    }

    /// Waits for the end, at most for `time`.
    pub(super) fn wait(&self, time: Duration) -> Option<FetchEnd> {
        let until = deadline(time);
        loop {
            let seen = self.changes();
            let left = until.saturating_duration_since(Instant::now());
            match self.end() {
                None if !left.is_zero() => self.wait_beyond(seen, left),
                end => return end,
            };
        }
    }

    /// It is over: with `error`, or well. Later calls change nothing.
    pub(super) fn finish(&self, report: Report, error: Option<Arc<FetchError>>) {
        let report = Arc::new(report);
        let end = match error {
            Some(error) => Err(Failed { error, report }),
            None => Ok(report),
        };
        self.status.update(|status| {
            status.phase = Phase::Ended;
            status.end.get_or_insert(end);
        });
        self.tell();
        // What a callback holds is let go: it may be a handle of this fetch.
        drop(std::mem::take(&mut *lock(&self.callbacks)));
    }

    /// Calls the callbacks.
    pub(super) fn tell(&self) {
        let progress = self.progress();
        lock(&self.callbacks).iter_mut().for_each(|callback| callback(progress));
    }

    /// Calls `callback` now and at each change until the end.
    pub(super) fn on_update(&self, mut callback: Callback) {
        let mut callbacks = lock(&self.callbacks);
        callback(self.progress());
        if !self.has_ended() {
            callbacks.push(callback);
        }
    }
}

impl fmt::Debug for FetchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchState")
            .field("what", &self.what)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
