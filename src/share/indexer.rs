//! The indexing thread, which decides what is offered.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, select};

use crate::content::{Entry, RelPath};
use crate::runtime::Shutdown;
use crate::share::callers::Callers;
use crate::share::catalogue_draft::CatalogueDraft;
use crate::share::change_hints::ChangeHints;
use crate::share::hasher::Hasher;
use crate::share::inspector::{Inspection, Inspector};
use crate::share::limits::QUIET;
use crate::share::publish_error::PublishError;
use crate::share::recorder::Recorder;
use crate::share::scanner::Scanner;
use crate::share::setup::{IndexerCommand, ShareSetup};
use crate::share::shared_dir::{DirSwap, SharedDir};
use crate::share::watch::PathChange;
use crate::share::wholeness::hides;
use crate::share::withdrawn::Withdrawn;
use crate::share::write_debounce::WriteDebounce;
use crate::store::{Copies, ReadRoot};

mod bare;
mod hashing;
mod publishing;
mod rechecking;
mod walking;

#[cfg(test)]
mod tests;

/// Turns hints of changes into a catalogue: take hints, inspect paths, hash files, record digests,
/// publish.
///
/// A path that may have changed is inspected, and only what is found there decides. Each walk
/// inspects all paths in the same way, so a change that no hint reported is found by the next walk.
pub(super) struct Indexer {
    dir: SharedDir,
    inspector: Inspector,
    hints: ChangeHints,
    debounce: WriteDebounce,
    scanner: Scanner,
    hasher: Hasher,
    recorder: Recorder,
    draft: CatalogueDraft,
    withdrawn: Withdrawn,
    commands: Receiver<IndexerCommand>,
    callers: Callers,
    shutdown: Shutdown,
}

impl Indexer {
    pub(super) fn new(
        setup: ShareSetup,
        commands: Receiver<IndexerCommand>,
        callers: Callers,
        hashed_bytes: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let root = std::fs::canonicalize(&setup.dir)?;
        let reads = Arc::new(ReadRoot::open(&root)?);
        let mut draft = CatalogueDraft::new(setup.catalogue, setup.reader, setup.events.clone(), now);
        draft.whole.set_root(&root, now);
        Ok(Indexer {
            dir: SharedDir::new(setup.dir, now, &setup.shutdown),
            hasher: Hasher::start(reads.clone(), hashed_bytes)?,
            recorder: Recorder::new(setup.index, setup.records.map(|state| Copies::new(&state, &root)), now),
            inspector: Inspector::new(root, reads, setup.own_files, now),
            hints: ChangeHints::default(),
            debounce: WriteDebounce::default(),
            scanner: Scanner::new(now),
            draft,
            withdrawn: Withdrawn::new(setup.events),
            commands,
            callers,
            shutdown: setup.shutdown,
        })
    }

    /// Runs until the shutdown begins or the [`Sharer`](crate::share::Sharer) is dropped.
    pub(super) fn run(mut self) {
        let (changes, done, commands) = (self.dir.changes(), self.hasher.done(), self.commands.clone());
        while !self.shutdown.has_begun() {
            self.inspect_due(Instant::now());
            self.hasher.pump();
            self.record_and_publish(Instant::now());
            let wait = self.wake_at().saturating_duration_since(Instant::now());
            select! {
                recv(changes) -> change => self.take_hints(change.ok().into_iter().chain(changes.try_iter())),
                recv(done) -> outcomes => {
                    for outcomes in outcomes.ok().into_iter().chain(done.try_iter()) {
                        self.hasher.took();
                        outcomes.into_iter().for_each(|o| self.take_outcome(o));
                        self.hasher.pump();
                    }
                }
                recv(commands) -> command => match command {
                    Ok(IndexerCommand::Withdraw(entry)) => self.withdraw(&entry),
                    Ok(IndexerCommand::Recheck(entry)) => self.recheck(&entry),
                    Ok(IndexerCommand::Publish(name, answer)) => self.publish(&name, answer),
                    Ok(IndexerCommand::Look(names)) => self.look(&names),
                    Ok(IndexerCommand::Forget(name, answer)) => self.forget(&name, answer),
                    Ok(IndexerCommand::Wake) => {}
                    Err(_) => break,
                },
                default(wait) => {}
            }
        }
        self.record(Instant::now());
        self.recorder.finish();
    }

    /// When there is something to do if nothing arrives before.
    fn wake_at(&self) -> Instant {
        let has_walk = self.scanner.is_walking() || self.scanner.has_next_tree();
        if has_walk && self.dir.is_there() && !self.hasher.is_full() || self.recorder.is_pruning() {
            return Instant::now();
        }
        let can_rescan = self.dir.is_there() && self.hasher.pending() == 0;
        let rescan = can_rescan.then(|| self.scanner.rescan_at());
        let publish = self.publish_at();
        let all = [self.hints.due_at(), self.debounce.wake_at(), rescan, self.recorder.wake_at(), publish];
        all.into_iter().flatten().fold(self.dir.poll_at(), Instant::min)
    }

    // ---- hints ----

    fn take_hints(&mut self, changes: impl Iterator<Item = PathChange>) {
        let now = Instant::now();
        if !self.hints.add(changes, now) {
            self.scanner.rescan_by(now);
        }
    }

    /// Inspects what is due, in small portions.
    fn inspect_due(&mut self, now: Instant) {
        self.refresh_own_files(now);
        if let Some(swap) = self.dir.poll(now) {
            self.change_dir(swap, now);
        }
        if self.recorder.was_replaced() {
            // Without its layer a file cannot be fetched.
            self.drop_all();
            self.scanner.rescan_by(now);
        }
        if self.dir.take_lost() {
            log::info!("hints of changes lost, scanning again path={}", self.inspector.root().display());
            self.dir.begin_watch(self.inspector.root(), self.inspector.own_names());
            self.scanner.rescan_by(now);
        }
        if let Some((changed, links)) = self.hints.take_due(now) {
            self.inspect_hints(changed, links, now);
        }
        while let Some(path) = self.debounce.next_due(now) {
            self.inspect_debounced(&path, now);
        }
        self.continue_walk(now);
    }

    /// The directory was removed, replaced, mounted over, or is back.
    fn change_dir(&mut self, swap: DirSwap, now: Instant) {
        if swap.was_there {
            // What is being hashed lies in the former directory: it counts only after an inspection
            // of the new one.
            self.recorder.disturb();
            self.recorder.drop_hashed();
        }
        self.scanner.clear(!swap.was_there || swap.found.is_none());
        self.hasher.clear();
        self.debounce.clear();
        self.hints.clear_links();
        self.callers.fail_all();
        let Some(root) = swap.found else {
            self.drop_all();
            return;
        };
        self.recorder.set_root(&root);
        self.draft.whole.set_root(&root, now);
        self.inspector.set_root(root);
        self.dir.begin_watch(self.inspector.root(), self.inspector.own_names());
        self.scanner.rescan_by(now);
    }

    fn drop_all(&mut self) {
        self.draft.below("").iter().for_each(|path| self.draft.drop(path));
        self.drop_bare_below("");
    }

    /// Looks at what the own files are now, and inspects offered files that turned out to be one.
    fn refresh_own_files(&mut self, now: Instant) {
        let new = self.inspector.refresh_own_files(now);
        if new.is_empty() {
            return;
        }
        // A file that is being hashed may be one of them, too.
        self.recorder.disturb();
        for name in self.draft.with_inodes(&new) {
            self.inspect_name(name.as_str(), false, now);
        }
    }

    // ---- inspecting ----

    fn inspect_hints(&mut self, changed: HashMap<PathBuf, bool>, links: Vec<RelPath>, now: Instant) {
        self.recorder.disturb();
        self.recorder.begin_lookup();
        let mut names = BTreeSet::new();
        self.hints.take_inodes();
        for (path, tree) in changed {
            match self.inspector.name(&path) {
                Some(name) if name.is_empty() => {
                    self.dir.poll_soon(now);
                    if tree {
                        self.scanner.rescan_by(now);
                    }
                }
                Some(name) => {
                    self.inspect_name(&name, tree, now);
                    names.insert(name);
                }
                None => {}
            }
        }
        self.note_dirs_above(&names, now);
        self.inspect_other_names(now);
        for link in links {
            self.inspect_name(link.as_str(), false, now);
        }
        self.recorder.end_lookup();
    }

    /// Inspects a name that may be a file, a directory, or nothing where either was. `tree`: what
    /// lies below it may have changed as well.
    fn inspect_name(&mut self, name: &str, tree: bool, now: Instant) {
        let path = self.inspector.path_of(name);
        let found = self.inspector.inspect(&path);
        if found == Inspection::Dir {
            // A file was there before, perhaps. No walk finds it.
            if let Ok(name) = RelPath::new(name) {
                self.take_out(&name);
                self.note_link(&name, &found, now);
                self.note_dir(&name, now);
            }
            if tree {
                self.scanner.add_tree(name, now);
            }
            return;
        }
        for below in self.draft.below(name) {
            self.take_out(&below);
        }
        self.drop_bare_below(name);
        if let Some(name) = self.inspector.valid(name, &path) {
            self.apply(&name, &path, found, now);
        }
    }

    fn inspect_debounced(&mut self, name: &RelPath, now: Instant) {
        let path = self.inspector.path_of(name.as_str());
        match self.inspector.inspect(&path) {
            // It was published meanwhile.
            Inspection::File { state, .. } if self.draft.get(name).is_some_and(|e| state.is_of(e)) => {
                self.debounce.forget(name);
            }
            Inspection::File { state, owner_only, .. } => {
                if self.debounce.is_quiet(name, state, now) && !(owner_only && self.inspector.is_private_key(name)) {
                    self.hash(name, state);
                }
            }
            found => self.apply(name, &path, found, now),
        }
    }

    /// Brings the draft in line with what was found at `path`.
    fn apply(&mut self, name: &RelPath, path: &Path, found: Inspection, now: Instant) {
        self.draft.whole.settle(name.as_str());
        self.note_link(name, &found, now);
        self.note_inodes(name, &found);
        if let Inspection::DirLink(_) = found {
            self.hints.follow(name);
            self.debounce.forget(name);
            return self.take_out(name);
        }
        let Inspection::File { state, is_linked, owner_only, .. } = found else {
            self.debounce.forget(name);
            self.hints.unfollow(name);
            self.withdrawn.forget(name);
            self.take_out(name);
            self.inspector.log_if_skipped(path, &found);
            if matches!(found, Inspection::Skip(_)) && hides(path) {
                self.draft.whole.hide(name.as_str(), now);
            }
            return;
        };
        if is_linked {
            self.hints.follow(name);
        }
        if self.draft.get(name).is_some_and(|e| state.is_of(e)) {
            self.debounce.forget(name);
            return;
        }
        let was_offered = self.draft.get(name).is_some();
        self.draft.drop(name);
        if self.withdrawn.contains(name, state) || owner_only && self.inspector.is_private_key(name) {
            self.debounce.forget(name);
            self.take_out(name);
            return;
        }
        if self.withdrawn.is_unreadable(name, state) && self.inspector.try_open(name).is_err() {
            self.debounce.forget(name);
            self.take_out(name);
            return;
        }
        self.withdrawn.forget(name);
        if was_offered && self.callers.wait_for(name) {
            // It changed before a snapshot had it. Waiting for quiet may take for ever.
            return self.postpone(name, now);
        }
        let known = self.recorder.known(name, state);
        if !self.draft.has_room() {
            self.inspector.skip_rest();
            self.draft.whole.hide(name.as_str(), now);
            self.callers.not_shared(name, "the catalogue is full");
        } else if let Some(id) = known {
            self.debounce.forget(name);
            let marks = self.marked(name, &id, state.marks, now);
            self.draft.put(Entry { path: name.clone(), id, stamp: state.stamp, marks });
        } else if state.is_quiet() {
            self.debounce.forget(name);
            self.hash(name, state);
        } else if !self.debounce.see(name, state, now) {
            self.scanner.rescan_by(now + 2 * QUIET);
        }
    }

    /// Offers `name` no longer. What waits until it is published learns that it will not be.
    fn take_out(&mut self, name: &RelPath) {
        self.draft.drop(name);
        self.callers.fail(name, &PublishError::Changed(name.clone()));
    }

    // ---- withdrawing ----

    fn withdraw(&mut self, entry: &Entry) {
        if self.draft.get(&entry.path) == Some(entry.view()) {
            self.withdrawn.add(entry);
            self.take_out(&entry.path);
            self.recorder.forget(&entry.path);
        }
    }

    // ---- publishing ----

    /// Whether more is about to change.
    fn is_busy(&self) -> bool {
        self.scanner.is_walking() || self.hasher.pending() > 0 || self.recorder.has_hashed()
    }

    /// When the next snapshot is due. One that a caller waits for does not wait for other files.
    fn publish_at(&self) -> Option<Instant> {
        let is_busy = self.is_busy() && !self.callers.is_waiting();
        self.draft.due(is_busy, self.is_complete(), self.inspector.unnamed_count())
    }

    /// Whether the draft has all files but the ones that are being written.
    fn is_complete(&self) -> bool {
        self.scanner.is_complete() && !self.is_busy() && self.debounce.only_changing()
    }

    fn record_and_publish(&mut self, now: Instant) {
        if self.recorder.is_due(self.hasher.pending() == 0, now) {
            self.record(now);
        }
        self.recorder.sync_if_due(now);
        let is_complete = self.is_complete();
        self.draft.whole.set_settled(is_complete && self.is_settled());
        if self.publish_at().is_some_and(|at| now >= at) {
            self.draft.publish(is_complete, self.inspector.unnamed_count());
        }
        self.answer_callers();
        self.callers.hashing_left.store(self.hasher.pending() as u64, Ordering::Relaxed);
        if is_complete && self.draft.is_published() {
            self.recorder.calm();
            if self.callers.ready.read(Option::is_none) {
                let all = self.draft.published();
                self.callers.ready.update(|r| *r = Some((all.len() as u64, all.bytes())));
            }
            self.recorder.prune(self.draft.published(), now);
        }
    }
}
