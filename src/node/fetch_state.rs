//! What a fetch is at: shared by its thread, its handles and its watchers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::client::{Canceller, Failed, FailedFile, FetchError, FileReport, Phase, Progress, Report, Stats};
use crate::node::callbacks::{Callback, Callbacks};
use crate::runtime::{OnBegin, Subscription, Watch, deadline};
use crate::sync::lock;

/// The state of a fetch. Each change wakes all that wait for it.
pub(super) struct FetchState {
    /// What was asked for, as shown in messages.
    pub(super) what: String,
    /// The directory that the places of the files lie below.
    dir: PathBuf,
    /// The same, once it depended on what was found.
    found_dir: OnceLock<PathBuf>,
    pub(super) canceller: Canceller,
    pub(super) stats: Arc<Stats>,
    status: Watch<FetchStatus>,
    /// Called by the thread of the fetch.
    callbacks: Callbacks,
}

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
            found_dir: OnceLock::new(),
            canceller: Canceller::new(),
            stats: Arc::new(Stats::new()),
            status: Watch::new(FetchStatus::default()),
            callbacks: Callbacks::default(),
        }
    }

    /// The directory that the places of the files lie below.
    pub(super) fn dir(&self) -> &Path {
        self.found_dir.get().unwrap_or(&self.dir)
    }

    /// What was found goes below `dir`.
    pub(super) fn set_dir(&self, dir: &Path) {
        let _ = self.found_dir.set(dir.to_path_buf());
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
        self.callbacks.end(self.progress());
    }

    /// Calls the callbacks.
    pub(super) fn tell(&self) {
        self.callbacks.tell(self.progress());
    }

    /// Calls `callback` now and at each change until the end.
    pub(super) fn on_update(&self, mut callback: Callback) {
        let at = self.progress();
        callback(at);
        if at.phase == Phase::Ended {
            return;
        }
        self.callbacks.add(callback);
        // A change that came meanwhile may have found no callback.
        if self.has_ended() {
            self.callbacks.end(self.progress());
        } else if self.progress().phase != at.phase {
            self.wake();
        }
    }

    /// Cancels what `canceller` was given to when the fetch is to end or to rest.
    pub(super) fn interrupts(self: &Arc<Self>, canceller: &Canceller) -> (OnBegin, Subscription) {
        let (ending, resting, state) = (canceller.clone(), canceller.clone(), Arc::downgrade(self));
        let end = self.canceller.signal().while_held(move || ending.cancel());
        let rest = self.status.subscribe(move || {
            if state.upgrade().is_some_and(|state| state.is_paused()) {
                resting.cancel();
            }
        });
        // It may have come before the subscription.
        if self.is_paused() {
            canceller.cancel();
        }
        (end, rest)
    }

    /// What was reached by now, and what `failed`.
    pub(super) fn report(&self, failed: Vec<FailedFile>) -> Report {
        self.stats.report(self.dir().to_path_buf(), failed)
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn state() -> Arc<FetchState> {
        Arc::new(FetchState::new("x".into(), "/x".into()))
    }

    #[test]
    fn a_callback_that_panics_is_let_go_and_the_others_are_called_on() {
        let (state, (tell, told)) = (state(), mpsc::channel());
        let mut calls = 0;
        state.on_update(Box::new(move |_| {
            calls += 1;
            assert!(calls < 2, "it panics for the test");
        }));
        let last = tell.clone();
        state.on_update(Box::new(move |at| tell.send(at.phase).unwrap()));
        state.on_update(Box::new(move |at| {
            last.send(at.phase).unwrap();
            assert!(at.phase != Phase::Ended, "it panics for the test");
        }));
        state.tell();
        state.finish(Report::default(), None);
        assert_eq!(told.iter().filter(|phase| *phase == Phase::Ended).count(), 2);
    }

    #[test]
    fn an_end_that_comes_in_the_first_call_is_told_once() {
        let (state, (tell, told)) = (state(), mpsc::channel());
        let (ending, mut is_first) = (state.clone(), true);
        state.on_update(Box::new(move |at| {
            tell.send(at.phase).unwrap();
            if std::mem::replace(&mut is_first, false) {
                ending.finish(Report::default(), None);
            }
        }));
        assert_eq!(told.iter().collect::<Vec<_>>(), [Phase::Searching, Phase::Ended]);
    }

    #[test]
    fn a_callback_may_add_another_to_the_same_fetch() {
        let (state, (tell, told)) = (state(), mpsc::channel());
        let (weak, tell) = (Arc::downgrade(&state), Arc::new(Mutex::new(tell)));
        let mut has_added = false;
        state.on_update(Box::new(move |_| {
            let (Some(state), tell) = (weak.upgrade(), tell.clone()) else { return };
            if !std::mem::replace(&mut has_added, true) {
                state.on_update(Box::new(move |at| lock(&tell).send(at.phase).unwrap()));
            }
        }));
        state.tell();
        state.finish(Report::default(), None);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [Phase::Searching, Phase::Searching, Phase::Ended]);
    }
}
